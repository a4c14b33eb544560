package gate

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/gates"
)

// The lower bound holds in 95 of 100 cases, though users differ.
func TestLowerBoundHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const users, k, truth, runs = 300, 20, 0.9, 2000
	held := 0
	for range runs {
		var s share
		for range users {
			p, hits := 0.95, 0 // of most users
			if r.Float64() < 0.1 {
				p = 0.45
			}
			for range k {
				if r.Float64() < p {
					hits++
				}
			}
			s.add(hits, k)
		}
		if _, lower, _ := s.of(); lower <= truth {
			held++
		}
	}
	assert.InDelta(t, 0.95, float64(held)/runs, 0.02)
}

func TestShareOfNothing(t *testing.T) {
	var s share
	s.add(0, 0)
	mean, lower, trials := s.of()
	assert.Equal(t, []float64{1, 1, 0}, []float64{mean, lower, float64(trials)})
}

// A turn keeps every angle and every length, and mixes all components.
func TestTurn(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, dim := range []int{1, 2, 3, 24, 65} {
		a, b := make([]float32, dim), make([]float32, dim)
		for i := range a {
			a[i], b[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
		}
		dot := func(v, w []float32) (sum float64) {
			for i := range v {
				sum += float64(v[i]) * float64(w[i])
			}
			return sum
		}
		turn := newTurn(dim, 7)
		x, y := turn.apply(a), turn.apply(b)
		require.Equal(t, x, newTurn(dim, 7).apply(a))
		assert.InDelta(t, dot(a, b), dot(x, y), 1e-4)
		assert.InDelta(t, dot(a, a), dot(x, x), 1e-4)
		if dim < 24 {
			continue
		}
		one := make([]float32, dim)
		one[0] = 1
		reached := 0
		for _, v := range turn.apply(one) {
			if v != 0 {
				reached++
			}
		}
		assert.Greater(t, reached, dim/2)
	}
}

func TestPercent(t *testing.T) {
	for want, share := range map[string]float64{"50%": 0.5, "0%": 0, "0.12%": 0.00123, "53.3%": 0.53333, "100%": 1, "2%": 0.02, "99.4%": 0.9937} {
		assert.Equal(t, want, gates.Percent(share))
	}
}
