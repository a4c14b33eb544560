package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// Terms are what all tasks of a tower judge and deal rows by.
type Terms struct {
	Shards int
	Metric index.Metric
	Dim    int
	// Schema is that of the tower: Rows are the attributes that come with the rows, and
	// Lines those of JSON Lines, each in the order of their readers.
	Schema      attribute.Schema
	Rows, Lines []attribute.Field
	// Files are the names of the files of rows, for people, and Starts the numbers of the
	// first row of each.
	Files  []string
	Starts []int64
	// Forgotten are the users who are left out.
	Forgotten live.Forgotten
}

// Row says where a row is, by its number in the whole input: the file, if there are several,
// and its number there, from 0.
func (t *Terms) Row(number int64) string {
	if len(t.Files) < 2 {
		return fmt.Sprintf("row %d", number)
	}
	file := sort.Search(len(t.Starts), func(i int) bool { return t.Starts[i] > number }) - 1
	return fmt.Sprintf("row %d of %s", number-t.Starts[file], t.Files[file])
}

// Step is told how many rows or lines were read. It may be nil.
type Step func(done int64)

// checkEvery is how many rows pass between looks at the context and reports.
const checkEvery = 4096

// spreading is what a task does.
type spreading struct {
	*Terms
	w   *Writer
	s   *Summary
	met map[live.UserHash]bool
}

// finish notes who was met.
func (sp *spreading) finish() {
	for h := range sp.met {
		sp.s.Met = append(sp.s.Met, h)
	}
	slices.SortFunc(sp.s.Met, func(a, b live.UserHash) int { return bytes.Compare(a[:], b[:]) })
}

// leave reports whether a user is to be left out, and notes it.
func (sp *spreading) leave(id string) bool {
	hash, is := sp.Forgotten.Lookup(id)
	if is {
		sp.met[hash] = true
	}
	return is
}

// OtherShardError says that a row is in the rows of a shard to which it does not belong.
type OtherShardError struct {
	Row       string // where the row is
	ID        string
	Have, Own int // shards
}

// Error implements [error].
func (e *OtherShardError) Error() string {
	return fmt.Sprintf("%s (id %.64q) is among the rows of shard %d and belongs to shard %d: the shard is the xxHash64, seed 0, of the bytes of the id as an unsigned number, modulo the number of shards", e.Row, e.ID, e.Have, e.Own)
}

// Rows deals the rows of a reader to the shards of w.
func Rows(ctx context.Context, r tower.Reader, t *Terms, w *Writer, step Step) (*Summary, error) {
	sp := &spreading{Terms: t, w: w, s: NewSummary(), met: map[live.UserHash]bool{}}
	columns := t.columns(t.Rows)
	err := each(ctx, step, func() error {
		row, err := r.Next()
		if err != nil {
			return err
		}
		sp.s.Read++
		if sp.leave(row.ID) {
			return nil
		}
		if kind, err := t.judge(row, columns); err != nil {
			sp.s.Rejections.Add(Place{OfRows, row.Number}, kind, fmt.Sprintf("%s (id %.64q): %v", t.Row(row.Number), row.ID, err))
			return nil
		}
		sp.s.Rows++
		sp.s.Sample.Offer(row.ID, row.Number, row.Vector)
		return w.Add(shard.Partition(row.ID, t.Shards), &Record{Number: row.Number, ID: row.ID, Vector: row.Vector, Attributes: row.Attributes})
	})
	sp.finish()
	return sp.s, err
}

// Lines deals the lines of a reader to the shards of w.
func Lines(ctx context.Context, r *tower.AttributeReader, t *Terms, w *Writer, step Step) (*Summary, error) {
	sp := &spreading{Terms: t, w: w, s: NewSummary(), met: map[live.UserHash]bool{}}
	columns := t.columns(t.Lines)
	err := each(ctx, step, func() error {
		row, err := r.Next()
		if err != nil {
			return err
		}
		sp.s.Lines++
		if sp.leave(row.ID) {
			return nil
		}
		record := Record{Number: row.Line, ID: row.ID, Attributes: row.Attributes}
		if len(row.Problems) > 0 {
			p := row.Problems[0]
			sp.s.Rejections.Add(Place{OfLines, row.Line}, string(p.Kind), fmt.Sprintf("%s (id %.64q)", p.Detail, row.ID))
			record.Rejected = true
		} else if kind, err := t.judgeAttributes(columns, row.Attributes); err != nil {
			sp.s.Rejections.Add(Place{OfLines, row.Line}, kind, fmt.Sprintf("%s (id %.64q): %v", r.Place(row.Line), row.ID, err))
			record.Rejected = true
		}
		if row.ID == "" {
			return nil // counted above; there is no row to leave out
		}
		return w.Add(shard.Partition(row.ID, t.Shards), &record)
	})
	sp.finish()
	return sp.s, err
}

// each calls next until it returns [io.EOF].
func each(ctx context.Context, step Step, next func() error) error {
	for n := int64(0); ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if step != nil {
				step(n)
			}
		}
		err := next()
		if errors.Is(err, io.EOF) {
			if step != nil {
				step(n)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// columns returns the schema positions of fields.
func (t *Terms) columns(fields []attribute.Field) []int {
	columns := make([]int, len(fields))
	for i, f := range fields {
		columns[i], _ = t.Schema.Lookup(f.Name)
	}
	return columns
}

// judge returns why a row cannot be served, or nil.
func (t *Terms) judge(row *tower.Row, columns []int) (kind string, err error) {
	if kind, err := judgeID(row.ID); err != nil {
		return kind, err
	}
	problem := func() (string, error) {
		return string(row.Problems[0].Kind), errors.New(row.Problems[0].Detail)
	}
	if len(row.Problems) > 0 && row.Problems[0].Kind == tower.BadEmbedding { // there is no vector, and this says why
		return problem()
	}
	if len(row.Vector) != t.Dim {
		return "wrong dimension", fmt.Errorf("embedding has %d numbers%s, want %d", len(row.Vector), AsBytes(len(row.Vector), row.Packed), t.Dim)
	}
	if kind, err := judgeVector(t.Metric, row.Vector); err != nil {
		return kind, err
	}
	if len(row.Problems) > 0 {
		return problem()
	}
	return t.judgeAttributes(columns, row.Attributes)
}

// judgeAttributes returns why values cannot be stored as the attributes of those
// schema positions, or nil.
func (t *Terms) judgeAttributes(columns []int, values []attribute.Value) (kind string, err error) {
	for i, v := range values {
		if err := t.Schema.Field(columns[i]).Check(v); err != nil {
			return "invalid attribute", err
		}
	}
	return "", nil
}

// AsBytes says of numbers whether they were bytes.
func AsBytes(numbers int, packed bool) string {
	if !packed {
		return ""
	}
	return fmt.Sprintf(" (%d bytes, read as float32)", 4*numbers)
}
