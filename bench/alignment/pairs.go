package alignment

import (
	"math"
	"math/rand/v2"
	"slices"
)

// pair is two towers, with whether they belong together.
type pair struct {
	what        string
	together    bool
	apps, users [][]float64
}

// pairs returns what becomes of a model's towers on the way to a build, and what must not.
// The first is as it was trained.
func (m *model) pairs(r *rand.Rand) []pair {
	a, u := m.apps, m.users
	dim := len(a[0])
	turn, order := rotation(dim, r), r.Perm(dim)
	few := func(rows [][]float64) [][]float64 { return slices.Clone(rows[:min(200, len(rows))]) }
	exponent := pick(r, 0.3, -0.3, 0.6)
	byPopularity := mapped(a, func(i int, v []float64) { multiply(v, math.Pow(1+m.world.popularity[i], exponent)) })
	shift := gaussian(r, dim, 5*rms(a))
	shifted := mapped(a, func(_ int, v []float64) { axpy(1, shift, v) })
	// What is multiplied in both towers is what both agree in, so few directions hold
	// nearly all of the variance.
	directions := 1 + r.IntN(3)
	collapsed := func(rows [][]float64) [][]float64 {
		return rotated(mapped(rows, func(_ int, v []float64) { multiply(v[:min(directions, dim)], 8) }), turn)
	}
	turned, reordered := rotated(u, turn), permuted(u, order)
	return []pair{
		{"as trained", true, a, u},
		{"both turned", true, rotated(a, turn), turned},
		{"both permuted", true, permuted(a, order), reordered},
		{"200 rows", true, few(a), few(u)},
		{"normalised", true, normalised(a), normalised(u)},
		{"norms by popularity", true, byPopularity, u},
		{"apps shifted", true, shifted, u},
		{"collapsed", true, collapsed(a), collapsed(u)},
		{"trained again", true, m.again.apps, m.again.users},
		{"one turned", false, a, turned},
		{"one permuted", false, a, reordered},
		{"apps of another training", false, m.again.apps, u},
		{"users of another training", false, a, m.again.users},
		{"another training, turned", false, m.again.apps, turned},
	}
}

// mapped returns copies of rows that f has changed.
func mapped(rows [][]float64, f func(i int, v []float64)) [][]float64 {
	list := make([][]float64, len(rows))
	for i, v := range rows {
		list[i] = append([]float64(nil), v...)
		f(i, list[i])
	}
	return list
}

func multiply(v []float64, by float64) {
	for i := range v {
		v[i] *= by
	}
}

// rms is the root mean square of all components.
func rms(rows [][]float64) float64 {
	sum := 0.0
	for _, v := range rows {
		sum += dot(v, v)
	}
	return math.Sqrt(sum / float64(len(rows)*len(rows[0])))
}

// rotation is a random orthogonal map, by Gram and Schmidt, twice over.
func rotation(dim int, r *rand.Rand) [][]float64 {
	q := gaussians(r, dim, dim, 1)
	for i := range q {
		for range 2 {
			for _, before := range q[:i] {
				axpy(-dot(q[i], before), before, q[i])
			}
		}
		multiply(q[i], 1/math.Sqrt(dot(q[i], q[i])))
	}
	return q
}

func rotated(rows, q [][]float64) [][]float64 {
	list := make([][]float64, len(rows))
	for i, v := range rows {
		list[i] = make([]float64, len(v))
		for j := range q {
			list[i][j] = dot(q[j], v)
		}
	}
	return list
}

func permuted(rows [][]float64, order []int) [][]float64 {
	list := make([][]float64, len(rows))
	for i, v := range rows {
		list[i] = make([]float64, len(v))
		for j, from := range order {
			list[i][j] = v[from]
		}
	}
	return list
}

func normalised(rows [][]float64) [][]float64 {
	return mapped(rows, func(_ int, v []float64) { multiply(v, 1/max(math.Sqrt(dot(v, v)), 1e-12)) })
}

func floats(rows [][]float64) [][]float32 {
	list := make([][]float32, len(rows))
	for i, row := range rows {
		list[i] = make([]float32, len(row))
		for j, x := range row {
			list[i][j] = float32(x)
		}
	}
	return list
}
