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
	// GraphWalk walks the graph; every row is eligible, though it may be dead.
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
	// Dead holds ordinals that are never returned, eligible or not; nil means none.
	// DeadCount is their number. Without a filter a search stays what it is without
	// them: walks go through dead rows as through others, and keep room for as many as are
	// among the best beside the rows that may be returned; so they suit rows that are gone
	// since the index was built, and a query's own. From a filter they are taken away.
	Dead      Bitset
	DeadCount int
	// Floor is, if Floored, a score: rows that score worse need not be found, because there
	// are enough better ones elsewhere. An exact scan then returns none of them, and costs
	// little more than to read the codes, or few of them; a walk does what it does without.
	Floored bool
	Floor   float32
	// Plan is Auto, or ExactScan or GraphWalk to force one. A forced walk is a
	// FilteredWalk when there is a filter; it costs what it costs, but the scan takes
	// over where hardly any row is eligible, or hardly any that is near the query.
	Plan Plan
	// Done, if not nil, ends the search soon after it is closed: within about a
	// millisecond.
	Done <-chan struct{}
	// Pause, if not nil, is called in the midst of the search, about every 0.1 ms, where it
	// would give way to others: it may wait for as long as it likes.
	Pause func()
	// Trace, if not nil, records what a walk scores.
	Trace *Trace
}

// Hit is one row of an answer.
type Hit struct {
	Ordinal uint32
	Score   float32 // the metric's value
}

// Reason says why a search followed its plan at first.
type Reason uint8

const (
	// Given is that of a query that names its plan, where not all are asked for.
	Given Reason = iota
	// NothingToFind says that no row is eligible.
	NothingToFind
	// AllAsked says that every eligible row is asked for.
	AllAsked
	// NoEffort says that the query has no effort, since no walk that costs less than the
	// exact scan reaches its target.
	NoEffort
	// Cheapest is that of the plan that was estimated to cost less than the other.
	Cheapest
	// TooNear is that of the exact scan where a walk was estimated to cost less, but so
	// little less that single ones cost more.
	TooNear
	// NoGraph says that the index has none; see [Flat].
	NoGraph
)

// Stats says what a search did.
type Stats struct {
	Plan     Plan
	Reason   Reason
	Walk     Plan // the walk that an exact scan was weighed against, where there was a choice
	Ef       int  // the effort of a walk, 0 for the exact scan
	Scored   int  // rows scored, on their codes or on their vectors, dead ones too
	Expanded int  // nodes whose neighbours were scored
	Through  int  // nodes that are not eligible whose neighbours were looked through
	// Apart says that a filtered walk found hardly any eligible row near the query.
	Apart bool
	// GaveUp says that the exact scan took over from a walk.
	GaveUp bool
	// What the exact scan and Walk were estimated to cost, where there was a choice: a row in a
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
	live  Bitset // eligible rows that are not dead
}

// Search appends the best K eligible rows that are not dead to dst, best first, ties by
// row, and returns it. An exact scan finds exactly those; a walk finds nearly those, and
// always as many as an exact scan without a floor. It allocates nothing when dst has room.
// An error is of class [ErrQuery], or [ErrStopped].
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
	if q.Floored && q.Floor != q.Floor {
		return dst, Stats{}, fmt.Errorf("floor is NaN, want a number: %w", ErrQuery)
	}
	if err := x.checkSet("filter", "eligible", q.Filter, q.Eligible); err != nil {
		return dst, Stats{}, err
	}
	if err := x.checkSet("dead set", "dead", q.Dead, q.DeadCount); err != nil {
		return dst, Stats{}, err
	}
	s := x.scratch.Get().(*scratch) // lost if the search panics, for its state is unknown then
	x.bury(s, &q)
	q.K = min(q.K, q.Eligible)
	if q.K == 0 {
		x.recycle(s)
		return dst, Stats{Plan: ExactScan, Reason: NothingToFind}, nil
	}
	if q.Ef != 0 {
		q.Ef = min(q.Ef, x.nodes)
	}
	var stats Stats
	if q.K == q.Eligible {
		stats.Reason = AllAsked
	}
	budget := math.Inf(1)
	if x.flat() {
		if q.Plan != ExactScan && stats.Reason != AllAsked {
			stats.Reason = NoGraph
		}
		q.Plan, q.Ef = ExactScan, 0
	}
	if q.Plan == Auto {
		q.Plan = x.costs.choose(q, &stats)
		budget = x.costs.exactCost(q.Eligible, q.K)
	} else if q.Plan != ExactScan {
		q.Ef = max(q.Ef, 1)
		q.Plan = GraphWalk
		if q.Filter != nil {
			q.Plan = FilteredWalk
		}
	}

	x.begin(s, q.Vector, q.K)
	s.pace.done, s.pace.pause = q.Done, q.Pause
	stats.Plan, stats.Ef = q.Plan, q.Ef
	s.trace = q.Trace
	switch q.Plan {
	case GraphWalk:
		x.graphWalk(s, q, budget, &stats)
	case FilteredWalk:
		x.filteredWalk(s, q, budget, &stats)
	}
	if len(s.top.entries) < q.K && !s.pace.stopped {
		stats.GaveUp = q.Plan != ExactScan
		stats.Plan, stats.Ef = ExactScan, 0
		s.top.reset(q.K)
		if q.Dead != nil {
			q.Filter = x.live(s, q)
		}
		x.exactScan(s, q, &stats)
		s.top.sort(x.rows)
	}
	s.trace, s.pace.pause = nil, nil
	if s.pace.stopped {
		x.recycle(s)
		return dst, stats, ErrStopped
	}
	dst = x.hits(s, dst)
	x.recycle(s)
	return dst, stats, nil
}

// checkSet returns an error if a set of ordinals, which has a name, or the count of its
// kind of rows cannot be those of the index.
func (x *Index) checkSet(name, kind string, set Bitset, count int) error {
	if set == nil {
		return nil
	}
	if len(set) != (len(x.rows)+63)/64 {
		return fmt.Errorf("%s has %d words for %d rows: %w", name, len(set), len(x.rows), ErrQuery)
	}
	if count < 0 || count > len(x.rows) {
		return fmt.Errorf("%s with %d %s of %d rows: %w", name, count, kind, len(x.rows), ErrQuery)
	}
	if tail := len(x.rows) % 64; tail != 0 && set[len(set)-1]>>tail != 0 {
		return fmt.Errorf("%s holds ordinals beyond %d rows: %w", name, len(x.rows), ErrQuery)
	}
	return nil
}

// admits reports whether a row may be returned.
func (q *Query) admits(ordinal uint32) bool {
	return (q.Filter == nil || q.Filter.Has(ordinal)) && (q.Dead == nil || !q.Dead.Has(ordinal))
}

// bury makes q's count of eligible rows that of those that may be returned, and takes the
// dead from the filter, if there is one.
func (x *Index) bury(s *scratch, q *Query) {
	switch {
	case q.Dead == nil:
		if q.Filter == nil {
			q.Eligible = len(x.rows)
		}
	case q.Filter == nil:
		q.Eligible = len(x.rows) - q.DeadCount
	default:
		q.Filter, q.Dead = x.live(s, *q), nil
		q.Eligible = q.Filter.Count()
	}
}

// live returns the eligible rows that are not dead.
func (x *Index) live(s *scratch, q Query) Bitset {
	s.live = slices.Grow(s.live[:0], len(q.Dead))[:len(q.Dead)]
	if q.Filter != nil {
		copy(s.live, q.Filter)
	} else {
		s.live.Fill(len(x.rows))
	}
	s.live.AndNot(q.Dead)
	return s.live
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
