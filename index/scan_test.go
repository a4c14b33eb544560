package index_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// hardKinds are data that codes tell apart badly, or that rounding is at its worst on.
var hardKinds = map[string]func(r hardRandom, rows [][]float32){
	"normal": func(hardRandom, [][]float32) {},
	"duplicates": func(r hardRandom, rows [][]float32) {
		for i := range rows {
			copy(rows[i], rows[r.IntN(1+len(rows)/8)])
		}
	},
	"norms": func(r hardRandom, rows [][]float32) {
		scaled(rows, func(int) float64 { return math.Pow(10, 12*r.Float64()-6) })
	},
	"collapsed": func(_ hardRandom, rows [][]float32) {
		for _, v := range rows {
			for j := range v {
				v[j] = rows[0][j] + 1e-4*v[j]
			}
		}
	},
	"zeros": func(r hardRandom, rows [][]float32) {
		scaled(rows, func(int) float64 { return float64(r.IntN(2)) })
	},
	"grid": func(r hardRandom, rows [][]float32) {
		for _, v := range rows {
			for j := range v {
				v[j] = float32(r.IntN(3) - 1)
			}
		}
	},
	"spikes": func(r hardRandom, rows [][]float32) {
		for _, v := range rows {
			v[r.IntN(len(v))] *= 1000
		}
	},
	"large": func(r hardRandom, rows [][]float32) {
		scaled(rows, func(int) float64 { return 1e16 })
	},
	"small": func(r hardRandom, rows [][]float32) {
		scaled(rows, func(int) float64 { return 1e-20 })
	},
	"subnormal": func(r hardRandom, rows [][]float32) {
		scaled(rows, func(int) float64 { return math.Pow(10, -36-8*r.Float64()) })
	},
	"falling": func(_ hardRandom, rows [][]float32) {
		scaled(rows, func(i int) float64 { return 1 / float64(1+i) })
	},
}

type hardRandom interface {
	IntN(n int) int
	Float64() float64
}

func drawHard(t *rapid.T, label string, metric index.Metric, n, dim int) [][]float32 {
	names := []string{"normal", "duplicates", "norms", "collapsed", "zeros", "grid", "spikes", "large", "small", "subnormal", "falling"}
	r := random(rapid.Uint64().Draw(t, label))
	rows := gaussian(r, n, dim)
	hardKinds[rapid.SampledFrom(names).Draw(t, label+" kind")](r, rows)
	for _, v := range rows {
		if metric.CheckVector(v) != nil {
			v[0] = 1 // under cosine, a norm of nearly 0
		}
	}
	return rows
}

// An exact scan reads few vectors, and yet answers as if it had read all: the same
// scores to the bit, ties by row.
func TestExactScanIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom(metrics).Draw(t, "metric")
		dim := rapid.SampledFrom([]int{1, 2, 3, 8, 17, 40, 64}).Draw(t, "dim")
		n := rapid.SampledFrom([]int{1, 100, 700, 1500, 2100}).Draw(t, "rows")
		rows := drawHard(t, "data", metric, n, dim)
		m, err := index.NewMatrix(dim, n)
		require.NoError(t, err)
		for _, v := range rows {
			require.NoError(t, m.Append(v))
		}
		// The graph is of no account here.
		x, err := index.Build(t.Context(), index.Input{Vectors: m, Keys: keys(n), Graph: chain(n)}, index.DefaultParams(metric))
		if rapid.Bool().Draw(t, "constructed") {
			p := index.DefaultParams(metric)
			p.M, p.EfConstruction = 2, 2 // so duplicates are one node
			m, _ := index.NewMatrix(dim, n)
			for _, v := range rows {
				require.NoError(t, m.Append(v))
			}
			x, err = index.Build(t.Context(), index.Input{Vectors: m, Keys: keys(n), Threads: 2}, p)
		}
		require.NoError(t, err)

		for _, query := range drawHard(t, "queries", metric, 3, dim) {
			for _, share := range []float64{2, 0.9, 0.5, 0.3, 0.1, 0.01} {
				var eligible func(int) bool
				q := index.Query{Vector: query, Plan: index.ExactScan, Eligible: n}
				if share < 1 {
					r := random(uint64(1000 * share))
					set := make([]bool, n)
					for i := range set {
						set[i] = r.Float64() < share
					}
					eligible = func(row int) bool { return set[row] }
					q.Filter, q.Eligible = filterOf(x, eligible)
				}
				oracle := canonical(metric, query, rows, eligible)
				for _, k := range []int{1, 10, 70, n / 4, n} {
					if q.K = k; k > 0 {
						hits, stats, err := x.Search(q, nil)
						require.NoError(t, err)
						require.Equal(t, index.ExactScan, stats.Plan)
						require.Equal(t, q.Eligible, stats.Scored)
						requireRanked(t, x, oracle, k, hits)
					}
				}
			}
		}
	})
}

// chain is a graph in which each row links to the next.
func chain(n int) *index.SourceGraph {
	layer := make([][]uint32, n)
	for i := range layer {
		layer[i] = []uint32{uint32((i + 1) % n)}
	}
	return &index.SourceGraph{Layers: [][][]uint32{layer}}
}

// What the exact scan saves: on data that codes tell apart, it scores few rows on
// their vectors.
func BenchmarkExactScan(b *testing.B) {
	const rows, dim = 50_000, 64
	data := clustered(random(1), rows+100, dim, 200, 0.5)
	for _, metric := range metrics {
		x, err := index.Build(b.Context(), index.Input{Vectors: matrix(b, dim, data[:rows]), Keys: keys(rows), Graph: chain(rows)}, index.DefaultParams(metric))
		require.NoError(b, err)
		for _, k := range []int{10, 100} {
			b.Run(metric.String()+"/"+map[int]string{10: "k=10", 100: "k=100"}[k], func(b *testing.B) {
				b.ReportAllocs()
				var hits []index.Hit
				for i := 0; b.Loop(); i++ {
					hits, _, _ = x.Search(index.Query{Vector: data[rows+i%100], K: k, Plan: index.ExactScan}, hits[:0])
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
			})
		}
	}
}
