package remote_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// scans returns what does scans, until the test ends or it is stopped.
func scans(t *testing.T) (s *audit.Scans, stop func()) {
	s = audit.NewScans(audit.Config{CPU: 1})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { s.Run(ctx) })
	stop = func() { cancel(); group.Wait() }
	t.Cleanup(stop)
	return s, stop
}

// exact returns a request for an audit at a position of a world.
func (w *world) exact(position int) *shard.Request {
	return &shard.Request{
		Moment: shard.Moment{Snapshot: string(w.digest), Position: w.positions[position], Time: clock},
		K:      1 + w.d.IntN(60), Target: 1, Plan: index.ExactScan, Vectors: [][]float32{w.d.vector(w.dim)},
	}
}

// status returns the first status of a node.
func status(t *testing.T, n *remote.Node) (first *shardv1.NodeStatus) {
	ctx, cancel := context.WithCancel(t.Context())
	_ = n.Watch(ctx, "router", nil, func(s *shardv1.NodeStatus) { first = s; cancel() })
	require.NotNil(t, first)
	return first
}

// An audit is answered as a search by the exact scan is.
func TestAuditOverNetwork(t *testing.T) {
	w := newWorld(t, 11, 400, 2)
	s, _ := scans(t)
	path, h := remote.NewHandler(w, remote.Options{Audits: s})
	n := ask(t, serve(t, path, h))
	require.True(t, status(t, n).GetAudits())
	used := time.Duration(0)
	for i := range 60 {
		position, of := i%len(w.positions), w.id(i%2)
		r := w.exact(position)
		names := remote.NewNames(w.metric)
		var want, got shard.Reply
		require.NoError(t, n.Search(t.Context(), of, r, names, &want))
		took, err := n.Audit(t.Context(), of, r, names, &got)
		require.NoError(t, err)
		used += took
		require.Equal(t, want.Hits, got.Hits)
		require.Equal(t, want.Eligible, got.Eligible)
		require.Equal(t, index.ExactScan, got.Stats.Plan)
	}
	assert.Equal(t, uint64(60), s.Counts().Audits)
	assert.InDelta(t, s.Counts().Used, used, float64(time.Second))
	assert.Positive(t, used)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Zero(t, w.held)
}

// reasonOf returns the reason of a refusal.
func reasonOf(t *testing.T, err error) remote.Reason {
	r, ok := errors.AsType[*remote.Refusal](err)
	require.True(t, ok, "%v", err)
	return r.Reason
}

// A node without a budget for audits refuses them by name, as one does that does not know the
// method, and says so in its status.
func TestAuditOfWhoDoesNot(t *testing.T) {
	w := newWorld(t, 12, 50, 1)
	path, h := remote.NewHandler(w, remote.Options{})
	older := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/Audit") {
			http.NotFound(rw, r) // what the generated code of a build without it says
			return
		}
		h.ServeHTTP(rw, r)
	})
	for _, h := range []http.Handler{h, older} {
		n := ask(t, serve(t, path, h))
		_, err := n.Audit(t.Context(), w.id(0), w.exact(0), remote.NewNames(w.metric), &shard.Reply{})
		require.Equal(t, remote.NotAudited, reasonOf(t, err))
		require.False(t, status(t, n).GetAudits())
	}
}

// What an audit may not ask for is refused, and costs nothing.
func TestAuditOfAnotherPlan(t *testing.T) {
	w := newWorld(t, 13, 50, 1)
	s, _ := scans(t)
	path, h := remote.NewHandler(w, remote.Options{Audits: s})
	n := ask(t, serve(t, path, h))
	r := w.exact(0)
	r.Plan = index.GraphWalk
	_, err := n.Audit(t.Context(), w.id(0), r, remote.NewNames(w.metric), &shard.Reply{})
	require.ErrorIs(t, err, index.ErrQuery)
	require.ErrorContains(t, err, "search.plan is 3; accepted of an audit")
	require.Zero(t, s.Counts())
}

// Audits that wait are not in flight: as many live requests are answered as without them. As many
// may wait as that, each for no longer than its context lasts; and all end with what does them.
func TestAuditsWaitBesideRequests(t *testing.T) {
	w := newWorld(t, 14, 50, 1)
	s := audit.NewScans(audit.Config{CPU: 1}) // which does none before it runs
	path, h := remote.NewHandler(w, remote.Options{Audits: s, MaxInFlight: 1})
	n := ask(t, serve(t, path, h))
	const most = 256
	ended := make(chan error, most)
	asked := make([]*shard.Request, most)
	for i := range asked {
		asked[i] = w.exact(0)
	}
	for _, r := range asked {
		go func() {
			_, err := n.Audit(t.Context(), w.id(0), r, remote.NewNames(w.metric), &shard.Reply{})
			ended <- err
		}()
	}
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.held == most
	}, waiting, tick)
	_, err := n.Audit(t.Context(), w.id(0), w.exact(0), remote.NewNames(w.metric), &shard.Reply{})
	require.Equal(t, remote.Overloaded, reasonOf(t, err))
	require.NoError(t, n.Search(t.Context(), w.id(0), w.exact(0), remote.NewNames(w.metric), &shard.Reply{}))
	require.Zero(t, status(t, n).GetLoad().GetInFlight())
	require.Less(t, status(t, n).GetLoad().GetQueueMillis(), 1e3)

	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(stopped)
	for range most {
		if err := <-ended; err != nil { // some may have had their turn
			require.Equal(t, remote.Stopping, reasonOf(t, err))
		}
	}

	path, h = remote.NewHandler(w, remote.Options{Audits: audit.NewScans(audit.Config{CPU: 1})})
	n = ask(t, serve(t, path, h))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = n.Audit(ctx, w.id(0), w.exact(0), remote.NewNames(w.metric), &shard.Reply{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A bug in a scan is told as such, and the next one is done.
func TestAuditPanics(t *testing.T) {
	w := newWorld(t, 15, 50, 1)
	s, _ := scans(t)
	told := make(chan *shard.PanicError, 1)
	path, h := remote.NewHandler(w, remote.Options{Audits: s, Panicked: func(p *shard.PanicError) { told <- p }})
	n := ask(t, serve(t, path, h))
	w.wrap = func(p shard.Part) shard.Part { return panicking{p.(*shard.Local)} }
	_, err := n.Audit(t.Context(), w.id(0), w.exact(0), remote.NewNames(w.metric), &shard.Reply{})
	_, ok := errors.AsType[*shard.PanicError](err)
	require.True(t, ok, "%v", err)
	require.Contains(t, string((<-told).Stack), "audit_test.go")
	w.wrap = nil
	_, err = n.Audit(t.Context(), w.id(0), w.exact(0), remote.NewNames(w.metric), &shard.Reply{})
	require.NoError(t, err)
}

type panicking struct{ *shard.Local }

func (panicking) Search(context.Context, *shard.Request, *shard.Reply) error { panic("bug") }
