package tower

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// InteractionOptions say which users used which apps.
type InteractionOptions struct {
	// Paths are Parquet files, or CSV files, which may be compressed by gzip or zstd and of
	// which the first lines name the columns; folders of them, globs, and URLs. See
	// [input.Open]. Other columns are not read.
	Paths []string
	// Files are the files of Paths, if they are open already; then the caller closes them.
	Files *input.Set
	// UserColumn and AppColumn name the columns of ids, strings or integers.
	UserColumn, AppColumn string
}

// InteractionsPathError says that a path cannot be one of interactions: there is no such
// file, or it is of another sort.
type InteractionsPathError struct{ Err error }

func (e InteractionsPathError) Error() string { return e.Err.Error() }
func (e InteractionsPathError) Unwrap() error { return e.Err }

// OpenInteractions opens the files of Paths. The caller closes them.
func OpenInteractions(ctx context.Context, o InteractionOptions, how input.Options) (*input.Set, error) {
	set, err := input.Open(ctx, o.Paths, AcceptInteractions(o), how)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, input.ErrForeign) {
		err = InteractionsPathError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("read interactions: %w", err)
	}
	return set, nil
}

// ReadInteractions calls each with every interaction, in the order of the files. The
// strings are good for ever. An error of each ends the reading and is returned.
func ReadInteractions(ctx context.Context, o InteractionOptions, each func(user, app string) error) (err error) {
	if o.Files == nil {
		if o.Files, err = OpenInteractions(ctx, o, input.Options{}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Files.Close()) }()
	}
	for _, f := range o.Files.Files() {
		head, err := headOf(f)
		if err != nil {
			return err
		}
		read := readCSVPairs
		if input.FormatOf(head) == input.Parquet {
			read = readParquetPairs
		}
		if err := read(o, f, each); err != nil {
			return fmt.Errorf("read interactions %s: %w", f.Name(), err)
		}
	}
	return nil
}

// columnsOf returns the positions of the two columns.
func (o *InteractionOptions) columnsOf(names []string) (user, app int, err error) {
	user, app = slices.Index(names, o.UserColumn), slices.Index(names, o.AppColumn)
	for _, c := range []struct {
		at   int
		name string
	}{{user, o.UserColumn}, {app, o.AppColumn}} {
		if c.at < 0 {
			return 0, 0, fmt.Errorf("no column is called %s; the columns are %.500s", c.name, strings.Join(names, ", "))
		}
	}
	return user, app, nil
}

func readCSVPairs(o InteractionOptions, f input.File, each func(user, app string) error) (err error) {
	text, err := openText(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.Close()) }()
	br := bufio.NewReaderSize(text, maxCSVHeader)
	first, err := br.Peek(maxCSVHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(first) == 0 {
		return errors.New("it is empty: the first line must name the columns")
	}
	delimiter, user, app, err := o.header(first)
	if err != nil {
		return err
	}
	r := csv.NewReader(br)
	r.Comma, r.ReuseRecord = delimiter, true
	if _, err := r.Read(); err != nil { // the names
		return err
	}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(record[user], record[app]); err != nil {
			return err
		}
	}
}

// maxCSVHeader is the longest first line of CSV, in bytes.
const maxCSVHeader = 64 << 10

func readParquetPairs(o InteractionOptions, f input.File, each func(user, app string) error) (err error) {
	pf, err := openParquetFile(f)
	if err != nil {
		return err
	}
	all, err := shapes(pf.Metadata().Schema)
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.name
	}
	user, app, err := o.columnsOf(names)
	if err != nil {
		return err
	}
	for _, i := range []int{user, app} {
		if t := all[i].attribute(); t != attribute.Keyword && t != attribute.Int {
			return fmt.Errorf("column %s is %s, want strings or integers", all[i].name, all[i].text)
		}
	}
	columns := [2]*column{{shape: all[user]}, {shape: all[app]}}
	defer func() { err = errors.Join(err, columns[0].close(), columns[1].close()) }()
	for _, group := range pf.RowGroups() {
		if err := readPairs(group, columns, each); err != nil {
			return err
		}
	}
	return nil
}

// readPairs reads one row group.
func readPairs(group parquet.RowGroup, columns [2]*column, each func(user, app string) error) error {
	if err := openPairs(group, columns); err != nil {
		return err
	}
	for range group.NumRows() {
		user, app, err := nextPair(columns)
		if err != nil {
			return err
		}
		if err := each(user, app); err != nil {
			return err
		}
	}
	return nil
}

func openPairs(group parquet.RowGroup, columns [2]*column) (err error) {
	defer guard(&err)
	chunks := group.ColumnChunks()
	for _, c := range columns {
		if err := c.open(chunks[c.leaf]); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}

func nextPair(columns [2]*column) (user, app string, err error) {
	defer guard(&err)
	for i, id := range []*string{&user, &app} {
		if *id, err = columns[i].id(); err != nil {
			return "", "", fmt.Errorf("column %s: %w", columns[i].name, err)
		}
	}
	return user, app, nil
}
