package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/remote/remotetest"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// listen has a node answer the shard RPC on a loopback address until the test ends, and returns
// who asks it.
func (r *running) listen(t *testing.T) *remote.Node {
	t.Helper()
	mux := http.NewServeMux()
	path, rpc := remote.NewHandler(r.Node, remote.Options{Unreadable: r.Unreadable})
	mux.Handle(path, rpc)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second, Protocols: new(http.Protocols), HTTP2: remote.HTTP2(100)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.Serve(l) // until it is closed
	}()
	asks := remote.NewNode(remote.NodeOptions{Address: l.Addr().String()})
	t.Cleanup(func() {
		asks.Close()
		require.NoError(t, rpc.Shutdown(context.Background()))
		require.NoError(t, h.Close())
		<-done
	})
	return asks
}

// machine is one that has all of a snapshot, with the live log laid over it.
type machine struct {
	follower *livelog.Follower
	layer    *livelog.Layer
}

// machine opens the first snapshot, and follows the live log until the test ends.
func (w *world) machine(t *testing.T) *machine {
	t.Helper()
	opened, err := snapshots.Open(t.Context(), w.store, w.digests[0])
	require.NoError(t, err)
	m := &machine{follower: livelog.New(w.faults.Bucket("machine"), livelog.Options{
		Fence: 5 * time.Second, Changed: func() {}, Events: events.Tee(), Poll: 20 * time.Millisecond, Writes: true,
		AtLeast: func(context.Context) (shard.Position, string, error) { return shard.Position{}, "", nil },
	})}
	require.NoError(t, m.follower.Open(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.follower.Run(ctx)
	}()
	m.layer, err = m.follower.Lay(t.Context(), opened)
	require.NoError(t, err)
	t.Cleanup(func() {
		stop()
		<-done
		m.layer.End()
		require.NoError(t, opened.Close())
	})
	return m
}

// drawEvents draws some events about apps, some of which there are.
func drawEvents(r *rand.Rand) (list []live.Event) {
	for range 1 + r.IntN(6) {
		e := live.Event{Tower: shard.Apps, Entity: fmt.Sprintf("app-%03d", r.IntN(rows+20))}
		switch r.IntN(5) {
		case 0:
			e.Kind, e.Reason = live.Takedown, "r"
		case 1:
			e.Kind = live.Restore
		case 2:
			e.Kind = live.Remove
		case 3:
			e.Kind, e.Attributes = live.SetAttributes, map[string]attribute.Value{"min_age": attribute.OfInt(int64(r.IntN(20)))}
		default:
			e.Kind, e.Model, e.ModelVersion, e.Vector = live.Upsert, "feed", "1", []float32{float32(r.IntN(2 * rows))}
			e.Attributes = map[string]attribute.Value{"min_age": attribute.OfInt(int64(r.IntN(20)))}
		}
		list = append(list, e)
	}
	return list
}

// towerAt returns the apps, each shard of which is asked of some node that has it ready at a
// position.
func (w *world) towerAt(t *testing.T, r *rand.Rand, nodes []*running, asks []*remote.Node, base *shard.Tower, at shard.Position) *shard.Tower {
	var parts []shard.Part
	for number := range shards {
		of := w.of(0, number)
		has := func(s *shardv1.NodeStatus) bool {
			h := heldOf(s, of)
			return h.GetState() == shardv1.HeldState_HELD_STATE_READY && h.GetNewest() >= at.Sequence
		}
		first := r.IntN(len(nodes))
		for i := range nodes {
			n := (first + i) % len(nodes)
			if s, _ := nodes[n].Status(); heldOf(s, of) == nil {
				continue
			}
			h := heldOf(nodes[n].until(t, has), of)
			require.LessOrEqual(t, h.GetOldest(), at.Sequence)
			info := shard.Info{Name: fmt.Sprint(of), Rows: int(h.GetRows()), Costs: base.Parts()[number].Info().Costs}
			parts = append(parts, remotetest.NewPart(asks[n], of, at, info, remote.NewNames(index.Dot)))
			break
		}
	}
	require.Len(t, parts, shards)
	tower, err := shard.NewTowerOf(shard.Apps, parts, shards, base.Metric(), base.Dim(), base.Schema())
	require.NoError(t, err)
	return tower
}

// A cluster of nodes answers, over the network, as one machine that has all.
func TestNodesAnswerAsOneMachine(t *testing.T) {
	w := newWorld(t, 1)
	one := w.machine(t)
	r := rand.New(rand.NewPCG(7, 7))
	var nodes []*running
	var asks []*remote.Node
	for _, name := range []string{"a", "b", "c"} {
		c := node.Config{Name: name, Factor: 2, Live: livelog.Options{Fence: 5 * time.Second, Poll: 20 * time.Millisecond}}
		n := w.run(t, c, t.TempDir(), "a", "b", "c")
		n.ready(t, 1, 1)
		nodes, asks = append(nodes, n), append(asks, n.listen(t))
	}
	for round := range 40 {
		_, err := one.follower.Append(t.Context(), drawEvents(r))
		require.NoError(t, err)
		laid := one.layer.Now()
		whole, tower := laid.Apps, w.towerAt(t, r, nodes, asks, laid.Apps, laid.Position())
		q := &shard.Query{
			Moment:  shard.Moment{Snapshot: string(w.digests[0]), Position: laid.Position(), Time: time.Now()},
			Vectors: [][]float32{{1}}, K: 1 + r.IntN(rows), Target: 1, MinCoverage: 1, Plan: index.ExactScan,
		}
		for range r.IntN(5) {
			q.Exclude = append(q.Exclude, fmt.Sprintf("app-%03d", r.IntN(rows)))
		}
		if r.IntN(2) == 0 {
			filter, err := whole.Compile(fmt.Sprintf("min_age < %d", r.IntN(20)))
			require.NoError(t, err)
			bound, err := filter.Bind(t.Context(), nil)
			require.NoError(t, err)
			q.Filter = &bound
		}
		want, err := whole.Search(t.Context(), q)
		require.NoError(t, err)
		got, err := tower.Search(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, want.Candidates, got.Candidates, "round %d", round)
		require.Equal(t, []any{want.Eligible, whole.Rows()}, []any{got.Eligible, tower.Rows()})
	}
}

// A page that a query cannot read is refused by name, and the shard is downloaded again.
func TestUnreadablePage(t *testing.T) {
	w := newWorld(t, 1)
	n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
	n.ready(t, 1, 1)
	asks := n.listen(t)
	path := w.cached(n, 0, 2)
	require.NoError(t, os.Truncate(path, sections.PageSize))
	ask := func() error {
		at := shard.Moment{Time: time.Now()}
		return asks.Search(t.Context(), w.of(0, 2), &shard.Request{Moment: at, Vectors: [][]float32{{1}}, K: 1, Target: 1}, remote.NewNames(index.Dot), &shard.Reply{})
	}
	refusal := new(remote.Refusal)
	require.ErrorAs(t, ask(), &refusal)
	require.Equal(t, remote.Unreadable, refusal.Reason)
	n.until(t, func(*shardv1.NodeStatus) bool { return len(n.told(events.HeldReady)) == 2*shards+1 })
	require.NoError(t, ask())
}
