package shard_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// TestCost makes sure that asking for more is never estimated to cost less, in time or
// in memory.
func TestCost(t *testing.T) {
	tw := openGrid(t, 3000, 3)
	least := shard.Load{Vectors: 1, K: 10, Target: 0.99, Rows: tw.Rows()}
	cost, memory := tw.Cost(least), tw.Memory(least, 2)
	require.Positive(t, cost)
	require.Positive(t, memory)
	for name, more := range map[string]func(*shard.Load){
		"vectors":    func(l *shard.Load) { l.Vectors = 32 },
		"k":          func(l *shard.Load) { l.K = 1000 },
		"a page":     func(l *shard.Load) { l.Before = 1000 },
		"filter":     func(l *shard.Load) { l.Filtered, l.Filter = true, 100 },
		"ids":        func(l *shard.Load) { l.Filtered, l.Listed = true, 100_000 },
		"attributes": func(l *shard.Load) { l.Returned = 5 },
		"limits":     func(l *shard.Load) { l.Limits = 2 },
	} {
		l := least
		more(&l)
		require.Greater(t, tw.Cost(l), cost, name)
		require.GreaterOrEqual(t, tw.Memory(l, 2), memory, name)
	}
	few := shard.Load{Vectors: 1, K: 10_000, Target: 0.99, Rows: 3, Filtered: true}
	many := few
	many.Rows = tw.Rows()
	require.Less(t, tw.Cost(few), tw.Cost(many))
}

// TestCostOfOverlaid: what lies over shards costs, and what is gone does not cost less than
// it takes to walk through it.
func TestCostOfOverlaid(t *testing.T) {
	const rows = 3000
	tw := openGrid(t, rows, 1)
	local := tw.Parts()[0].(*shard.Local)
	values := make([]attribute.Value, tw.Schema().Len())
	var dead, changed []shard.OverlaidRow
	for ordinal := range uint32(rows) {
		if ordinal%3 == 0 {
			dead = append(dead, shard.OverlaidRow{Ordinal: ordinal, Dead: true})
		} else {
			changed = append(changed, shard.OverlaidRow{Ordinal: ordinal, Attributes: values})
		}
	}
	over := func(o *shard.Overlay, beside ...shard.Part) *shard.Tower {
		with, err := tw.With([]shard.Part{o.Part()}, beside, nil)
		require.NoError(t, err)
		return with
	}
	with := func(rows []shard.OverlaidRow) *shard.Overlay {
		o, err := local.Overlay().With(shard.Position{}, rows)
		require.NoError(t, err)
		return o
	}
	load := shard.Load{Vectors: 1, K: 10, Ef: 20, Rows: tw.Rows()}
	plain := tw.Cost(load)
	require.Equal(t, plain, over(local.Overlay()).Cost(load))
	require.Equal(t, plain, over(with(changed)).Cost(load))
	buried := over(with(dead))
	require.Equal(t, 2*rows/3, buried.Rows())
	load.Rows = buried.Rows()
	require.GreaterOrEqual(t, buried.Cost(load), plain)
	require.Greater(t, over(local.Overlay(), tw.Parts()[0]).Cost(load), plain)
	load.Filtered, load.Filter, load.Rows = true, 20, tw.Rows()
	require.Greater(t, over(with(changed)).Cost(load), tw.Cost(load))
	listed := load
	listed.Listed = 1000
	require.Greater(t, over(local.Overlay(), tw.Parts()[0]).Cost(listed)-over(local.Overlay(), tw.Parts()[0]).Cost(load), tw.Cost(listed)-tw.Cost(load))
}

// TestCostOfNothing asks a tower without shards.
func TestCostOfNothing(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, nil, 1, 0, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	require.Positive(t, tw.Cost(shard.Load{Vectors: 1, K: 10, Target: 1}))
	require.Zero(t, tw.Memory(shard.Load{Vectors: 1, K: 10, Target: 1}, 1))
}

// TestMaxText returns attributes up to a bound on their text.
func TestMaxText(t *testing.T) {
	apps := shardtest.Grid(20)
	for i := range apps {
		apps[i].Developer = "0123456789"
		apps[i].Platforms = []string{"ios", "linux"}
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, 2, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 10, Target: 1, Attributes: []int{shardtest.Developer, shardtest.Platforms, shardtest.MinAge}, MaxText: 180}
	a, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	require.Len(t, a.Candidates, 10)
	q.MaxText = 179
	_, err = tw.Search(context.Background(), q)
	require.EqualError(t, err, "the attributes of 10 of 10 candidates have 180 bytes of text, want at most 179")
	var text *shard.TextError
	require.ErrorAs(t, err, &text)
}
