// Package interval bounds shares that were seen in samples: recall above all, which is
// the share of what queries should have found that they did.
//
// Its callers are package index, which calibrates by a bound, and the gates of a build.
// The same input gives the same bits on every CPU.
package interval

import "math"

// Quantiles of the normal distribution, for one-sided bounds.
const (
	Z95 = 1.6448536269514722
	Z99 = 2.3263478740408408
)

// Lower returns the lower bound of a share that was seen in trials: the least share from
// which what was seen is no more than z standard deviations away (Wilson, "Probable
// inference, the law of succession, and statistical inference", JASA 1927; one-sided).
// Trials need not be whole; without any it is 0.
func Lower(share, trials, z float64) float64 {
	if trials <= 0 {
		return 0
	}
	square := z * z / trials
	middle := share + square/2
	width := z * math.Sqrt(math.Max(float64(share*(1-share)), 0)/trials+square/trials/4)
	return math.Max((middle-float64(width))/(1+square), 0)
}

// Upper returns the upper bound, that of Lower for what was not seen.
func Upper(share, trials, z float64) float64 { return 1 - Lower(1-share, trials, z) }

// Effective returns how many independent trials tell as much of a share, mean, as those of
// several queries do. Queries differ, so trials of one query tell less than as many of
// several: squares is the sum over the queries of the square of how many more of their
// trials succeeded than mean says. It is the linearised variance of a ratio (Kish, "Survey
// Sampling", 1965, chapter 8), and never more than trials.
func Effective(mean, trials, squares float64, queries int) float64 {
	if !(squares > 0) || queries < 2 {
		return trials
	}
	n := float64(queries)
	variance := squares * n / (n - 1) / trials / trials
	return math.Min(trials, float64(mean*(1-mean))/variance)
}
