package axes

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

const (
	turns        = 64
	permutations = 128
)

// turned returns the agreements of a with u after random turns. A turn is made of rounds,
// each of which permutes the coordinates, flips the signs of some and turns pairs of them
// by an angle of 45 degrees; after as many rounds as the dimension has binary digits, and
// two more, each coordinate depends on every other.
func turned(a, u [][]float64) []float64 {
	d := len(u)
	r := rand.New(rand.NewPCG(1, uint64(d)))
	rounds := bits.Len(uint(d)) + 2
	m, next := square(d), square(d)
	list := make([]float64, turns)
	for t := range list {
		for i := range m {
			copy(m[i], u[i])
		}
		for range rounds {
			order, signs := r.Perm(d), make([]float64, d)
			for i := range signs {
				signs[i] = float64(1 - 2*r.IntN(2))
			}
			for i, from := range order {
				row, to := m[from], next[i]
				for j, column := range order {
					to[j] = row[column] * (signs[i] * signs[j])
				}
			}
			butterfly(next)
			m, next = next, m
		}
		list[t] = inner(a, m)
	}
	return list
}

// butterfly turns pairs of neighbouring coordinates by 45 degrees, on both sides of m.
func butterfly(m [][]float64) {
	const half = math.Sqrt2 / 2
	for i := 0; i+1 < len(m); i += 2 {
		x, y := m[i], m[i+1]
		for j := range x {
			x[j], y[j] = (x[j]+y[j])*half, (x[j]-y[j])*half
		}
	}
	for _, row := range m {
		for j := 0; j+1 < len(row); j += 2 {
			row[j], row[j+1] = (row[j]+row[j+1])*half, (row[j]-row[j+1])*half
		}
	}
}

// permuted returns the agreements of a with u after random permutations of the
// coordinates.
func permuted(a, u [][]float64) []float64 {
	d := len(u)
	r := rand.New(rand.NewPCG(2, uint64(d)))
	list := make([]float64, permutations)
	for p := range list {
		order := r.Perm(d)
		for i, from := range order {
			row := u[from]
			for j, x := range a[i] {
				list[p] += float64(x * row[order[j]])
			}
		}
	}
	return list
}
