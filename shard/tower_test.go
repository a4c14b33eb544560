package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// TestMain looks for goroutines that stay. Those of idle connections to a bucket do: its
// client keeps them for others, and has nothing to close them by.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// drawApps draws rows whose components are small integers, so that products and
// squared distances are exact in float32 and many of them tie.
func drawApps(t *rapid.T, dim int, metric index.Metric) []shardtest.App {
	n := rapid.IntRange(0, 120).Draw(t, "rows")
	apps := make([]shardtest.App, n)
	for i := range apps {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(rapid.IntRange(-3, 3).Draw(t, "component"))
		}
		if metric == index.Cosine {
			v[0] += 10 // never zero
		}
		apps[i] = shardtest.App{
			ID:     fmt.Sprintf("%c%03d", 'a'+rune(i%7), i),
			Vector: v,
			Age:    int64(rapid.IntRange(-1, 18).Draw(t, "age")),
			// Few values in all and many of one, so that limits bite.
			Developer: rapid.SampledFrom([]string{"", "Elf", "Nine Lives", "Ten", "Ten"}).Draw(t, "developer"),
			Free:      rapid.Bool().Draw(t, "free"),
		}
		for _, p := range []string{"android", "ios", "linux"} {
			if rapid.Bool().Draw(t, p) {
				apps[i].Platforms = append(apps[i].Platforms, p)
			}
		}
	}
	return apps
}

// score is the metric's value in float64.
func score(metric index.Metric, a, b []float32) float64 {
	var dot, aa, bb float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
	}
	switch metric {
	case index.Cosine:
		return dot / math.Sqrt(aa*bb)
	case index.L2:
		return aa + bb - 2*dot
	}
	return dot
}

// filters are eligibility filters and the same thing in Go.
var filters = []struct {
	text     string
	eligible func(shardtest.App) bool
}{
	{"", func(shardtest.App) bool { return true }},
	{`"linux" in platforms`, func(a shardtest.App) bool { return slices.Contains(a.Platforms, "linux") }},
	{`min_age < 12 && !("ios" in platforms)`, func(a shardtest.App) bool { return a.Age >= 0 && a.Age < 12 && !slices.Contains(a.Platforms, "ios") }},
	{`has(min_age) || has(platforms)`, func(a shardtest.App) bool { return a.Age >= 0 || len(a.Platforms) > 0 }},
	{`min_age > 17`, func(a shardtest.App) bool { return a.Age > 17 }},
	{`min_age > 100`, func(a shardtest.App) bool { return false }},
}

// The exact plan equals brute force, and a walk returns only eligible, distinct
// ids in score order, for any data, filter, k, shards and metric.
func TestSearchEqualsBruteForce(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.Dot, index.Cosine, index.L2}).Draw(t, "metric")
		dim := rapid.IntRange(1, 20).Draw(t, "dim")
		apps := drawApps(t, dim, metric)
		params := index.DefaultParams(metric)
		params.M, params.EfConstruction = 4, 20
		store := shardtest.Store(t, dir)
		m := shardtest.Manifest(t, store, apps, dim, rapid.IntRange(1, 7).Draw(t, "shards"), params)
		tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
		require.NoError(t, err)
		defer func() { require.NoError(t, tw.Close()) }()

		q := &shard.Query{K: rapid.OneOf(rapid.IntRange(1, 8), rapid.IntRange(1, 150)).Draw(t, "k"), MinCoverage: 1, Attributes: []int{shardtest.Platforms}}
		for range rapid.IntRange(1, 3).Draw(t, "vectors") {
			v := make([]float32, dim)
			for j := range v {
				v[j] = float32(rapid.IntRange(-3, 3).Draw(t, "query"))
			}
			v[0] += 4
			q.Vectors = append(q.Vectors, v)
		}
		filter := rapid.SampledFrom(filters).Draw(t, "filter")
		if filter.text != "" {
			f, err := tw.Compile(filter.text)
			require.NoError(t, err)
			bound, err := f.Bind(context.Background(), nil)
			require.NoError(t, err)
			q.Filter = &bound
		}
		for _, a := range apps {
			if rapid.IntRange(0, 9).Draw(t, "exclude") == 0 {
				q.Exclude = append(q.Exclude, a.ID)
			}
		}
		q.Exclude = append(q.Exclude, "nobody")
		if rapid.IntRange(0, 3).Draw(t, "include") == 0 {
			q.Include = []string{"nobody", "nowhere", "nobody"}
			for _, a := range apps {
				for range rapid.IntRange(0, 2).Draw(t, "times") {
					q.Include = append(q.Include, a.ID)
				}
			}
		}
		if len(apps) > 0 && rapid.Bool().Draw(t, "self") {
			q.Self = apps[rapid.IntRange(0, len(apps)-1).Draw(t, "which")].ID
		}
		for _, field := range rapid.SliceOfNDistinct(rapid.IntRange(shardtest.Developer, shardtest.Platforms), 0, 3, rapid.ID).Draw(t, "at most of") {
			q.AtMost = append(q.AtMost, shard.AtMost{Field: field, N: rapid.SampledFrom([]int{1, 2, 3, 10, 40}).Draw(t, "n")})
		}

		want := bruteForce(metric, apps, q, filter.eligible)
		q.Target = 1
		exact, err := tw.Search(context.Background(), q)
		require.NoError(t, err)
		require.Equal(t, len(want.all), exact.Eligible)
		requireUnknown(t, exact, q)
		if metric == index.Cosine && len(q.AtMost) > 0 {
			return // near ties that rounding swaps decide what is passed over
		}
		require.Len(t, exact.Candidates, len(want.top))
		for i, c := range exact.Candidates {
			require.InDelta(t, want.scores[c.ID], c.Score, 1e-5)
			if metric != index.Cosine { // whose rounding may swap near ties
				require.Equal(t, want.top[i], c.ID, "place %d", i)
			}
			require.InDelta(t, want.scores[want.top[i]], c.Score, 1e-5)
		}

		requireExplained(t, tw, apps, q, filter.eligible, want, exact)

		q.Target, q.Ef, q.Plan = 0, rapid.IntRange(1, 60).Draw(t, "ef"), rapid.SampledFrom([]index.Plan{index.Auto, index.GraphWalk}).Draw(t, "plan")
		walk, err := tw.Search(context.Background(), q)
		require.NoError(t, err)
		if len(q.AtMost) == 0 || len(want.top) < q.K && len(walk.Candidates) < q.K {
			require.Len(t, walk.Candidates, len(want.top), "a walk never returns fewer")
		}
		requireWithin(t, q, apps, walk.Candidates)
		requireExplained(t, tw, apps, q, filter.eligible, want, walk)
		seen := map[string]bool{}
		for i, c := range walk.Candidates {
			require.Contains(t, want.scores, c.ID, "only eligible ids")
			require.InDelta(t, want.scores[c.ID], c.Score, 1e-5)
			require.False(t, seen[c.ID], "%s comes twice", c.ID)
			seen[c.ID] = true
			if i > 0 {
				last := walk.Candidates[i-1]
				require.False(t, metric.Better(c.Score, last.Score))
				require.True(t, last.Score != c.Score || last.ID < c.ID, "ties by id")
			}
		}
	})
}

// requireUnknown checks how many ids the shards did not know.
func requireUnknown(t shardtest.TB, a *shard.Answer, q *shard.Query) {
	require.Equal(t, 1, a.UnknownExclude)
	if len(q.Include) == 0 {
		require.Zero(t, a.UnknownInclude)
	} else {
		require.Equal(t, 3, a.UnknownInclude)
	}
}

// truth is the brute-force answer.
type truth struct {
	scores map[string]float64 // of every eligible id
	all    []string           // best first, ties by id
	top    []string           // the first k of those that may be taken
}

func bruteForce(metric index.Metric, apps []shardtest.App, q *shard.Query, eligible func(shardtest.App) bool) truth {
	t := truth{scores: map[string]float64{}}
	better := func(a, b float64) bool {
		if metric == index.L2 {
			return a < b
		}
		return a > b
	}
	for _, a := range apps {
		if !eligible(a) || slices.Contains(q.Exclude, a.ID) || a.ID == q.Self ||
			len(q.Include) > 0 && !slices.Contains(q.Include, a.ID) {
			continue
		}
		best := score(metric, q.Vectors[0], a.Vector)
		for _, v := range q.Vectors[1:] {
			if s := score(metric, v, a.Vector); better(s, best) {
				best = s
			}
		}
		t.scores[a.ID] = best
		t.all = append(t.all, a.ID)
	}
	slices.SortFunc(t.all, func(a, b string) int {
		switch {
		case better(t.scores[a], t.scores[b]):
			return -1
		case better(t.scores[b], t.scores[a]):
			return 1
		}
		return cmp.Compare(a, b)
	})
	taken := map[string]int{}
	for _, id := range t.all {
		a := apps[slices.IndexFunc(apps, func(a shardtest.App) bool { return a.ID == id })]
		if len(t.top) < q.K && fits(taken, q.AtMost, a) {
			take(taken, q.AtMost, a)
			t.top = append(t.top, id)
		}
	}
	return t
}

// valuesOf returns the values that an app has of an attribute.
func valuesOf(a shardtest.App, field int) []string {
	switch {
	case field == shardtest.Developer && a.Developer != "":
		return []string{a.Developer}
	case field == shardtest.Free:
		return []string{fmt.Sprint(a.Free)}
	case field == shardtest.MinAge && a.Age >= 0:
		return []string{fmt.Sprint(a.Age)}
	case field == shardtest.Platforms:
		return a.Platforms
	}
	return nil
}

func fits(taken map[string]int, limits []shard.AtMost, a shardtest.App) bool {
	for _, limit := range limits {
		for _, v := range valuesOf(a, limit.Field) {
			if taken[fmt.Sprint(limit.Field, v)] >= limit.N {
				return false
			}
		}
	}
	return true
}

func take(taken map[string]int, limits []shard.AtMost, a shardtest.App) {
	for _, limit := range limits {
		for _, v := range valuesOf(a, limit.Field) {
			taken[fmt.Sprint(limit.Field, v)]++
		}
	}
}

func openGrid(t *testing.T, n, shards int) *shard.Tower {
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, shardtest.Grid(n), 1, shards, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tw.Close()) })
	return tw
}

func TestCoverage(t *testing.T) {
	tw := openGrid(t, 100, 4)
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 10, Target: 1, MinCoverage: 0.5}
	_, err := tw.Search(ctx, q)
	var coverage *shard.CoverageError
	require.ErrorAs(t, err, &coverage)
	require.Equal(t, 0, coverage.Answered)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, "0 of 4 shards answered: coverage is 0, min_coverage is 0.5: context deadline exceeded")

	q.MinCoverage = 0
	a, err := tw.Search(ctx, q)
	require.NoError(t, err)
	require.Empty(t, a.Candidates)
	require.Zero(t, a.Coverage())
	for _, s := range a.Shards {
		require.ErrorIs(t, s.Err, context.DeadlineExceeded)
	}

	a, err = tw.Search(context.Background(), q)
	require.NoError(t, err)
	require.Equal(t, 1.0, a.Coverage())
	require.Equal(t, "app-099", a.Candidates[0].ID)
}

// All of the best may be in one shard, although each is asked for its share at
// first.
func TestBestInOneShard(t *testing.T) {
	const shards = 4
	apps := shardtest.Grid(800)
	for i := range apps {
		if shard.Partition(apps[i].ID, shards) == 2 {
			apps[i].Vector[0] += 10_000
		}
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, shards, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	for _, k := range []int{1, 10, 100, 150, 700, 800, 900} {
		q := &shard.Query{Vectors: [][]float32{{1}}, K: k, Target: 1, MinCoverage: 1}
		exact, err := tw.Search(context.Background(), q)
		require.NoError(t, err)
		q.Target = 0.99
		got, err := tw.Search(context.Background(), q)
		require.NoError(t, err)
		require.Equal(t, exact.Candidates, got.Candidates, "k %d", k)
	}
}

func TestBadQueries(t *testing.T) {
	tw := openGrid(t, 10, 2)
	for text, q := range map[string]*shard.Query{
		"query has no vector":                             {K: 1, Target: 1},
		"k is 0, want at least 1":                         {Vectors: [][]float32{{1}}, Target: 1},
		"recall target is 0, want above 0 and at most 1":  {Vectors: [][]float32{{1}}, K: 1},
		"attribute 5 is asked for, the tower has 5":       {Vectors: [][]float32{{1}}, K: 1, Target: 1, Attributes: []int{5}},
		"at most 0 of attribute free, want at least 1":    {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{shardtest.Free, 0}}},
		"attribute free is limited twice, want each once": {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{shardtest.Free, 3}, {shardtest.Developer, 1}, {shardtest.Free, 2}}},
		"at most 1 of attribute 9, the tower has 5":       {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{9, 1}}},
		"at most 1 of attribute price, a float, want a":   {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{4, 1}}},
		"ef is -1, want at least 0":                       {Vectors: [][]float32{{1}}, K: 1, Ef: -1},
		"vector has 2 components, want 1":                 {Vectors: [][]float32{{1, 2}}, K: 1, Target: 1},
		"component 0 is NaN, want a finite number":        {Vectors: [][]float32{{float32(math.NaN())}}, K: 1, Target: 1},
		"a page begins after a score that is NaN":         {Vectors: [][]float32{{1}}, K: 1, Target: 1, After: &shard.Cursor{Score: float32(math.NaN())}},
		"a page begins after -1 candidates of at most 0":  {Vectors: [][]float32{{1}}, K: 1, Target: 1, After: &shard.Cursor{Rank: -1}},
		"norm is 2e+18, want at most 1e+18":               {Vectors: [][]float32{{2e18}}, K: 1, Target: 1},
	} {
		_, err := tw.Search(context.Background(), q)
		require.ErrorIs(t, err, index.ErrQuery)
		require.ErrorContains(t, err, text)
	}
}

func TestVectorOfUnknownID(t *testing.T) {
	tw := openGrid(t, 10, 3)
	_, ok, err := tw.Vector(t.Context(), shard.Moment{}, "app-010")
	require.NoError(t, err)
	require.False(t, ok)
	v, ok, err := tw.Vector(t.Context(), shard.Moment{}, "app-009")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []float32{10}, v)
}
