package replay

import (
	"math"
	"slices"

	"github.com/tandem-ann/tandem/shard/querylog"
)

// change is how one answer differs from an earlier one to the same query.
type change struct {
	overlap float64
	ids     int     // of the longer answer
	common  bool    // whether some ids are in both; rank and shift are of those
	rank    float64 // mean difference of their ranks, unsigned
	shift   float64 // mean relative difference of their scores, unsigned
	top     bool    // whether another id is the first
	scored  bool    // whether both have candidates; before and after are of those
	before  float64 // mean score of the earlier answer
	after   float64 // and of the later
}

// compare compares two answers.
func compare(before, after []querylog.Candidate) change {
	c := change{overlap: 1}
	most := max(len(before), len(after))
	if c.ids = most; most == 0 {
		return c
	}
	rank := make(map[string]int, len(before))
	for i := range before {
		rank[before[i].ID] = i
	}
	n := 0
	for i := range after {
		at, ok := rank[after[i].ID]
		if !ok {
			continue
		}
		delete(rank, after[i].ID) // a damaged answer may have it twice
		n++
		c.rank += math.Abs(float64(i - at))
		c.shift += math.Abs(relative(float64(before[at].Score), float64(after[i].Score)))
	}
	c.overlap = float64(n) / float64(most)
	if c.common = n > 0; c.common {
		c.rank /= float64(n)
		c.shift /= float64(n)
	}
	c.top = len(before) == 0 || len(after) == 0 || before[0].ID != after[0].ID
	if c.scored = len(before) > 0 && len(after) > 0; c.scored {
		c.before, c.after = meanScore(before), meanScore(after)
	}
	return c
}

func meanScore(candidates []querylog.Candidate) float64 {
	sum := 0.0
	for i := range candidates {
		sum += float64(candidates[i].Score)
	}
	return sum / float64(len(candidates))
}

// relative returns by how much b differs from a, as a share of the larger of their
// magnitudes: -2 to 2, and 0 if both are 0. A share of a alone has no bound.
func relative(a, b float64) float64 {
	if a == b {
		return 0
	}
	return (b - a) / max(math.Abs(a), math.Abs(b))
}

// low is the overlap below which an answer counts as another one.
const low = 0.5

// sumUp sums changes up.
func sumUp(changes []change) Change {
	var out Change
	n := float64(len(changes))
	if n == 0 {
		return out
	}
	overlaps := make([]float64, len(changes))
	common, scored, before, after := 0.0, 0.0, 0.0, 0.0
	for i, c := range changes {
		overlaps[i] = c.overlap
		out.Overlap += c.overlap
		if c.overlap < low {
			out.OverlapLow++
		}
		if c.top {
			out.TopChanged++
		}
		if c.common {
			common++
			out.RankChange += c.rank
			out.ScoreShift += c.shift
		}
		if c.scored {
			scored++
			before += c.before
			after += c.after
		}
	}
	out.Overlap, out.OverlapLow, out.TopChanged = out.Overlap/n, out.OverlapLow/n, out.TopChanged/n
	slices.Sort(overlaps)
	out.OverlapMin, out.OverlapP1 = overlaps[0], overlaps[len(overlaps)/100]
	if common > 0 {
		out.RankChange /= common
		out.ScoreShift /= common
	}
	if scored > 0 {
		out.MeanScoreShift = relative(before/scored, after/scored)
	}
	return out
}

// latencyOf sums latencies in microseconds up, and leaves their order.
func latencyOf(us []float64) Latency {
	if len(us) == 0 {
		return Latency{}
	}
	us = slices.Sorted(slices.Values(us))
	sum := 0.0
	for _, x := range us {
		sum += x
	}
	at := func(share float64) float64 { return us[min(int(share*float64(len(us))), len(us)-1)] }
	return Latency{Mean: sum / float64(len(us)), P50: at(0.5), P99: at(0.99)}
}
