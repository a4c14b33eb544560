package index_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// Walks find what is near however long a few of the rows are, or all of them.
func TestWalkAcrossNorms(t *testing.T) {
	const rows, dim, k, ef = 4000, 32, 10, 100
	cases := map[string]struct {
		metric index.Metric
		scale  func(i int) float64
		toward float32 // what is added to every component
	}{
		"six decades under dot":           {index.Dot, func(i int) float64 { return math.Pow(10, 6*float64(i)/rows) }, 0},
		"six decades in a cone under dot": {index.Dot, func(i int) float64 { return math.Pow(10, 6*float64(i)/rows) }, 2},
		"most rows weak under dot": {index.Dot, func(i int) float64 {
			if i%5 > 0 {
				return 1e-5
			}
			return 0.5 + float64(i)/rows
		}, 1},
		"one giant under dot": {index.Dot, giant(rows), 0},
		"one giant under l2":  {index.L2, giant(rows), 0},
		"collapsed under dot": {index.Dot, func(int) float64 { return 1 }, 300},
		"collapsed under l2":  {index.L2, func(int) float64 { return 1 }, 300},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := clustered(random(5), rows+50, dim, 40, 0.5)
			for _, v := range all {
				for j := range v {
					v[j] += c.toward
				}
			}
			vectors := scaled(all[:rows], c.scale)
			x := build(t, dim, vectors, index.DefaultParams(c.metric))
			got, scored := recall(t, x, all[rows:], k, ef)
			t.Logf("recall %.4f of %d scored", got, scored)
			require.GreaterOrEqual(t, got, 0.97)
		})
	}
}

// giant makes one row in the middle a million times as long.
func giant(rows int) func(i int) float64 {
	return func(i int) float64 {
		if i == rows/2 {
			return 1e6
		}
		return 1
	}
}

// A query may be so short that one over its step is not a float32.
func TestWalkTinyQuery(t *testing.T) {
	const rows, dim, k, ef = 2000, 32, 10, 100
	r := random(6)
	for name, c := range map[string]struct {
		metric index.Metric
		rows   float64
	}{
		"dot":             {index.Dot, 1},
		"dot, long rows":  {index.Dot, 1e15},
		"l2, a zero mean": {index.L2, 1},
	} {
		vectors := scaled(gaussian(r, rows, dim), func(int) float64 { return c.rows })
		for i := range rows / 2 { // so that the mean is 0
			for j := range dim {
				vectors[rows/2+i][j] = -vectors[i][j]
			}
		}
		x := build(t, dim, vectors, index.DefaultParams(c.metric))
		for _, size := range []float64{1e-36, 1e-37} {
			got, scored := recall(t, x, scaled(gaussian(r, 50, dim), func(int) float64 { return size }), k, ef)
			t.Logf("%s, size %g: recall %.4f of %d scored", name, size, got, scored)
			require.GreaterOrEqual(t, got, 0.9, "%s, size %g", name, size)
		}
	}
}
