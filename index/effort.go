package index

import (
	"cmp"
	"math"
	"slices"
)

// Effort is what a calibration found: with an effort of Ef, which may be below K, queries
// for K rows have at least this mean recall.
type Effort struct {
	K      int     `json:"k"`
	Target float32 `json:"target"` // the recall target that Ef is the least effort for
	Ef     int     `json:"ef"`
	// Recall is the bound that the mean recall@K of queries is above with a confidence of
	// 99%, and below Target where no walk was shown to reach that. In files of before there
	// was a bound it is the mean of the sample.
	Recall float32 `json:"recall"`
	Scored float32 `json:"scored"` // mean distance computations a query
}

func (e Effort) before(o Effort) bool {
	return e.K < o.K || e.K == o.K && e.Target < o.Target
}

// Targets are the recall targets that a calibration covers.
var Targets = [...]float32{0.90, 0.95, 0.99, 0.999}

// DefaultTarget is the recall target of a query that names none.
const DefaultTarget = 0.99

// Effort returns what the calibration found, by k and target.
func (x *Index) Effort() []Effort { return slices.Clone(x.effort) }

// EffortFor returns the effort that was shown to reach a mean recall of target for k
// rows, and 0, the exact scan, for a target above the highest calibrated one, for
// one that no walk cheaper than the scan reached, or without a calibration.
// From one band of k to the next it rises, and is that of the next from half-way on;
// beyond the last it scales.
func (x *Index) EffortFor(k int, target float64) int {
	ef, reached := effortFor(x.effort, k, target)
	if !reached {
		return 0
	}
	return ef
}

// effortFor returns the effort, and whether it is known to reach the target. Where it is
// not, the effort is what the last walk that was tried had, or 0.
func effortFor(efforts []Effort, k int, target float64) (ef int, reached bool) {
	var low, high Effort
	for _, e := range efforts {
		if float64(e.Target) < target-1e-6 || e.K == low.K || e.K == high.K {
			continue // only the least sufficient target of each band counts
		}
		if e.K <= k {
			low = e
		} else if high.K == 0 {
			high = e
		}
	}
	// A band may hold a target that no walk cheaper than the scan reached. Towards it
	// effort may rise faster than k, in what way nothing tells.
	reached = low.Recall >= low.Target && (high.Recall >= high.Target || low.K == k)
	switch {
	case low.K == 0 && high.K == 0:
		return 0, false
	case low.K == 0:
		return high.Ef, reached
	case high.K == 0:
		return max(low.Ef*k/low.K, 1), reached
	}
	// Where k passes the number of rows of a cluster, effort rises at once to nearly what
	// the next band takes. So it is assumed to rise early, and never to fall: a query for
	// more rows keeps more, and may find enough with less.
	return low.Ef + max(high.Ef-low.Ef, 0)*min(2*(k-low.K), high.K-low.K)/(high.K-low.K), reached
}

// FilteredEffort is what a calibration found of filtered walks where a share of the rows
// is eligible, for queries that are amid what is eligible.
type FilteredEffort struct {
	Share float32 // of the rows
	// Effort holds means over queries under several kinds of filter, that of recall too. It
	// is below Target where no walk that costs less than the exact scan reaches it.
	Effort
	Through float32 // mean lists of nodes that are not eligible that a query looks through
}

func (e FilteredEffort) before(o FilteredEffort) bool {
	if e.Share != o.Share {
		return e.Share > o.Share
	}
	return e.Effort.before(o.Effort)
}

// FilteredEffort returns what the calibration found under filters, by falling share, then
// by k and target.
func (x *Index) FilteredEffort() []FilteredEffort { return slices.Clone(x.filtered) }

// class holds the filtered efforts of one share of eligible rows.
type class struct {
	share   float64
	efforts []Effort
	through []float32 // of each effort
}

// classify derives the classes.
func (x *Index) classify() {
	x.classes = nil
	for _, e := range x.filtered {
		if n := len(x.classes); n == 0 || x.classes[n-1].share != float64(e.Share) {
			x.classes = append(x.classes, class{share: float64(e.Share)})
		}
		c := &x.classes[len(x.classes)-1]
		c.efforts = append(c.efforts, e.Effort)
		c.through = append(c.through, e.Through)
	}
}

// FilteredEffortFor returns the effort of a filtered walk that the calibration found to
// do with room to spare where such a share of rows is eligible, and 0, the exact scan,
// where none does. Between two shares it interpolates by their logarithm. Where no more
// rows than k are not eligible, a walk has room for them and needs no more effort than
// without a filter. A file without filtered efforts says nothing of them; there it is
// half as much again as without a filter, and a little, as it takes on SIFT.
func (x *Index) FilteredEffortFor(k int, target float64, eligible int) int {
	ef := x.EffortFor(k, target)
	if ef == 0 || eligible == 0 || len(x.rows)-eligible <= k {
		return ef
	}
	if len(x.classes) == 0 {
		return ef + ef/2 + 20
	}
	found := x.classEffort(k, target, eligible)
	if found == 0 {
		return 0
	}
	return max(found+found/4, ef+filteredLeast)
}

// filteredLeast is how much more effort a filtered walk gets at least than one without a
// filter, beside a quarter more than was found. Filters that people write are harder than
// those that a calibration can make up: they keep what is alike in ways that the vectors
// do not show.
const filteredLeast = 20

// classEffort returns the effort that was found, 0 where that is the exact scan.
func (x *Index) classEffort(k int, target float64, eligible int) int {
	high, low, at := x.classesAround(eligible)
	if low == nil {
		return 0 // the calibration ended where scans are cheaper
	}
	ef, reached := effortFor(low.efforts, k, target)
	if high == nil || at == 1 {
		if !reached {
			return 0
		}
		return ef
	}
	from, ok := effortFor(high.efforts, k, target)
	if !reached {
		// A walk costs about the same at both shares, and the scan costs less the fewer
		// rows are eligible: somewhere between the two it becomes the better plan. Up to
		// half-way effort rises to what was tried last, and beyond the scan is taken.
		at *= 2
	}
	if !ok || at > 1 {
		return 0
	}
	return from + int(math.Round(float64(ef-from)*at))
}

// classesAround returns the classes of the next higher and the next lower share than
// that of the eligible rows, nil where there is none, and how far it is from one to the
// other, from 0 to 1.
func (x *Index) classesAround(eligible int) (high, low *class, at float64) {
	share := float64(eligible) / float64(len(x.rows))
	for i := range x.classes {
		low = &x.classes[i]
		if low.share <= share {
			if high == nil {
				return nil, low, 1
			}
			return high, low, math.Log(high.share/share) / math.Log(high.share/low.share)
		}
		high = low
	}
	return high, nil, 0
}

// The relative cost of a row, with everything around it: in a scan of all rows,
// which reads codes in order, and in a scan of some; and that of a list that a
// filtered walk looks through. They are fixed, not timed during the build, so that
// builds stay reproducible.
const (
	scanCost    = 1
	gatherCost  = 4
	vectorCost  = 3   // of a row whose vector is read too,
	keepCost    = 150 // of those that are until the best is found, for each row of the answer
	throughCost = 30
)

// walkCost is that of a distance that a walk computes: a larger pool costs more to
// keep sorted.
func walkCost(ef int) float64 { return 9 + float64(ef)/128 }

// exactCost is that of an exact scan for k rows. Where many rows are eligible it reads
// the codes of all; and the more it keeps, the more vectors it reads beside the codes.
func (x *Index) exactCost(eligible, k int) float64 {
	return float64(min(len(x.rows)*scanCost, eligible*gatherCost) + min(k*keepCost, eligible*vectorCost))
}

// walkPart is the part of the exact scan's cost that a filtered walk may be expected to
// cost. Single walks cost more than expected, and one that is given up costs the scan too.
const walkPart = 0.75

// choose returns the plan that costs least, and notes in stats why, unless all are asked
// for, and what it expects.
func (x *Index) choose(q Query, stats *Stats) Plan {
	if q.K == q.Eligible {
		return ExactScan
	}
	if q.Ef == 0 {
		stats.Reason = NoEffort
		return ExactScan
	}
	most := 1.0
	stats.ExactCost = x.exactCost(q.Eligible, q.K)
	if q.Filter != nil {
		most, stats.Walk, stats.WalkCost = walkPart, FilteredWalk, x.filteredCost(q)
	} else {
		stats.Walk, stats.WalkCost = GraphWalk, x.graphCost(x.among(q))
	}
	stats.Reason = Cheapest
	if stats.WalkCost < most*stats.ExactCost {
		return stats.Walk
	}
	if stats.WalkCost < stats.ExactCost {
		stats.Reason = TooNear
	}
	return ExactScan
}

// among returns how many nodes a graph walk expands: the effort, and its part of the dead
// rows.
func (x *Index) among(q Query) int {
	if q.Dead == nil {
		return q.Ef
	}
	return min(q.Ef+int(float64(q.Ef)*float64(x.deadAmong(q))/float64(max(q.Ef, q.K))), x.nodes)
}

// deadAmong returns how many dead rows are to be expected among the best K that are not.
func (x *Index) deadAmong(q Query) int {
	return int(math.Round(float64(q.K) * float64(len(x.rows)-q.Eligible) / float64(q.Eligible)))
}

// Cost estimates what [Index.Search] takes for k rows with an effort of ef, of so many
// eligible rows, by the plan that it would choose. A row in a scan of all rows costs 1.
func (x *Index) Cost(k, ef, eligible int) float64 {
	q := Query{K: min(k, eligible), Ef: min(ef, x.nodes), Eligible: eligible}
	if q.K == 0 {
		return 0
	}
	if x.flat() {
		return x.exactCost(eligible, q.K)
	}
	if eligible < len(x.rows) {
		q.Filter = Bitset{} // that there is one is what matters
	}
	var stats Stats
	if x.choose(q, &stats) == ExactScan {
		return x.exactCost(eligible, q.K)
	}
	return stats.WalkCost
}

// degreeSample is how many nodes tell the mean number of neighbours.
const degreeSample = 16

// filteredCost estimates what a filtered walk costs for a query that is amid what is
// eligible.
func (x *Index) filteredCost(q Query) float64 {
	if missing := len(x.rows) - q.Eligible; missing <= max(q.Ef, q.K) {
		return x.graphCost(q.Ef + missing)
	}
	return x.graphCost(x.guideEf(q.Eligible)) + x.afterGuide(q.Ef, q.Eligible)
}

// graphCost estimates what a walk of all nodes costs.
func (x *Index) graphCost(ef int) float64 { return x.walkScored(ef) * walkCost(ef) }

// afterGuide estimates what the rest of a filtered walk costs: from what was calibrated for shares and efforts around, and without that from the
// share of the rows that are eligible. Of a node's list about two thirds are new to a
// walk, of a list that it looks through about a half.
func (x *Index) afterGuide(ef, eligible int) float64 {
	high, low, at := x.classesAround(eligible)
	if high == nil {
		high = low
	} else if low == nil {
		low = high
	}
	if low != nil {
		from, to := low.afterGuide(x, ef), high.afterGuide(x, ef)
		return to + (from-to)*at
	}
	base := x.layers[0]
	var degree float64
	for i := range degreeSample {
		degree += float64(len(base.neighbours(uint32(i*x.nodes/degreeSample)))) / degreeSample
	}
	share := float64(eligible) / float64(len(x.rows))
	own, more := degree*share*2/3, degree*share/2
	through := degree * (1 - share)
	if more > 0 {
		through = min(through, (degree-own)/more)
	}
	return float64(ef) * ((own+through*more)*walkCost(ef) + through*throughCost)
}

// afterGuide scales what the calibrated effort nearest to ef costs.
func (c *class) afterGuide(x *Index, ef int) float64 {
	nearest := 0
	for i, e := range c.efforts {
		if distance(e.Ef, ef) < distance(c.efforts[nearest].Ef, ef) {
			nearest = i
		}
	}
	e := c.efforts[nearest]
	guide := x.walkScored(x.guideEf(max(int(c.share*float64(len(x.rows))), 1)))
	cost := max(float64(e.Scored)-guide, 0)*walkCost(ef) + float64(c.through[nearest])*throughCost
	return cost * float64(ef) / float64(e.Ef)
}

// walkScored estimates how many distances a walk with pools of ef computes, from
// the calibrated efforts around ef.
func (x *Index) walkScored(ef int) float64 {
	perEf := 8.0 // a typical walk, where nothing was measured
	if len(x.effort) > 0 {
		nearest := slices.MinFunc(x.effort, func(a, b Effort) int {
			return cmp.Compare(distance(a.Ef, ef), distance(b.Ef, ef))
		})
		perEf = float64(nearest.Scored) / float64(nearest.Ef)
	}
	return min(perEf*float64(ef), float64(x.nodes))
}

func distance(a, b int) int { return max(a-b, b-a) }
