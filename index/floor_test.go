package index_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// An exact scan with a floor finds what one without finds, but for what scores worse, ties
// with the floor and all; whatever the filter, the dead and the rows are.
func TestFloorCutsOff(t *testing.T) {
	r := random(3)
	sets := map[string][][]float32{
		"gaussian":  repeated(r, gaussian(r, 1500, 12), 0.2),
		"clustered": clustered(r, 3000, 12, 20, 0.3),
		"few":       gaussian(r, 3, 12),
	}
	for name, rows := range sets {
		for _, metric := range metrics {
			flat, err := index.Flat(matrix(t, 12, rows), metric)
			require.NoError(t, err)
			indexes := []*index.Index{build(t, 12, rows, params(metric)), flat}
			rapid.Check(t, func(r *rapid.T) {
				x := rapid.SampledFrom(indexes).Draw(r, "index")
				v := gaussian(random(rapid.Uint64Range(0, 50).Draw(r, "vector")), 1, 12)[0]
				q := index.Query{Vector: v, Plan: index.ExactScan, K: rapid.SampledFrom([]int{1, 10, 300, len(rows)}).Draw(r, "k")}
				if share := rapid.SampledFrom([]uint32{1, 2, 50}).Draw(r, "share"); share > 1 {
					q.Filter, q.Eligible = filterOf(x, func(row int) bool { return mixed(row)%share == 0 })
				}
				if rapid.Bool().Draw(r, "dead") {
					q.Dead, q.DeadCount = filterOf(x, func(row int) bool { return mixed(row)%7 == 1 })
				}
				all, _ := search(t, x, q)
				if len(all) == 0 {
					return
				}
				floor := all[rapid.IntRange(0, len(all)-1).Draw(r, "place")].Score
				if rapid.IntRange(0, 3).Draw(r, "beside") == 0 {
					floor += 0.01
				}
				want := all
				for len(want) > 0 && metric.Better(floor, want[len(want)-1].Score) {
					want = want[:len(want)-1]
				}
				q.Floored, q.Floor = true, floor
				got, stats := search(t, x, q)
				require.Equal(t, index.ExactScan, stats.Plan)
				require.Equal(t, len(want), len(got), "%s, %v, floor %v", name, metric, floor)
				for i := range want {
					require.Equal(t, want[i], got[i], "%s, %v, floor %v", name, metric, floor)
				}
			})
		}
	}
}

// A walk has its answer whatever the floor is.
func TestFloorLeavesWalks(t *testing.T) {
	rows := gaussian(random(1), 2000, 8)
	x := build(t, 8, rows, params(index.Dot))
	q := index.Query{Vector: rows[0], K: 10, Ef: 40, Plan: index.GraphWalk}
	want, _ := search(t, x, q)
	q.Floored, q.Floor = true, want[3].Score
	got, stats := search(t, x, q)
	require.Equal(t, want, got)
	require.False(t, stats.GaveUp)

	q.Floor = float32(math.NaN())
	_, _, err := x.Search(q, nil)
	require.ErrorIs(t, err, index.ErrQuery)
	require.ErrorContains(t, err, "floor is NaN")
}

// BenchmarkFlatScan scans rows that are beside a graph, which has found enough better ones,
// and without knowing so.
func BenchmarkFlatScan(b *testing.B) {
	const rows, dim = 20_000, 64
	data := clustered(random(1), rows+100, dim, 200, 0.5)
	x, err := index.Flat(matrix(b, dim, data[:rows]), index.Dot)
	require.NoError(b, err)
	for _, k := range []int{10, 100} {
		for _, floored := range []bool{false, true} {
			name := map[bool]string{false: "alone", true: "floored"}[floored]
			b.Run(name+"/"+map[int]string{10: "10", 100: "100"}[k], func(b *testing.B) {
				b.ReportAllocs()
				hits := make([]index.Hit, 0, k)
				for i := 0; b.Loop(); i++ {
					q := index.Query{Vector: data[rows+i%100], K: k, Floored: floored, Floor: 1000}
					if hits, _, err = x.Search(q, hits[:0]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
