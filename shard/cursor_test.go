package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// cursorAfter returns where the page begins that follows some candidates, so many of which
// earlier pages had.
func cursorAfter(candidates []shard.Candidate, before int) *shard.Cursor {
	if len(candidates) == 0 {
		return nil
	}
	last := candidates[len(candidates)-1]
	return &shard.Cursor{Score: last.Score, ID: last.ID, Rank: before + len(candidates)}
}

// passes reports whether a candidate ranks after a cursor.
func passes(metric index.Metric, after *shard.Cursor, c shard.Candidate) bool {
	return after == nil || metric.Better(after.Score, c.Score) || after.Score == c.Score && after.ID < c.ID
}

// pagesOf asks for a query in pages, up to the first that is short, and returns all
// candidates. Each page is held against what must be so whatever the plan.
func pagesOf(t shardtest.TB, tw *shard.Tower, q shard.Query, size func() int) (all []shard.Candidate) {
	t.Helper()
	for {
		q.K = size()
		page, err := tw.Search(context.Background(), &q)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Candidates), q.K)
		if q.After == nil {
			require.Zero(t, page.Before)
		}
		for i, c := range page.Candidates {
			after := q.After
			if i > 0 {
				after = cursorAfter(page.Candidates[:i], 0)
			}
			require.True(t, passes(tw.Metric(), after, c), "%v does not come after %v", c, after)
		}
		all = append(all, page.Candidates...)
		if len(page.Candidates) < q.K {
			if len(q.AtMost) == 0 {
				require.Equal(t, page.Eligible, page.Before+len(page.Candidates), "a page is short only where there are no more")
			}
			return all
		}
		q.After = cursorAfter(page.Candidates, len(all)-len(page.Candidates))
	}
}

// TestPagesAreOneAnswer: by exact scans the pages of a query are together what one answer is,
// whatever their sizes. By walks they are in order, and nothing comes twice.
func TestPagesAreOneAnswer(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.Dot, index.Cosine, index.L2}).Draw(t, "metric")
		dim := rapid.IntRange(1, 12).Draw(t, "dim")
		apps := drawApps(t, dim, metric)
		params := index.DefaultParams(metric)
		params.M, params.EfConstruction = 4, 20
		store := shardtest.Store(t, dir)
		m := shardtest.Manifest(t, store, apps, dim, rapid.IntRange(1, 6).Draw(t, "shards"), params)
		tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
		require.NoError(t, err)
		defer func() { require.NoError(t, tw.Close()) }()

		q := shard.Query{MinCoverage: 1, Attributes: []int{shardtest.Platforms}}
		for range rapid.IntRange(1, 3).Draw(t, "vectors") {
			v := make([]float32, dim)
			for j := range v {
				v[j] = float32(rapid.IntRange(-3, 3).Draw(t, "query"))
			}
			v[0] += 4
			q.Vectors = append(q.Vectors, v)
		}
		if filter := rapid.SampledFrom(filters).Draw(t, "filter"); filter.text != "" {
			f, err := tw.Compile(filter.text)
			require.NoError(t, err)
			bound, err := f.Bind(context.Background(), nil)
			require.NoError(t, err)
			q.Filter = &bound
		}
		for _, field := range rapid.SliceOfNDistinct(rapid.IntRange(shardtest.Developer, shardtest.Platforms), 0, 3, rapid.ID).Draw(t, "at most of") {
			q.AtMost = append(q.AtMost, shard.AtMost{Field: field, N: rapid.SampledFrom([]int{1, 2, 3, 10, 40}).Draw(t, "n")})
		}
		size := func() int { return rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, 150)).Draw(t, "k") }

		q.Target = 1
		one := q
		one.K = len(apps) + 1
		whole, err := tw.Search(context.Background(), &one)
		require.NoError(t, err)
		require.Equal(t, append([]shard.Candidate{}, whole.Candidates...), append([]shard.Candidate{}, pagesOf(t, tw, q, size)...))

		q.Target, q.Ef = 0, rapid.IntRange(1, 60).Draw(t, "ef")
		q.Plan = rapid.SampledFrom([]index.Plan{index.Auto, index.GraphWalk}).Draw(t, "plan")
		pagesOf(t, tw, q, size)
	})
}

// TestPagesWhileRowsComeAndGo: between two pages some rows become eligible, and some no longer
// are. A page is what ranks after its cursor, of what there is then.
func TestPagesWhileRowsComeAndGo(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.Dot, index.L2}).Draw(t, "metric")
		apps := drawApps(t, 3, metric)
		params := index.DefaultParams(metric)
		params.M, params.EfConstruction = 4, 20
		store := shardtest.Store(t, dir)
		m := shardtest.Manifest(t, store, apps, 3, rapid.IntRange(1, 4).Draw(t, "shards"), params)
		tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
		require.NoError(t, err)
		defer func() { require.NoError(t, tw.Close()) }()
		q := shard.Query{Vectors: [][]float32{{1, 2, -1}, {-3, 1, 1}}, MinCoverage: 1, Target: 1}
		if rapid.Bool().Draw(t, "at most") {
			q.AtMost = []shard.AtMost{{Field: shardtest.Developer, N: rapid.IntRange(1, 20).Draw(t, "n")}}
		}
		out := map[string]bool{} // what is not eligible
		change := func() {
			percent := rapid.SampledFrom([]int{0, 5, 50, 95}).Draw(t, "percent")
			d := drawer{rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
			q.Exclude = nil
			for _, a := range apps {
				if d.chance(30) {
					out[a.ID] = d.chance(percent)
				}
				if out[a.ID] {
					q.Exclude = append(q.Exclude, a.ID)
				}
			}
		}
		returned := map[string]bool{}
		for number := 0; number < 8; number++ {
			change()
			q.K = rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, 60)).Draw(t, "k")
			all := q
			all.K, all.After = len(apps)+1, nil
			whole, err := tw.Search(context.Background(), &all)
			require.NoError(t, err)
			before := slices.IndexFunc(whole.Candidates, func(c shard.Candidate) bool { return passes(metric, q.After, c) })
			if before < 0 {
				before = len(whole.Candidates)
			}
			want := whole.Candidates[before:]
			q.Explain = nil
			for _, a := range apps {
				q.Explain = append(q.Explain, a.ID)
			}
			page, err := tw.Search(context.Background(), &q)
			require.NoError(t, err)
			require.Equal(t, append([]shard.Candidate{}, want[:min(len(want), q.K)]...), append([]shard.Candidate{}, page.Candidates...))
			require.Equal(t, before, page.Before)
			rank := 0
			if q.After != nil {
				rank = q.After.Rank
			}
			for i, e := range page.Explained {
				at := slices.IndexFunc(page.Candidates, func(c shard.Candidate) bool { return c.ID == e.ID })
				switch {
				case out[e.ID]:
					require.Equal(t, shard.Excluded, e.Standing)
				case !passes(metric, q.After, shard.Candidate{ID: e.ID, Score: e.Score}):
					require.Equal(t, shard.Earlier, e.Standing, "%v", apps[i])
				case at >= 0:
					require.Equal(t, []any{shard.Returned, rank + at + 1}, []any{e.Standing, e.Rank})
					continue
				case len(q.AtMost) == 0:
					require.Equal(t, shard.BelowCut, e.Standing)
				default:
					require.Contains(t, []shard.Standing{shard.BelowCut, shard.Capped}, e.Standing)
				}
				require.Zero(t, e.Rank)
			}
			for _, c := range page.Candidates {
				require.False(t, returned[c.ID], "%s comes twice", c.ID)
				returned[c.ID] = true
			}
			if len(page.Candidates) == 0 {
				break
			}
			q.After = cursorAfter(page.Candidates, rank)
		}
	})
}

// TestPageTrials asks for pages of the queries of trials, of which many are walks over
// thousands of rows, with filters, lists and segments.
func TestPageTrials(t *testing.T) {
	asked, compared, walked := 0, 0, 0
	for number := range uint64(6) {
		s := newTrialSet(t, t.TempDir(), *trialsSeed, number)
		d := drawer{rand.New(rand.NewPCG(*trialsSeed, ^number))}
		for range 100 {
			trial := s.draw(d)
			q := trial.query
			n := max(2, min(q.K, 400), len(s.rows)/10) // or there would be very many pages
			size := func() int { return 1 + d.IntN(n) }
			pages := pagesOf(t, s.tower, q, size)
			asked++
			q.K = len(s.rows) + 1
			if q.Target < 1 && q.Plan != index.ExactScan {
				walked++
				continue
			}
			whole, err := s.tower.Search(context.Background(), &q)
			require.NoError(t, err)
			require.Equal(t, append([]shard.Candidate{}, whole.Candidates...), append([]shard.Candidate{}, pages...), "%s: %s", s.name, &trial)
			compared++
		}
		require.NoError(t, s.tower.Close())
	}
	t.Logf("%d queries in pages, %d equal to one answer, %d by walks", asked, compared, walked)
	require.Greater(t, compared, asked/10)
	require.Greater(t, walked, asked/10)
}

// TestPageThatBeginsFarBelow: a cursor says that few rank up to it, and nearly all do, as
// after many rows have come, or where it was made up. What is looked for is bounded.
func TestPageThatBeginsFarBelow(t *testing.T) {
	const rows = 3000
	for _, shards := range []int{1, 4} {
		tw := openGrid(t, rows, shards)
		for _, q := range []shard.Query{{Target: 1}, {Target: 0.9}, {Ef: 10}, {Ef: 10, Plan: index.GraphWalk}} {
			for _, most := range []int{0, 10_000, rows - 95, 500} {
				q.Vectors, q.K, q.MinCoverage = [][]float32{{1}}, 10, 1
				// The app of number i scores i+1.
				q.After = &shard.Cursor{Score: 101, ID: "app-100", Rank: 1, Most: most}
				got, err := tw.Search(context.Background(), &q)
				require.NoError(t, err)
				for i, c := range got.Candidates {
					require.Less(t, c.Score, float32(101-i))
				}
				for _, s := range got.Shards {
					require.LessOrEqual(t, s.Asked, cmp.Or(most, 2*rows))
				}
				if q.Ef > 0 {
					continue // what a walk misses, it misses
				}
				// No walk is calibrated, so both are exact.
				found, before := 10, rows-100
				switch most {
				case rows - 95:
					found = 5
				case 500:
					found, before = 0, 500
				}
				require.Equal(t, before, got.Before)
				require.Len(t, got.Candidates, found, "%d shards, %+v", shards, q)
				for i, c := range got.Candidates {
					require.Equal(t, fmt.Sprintf("app-%03d", 99-i), c.ID)
				}
			}
		}
	}
}

// TestPagesOfOneValue: what at_most passes over on one page, it passes over on all.
func TestPagesOfOneValue(t *testing.T) {
	const shards = 4
	apps := shardtest.Grid(2000)
	for i := range apps {
		apps[i].Developer = fmt.Sprint("solo ", i)
		if i >= 400 && (i >= 1500 || shard.Partition(apps[i].ID, shards) == 2) {
			apps[i].Developer = "Ten"
		}
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, shards, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	for _, limits := range [][]shard.AtMost{{{shardtest.Developer, 1}}, {{shardtest.Developer, 7}}, {{shardtest.Free, 30}}, {{shardtest.MinAge, 40}, {shardtest.Developer, 30}}} {
		for _, plan := range []shard.Query{{Target: 1}, {Target: 0.99}, {Ef: 10}, {Ef: 10, Plan: index.GraphWalk}} {
			q := plan
			q.Vectors, q.MinCoverage, q.AtMost = [][]float32{{1}}, 1, limits
			d := drawer{rand.New(rand.NewPCG(1, 2))}
			got := pagesOf(t, tw, q, func() int { return d.upTo(700) })
			if plan.Ef == 0 { // no walk is calibrated: both are exact
				q.K = len(apps)
				requireWithin(t, &q, apps, got)
				whole, err := tw.Search(context.Background(), &q)
				require.NoError(t, err)
				require.Equal(t, whole.Candidates, got)
			}
		}
	}
}

// TestTextOfPage: the attributes of earlier pages are not read, and their text does not count.
func TestTextOfPage(t *testing.T) {
	apps := shardtest.Grid(20)
	for i := range apps {
		apps[i].Developer = "0123456789"
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, 2, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 3, Target: 1, Attributes: []int{shardtest.Developer}, MaxText: 30, After: &shard.Cursor{Score: 11, ID: "app-010", Rank: 10}}
	a, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	require.Len(t, a.Candidates, 3)
	require.Equal(t, "app-009", a.Candidates[0].ID)
	require.Equal(t, 30, a.Text)
	require.Equal(t, "0123456789", a.Candidates[2].Attributes[0].Keyword())
	q.MaxText = 29
	_, err = tw.Search(context.Background(), q)
	require.EqualError(t, err, "the attributes of 3 of 3 candidates have 30 bytes of text, want at most 29")
}
