package interval_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tandem-ann/tandem/index/interval"
)

func TestLower(t *testing.T) {
	// Solved from the definition: the share from which what was seen is as far as z
	// standard deviations.
	for _, tt := range []struct{ share, trials float64 }{{0.5, 10}, {0.99, 500}, {1, 100}, {0.03, 40}, {0, 10}} {
		for _, z := range []float64{interval.Z95, interval.Z99} {
			low := interval.Lower(tt.share, tt.trials, z)
			assert.InDelta(t, tt.share-low, z*math.Sqrt(low*(1-low)/tt.trials), 1e-12)
			assert.LessOrEqual(t, low, tt.share)
			high := interval.Upper(tt.share, tt.trials, z)
			assert.InDelta(t, high-tt.share, z*math.Sqrt(high*(1-high)/tt.trials), 1e-12)
		}
	}
	assert.Zero(t, interval.Lower(1, 0, interval.Z99))
	assert.Equal(t, 1.0, interval.Upper(0, 0, interval.Z99))
}

func TestQuantiles(t *testing.T) {
	for z, p := range map[float64]float64{interval.Z95: 0.95, interval.Z99: 0.99} {
		assert.InDelta(t, p, (1+math.Erf(z/math.Sqrt2))/2, 1e-12)
	}
}

func TestEffective(t *testing.T) {
	assert.Equal(t, 300.0, interval.Effective(1, 300, 0, 30), "nothing was missed")
	assert.Equal(t, 10.0, interval.Effective(0.5, 10, 25, 1), "one query shows no variance")
	// Each of ten queries had all of ten or none, so that its trials are as good as one.
	assert.InDelta(t, 9, interval.Effective(0.5, 100, 10*25, 10), 1e-9)
	assert.Equal(t, 100.0, interval.Effective(0.5, 100, 1e-9, 10), "no more than there are")
}

// Both bounds hold as often as they say, though queries differ.
func TestBoundsHold(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const queries, k, truth, runs = 500, 10, 0.98, 3000
	above, below := 0, 0
	for range runs {
		hits, squares := 0, 0
		for range queries {
			p := 0.99 // of most queries
			if r.Float64() < 0.1 {
				p = 0.89
			}
			found := 0
			for range k {
				if r.Float64() < p {
					found++
				}
			}
			hits += found
			squares += found * found
		}
		mean := float64(hits) / (queries * k)
		effective := interval.Effective(mean, queries*k, float64(squares)-mean*mean*k*k*queries, queries)
		if interval.Lower(mean, effective, interval.Z99) > truth {
			above++
		}
		if interval.Upper(mean, effective, interval.Z99) < truth {
			below++
		}
	}
	assert.LessOrEqual(t, above, runs*15/1000)
	assert.LessOrEqual(t, below, runs*15/1000)
	assert.Positive(t, above+below, "the bounds are no wider than they need be")
}
