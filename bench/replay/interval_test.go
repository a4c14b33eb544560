package replay

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// covers returns in which share of trials an interval has the truth.
func covers(truth float64, draw func(*rand.Rand) Interval) float64 {
	rng := rand.New(rand.NewPCG(1, 2))
	const trials = 2000
	hits := 0
	for range trials {
		if x := draw(rng); x.Lower <= truth && truth <= x.Upper {
			hits++
		}
	}
	return float64(hits) / trials
}

// correlated are latencies around 100 of which each is like the one before.
func correlated(rng *rand.Rand, n int, like float64) []float64 {
	xs := make([]float64, n)
	x := rng.NormFloat64()
	for i := range xs {
		x = like*x + math.Sqrt(1-like*like)*rng.NormFloat64()
		xs[i] = 100 + 10*x
	}
	return xs
}

func TestIntervalsOfMeansCover(t *testing.T) {
	for _, n := range []int{2, 5, 31, 100, 1000} {
		got := covers(100, func(rng *rand.Rand) Interval {
			xs := correlated(rng, n, 0)
			return around(mean(xs), halfOfMean(xs, mean(xs)))
		})
		require.InDelta(t, 0.95, got, 0.02, n)
	}
	// With a standard error that takes them as independent this is 0.42.
	got := covers(100, func(rng *rand.Rand) Interval {
		xs := correlated(rng, 5000, 0.9)
		return around(mean(xs), halfOfMean(xs, mean(xs)))
	})
	require.InDelta(t, 0.93, got, 0.03)
}

func TestIntervalsOfRatiosCover(t *testing.T) {
	// What makes one slow makes the other slow, so that the ratio is known well.
	var longest float64
	got := covers(1.2, func(rng *rand.Rand) Interval {
		a := correlated(rng, 1000, 0.9)
		b := make([]float64, len(a))
		for i := range a {
			b[i] = a[i] / 1.2 * (1 + 0.05*rng.NormFloat64())
		}
		h := halfOfRatio(a, b)
		longest = max(longest, h)
		return around(mean(a)/mean(b), h)
	})
	require.InDelta(t, 0.95, got, 0.02)
	require.Less(t, longest, 0.01)
}

func TestIntervalsOfOverlapsCover(t *testing.T) {
	for _, p := range []float64{0.3, 0.9, 0.99, 0.999} {
		got := covers(p, func(rng *rand.Rand) Interval {
			overlaps := make([]float64, 400)
			for i := range overlaps {
				for range 10 {
					if rng.Float64() < p {
						overlaps[i] += 0.1
					}
				}
			}
			return overlapInterval(overlaps, 10*len(overlaps))
		})
		require.GreaterOrEqual(t, got, 0.93, p)
	}
	// Ids of one query that go together tell less.
	got := covers(0.9, func(rng *rand.Rand) Interval {
		overlaps := make([]float64, 400)
		for i := range overlaps {
			if rng.Float64() < 0.9 {
				overlaps[i] = 1
			}
		}
		return overlapInterval(overlaps, 10*len(overlaps))
	})
	require.InDelta(t, 0.95, got, 0.02)
	// Equal answers are not all there is.
	equal := overlapInterval([]float64{1, 1, 1, 1}, 80)
	require.InDelta(t, 0.9542, equal.Lower, 1e-4)
	require.InDelta(t, 1, equal.Upper, 1e-9)
}
