package index_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// A walk finds what is left though the best rows are dead, and is an unfiltered walk that
// costs about what it costs without them.
func TestWalkAmongTheDead(t *testing.T) {
	const k, ef = 10, 60
	r := random(5)
	rows := repeated(r, clustered(r, 4000, 12, 40, 0.7), 0.1)
	for _, metric := range metrics {
		x := build(t, 12, rows, params(metric))
		for name, dead := range map[string]func(place, row int) bool{
			"the best": func(place, _ int) bool { return place < 1 },
			"the near": func(place, _ int) bool { return place < 3*k },
			"a tenth":  func(_, row int) bool { return mixed(row)%10 == 0 },
			"half":     func(_, row int) bool { return mixed(row)%2 == 0 },
		} {
			found, scored, without := 0, 0, 0
			queries := gaussian(random(6), 40, 12)
			for _, v := range queries {
				gone := make([]bool, len(rows))
				for place, o := range canonical(metric, v, rows, nil) {
					gone[o.row] = dead(place, o.row)
				}
				set, n := filterOf(x, func(row int) bool { return gone[row] })
				want := canonical(metric, v, rows, func(row int) bool { return !gone[row] })
				q := index.Query{Vector: v, K: k, Ef: ef, Plan: index.GraphWalk}
				_, stats := search(t, x, q)
				without += stats.Scored
				q.Dead, q.DeadCount = set, n
				hits, stats := search(t, x, q)
				require.Len(t, hits, k)
				require.Equal(t, index.GraphWalk, stats.Plan)
				require.False(t, stats.GaveUp)
				scored += stats.Scored
				for _, h := range hits {
					require.False(t, gone[x.Row(h.Ordinal)])
					if !metric.Better(float32(want[k-1].score), h.Score) {
						found++
					}
				}
			}
			assert.GreaterOrEqual(t, float64(found)/float64(k*len(queries)), 0.95, "%v, %s", metric, name)
			most := map[string]float64{"the best": 1.05, "the near": 1.4, "a tenth": 1.12, "half": 1.8}[name]
			assert.LessOrEqual(t, float64(scored), most*float64(without), "%v, %s", metric, name)
		}
	}
}

// Of its own accord a search does not walk through the dead at any price: where they are
// most of the rows it scans, and where they are all that is near the query it gives up.
func TestDeadStayCheap(t *testing.T) {
	rows := gaussian(random(1), 4000, 8)
	x := build(t, 8, rows, params(index.Dot))
	q := index.Query{Vector: []float32{1, 0, 0, 0, 0, 0, 0, 0}, K: 10, Ef: 40}
	_, plain := search(t, x, q)
	require.Equal(t, index.GraphWalk, plain.Plan)

	q.Dead, q.DeadCount = filterOf(x, func(row int) bool { return row == 0 })
	_, stats := search(t, x, q)
	assert.Equal(t, index.GraphWalk, stats.Plan)
	assert.InDelta(t, plain.WalkCost, stats.WalkCost, 0.01*plain.WalkCost)

	q.Dead, q.DeadCount = filterOf(x, func(row int) bool { return row%50 != 0 })
	_, stats = search(t, x, q)
	assert.Equal(t, index.ExactScan, stats.Plan)
	assert.False(t, stats.GaveUp)
	assert.Equal(t, 80, stats.Scored)

	dead := func(row int) bool { return rows[row][0] > 0.2 }
	q.Dead, q.DeadCount = filterOf(x, dead)
	hits, stats := search(t, x, q)
	want := canonical(index.Dot, q.Vector, rows, func(row int) bool { return !dead(row) })
	requireRanked(t, x, want, 10, hits)
	assert.Equal(t, index.ExactScan, stats.Plan)
	assert.True(t, stats.GaveUp)
	assert.LessOrEqual(t, stats.Scored, 2*len(rows))
}

// A count that is not the set's is a caller's fault; it must not be a panic, nor bring
// back the dead.
func TestDeadLies(t *testing.T) {
	x := build(t, 3, repeated(random(2), gaussian(random(1), 70, 3), 0.3), params(index.Dot))
	dead := index.NewBitset(70)
	for i := range uint32(20) {
		dead.Set(3 * i)
	}
	filter, eligible := filterOf(x, func(row int) bool { return row%4 != 0 })
	for _, count := range []int{-1, 0, 1, 19, 21, 70, 1000, math.MaxInt} {
		for _, plan := range []index.Plan{index.Auto, index.ExactScan, index.GraphWalk} {
			for _, q := range []index.Query{{}, {Filter: filter, Eligible: eligible}} {
				q.Vector, q.K, q.Ef, q.Plan = []float32{1, 2, 3}, 60, 10, plan
				q.Dead, q.DeadCount = dead, count
				require.NotPanics(t, func() {
					hits, _, err := x.Search(q, nil)
					if err != nil {
						require.ErrorIs(t, err, index.ErrQuery)
						return
					}
					for _, h := range hits {
						require.False(t, dead.Has(h.Ordinal), "%d dead, %v", count, plan)
					}
				}, "%d dead, %v", count, plan)
			}
		}
	}
}
