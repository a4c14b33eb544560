package explore_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/explore"
)

// What is drawn is of the pool, and each once; the same seed draws the same.
func TestDraw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := rapid.IntRange(1, 50).Draw(t, "pool")
		places := rapid.IntRange(0, pool).Draw(t, "places")
		seed := rapid.Uint64().Draw(t, "seed")
		drawn := explore.Draw(pool, places, seed)
		require.Len(t, drawn, places)
		seen := map[int]bool{}
		for _, n := range drawn {
			require.True(t, n >= 0 && n < pool && !seen[n])
			seen[n] = true
		}
		require.Equal(t, drawn, explore.Draw(pool, places, seed))
	})
}

// TestDrawIsFair counts ordered choices over seeds: all are as frequent, within five standard
// deviations. A fair draw of other seeds fails this in one of some 30,000 runs; these seeds are
// always the same.
func TestDrawIsFair(t *testing.T) {
	const pool, places, draws = 6, 3, 120_000
	counts := map[string]int{}
	for seed := range uint64(draws) {
		counts[fmt.Sprint(explore.Draw(pool, places, seed))]++
	}
	const choices = 6 * 5 * 4
	require.Len(t, counts, choices)
	expected := float64(draws) / choices
	for choice, n := range counts {
		assert.InDelta(t, expected, n, 5*math.Sqrt(expected*(1-1./choices)), choice)
	}
}

// The probabilities of all that may be at a place add up to 1.
func TestPropensities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share, pool := float64(rapid.IntRange(1, 999).Draw(t, "share"))/1000, rapid.IntRange(1, 10_000).Draw(t, "pool")
		drawn, displaced := explore.Propensities(share, pool)
		require.Positive(t, drawn)
		require.Positive(t, displaced)
		require.InDelta(t, 1, float64(drawn)*float64(pool)+float64(displaced), 1e-6)
	})
}

func ExampleDraw() {
	ranks := explore.Draw(8, 2, 1)
	fmt.Println(len(ranks), ranks[0] != ranks[1])
	// Output: 2 true
}
