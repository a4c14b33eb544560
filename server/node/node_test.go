package node_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
)

// Each node holds what it is to hold, downloads nothing else, and answers from what it is asked
// for, or refuses.
func TestNodesHoldTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		nodes := []*running{
			w.run(t, node.Config{Name: "a", Zone: "z"}, t.TempDir(), "a", "b"),
			w.run(t, node.Config{Name: "b"}, t.TempDir(), "a", "b"),
		}
		held := map[int]*running{}
		for _, n := range nodes {
			s := n.ready(t, 1, 1)
			var bytes int64
			for number := range shards {
				for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
					of := w.of(0, number)
					of.Tower = kind
					file := w.manifests[0].Tower(kind).Shards[number]
					h := heldOf(s, of)
					if h == nil {
						requireRefused(t, n, of, shard.Position{}, remote.NotHeld)
						assert.Zero(t, n.downloads()[file.Digest])
						continue
					}
					assert.EqualValues(t, file.Rows, h.GetRows())
					assert.Equal(t, 1, n.downloads()[file.Digest])
					bytes += file.Size
					if kind == shard.Apps {
						assert.Nil(t, held[number], "factor 1")
						held[number] = n
					}
				}
			}
			assert.EqualValues(t, bytes, s.GetMapped())
			all := n.told(events.HeldAll)
			require.Len(t, all, 1)
			assert.Equal(t, []any{uint64(1), bytes, len(s.GetSnapshots()[0].GetShards())}, []any{all[0].Generation, all[0].Bytes, all[0].Shards})
		}
		require.Len(t, held, shards)
		s, _ := nodes[0].Status()
		assert.Equal(t, []any{"a", "z", uint64(1 << 30)}, []any{s.GetName(), s.GetZone(), s.GetWeight()})

		for number, n := range held {
			w.requireBest(t, n, 0, number, shard.Position{}, 0)
			wrong := w.of(0, number)
			wrong.Of = shards + 1
			requireRefused(t, n, wrong, shard.Position{}, remote.NotHeld)
			start := time.Now()
			requireRefused(t, n, w.of(0, number), shard.Position{Sequence: 1}, remote.Behind)
			assert.LessOrEqual(t, time.Since(start), time.Second)
		}
		number := 2
		at := w.takeDown(t, ids(number)[0])
		for other, n := range held {
			down := 0
			if other == number {
				down = 1
			}
			w.requireBest(t, n, 0, other, at, down)
			w.requireBest(t, n, 0, other, shard.Position{}, 0)
		}
		s = held[number].until(t, func(s *shardv1.NodeStatus) bool { return heldOf(s, w.of(0, number)).GetNewest() == 1 })
		h := heldOf(s, w.of(0, number))
		assert.Equal(t, []uint64{0, 1, 1}, []uint64{h.GetOldest(), h.GetNewest(), h.GetDead()})
		time.Sleep(time.Minute)
		requireRefused(t, held[number], w.of(0, number), shard.Position{}, remote.PositionGone)
		w.requireBest(t, held[number], 0, number, at, 1)
	})
}

// A release is loaded beside what answers, which stays for a time, and for as long as a router
// uses it.
func TestReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		n := w.run(t, node.Config{Name: "a", Keep: time.Minute}, t.TempDir(), "a")
		n.ready(t, 1, 1)
		end := n.Uses("router", []string{string(w.digests[0]), "no digest"})
		w.start(t, 1)
		n.ready(t, 2, 2)
		w.requireBest(t, n, 1, 0, shard.Position{}, 0)
		_, err := w.releases.Promote(t.Context(), release.Change{}, "")
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		n.ready(t, 3, 2)
		w.requireBest(t, n, 0, 0, shard.Position{}, 0)

		end()
		time.Sleep(50 * time.Second)
		w.requireBest(t, n, 0, 0, shard.Position{}, 0)
		n.ready(t, 3, 1)
		requireRefused(t, n, w.of(0, 0), shard.Position{}, remote.NotHeld)
		assert.Len(t, n.told(events.HeldLetGo), 2*shards)
		w.requireBest(t, n, 1, 0, shard.Position{}, 0)

		end = n.Uses("router", []string{string(w.digests[0])}) // one that has not switched yet
		n.ready(t, 3, 2)
		w.requireBest(t, n, 0, 0, shard.Position{}, 0)
		end()
		w.promote(t, 0)
		n.ready(t, 5, 2)
		time.Sleep(5 * time.Minute)
		n.ready(t, 5, 1)
		w.requireBest(t, n, 0, 0, shard.Position{}, 0)
		assert.Len(t, n.downloads(), 4*shards)
		for d, times := range n.downloads() {
			assert.Equal(t, 1, times, d)
		}
	})
}

// A node that is told to stop says so, answers until it is ended, and is closed when the last
// query on it has ended. One that starts again has what it had.
func TestStopAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		n.ready(t, 1, 1)
		at := w.takeDown(t, ids(1)[0])
		n.Drain()
		n.until(t, func(s *shardv1.NodeStatus) bool { return s.GetPhase() == shardv1.NodePhase_NODE_PHASE_STOPPING })
		w.requireBest(t, n, 0, 1, at, 1)
		tower, release, err := n.Acquire(t.Context(), w.of(0, 1), at)
		require.NoError(t, err)
		n.stop()
		n.until(t, func(s *shardv1.NodeStatus) bool { return len(s.GetSnapshots()) == 0 })
		requireRefused(t, n, w.of(0, 1), at, remote.Stopping)
		synctest.Wait()
		select {
		case err := <-n.done:
			require.Fail(t, "it has ended under a query", "%v", err)
		default:
		}
		_, err = tower.Search(t.Context(), &shard.Query{Vectors: [][]float32{{1}}, K: 1, Target: 1})
		require.NoError(t, err)
		release()
		require.NoError(t, <-n.done)
		close(n.done)

		again := w.run(t, node.Config{Name: "a"}, n.cache, "a")
		again.ready(t, 1, 1)
		w.requireBest(t, again, 0, 1, at, 1)
		assert.Empty(t, again.downloads())
	})
}

// A node is not ready before it is a member, whatever else there is.
func TestNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "a"}, t.TempDir())
		for _, members := range [][]placement.Member{nil, membersOf(), membersOf("b")} {
			if members != nil {
				n.Members(members)
			}
			time.Sleep(time.Minute)
			s, _ := n.Status()
			assert.Equal(t, shardv1.NodePhase_NODE_PHASE_STARTING, s.GetPhase())
			assert.Empty(t, s.GetSnapshots())
		}
		require.Len(t, n.told(events.HeldNoMember), 1)
		assert.EqualError(t, n.told(events.HeldNoMember)[0].Err, "there are no members")
		assert.Empty(t, n.told(events.HeldAll), "it has nothing")
		n.Members(membersOf("a", "b"))
		n.ready(t, 1, 1)
	})
}

// A node that begins by another name than it turns out to have holds what that name is to, and so
// it does when who lists the members calls it by another one again.
func TestNodeIsRenamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "host"}, t.TempDir(), "a", "b", "c", "d", "e")
		time.Sleep(time.Minute)
		told := n.told(events.HeldNoMember)
		require.Len(t, told, 1)
		assert.Equal(t, "host", told[0].Node)
		assert.EqualError(t, told[0].Err, `the members are "a", "b", "c", "d", and 1 more`)
		for _, name := range []string{"a", "b"} {
			n.MembersAs(name, membersOf(name))
			n.until(t, func(s *shardv1.NodeStatus) bool { return s.GetName() == name })
			s := n.ready(t, 1, 1)
			assert.Len(t, s.GetSnapshots()[0].GetShards(), 2*shards)
		}
		assert.Len(t, n.told(events.HeldNoMember), 1)
	})
}

// A node says which entry of the live log it has read to.
func TestEntryThatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "a"}, t.TempDir(), "a")
		s := n.ready(t, 1, 1)
		assert.Zero(t, s.GetRead().GetSequence())
		assert.Empty(t, s.GetEntry(), "there is no entry")
		at := w.takeDown(t, "a0")
		s = n.until(t, func(s *shardv1.NodeStatus) bool { return s.GetRead().GetSequence() == at.Sequence })
		hash := w.writer.View().Position.Hash
		assert.Equal(t, hash[:], s.GetEntry())
	})
}

// What a node is made of must be given.
func TestConfig(t *testing.T) {
	store := newWorld(t, 1).store
	for _, c := range []struct {
		node.Config
		text string
	}{
		{node.Config{Name: "a", MemoryLimit: 1}, "new node: it has no store"},
		{node.Config{Store: store, Name: "a", MemoryLimit: 1}, "new node: the factor is 0, want 1 to 16"},
		{node.Config{Store: store, Factor: 1, MemoryLimit: 1}, "new node: it has no name"},
		{node.Config{Store: store, Factor: 1, Name: "a", MemoryLimit: -1}, "new node: the memory limit is -1 bytes, want at least 1"},
	} {
		_, err := node.New(c.Config)
		assert.EqualError(t, err, c.text)
	}
}
