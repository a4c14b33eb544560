package shard

import (
	"math/big"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// above returns the number of ways to deal k rows to shards by which one of them gets more
// than q, and that of all ways, for each q.
func above(k, shards int) (ways []*big.Int, all *big.Int) {
	ways, sum := make([]*big.Int, k+1), new(big.Int)
	others := big.NewInt(int64(shards - 1))
	for q := k; q >= 0; q-- {
		ways[q] = new(big.Int).Set(sum)
		n := new(big.Int).Exp(others, big.NewInt(int64(k-q)), nil)
		sum.Add(sum, n.Mul(n, new(big.Int).Binomial(int64(k), int64(q))))
	}
	return ways, sum
}

// TestShare holds shares against the tail of the binomial distribution in whole numbers.
func TestShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, shards := rapid.IntRange(1, 400).Draw(t, "k"), rapid.IntRange(2, 64).Draw(t, "shards")
		ways, all := above(k, shards)
		// Whether any shard has more than q, by the sum over shards, in less than 1 of 200 ways.
		rare := func(q int) bool {
			n := new(big.Int).Mul(ways[q], big.NewInt(int64(200*shards)))
			return n.Cmp(all) <= 0
		}
		s := shareOf(k, shards)
		require.LessOrEqual(t, s.rows, k)
		if s.rows < k {
			require.True(t, rare(s.rows-1), "%d rows", s.rows)
		}
		if s.rows > 1 {
			require.False(t, rare(s.rows-2), "%d rows are one too many", s.rows)
		}
		require.LessOrEqual(t, s.expected, s.rows)
		require.GreaterOrEqual(t, s.expected*shards, min(k, s.rows*shards))
	})
}

// TestShareOfMany: whatever is asked of however many shards, each is asked for at least the
// mean and at most for all; of a thousand rows in 16 shards all together for less than a
// tenth of what each might have.
func TestShareOfMany(t *testing.T) {
	require.Equal(t, share{91, 71}, shareOf(1000, 16))
	require.Equal(t, share{7, 7}, shareOf(7, 1))
	require.Equal(t, share{7, 7}, shareOf(7, 0))
	for _, shards := range []int{2, 3, 16, 1000, 1 << 20} {
		for k := 1; k < 1<<40; k = 1 + 3*k {
			s := shareOf(k, shards)
			require.GreaterOrEqual(t, s.rows, k/shards)
			require.LessOrEqual(t, s.rows, k)
			require.GreaterOrEqual(t, s.expected, k/shards)
			require.LessOrEqual(t, s.expected, s.rows)
		}
	}
}

// TestSharesAreKept: who asks at the same time for what falls to the same places gets what
// there is without them.
func TestSharesAreKept(t *testing.T) {
	var kept shares
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, k := range []int{1, 65, 129, 1, 65, 1 << 21, 1<<21 - 1, 1<<21 + 64, 100, 100} {
				if kept.of(k, 16) != shareOf(k, 16) {
					t.Errorf("%d rows", k)
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkShare(b *testing.B) {
	var kept shares
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			kept.of(1000, 16)
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			shareOf(1000, 16)
		}
	})
}
