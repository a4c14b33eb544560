package node_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
)

// cached is where a cache has a shard.
func (w *world) cached(r *running, n, number int) string {
	return filepath.Join(r.cache, "shards", string(w.manifests[n].Apps.Shards[number].Digest)+".shard")
}

// A shard that is damaged in the cache is downloaded again.
func TestDamagedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		n.ready(t, 1, 1)
		n.end()
		data, err := os.ReadFile(w.cached(n, 0, 2))
		require.NoError(t, err)
		data[len(data)/2] ^= 1
		require.NoError(t, os.WriteFile(w.cached(n, 0, 2), data, 0o600))

		again := w.run(t, node.Config{Name: "a"}, n.cache, "a")
		again.ready(t, 1, 1)
		w.requireBest(t, again, 0, 2, shard.Position{}, 0)
		assert.Len(t, again.downloads(), 1)
		assert.Empty(t, again.told(events.HeldNot))
	})
}

// A shard that is damaged in the store fails, and that is told; the node is ready with the
// others, and tries it again.
func TestDamagedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		name := "shards/" + string(w.manifests[0].Apps.Shards[2].Digest) + ".shard"
		whole, ok := w.faults.Data(name)
		require.True(t, ok)
		broken := bytes.Clone(whole)
		broken[len(broken)/2] ^= 1
		w.faults.Put(name, broken, time.Now())
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		s := n.until(t, func(s *shardv1.NodeStatus) bool { return s.GetPhase() == shardv1.NodePhase_NODE_PHASE_READY })
		h := heldOf(s, w.of(0, 2))
		assert.Equal(t, shardv1.HeldState_HELD_STATE_FAILED, h.GetState())
		assert.Contains(t, h.GetError(), "its SHA-256 is")
		requireRefused(t, n, w.of(0, 2), shard.Position{}, remote.NotHeld)
		w.requireBest(t, n, 0, 1, shard.Position{}, 0)
		assert.Empty(t, n.told(events.HeldAll))

		time.Sleep(10 * time.Minute)
		told := len(n.told(events.HeldNot))
		assert.GreaterOrEqual(t, told, 10)
		assert.LessOrEqual(t, told, 18, "it takes its time")
		w.faults.Put(name, whole, time.Now())
		n.ready(t, 1, 1)
		w.requireBest(t, n, 0, 2, shard.Position{}, 0)
		assert.Len(t, n.told(events.HeldAll), 1)
	})
}

// While the store does not answer, what is held answers, and a node that starts waits for it.
func TestStoreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		n.ready(t, 1, 1)
		for _, client := range []string{"a", "b"} {
			w.faults.Inject(objectstest.Rule{Client: client, Err: objectstest.ErrBusy})
		}
		late := w.run(t, node.Config{Name: "b"}, t.TempDir(), "b")
		w.start(t, 1)
		at := w.takeDown(t, ids(1)[0])
		time.Sleep(time.Minute)
		s, _ := n.Status()
		assert.EqualValues(t, 1, s.GetGeneration())
		w.requireBest(t, n, 0, 1, shard.Position{}, 0)
		requireRefused(t, n, w.of(0, 1), at, remote.Behind)
		s, _ = late.Status()
		assert.Equal(t, shardv1.NodePhase_NODE_PHASE_STARTING, s.GetPhase())

		w.faults.Heal()
		for _, r := range []*running{n, late} {
			r.ready(t, 2, 2)
			w.requireBest(t, r, 0, 1, at, 1)
			w.requireBest(t, r, 1, 1, at, 1)
		}
	})
}

// What is to be held elsewhere, since members have changed, stays until it is.
func TestMembersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var b atomic.Pointer[running]
		var asked atomic.Int64
		holds := func(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool {
			asked.Add(1)
			if member != "b" || b.Load() == nil {
				return false
			}
			_, release, err := b.Load().Acquire(ctx, of, at)
			if err == nil {
				release()
			}
			return err == nil
		}
		a := w.run(t, node.Config{Name: "a", Holds: holds}, t.TempDir(), "a")
		a.ready(t, 1, 1)
		a.Members(membersOf("a", "b"))
		time.Sleep(2 * time.Minute)
		held := func(r *running) (n int) {
			s, _ := r.Status()
			for _, snapshot := range s.GetSnapshots() {
				n += len(snapshot.GetShards())
			}
			return n
		}
		assert.Equal(t, 2*shards, held(a), "nobody else has them")
		assert.Positive(t, asked.Load())

		b.Store(w.run(t, node.Config{Name: "b"}, t.TempDir(), "a", "b"))
		b.Load().ready(t, 1, 1)
		moved := held(b.Load())
		require.Positive(t, moved)
		require.Less(t, moved, 2*shards)
		time.Sleep(9 * time.Second)
		assert.Equal(t, 2*shards, held(a), "routers have not heard of it yet")
		time.Sleep(10 * time.Second)
		assert.Equal(t, 2*shards-moved, held(a))
		assert.Len(t, a.told(events.HeldLetGo), moved)

		a.Members(membersOf("a"))
		a.until(t, func(*shardv1.NodeStatus) bool { return held(a) == 2*shards })
		a.ready(t, 1, 1)
		a.Members(membersOf()) // whoever says who there is has lost all of them
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 2*shards, held(a))
		w.requireBest(t, a, 0, 1, shard.Position{}, 0)
	})
}

// What does not fit beside what is needed is not loaded, and that is told. What nobody needs
// any more gives way.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		var size int64
		for _, sm := range w.manifests[0].Shards() {
			size += sm.Size
		}
		n := w.run(t, node.Config{Name: "a", MemoryLimit: size + size/2, Keep: time.Hour}, t.TempDir(), "a")
		n.ready(t, 1, 1)
		end := n.Uses("router", []string{string(w.digests[0])})
		w.promote(t, 1)
		last := w.of(1, shards-1)
		last.Tower = shard.Users // which are loaded after apps
		s := n.until(t, func(s *shardv1.NodeStatus) bool {
			return s.GetGeneration() == 3 && heldOf(s, last).GetState() == shardv1.HeldState_HELD_STATE_FAILED
		})
		assert.LessOrEqual(t, int64(s.GetMapped()), size+size/2)
		assert.Contains(t, heldOf(s, last).GetError(), "not admitted: it takes ")
		w.requireBest(t, n, 0, shards-1, shard.Position{}, 0)
		end()
		s = n.until(t, func(s *shardv1.NodeStatus) bool {
			return heldOf(s, last).GetState() == shardv1.HeldState_HELD_STATE_READY
		})
		n.until(t, func(*shardv1.NodeStatus) bool { return len(n.told(events.HeldAll)) == 2 })
		assert.LessOrEqual(t, int64(s.GetMapped()), size+size/2)
		s, _ = n.Status()
		assert.Len(t, s.GetSnapshots(), 2, "some of what nobody needs fits")
	})
}

// A file that cannot be read while it answers is opened again.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		n.ready(t, 1, 1)
		require.NoError(t, os.Remove(w.cached(n, 0, 2)))
		n.Unreadable(w.of(0, 2), &shard.UnreadableError{Shard: "apps-0002"})
		n.until(t, func(s *shardv1.NodeStatus) bool { return len(n.told(events.HeldReady)) == 2*shards+1 })
		n.ready(t, 1, 1)
		w.requireBest(t, n, 0, 2, shard.Position{}, 0)
		assert.Equal(t, 2, n.downloads()[w.manifests[0].Apps.Shards[2].Digest])
		n.Unreadable(w.of(0, shards), &shard.UnreadableError{Shard: "another"})
	})
}

// A store that is an older copy than was read before is not held.
func TestTimeTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		dir := t.TempDir()
		c := node.Config{
			Name: "a", Memory: appendlog.Memory{filepath.Join(dir, "releases")},
			Live: livelog.Options{Memory: appendlog.Memory{filepath.Join(dir, "live")}},
		}
		n := w.run(t, c, t.TempDir(), "a")
		n.ready(t, 1, 1)
		w.start(t, 1)
		n.ready(t, 2, 2)
		at := w.takeDown(t, ids(1)[0])
		n.until(t, func(s *shardv1.NodeStatus) bool { return heldOf(s, w.of(0, 1)).GetNewest() == at.Sequence })
		n.end()

		for key, class := range map[string]error{
			"releases/000000000002.json": release.ErrTimeTravel,
			"live/000000000001.log":      live.ErrTimeTravel,
		} {
			data, ok := w.faults.Data(key)
			require.True(t, ok)
			w.faults.Remove(key)
			behind := w.run(t, c, n.cache, "a")
			require.ErrorIs(t, <-behind.done, class)
			close(behind.done)
			s, _ := behind.Status()
			assert.Empty(t, s.GetSnapshots())
			w.faults.Put(key, data, time.Now())
		}
	})
}

// Where nothing was released there is nothing to hold.
func TestNothingReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{faults: objectstest.NewFaults()}
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		require.ErrorIs(t, <-n.done, release.ErrNone)
		close(n.done)
	})
}

// A node that is started again is not ready before routers had time to say what they use, which
// is not what is released, and it holds that.
func TestReadyForRouters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.promote(t, 1)
		start := time.Now()
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		of := func(s *shardv1.NodeStatus, number int) shardv1.HeldState {
			return heldOf(s, w.of(number, 0)).GetState()
		}
		n.until(t, func(s *shardv1.NodeStatus) bool { return of(s, 1) == shardv1.HeldState_HELD_STATE_READY })
		time.Sleep(4*time.Second - time.Since(start))
		s, _ := n.Status()
		assert.Equal(t, shardv1.NodePhase_NODE_PHASE_STARTING, s.GetPhase())
		defer n.Uses("router", []string{string(w.digests[0])})()
		s = n.until(t, func(s *shardv1.NodeStatus) bool { return s.GetPhase() == shardv1.NodePhase_NODE_PHASE_READY })
		assert.Equal(t, shardv1.HeldState_HELD_STATE_READY, of(s, 0))
		assert.Equal(t, 5*time.Second, time.Since(start).Round(time.Second))
	})
}
