package engines

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
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
}

// MaxSample is how many queries calibrate our index.
const MaxSample = 1000

// Set is what the engines are measured on.
type Set struct {
	Base, Queries string // paths
	Metric        index.Metric
	// base, queries and sample are scaled to norm 1 under cosine.
	base    *Vectors
	keys    []uint64 // of the rows
	queries *Vectors
	sample  *Vectors // disjoint from queries
}

// ReadSet reads a set. A query is asked, and not part of the sample, when the
// [shard.SampleKey] of its id, or of its number where there are no ids, is among
// the highest.
func ReadSet(o SetOptions) (*Set, error) {
	if o.Rows < 0 || o.Ask < 1 {
		return nil, fmt.Errorf("rows is %d, queries is %d, want at least 0 and 1", o.Rows, o.Ask)
	}
	s := &Set{Base: o.Base.Path, Queries: o.Queries.Path, Metric: o.Metric}
	base, ids, err := read(o.Base, o.Metric, o.Rows)
	if err != nil {
		return nil, err
	}
	s.base = base
	// Rows of an index are in ascending order of their ids, but here any order
	// does: ties count whatever they are.
	for _, id := range ids {
		s.keys = append(s.keys, shard.Key(id))
	}
	queries, ids, err := read(o.Queries, o.Metric, 0)
	if err != nil {
		return nil, err
	}
	if queries.dim != base.dim {
		return nil, fmt.Errorf("%s has dimension %d, %s has %d", o.Queries.Path, queries.dim, o.Base.Path, base.dim)
	}
	s.split(queries, ids, o.Ask)
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
	s.queries, s.sample = newVectors(queries.dim, ask), newVectors(queries.dim, MaxSample)
	for _, i := range order[:ask] {
		s.queries.append(queries.Row(i))
	}
	slices.Reverse(order)
	for _, i := range order[:min(len(order)-ask, MaxSample)] {
		s.sample.append(queries.Row(i))
	}
}

// read reads up to limit vectors, and their ids; 0 is no limit.
func read(o tower.Options, metric index.Metric, limit int) (v *Vectors, ids []string, err error) {
	r, err := tower.Open(o)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rows := r.Rows()
	if limit > 0 {
		rows = min(rows, int64(limit))
	}
	if rows > index.MaxRows {
		return nil, nil, fmt.Errorf("%s has %d rows, want at most %d", o.Path, rows, index.MaxRows)
	}
	for range rows {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		switch {
		case v == nil && (len(row.Vector) == 0 || len(row.Vector) > index.MaxDim):
			return nil, nil, fmt.Errorf("%s: row 0 has dimension %d, want 1 to %d", o.Path, len(row.Vector), index.MaxDim)
		case v == nil:
			v = newVectors(len(row.Vector), int(rows))
		case len(row.Vector) != v.dim:
			return nil, nil, fmt.Errorf("%s: row %d has dimension %d, want %d", o.Path, row.Number, len(row.Vector), v.dim)
		}
		if err := metric.CheckVector(row.Vector); err != nil {
			return nil, nil, fmt.Errorf("%s: row %d: vector %w", o.Path, row.Number, err)
		}
		v.append(row.Vector)
		if metric == index.Cosine {
			unit(v.Row(v.Rows() - 1))
		}
		ids = append(ids, row.ID)
	}
	if v == nil {
		return nil, nil, fmt.Errorf("%s has no rows", o.Path)
	}
	return v, ids, nil
}

func unit(row []float32) {
	norm := math.Sqrt(squaredNorm(row))
	for i, x := range row {
		row[i] = float32(float64(x) / norm)
	}
}
