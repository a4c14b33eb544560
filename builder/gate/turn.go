package gate

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// turn is a random orthogonal map: rounds of which each permutes the components, flips
// the signs of some and turns pairs of them by 45 degrees. After as many rounds as the
// dimension has binary digits, and one more, every component depends on every other. It
// costs less than a dense matrix, and as each round is one addition and one product a
// component, it is the same to the bit on every CPU.
type turn struct {
	order [][]int     // by round
	signs [][]float32 // by round
}

func newTurn(dim int, seed uint64) *turn {
	r := rand.New(rand.NewPCG(seed, uint64(dim)))
	t := &turn{}
	for range bits.Len(uint(dim)) + 1 {
		signs := make([]float32, dim)
		for i := range signs {
			signs[i] = float32(1 - 2*r.IntN(2))
		}
		t.order, t.signs = append(t.order, r.Perm(dim)), append(t.signs, signs)
	}
	return t
}

// apply returns the image of v.
func (t *turn) apply(v []float32) []float32 {
	const half = float32(math.Sqrt2 / 2)
	v = append([]float32(nil), v...)
	out := make([]float32, len(v))
	for round, order := range t.order {
		for i, from := range order {
			out[i] = v[from] * t.signs[round][i]
		}
		for i := 0; i+1 < len(out); i += 2 {
			a, b := out[i], out[i+1]
			out[i], out[i+1] = (a+b)*half, (a-b)*half
		}
		v, out = out, v
	}
	return v
}
