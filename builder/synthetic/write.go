package synthetic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// The files that Write writes, and their id columns.
const (
	AppsFile         = "apps.parquet"
	UsersFile        = "users.parquet"
	InteractionsFile = "interactions.parquet" // user_id, app_id, played_at
	AppIDColumn      = "app_id"
	UserIDColumn     = "user_id"
)

// progressRows is how many rows of a file are between two calls of progress.
const progressRows = 4096

// Write generates the towers and writes them into a folder, which it makes:
// apps.parquet, users.parquet and, if there are any, interactions.parquet. A
// file appears when it is whole. When progress is not nil it is called now and
// then, not concurrently, with the rows done; a user's interactions are one row.
func Write(ctx context.Context, dir string, o Options, progress func(done, total int64)) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("synthetic towers: %w", err)
	}
	o = o.withDefaults()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("synthetic towers: %w", err)
	}
	total := o.Apps + o.Users
	if o.Interactions > 0 {
		total += o.Users
	}
	var mu sync.Mutex
	done := int64(0)
	count := func(rows int64) {
		mu.Lock()
		defer mu.Unlock()
		done += rows
		if progress != nil {
			progress(done, total)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	file := func(name string, po tower.ParquetOptions, rows int64, write func(*Generator, int64, *tower.ParquetWriter) error) {
		group.Go(func() error { return writeFile(ctx, filepath.Join(dir, name), o, po, rows, write, count) })
	}
	rowGroup := min(max(32<<20/(4*o.Dim), 256), tower.DefaultRowGroupRows)
	file(AppsFile, tower.ParquetOptions{
		IDColumn: AppIDColumn, EmbeddingColumn: tower.DefaultEmbeddingColumn, Schema: AppSchema(), RowGroupRows: rowGroup,
	}, o.Apps, rowWriter((*Generator).App))
	file(UsersFile, tower.ParquetOptions{
		IDColumn: UserIDColumn, EmbeddingColumn: tower.DefaultEmbeddingColumn, Schema: UserSchema(), RowGroupRows: rowGroup,
	}, o.Users, rowWriter((*Generator).User))
	if o.Interactions > 0 {
		file(InteractionsFile, tower.ParquetOptions{
			IDColumn: UserIDColumn, Schema: interactionSchema(),
		}, o.Users, interactionWriter())
	}
	return group.Wait()
}

// writeFile writes one file of rows, each of which write appends.
func writeFile(ctx context.Context, path string, o Options, po tower.ParquetOptions, rows int64, write func(*Generator, int64, *tower.ParquetWriter) error, count func(int64)) (err error) {
	g, err := New(o)
	if err != nil {
		return err
	}
	w, err := tower.CreateParquet(path, po)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Abort()) }()
	counted := int64(0)
	for i := range rows {
		if i-counted == progressRows {
			if err := ctx.Err(); err != nil {
				return err
			}
			count(i - counted)
			counted = i
		}
		if err := write(g, i, w); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	count(rows - counted)
	return nil
}

// rowWriter appends what generate makes.
func rowWriter(generate func(*Generator, int64, *tower.Row)) func(*Generator, int64, *tower.ParquetWriter) error {
	var row tower.Row
	return func(g *Generator, i int64, w *tower.ParquetWriter) error {
		generate(g, i, &row)
		return w.Append(&row)
	}
}

func interactionSchema() attribute.Schema {
	return schemaOf([]attribute.Field{
		{Name: AppIDColumn, Type: attribute.Keyword},
		{Name: "played_at", Type: attribute.Timestamp},
	})
}

// interactionWriter appends the interactions of a user.
func interactionWriter() func(*Generator, int64, *tower.ParquetWriter) error {
	var plays []Interaction
	row := tower.Row{Attributes: make([]attribute.Value, 2)}
	return func(g *Generator, i int64, w *tower.ParquetWriter) error {
		plays = g.Interactions(i, plays[:0])
		row.ID = UserID(i)
		for _, p := range plays {
			row.Attributes[0] = attribute.OfKeyword(AppID(p.App))
			row.Attributes[1] = attribute.OfTimestamp(p.PlayedAt)
			if err := w.Append(&row); err != nil {
				return err
			}
		}
		return nil
	}
}
