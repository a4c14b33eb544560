package shard

import (
	"math"

	"github.com/tandem-ann/tandem/index"
)

// RecallOf returns recall@k of found, where k is the length of exact, the exact
// answer to the same query: the share of the k best that found has. Ties at the
// k-th score are interchangeable, so a candidate counts when its score is as good
// as the last exact one. It is 1 when exact is empty.
func RecallOf(metric index.Metric, exact, found []Candidate) float64 {
	if len(exact) == 0 {
		return 1
	}
	last := exact[len(exact)-1].Score
	hits := 0
	for _, c := range found {
		if !metric.Better(last, c.Score) {
			hits++
		}
	}
	return math.Min(float64(hits)/float64(len(exact)), 1)
}
