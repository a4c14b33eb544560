package shard_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// requireExplained asks for a query again, with every id explained, and checks each
// standing against what the apps and the answer say.
func requireExplained(t shardtest.TB, tw *shard.Tower, apps []shardtest.App, q *shard.Query, eligible func(shardtest.App) bool, want truth, answer *shard.Answer) {
	t.Helper()
	with := *q
	for _, a := range apps {
		with.Explain = append(with.Explain, a.ID)
	}
	with.Explain = append(with.Explain, "nobody")
	with.Exclude = append(slices.Clip(with.Exclude), "nobody") // UNKNOWN comes before EXCLUDED
	got, err := tw.Search(context.Background(), &with)
	require.NoError(t, err)
	require.Equal(t, answer.Candidates, got.Candidates, "explaining changes no answer")
	require.Len(t, got.Explained, len(apps)+1)
	require.Equal(t, shard.Unknown, got.Explained[len(apps)].Standing)
	metric := tw.Metric()
	for i, a := range apps {
		e := got.Explained[i]
		require.Equal(t, a.ID, e.ID)
		require.Equal(t, tw.Local()[shard.Partition(a.ID, len(tw.Local()))].Name(), e.Shard)
		rank := slices.IndexFunc(got.Candidates, func(c shard.Candidate) bool { return c.ID == a.ID })
		require.Equal(t, rank+1, e.Rank)
		require.Equal(t, e.Standing == shard.NotEligible && (q.Filter != nil || q.Segment != ""), e.Clause != "")
		// All that is true of it; the first in order is given.
		var standings []shard.Standing
		applies := func(v shard.Standing, does bool) {
			if does {
				standings = append(standings, v)
			}
		}
		applies(shard.IsQuery, a.ID == q.Self)
		applies(shard.Excluded, slices.Contains(q.Exclude, a.ID))
		applies(shard.NotIncluded, len(q.Include) > 0 && !slices.Contains(q.Include, a.ID))
		applies(shard.NotEligible, !eligible(a))
		applies(shard.Returned, rank >= 0)
		if score, ok := want.scores[a.ID]; ok {
			require.InDelta(t, score, e.Score, 1e-5)
		}
		if rank >= 0 {
			require.Equal(t, got.Candidates[rank].Score, e.Score)
		}
		// What was taken before it in rank decides whether there was room.
		taken, before := map[string]int{}, 0
		for _, c := range got.Candidates {
			if metric.Better(c.Score, e.Score) || c.Score == e.Score && c.ID < e.ID {
				take(taken, q.AtMost, apps[slices.IndexFunc(apps, func(a shardtest.App) bool { return a.ID == c.ID })])
				before++
			}
		}
		if rank < 0 {
			applies(shard.Capped, !fits(taken, q.AtMost, a))
			applies(shard.BelowCut, before == len(got.Candidates))
			applies(shard.NotVisited, before < len(got.Candidates))
		}
		require.Equal(t, slices.Min(standings), e.Standing, "%s: %v apply", a.ID, standings)
		switch e.Standing {
		case shard.Capped:
			require.Contains(t, q.AtMost, e.Limit)
			require.Contains(t, valuesOf(a, e.Limit.Field), e.Value.String())
			require.False(t, fits(taken, []shard.AtMost{e.Limit}, a))
		case shard.NotVisited:
			require.True(t, slices.ContainsFunc(got.Shards, func(s shard.ShardAnswer) bool {
				return s.Shard == e.Shard && s.Plan != index.ExactScan
			}), "only a walk misses a row")
		}
	}
}

func TestExplain(t *testing.T) {
	apps := shardtest.Grid(100)
	for i := range apps {
		apps[i].Developer = []string{"Elf", "Ten"}[i%2]
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, 3, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	filter, err := tw.Compile(`"ios" in platforms && (min_age >= user.age && developer == "Ten") && min_age < 18`)
	require.NoError(t, err)
	bound, err := filter.Bind(context.Background(), map[string]any{"age": int64(3)})
	require.NoError(t, err)
	q := &shard.Query{
		Vectors: [][]float32{{1}, {0.5}}, K: 3, Target: 1, MinCoverage: 1, Filter: &bound,
		Self: "app-097", Exclude: []string{"app-095", "app-097"}, Include: []string{"app-099", "app-097", "app-095"},
		AtMost: []shard.AtMost{{shardtest.MinAge, 1}},
	}
	for i := 0; i < 93; i++ {
		q.Include = append(q.Include, apps[i].ID)
	}
	// What is eligible are odd apps with a rest by 20 of 3 to 17, below 93.
	tests := []struct {
		id       string
		standing shard.Standing
		rank     int
		clause   string
	}{
		{"app-097", shard.IsQuery, 0, ""},
		{"app-095", shard.Excluded, 0, ""},
		{"app-093", shard.NotIncluded, 0, ""},
		{"app-099", shard.NotEligible, 0, "min_age < 18"},
		{"app-092", shard.NotEligible, 0, `developer == "Ten"`},
		{"app-082", shard.NotEligible, 0, "min_age >= user.age"},
		{"app-091", shard.Returned, 1, ""},
		{"app-089", shard.Returned, 2, ""},
		{"app-087", shard.Returned, 3, ""},
		{"app-085", shard.BelowCut, 0, ""},
		{"app-071", shard.Capped, 0, ""}, // below the cut too
		{"app-091", shard.Returned, 1, ""},
		{"app-100", shard.Unknown, 0, ""},
	}
	for _, test := range tests {
		q.Explain = append(q.Explain, test.id)
	}
	a, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	for i, test := range tests {
		e := a.Explained[i]
		require.Equal(t, test.id, e.ID)
		require.Equal(t, test.standing, e.Standing, test.id)
		require.Equal(t, test.rank, e.Rank)
		require.Equal(t, test.clause, e.Clause)
	}
	require.Equal(t, float32(100), a.Explained[3].Score, "exact, whatever the standing")

	q.K, q.Explain = 100, []string{"app-071", "app-085"}
	a, err = tw.Search(context.Background(), q)
	require.NoError(t, err)
	require.Len(t, a.Candidates, 8) // one of each odd age from 3 to 17
	require.Equal(t, shard.Explained{
		ID: "app-071", Shard: a.Explained[0].Shard, Standing: shard.Capped, Score: 72,
		Limit: shard.AtMost{Field: shardtest.MinAge, N: 1}, Value: attribute.OfInt(11),
	}, a.Explained[0])
	require.Equal(t, shard.Returned, a.Explained[1].Standing)

	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	q.MinCoverage = 0
	q.Explain = []string{"app-071", "nobody", "app-097", "app-095", "app-093", "app-099"}
	a, err = tw.Search(ctx, q)
	require.NoError(t, err)
	for _, e := range a.Explained { // whatever else is true of them
		require.Equal(t, shard.ShardMissing, e.Standing)
	}
}
