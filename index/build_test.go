package index_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// TestSameBytesForAnyThreads is the promise that a digest names a build.
func TestSameBytesForAnyThreads(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metric.String(), func(t *testing.T) {
			r := random(1)
			rows := repeated(r, clustered(r, 1500, 17, 12, 0.5), 0.3)
			var first []byte
			for _, threads := range []int{0, 1, 2, 3, 8} {
				x, err := index.Build(t.Context(), index.Input{
					Vectors: matrix(t, 17, rows), Keys: keys(len(rows)), Threads: threads,
				}, params(metric))
				require.NoError(t, err)
				calibrate(t, x, 17, gaussian(random(2), 20, 17), threads)
				data := encode(t, x)
				if first == nil {
					first = data
				}
				require.True(t, bytes.Equal(first, data), "%d threads", threads)
			}
		})
	}
}

func TestSeedAndKeysMatter(t *testing.T) {
	rows := gaussian(random(1), 200, 8)
	a := encode(t, build(t, 8, rows, params(index.L2)))
	p := params(index.L2)
	p.Seed = 1
	assert.False(t, bytes.Equal(a, encode(t, build(t, 8, rows, p))))
}

// kinds are what data does in the wild, by name.
var kinds = []struct {
	name string
	rows func(n, dim int) [][]float32
}{
	{"gaussian", func(n, dim int) [][]float32 { return gaussian(random(1), n, dim) }},
	{"clusters", func(n, dim int) [][]float32 { return clustered(random(2), n, dim, 5, 0.05) }},
	{"all equal", func(n, dim int) [][]float32 {
		rows := gaussian(random(3), n, dim)
		for _, v := range rows {
			copy(v, rows[0])
		}
		return rows
	}},
	{"duplicates", func(n, dim int) [][]float32 { return repeated(random(4), gaussian(random(4), n, dim), 0.3) }},
	{"integers", func(n, dim int) [][]float32 {
		r := random(5)
		rows := gaussian(r, n, dim)
		for _, v := range rows {
			for j := range v {
				v[j] = float32(1 + r.IntN(3))
			}
		}
		return rows
	}},
	{"zeros", func(n, dim int) [][]float32 {
		return scaled(gaussian(random(6), n, dim), func(i int) float64 { return float64(min(i%5, 1)) })
	}},
	{"all zero", func(n, dim int) [][]float32 {
		return scaled(gaussian(random(6), n, dim), func(int) float64 { return 0 })
	}},
	{"one giant", func(n, dim int) [][]float32 {
		return scaled(gaussian(random(7), n, dim), func(i int) float64 {
			if i == n/2 {
				return 1e15
			}
			return 1
		})
	}},
	{"norms over 12 orders", func(n, dim int) [][]float32 {
		return scaled(gaussian(random(8), n, dim), func(i int) float64 { return math.Pow(10, 12*float64(i)/float64(n)-6) })
	}},
	{"tiny", func(n, dim int) [][]float32 {
		return scaled(gaussian(random(9), n, dim), func(int) float64 { return 1e-25 })
	}},
	{"one direction", func(n, dim int) [][]float32 {
		rows := gaussian(random(10), n, dim)
		for _, v := range rows {
			copy(v, rows[0])
		}
		return scaled(rows, func(i int) float64 { return float64(1 + i) })
	}},
}

// requireSound checks what must hold of every index, whatever was put in.
func requireSound(t *testing.T, x *index.Index, rows [][]float32) {
	t.Helper()
	require.Equal(t, len(rows), x.Rows())
	require.NoError(t, x.CheckGraph())
	// Opening checks self-links, ranges and the permutation.
	_, err := openBytes(encode(t, x))
	require.NoError(t, err)

	nodes := x.Rows() - x.Duplicates()
	for l, stats := range x.Layers() {
		total := 0
		for _, n := range stats.Degrees {
			total += n
		}
		require.Equal(t, stats.Nodes, total)
		require.Len(t, stats.Degrees, stats.Width+1)
		if l == 0 {
			require.Equal(t, nodes, stats.Nodes)
			if nodes > 1 {
				require.Less(t, stats.Degrees[0], nodes, "links exist")
			}
		}
	}
	seen := map[uint32]bool{}
	for ordinal := range uint32(x.Rows()) {
		row := x.Row(ordinal)
		require.False(t, seen[row])
		seen[row] = true
		require.Equal(t, ordinal, x.Ordinal(row))
		got := x.Vector(ordinal, nil)
		if x.Metric() == index.Cosine {
			require.InDeltaSlice(t, toFloat64(rows[row]), toFloat64(got), 1e-5*float64(x.Norm(ordinal)))
		} else {
			require.Equal(t, rows[row], got)
		}
	}
}

func toFloat64(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, f := range v {
		out[i] = float64(f)
	}
	return out
}

// requireWalkReachesAll asks for every row by a walk with room for every node. An
// exact scan in its place would hide a graph that is cut in two.
func requireWalkReachesAll(t *testing.T, x *index.Index, queries [][]float32) {
	t.Helper()
	if x.Rows() == 0 {
		return
	}
	for _, q := range queries {
		if x.Metric().CheckVector(q) != nil {
			continue
		}
		hits, stats := search(t, x, index.Query{Vector: q, K: x.Rows(), Ef: x.Rows(), Plan: index.GraphWalk})
		require.Len(t, hits, x.Rows())
		require.Equal(t, index.GraphWalk, stats.Plan, "the walk did not reach every node, the scan took over")

		filter, eligible := filterOf(x, func(row int) bool { return row%3 == 1 })
		if eligible == 0 {
			continue
		}
		hits, stats = search(t, x, index.Query{Vector: q, K: eligible, Ef: x.Rows(), Plan: index.GraphWalk, Filter: filter, Eligible: eligible})
		require.Len(t, hits, eligible)
		require.Equal(t, index.FilteredWalk, stats.Plan, "the walk did not reach every node, the scan took over")
	}
}

func TestDegenerateInput(t *testing.T) {
	for _, kind := range kinds {
		for _, metric := range metrics {
			if metric == index.Cosine && (kind.name == "zeros" || kind.name == "all zero") {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", kind.name, metric), func(t *testing.T) {
				for _, dim := range []int{1, 15, 16, 17, 37, 100} {
					for _, n := range []int{0, 1, 2, 5, 150} {
						if n == 0 && kind.name != "gaussian" {
							continue
						}
						rows := kind.rows(n, dim)
						x := build(t, dim, rows, params(metric))
						requireSound(t, x, rows)
						queries := gaussian(random(11), 2, dim)
						queries = append(queries, rows[:min(n, 4)]...)
						requireWalkReachesAll(t, x, queries)
						for _, q := range queries {
							if metric.CheckVector(q) != nil {
								continue
							}
							hits, _ := search(t, x, index.Query{Vector: q, K: 7})
							requireRanked(t, x, canonical(metric, q, rows, nil), 7, hits)
						}
					}
				}
			})
		}
	}
}

// The smallest lists are the ones that come apart.
func TestNarrowGraphs(t *testing.T) {
	for _, metric := range metrics {
		for _, kind := range kinds[:4] {
			t.Run(fmt.Sprintf("%s/%v", kind.name, metric), func(t *testing.T) {
				p := index.DefaultParams(metric)
				p.M, p.EfConstruction = 2, 2
				rows := kind.rows(600, 12)
				x := build(t, 12, rows, p)
				requireSound(t, x, rows)
				requireWalkReachesAll(t, x, append(gaussian(random(12), 10, 12), rows[:40]...))
			})
		}
	}
}

func TestEqualKeys(t *testing.T) {
	rows := gaussian(random(1), 300, 8)
	x, err := index.Build(t.Context(), index.Input{Vectors: matrix(t, 8, rows), Keys: make([]uint64, 300)}, params(index.Dot))
	require.NoError(t, err)
	requireSound(t, x, rows)
	requireWalkReachesAll(t, x, rows[:20])
}

func TestDuplicatesShareANode(t *testing.T) {
	for _, metric := range metrics {
		rows := gaussian(random(1), 40, 5)
		for i := range rows {
			copy(rows[i], rows[i%8])
		}
		x := build(t, 5, rows, params(metric))
		assert.Equal(t, 32, x.Duplicates())
		hits, _ := search(t, x, index.Query{Vector: rows[3], K: 5, Ef: 5, Plan: index.GraphWalk})
		for i, h := range hits {
			if metric != index.Dot { // where the best row may be another
				assert.Equal(t, uint32(3+8*i), x.Row(h.Ordinal), metric)
			}
			assert.Equal(t, hits[0].Score, h.Score)
		}
	}
}

// Under cosine, rows are duplicates when they are after scaling.
func TestDuplicatesUnderCosine(t *testing.T) {
	rows := [][]float32{{1, 0}, {2, 0}, {0, 1}, {0, 8}}
	x := build(t, 2, rows, params(index.Cosine))
	assert.Equal(t, 2, x.Duplicates())
	for row, want := range rows {
		assert.Equal(t, want, x.Vector(x.Ordinal(uint32(row)), nil))
		assert.Equal(t, want[0]+want[1], x.Norm(x.Ordinal(uint32(row))))
	}
}

func TestInvalidInput(t *testing.T) {
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name   string
		rows   [][]float32
		keys   int
		metric index.Metric
		text   string
	}{
		{"NaN", [][]float32{{1, 2}, {1, nan}}, 2, index.Dot, "row 1: vector component 1 is NaN, want a finite number"},
		{"infinity", [][]float32{{float32(math.Inf(-1)), 2}}, 1, index.L2, "row 0: vector component 0 is -Inf"},
		{"norm", [][]float32{{1, 2}, {2e18, 0}}, 2, index.L2, "row 1: vector norm is 2e+18, want at most 1e+18"},
		{"zero under cosine", [][]float32{{1, 2}, {3, 4}, {0, 0}}, 3, index.Cosine, "row 2: vector is the zero vector"},
		{"few keys", [][]float32{{1, 2}, {3, 4}}, 1, index.Dot, "1 keys for 2 rows"},
		{"no keys", [][]float32{{1, 2}}, 0, index.Dot, "0 keys for 1 rows"},
		{"many keys", nil, 3, index.Dot, "3 keys for 0 rows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := index.Build(t.Context(), index.Input{Vectors: matrix(t, 2, tt.rows), Keys: keys(tt.keys)}, params(tt.metric))
			require.ErrorContains(t, err, tt.text)
		})
	}
}

func TestBuildIsCancelled(t *testing.T) {
	rows := gaussian(random(1), 20_000, 16)
	for name, graph := range map[string]*index.SourceGraph{"construct": nil, "freeze": isolated(len(rows))} {
		t.Run(name, func(t *testing.T) {
			if raceEnabled && graph != nil {
				t.Skip("slow")
			}
			in := index.Input{Vectors: matrix(t, 16, rows), Keys: keys(len(rows)), Threads: 2, Graph: graph}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := index.Build(ctx, in, index.DefaultParams(index.L2))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Less(t, time.Since(start), 20*time.Second)
		})
	}
}

func TestProgress(t *testing.T) {
	r := random(1)
	rows := repeated(r, gaussian(r, 500, 4), 0.3)
	last := 0
	_, err := index.Build(t.Context(), index.Input{
		Vectors: matrix(t, 4, rows), Keys: keys(len(rows)), Threads: 2,
		Progress: func(done, total int) {
			assert.Greater(t, done, last)
			assert.Equal(t, len(rows), total)
			last = done
		},
	}, params(index.Dot))
	require.NoError(t, err)
	assert.Equal(t, len(rows), last)
}
