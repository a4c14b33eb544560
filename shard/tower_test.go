package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// TestMain looks for goroutines that stay. Those of idle connections to a bucket do: its
// client keeps them for others, and has nothing to close them by.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// app is one row of a test tower.
type app struct {
	id        string
	vector    []float32
	platforms []string
	age       int64  // absent when negative
	developer string // absent when empty
	free      bool
}

// The attributes, by their places in the schema.
const (
	developer = iota
	free
	minAge
	platforms
)

func appSchema() attribute.Schema {
	s, err := attribute.NewSchema([]attribute.Field{
		{Name: "developer", Type: attribute.Keyword},
		{Name: "free", Type: attribute.Bool},
		{Name: "min_age", Type: attribute.Int},
		{Name: "platforms", Type: attribute.KeywordList},
		{Name: "price", Type: attribute.Float},
	})
	if err != nil {
		panic(err)
	}
	return s
}

// testing.TB and *rapid.T, as far as this file needs them.
type tb interface {
	require.TestingT
	Helper()
}

// writeTower writes the shards of a tower to a store and lists them.
func writeTower(t tb, store *shard.Store, apps []app, dim, shards int, params index.Params, segments ...shard.Segment) shard.TowerManifest {
	t.Helper()
	m := shard.TowerManifest{Params: params.String(), Schema: appSchema()}
	for number := range shards {
		var rows []app
		for _, a := range apps {
			if shard.Partition(a.id, shards) == number {
				rows = append(rows, a)
			}
		}
		slices.SortFunc(rows, func(a, b app) int { return cmp.Compare(a.id, b.id) })
		vectors, err := index.NewMatrix(dim, len(rows))
		require.NoError(t, err)
		w := attribute.NewWriter(m.Schema, len(rows))
		var ids []string
		var keys []uint64
		for i, a := range rows {
			require.NoError(t, vectors.Append(a.vector))
			ids = append(ids, a.id)
			keys = append(keys, shard.Key(a.id))
			if a.age >= 0 {
				require.NoError(t, w.Set(i, minAge, attribute.OfInt(a.age)))
			}
			if a.developer != "" {
				require.NoError(t, w.Set(i, developer, attribute.OfKeyword(a.developer)))
			}
			require.NoError(t, w.Set(i, free, attribute.OfBool(a.free)))
			require.NoError(t, w.Set(i, platforms, attribute.OfKeywords(slices.Clone(a.platforms))))
		}
		x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(t, err)
		stage, err := store.Stage()
		require.NoError(t, err)
		path := filepath.Join(stage.Dir(), "a.shard")
		require.NoError(t, shard.Write(path, ids, x, w, segments...))
		sm, err := store.AddShard(context.Background(), path)
		require.NoError(t, err)
		require.NoError(t, stage.Close())
		sm.Rows = len(rows)
		m.Rows += len(rows)
		m.Shards = append(m.Shards, sm)
	}
	return m
}

// newManifest returns the manifest of a snapshot with the same rows in both
// towers.
func newManifest(t tb, store *shard.Store, apps []app, dim, shards int, params index.Params) *shard.Manifest {
	tm := writeTower(t, store, apps, dim, shards, params)
	return &shard.Manifest{
		Version: shard.ManifestVersion, Builder: "test", Model: "feed", ModelVersion: "1",
		Metric: params.Metric, Dim: dim, Apps: tm, Users: tm,
	}
}

// newStore makes a store that cleanup removes.
func newStore(t tb, dir string) *shard.Store {
	store, err := shard.CreateStore(context.Background(), dir, shard.StoreOptions{})
	require.NoError(t, err)
	return store
}

// drawApps draws rows whose components are small integers, so that products and
// squared distances are exact in float32 and many of them tie.
func drawApps(t *rapid.T, dim int, metric index.Metric) []app {
	n := rapid.IntRange(0, 120).Draw(t, "rows")
	apps := make([]app, n)
	for i := range apps {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(rapid.IntRange(-3, 3).Draw(t, "component"))
		}
		if metric == index.Cosine {
			v[0] += 10 // never zero
		}
		apps[i] = app{
			id:     fmt.Sprintf("%c%03d", 'a'+rune(i%7), i),
			vector: v,
			age:    int64(rapid.IntRange(-1, 18).Draw(t, "age")),
			// Few values in all and many of one, so that limits bite.
			developer: rapid.SampledFrom([]string{"", "Elf", "Nine Lives", "Ten", "Ten"}).Draw(t, "developer"),
			free:      rapid.Bool().Draw(t, "free"),
		}
		for _, p := range []string{"android", "ios", "linux"} {
			if rapid.Bool().Draw(t, p) {
				apps[i].platforms = append(apps[i].platforms, p)
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
	eligible func(app) bool
}{
	{"", func(app) bool { return true }},
	{`"linux" in platforms`, func(a app) bool { return slices.Contains(a.platforms, "linux") }},
	{`min_age < 12 && !("ios" in platforms)`, func(a app) bool { return a.age >= 0 && a.age < 12 && !slices.Contains(a.platforms, "ios") }},
	{`has(min_age) || has(platforms)`, func(a app) bool { return a.age >= 0 || len(a.platforms) > 0 }},
	{`min_age > 17`, func(a app) bool { return a.age > 17 }},
	{`min_age > 100`, func(a app) bool { return false }},
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
		store := newStore(t, dir)
		m := newManifest(t, store, apps, dim, rapid.IntRange(1, 7).Draw(t, "shards"), params)
		tw, err := shard.OpenTower(context.Background(), store, m, shard.Apps)
		require.NoError(t, err)
		defer func() { require.NoError(t, tw.Close()) }()

		q := &shard.Query{K: rapid.OneOf(rapid.IntRange(1, 8), rapid.IntRange(1, 150)).Draw(t, "k"), MinCoverage: 1, Attributes: []int{platforms}}
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
				q.Exclude = append(q.Exclude, a.id)
			}
		}
		q.Exclude = append(q.Exclude, "nobody")
		if rapid.IntRange(0, 3).Draw(t, "include") == 0 {
			q.Include = []string{"nobody", "nowhere", "nobody"}
			for _, a := range apps {
				for range rapid.IntRange(0, 2).Draw(t, "times") {
					q.Include = append(q.Include, a.id)
				}
			}
		}
		if len(apps) > 0 && rapid.Bool().Draw(t, "self") {
			q.Self = apps[rapid.IntRange(0, len(apps)-1).Draw(t, "which")].id
		}
		for _, field := range rapid.SliceOfNDistinct(rapid.IntRange(developer, platforms), 0, 3, rapid.ID).Draw(t, "at most of") {
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
func requireUnknown(t tb, a *shard.Answer, q *shard.Query) {
	include, exclude := 0, 0
	for _, s := range a.Shards {
		include += s.UnknownInclude
		exclude += s.UnknownExclude
	}
	require.Equal(t, 1, exclude)
	if len(q.Include) == 0 {
		require.Zero(t, include)
	} else {
		require.Equal(t, 3, include)
	}
}

// truth is the brute-force answer.
type truth struct {
	scores map[string]float64 // of every eligible id
	all    []string           // best first, ties by id
	top    []string           // the first k of those that may be taken
}

func bruteForce(metric index.Metric, apps []app, q *shard.Query, eligible func(app) bool) truth {
	t := truth{scores: map[string]float64{}}
	better := func(a, b float64) bool {
		if metric == index.L2 {
			return a < b
		}
		return a > b
	}
	for _, a := range apps {
		if !eligible(a) || slices.Contains(q.Exclude, a.id) || a.id == q.Self ||
			len(q.Include) > 0 && !slices.Contains(q.Include, a.id) {
			continue
		}
		best := score(metric, q.Vectors[0], a.vector)
		for _, v := range q.Vectors[1:] {
			if s := score(metric, v, a.vector); better(s, best) {
				best = s
			}
		}
		t.scores[a.id] = best
		t.all = append(t.all, a.id)
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
		a := apps[slices.IndexFunc(apps, func(a app) bool { return a.id == id })]
		if len(t.top) < q.K && fits(taken, q.AtMost, a) {
			take(taken, q.AtMost, a)
			t.top = append(t.top, id)
		}
	}
	return t
}

// values returns the values that an app has of an attribute.
func (a app) values(field int) []string {
	switch {
	case field == developer && a.developer != "":
		return []string{a.developer}
	case field == free:
		return []string{fmt.Sprint(a.free)}
	case field == minAge && a.age >= 0:
		return []string{fmt.Sprint(a.age)}
	case field == platforms:
		return a.platforms
	}
	return nil
}

func fits(taken map[string]int, limits []shard.AtMost, a app) bool {
	for _, limit := range limits {
		for _, v := range a.values(limit.Field) {
			if taken[fmt.Sprint(limit.Field, v)] >= limit.N {
				return false
			}
		}
	}
	return true
}

func take(taken map[string]int, limits []shard.AtMost, a app) {
	for _, limit := range limits {
		for _, v := range a.values(limit.Field) {
			taken[fmt.Sprint(limit.Field, v)]++
		}
	}
}

// grid returns n apps on a line: the inner product with {1} is the number.
func grid(n int) []app {
	apps := make([]app, n)
	for i := range apps {
		apps[i] = app{id: fmt.Sprintf("app-%03d", i), vector: []float32{float32(i + 1)}, age: int64(i % 20), platforms: []string{"ios"}}
	}
	return apps
}

func openGrid(t *testing.T, n, shards int) *shard.Tower {
	store := newStore(t, t.TempDir())
	m := newManifest(t, store, grid(n), 1, shards, index.DefaultParams(index.Dot))
	tw, err := shard.OpenTower(context.Background(), store, m, shard.Apps)
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
	apps := grid(800)
	for i := range apps {
		if shard.Partition(apps[i].id, shards) == 2 {
			apps[i].vector[0] += 10_000
		}
	}
	store := newStore(t, t.TempDir())
	m := newManifest(t, store, apps, 1, shards, index.DefaultParams(index.Dot))
	tw, err := shard.OpenTower(context.Background(), store, m, shard.Apps)
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
		"at most 0 of attribute free, want at least 1":    {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{free, 0}}},
		"attribute free is limited twice, want each once": {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{free, 3}, {developer, 1}, {free, 2}}},
		"at most 1 of attribute 9, the tower has 5":       {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{9, 1}}},
		"at most 1 of attribute price, a float, want a":   {Vectors: [][]float32{{1}}, K: 1, Target: 1, AtMost: []shard.AtMost{{4, 1}}},
		"ef is -1, want at least 0":                       {Vectors: [][]float32{{1}}, K: 1, Ef: -1},
		"vector has 2 components, want 1":                 {Vectors: [][]float32{{1, 2}}, K: 1, Target: 1},
		"component 0 is NaN, want a finite number":        {Vectors: [][]float32{{float32(math.NaN())}}, K: 1, Target: 1},
		"norm is 2e+18, want at most 1e+18":               {Vectors: [][]float32{{2e18}}, K: 1, Target: 1},
	} {
		_, err := tw.Search(context.Background(), q)
		require.ErrorIs(t, err, index.ErrQuery)
		require.ErrorContains(t, err, text)
	}
}

func TestVectorOfUnknownID(t *testing.T) {
	tw := openGrid(t, 10, 3)
	_, ok, err := tw.Vector("app-010")
	require.NoError(t, err)
	require.False(t, ok)
	v, ok, err := tw.Vector("app-009")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []float32{10}, v)
}
