package engines

import (
	"cmp"
	"math"
	"slices"
)

// Levels are the recalls at which engines are compared.
var Levels = [...]float64{0.90, 0.95, 0.99, 0.999}

// point is what a setting reached.
type point struct {
	recall, qps float64
}

// front returns the points that no other beats in both recall and speed, in
// ascending order of recall and so descending of speed.
func front(points []point) []point {
	sorted := slices.SortedFunc(slices.Values(points), func(a, b point) int {
		return cmp.Or(cmp.Compare(b.recall, a.recall), cmp.Compare(b.qps, a.qps))
	})
	var best []point
	for _, p := range sorted {
		if len(best) == 0 || p.qps > best[len(best)-1].qps {
			best = append(best, p)
		}
	}
	slices.Reverse(best)
	return best
}

// at returns the speed of a front at a recall: on the line, in the logarithm of
// the speed, between the points around it. It reports whether the front gets there.
func at(front []point, recall float64) (qps float64, ok bool) {
	i, exact := slices.BinarySearchFunc(front, recall, func(p point, r float64) int { return cmp.Compare(p.recall, r) })
	switch {
	case i == len(front):
		return 0, false
	case i == 0 || exact: // nothing less is known to be faster
		return front[i].qps, true
	}
	a, b := front[i-1], front[i]
	share := (recall - a.recall) / (b.recall - a.recall)
	return math.Exp(math.Log(a.qps) + share*(math.Log(b.qps)-math.Log(a.qps))), true
}

// frontOf returns the front of an engine at k. Settings that did the same work, as
// a target and its effort do, are one point at their mean speed: the fastest of
// several tries at one thing would be luck, and only our index has several.
func frontOf(results []Result, engine Spec, k int) []point {
	type work struct{ recall, distances float64 }
	speeds := map[work][]float64{}
	for _, r := range results {
		if r.Engine == engine && r.K == k {
			w := work{recall: r.Recall}
			if r.Distances != nil {
				w.distances = *r.Distances
			}
			speeds[w] = append(speeds[w], r.QPS)
		}
	}
	var points []point
	for w, qps := range speeds {
		var sum float64
		for _, q := range qps {
			sum += q
		}
		points = append(points, point{w.recall, sum / float64(len(qps))})
	}
	return front(points)
}

// levels compares the engines at every k and level, in that order.
func levels(engines []Engine, results []Result) []Level {
	var ks []int
	for _, r := range results {
		ks = append(ks, r.K)
	}
	var out []Level
	for _, k := range ascending(ks) {
		for _, recall := range Levels {
			first, reached := at(frontOf(results, engines[0].Engine, k), recall)
			for _, e := range engines {
				l := Level{Engine: e.Engine, K: k, Recall: recall}
				if qps, ok := at(frontOf(results, e.Engine, k), recall); ok {
					l.QPS = &qps
					if reached {
						ratio := first / qps
						l.Ratio = &ratio
					}
				}
				out = append(out, l)
			}
		}
	}
	return out
}
