package engines

import (
	"context"
	"errors"
	"math/rand"
	"runtime"
	"time"

	"github.com/coder/hnsw"

	"github.com/tandem-ann/tandem/index"
)

// coderEngine is github.com/coder/hnsw. It builds on one thread and slowly, so it
// suits small sets.
type coderEngine struct {
	graph   *hnsw.Graph[int32]
	queries *Vectors
	spent   Cost
}

func startCoder(ctx context.Context, spec Spec, s *Set) (*coderEngine, error) {
	base, queries := s.base, s.queries
	g := hnsw.NewGraph[int32]()
	g.M, g.Ml, g.Rng = spec.M, 1/float64(spec.M), rand.New(rand.NewSource(1))
	g.EfSearch = spec.EfConstruction // what it builds with
	switch {
	case spec.Augmented:
		base, queries = base.augmented(), queries.extended()
		g.Distance = hnsw.EuclideanDistance
	case s.Metric == index.L2:
		g.Distance = hnsw.EuclideanDistance
	default:
		g.Distance = negativeDot
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i := range base.Rows() {
		g.Add(hnsw.MakeNode(int32(i), base.Row(i)))
		if i%64 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	e := &coderEngine{graph: g, queries: queries, spent: Cost{BuildSeconds: time.Since(start).Seconds()}}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// It keeps the rows that it is given, which were there before.
	e.spent.Bytes = int64(after.HeapAlloc) - int64(before.HeapAlloc) + int64(base.Rows()*base.dim*4)
	return e, nil
}

func negativeDot(a, b []float32) float32 {
	var sum float32
	for i, x := range a {
		sum -= x * b[i]
	}
	return sum
}

func (e *coderEngine) cost() Cost   { return e.spent }
func (e *coderEngine) Close() error { return nil }

func (e *coderEngine) restrict(*Predicate) error { return errors.New("it has no such search") }

func (e *coderEngine) search(ctx context.Context, s Setting, first, n int, count bool, a *answers) error {
	a.reset(n, s.K)
	e.graph.EfSearch = s.Ef
	distance := e.graph.Distance
	counted := int64(0)
	if count {
		e.graph.Distance = func(a, b []float32) float32 {
			counted++
			return distance(a, b)
		}
		defer func() { e.graph.Distance = distance }()
	}
	for i := range n {
		counted = 0
		start := time.Now()
		nodes := e.graph.Search(e.queries.Row(first+i), s.K)
		a.nanos[i] = time.Since(start).Nanoseconds()
		for j, node := range nodes[:min(len(nodes), s.K)] {
			a.rows[i*s.K+j] = node.Key
		}
		if count {
			a.distances[i] = counted
		}
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	runtime.GC() // its garbage is not for the next to collect
	return nil
}
