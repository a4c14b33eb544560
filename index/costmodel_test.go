package index_test

import (
	"encoding/json"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// TestCostModelElsewhere: who has nothing of an index but its cost model, as text, estimates
// and plans as the index does.
func TestCostModelElsewhere(t *testing.T) {
	files, err := filepath.Glob("testdata/*.tandem")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	flat, err := index.Flat(matrix(t, 8, gaussian(random(1), 500, 8)), index.Dot)
	require.NoError(t, err)
	empty, err := index.Flat(matrix(t, 8, nil), index.Dot)
	require.NoError(t, err)
	all := []*index.Index{flat, empty, build(t, 8, gaussian(random(2), 3000, 8), params(index.L2))}
	for _, path := range files {
		all = append(all, open(t, path))
	}
	filtered := 0
	for _, x := range all {
		text, err := json.Marshal(x.CostModel())
		require.NoError(t, err)
		var m index.CostModel
		require.NoError(t, json.Unmarshal(text, &m))
		require.NoError(t, m.Validate())
		require.Equal(t, x.Rows(), m.Rows)
		require.Equal(t, x.FilteredEffort(), m.Filtered)
		if len(m.Filtered) > 0 {
			filtered++
		}
		rapid.Check(t, func(t *rapid.T) {
			k, ef := rapid.IntRange(1, 2*x.Rows()+2).Draw(t, "k"), rapid.IntRange(0, 2*x.Rows()).Draw(t, "ef")
			target := rapid.SampledFrom([]float64{0.5, 0.9, 0.92, 0.99, 0.999, 1}).Draw(t, "target")
			eligible := rapid.IntRange(0, x.Rows()).Draw(t, "eligible")
			require.Equal(t, x.EffortFor(k, target), m.EffortFor(k, target))
			require.Equal(t, x.FilteredEffortFor(k, target, eligible), m.FilteredEffortFor(k, target, eligible))
			require.Equal(t, x.Cost(k, ef, eligible), m.Cost(k, ef, eligible))
			if eligible == x.Rows() && k < eligible && ef > 0 {
				_, stats, err := x.Search(index.Query{Vector: axis(x.Dim()), K: k, Ef: ef}, nil)
				require.NoError(t, err)
				if stats.WalkCost > 0 {
					require.Equal(t, min(stats.WalkCost, stats.ExactCost), m.Cost(k, ef, eligible))
				}
			}
		})
	}
	require.Positive(t, filtered)
}

// axis returns a vector that each metric takes.
func axis(dim int) []float32 {
	v := make([]float32, dim)
	v[0] = 1
	return v
}

// TestCostModelValidate: what passes gives estimates that are numbers, whatever is asked. What
// no index has is refused by name.
func TestCostModelValidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := func(label string) float32 {
			return rapid.SampledFrom([]float32{0, 0.001, 0.5, 0.9, 1, 10, 1e9, float32(math.NaN()), float32(math.Inf(1)), -1}).Draw(t, label)
		}
		count := func(label string) int {
			return rapid.SampledFrom([]int{0, 1, 2, 10, 100, 1000, 1 << 20, -1, math.MaxInt}).Draw(t, label)
		}
		effort := func() index.Effort {
			return index.Effort{K: count("k"), Target: number("target"), Ef: count("ef"), Recall: number("recall"), Scored: number("scored")}
		}
		m := index.CostModel{Rows: count("rows"), Nodes: count("nodes"), Flat: rapid.Bool().Draw(t, "flat"), Degree: float64(number("degree"))}
		for range rapid.IntRange(0, 2).Draw(t, "efforts") {
			m.Effort = append(m.Effort, effort())
		}
		for range rapid.IntRange(0, 2).Draw(t, "filtered efforts") {
			m.Filtered = append(m.Filtered, index.FilteredEffort{Share: number("share"), Effort: effort(), Through: number("through")})
		}
		if m.Validate() != nil {
			return
		}
		for range 10 {
			eligible := rapid.IntRange(0, m.Rows).Draw(t, "eligible")
			k, ef := rapid.IntRange(1, 2000).Draw(t, "asked"), rapid.IntRange(0, 2000).Draw(t, "effort")
			require.GreaterOrEqual(t, m.FilteredEffortFor(k, 0.9, eligible), 0)
			cost := m.Cost(k, ef, eligible)
			require.False(t, !(cost >= 0) || math.IsInf(cost, 1), "%v", cost)
		}
	})
	good := index.Effort{K: 10, Target: 0.9, Ef: 20, Recall: 0.95, Scored: 100}
	for want, m := range map[string]index.CostModel{
		"-1 rows, want 0 to":                         {Rows: -1},
		"0 nodes of 5 rows":                          {Rows: 5},
		"6 nodes of 5 rows":                          {Rows: 5, Nodes: 6},
		"a mean of NaN neighbours":                   {Rows: 5, Nodes: 5, Degree: math.NaN()},
		"effort 0 is {K:0 ":                          {Rows: 5, Nodes: 5, Effort: []index.Effort{{}}},
		"effort 1 is {K:10 ":                         {Rows: 5, Nodes: 5, Effort: []index.Effort{good, good}},
		"filtered effort 0 is {Share:0 Effort:{K:10": {Rows: 5, Nodes: 5, Filtered: []index.FilteredEffort{{Effort: good}}},
	} {
		require.ErrorContains(t, m.Validate(), want)
	}
}
