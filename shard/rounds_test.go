package shard_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// endingContext ends at a deadline that passes once it has been looked at so often.
type endingContext struct {
	context.Context
	left atomic.Int64
}

func endAfter(looks int) *endingContext {
	c := &endingContext{Context: context.Background()}
	c.left.Store(int64(looks))
	return c
}

func (c *endingContext) Err() error {
	if c.left.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestDeadlineBetweenRounds ends a query at each look at its context: what shards gave
// in an earlier round counts, however a later one ends.
func TestDeadlineBetweenRounds(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // shards are asked one after the other, so looks come in one order
	const shards = 3
	apps := shardtest.Grid(1000)
	for i := range apps {
		apps[i].Developer = fmt.Sprint("solo ", i)
		if i >= 600 {
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
	var one []string // all in one shard, which is asked for a third and some at first
	for _, a := range apps {
		if shard.Partition(a.ID, shards) == 1 {
			one = append(one, a.ID)
		}
	}
	for name, q := range map[string]*shard.Query{
		"deep":               {Vectors: [][]float32{{1}}, K: 40, Target: 1, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 1}}},
		"deep with a filter": {Vectors: [][]float32{{1}}, K: 40, Target: 0.9, Filter: &bound, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 1}}},
		"deeper walks":       {Vectors: [][]float32{{1}}, K: 20, Ef: 5, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 2}, {Field: shardtest.MinAge, N: 1}}},
		"skewed":             {Vectors: [][]float32{{1}}, K: 100, Target: 0.9, Include: one},
	} {
		t.Run(name, func(t *testing.T) {
			full, err := tw.Search(context.Background(), q)
			require.NoError(t, err)
			require.Zero(t, full.Cut())
			eligible := func(a shardtest.App) bool {
				return (q.Filter == nil || a.Age >= 0 && a.Age < 15) && (len(q.Include) == 0 || slices.Contains(q.Include, a.ID))
			}
			want := bruteForce(index.Dot, apps, q, eligible)
			answered, cuts := 0, 0
			for looks := 0; ; looks++ {
				q.MinCoverage = 0
				got, err := tw.SearchAsking(context.Background(), endAfter(looks), q)
				require.NoError(t, err)
				requireWithin(t, q, apps, got.Candidates)
				require.True(t, slices.IsSortedFunc(got.Candidates, func(a, b shard.Candidate) int { return int(b.Score - a.Score) }))
				for _, c := range got.Candidates {
					require.InDelta(t, want.scores[c.ID], c.Score, 1e-5)
					require.True(t, eligible(apps[slices.IndexFunc(apps, func(a shardtest.App) bool { return a.ID == c.ID })]))
				}
				require.GreaterOrEqual(t, got.Answered(), answered, "what has answered stays so")
				answered = got.Answered()
				q.MinCoverage = 1
				_, err = tw.SearchAsking(context.Background(), endAfter(looks), q)
				if err == nil {
					require.Equal(t, shards, answered)
					require.Zero(t, got.Cut())
					require.Equal(t, full.Candidates, got.Candidates)
					break
				}
				var short *shard.CoverageError
				require.ErrorAs(t, err, &short)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				if got.Cut() > 0 && answered == shards {
					cuts++
					require.NotEmpty(t, got.Candidates)
					require.Equal(t, len(want.all), got.Eligible)
					require.Equal(t, shards, short.Answered)
					require.Positive(t, short.Cut)
					require.Contains(t, err.Error(), "3 of 3 shards answered, ")
				}
				require.Less(t, looks, 1000)
			}
			require.Positive(t, cuts, "no query was cut between two rounds")
		})
	}
}

// TestExplainEndsWithTheContext: an answer that was found is not thrown away because
// there is no time left to explain it.
func TestExplainEndsWithTheContext(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	apps := shardtest.Grid(100)
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, 2, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	filter, err := tw.Compile("min_age in user.ages && min_age < 15")
	require.NoError(t, err)
	bound, err := filter.Bind(context.Background(), map[string]any{"ages": []any{1.0, 2.0, 3.0}})
	require.NoError(t, err)
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 3, Target: 1, Filter: &bound, Explain: []string{"app-001", "app-018", "app-019", "nobody"}}
	full, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	unexplained := 0
	for looks := 0; looks < 100; looks++ {
		got, err := tw.SearchAsking(endAfter(looks), context.Background(), q)
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded, "before there was an answer")
			continue
		}
		require.Equal(t, full.Candidates, got.Candidates)
		for i, e := range got.Explained {
			if e.Standing == 0 {
				unexplained++
				continue
			}
			require.Equal(t, full.Explained[i], e)
		}
	}
	require.Positive(t, unexplained)
}
