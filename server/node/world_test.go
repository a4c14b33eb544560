package node_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shards = 4
	rows   = 80
)

// world is a store with snapshots, of which the first is released.
type world struct {
	faults    *objectstest.Faults
	store     *snapshots.Store // of who releases
	releases  *release.Releases
	digests   []manifest.Digest
	manifests []*manifest.Manifest
	writer    *live.Replica
}

// newWorld publishes so many snapshots: in the n-th the best app scores n thousand and rows.
func newWorld(t *testing.T, n int) *world {
	w := &world{faults: objectstest.NewFaults()}
	var err error
	w.store, err = snapshots.NewStore(w.faults.Bucket("admin"), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	from := shardtest.Store(t, t.TempDir())
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 4, 8
	for i := range n {
		apps := shardtest.Grid(rows)
		for j := range apps {
			apps[j].Vector[0] += float32(1000 * i)
		}
		m := shardtest.Manifest(t, from, apps, 1, shards, params)
		for j := range apps {
			apps[j].Vector[0] = -apps[j].Vector[0]
		}
		m.Users = shardtest.WriteTower(t, from, apps, 1, shards, params)
		m.ModelVersion = fmt.Sprint(i + 1)
		d, err := w.store.Import(t.Context(), from, m)
		require.NoError(t, err)
		w.digests, w.manifests = append(w.digests, d), append(w.manifests, m)
	}
	for _, d := range w.digests {
		for _, previous := range w.digests {
			report := &manifest.GateReport{Previous: previous, Checks: []manifest.GateCheck{{Gate: gates.Structure, Passed: true}}}
			require.NoError(t, gates.Record(t.Context(), w.store.Objects(), &gates.Recorded{Snapshot: d, Report: report}))
		}
	}
	w.releases = release.New(w.store)
	w.start(t, 0)
	return w
}

// start releases a snapshot with little traffic, if another has it.
func (w *world) start(t *testing.T, n int) {
	t.Helper()
	_, err := w.releases.Start(t.Context(), release.StartOptions{Snapshot: w.digests[n], Weight: 10, Change: release.Change{Author: "test"}})
	require.NoError(t, err)
}

// promote has a snapshot take the place of the one that is released.
func (w *world) promote(t *testing.T, n int) {
	t.Helper()
	w.start(t, n)
	_, err := w.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
}

// takeDown takes an app down, and returns the position.
func (w *world) takeDown(t *testing.T, id string) shard.Position {
	t.Helper()
	if w.writer == nil {
		var err error
		w.writer, err = live.Open(t.Context(), w.faults.Bucket("writer"), live.Options{Poll: time.Hour})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = w.writer.Run(ctx) }) // it ends with ctx
		t.Cleanup(func() {
			stop()
			running.Wait()
		})
	}
	receipt, err := w.writer.Append(t.Context(), []live.Event{{Kind: live.Takedown, Tower: shard.Apps, Entity: id, Reason: "r"}})
	require.NoError(t, err)
	return receipt.Position
}

// of names a shard of the apps of a snapshot.
func (w *world) of(n, number int) remote.ShardID {
	return remote.ShardID{Snapshot: w.digests[n], Tower: shard.Apps, Number: number, Of: shards}
}

// ids returns the apps of a shard, the best first.
func ids(number int) (list []string) {
	for n := rows - 1; n >= 0; n-- {
		if id := fmt.Sprintf("app-%03d", n); shard.Partition(id, shards) == number {
			list = append(list, id)
		}
	}
	return list
}

// running is a node that runs.
type running struct {
	*node.Node
	cache string
	stop  context.CancelFunc
	done  chan error

	mu         sync.Mutex
	downloaded map[manifest.Digest]int // how often a shard was, from its beginning
	held       []events.Held
}

// told returns what was told of shards so far.
func (r *running) told(change events.HeldChange) (list []events.Held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.held {
		if e.Change == change {
			list = append(list, e)
		}
	}
	return list
}

// downloads returns how often each shard was downloaded.
func (r *running) downloads() map[manifest.Digest]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.downloaded)
}

// run runs a node until the test ends, among members.
func (w *world) run(t *testing.T, c node.Config, cache string, members ...string) *running {
	t.Helper()
	r := &running{cache: cache, done: make(chan error, 1), downloaded: map[manifest.Digest]int{}}
	store, err := snapshots.NewStore(w.faults.Bucket(c.Name), snapshots.Options{Cache: cache, Progress: func(p snapshots.Transfer) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.Kind == snapshots.Download && p.Done == p.Size {
			r.downloaded[p.Digest]++
		}
	}})
	require.NoError(t, err)
	c.Store = store
	c.Events = events.Tee(&events.Listener{Held: func(e events.Held) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held = append(r.held, e)
	}})
	c.MemoryLimit = cmp.Or(c.MemoryLimit, 1<<30)
	c.Factor = cmp.Or(c.Factor, 1)
	if c.Live.Poll == 0 {
		c.Live = livelog.Options{Fence: 5 * time.Second, Poll: 500 * time.Millisecond, Memory: c.Live.Memory}
	}
	r.Node, err = node.New(c)
	require.NoError(t, err)
	if len(members) > 0 {
		r.Members(membersOf(members...))
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(r.end)
	return r
}

func membersOf(names ...string) []placement.Member {
	list := []placement.Member{}
	for _, name := range names {
		list = append(list, placement.Member{Name: name})
	}
	return list
}

// end stops the node, and waits for its end.
func (r *running) end() {
	r.stop()
	for range r.done {
		close(r.done)
	}
}

// until waits until the status is as wanted.
func (r *running) until(t *testing.T, want func(*shardv1.NodeStatus) bool) *shardv1.NodeStatus {
	t.Helper()
	late := time.After(5 * time.Minute)
	for {
		status, changed := r.Status()
		if want(status) {
			return status
		}
		select {
		case <-changed:
		case <-late:
			require.Fail(t, "the status is not what it is to be", "%v", status)
		}
	}
}

// ready waits until the node has read a generation, and holds all that it says that it is to, of
// so many snapshots.
func (r *running) ready(t *testing.T, generation uint64, held int) *shardv1.NodeStatus {
	t.Helper()
	return r.until(t, func(s *shardv1.NodeStatus) bool {
		all := s.GetGeneration() == generation && s.GetPhase() == shardv1.NodePhase_NODE_PHASE_READY && len(s.GetSnapshots()) == held
		for _, snapshot := range s.GetSnapshots() {
			for _, h := range snapshot.GetShards() {
				all = all && h.GetState() == shardv1.HeldState_HELD_STATE_READY
			}
		}
		return all
	})
}

// heldOf returns what a status says of a shard, nil for nothing.
func heldOf(s *shardv1.NodeStatus, of remote.ShardID) *shardv1.HeldShard {
	tower := tandemv1.Tower_TOWER_APPS
	if of.Tower == shard.Users {
		tower = tandemv1.Tower_TOWER_USERS
	}
	for _, snapshot := range s.GetSnapshots() {
		for _, h := range snapshot.GetShards() {
			if snapshot.GetSnapshot() == string(of.Snapshot) && h.GetTower() == tower && int(h.GetNumber()) == of.Number {
				return h
			}
		}
	}
	return nil
}

// best returns the best app of a shard at a position, and its score.
func (r *running) best(t *testing.T, of remote.ShardID, at shard.Position) (id string, score float32, err error) {
	t.Helper()
	tower, release, err := r.Acquire(t.Context(), of, at)
	if err != nil {
		return "", 0, err
	}
	defer release()
	q := &shard.Query{Moment: shard.Moment{Snapshot: string(of.Snapshot), Position: at}, Vectors: [][]float32{{1}}, K: 1, Target: 1}
	answer, err := tower.Search(t.Context(), q)
	require.NoError(t, err)
	return answer.Candidates[0].ID, answer.Candidates[0].Score, nil
}

// requireBest checks what a shard answers, with so many of its best apps taken down.
func (w *world) requireBest(t *testing.T, r *running, n, number int, at shard.Position, down int) {
	t.Helper()
	id, score, err := r.best(t, w.of(n, number), at)
	require.NoError(t, err)
	var place int
	want := ids(number)[down]
	_, err = fmt.Sscanf(want, "app-%d", &place)
	require.NoError(t, err)
	require.Equal(t, []any{want, float32(1000*n + place + 1)}, []any{id, score})
}

// requireRefused checks that a node refuses a shard.
func requireRefused(t *testing.T, r *running, of remote.ShardID, at shard.Position, reason remote.Reason) {
	t.Helper()
	_, _, err := r.best(t, of, at)
	refusal := new(remote.Refusal)
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, reason, refusal.Reason, refusal.Text)
}
