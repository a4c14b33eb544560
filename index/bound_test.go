package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// coded is rows with their codes, and what scores them.
type coded struct {
	metric  Metric
	dim     int
	vectors vectors
	codes   codes
}

func code(t *testing.T, metric Metric, rows [][]float32) coded {
	m, err := NewMatrix(len(rows[0]), len(rows))
	require.NoError(t, err)
	for _, v := range rows {
		require.NoError(t, m.Append(v))
	}
	v := vectors{stride: m.stride, float32s: m.data}
	return coded{metric, m.dim, v, encode(metric, m.dim, len(rows), &v)}
}

// bounds returns the exact distances of all rows, what the bound of each must not
// exceed, and the bounds.
func (c coded) bounds(query []float32) (exact, limits, bounds []float32) {
	x := &Index{params: Params{Metric: c.metric}, dim: c.dim, stride: c.vectors.stride, vectors: c.vectors}
	s := &scratch{}
	x.begin(s, query, 1)
	c.codes.code(c.metric, s.query, &s.coded)
	c.codes.boundBelow(c.metric, s.query, &s.coded, &s.scan)
	n := len(c.codes.factors) / 2
	ordinals := make([]uint32, n)
	for i := range ordinals {
		ordinals[i] = uint32(i)
	}
	exact = append(exact, x.distances(s, ordinals)...)
	near := c.codes.withinRange(&s.coded, 0, n, infinity, nil)
	for i, d := range exact {
		limits = append(limits, s.scan.limit(d))
		bounds = append(bounds, near[i].dist())
	}
	return exact, limits, bounds
}

// Where everything that the bound allows for happens at once, it must hold, and be no
// lower than it need be.
func TestBoundWhereCodesAreWorst(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sign := func() float64 { return float64(2*r.IntN(2) - 1) }
	for _, metric := range []Metric{Dot, L2} {
		for _, dim := range []int{16, 64, 200, 1000} {
			t.Run(fmt.Sprintf("%v/%d", metric, dim), func(t *testing.T) {
				// Every component of the row is nearly half a step off its code, in the
				// direction of the query; every one of the query is nearly half a step off
				// its own, in the direction of the row, whose codes are large.
				row, opposite, query := make([]float32, dim), make([]float32, dim), make([]float32, dim)
				for j := range row {
					c, v := 120*sign(), sign()*float64(20+r.IntN(80))
					row[j] = float32(c + 0.4999*math.Copysign(1, v))
					query[j] = float32(v + 0.4999*math.Copysign(1, c))
				}
				row[0], query[0] = 127, 127
				for j := range row {
					opposite[j] = -row[j] // so that the mean is 0
				}
				for _, scale := range []float32{1e-15, 1, 1e12} {
					var scaled [3][]float32
					for i, v := range [][]float32{row, opposite, query} {
						scaled[i] = make([]float32, dim)
						for j := range v {
							scaled[i][j] = scale * v[j]
						}
					}
					c := code(t, metric, scaled[:2])
					exact, limits, bounds := c.bounds(scaled[2])
					require.LessOrEqual(t, bounds[0], limits[0])
					require.LessOrEqual(t, bounds[1], limits[1])
					// The opposite row is off as much the other way. That of the query is not
					// all allowed for: its share is in proportion to the largest code.
					twice := float64(exact[1] - bounds[1])
					require.Less(t, float64(exact[0]-bounds[0]), 0.1*twice, "bound of %v for %v", bounds[0], exact[0])
				}
			})
		}
	}
}

// The bound holds for whatever a row and a query may be.
func TestBoundHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	vector := func(dim int, scale, spread float64) []float32 {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(r.NormFloat64() * scale * math.Pow(10, spread*r.NormFloat64()))
		}
		return v
	}
	for range 3000 {
		metric := []Metric{Dot, L2}[r.IntN(2)]
		dim := 1 + r.IntN(70)
		scale := math.Pow(10, 50*r.Float64()-40)
		spread := []float64{0, 0, 2}[r.IntN(3)]
		rows := make([][]float32, 1+r.IntN(20))
		for i := range rows {
			rows[i] = vector(dim, scale*math.Pow(10, 3*r.Float64()), spread)
		}
		offset := vector(dim, scale*math.Pow(10, 6*r.Float64()-3), 0)
		for _, v := range rows {
			for j := range v {
				v[j] += offset[j]
			}
		}
		query := vector(dim, scale*math.Pow(10, 6*r.Float64()-3), spread)
		c := code(t, metric, rows)
		require.NoError(t, (&Index{
			params: Params{Metric: metric}, dim: dim, stride: c.vectors.stride, nodes: len(rows), vectors: c.vectors, codes: c.codes,
		}).checkCodes())
		for _, q := range append(rows, query) { // a row is at a distance of 0
			exact, limits, bounds := c.bounds(q)
			for i := range exact {
				require.LessOrEqual(t, bounds[i], limits[i], "%v, dim %d: row %v, query %v, distance %v", metric, dim, rows[i], q, exact[i])
			}
		}
	}
}

// A code that is not that of its vector is found by the check.
func TestCheckCodes(t *testing.T) {
	for _, metric := range []Metric{Dot, L2} {
		rows := [][]float32{{1, 2, 3}, {3, -1, 0.5}, {0, 0, 0}}
		for _, breaks := range []func(c *codes){
			func(c *codes) { c.rows[1]++ },
			func(c *codes) { c.rows[c.stride+2]-- },
			func(c *codes) { c.factors[0] *= 1.1 },
			func(c *codes) { c.factors[3] += 1e-3 },
			func(c *codes) { c.centre[1] += 0.1 },
		} {
			c := code(t, metric, rows)
			x := &Index{params: Params{Metric: metric}, dim: 3, stride: c.vectors.stride, nodes: 3, vectors: c.vectors, codes: c.codes}
			require.NoError(t, x.checkCodes())
			breaks(&x.codes)
			require.Error(t, x.checkCodes())
		}
	}
}

// Components of a few units of the least float have steps that are hardly numbers.
func TestCodesOfSubnormals(t *testing.T) {
	for n := 1; n < 70_000; n = n*5/4 + 1 {
		least := float32(n) * math.SmallestNonzeroFloat32
		for _, metric := range []Metric{Dot, L2} {
			c := code(t, metric, [][]float32{{least, 0, -least / 3}, {-least, least / 2, least}, {0, 0, 0}})
			x := &Index{params: Params{Metric: metric}, dim: 3, stride: c.vectors.stride, nodes: 3, vectors: c.vectors, codes: c.codes}
			require.NoError(t, x.checkCodes(), "%d units", n)
		}
	}
}
