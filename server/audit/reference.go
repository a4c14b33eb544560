package audit

import (
	"math"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Margin is how far the mean recall of live queries may be below what the manifest measured:
// they are not those that were held out.
const Margin = 0.02

// references are what recalls of an arm are compared with: the floor of a query is its
// reference less [Margin].
type references struct {
	towers   map[shard.Kind][]manifest.Recall
	segments map[string][]manifest.Recall
	floor    float64 // of the release; 0 if it has none
}

func newReferences(m *manifest.Manifest, floor float64) references {
	r := references{towers: map[shard.Kind][]manifest.Recall{}, segments: map[string][]manifest.Recall{}, floor: floor}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		r.towers[kind] = m.Tower(kind).Recall
	}
	for _, s := range m.Apps.Segments {
		r.segments[s.Name] = s.Recall
	}
	return r
}

// of returns the reference of a query. That is its own target, or what the manifest measured
// where that is of such queries: for the same target, and of the same segment, if any, and
// nothing else that narrows them. Where the release has a floor, it is what makes that the
// floor, unless the query's own target is lower.
func (r *references) of(kind shard.Kind, q *shard.Query) float64 {
	if r.floor > 0 {
		return min(r.floor+Margin, q.Target)
	}
	list := r.towers[kind]
	if q.Segment != "" {
		list = r.segments[q.Segment]
	}
	measured, sufficient, ok := measuredOf(list, q.K, q.Target)
	narrowed := q.Filter != nil || len(q.Include) > 0 || len(q.AtMost) > 0
	switch {
	case !ok:
		return q.Target
	case narrowed || sufficient > q.Target+1e-6:
		return min(measured, q.Target)
	}
	return measured
}

// measuredOf returns the lowest recall that was measured around k for the least sufficient
// target, and that; false if there is none.
func measuredOf(list []manifest.Recall, k int, target float64) (lowest, sufficient float64, ok bool) {
	sufficient = math.Inf(1)
	for _, m := range list {
		if m.Queries > 0 && m.Target >= target-1e-6 {
			sufficient = min(sufficient, m.Target)
		}
	}
	below, above := 0, math.MaxInt // the bands around k
	for _, m := range list {
		if m.Target == sufficient && m.K <= k {
			below = max(below, m.K)
		}
		if m.Target == sufficient && m.K >= k {
			above = min(above, m.K)
		}
	}
	lowest = 1
	for _, m := range list {
		if m.Target == sufficient && m.Queries > 0 && (m.K == below || m.K == above) {
			lowest, ok = min(lowest, m.Recall), true
		}
	}
	return lowest, sufficient, ok
}
