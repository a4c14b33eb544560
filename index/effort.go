package index

import (
	"cmp"
	"slices"
)

// Effort is what a calibration found: with an effort of Ef, which may be below K, sample
// queries for K rows had this mean recall.
type Effort struct {
	K      int
	Target float32 // the recall target that Ef is the least effort for
	Ef     int
	Recall float32 // mean recall@K of the sample; below Target where none reaches it
	Scored float32 // mean distance computations a query
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

// EffortFor returns the effort that reaches a mean recall of target for k
// rows, and 0, the exact scan, for a target above the highest calibrated one, for
// one that no walk cheaper than the scan reached, or without a calibration.
// Between two bands of k it interpolates; beyond the last it scales.
func (x *Index) EffortFor(k int, target float64) int {
	var low, high Effort
	for _, e := range x.effort {
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
	if low.Recall < low.Target || high.Recall < high.Target && low.K < k {
		return 0
	}
	switch {
	case low.K == 0 && high.K == 0:
		return 0
	case low.K == 0:
		return high.Ef
	case high.K == 0:
		return max(low.Ef*k/low.K, 1)
	}
	return low.Ef + (high.Ef-low.Ef)*(k-low.K)/(high.K-low.K)
}

// FilteredEffortFor returns the effort for a filtered walk. It has to be more than that
// of a walk without a filter: neighbours that are found through others are not as near,
// and a filter that keeps what the queries do not want leaves answers that are further
// from where they look. On two real towers and on SIFT, with filters of four fifths to a
// twentieth of the rows that have nothing to do with the query or keep what is like it,
// half as much again and a little reaches what the calibration found without one. Where
// no more rows than k are not eligible, a walk has room for them.
func (x *Index) FilteredEffortFor(k int, target float64, eligible int) int {
	ef := x.EffortFor(k, target)
	if ef == 0 || len(x.rows)-eligible <= k {
		return ef
	}
	return ef + ef/2 + 20
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

// choose returns the plan that costs least, and notes in stats what it expects.
func (x *Index) choose(q Query, stats *Stats) Plan {
	if q.Ef == 0 || q.K == q.Eligible {
		return ExactScan
	}
	plan := GraphWalk
	stats.ExactCost, stats.WalkCost = x.exactCost(q.Eligible, q.K), x.walkScored(q.Ef)*walkCost(q.Ef)
	if q.Filter != nil {
		plan, stats.WalkCost = FilteredWalk, x.filteredCost(q)
	}
	if stats.WalkCost >= stats.ExactCost {
		return ExactScan
	}
	return plan
}

// degreeSample is how many nodes tell the mean number of neighbours.
const degreeSample = 16

// filteredCost estimates what a filtered walk costs, from the share of the rows that
// are eligible. Of a node's list about two thirds are new to the walk, of a list that it
// looks through about a half.
func (x *Index) filteredCost(q Query) float64 {
	if missing := len(x.rows) - q.Eligible; missing <= max(q.Ef, q.K) {
		return x.walkScored(q.Ef+missing) * walkCost(q.Ef+missing)
	}
	base := x.layers[0]
	var degree float64
	for i := range degreeSample {
		degree += float64(len(base.neighbours(uint32(i*x.nodes/degreeSample)))) / degreeSample
	}
	share := float64(q.Eligible) / float64(len(x.rows))
	own, more := degree*share*2/3, degree*share/2
	through := degree * (1 - share)
	if more > 0 {
		through = min(through, (degree-own)/more)
	}
	scored := float64(q.Ef)*(own+through*more) + seedsLeast
	return scored*walkCost(q.Ef) + float64(q.Ef)*through*throughCost
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
