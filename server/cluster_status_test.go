package server

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// A status has as many nodes as are asked for, the one that is behind among them wherever it stands in
// the order of addresses, and what each holds if that is asked for.
func TestClusterStatus(t *testing.T) {
	w := newClusterWorld(t, 3, 3, time.Minute)
	s := w.route("router")
	status := func(r *tandemv1.GetStatusRequest) *tandemv1.ClusterStatus {
		got, err := s.admin.GetStatus(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
		return got.Msg.Cluster
	}
	at := w.whole.write(t, takedown("a1"))
	soon(t, func() bool {
		ready := 0
		for _, n := range status(&tandemv1.GetStatusRequest{}).Nodes {
			if n.State == tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY && n.Read.GetSequence() >= at.Sequence && n.Lag.AsDuration() == 0 {
				ready++
			}
		}
		return ready == 3
	}, "all nodes have read the takedown")
	entries := map[string]bool{}
	for _, n := range status(&tandemv1.GetStatusRequest{Held: true}).Nodes {
		require.Len(t, n.Held, 1)
		entries[n.Entry] = true
		assert.Len(t, n.Entry, 64)
		dead := uint64(0)
		for _, h := range n.Held[0].Shards {
			assert.Equal(t, tandemv1.ClusterHeldState_CLUSTER_HELD_STATE_READY, h.State)
			assert.Equal(t, at.Sequence, h.Position.GetSequence())
			if h.Tower == tandemv1.Tower_TOWER_APPS {
				dead += h.Dead
			}
		}
		assert.EqualValues(t, 1, dead, "what was taken down is dead in one of its shards")
	}
	assert.Len(t, entries, 1, "all have read the same entry")
	for _, n := range status(&tandemv1.GetStatusRequest{}).Nodes {
		assert.Empty(t, n.Held, "what nodes hold is told to who asks")
	}

	behind := ""
	w.faults.Inject(objectstest.Rule{Client: "node2", Key: "live/"})
	w.whole.write(t, takedown("a2"))
	soon(t, func() bool {
		c := status(&tandemv1.GetStatusRequest{Nodes: 1})
		require.EqualValues(t, 3, c.NodeCount)
		require.Len(t, c.Nodes, 1)
		behind = c.Nodes[0].Address
		return c.Nodes[0].Lag.AsDuration() > 0 && c.Nodes[0].Read.GetSequence() == at.Sequence && c.Lag.AsDuration() == 0
	}, "the node that is behind is the one that is told of")
	for _, n := range status(&tandemv1.GetStatusRequest{}).Nodes {
		if n.Address != behind {
			assert.Zero(t, n.Lag.AsDuration())
		}
	}
	w.faults.Heal()

	_, err := s.admin.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{Nodes: 10_001}))
	require.Error(t, err)
	assert.Contains(t, err.Error(), "nodes is 10001; accepted: up to 10000")
}
