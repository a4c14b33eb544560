package index

import "slices"

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

// effort returns what was found, which a [FilteredEffort] has too.
func (e Effort) effort() Effort { return e }

// Targets are the recall targets that a calibration covers.
var Targets = [...]float32{0.90, 0.95, 0.99, 0.999}

// DefaultTarget is the recall target of a query that names none.
const DefaultTarget = 0.99

// Effort returns what the calibration found, by k and target.
func (x *Index) Effort() []Effort { return slices.Clone(x.costs.Effort) }

// effortFor returns the effort, and whether it is known to reach the target. Where it is
// not, the effort is what the last walk that was tried had, or 0.
func effortFor[E interface{ effort() Effort }](efforts []E, k int, target float64) (ef int, reached bool) {
	var low, high Effort
	for i := range efforts {
		e := efforts[i].effort()
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
func (x *Index) FilteredEffort() []FilteredEffort { return slices.Clone(x.costs.Filtered) }
