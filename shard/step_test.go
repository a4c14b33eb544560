package shard_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// steps keeps what an observed query does.
type steps struct {
	mu    sync.Mutex
	began time.Time
	count map[shard.StepKind]int
	asked map[string]int // by shard
	cut   map[string]error
}

func (s *steps) observe(t *testing.T) func(shard.Step) {
	*s = steps{began: time.Now(), count: map[shard.StepKind]int{}, asked: map[string]int{}, cut: map[string]error{}}
	return func(step shard.Step) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.count[step.Kind]++
		if step.Begin.Before(s.began) || step.Took < 0 || step.Begin.Add(step.Took).After(time.Now()) {
			t.Errorf("a step of %s at %s", step.Took, step.Begin)
		}
		if (step.Shard != nil) != (step.Kind == shard.Asked) {
			t.Errorf("a step of kind %d has a shard or lacks one", step.Kind)
			return
		}
		if step.Shard != nil {
			s.asked[step.Shard.Shard]++
			s.cut[step.Shard.Shard] = step.Shard.Err
		}
	}
}

// TestSteps has each step of a search told, in every round of it, and the answer the same as
// where nobody is told.
func TestSteps(t *testing.T) {
	const shards = 4
	apps := shardtest.Grid(800)
	for i := range apps {
		if shard.Partition(apps[i].ID, shards) == 2 {
			apps[i].Vector[0] += 10_000 // the best are all in one shard, which is asked twice
		}
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, shards, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(t.Context(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()

	for _, workers := range []int{1, 4} {
		var s steps
		q := &shard.Query{Vectors: [][]float32{{1}}, K: 100, Target: 0.9, Workers: workers, Attributes: []int{shardtest.Developer}, Explain: []string{apps[0].ID}}
		plain, err := tw.Search(t.Context(), q)
		require.NoError(t, err)
		q.Observe = s.observe(t)
		answer, err := tw.Search(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, plain.Candidates, answer.Candidates)
		require.Equal(t, map[shard.StepKind]int{shard.Asked: shards + 1, shard.Merged: 2, shard.Attributed: 1, shard.Justified: 1}, s.count)
		require.Len(t, s.asked, shards)
		require.Equal(t, 2, s.asked[answer.Shards[2].Shard])
	}

	var s steps
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 10, Target: 1, MinCoverage: 0, Observe: s.observe(t)}
	ended, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err = tw.Search(ended, q)
	if err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.Len(t, s.asked, shards)
	for name, err := range s.cut {
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
	}
}

// TestObservingAllocatesNothing: neither does not observing.
func TestObservingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("pools are emptied at random under the race detector")
	}
	tw := openGrid(t, 400, 4)
	allocs := func(observe func(shard.Step)) float64 {
		q := &shard.Query{Vectors: [][]float32{{1}}, K: 10, Target: 0.9, Workers: 1, Observe: observe}
		return testing.AllocsPerRun(500, func() {
			if _, err := tw.Search(context.Background(), q); err != nil {
				t.Fatal(err)
			}
		})
	}
	without := allocs(nil)
	require.InDelta(t, 4, without, 2, "the answer, its shards, its candidates and their ids")
	require.InDelta(t, without, allocs(func(shard.Step) {}), 0.5)
}
