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
	// A band may hold a target that no walk cheaper than the scan reached.
	if high.Recall < high.Target {
		high = Effort{}
	}
	if low.Recall < low.Target {
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

// The relative cost of a row, with everything around it: in a scan of all rows,
// which reads codes in order, and in a scan of some. They are fixed, not timed during
// the build, so that builds stay reproducible.
const (
	scanCost   = 1
	gatherCost = 4
)

// walkCost is that of a distance that a walk computes: a larger pool costs more to
// keep sorted.
func walkCost(ef int) float64 { return 9 + float64(ef)/128 }

// exactCost is that of an exact scan. Where many rows are eligible it reads the codes
// of all.
func (x *Index) exactCost(eligible int) float64 {
	return float64(min(len(x.rows)*scanCost, eligible*gatherCost))
}

// choose returns the plan that costs least, and notes what they cost.
func (x *Index) choose(q Query, stats *Stats) Plan {
	if q.Ef == 0 || q.K == q.Eligible {
		return ExactScan
	}
	walk := x.walkScored(q.Ef) * walkCost(q.Ef)
	// A walk that collects eligible nodes goes on until it has seen ef of them.
	walk *= float64(len(x.rows)) / float64(q.Eligible)
	stats.ExactCost, stats.WalkCost = x.exactCost(q.Eligible), walk
	switch {
	case walk >= stats.ExactCost:
		return ExactScan
	case q.Filter == nil:
		return GraphWalk
	}
	return FilteredWalk
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
