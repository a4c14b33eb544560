package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// clusterWorld is a store with faults, nodes that follow it, and servers: one that has all shards
// itself, and takes writes, and routers.
type clusterWorld struct {
	*cluster
	t      *testing.T
	faults *objectstest.Faults
	live   Live
	audits Audit // of servers that are started from now on
	whole  *clusterServer
	gates  []*netGate // of the nodes, before which they are
}

// clusterServer is a server that runs.
type clusterServer struct {
	retrieval tandemv1connect.RetrievalServiceClient
	live      tandemv1connect.LiveServiceClient
	admin     tandemv1connect.AdminServiceClient
	client    *http.Client
	url       string
	ready     chan struct{}
}

// newClusterWorld releases a snapshot of three shards, and starts so many nodes, of which each
// shard is to be on so many.
func newClusterWorld(t *testing.T, nodes, replicas int, fence time.Duration) *clusterWorld {
	return newClusterWorldOf(t, Audit{}, nodes, replicas, fence)
}

// newClusterWorldOf is newClusterWorld with nodes that audit.
func newClusterWorldOf(t *testing.T, audits Audit, nodes, replicas int, fence time.Duration) *clusterWorld {
	return newClusterWorldFrom(t, smallTowers(index.Dot), audits, nodes, replicas, fence)
}

// newClusterWorldFrom is newClusterWorldOf a snapshot of some towers.
func newClusterWorldFrom(t *testing.T, data *towers, audits Audit, nodes, replicas int, fence time.Duration) *clusterWorld {
	w := &clusterWorld{t: t, faults: objectstest.NewFaults(), live: Live{Fence: fence, Poll: 5 * time.Millisecond}}
	w.cluster = newCluster(replicas, w.live)
	w.cluster.audit = audits
	w.before = func(address string) string {
		g := newNetGate(t, address)
		w.gates = append(w.gates, g)
		return g.address()
	}
	from := data.publish(t)
	t.Cleanup(func() { require.NoError(t, from.Close()) })
	digest, err := from.Resolve(t.Context(), "")
	require.NoError(t, err)
	m, err := from.Manifest(t.Context(), digest)
	require.NoError(t, err)
	store := w.store("admin")
	_, err = store.Import(t.Context(), from, m)
	require.NoError(t, err)
	_, err = release.New(store).Start(t.Context(), release.StartOptions{Snapshot: digest, Change: modelChange})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.cluster.close()) })
	if replicas == 1 && nodes == len(m.Apps.Shards) {
		w.spread(t, m, nodes)
	}
	for range nodes {
		w.add()
	}
	w.whole = w.serve("whole", nil)
	<-w.whole.ready
	return w
}

func (w *clusterWorld) store(client string) *snapshots.Store {
	s, err := snapshots.NewStore(w.faults.Bucket(client), snapshots.Options{Cache: w.t.TempDir()})
	require.NoError(w.t, err)
	return s
}

// add starts a node behind a gate, whose requests to the store are those of the client nodeN.
func (w *clusterWorld) add() { w.start(w.t, w.store(fmt.Sprint("node", len(w.gates)+1))) }

// serve runs a server until the test ends.
func (w *clusterWorld) serve(name string, c *Cluster) *clusterServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	s := &clusterServer{ready: make(chan struct{})}
	config := Config{
		Store: w.store(name), Listener: l, Logger: slog.New(slog.DiscardHandler), Live: w.live, Audit: w.audits, Cluster: c,
		Options: Options{MaxDeadline: patientDeadline}, Ready: func(Snapshot) { close(s.ready) },
	}
	config.Live.Writes = true
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, config) }()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	w.t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		assert.NoError(w.t, <-done)
	})
	client, url := &http.Client{Transport: transport}, "http://"+l.Addr().String()
	s.client, s.url, s.retrieval = client, url, tandemv1connect.NewRetrievalServiceClient(client, url)
	s.admin = tandemv1connect.NewAdminServiceClient(client, url)
	s.live = tandemv1connect.NewLiveServiceClient(client, url)
	return s
}

// route runs a router, and waits until it answers.
func (w *clusterWorld) route(name string) *clusterServer {
	s := w.serve(name, w.config(name))
	<-s.ready
	return s
}

// isReady reports whether a server says that it is ready.
func (s *clusterServer) isReady(t *testing.T) bool {
	r, err := s.client.Get(s.url + readyPath)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	return r.StatusCode == http.StatusOK
}

func (s *clusterServer) ask(t *testing.T, r *tandemv1.RetrieveRequest) (*tandemv1.RetrieveResponse, error) {
	got, err := s.retrieval.Retrieve(t.Context(), connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return compared(got.Msg), nil
}

// compared returns an answer without what each one has of its own.
func compared(m *tandemv1.RetrieveResponse) *tandemv1.RetrieveResponse {
	m.RequestId, m.Staleness, m.NextPageToken = "", nil, ""
	return m
}

// write writes events by a server, and returns the position.
func (s *clusterServer) write(t *testing.T, events ...*tandemv1.LiveEvent) *tandemv1.LivePosition {
	got, err := s.live.Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: events}))
	require.NoError(t, err)
	return got.Msg.Position
}

// question returns a random question.
func (w *clusterWorld) question(r *rand.Rand) *tandemv1.RetrieveRequest {
	q := &tandemv1.RetrieveRequest{K: uint32(1 + r.IntN(20)), Vector: randomVector(r, 4)}
	if r.IntN(2) == 0 {
		q.Filter = []string{"free", "price < 12.0", `"ios" in platforms`}[r.IntN(3)]
	}
	if r.IntN(3) == 0 {
		q.AtMost = []*tandemv1.AtMost{{Attribute: "developer", N: 2}}
	}
	if r.IntN(3) == 0 {
		q.Vector, q.UserId = nil, fmt.Sprint("u", r.IntN(10))
	}
	return q
}

// requireEqual checks that a router answers as the server that has all shards, at a position.
func (w *clusterWorld) requireEqual(s *clusterServer, r *rand.Rand, at *tandemv1.LivePosition) {
	w.t.Helper()
	for range 20 {
		q := w.question(r)
		q.MinLive = at
		want, err := w.whole.ask(w.t, proto.CloneOf(q))
		require.NoError(w.t, err)
		got, err := s.ask(w.t, q)
		require.NoError(w.t, err)
		require.True(w.t, proto.Equal(want, got), "%v:\n%v\nwant\n%v", q, got, want)
	}
}

// soon waits until something is so.
func soon(t *testing.T, is func() bool, what string) {
	t.Helper()
	require.Eventually(t, is, patientDeadline, 5*time.Millisecond, what)
}

func has(m *tandemv1.RetrieveResponse, id string) bool {
	for _, c := range m.GetCandidates() {
		if c.Id == id {
			return true
		}
	}
	return false
}

// all asks for all apps.
func all() *tandemv1.RetrieveRequest {
	return &tandemv1.RetrieveRequest{K: 100, Vector: []float32{1, 1, 1, 1}}
}

// A takedown that a router has read binds at once, though every node stands at the position
// before it. Nodes that stand there for longer than the fence are not asked.
func TestClusterTakedownBindsWhileNodesStand(t *testing.T) {
	w := newClusterWorld(t, 2, 2, 3*time.Second)
	s := w.route("router")
	w.requireEqual(s, rand.New(rand.NewPCG(1, 1)), w.whole.write(t, takedown("a0")))
	for _, node := range []string{"node1", "node2"} {
		w.faults.Inject(objectstest.Rule{Client: node, Key: "live/"})
	}
	before, err := s.ask(t, all())
	require.NoError(t, err)
	require.True(t, has(before, "a1"))
	at := w.whole.write(t, takedown("a1"), setAttributes(&tandemv1.SetAttributes{
		Id: "a2", Attributes: map[string]*tandemv1.AttributeValue{"price": {Value: &tandemv1.AttributeValue_Float{Float: 77}}},
	}))
	soon(t, func() bool {
		got, err := s.live.GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
		return err == nil && got.Msg.Position.Sequence == at.Sequence
	}, "the router has read the takedown")
	got, err := s.ask(t, all())
	if err == nil { // a machine that is busy may be beyond the fence by now
		assert.False(t, has(got, "a1"))
		assert.Equal(t, before.Live.Sequence, got.Live.Sequence, "nodes have no other position")
	}
	soon(t, func() bool {
		_, err = s.ask(t, all())
		return err != nil
	}, "beyond the fence nodes are not asked")
	assert.False(t, s.isReady(t), "%v", err)
	reason, text := modelReason(err)
	assert.Equal(t, "LIVE_STALE", reason, text)
	w.faults.Heal()
	soon(t, func() bool {
		_, err = s.ask(t, all())
		return err == nil
	}, "nodes that have read the log are asked again")
	w.requireEqual(s, rand.New(rand.NewPCG(2, 1)), at)
}

// A node that cannot read the log keeps the others back for a moment, and is not asked after it.
func TestClusterNodeCutOff(t *testing.T) {
	w := newClusterWorld(t, 2, 2, 30*time.Second)
	s := w.route("router")
	w.faults.Inject(objectstest.Rule{Client: "node1", Key: "live/"})
	r := rand.New(rand.NewPCG(3, 1))
	for i := range 3 {
		w.requireEqual(s, r, w.whole.write(t, takedown(fmt.Sprint("a", i))))
	}
	w.faults.Heal()
	w.requireEqual(s, r, w.whole.write(t, takedown("a9")))
}

// Where one shard's only node cannot read the log for longer than the fence, a query fails by the
// fence, and not as if the node were lost; who takes less is given what the others have.
func TestClusterShardBehind(t *testing.T) {
	w := newClusterWorld(t, 3, 1, 2*time.Second)
	s := w.route("router")
	_, err := s.ask(t, all())
	require.NoError(t, err)
	w.faults.Inject(objectstest.Rule{Client: "node1", Key: "live/"})
	at := w.whole.write(t, takedown("a1"))
	part := all()
	part.MinCoverage = new(0.1)
	var got *tandemv1.RetrieveResponse
	soon(t, func() bool {
		got, err = s.ask(t, part)
		if err != nil {
			reason, text := modelReason(err)
			require.Equal(t, "LIVE_STALE", reason, text)
		}
		return err == nil && got.Live.Sequence == at.Sequence
	}, "the others have read the takedown")
	soon(t, func() bool {
		got, err = s.ask(t, part)
		return err == nil && got.Coverage.ShardsAnswered < got.Coverage.Shards
	}, "the node is behind for too long")
	assert.False(t, has(got, "a1"))
	_, err = s.ask(t, all())
	require.Error(t, err)
	reason, text := modelReason(err)
	assert.Equal(t, "LIVE_STALE", reason, text)
	assert.Contains(t, text, "have read less of the live log than to position")
	w.faults.Heal()
	soon(t, func() bool {
		_, err = s.ask(t, all())
		return err == nil
	}, "it has read the log again")
	w.requireEqual(s, rand.New(rand.NewPCG(7, 1)), at)
}

// Ids that are in no Unicode form are found by those that look the same, though no node is asked by
// its form.
func TestClusterOtherForms(t *testing.T) {
	data := smallTowers(index.Dot)
	want := map[string]string{"ABC": "\uff21\uff22\uff23", "fish": "\ufb01sh", "\u00c5": "\u212b", "e\u0301\u00e9": "\u00e9e\u0301"}
	var asked []string
	for i, id := range slices.Sorted(maps.Keys(want)) {
		data.apps[i].id = want[id]
		asked = append(asked, id, "none of "+id)
	}
	w := newClusterWorldFrom(t, data, Audit{}, 2, 2, time.Minute)
	s := w.route("router")
	for _, server := range []*clusterServer{w.whole, s} {
		got, err := server.retrieval.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: asked}))
		require.NoError(t, err)
		require.Equal(t, want, got.Msg.OtherForms)
		r := all()
		r.Explain, r.IncludeIds = true, asked
		answer, err := server.ask(t, r)
		require.NoError(t, err)
		require.Equal(t, want, answer.Explain.OtherForms)
	}
}

// Where a shard has no node, a query fails with the reason, each of a batch by itself; who takes
// less is given that, the same each time, and told so.
func TestClusterLosesAShard(t *testing.T) {
	w := newClusterWorld(t, 3, 1, time.Minute)
	s := w.route("router")
	whole, err := s.ask(t, all())
	require.NoError(t, err)
	w.gates[0].kill()
	soon(t, func() bool {
		_, err = s.ask(t, all())
		return err != nil
	}, "a shard is lost")
	assert.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
	reason, text := modelReason(err)
	assert.Equal(t, "COVERAGE_TOO_LOW", reason, text)

	part := all()
	part.MinCoverage = new(0.5)
	first, err := s.ask(t, proto.CloneOf(part))
	require.NoError(t, err)
	assert.EqualValues(t, []uint32{2, 3}, []uint32{first.Coverage.ShardsAnswered, first.Coverage.Shards})
	assert.Less(t, first.Coverage.EligibleShare, 1.0)
	assert.Less(t, len(first.Candidates), len(whole.Candidates))
	for range 5 {
		again, err := s.ask(t, proto.CloneOf(part))
		require.NoError(t, err)
		require.True(t, proto.Equal(first, again), "%v\nwant\n%v", again, first)
	}

	batch := &tandemv1.BatchRetrieveRequest{}
	for i := range 64 {
		if batch.Requests = append(batch.Requests, all()); i%2 == 1 {
			batch.Requests[i].MinCoverage = new(0.5)
		}
	}
	got, err := s.retrieval.BatchRetrieve(t.Context(), connect.NewRequest(batch))
	require.NoError(t, err)
	for i, result := range got.Msg.Results {
		if i%2 == 1 {
			require.True(t, proto.Equal(first, compared(result.GetResponse())), "%d: %v", i, result)
			continue
		}
		require.Equal(t, "COVERAGE_TOO_LOW", result.GetError().GetInfo().GetReason(), "%d: %v", i, result)
	}
}

// A deadline cuts what waits for a node that stands still, and what has arrived is given to who
// takes it.
func TestClusterDeadline(t *testing.T) {
	w := newClusterWorld(t, 3, 1, time.Minute)
	s := w.route("router")
	_, err := s.ask(t, all())
	require.NoError(t, err)
	w.gates[0].stop()
	defer w.gates[0].resume()
	const given = 500 * time.Millisecond // before a node that is silent is noticed
	ctx, cancel := context.WithTimeout(t.Context(), given)
	defer cancel()
	start := time.Now()
	_, err = s.retrieval.Retrieve(ctx, connect.NewRequest(all()))
	took := time.Since(start)
	require.Error(t, err)
	assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err), "%v", err)
	t.Logf("%s after the deadline", took-given)

	part := all()
	part.MinCoverage = new(0.5)
	soon(t, func() bool { // a machine that is busy may be late to write it
		w.gates[0].resume()
		soon(t, func() bool {
			_, err := s.ask(t, all())
			return err == nil
		}, "all shards answer")
		w.gates[0].stop()
		ctx, cancel := context.WithTimeout(t.Context(), given)
		defer cancel()
		got, err := s.retrieval.Retrieve(ctx, connect.NewRequest(part))
		return err == nil && assert.EqualValues(t, 2, got.Msg.Coverage.ShardsAnswered)
	}, "an answer of the other shards")
}

// Nodes that die, stand still, join and leave cost no answer where there is another replica.
func TestClusterNodesComeAndGo(t *testing.T) {
	w := newClusterWorld(t, 3, 9, time.Minute)
	s := w.route("router")
	at := w.whole.write(t, takedown("a0"))
	stop := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	var once sync.Once
	end := func() { once.Do(func() { close(stop) }) }
	defer end()
	for i := range 2 {
		asking.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 9))
			for {
				select {
				case <-stop:
					return
				default:
				}
				q := w.question(r)
				q.MinLive = at
				want, err := w.whole.ask(t, proto.CloneOf(q))
				if !assert.NoError(t, err) {
					return
				}
				got, err := s.ask(t, q)
				if !assert.NoError(t, err) || !assert.True(t, proto.Equal(want, got), "%v:\n%v\nwant\n%v", q, got, want) {
					return
				}
			}
		})
	}
	old := w.oldest()
	w.add() // a fourth, with a part of the shards
	w.gates[0].kill()
	w.leave(old)
	require.NoError(t, w.end(old))
	w.add()
	w.gates[1].stop()
	w.add()
	w.gates[1].resume()
	end()
}

// liar says that it is ready for all shards of a snapshot, and has none.
type liar struct{ status *shardv1.NodeStatus }

func (l *liar) Acquire(_ context.Context, of remote.ShardID, _ shard.Position) (*shard.Tower, func(), error) {
	return nil, nil, &remote.Refusal{Reason: remote.NotHeld, Text: of.String()}
}
func (l *liar) Status() (*shardv1.NodeStatus, <-chan struct{}) { return l.status, nil }
func (l *liar) Uses(string, []string) func()                   { return func() {} }

// A node that lies about what it has costs no answer.
func TestClusterLiar(t *testing.T) {
	w := newClusterWorld(t, 1, 1, time.Minute)
	s := w.route("router")
	first, err := s.ask(t, all())
	require.NoError(t, err)
	held := &shardv1.HeldSnapshot{Snapshot: first.Snapshot}
	for _, tower := range []tandemv1.Tower{tandemv1.Tower_TOWER_APPS, tandemv1.Tower_TOWER_USERS} {
		for n := range uint32(3) {
			held.Shards = append(held.Shards, &shardv1.HeldShard{Tower: tower, Number: n, State: shardv1.HeldState_HELD_STATE_READY, Newest: first.Live.Sequence})
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	asked := make(chan struct{}, 1)
	path, rpc := remote.NewHandler(&liar{&shardv1.NodeStatus{
		Name: "liar", Phase: shardv1.NodePhase_NODE_PHASE_READY, Snapshots: []*shardv1.HeldSnapshot{held},
	}}, remote.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == path+"Search" {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
		rpc.ServeHTTP(rw, r)
	})
	h := &http.Server{Handler: mux, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	h.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	defer func() {
		require.NoError(t, h.Close())
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
	}()
	w.list(append(w.listed(), router.Member{Name: "liar", Address: l.Addr().String()}))
	r := rand.New(rand.NewPCG(5, 1))
	soon(t, func() bool {
		w.requireEqual(s, r, nil)
		select {
		case <-asked:
			return true
		default:
			return false
		}
	}, "the liar is asked")
	w.requireEqual(s, r, nil)
}

// A router may be there before any node.
func TestClusterRouterIsFirst(t *testing.T) {
	w := newClusterWorld(t, 0, 2, time.Minute)
	s := w.serve("router", w.config("router"))
	_, err := s.ask(t, all())
	assert.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
	w.add()
	<-s.ready
	w.add()
	w.requireEqual(s, rand.New(rand.NewPCG(6, 1)), w.whole.write(t, takedown("a3")))
}
