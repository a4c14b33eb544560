package shard_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
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

// TestCostOfNothing asks a tower without shards.
func TestCostOfNothing(t *testing.T) {
	store := newStore(t, t.TempDir())
	m := newManifest(t, store, nil, 1, 0, index.DefaultParams(index.Dot))
	tw, err := shard.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	require.Positive(t, tw.Cost(shard.Load{Vectors: 1, K: 10, Target: 1}))
	require.Zero(t, tw.Memory(shard.Load{Vectors: 1, K: 10, Target: 1}, 1))
}

// TestMaxText returns attributes up to a bound on their text.
func TestMaxText(t *testing.T) {
	apps := grid(20)
	for i := range apps {
		apps[i].developer = "0123456789"
		apps[i].platforms = []string{"ios", "linux"}
	}
	store := newStore(t, t.TempDir())
	m := newManifest(t, store, apps, 1, 2, index.DefaultParams(index.Dot))
	tw, err := shard.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 10, Target: 1, Attributes: []int{developer, platforms, minAge}, MaxText: 180}
	a, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	require.Len(t, a.Candidates, 10)
	q.MaxText = 179
	_, err = tw.Search(context.Background(), q)
	require.EqualError(t, err, "the attributes of 10 of 10 candidates have 180 bytes of text, want at most 179")
	var text *shard.TextError
	require.ErrorAs(t, err, &text)
}
