package remote_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// set changes the status.
func (w *world) set(s *shardv1.NodeStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status = s
	close(w.changed)
	w.changed = make(chan struct{})
}

// A router is told of the status at once and whenever it changes, and while it looks the node
// knows what it uses.
func TestWatch(t *testing.T) {
	w, n := served(t, remote.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan *shardv1.NodeStatus, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, "router-1", []string{string(w.digest)}, func(s *shardv1.NodeStatus) { told <- s })
	}()
	first := <-told
	require.Equal(t, "node-1", first.GetName())
	require.EqualValues(t, remote.Protocol, first.GetProtocol())
	require.EqualValues(t, remote.OldestProtocol, first.GetOldestProtocol())
	require.NotNil(t, first.GetLoad())
	w.mu.Lock()
	require.Equal(t, 1, w.using[string(w.digest)])
	w.mu.Unlock()
	for generation := uint64(1); generation <= 5; generation++ {
		w.set(&shardv1.NodeStatus{Name: "node-1", Generation: generation})
		for s := range told {
			if s.GetGeneration() == generation {
				break
			}
		}
	}
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.using[string(w.digest)] == 0 }, waiting, tick)
}

// Watching is refused where it asks for what is no snapshot, or is too much.
func TestWatchRefuses(t *testing.T) {
	w, n := served(t, remote.Options{MaxWatches: 1})
	for text, snapshots := range map[string][]string{
		`snapshots has "x"`:         {"x"},
		"snapshots has 100 digests": make([]string, 100),
	} {
		err := n.Watch(t.Context(), "router-1", snapshots, nil)
		require.ErrorContains(t, err, text)
	}
	require.ErrorContains(t, n.Watch(t.Context(), "", nil, nil), "router has 0 bytes")
	ctx, cancel := context.WithCancel(t.Context())
	began, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, "router-1", nil, func(*shardv1.NodeStatus) { began <- struct{}{} })
	}()
	<-began
	err := n.Watch(t.Context(), "router-2", nil, nil)
	r, ok := errors.AsType[*remote.Refusal](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, remote.Overloaded, r.Reason)
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	cancel()
	require.Error(t, <-ended)
}

// What does not change of a shard is told once.
func TestGetShard(t *testing.T) {
	w, n := served(t, remote.Options{})
	got, costs, err := n.GetShard(t.Context(), w.id(1), shard.Moment{Position: w.positions[1], Time: clock})
	require.NoError(t, err)
	s := w.shards[1]
	require.Equal(t, s.Name(), got.GetName())
	require.EqualValues(t, s.Rows(), got.GetRows())
	require.Equal(t, s.Index().CostModel(), costs)
	bytes, flagged, tags := 0, 0, 0
	for ordinal := range uint32(s.Rows()) {
		bytes += len(s.ID(ordinal))
		if !s.Attributes().Value(ordinal, fieldFlag).Absent() {
			flagged++
		}
		tags += len(s.Attributes().Value(ordinal, fieldTags).Keywords())
	}
	rows := float64(s.Rows())
	require.InDelta(t, float64(bytes)/rows, got.GetIdBytes(), 1e-6)
	require.Len(t, got.GetAttributes(), fields)
	require.InDelta(t, float64(flagged)/rows, got.GetAttributes()[fieldFlag].GetShare(), 1e-6)
	require.InDelta(t, float64(tags)/rows, got.GetAttributes()[fieldTags].GetTexts(), 1e-6)
	require.Zero(t, got.GetAttributes()[fieldYear].GetTextBytes())
}

// A router that watches a node which stops is told that it does, and not that somebody has given up.
func TestWatchOfANodeThatStops(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	n := ask(t, serve(t, path, h))
	err := n.Watch(t.Context(), "router-1", nil, func(*shardv1.NodeStatus) { go func() { _ = h.Shutdown(context.Background()) }() })
	refused, ok := errors.AsType[*remote.Refusal](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, remote.Stopping, refused.Reason)
}
