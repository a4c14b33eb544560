package rowlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// Bounds of a file. Those of what a file says of itself are far above what Encode writes for 64
// MiB of rows, and keep what a small file can make its reader allocate and do in bounds.
const (
	// MaxFileBytes is the largest file that is read.
	MaxFileBytes   = 256 << 20
	maxFooterBytes = 256 << 10
	// MaxPageBytes is the largest page, decompressed, and MaxValues how many values a column has
	// at most.
	MaxPageBytes = 128 << 20
	MaxValues    = 8 << 20
)

var limits = parquetfile.Limits{FooterBytes: maxFooterBytes, PageBytes: MaxPageBytes, UnpackedBytes: MaxFileBytes}

// A cursor is at a column of the row group being read.
type cursor[R any] struct {
	*Column[R]
	leaf     int
	def      int16               // the level of values
	values   int64               // in all row groups so far
	elements int                 // of the row that was read last
	chunk    *parquetfile.Column // nil between row groups
	pos      int                 // next level of the batch
	at       int                 // next value of the batch
}

// reader reads the rows of a file.
type reader[R any] struct {
	format  *Format[R]
	file    *parquetfile.File
	cursors []cursor[R]
	group   int   // that is read next
	left    int64 // rows left in the row group
	number  int   // of the next row
}

// Decode returns the rows in the bytes of a file, in its order. Each is the caller's. The first
// error, of class [Format.Damaged], is the last thing returned.
func (f *Format[R]) Decode(data []byte) iter.Seq2[*R, error] {
	return func(yield func(*R, error) bool) {
		r, err := f.open(data)
		if err != nil {
			yield(nil, fmt.Errorf("%w: %w", f.Damaged, err))
			return
		}
		defer r.close()
		for {
			row, err := r.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("%w: row %d: %w", f.Damaged, r.number, err))
				return
			}
			if !yield(row, nil) {
				return
			}
			r.number++
		}
	}
}

// open checks a file and finds its columns.
func (f *Format[R]) open(data []byte) (*reader[R], error) {
	file, err := parquetfile.OpenWithin(bytes.NewReader(data), int64(len(data)), limits)
	if err != nil {
		return nil, err
	}
	switch v, ok := file.Value(f.VersionKey); {
	case !ok:
		return nil, fmt.Errorf("it does not say in its metadata that it has %s (%s)", f.Rows, f.VersionKey)
	case v != f.Version:
		return nil, fmt.Errorf("it is of version %.20q; this program reads %s", v, f.Version)
	}
	r := &reader[R]{format: f, file: file}
	s := file.Schema()
	for i := range f.Columns {
		c := &f.Columns[i]
		leaf := s.ColumnIndexByName(c.path())
		if leaf < 0 {
			if c.Needed {
				return nil, fmt.Errorf("it has no column %s", c.path())
			}
			continue
		}
		if err := c.check(s.Column(leaf)); err != nil {
			return nil, err
		}
		_, def := c.levels()
		r.cursors = append(r.cursors, cursor[R]{Column: c, leaf: leaf, def: def})
	}
	return r, nil
}

// check checks that a leaf is the column.
func (c *Column[R]) check(leaf *schema.Column) error {
	rep, def := c.levels()
	if leaf.PhysicalType() == c.Physical && leaf.LogicalType().Equals(c.Logical) &&
		leaf.MaxRepetitionLevel() == rep && leaf.MaxDefinitionLevel() == def {
		return nil
	}
	return fmt.Errorf("column %s is %v, %v at levels %d and %d, want %v, %v at %d and %d", c.path(),
		leaf.PhysicalType(), leaf.LogicalType(), leaf.MaxRepetitionLevel(), leaf.MaxDefinitionLevel(), c.Physical, c.Logical, rep, def)
}

// close lets go of the row group.
func (r *reader[R]) close() {
	for i := range r.cursors {
		_ = r.cursors[i].close() // it was only read
	}
}

func (c *cursor[R]) close() error {
	if c.chunk == nil {
		return nil
	}
	chunk := c.chunk
	c.chunk = nil
	return chunk.Close()
}

// next returns the next row, io.EOF after the last.
func (r *reader[R]) next() (*R, error) {
	for r.left == 0 {
		if err := r.advance(); err != nil {
			return nil, err
		}
	}
	r.left--
	row := r.format.Blank()
	for i := range r.cursors {
		c := &r.cursors[i]
		var err error
		if c.List != nil {
			err = c.list(&row)
		} else {
			err = c.value(&row)
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.path(), err)
		}
	}
	for i := range r.cursors {
		if c := &r.cursors[i]; c.List != nil && c.elements != c.List.Len(&row) {
			return nil, fmt.Errorf("column %s: it has %d values where another of its list has %d", c.path(), c.elements, c.List.Len(&row))
		}
	}
	return &row, nil
}

// value takes the value of a row.
func (c *cursor[R]) value(row *R) error {
	if err := c.ensure(); err != nil {
		return err
	}
	if c.def == 0 || c.chunk.Def[c.pos] == c.def {
		if err := c.Set(row, 0, &c.chunk.Batch, c.at); err != nil {
			return err
		}
		c.at++
	}
	c.pos++
	return nil
}

// list takes the values of the elements of a row.
func (c *cursor[R]) list(row *R) error {
	c.elements = 0
	if err := c.ensure(); err != nil {
		return err
	}
	for {
		if def := c.chunk.Def[c.pos]; def > 0 { // else the list is empty
			if c.elements == c.List.Most {
				return fmt.Errorf("more than %d %s", c.List.Most, c.List.Name)
			}
			if c.elements == c.List.Len(row) {
				c.List.Grow(row)
			}
			if def == c.def {
				if err := c.Set(row, c.elements, &c.chunk.Batch, c.at); err != nil {
					return err
				}
				c.at++
			}
			c.elements++
		}
		if c.pos++; c.pos == c.chunk.Levels {
			if err := c.load(); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return err
			}
		}
		if c.chunk.Rep[c.pos] == 0 {
			return nil
		}
	}
}

// load reads the next batch.
func (c *cursor[R]) load() error {
	c.pos, c.at = 0, 0
	return c.chunk.Next()
}

// ensure makes pos a level of the next row.
func (c *cursor[R]) ensure() error {
	if c.pos < c.chunk.Levels {
		return nil
	}
	err := c.load()
	if errors.Is(err, io.EOF) {
		err = errors.New("has fewer rows than its row group")
	}
	return err
}

// advance goes to the next row group.
func (r *reader[R]) advance() error {
	for i := range r.cursors {
		c := &r.cursors[i]
		if c.chunk == nil {
			continue
		}
		if c.pos < c.chunk.Levels {
			return fmt.Errorf("column %s: has more rows than its row group", c.path())
		}
		switch err := c.load(); {
		case err == nil:
			return fmt.Errorf("column %s: has more rows than its row group", c.path())
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("column %s: %w", c.path(), err)
		}
		if err := c.close(); err != nil {
			return err
		}
	}
	if r.group == r.file.Groups() {
		return io.EOF
	}
	for i := range r.cursors {
		c := &r.cursors[i]
		var err error
		if c.chunk, err = r.file.Column(r.group, c.leaf); err != nil {
			return fmt.Errorf("column %s: %w", c.path(), err)
		}
		if c.values += c.chunk.Total(); c.values > MaxValues {
			return fmt.Errorf("column %s: more than %d values", c.path(), MaxValues)
		}
		c.pos, c.at = 0, 0
	}
	r.left = r.file.GroupRows(r.group)
	r.group++
	return nil
}

// unknownColumns lists the columns of a file that has been read which a later version has added.
func (f *Format[R]) unknownColumns(data []byte) (list []string) {
	file, err := parquetfile.OpenWithin(bytes.NewReader(data), int64(len(data)), limits)
	if err != nil {
		return []string{err.Error()}
	}
	known := map[string]bool{}
	for i := range f.Columns {
		known[f.Columns[i].path()] = true
	}
	s := file.Schema()
	for i := range s.NumColumns() {
		if path := s.Column(i).Path(); !known[path] {
			list = append(list, path)
		}
	}
	return list
}
