package replay

import "math"

// Interval is what a mean lies in with a confidence of 95%, as far as the queries that
// were asked stand for all.
type Interval struct {
	Lower float64 `json:"lower"`
	Upper float64 `json:"upper"`
}

// around returns the interval that reaches as far below a mean as above it.
func around(mean, half float64) Interval { return Interval{mean - half, mean + half} }

// batches is into how many runs of queries that follow one another a sample is split.
const batches = 32

// students are the quantiles of Student's distribution that 97.5% lie below, for 1 degree
// of freedom to 31.
var students = [batches - 1]float64{
	12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
	2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042, 2.040,
}

// half returns half the length of the interval of the mean of some deviations from it, in
// the order of the queries. There are two at least.
//
// The latencies of queries that follow one another are alike, since a machine is slow for
// a while, so the interval is one of batch means (Conway, Some tactical problems in digital
// simulation, 1963). The batches of a small sample have one query each.
func half(deviations []float64) float64 {
	n := len(deviations)
	k := min(n, batches)
	square := 0.0
	for i := range k {
		sum := 0.0
		for _, d := range deviations[i*n/k : (i+1)*n/k] {
			sum += d
		}
		square += sum * sum
	}
	return students[k-2] * math.Sqrt(square*float64(k)/float64(k-1)) / float64(n)
}

// halfOfMean returns half the length of the interval of a mean.
func halfOfMean(xs []float64, mean float64) float64 {
	deviations := make([]float64, len(xs))
	for i, x := range xs {
		deviations[i] = x - mean
	}
	return half(deviations)
}

// halfOfRatio returns half the length of the interval of the ratio of the means of a and
// b, whose elements are of the same queries, by the variance of the linearised ratio
// (Cochran, Sampling Techniques, 3rd edition, section 2.11).
func halfOfRatio(a, b []float64) float64 {
	over, under := mean(a), mean(b)
	deviations := make([]float64, len(a))
	for i := range a {
		deviations[i] = (a[i] - over/under*b[i]) / math.Abs(under)
	}
	return half(deviations)
}

// intervalsOf returns the intervals of the means of changes and of latencies, in the order
// of the queries; nil where there are too few to tell.
func intervalsOf(changes []change, c *Change, latencies []float64, latency float64) *Intervals {
	if len(changes) < 2 {
		return nil
	}
	var overlaps, ranks, shifts, before, after []float64
	ids := 0
	for _, x := range changes {
		overlaps = append(overlaps, x.overlap)
		ids += max(x.ids, 1)
		if x.common {
			ranks, shifts = append(ranks, x.rank), append(shifts, x.shift)
		}
		if x.scored {
			before, after = append(before, x.before), append(after, x.after)
		}
	}
	out := &Intervals{Overlap: overlapInterval(overlaps, ids), Latency: around(latency, halfOfMean(latencies, latency))}
	if len(ranks) > 1 {
		out.RankChange = new(around(c.RankChange, halfOfMean(ranks, c.RankChange)))
		out.ScoreShift = new(around(c.ScoreShift, halfOfMean(shifts, c.ScoreShift)))
	}
	if len(before) > 1 {
		// Relative to the larger of the two means, as the shift is.
		if math.Abs(mean(before)) < math.Abs(mean(after)) {
			before, after = after, before
		}
		if mean(before) != 0 {
			out.MeanScoreShift = new(around(c.MeanScoreShift, halfOfRatio(after, before)))
		}
	}
	return out
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// overlapInterval returns the interval of the mean of some overlaps, each of as many ids
// as the longer answer has. It is Wilson's, of as many independent ids as would give the
// variance that is seen, and of all where that is less: answers that are all equal tell
// less than everything.
func overlapInterval(overlaps []float64, ids int) Interval {
	const z = 1.959963984540054 // 97.5% lie below
	n, share := float64(len(overlaps)), mean(overlaps)
	square := 0.0
	for _, x := range overlaps {
		square += (x - share) * (x - share)
	}
	trials := float64(ids)
	if square > 0 {
		trials = math.Min(trials, share*(1-share)*n*(n-1)/square)
	}
	z2 := z * z / trials
	middle := (share + z2/2) / (1 + z2)
	width := z * math.Sqrt(math.Max(share*(1-share), 0)/trials+z2/trials/4) / (1 + z2)
	return Interval{math.Max(middle-width, 0), math.Min(middle+width, 1)}
}
