package engines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// SetOptions say what to read.
type SetOptions struct {
	// Base holds the rows to find and Queries what to ask with.
	Base, Queries tower.Options
	Metric        index.Metric
	// Rows is how many rows to take from the beginning of Base; 0 takes all.
	Rows int
	// Ask is how many queries to ask at most. As many of the others as there are,
	// but no more than MaxSample, become the sample.
	Ask int
	// Attributes keeps those of the rows, for [Set.Predicates].
	Attributes bool
}

// MaxSample is how many queries calibrate our index, as many as in a build of a snapshot:
// a third of them find where walks start, the others how much effort it takes.
const MaxSample = 1500

// Set is what the engines are measured on.
type Set struct {
	Base, Queries string // paths
	Metric        index.Metric
	// base, queries and sample are scaled to norm 1 under cosine.
	base    *Vectors
	keys    []uint64 // of the rows
	queries *Vectors
	shape   *Vectors // disjoint from queries, as sample is
	sample  *Vectors // disjoint from shape

	attributes *attribute.Writer // of the rows; nil unless they were asked for
	whole      bool              // no rows of the base were left out
}

// ReadSet reads a set. A query is asked, and not part of the sample, when the
// [shard.SampleKey] of its id, or of its number where there are no ids, is among
// the highest.
func ReadSet(ctx context.Context, o SetOptions) (*Set, error) {
	if o.Rows < 0 || o.Ask < 1 {
		return nil, fmt.Errorf("rows is %d, queries is %d, want at least 0 and 1", o.Rows, o.Ask)
	}
	s := &Set{Base: strings.Join(o.Base.Paths, ", "), Queries: strings.Join(o.Queries.Paths, ", "), Metric: o.Metric}
	base, err := read(ctx, o.Base, o.Metric, o.Rows, o.Attributes)
	if err != nil {
		return nil, err
	}
	s.base, s.attributes, s.whole = base.vectors, base.attributes, base.whole
	// Rows of an index are in ascending order of their ids, but here any order
	// does: ties count whatever they are.
	for _, id := range base.ids {
		s.keys = append(s.keys, shard.Key(id))
	}
	queries, err := read(ctx, o.Queries, o.Metric, 0, false)
	if err != nil {
		return nil, err
	}
	if queries.vectors.dim != s.base.dim {
		return nil, fmt.Errorf("%s has dimension %d, %s has %d", s.Queries, queries.vectors.dim, s.Base, s.base.dim)
	}
	s.split(queries.vectors, queries.ids, o.Ask)
	return s, nil
}

// split asks with the queries of the highest sample keys, and samples from those
// of the lowest. It leaves something for the sample if it can.
func (s *Set) split(queries *Vectors, ids []string, ask int) {
	order := make([]int, queries.Rows())
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(shard.SampleKey(ids[b]), shard.SampleKey(ids[a])), cmp.Compare(a, b))
	})
	ask = min(ask, max(len(order)-min(len(order)/2, MaxSample), 1))
	s.queries = newVectors(queries.dim, ask)
	s.shape, s.sample = newVectors(queries.dim, MaxSample/3), newVectors(queries.dim, MaxSample)
	for _, i := range order[:ask] {
		s.queries.append(queries.Row(i))
	}
	slices.Reverse(order)
	for n, i := range order[:min(len(order)-ask, MaxSample)] {
		if n%3 == 2 {
			s.shape.append(queries.Row(i))
		} else {
			s.sample.append(queries.Row(i))
		}
	}
}

// table is what is read of a file.
type table struct {
	vectors    *Vectors
	ids        []string
	attributes *attribute.Writer
	whole      bool // not limited
}

// read reads up to limit rows; 0 is no limit.
func read(ctx context.Context, o tower.Options, metric index.Metric, limit int, attributes bool) (t table, err error) {
	r, err := tower.Open(ctx, o)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rows := r.Rows()
	t.whole = limit == 0 || rows <= int64(limit)
	if !t.whole {
		rows = int64(limit)
	}
	if rows > index.MaxRows {
		return t, fmt.Errorf("%s has %d rows, want at most %d", strings.Join(o.Paths, ", "), rows, index.MaxRows)
	}
	if attributes {
		t.attributes = attribute.NewWriter(r.Schema(), int(rows))
	}
	for n := range rows {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			if attributes {
				return t, fmt.Errorf("%s has %d rows, and its headers promise %d", strings.Join(o.Paths, ", "), n, rows)
			}
			break
		}
		if err != nil {
			return t, err
		}
		if err := t.append(row, metric, int(rows)); err != nil {
			return t, fmt.Errorf("%s: row %d: %w", strings.Join(o.Paths, ", "), row.Number, err)
		}
	}
	if t.vectors == nil {
		return t, fmt.Errorf("%s has no rows", strings.Join(o.Paths, ", "))
	}
	return t, nil
}

// append adds one of as many rows.
func (t *table) append(row *tower.Row, metric index.Metric, rows int) error {
	switch {
	case t.vectors == nil && (len(row.Vector) == 0 || len(row.Vector) > index.MaxDim):
		return fmt.Errorf("dimension is %d, want 1 to %d", len(row.Vector), index.MaxDim)
	case t.vectors == nil:
		t.vectors = newVectors(len(row.Vector), rows)
	case len(row.Vector) != t.vectors.dim:
		return fmt.Errorf("dimension is %d, want %d", len(row.Vector), t.vectors.dim)
	}
	if err := metric.CheckVector(row.Vector); err != nil {
		return fmt.Errorf("vector %w", err)
	}
	number := t.vectors.Rows()
	t.vectors.append(row.Vector)
	if metric == index.Cosine {
		unit(t.vectors.Row(number))
	}
	t.ids = append(t.ids, row.ID)
	if t.attributes == nil {
		return nil
	}
	if len(row.Problems) > 0 {
		return errors.New(row.Problems[0].Detail)
	}
	for field, v := range row.Attributes {
		if err := t.attributes.Set(number, field, v); err != nil {
			return err
		}
	}
	return nil
}

func unit(row []float32) {
	norm := math.Sqrt(squaredNorm(row))
	for i, x := range row {
		row[i] = float32(float64(x) / norm)
	}
}
