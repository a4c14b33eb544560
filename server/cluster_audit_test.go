package server

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/audit"
)

// auditing runs a router that audits, and returns what tells of each audit.
func (w *clusterWorld) auditing(name string) (*clusterServer, <-chan audit.Audit) {
	audits := make(chan audit.Audit, 1000)
	w.audits = Audit{CPU: 1, Recorded: func(a audit.Audit) {
		select {
		case audits <- a:
		default:
		}
	}}
	s := w.serve(name, w.config(name))
	w.audits = Audit{}
	<-s.ready
	return s, audits
}

// recall returns what a server's status says of the recall of its arm.
func (s *clusterServer) recall(t *testing.T) *tandemv1.ArmRecall {
	got, err := s.admin.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
	require.NoError(t, err)
	require.Len(t, got.Msg.Arms, 1)
	return got.Msg.Arms[0].Recall
}

// A router has nodes scan what its answers are compared with, at the position of each, while the
// live log goes on; and knows what each node has found.
func TestClusterAudits(t *testing.T) {
	w := newClusterWorldOf(t, Audit{CPU: 1}, 2, 2, time.Minute)
	s, audits := w.auditing("router")
	r := rand.New(rand.NewPCG(7, 1))
	done := 0
	soon(t, func() bool {
		w.whole.write(t, takedown(fmt.Sprint("a", done%20)), setAttributes(&tandemv1.SetAttributes{
			Id: fmt.Sprint("a", 20+done%20), Attributes: map[string]*tandemv1.AttributeValue{"price": {Value: &tandemv1.AttributeValue_Float{Float: float64(done)}}},
		}))
		for range 5 {
			if _, err := s.ask(t, w.question(r)); err != nil {
				return false // a machine that does much else may lose sight of nodes
			}
		}
		for len(audits) > 0 {
			a := <-audits
			require.InDelta(t, 1, a.Recall, 0, "scans are exact: %+v", a)
			require.Positive(t, a.Used)
			done++
		}
		return done >= 60
	}, "audits")
	got := s.recall(t)
	assert.Empty(t, got.Failure)
	assert.True(t, got.All.EnoughData)
	assert.InDelta(t, 1, got.All.Recall, 0)
	assert.NotEmpty(t, got.Plans)
	require.Len(t, got.Nodes, 2)
	for i, n := range got.Nodes {
		assert.Contains(t, []string{w.gates[0].address(), w.gates[1].address()}, n.Name)
		assert.InDelta(t, 1, n.Recall, 0, "node %d", i)
		assert.Nil(t, n.Alarm)
	}
}

// Where a shard is on no node that audits, the status says so, and which node it is; and audits go
// on once there is one that does.
func TestClusterDoesNotAudit(t *testing.T) {
	w := newClusterWorld(t, 1, 2, time.Minute)
	s, audits := w.auditing("router")
	asking := func(until func() bool) {
		soon(t, func() bool {
			_, err := s.ask(t, all())
			return err == nil && until()
		}, "audits")
	}
	asking(func() bool { return s.recall(t).Failure != "" })
	got := s.recall(t)
	assert.Contains(t, got.Failure, "no node audits")
	assert.Contains(t, got.Failure, w.gates[0].address())
	assert.False(t, got.All.EnoughData)
	assert.Empty(t, audits)

	w.cluster.audit = Audit{CPU: 1}
	w.add()
	asking(func() bool { return len(audits) > 0 })
	asking(func() bool { return s.recall(t).Failure == "" })
}
