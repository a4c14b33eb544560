package index_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// plans are the ways of a search, by name.
func plans(x *index.Index, vector []float32, k, ef int) []namedQuery {
	tenth, tenthCount := filterOf(x, func(row int) bool { return row%10 == 0 })
	most, mostCount := filterOf(x, func(row int) bool { return row%10 != 0 })
	return []namedQuery{
		{"ExactScan", index.Query{Vector: vector, K: k, Plan: index.ExactScan}},
		{"FilteredScan", index.Query{Vector: vector, K: k, Plan: index.ExactScan, Filter: tenth, Eligible: tenthCount}},
		{"GraphWalk", index.Query{Vector: vector, K: k, Ef: ef, Plan: index.GraphWalk}},
		{"FilteredWalk", index.Query{Vector: vector, K: k, Ef: ef, Plan: index.GraphWalk, Filter: most, Eligible: mostCount}},
		{"DeadScan", index.Query{Vector: vector, K: k, Plan: index.ExactScan, Dead: tenth, DeadCount: tenthCount}},
		{"DeadWalk", index.Query{Vector: vector, K: k, Ef: ef, Plan: index.GraphWalk, Dead: tenth, DeadCount: tenthCount}},
		{"FilteredDeadWalk", index.Query{Vector: vector, K: k, Ef: ef, Plan: index.GraphWalk, Filter: most, Eligible: mostCount, Dead: tenth, DeadCount: tenthCount}},
	}
}

type namedQuery struct {
	name  string
	query index.Query
}

func TestSearchDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, metric := range metrics {
		r := random(1)
		rows := repeated(r, gaussian(r, 2000, 20), 0.2)
		x := build(t, 20, rows, params(metric))
		for _, p := range plans(x, rows[0], 50, 80) {
			t.Run(metric.String()+"/"+p.name, func(t *testing.T) {
				hits := make([]index.Hit, 0, 50)
				allocs := testing.AllocsPerRun(200, func() {
					var err error
					if hits, _, err = x.Search(p.query, hits[:0]); err != nil {
						t.Fatal(err)
					}
				})
				require.Zero(t, allocs)
			})
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	const rows, dim = 20_000, 64
	r := random(1)
	data := clustered(r, rows+100, dim, 200, 0.5)
	x := build(b, dim, data[:rows], index.DefaultParams(index.Dot))
	queries := data[rows:]
	for _, p := range plans(x, queries[0], 100, 150) {
		b.Run(p.name, func(b *testing.B) {
			b.ReportAllocs()
			hits := make([]index.Hit, 0, p.query.K)
			scored := 0
			for i := 0; b.Loop(); i++ {
				p.query.Vector = queries[i%len(queries)]
				var stats index.Stats
				var err error
				if hits, stats, err = x.Search(p.query, hits[:0]); err != nil {
					b.Fatal(err)
				}
				scored += stats.Scored
			}
			b.ReportMetric(float64(scored)/float64(b.N), "distances/op")
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	const rows, dim = 5_000, 64
	data := clustered(random(1), rows, dim, 50, 0.5)
	b.ReportAllocs()
	for b.Loop() {
		build(b, dim, data, index.DefaultParams(index.Dot))
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkOpen(b *testing.B) {
	x := build(b, 64, gaussian(random(1), 5_000, 64), params(index.Dot))
	data := encode(b, x)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := openBytes(data); err != nil {
			b.Fatal(err)
		}
	}
}
