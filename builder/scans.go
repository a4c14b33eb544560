package builder

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// fewRows is how many rows of a shard are compared with a query so fast that it does not
// matter whether a graph could be walked instead.
const fewRows = 10_000

// scans are the shards of a tower in which, for some k, comparing all rows is cheaper than
// any walk that is shown to reach the default target.
type scans struct {
	shards map[int]bool    // by number
	best   map[int]float32 // by k, the highest recall that a cheaper walk was shown to have
}

// count adds what a shard's calibration found.
func (s *scans) count(number, rows int, efforts []index.Effort) {
	if rows <= fewRows {
		return
	}
	for _, e := range efforts {
		if rounded(float64(e.Target)) != index.DefaultTarget || e.Recall >= e.Target {
			continue
		}
		if s.shards == nil {
			s.shards, s.best = map[int]bool{}, map[int]float32{}
		}
		s.shards[number] = true
		s.best[e.K] = max(s.best[e.K], e.Recall)
	}
}

// note says where a graph is of no use to a query that names no target; it is empty if that
// is nowhere.
func (s *scans) note(kind shard.Kind, of int) string {
	if len(s.shards) == 0 {
		return ""
	}
	var found []string
	for _, k := range slices.Sorted(maps.Keys(s.best)) {
		found = append(found, fmt.Sprintf("%.3f of the best %d", s.best[k], k))
	}
	return fmt.Sprintf("%s: a query that names no recall target is compared with all rows of %d of %d shards, which is exact and slow: "+
		"the searches of the graph that are faster are sure of no more than %s, and %g is wanted; a lower target makes it faster",
		kind, len(s.shards), of, strings.Join(found, ", "), index.DefaultTarget)
}
