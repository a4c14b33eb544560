package index_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// What is left out of a flat index of alike rows is never among the best: whatever the data,
// the floor, the filter and the dead are, it answers as a scan of all vectors does.
func TestGroupsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom(metrics).Draw(t, "metric")
		dim := rapid.SampledFrom([]int{1, 3, 16, 40}).Draw(t, "dim")
		n := rapid.SampledFrom([]int{2047, 2048, 3000}).Draw(t, "rows")
		rows := drawHard(t, "data", metric, n, dim)
		if rapid.Bool().Draw(t, "clustered") {
			rows = clustered(random(rapid.Uint64().Draw(t, "clusters")), n, dim, 30, 0.1)
		}
		m, err := index.NewMatrix(dim, n)
		require.NoError(t, err)
		for _, v := range rows {
			require.NoError(t, m.Append(v))
		}
		x, err := index.Flat(m, metric)
		require.NoError(t, err)
		require.NoError(t, x.CheckGraph())
		for ordinal := range uint32(n) {
			for j, got := range x.Vector(ordinal, nil) {
				want := rows[x.Row(ordinal)][j]
				require.InDelta(t, want, got, 1e-6*math.Abs(float64(want)), "ordinal %d", ordinal)
			}
		}

		queries := append(drawHard(t, "queries", metric, 2, dim), rows[rapid.IntRange(0, n-1).Draw(t, "row")])
		for _, query := range queries {
			share := rapid.SampledFrom([]uint32{1, 2, 5, 100}).Draw(t, "share")
			dead := rapid.Bool().Draw(t, "dead")
			alive := func(row int) bool { return !dead || mixed(row)%7 != 1 }
			eligible := func(row int) bool { return mixed(row+1)%share == 0 }
			q := index.Query{Vector: query}
			if share > 1 {
				q.Filter, q.Eligible = filterOf(x, eligible)
			}
			if dead {
				q.Dead, q.DeadCount = filterOf(x, func(row int) bool { return !alive(row) })
			}
			oracle := canonical(metric, query, rows, func(row int) bool { return alive(row) && eligible(row) })
			for _, q.K = range []int{1, 10, n / 4, n} {
				hits, _, err := x.Search(q, nil)
				require.NoError(t, err)
				requireRanked(t, x, oracle, q.K, hits)

				floored := q
				floored.Floored, floored.Floor = true, float32(oracle[rapid.IntRange(0, len(oracle)-1).Draw(t, "place")].score)
				floored.Floor = rapid.SampledFrom([]float32{
					floored.Floor, math.Nextafter32(floored.Floor, inf), math.Nextafter32(floored.Floor, -inf), 0, inf, -inf,
				}).Draw(t, "floor")
				above := oracle
				for len(above) > 0 && metric.Better(floored.Floor, float32(above[len(above)-1].score)) {
					above = above[:len(above)-1]
				}
				hits, _, err = x.Search(floored, nil)
				require.NoError(t, err)
				requireRanked(t, x, above, q.K, hits)
			}
		}
	})
}

// Rows on one ray, far from zero and near to each other, are as far as what they are left out
// by allows, but for rounding, however short or long they are.
func TestGroupsAllowForRounding(t *testing.T) {
	const n = 2100
	for _, metric := range metrics {
		for _, of := range []struct {
			dim  int
			size float32
		}{{16, 1}, {40, 1}, {100, 1}, {17, 1e-17}, {41, 1e15}} {
			dim := of.dim
			r := random(uint64(dim))
			ray := gaussian(r, 1, dim)[0]
			for j := range ray {
				ray[j] *= of.size
			}
			rows := make([][]float32, n)
			for i := range rows {
				rows[i] = make([]float32, dim)
				length := 1 + 1e-5*r.Float64()
				for j, x := range ray {
					rows[i][j] = float32(float64(x) * length)
				}
			}
			x, err := index.Flat(matrix(t, dim, rows), metric)
			require.NoError(t, err)
			for _, scale := range []float32{-3, 0.5, 1, 3} {
				query := make([]float32, dim)
				for j := range query {
					query[j] = scale * ray[j]
				}
				oracle := canonical(metric, query, rows, nil)
				for k := 1; k < 200; k += 9 {
					q := index.Query{Vector: query, K: k, Floored: true, Floor: float32(oracle[k-1].score)}
					hits, _ := search(t, x, q)
					requireRanked(t, x, oracle, k, hits)
				}
			}
		}
	}
}

var inf = float32(math.Inf(1))

// Of rows that are alike, a scan that has a floor looks at few, and one without at few more;
// neither takes memory. Groups are the same whenever they are made.
func TestGroupsLeaveOut(t *testing.T) {
	const n, dim = 10_000, 32
	rows := clustered(random(1), n+20, dim, 50, 0.3)
	for _, metric := range metrics {
		x, err := index.Flat(matrix(t, dim, rows[:n]), metric)
		require.NoError(t, err)
		again, err := index.Flat(matrix(t, dim, rows[:n]), metric)
		require.NoError(t, err)
		require.Equal(t, x.Order(), again.Order())
		most, mostCount := filterOf(x, func(row int) bool { return row%10 != 0 })
		var hits []index.Hit
		for _, v := range rows[n:] {
			q := index.Query{Vector: v, K: 20}
			all, stats := search(t, x, q)
			require.Less(t, stats.Scored, n/2, "%v", metric)
			q.Floored, q.Floor = true, all[len(all)-1].Score
			_, stats = search(t, x, q)
			require.Less(t, stats.Scored, n/4, "%v", metric)
			q.Filter, q.Eligible = most, mostCount
			_, stats = search(t, x, q)
			require.Less(t, stats.Scored, n/4, "%v", metric)
			if !raceEnabled {
				require.Zero(t, testing.AllocsPerRun(3, func() {
					if hits, _, err = x.Search(q, hits[:0]); err != nil {
						t.Fatal(err)
					}
				}))
			}
		}
	}
}
