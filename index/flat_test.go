package index_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// A flat index answers to the bit as a scan of a built one, whatever the plan, the filter,
// the dead and the element type.
func TestFlatEqualsBuilt(t *testing.T) {
	r := random(3)
	sets := map[string][][]float32{
		"gaussian":  repeated(r, gaussian(r, 1500, 12), 0.2),
		"clustered": clustered(r, 1500, 12, 20, 0.3),
		"uint8":     repeated(r, gaussian(r, 900, 12), 0.2),
		"float16":   gaussian(r, 900, 12),
		"few":       gaussian(r, 3, 12),
		"none":      nil,
	}
	for _, name := range compactNames {
		for _, v := range sets[name] {
			for j, x := range v {
				if name == "uint8" {
					v[j] = float32(math.Round(min(max(128+50*float64(x), 0), 255)))
				} else {
					v[j] = float32(math.Round(float64(x)*256) / 256)
				}
			}
		}
	}
	for name, rows := range sets {
		for _, metric := range metrics {
			x := build(t, 12, rows, params(metric))
			flat, err := index.Flat(matrix(t, 12, rows), metric)
			require.NoError(t, err)
			require.NoError(t, flat.CheckGraph())
			require.Equal(t, len(rows), flat.Rows())
			if name == "uint8" && metric != index.Cosine {
				require.Equal(t, index.Uint8, flat.Element())
			}
			for _, v := range gaussian(random(4), 10, 12) {
				for _, k := range []int{1, 10, 2000} {
					for _, ef := range []int{0, 30} {
						for _, plan := range []index.Plan{index.Auto, index.ExactScan, index.GraphWalk} {
							for _, share := range []uint32{1, 2, 50} {
								ask := func(x *index.Index, plan index.Plan) []index.Hit {
									q := index.Query{Vector: v, K: k, Ef: ef, Plan: plan}
									if share > 1 {
										q.Filter, q.Eligible = filterOf(x, func(row int) bool { return mixed(row)%share == 0 })
									}
									q.Dead, q.DeadCount = filterOf(x, func(row int) bool { return mixed(row)%7 == 1 })
									hits, stats := search(t, x, q)
									require.Equal(t, index.ExactScan, stats.Plan)
									for i := range hits {
										hits[i].Ordinal = x.Row(hits[i].Ordinal)
									}
									return hits
								}
								want, got := ask(x, index.ExactScan), ask(flat, plan)
								require.Equal(t, want, got, "%s, %v, k %d, ef %d, %v, 1 in %d", name, metric, k, ef, plan, share)
							}
						}
					}
				}
			}
			for ordinal := range uint32(len(rows)) {
				row := flat.Row(ordinal)
				require.Equal(t, ordinal, row)
				require.Equal(t, x.Vector(x.Ordinal(row), nil), flat.Vector(ordinal, nil))
			}
		}
	}
}

// What a flat index costs is what a scan costs, and no effort is known for it.
func TestFlatCosts(t *testing.T) {
	rows := gaussian(random(1), 2000, 8)
	flat, err := index.Flat(matrix(t, 8, rows), index.Dot)
	require.NoError(t, err)
	x := build(t, 8, rows, params(index.Dot))
	for _, k := range []int{1, 10, 100, 5000} {
		for _, eligible := range []int{0, 1, 100, 1500, 2000} {
			require.Zero(t, flat.FilteredEffortFor(k, 0.9, eligible))
			require.Equal(t, x.Cost(k, 0, eligible), flat.Cost(k, 100, eligible))
		}
	}
	_, stats := search(t, flat, index.Query{Vector: rows[0], K: 10, Ef: 50})
	require.Equal(t, index.Stats{Plan: index.ExactScan, Reason: index.NoGraph, Scored: 2000}, stats)
	_, stats = search(t, flat, index.Query{Vector: rows[0], K: 2000, Ef: 50})
	require.Equal(t, index.AllAsked, stats.Reason)
	_, stats = search(t, flat, index.Query{Vector: rows[0], K: 10, Plan: index.ExactScan})
	require.Equal(t, index.Given, stats.Reason)
}

func TestFlatRefuses(t *testing.T) {
	_, err := index.Flat(matrix(t, 2, [][]float32{{1, 2}, {0, 0}}), index.Cosine)
	require.EqualError(t, err, "row 1: vector is the zero vector, which has no cosine")
	_, err = index.Flat(matrix(t, 2, [][]float32{{1, float32(math.NaN())}}), index.Dot)
	require.EqualError(t, err, "row 0: vector component 1 is NaN, want a finite number")
	_, err = index.Flat(matrix(t, 2, nil), 9)
	require.ErrorContains(t, err, "metric is ")
	flat, err := index.Flat(matrix(t, 2, [][]float32{{1, 2}}), index.Dot)
	require.NoError(t, err)
	w, err := sections.Create(filepath.Join(t.TempDir(), "a.shard"))
	require.NoError(t, err)
	require.EqualError(t, flat.Write(w), "write index: it is flat, and files have graphs")
	require.NoError(t, w.Abort())
}

func BenchmarkFlat(b *testing.B) {
	const rows, dim = 20_000, 64
	data := clustered(random(1), rows, dim, 200, 0.5)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		m := matrix(b, dim, data)
		b.StartTimer()
		if _, err := index.Flat(m, index.Dot); err != nil {
			b.Fatal(err)
		}
	}
}
