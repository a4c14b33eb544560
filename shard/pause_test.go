package shard_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// looks is a context that counts how often it is asked whether it has ended, and ends
// after so many times.
type looks struct {
	context.Context
	n    atomic.Int64
	ends int64 // never if 0
}

func (l *looks) Err() error {
	if n := l.n.Add(1); l.ends > 0 && n > l.ends {
		return context.Canceled
	}
	return nil
}

// TestSearchEndsAnywhere ends the context of queries at each place where they look at it.
// There are many, so that no part of a query is long, and none goes on after it.
func TestSearchEndsAnywhere(t *testing.T) {
	const rows, shards = 20_000, 2
	apps := shardtest.Grid(rows)
	var ids []string
	for i := range apps {
		apps[i].Developer = fmt.Sprint(i / 3)
		apps[i].Vector[0] = float32(i*7919%rows + 1)
		ids = append(ids, apps[i].ID)
	}
	store := shardtest.Store(t, t.TempDir())
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 4, 8
	m := shardtest.Manifest(t, store, apps, 1, shards, params)
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	filter, err := tw.Compile("min_age >= 0 && min_age >= 1 && min_age >= 2 && min_age >= 3")
	require.NoError(t, err)
	bound, err := filter.Bind(t.Context(), nil)
	require.NoError(t, err)
	vectors := make([][]float32, 8)
	for i := range vectors {
		vectors[i] = []float32{1 + float32(i)}
	}
	for name, test := range map[string]struct {
		query *shard.Query
		looks int64 // at least
	}{
		"attributes": {&shard.Query{K: 8000, Target: 1, Attributes: []int{shardtest.Developer, shardtest.MinAge, shardtest.Platforms, shardtest.Free}}, 8000 * 4 / 1024},
		"ids":        {&shard.Query{K: 10, Target: 1, Include: ids, Exclude: ids[:10_000]}, rows*3/2/1024 - 2*shards},
		"vectors":    {&shard.Query{K: 500, Ef: 600, Plan: index.GraphWalk, Vectors: vectors}, 2 * 7 * shards},
		"merge":      {&shard.Query{K: 8000, Target: 1}, 8000 / 1024},
		"at most":    {&shard.Query{K: 3000, Target: 1, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 1}}}, 3000 / 1024},
		"few values": {&shard.Query{K: 3000, Target: 1, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 1}, {Field: shardtest.MinAge, N: 100}}}, 9000 / 1024},
		"explain":    {&shard.Query{K: 10, Target: 1, Filter: &bound, Explain: ids[:100]}, 4*shards + 50},
	} {
		t.Run(name, func(t *testing.T) {
			q := test.query
			q.MinCoverage = 1
			if q.Vectors == nil {
				q.Vectors = vectors[:1]
			}
			all := &looks{Context: context.Background()}
			_, err := tw.Search(all, q)
			require.NoError(t, err)
			total := all.n.Load()
			require.GreaterOrEqual(t, total, test.looks+shards)
			stride := int64(1)
			if raceEnabled {
				stride = 7
			}
			for ends := int64(1); ends < total; ends += stride {
				l := &looks{Context: context.Background(), ends: ends}
				_, err := tw.Search(l, q)
				require.ErrorIs(t, err, context.Canceled)
				require.LessOrEqual(t, l.n.Load(), ends+2*shards, "it went on")
			}
		})
	}
}

// TestWarm asks every shard, and each but once, or twice where its share of the answer
// was not enough.
func TestWarm(t *testing.T) {
	const shards = 256
	store := shardtest.Store(t, t.TempDir())
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 4, 8
	digest, err := store.Publish(context.Background(), shardtest.Manifest(t, store, shardtest.Grid(2000), 1, shards, params))
	require.NoError(t, err)
	s, err := snapshots.Open(context.Background(), store, digest)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	l := &looks{Context: context.Background()}
	require.NoError(t, s.Warm(l))
	require.GreaterOrEqual(t, l.n.Load(), int64(2*shards))
	require.LessOrEqual(t, l.n.Load(), int64(2*2*shards))
}
