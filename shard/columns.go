package shard

import (
	"bytes"
	"context"
	"sync"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// columns are what rows have beside their vectors, whether in a file or in memory.
type columns struct {
	rows       int
	attributes *attribute.Table
	segments   segments
}

// columns returns those of the shard.
func (s *Shard) columns() columns { return columns{s.index.Rows(), s.attributes, s.segments} }

// eligible makes dst the rows that pass a filter, unless it is nil, and are in a segment,
// unless it is empty, and counts them. The segment is one that there is. The error is the
// context's.
func (c *columns) eligible(ctx context.Context, filter *eligibility.Bound, segment string, dst index.Bitset) (n int, err error) {
	rows, ok := c.segments.find(segment)
	if filter != nil {
		if n, err = filter.Eval(ctx, c.attributes, dst); err != nil {
			return 0, err
		}
		if ok && n > 0 {
			rows.And(dst)
			n = dst.Count()
		}
		return n, nil
	}
	if ok {
		rows.CopyTo(dst)
		return rows.Count(), nil
	}
	dst.Fill(c.rows)
	return c.rows, nil
}

// tests are the expressions of a tower's segments as filters, for rows that are in no file.
// They are compiled when they are first needed, and safe for any number of goroutines.
type tests struct {
	list     []Segment
	compiler *eligibility.Compiler
	once     sync.Once
	filters  []*eligibility.Bound
}

// all returns a filter for each segment. It is nil where the expression has come to be no
// filter of this build.
func (t *tests) all() []*eligibility.Bound {
	t.once.Do(func() {
		t.filters = make([]*eligibility.Bound, len(t.list))
		for i, s := range t.list {
			if filter, err := s.Compile(t.compiler); err == nil {
				t.filters[i] = &filter
			}
		}
	})
	return t.filters
}

// newColumns puts the columns of rows together in memory. Where a segment's expression is
// no filter, otherwise says which rows are in it.
func newColumns(rows int, w *attribute.Writer, order []uint32, t *tests, otherwise func(segment, row int) bool) (columns, error) {
	out := sections.InMemory()
	if err := w.Write(out, order); err != nil {
		return columns{}, err
	}
	f, err := out.File()
	if err != nil {
		return columns{}, err
	}
	c := columns{rows: rows, segments: segments{list: t.list}}
	if c.attributes, err = attribute.OpenTable(f, rows); err != nil {
		return columns{}, err
	}
	set := index.NewBitset(rows)
	for i, filter := range t.all() {
		if filter != nil {
			if _, err := filter.Eval(context.Background(), c.attributes, set); err != nil {
				return columns{}, err
			}
		} else {
			set.Clear()
			for row := range rows {
				if otherwise(i, row) {
					set.Set(uint32(row))
				}
			}
		}
		var data bytes.Buffer
		if _, err := attribute.WriteBitmap(&data, set); err != nil {
			return columns{}, err
		}
		b, err := attribute.OpenBitmap(segmentBitmapsSection, data.Bytes(), rows)
		if err != nil {
			return columns{}, err
		}
		c.segments.bitmaps = append(c.segments.bitmaps, b)
	}
	return c, nil
}
