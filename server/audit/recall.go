package audit

import (
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard"
)

// tolerance is how much a score may be off, in proportion: it is what answers promise.
const tolerance = 1e-5

// recallOf returns recall@k of what was answered, where k is the length of exact, the exact
// answer to the same query: the share of the k best that were found. What scores as the
// last of them does, within the tolerance, may stand for one that was not. It is 1 where
// nothing is to be found.
func recallOf(exact, found []shard.Candidate) float64 {
	if len(exact) == 0 {
		return 1
	}
	ids := make([]string, len(exact))
	for i := range exact {
		ids[i] = exact[i].ID
	}
	slices.Sort(ids)
	last := float64(exact[len(exact)-1].Score)
	near := tolerance * math.Abs(last)
	hits := 0
	for i := range found {
		_, in := slices.BinarySearchFunc(ids, found[i].ID, strings.Compare)
		if in || math.Abs(float64(found[i].Score)-last) <= near {
			hits++
		}
	}
	return min(float64(hits)/float64(len(exact)), 1)
}
