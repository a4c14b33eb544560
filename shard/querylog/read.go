package querylog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// ErrDamaged is the class of every error that says that a file of queries is not what
// [Encode] writes.
var ErrDamaged = errors.New("damaged file of queries")

// Bounds of a file. Those of what a file says of itself are far above what [Encode]
// writes for 64 MiB of queries, and keep what a small file can make its reader allocate
// and do in bounds.
const (
	// MaxFileBytes is the largest file that is read.
	MaxFileBytes   = 256 << 20
	maxFooterBytes = 256 << 10
	maxPageBytes   = 128 << 20 // decompressed
	maxValues      = 8 << 20   // in one column
)

var limits = parquetfile.Limits{FooterBytes: maxFooterBytes, PageBytes: maxPageBytes, UnpackedBytes: MaxFileBytes}

// A cursor is at a column of the row group being read.
type cursor struct {
	*column
	leaf   int
	values int64               // in all row groups so far
	chunk  *parquetfile.Column // nil between row groups
	pos    int                 // next level of the batch
	at     int                 // next value of the batch
}

// reader reads the rows of a file.
type reader struct {
	file    *parquetfile.File
	cursors []cursor
	group   int   // that is read next
	left    int64 // rows left in the row group
	number  int   // of the next row
}

// Decode returns the queries in the bytes of a file, in its order. Each is the
// caller's. The first error, of class [ErrDamaged], is the last thing returned.
func Decode(data []byte) iter.Seq2[*Query, error] {
	return func(yield func(*Query, error) bool) {
		r, err := open(data)
		if err != nil {
			yield(nil, fmt.Errorf("%w: %w", ErrDamaged, err))
			return
		}
		defer r.close()
		for {
			q, err := r.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("%w: row %d: %w", ErrDamaged, r.number, err))
				return
			}
			if !yield(q, nil) {
				return
			}
			r.number++
		}
	}
}

// open checks a file and finds its columns.
func open(data []byte) (*reader, error) {
	f, err := parquetfile.OpenWithin(bytes.NewReader(data), int64(len(data)), limits)
	if err != nil {
		return nil, err
	}
	switch v, ok := f.Value(versionKey); {
	case !ok:
		return nil, fmt.Errorf("it does not say in its metadata that it has queries (%s)", versionKey)
	case v != Version:
		return nil, fmt.Errorf("it is of version %.20q; this program reads %s", v, Version)
	}
	r := &reader{file: f}
	s := f.Schema()
	for i := range columns {
		c := &columns[i]
		leaf := s.ColumnIndexByName(c.name)
		if leaf < 0 {
			if c.needed {
				return nil, fmt.Errorf("it has no column %s", c.name)
			}
			continue
		}
		if err := c.check(s.Column(leaf)); err != nil {
			return nil, err
		}
		r.cursors = append(r.cursors, cursor{column: c, leaf: leaf})
	}
	return r, nil
}

// check checks that a leaf is the column.
func (c *column) check(leaf *schema.Column) error {
	level := int16(0) // of both kinds
	if c.ofCandidate() {
		level = 1
	}
	if leaf.PhysicalType() == c.physical && leaf.LogicalType().Equals(c.logical) &&
		leaf.MaxRepetitionLevel() == level && leaf.MaxDefinitionLevel() == level {
		return nil
	}
	return fmt.Errorf("column %s is %v, %v at levels %d and %d, want %v, %v at %d and %d", c.name,
		leaf.PhysicalType(), leaf.LogicalType(), leaf.MaxRepetitionLevel(), leaf.MaxDefinitionLevel(), c.physical, c.logical, level, level)
}

// close lets go of the row group.
func (r *reader) close() {
	for i := range r.cursors {
		_ = r.cursors[i].close() // it was only read
	}
}

func (c *cursor) close() error {
	if c.chunk == nil {
		return nil
	}
	chunk := c.chunk
	c.chunk = nil
	return chunk.Close()
}

// next returns the next query, io.EOF after the last.
func (r *reader) next() (*Query, error) {
	for r.left == 0 {
		if err := r.advance(); err != nil {
			return nil, err
		}
	}
	r.left--
	q := &Query{Coverage: 1}
	counts := map[string]int{}
	for i := range r.cursors {
		c := &r.cursors[i]
		var err error
		if c.ofCandidate() {
			counts[c.name], err = c.candidates(q)
		} else if err = c.ensure(); err == nil {
			err = c.set(q, nil, &c.chunk.Batch, c.at)
			c.pos++
			c.at++
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	if ids, scores := counts[candidateID], counts[candidateScore]; ids != scores {
		return nil, fmt.Errorf("%d ids and %d scores of candidates", ids, scores)
	}
	return q, nil
}

// candidates takes the values of a row's candidates, and returns how many there are.
func (c *cursor) candidates(q *Query) (n int, err error) {
	if err := c.ensure(); err != nil {
		return 0, err
	}
	for {
		if c.chunk.Def[c.pos] > 0 { // else the list is empty
			if n == maxCandidates {
				return n, fmt.Errorf("more than %d candidates", maxCandidates)
			}
			if n == len(q.Candidates) {
				q.Candidates = append(q.Candidates, Candidate{})
			}
			if err := c.set(q, &q.Candidates[n], &c.chunk.Batch, c.at); err != nil {
				return n, err
			}
			n++
			c.at++
		}
		if c.pos++; c.pos == c.chunk.Levels {
			if err := c.load(); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return n, err
			}
		}
		if c.chunk.Rep[c.pos] == 0 {
			return n, nil
		}
	}
}

// load reads the next batch.
func (c *cursor) load() error {
	c.pos, c.at = 0, 0
	return c.chunk.Next()
}

// ensure makes pos a level of the next row.
func (c *cursor) ensure() error {
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
func (r *reader) advance() error {
	for i := range r.cursors {
		c := &r.cursors[i]
		if c.chunk == nil {
			continue
		}
		if c.pos < c.chunk.Levels {
			return fmt.Errorf("column %s: has more rows than its row group", c.name)
		}
		switch err := c.load(); {
		case err == nil:
			return fmt.Errorf("column %s: has more rows than its row group", c.name)
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("column %s: %w", c.name, err)
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
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		if c.values += c.chunk.Total(); c.values > maxValues {
			return fmt.Errorf("column %s: more than %d values", c.name, maxValues)
		}
		c.pos, c.at = 0, 0
	}
	r.left = r.file.GroupRows(r.group)
	r.group++
	return nil
}
