package shard

import (
	"math"
	"slices"

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

// MeanRecall returns the mean of the recalls of queries, and that of the worst percent of
// them, rounded up to whole ones: a mean says nothing of the few that are given the wrong
// candidates. Both are 1 without queries.
func MeanRecall(recalls []float64) (mean, worst float64) {
	n := len(recalls)
	if n == 0 {
		return 1, 1
	}
	for i, r := range slices.Sorted(slices.Values(recalls)) {
		mean += r
		if i < (n+99)/100 {
			worst += r
		}
	}
	return mean / float64(n), worst / float64((n+99)/100)
}
