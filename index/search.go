package index

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
)

// ErrQuery is the class of every error that a caller can mend by asking
// otherwise.
var ErrQuery = errors.New("invalid query")

// Plan is how a search finds its answer.
type Plan uint8

const (
	// Auto lets the index choose the plan that costs least.
	Auto Plan = iota
	// ExactScan scores every eligible row.
	ExactScan
	// FilteredWalk walks the graph through all nodes and pools eligible ones.
	FilteredWalk
	// GraphWalk walks the graph; every row is eligible.
	GraphWalk
)

var planNames = [...]string{"auto", "exact scan", "filtered walk", "graph walk"}

// String returns the plan's name.
func (p Plan) String() string {
	if int(p) < len(planNames) {
		return planNames[p]
	}
	return fmt.Sprintf("plan(%d)", uint8(p))
}

// Query is one search.
type Query struct {
	// Vector has the index's dimension and passes [Metric.CheckVector].
	Vector []float32
	// K is how many rows are wanted, at least 1.
	K int
	// Ef is the pool size of a walk: more finds more and costs more. Below K it
	// counts as K. 0 asks for the exact scan.
	Ef int
	// Filter holds the eligible ordinals; nil means all. Eligible is their
	// number.
	Filter   Bitset
	Eligible int
	// Plan is Auto, or ExactScan or GraphWalk to force one. A forced walk is a
	// FilteredWalk when there is a filter.
	Plan Plan
}

// Hit is one row of an answer.
type Hit struct {
	Ordinal uint32
	Score   float32 // the metric's value
}

// Stats says what a search did.
type Stats struct {
	Plan     Plan
	Ef       int // the pool size of a walk, 0 for the exact scan
	Scored   int // distances computed
	Expanded int // nodes whose neighbours were scored
}

// scratch is the memory of one search.
type scratch struct {
	query   []float32
	entry   candidate // node 0
	visited visited
	pool    pool
	queue   queue
	top     top
	ids     []uint32
	dists   []float32
}

// block is how many rows an exact scan scores in one kernel call.
const block = 256

// Search appends the best K eligible rows to dst, best first, ties by row, and
// returns it. An exact scan finds exactly those; a walk finds nearly those, and
// always min(K, eligible) rows. It allocates nothing when dst has room. An error
// is of class [ErrQuery].
func (x *Index) Search(q Query, dst []Hit) ([]Hit, Stats, error) {
	if len(q.Vector) != x.dim {
		return dst, Stats{}, fmt.Errorf("vector has %d components, want %d: %w", len(q.Vector), x.dim, ErrQuery)
	}
	if err := x.params.Metric.CheckVector(q.Vector); err != nil {
		return dst, Stats{}, fmt.Errorf("vector: %w: %w", err, ErrQuery)
	}
	if q.K < 1 {
		return dst, Stats{}, fmt.Errorf("k is %d, want at least 1: %w", q.K, ErrQuery)
	}
	if q.Filter == nil {
		q.Eligible = len(x.rows)
	} else if len(q.Filter) != (len(x.rows)+63)/64 {
		return dst, Stats{}, fmt.Errorf("filter has %d words for %d rows: %w", len(q.Filter), len(x.rows), ErrQuery)
	} else if q.Eligible < 0 || q.Eligible > len(x.rows) {
		return dst, Stats{}, fmt.Errorf("filter with %d eligible of %d rows: %w", q.Eligible, len(x.rows), ErrQuery)
	} else if tail := len(x.rows) % 64; tail != 0 && q.Filter[len(q.Filter)-1]>>tail != 0 {
		return dst, Stats{}, fmt.Errorf("filter holds ordinals beyond %d rows: %w", len(x.rows), ErrQuery)
	}
	q.K = min(q.K, q.Eligible)
	if q.K == 0 {
		return dst, Stats{Plan: ExactScan}, nil
	}
	if q.Ef != 0 {
		q.Ef = min(max(q.Ef, q.K), x.nodes)
	}
	budget := math.MaxInt
	if q.Plan == Auto {
		q.Plan = x.choose(q)
		budget = int(float64(q.Eligible*gatherCost) / walkCost(q.Ef))
	} else if q.Plan != ExactScan {
		q.Ef = max(q.Ef, min(q.K, x.nodes))
		q.Plan = GraphWalk
		if q.Filter != nil {
			q.Plan = FilteredWalk
		}
	}

	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	s.query = append(s.query[:0], q.Vector...)
	if x.params.Metric == Cosine {
		scaleToUnit(s.query)
	}
	for len(s.query) < x.stride {
		s.query = append(s.query, 0)
	}
	s.top.reset(q.K)
	stats := Stats{Plan: q.Plan, Ef: q.Ef}
	switch q.Plan {
	case GraphWalk:
		x.graphWalk(s, q, &stats)
	case FilteredWalk:
		x.filteredWalk(s, q, budget, &stats)
	}
	if len(s.top.entries) < q.K {
		stats.Plan, stats.Ef = ExactScan, 0
		s.top.reset(q.K)
		x.exactScan(s, q, &stats)
	}
	for _, c := range s.top.sort(x.rows) {
		dst = append(dst, Hit{c.node, x.params.Metric.score(c.dist)})
	}
	return dst, stats, nil
}

// distances returns the distances of the query to ordinals: the negated product
// under dot and cosine. The next call reuses the memory.
func (x *Index) distances(s *scratch, ordinals []uint32) []float32 {
	s.dists = slices.Grow(s.dists[:0], len(ordinals))[:len(ordinals)]
	if x.params.Metric == L2 {
		kernel.L2(s.query, x.vectors, ordinals, s.dists)
		return s.dists
	}
	kernel.Dot(s.query, x.vectors, ordinals, s.dists)
	for i, d := range s.dists {
		s.dists[i] = -d
	}
	return s.dists
}

// enter descends greedily through the upper layers and returns the node of layer
// 0 to start from.
func (x *Index) enter(s *scratch, stats *Stats) candidate {
	s.ids = append(s.ids[:0], 0)
	best := candidate{x.distances(s, s.ids)[0], 0}
	s.entry = best
	stats.Scored++
	for l := len(x.layers) - 1; l > 0; l-- {
		for {
			from := best
			ids := x.layers[l].neighbours(from.node)
			for i, d := range x.distances(s, ids) {
				if c := (candidate{d, ids[i]}); c.before(best) {
					best = c
				}
			}
			stats.Scored += len(ids)
			if best == from {
				break
			}
		}
	}
	return best
}

// graphWalk pools the ef best nodes it can find (HNSW, algorithm 5) and hands
// their rows to the top k.
func (x *Index) graphWalk(s *scratch, q Query, stats *Stats) {
	start := x.enter(s, stats)
	s.visited.reset(x.nodes)
	s.visited.visit(start.node)
	s.pool.reset(q.Ef)
	s.pool.add(start)
	if s.visited.visit(0) {
		// From node 0 every node can be reached; from others, perhaps not.
		s.pool.add(s.entry)
	}
	base := x.layers[0]
	for {
		node, ok := s.pool.pop()
		if !ok {
			break
		}
		s.ids = s.ids[:0]
		for _, id := range base.all(node) {
			if id == noNode {
				break
			}
			if s.visited.visit(id) {
				s.ids = append(s.ids, id)
			}
		}
		stats.Expanded++
		stats.Scored += len(s.ids)
		for i, d := range x.distances(s, s.ids) {
			if !s.pool.rejects(d) {
				s.pool.add(candidate{d, s.ids[i]})
			}
		}
	}
	x.collect(s, nil)
}

// filteredWalk expands nodes in order of distance, eligible or not, and pools
// the ef best nodes with an eligible row. It gives up, with an empty top k, when
// it has scored more than budget rows.
func (x *Index) filteredWalk(s *scratch, q Query, budget int, stats *Stats) {
	start := x.enter(s, stats)
	s.visited.reset(x.nodes)
	s.visited.visit(start.node)
	s.pool.reset(q.Ef)
	s.queue.reset()
	s.queue.push(start)
	if x.anyEligible(start.node, q.Filter) {
		s.pool.add(start)
	}
	if s.visited.visit(0) && !s.pool.rejects(s.entry.dist) {
		s.queue.push(s.entry)
		if x.anyEligible(0, q.Filter) {
			s.pool.add(s.entry)
		}
	}
	base := x.layers[0]
	for {
		next, ok := s.queue.pop()
		if !ok || s.pool.rejects(next.dist) {
			break
		}
		if stats.Scored > budget {
			return
		}
		s.ids = s.ids[:0]
		for _, id := range base.all(next.node) {
			if id == noNode {
				break
			}
			if s.visited.visit(id) {
				s.ids = append(s.ids, id)
			}
		}
		stats.Expanded++
		stats.Scored += len(s.ids)
		for i, d := range x.distances(s, s.ids) {
			if s.pool.rejects(d) {
				continue
			}
			c := candidate{d, s.ids[i]}
			s.queue.push(c)
			if x.anyEligible(c.node, q.Filter) {
				s.pool.add(c)
			}
		}
	}
	x.collect(s, q.Filter)
}

// anyEligible reports whether node stands for an eligible row.
func (x *Index) anyEligible(node uint32, filter Bitset) bool {
	if filter.Has(node) {
		return true
	}
	if x.repeated.Has(node) {
		first, n := x.repeats(node)
		for i := range uint32(n) {
			if filter.Has(first + i) {
				return true
			}
		}
	}
	return false
}

// collect hands the eligible rows of the pooled nodes to the top k.
func (x *Index) collect(s *scratch, filter Bitset) {
	for _, c := range s.pool.entries {
		c.node &^= expanded
		if s.top.rejects(c.dist) {
			return
		}
		if filter == nil || filter.Has(c.node) {
			s.top.add(c, x.rows)
		}
		if x.repeated.Has(c.node) {
			first, n := x.repeats(c.node)
			for i := range uint32(n) {
				if filter == nil || filter.Has(first+i) {
					s.top.add(candidate{c.dist, first + i}, x.rows)
				}
			}
		}
	}
}

// exactScan hands every eligible row to the top k.
func (x *Index) exactScan(s *scratch, q Query, stats *Stats) {
	stats.Scored += q.Eligible
	if q.Filter == nil {
		s.dists = slices.Grow(s.dists[:0], block)[:block]
		for first := 0; first < len(x.rows); first += block {
			out := s.dists[:min(block, len(x.rows)-first)]
			if x.params.Metric == L2 {
				kernel.L2Range(s.query, x.vectors, first, out)
			} else {
				kernel.DotRange(s.query, x.vectors, first, out)
			}
			for i, d := range out {
				if d = x.params.Metric.score(d); !s.top.rejects(d) {
					s.top.add(candidate{d, uint32(first + i)}, x.rows)
				}
			}
		}
		return
	}
	for at := 0; at < len(q.Filter); {
		s.ids = s.ids[:0]
		for ; at < len(q.Filter) && len(s.ids) < block; at++ {
			s.ids = q.Filter[at:at+1].appendFrom(uint32(at*64), s.ids)
		}
		for i, d := range x.distances(s, s.ids) {
			if !s.top.rejects(d) {
				s.top.add(candidate{d, s.ids[i]}, x.rows)
			}
		}
	}
}
