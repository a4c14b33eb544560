package index

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrQuery is the class of every error that a caller can mend by asking
// otherwise.
var ErrQuery = errors.New("invalid query")

// ErrStopped is the error of a search that [Query.Done] has ended.
var ErrStopped = errors.New("search stopped")

// Plan is how a search finds its answer.
type Plan uint8

const (
	// Auto lets the index choose the plan that costs least.
	Auto Plan = iota
	// ExactScan considers every eligible row.
	ExactScan
	// FilteredWalk walks the graph from eligible node to eligible node.
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
	// Ef is the effort of a walk: how many of the best nodes that it knows it
	// expands before it ends. More finds more and costs more. It keeps the best
	// max(Ef, K) nodes. 0 asks for the exact scan.
	Ef int
	// Filter holds the eligible ordinals; nil means all. Eligible is their
	// number.
	Filter   Bitset
	Eligible int
	// Plan is Auto, or ExactScan or GraphWalk to force one. A forced walk is a
	// FilteredWalk when there is a filter; it costs what it costs, but the scan takes
	// over where hardly any row is eligible, or hardly any that is near the query.
	Plan Plan
	// Done, if not nil, ends the search soon after it is closed: within about a
	// millisecond.
	Done <-chan struct{}
	// Trace, if not nil, records what a walk scores.
	Trace *Trace
}

// Hit is one row of an answer.
type Hit struct {
	Ordinal uint32
	Score   float32 // the metric's value
}

// Stats says what a search did.
type Stats struct {
	Plan     Plan
	Ef       int // the effort of a walk, 0 for the exact scan
	Scored   int // rows scored, on their codes or on their vectors
	Expanded int // nodes whose neighbours were scored
	Through  int // nodes that are not eligible whose neighbours were looked through
	// Apart says that a filtered walk found hardly any eligible row near the query.
	Apart bool
	// GaveUp says that the exact scan took over from a walk.
	GaveUp bool
	// What the plans were estimated to cost, where there was a choice: a row in a
	// scan of all rows costs 1.
	ExactCost, WalkCost float64
}

// scratch is the memory of one search.
type scratch struct {
	walker
	query []float32
	top   top
	scan  scan
	dists []float32
}

// Search appends the best K eligible rows to dst, best first, ties by row, and
// returns it. An exact scan finds exactly those; a walk finds nearly those, and
// always min(K, eligible) rows. It allocates nothing when dst has room. An error
// is of class [ErrQuery], or [ErrStopped].
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
		q.Ef = min(q.Ef, x.nodes)
	}
	var stats Stats
	budget := math.Inf(1)
	if q.Plan == Auto {
		q.Plan = x.choose(q, &stats)
		budget = x.exactCost(q.Eligible, q.K)
	} else if q.Plan != ExactScan {
		q.Ef = max(q.Ef, 1)
		q.Plan = GraphWalk
		if q.Filter != nil {
			q.Plan = FilteredWalk
		}
	}

	s := x.scratch.Get().(*scratch) // lost if the search panics, for its state is unknown then
	x.begin(s, q.Vector, q.K)
	s.pace.done = q.Done
	stats.Plan, stats.Ef = q.Plan, q.Ef
	s.trace = q.Trace
	switch q.Plan {
	case GraphWalk:
		x.graphWalk(s, q, &stats)
	case FilteredWalk:
		x.filteredWalk(s, q, budget, &stats)
	}
	if len(s.top.entries) < q.K && !s.pace.stopped {
		stats.GaveUp = q.Plan != ExactScan
		stats.Plan, stats.Ef = ExactScan, 0
		s.top.reset(q.K)
		x.exactScan(s, q, &stats)
		s.top.sort(x.rows)
	}
	s.trace = nil
	if s.pace.stopped {
		x.recycle(s)
		return dst, stats, ErrStopped
	}
	dst = x.hits(s, dst)
	x.recycle(s)
	return dst, stats, nil
}

// Improve gives each hit the score of its row with vector, where that is better. The
// vector must be one that [Index.Search] takes.
func (x *Index) Improve(vector []float32, hits []Hit) {
	s := x.scratch.Get().(*scratch)
	x.begin(s, vector, 0)
	s.ids = s.ids[:0]
	for _, h := range hits {
		s.ids = append(s.ids, h.Ordinal)
	}
	for i, d := range x.distances(s, s.ids) {
		if score := x.params.Metric.score(d); x.params.Metric.Better(score, hits[i].Score) {
			hits[i].Score = score
		}
	}
	x.recycle(s)
}

// keptEntries is how many entries a search's memory may have room for to be kept for the
// next: more than any but the largest efforts and answers take.
const keptEntries = 1 << 15

// recycle keeps the memory of a search for the next, unless it grew large: a few searches
// of great effort would hold it for long.
func (x *Index) recycle(s *scratch) {
	if max(cap(s.pool.entries), cap(s.top.entries), cap(s.top.spare), cap(s.ids), cap(s.near), cap(s.dists)) <= keptEntries {
		x.scratch.Put(s)
	}
}

// hits appends the top k to dst.
func (x *Index) hits(s *scratch, dst []Hit) []Hit {
	dst = slices.Grow(dst, len(s.top.entries))
	for _, c := range s.top.entries {
		dst = append(dst, Hit{c.ordinal(), x.params.Metric.score(c.dist())})
	}
	return dst
}

// begin prepares a search for the k best rows.
func (x *Index) begin(s *scratch, vector []float32, k int) {
	s.pace = pace{left: lookWork}
	s.query = append(s.query[:0], vector...)
	if x.params.Metric == Cosine {
		scaleToUnit(s.query)
	}
	for len(s.query) < x.stride {
		s.query = append(s.query, 0)
	}
	s.top.reset(k)
}

// distances returns the distances of the query to ordinals: the negated product
// under dot and cosine. The next call reuses the memory.
func (x *Index) distances(s *scratch, ordinals []uint32) []float32 {
	if s.trace != nil {
		s.trace.add(ordinals, false)
	}
	s.dists = slices.Grow(s.dists[:0], len(ordinals))[:len(ordinals)]
	x.vectors.score(x.params.Metric, s.query, ordinals, s.dists)
	if x.params.Metric == L2 {
		return s.dists
	}
	for i, d := range s.dists {
		s.dists[i] = -d
	}
	return s.dists
}
