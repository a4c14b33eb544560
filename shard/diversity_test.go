package shard_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// requireWithin checks that candidates keep to the limits of a query.
func requireWithin(t shardtest.TB, q *shard.Query, apps []shardtest.App, candidates []shard.Candidate) {
	t.Helper()
	taken := map[string]int{}
	for _, c := range candidates {
		a := apps[slices.IndexFunc(apps, func(a shardtest.App) bool { return a.ID == c.ID })]
		require.True(t, fits(taken, q.AtMost, a), "%s is one too many", c.ID)
		take(taken, q.AtMost, a)
	}
}

// The best rows by far are of one value, all in one shard or in all: the merge has
// to pass over most rows to find k, at each plan.
func TestAtMostGoesDeep(t *testing.T) {
	const shards = 4
	apps := shardtest.Grid(3000)
	for i := range apps {
		apps[i].Developer = fmt.Sprint("solo ", i)
		if i >= 500 && (i >= 2000 || shard.Partition(apps[i].ID, shards) == 2) {
			apps[i].Developer = "Ten"
		}
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, shards, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	filter, err := tw.Compile("min_age < 15")
	require.NoError(t, err)
	bound, err := filter.Bind(context.Background(), nil)
	require.NoError(t, err)
	for _, k := range []int{1, 2, 10, 100, 1500, 3000} {
		for _, limits := range [][]shard.AtMost{{{shardtest.Developer, 1}}, {{shardtest.Developer, 7}}, {{shardtest.Free, 3}}, {{shardtest.MinAge, 40}, {shardtest.Developer, 30}}} {
			q := &shard.Query{Vectors: [][]float32{{1}}, K: k, MinCoverage: 1, AtMost: limits}
			for _, filtered := range []bool{false, true} {
				eligible := func(shardtest.App) bool { return true }
				if filtered {
					q.Filter, eligible = &bound, func(a shardtest.App) bool { return a.Age < 15 }
				}
				want := bruteForce(index.Dot, apps, q, eligible)
				for _, plan := range []shard.Query{{Target: 1}, {Target: 0.99}, {Ef: 10}, {Ef: 10, Plan: index.GraphWalk}} {
					q.Target, q.Ef, q.Plan = plan.Target, plan.Ef, plan.Plan
					a, err := tw.Search(context.Background(), q)
					require.NoError(t, err)
					require.Equal(t, len(want.all), a.Eligible)
					requireWithin(t, q, apps, a.Candidates)
					require.Len(t, a.Candidates, len(want.top), "k %d, at most %v, filtered %t, %v", k, limits, filtered, plan)
					if plan.Ef == 0 { // no walk is calibrated: both are exact
						var got []string
						for _, c := range a.Candidates {
							got = append(got, c.ID)
						}
						require.Equal(t, want.top, got)
					}
				}
			}
		}
	}
}
