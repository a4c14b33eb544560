package index_test

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// world is an index with all that an oracle needs.
type world struct {
	x    *index.Index
	rows [][]float32
}

// drawWorld draws small data: components from few values or from many, so that
// duplicates and ties are as common as their absence.
func drawWorld(t *rapid.T) world {
	metric := rapid.SampledFrom(metrics).Draw(t, "metric")
	dim := rapid.IntRange(1, 20).Draw(t, "dim")
	n := rapid.IntRange(1, 120).Draw(t, "rows")
	rows := drawRows(t, "data", metric, n, dim)
	p := index.DefaultParams(metric)
	p.M = rapid.IntRange(2, 8).Draw(t, "m")
	p.EfConstruction = rapid.IntRange(p.M, 30).Draw(t, "ef_construction")
	p.Seed = rapid.Uint64().Draw(t, "seed")
	m, err := index.NewMatrix(dim, n)
	require.NoError(t, err)
	for _, v := range rows {
		require.NoError(t, m.Append(v))
	}
	x, err := index.Build(t.Context(), index.Input{Vectors: m, Keys: keys(n), Threads: 2}, p)
	require.NoError(t, err)
	return world{x, rows}
}

func drawRows(t *rapid.T, label string, metric index.Metric, n, dim int) [][]float32 {
	r := random(rapid.Uint64().Draw(t, label))
	rows := gaussian(r, n, dim)
	switch rapid.SampledFrom([]string{"normal", "repeated", "grid", "norms"}).Draw(t, label+" kind") {
	case "repeated":
		repeated(r, rows, 0.4)
	case "grid":
		for _, v := range rows {
			for j := range v {
				v[j] = float32(r.IntN(3) - 1)
			}
		}
	case "norms":
		scaled(rows, func(int) float64 { return math.Exp(4 * r.NormFloat64()) })
	}
	for _, v := range rows {
		if metric.CheckVector(v) != nil {
			v[0] = 1 // zero under cosine
		}
	}
	return rows
}

// drawFilter draws nil for every row, or a set of rows.
func drawFilter(t *rapid.T, w world) (eligible func(int) bool, filter index.Bitset, count int) {
	share := rapid.SampledFrom([]float64{-1, 0, 0.05, 0.5, 0.95, 1}).Draw(t, "share")
	if share < 0 {
		return nil, nil, len(w.rows)
	}
	r := random(rapid.Uint64().Draw(t, "filter"))
	set := make([]bool, len(w.rows))
	for i := range set {
		set[i] = r.Float64() < share
	}
	eligible = func(row int) bool { return set[row] }
	filter, count = filterOf(w.x, eligible)
	return eligible, filter, count
}

func requirePrecise(t require.TestingT, m index.Metric, query []float32, rows [][]float32, x *index.Index, hits []index.Hit) {
	for _, h := range hits {
		v := rows[x.Row(h.Ordinal)]
		want := precise(m, query, [][]float32{v}, nil)[0].score
		// Relative to the sizes of what is added up.
		var scale float64
		for j := range v {
			q, x := float64(query[j]), float64(v[j])
			if m == index.L2 {
				scale += (q - x) * (q - x)
			} else {
				scale += math.Abs(q * x)
			}
		}
		if m == index.Cosine {
			scale = 1
		}
		require.InDelta(t, want, float64(h.Score), 1e-5*scale+1e-30)
	}
}

// drawDead draws nil for none, or a set of dead rows: few, many, all but one, or all.
func drawDead(t *rapid.T, w world) (dead func(int) bool, set index.Bitset, count int) {
	share := rapid.SampledFrom([]float64{-1, 0, 0.03, 0.3, 0.9, 1, 2}).Draw(t, "dead share")
	if share < 0 {
		return func(int) bool { return false }, nil, 0
	}
	r := random(rapid.Uint64().Draw(t, "dead"))
	gone := make([]bool, len(w.rows))
	for i := range gone {
		gone[i] = r.Float64() < share
	}
	if share == 1 {
		gone[r.IntN(len(gone))] = false
	}
	dead = func(row int) bool { return gone[row] }
	set, count = filterOf(w.x, dead)
	return dead, set, count
}

// TestSearchEqualsBruteForce is the promise of the exact plan, and what holds of
// the others.
func TestSearchEqualsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		metric, dim := w.x.Metric(), w.x.Dim()
		matches, filter, count := drawFilter(t, w)
		dead, gone, deadCount := drawDead(t, w)
		eligible := func(row int) bool { return (matches == nil || matches(row)) && !dead(row) }
		for _, query := range drawRows(t, "queries", metric, 5, dim) {
			q := index.Query{
				Vector: query,
				K:      rapid.SampledFrom([]int{1, 2, 7, 50, 150, 10_000, math.MaxInt}).Draw(t, "k"),
				Ef:     rapid.SampledFrom([]int{0, 1, 10, 60, 1000, math.MaxInt, -1}).Draw(t, "ef"),
				Filter: filter, Eligible: count, Dead: gone, DeadCount: deadCount,
			}
			oracle := canonical(metric, query, w.rows, eligible)
			scores := map[int]float32{}
			for _, r := range oracle {
				scores[r.row] = float32(r.score)
			}

			q.Plan = index.ExactScan
			hits := requireHits(t, w.x, q)
			requireRanked(t, w.x, oracle, q.K, hits)
			requirePrecise(t, metric, query, w.rows, w.x, hits)

			for _, plan := range []index.Plan{index.GraphWalk, index.FilteredWalk, index.Auto} {
				q.Plan = plan
				hits := requireHits(t, w.x, q)
				require.Len(t, hits, min(q.K, len(oracle)), "%v", plan)
				for _, h := range hits {
					require.Equal(t, scores[int(w.x.Row(h.Ordinal))], h.Score, "%v", plan)
				}
				if q.Ef == 0 && plan == index.Auto || q.Ef >= len(w.rows) {
					requireRanked(t, w.x, oracle, q.K, hits)
				}
			}
		}
	})
}

func TestSearchAppends(t *testing.T) {
	rows := gaussian(random(1), 50, 4)
	x := build(t, 4, rows, params(index.L2))
	first, _, err := x.Search(index.Query{Vector: rows[0], K: 3}, nil)
	require.NoError(t, err)
	both, _, err := x.Search(index.Query{Vector: rows[1], K: 3}, first)
	require.NoError(t, err)
	require.Len(t, both, 6)
	assert.Equal(t, first, both[:3])
	assert.Equal(t, uint32(1), x.Row(both[3].Ordinal))

	kept, _, err := x.Search(index.Query{Vector: rows[1], K: 0}, first)
	require.Error(t, err)
	assert.Equal(t, first, kept, "an error leaves dst as it was")
}

func TestSearchDoesNotChangeTheQuery(t *testing.T) {
	x := build(t, 2, [][]float32{{1, 2}, {2, 1}}, params(index.Cosine))
	q := []float32{3, 4}
	search(t, x, index.Query{Vector: q, K: 1})
	assert.Equal(t, []float32{3, 4}, q)
}

func TestBadQueries(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	x := build(t, 3, gaussian(random(1), 70, 3), params(index.Cosine))
	good := []float32{1, 2, 3}
	for _, tt := range []struct {
		query index.Query
		text  string
	}{
		{index.Query{K: 1}, "vector has 0 components, want 3: invalid query"},
		{index.Query{Vector: []float32{1, 2}, K: 1}, "vector has 2 components, want 3: invalid query"},
		{index.Query{Vector: []float32{1, 2, 3, 4}, K: 1}, "vector has 4 components, want 3: invalid query"},
		{index.Query{Vector: []float32{1, nan, 3}, K: 1}, "vector: component 1 is NaN, want a finite number: invalid query"},
		{index.Query{Vector: []float32{1, 2, inf}, K: 1}, "vector: component 2 is +Inf, want a finite number: invalid query"},
		{index.Query{Vector: []float32{1e19, 0, 0}, K: 1}, "vector: norm is 1e+19, want at most 1e+18: invalid query"},
		{index.Query{Vector: []float32{0, 0, 0}, K: 1}, "vector: is the zero vector, which has no cosine: invalid query"},
		{index.Query{Vector: good}, "k is 0, want at least 1: invalid query"},
		{index.Query{Vector: good, K: -1}, "k is -1, want at least 1: invalid query"},
		{index.Query{Vector: good, K: 1, Filter: index.NewBitset(64), Eligible: 1}, "filter has 1 words for 70 rows: invalid query"},
		{index.Query{Vector: good, K: 1, Filter: index.NewBitset(129), Eligible: 1}, "filter has 3 words for 70 rows: invalid query"},
		{index.Query{Vector: good, K: 1, Dead: index.NewBitset(64), DeadCount: 1}, "dead set has 1 words for 70 rows: invalid query"},
		{index.Query{Vector: good, K: 1, Dead: index.NewBitset(70), DeadCount: 71}, "dead set with 71 dead of 70 rows: invalid query"},
		{index.Query{Vector: good, K: 1, Dead: index.NewBitset(70), DeadCount: -1}, "dead set with -1 dead of 70 rows: invalid query"},
		{index.Query{Vector: good, K: 1, Dead: index.Bitset{0, 1 << 6}, DeadCount: 1}, "dead set holds ordinals beyond 70 rows: invalid query"},
	} {
		hits, stats, err := x.Search(tt.query, nil)
		require.ErrorIs(t, err, index.ErrQuery, "%+v", tt.query)
		require.EqualError(t, err, tt.text)
		assert.Empty(t, hits)
		assert.Equal(t, index.Stats{}, stats)
	}
	var vector *index.VectorError
	_, _, err := x.Search(index.Query{Vector: []float32{nan, 1, 1}, K: 1}, nil)
	require.True(t, errors.As(err, &vector))
}

// A count that is not the filter's is a caller's fault; it must not be a panic.
func TestEligibleLies(t *testing.T) {
	x := build(t, 3, gaussian(random(1), 70, 3), params(index.Dot))
	filter := index.NewBitset(70)
	for i := range uint32(20) {
		filter.Set(3 * i)
	}
	for _, eligible := range []int{-1, 0, 1, 19, 21, 70, 1000, math.MaxInt} {
		for _, plan := range []index.Plan{index.Auto, index.ExactScan, index.GraphWalk} {
			for _, ef := range []int{0, 5, 100} {
				require.NotPanics(t, func() {
					hits, _, err := x.Search(index.Query{
						Vector: []float32{1, 2, 3}, K: 25, Ef: ef, Plan: plan, Filter: filter, Eligible: eligible,
					}, nil)
					if err != nil {
						require.ErrorIs(t, err, index.ErrQuery)
						return
					}
					for _, h := range hits {
						require.True(t, filter.Has(h.Ordinal))
					}
				}, "%d eligible, %v", eligible, plan)
			}
		}
	}
}

// Bits beyond the rows would be ordinals beyond the vectors.
func TestFilterBeyondTheRows(t *testing.T) {
	x := build(t, 3, gaussian(random(1), 70, 3), params(index.Dot))
	filter := index.NewBitset(70)
	filter.Fill(70)
	filter.Set(100)
	_, _, err := x.Search(index.Query{Vector: []float32{1, 2, 3}, K: 71, Filter: filter, Eligible: 71}, nil)
	require.ErrorIs(t, err, index.ErrQuery)
}

func TestPlans(t *testing.T) {
	rows := gaussian(random(1), 2000, 8)
	x := build(t, 8, rows, params(index.L2))
	q := index.Query{Vector: rows[0], K: 10, Ef: 20}
	_, stats := search(t, x, q)
	assert.Equal(t, index.GraphWalk, stats.Plan)
	assert.Equal(t, 20, stats.Ef)
	assert.Less(t, stats.Scored, 1000)
	assert.Positive(t, stats.Expanded)

	q.Ef = 0
	_, stats = search(t, x, q)
	assert.Equal(t, index.Stats{Plan: index.ExactScan, Reason: index.NoEffort, Scored: 2000}, stats)

	q.Ef = 2000
	_, stats = search(t, x, q)
	assert.Equal(t, index.Stats{Plan: index.ExactScan, Reason: index.Cheapest, Walk: index.GraphWalk, Scored: 2000, ExactCost: 3500, WalkCost: stats.WalkCost}, stats)
	assert.Greater(t, stats.WalkCost, 3500.0, "a walk through all costs more")

	q.Ef = 20
	q.Filter, q.Eligible = filterOf(x, func(row int) bool { return row%100 == 0 })
	_, stats = search(t, x, q)
	assert.Equal(t, index.Stats{Plan: index.ExactScan, Reason: index.Cheapest, Walk: index.FilteredWalk, Scored: 20, ExactCost: 140, WalkCost: stats.WalkCost}, stats, "few are eligible")
	assert.Greater(t, stats.WalkCost, 140.0)
	q.Plan = index.GraphWalk
	_, stats = search(t, x, q)
	assert.Equal(t, index.ExactScan, stats.Plan, "to find where they are costs more")
	assert.True(t, stats.GaveUp)
	assert.Equal(t, index.Given, stats.Reason)
	q.Filter, q.Eligible = filterOf(x, func(row int) bool { return row%2 == 0 })
	_, stats = search(t, x, q)
	assert.Equal(t, index.FilteredWalk, stats.Plan)

	q.Plan = index.Auto
	q.Filter, q.Eligible = filterOf(x, func(row int) bool { return row%400 != 0 })
	_, stats = search(t, x, q)
	assert.Equal(t, index.FilteredWalk, stats.Plan, "nearly all are eligible")
	assert.Less(t, stats.WalkCost, stats.ExactCost)

	q.Filter, q.Eligible = filterOf(x, func(int) bool { return false })
	hits, stats := search(t, x, q)
	assert.Empty(t, hits)
	assert.Zero(t, stats.Scored)
	assert.Equal(t, index.NothingToFind, stats.Reason)
	q.K = 3
	q.Filter, q.Eligible = filterOf(x, func(row int) bool { return row < 3 })
	_, stats = search(t, x, q)
	assert.Equal(t, index.Stats{Plan: index.ExactScan, Reason: index.AllAsked, Scored: 3}, stats)

	for plan, name := range map[index.Plan]string{
		index.Auto: "auto", index.ExactScan: "exact scan", index.FilteredWalk: "filtered walk", index.GraphWalk: "graph walk", 9: "plan(9)",
	} {
		assert.Equal(t, name, plan.String())
	}
}

// A filter against the direction of the query makes walks expensive: what Auto
// computes stays within a bound of the scan.
func TestAdverseFilterStaysCheap(t *testing.T) {
	rows := gaussian(random(1), 4000, 8)
	x := build(t, 8, rows, params(index.Dot))
	q := index.Query{Vector: []float32{1, 0, 0, 0, 0, 0, 0, 0}, K: 10, Ef: 40}
	q.Filter, q.Eligible = filterOf(x, func(row int) bool { return rows[row][0] < 0 })
	hits, stats := search(t, x, q)
	want := canonical(index.Dot, q.Vector, rows, func(row int) bool { return rows[row][0] < 0 })
	found := 0
	for _, h := range hits {
		require.Negative(t, rows[x.Row(h.Ordinal)][0])
		if h.Score >= float32(want[9].score) {
			found++
		}
	}
	assert.GreaterOrEqual(t, found, 9)
	assert.LessOrEqual(t, stats.Scored, 2*q.Eligible)
}

// Filtered walks find what is best wherever it is: in rows picked by chance, in those
// most like a query and in those least like it.
func TestFilteredWalkRecall(t *testing.T) {
	r := random(3)
	rows := repeated(r, gaussian(r, 3000, 12), 0.2)
	for _, metric := range metrics {
		x := build(t, 12, rows, params(metric))
		queries := gaussian(r, 40, 12)
		order := canonical(metric, queries[0], rows, nil)
		for name, eligible := range map[string]func(place int) bool{
			"chance": func(place int) bool { return mixed(order[place].row)%5 == 0 },
			"like":   func(place int) bool { return place < 600 },
			"unlike": func(place int) bool { return place >= len(order)-1500 },
		} {
			picked := make([]bool, len(rows))
			for place, o := range order {
				picked[o.row] = eligible(place)
			}
			is := func(row int) bool { return picked[row] }
			filter, n := filterOf(x, is)
			found, walks := 0, 0
			for _, v := range queries[1:] {
				want := canonical(metric, v, rows, is)
				hits, stats := search(t, x, index.Query{Vector: v, K: 10, Ef: 60, Plan: index.GraphWalk, Filter: filter, Eligible: n})
				require.Len(t, hits, 10)
				if stats.Plan == index.FilteredWalk {
					walks++
				}
				for _, h := range hits {
					require.True(t, is(int(x.Row(h.Ordinal))))
					if !metric.Better(float32(want[9].score), h.Score) {
						found++
					}
				}
			}
			assert.GreaterOrEqual(t, float64(found)/390, 0.95, "%v, %s", metric, name)
			assert.GreaterOrEqual(t, walks, 20, "%v, %s: the others are apart", metric, name)
		}
	}
}

// mixed spreads the rows over all numbers.
func mixed(row int) uint32 { return uint32(row) * 2654435761 >> 16 }

func TestConcurrentSearches(t *testing.T) {
	r := random(1)
	rows := repeated(r, gaussian(r, 1500, 12), 0.2)
	x := build(t, 12, rows, params(index.Dot))
	filter, eligible := filterOf(x, func(row int) bool { return row%3 != 0 })
	var queries []index.Query
	var want [][]index.Hit
	for _, v := range gaussian(r, 40, 12) {
		for _, q := range []index.Query{
			{Vector: v, K: 5},
			{Vector: v, K: 20, Ef: 40, Plan: index.GraphWalk},
			{Vector: v, K: 9, Ef: 30, Plan: index.GraphWalk, Filter: filter, Eligible: eligible},
			{Vector: v, K: 9, Ef: 30, Filter: filter, Eligible: eligible},
		} {
			hits, _ := search(t, x, q)
			queries, want = append(queries, q), append(want, hits)
		}
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			var hits []index.Hit
			for i := range queries {
				at := (i + worker*7) % len(queries)
				var err error
				hits, _, err = x.Search(queries[at], hits[:0])
				assert.NoError(t, err)
				assert.Equal(t, want[at], hits)
			}
		})
	}
	group.Wait()
}

// The set of visited nodes is emptied by counting in 8 bits: more searches than
// that on one scratch must not see what an earlier one visited.
func TestManySearches(t *testing.T) {
	rows := gaussian(random(1), 30, 2)
	x := build(t, 2, rows, params(index.L2))
	var hits []index.Hit
	for i := range 4<<8 + 100 {
		var stats index.Stats
		var err error
		hits, stats, err = x.Search(index.Query{Vector: rows[i%30], K: 3, Ef: 30, Plan: index.GraphWalk}, hits[:0])
		if err != nil || stats.Plan != index.GraphWalk || len(hits) != 3 || x.Row(hits[0].Ordinal) != uint32(i%30) {
			require.Fail(t, "wrong answer", "search %d: %v %+v %v", i, hits, stats, err)
		}
	}
}

// An effort below k makes a walk cheaper, not its answer shorter.
func TestEffortBelowK(t *testing.T) {
	const k = 100
	rows := clustered(random(1), 3000, 16, 40, 0.5)
	for _, metric := range metrics {
		x := build(t, 16, rows, params(metric))
		filter, eligible := filterOf(x, func(row int) bool { return row%10 != 0 })
		for _, query := range gaussian(random(2), 10, 16) {
			last := index.Stats{}
			for _, ef := range []int{1, 20, 50, k, 300} {
				hits, stats := search(t, x, index.Query{Vector: query, K: k, Ef: ef, Plan: index.GraphWalk})
				require.Len(t, hits, k)
				require.Equal(t, index.GraphWalk, stats.Plan, "the scan did not take over")
				require.Equal(t, ef, stats.Ef)
				require.GreaterOrEqual(t, stats.Expanded, min(ef, last.Expanded+1), "ef %d", ef)
				require.GreaterOrEqual(t, stats.Expanded, last.Expanded, "ef %d", ef)
				require.GreaterOrEqual(t, stats.Scored, last.Scored, "ef %d", ef)
				if ef == k {
					require.Greater(t, stats.Expanded, last.Expanded, "half the effort is less")
				}
				last = stats

				hits, stats = search(t, x, index.Query{
					Vector: query, K: k, Ef: ef, Plan: index.GraphWalk, Filter: filter, Eligible: eligible,
				})
				require.Len(t, hits, k)
				require.Equal(t, index.FilteredWalk, stats.Plan, "the scan did not take over")
			}
		}
	}
}

// norms are laws of norms over rows; rising and falling are by the position of a
// row's cluster.
func TestRecall(t *testing.T) {
	const rows, dim, k, ef = 3000, 24, 10, 100
	laws := []struct {
		name string
		norm func(i int) float64
	}{
		{"flat", func(int) float64 { return 1 }},
		{"rising", func(i int) float64 { return 0.2 + 3*float64(i)/rows }},
		{"falling", func(i int) float64 { return 10 / math.Sqrt(1+float64(i)) }},
		{"one giant", func(i int) float64 {
			if i == 100 {
				return 1000
			}
			return 1
		}},
	}
	for _, metric := range metrics {
		for _, law := range laws {
			if metric == index.Cosine && law.name != "flat" || raceEnabled && law.name != "falling" {
				continue
			}
			t.Run(fmt.Sprintf("%v/%s", metric, law.name), func(t *testing.T) {
				r := random(1)
				data := scaled(clustered(r, rows+100, dim, 60, 0.4), func(i int) float64 { return law.norm(i) })
				queries := scaled(data[rows:], func(int) float64 { return 1 })
				data = data[:rows]
				if metric == index.Dot { // from another distribution than the rows
					for _, q := range queries {
						for j := range q {
							q[j] += float32(0.5 * r.NormFloat64())
						}
					}
				}
				x := build(t, dim, data, index.DefaultParams(metric))
				got, scored := recall(t, x, queries, k, ef)
				t.Logf("recall@%d %.4f at ef %d with %d distances a query", k, got, ef, scored)
				assert.GreaterOrEqual(t, got, 0.95)
			})
		}
	}
}
