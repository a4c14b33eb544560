package router

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/overlay"
)

// viewAt is the log read to a position that was proved to be its end at a time.
func viewAt(log string, sequence uint64, proof time.Time) *live.View {
	return &live.View{Position: live.Position{Log: log, Sequence: sequence}, Proof: live.NewProof(proof)}
}

// An answer without the last entries is as old as the last proof that there were none: not as
// the time when they were read, which a store that is slow puts off.
func TestProofOfAPositionThatLags(t *testing.T) {
	var p positions
	now := time.Now()
	p.add(viewAt("", 5, now.Add(-3*time.Second)), now.Add(-3*time.Second))
	p.add(viewAt("", 6, now), now)
	_, lags := p.proved(shard.Position{Sequence: 6})
	assert.False(t, lags)
	proof, lags := p.proved(shard.Position{Sequence: 5})
	require.True(t, lags)
	assert.InDelta(t, 3*time.Second, now.Sub(proof), float64(time.Second))
	assert.Equal(t, time.Second, p.lag(shard.Position{Sequence: 5}, now.Add(time.Second)))
}

// However many positions there were, a lag is never told to be less than it is.
func TestLagIsNotUnderstated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p positions
		now := time.Now()
		first := map[uint64]time.Time{} // when the next one after it was read
		n := uint64(rapid.IntRange(1, 3*keptPositions).Draw(t, "positions"))
		for at := range n {
			now = now.Add(time.Duration(at%7) * time.Millisecond)
			if at > 0 {
				first[at-1] = now
			}
			p.add(viewAt("", at, now), now)
		}
		require.LessOrEqual(t, len(p.last), keptPositions)
		for range 20 {
			at := rapid.Uint64Range(0, n-1).Draw(t, "at")
			lag := p.lag(shard.Position{Sequence: at}, now)
			if at == n-1 {
				require.Zero(t, lag)
				continue
			}
			require.GreaterOrEqual(t, lag, now.Sub(first[at]))
		}
		for at := n - min(n, keptPositions/2); at+1 < n; at++ {
			require.Equal(t, now.Sub(first[at]), p.lag(shard.Position{Sequence: at}, now), "of the last ones it is known")
		}
	})
}

func TestReaches(t *testing.T) {
	at := func(log string, sequence uint64) *livelog.Laid {
		return &livelog.Laid{Overlaid: &overlay.Overlaid{Position: shard.Position{Log: log, Sequence: sequence}}, View: viewAt(log, sequence, time.Now())}
	}
	assert.True(t, reaches(at("b", 5), shard.Position{Log: "b", Sequence: 5}))
	assert.False(t, reaches(at("b", 5), shard.Position{Log: "b", Sequence: 6}))
	assert.True(t, reaches(at("b", 5), shard.Position{}), "it has all of the position before all events")
	assert.False(t, reaches(at("b", 5), shard.Position{Log: "a", Sequence: 5}), "it goes on from no log a")
}

// ready returns a router at a clock with nodes, and a snapshot whose towers have one shard each,
// which each node has at a position.
func ready(clock func() time.Time, fence time.Duration, newest ...uint64) (*Router, *Layer) {
	r := New(Options{Name: "r", Clock: clock, Fence: fence, Node: func(address string) *remote.Node {
		return remote.NewNode(remote.NodeOptions{Address: address})
	}})
	l := layerOf(r, "d")
	for i, at := range newest {
		address := string(rune('a' + i))
		r.Members(append(membersIn(r), Member{Name: address, Address: address}))
		r.take(r.members[address], &shardv1.NodeStatus{Name: address, Snapshots: []*shardv1.HeldSnapshot{heldTo("d", at)}}, nil)
	}
	return r, l
}

// layerOf returns a snapshot that a router has, whose towers have one shard each.
func layerOf(r *Router, d manifest.Digest) *Layer {
	l := &Layer{router: r, digest: d, manifest: &manifest.Manifest{Metric: index.Dot}}
	for i, kind := range kinds {
		s := &set{of: remote.ShardID{Snapshot: d, Tower: kind, Of: 1}, router: r}
		s.now.Store(&[]replica{})
		l.towers[i] = &base{kind: kind, sets: []*set{s}}
	}
	r.layers[l] = struct{}{}
	return l
}

// heldTo is what a node says that has all of a snapshot at a position.
func heldTo(d manifest.Digest, newest uint64) *shardv1.HeldSnapshot {
	s := &shardv1.HeldSnapshot{Snapshot: string(d)}
	for _, kind := range kinds {
		s.Shards = append(s.Shards, &shardv1.HeldShard{Tower: towerOf(kind), State: shardv1.HeldState_HELD_STATE_READY, Newest: newest})
	}
	return s
}

// Snapshots go on with the log together: what was answered from one is not undone by an answer from
// another, that a release has switched to or that is its other arm, but where no node could answer.
func TestSnapshotsGoOnTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		r, _ := ready(func() time.Time { return now }, time.Hour, 5, 5)
		layerOf(r, "e")
		newest := uint64(5)
		read := map[string]map[manifest.Digest]uint64{"a": {"d": 5, "e": 5}, "b": {"d": 5, "e": 5}}
		before := uint64(0) // what was asked
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "appended") {
				newest++
			}
			r.Published(viewAt("", newest, now))
			now = now.Add(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
			for name, of := range read {
				s := &shardv1.NodeStatus{Name: name}
				for _, d := range []manifest.Digest{"d", "e"} {
					of[d] = rapid.Uint64Range(of[d], newest).Draw(t, name+" has "+string(d)+" to")
					s.Snapshots = append(s.Snapshots, heldTo(d, of[d]))
				}
				r.take(r.members[name], s, nil)
			}
			r.update()
			asked := before
			for range 2 { // as an update lays it, but over towers that nobody can ask
				for l := range r.layers {
					at, ok := l.choose(r.seen.view, l.now.Load(), now)
					if !ok {
						continue
					}
					asked = max(asked, at.Sequence)
					l.now.Store(&livelog.Laid{Overlaid: &overlay.Overlaid{Position: at}, View: r.seen.view})
				}
			}
			for l := range r.layers {
				at := l.now.Load()
				if at != nil && l.covered(shard.Position{Sequence: asked}) {
					require.Equal(t, asked, at.Position().Sequence, "snapshot %s", l.digest)
				}
			}
			before = asked
		}
	})
}

func membersIn(r *Router) (list []Member) {
	for _, n := range r.Look().Nodes {
		list = append(list, n.Member)
	}
	return list
}

// A node that is silent is not asked; but that this process heard nothing while it stood still
// itself says nothing about nodes.
func TestSilence(t *testing.T) {
	now := time.Now()
	r, l := ready(func() time.Time { return now }, 0, 5)
	replicas := func() int { return len(*l.towers[0].sets[0].now.Load()) }
	r.update()
	require.Equal(t, 1, replicas())
	now = now.Add(time.Hour)
	r.update()
	assert.Equal(t, 1, replicas(), "the router stood still")
	for range int(silence/updateEvery) + 1 {
		now = now.Add(updateEvery)
		r.update()
	}
	assert.Zero(t, replicas())
}

// A node that is behind for longer than the fence keeps nobody back, and is not asked.
func TestBehindForTooLong(t *testing.T) {
	now := time.Now()
	r, l := ready(func() time.Time { return now }, 5*time.Second, 5, 6)
	r.mu.Lock()
	r.seen.add(viewAt("", 5, now), now)
	r.seen.add(viewAt("", 6, now), now)
	r.mu.Unlock()
	choose := func() uint64 {
		r.update()
		at, ok := l.choose(r.seen.view, nil, now)
		require.True(t, ok)
		return at.Sequence
	}
	assert.EqualValues(t, 5, choose(), "all are to have it")
	now = now.Add(patientLag + time.Millisecond)
	assert.EqualValues(t, 6, choose(), "not for long")
	_, alone := ready(func() time.Time { return now }, 5*time.Second, 5)
	alone.router.seen = r.seen
	alone.router.update()
	at, _ := alone.choose(r.seen.view, nil, now)
	assert.EqualValues(t, 5, at.Sequence, "there is no other")
	for range 30 {
		now = now.Add(updateEvery)
		for _, m := range alone.router.members {
			alone.router.take(m, m.status, nil)
		}
		alone.router.update()
	}
	at, _ = alone.choose(r.seen.view, nil, now)
	assert.EqualValues(t, 5, at.Sequence, "there is nobody to ask otherwise")
	assert.True(t, alone.router.beyondFence(at, now), "and it answers nobody")
}

// A shard of which all replicas are behind for longer than the fence is lost to the queries that
// others can be asked for, who are told why.
func TestShardThatIsBehindForTooLong(t *testing.T) {
	now := time.Now()
	r, l := ready(func() time.Time { return now }, 5*time.Second, 5, 6)
	r.mu.Lock()
	r.seen.add(viewAt("", 5, now), now)
	r.seen.add(viewAt("", 6, now), now)
	r.mu.Unlock()
	b := r.members["b"]
	says := proto.CloneOf(b.status)
	says.Snapshots[0].Shards = says.Snapshots[0].Shards[:1] // of the apps alone
	for range 30 {
		now = now.Add(updateEvery)
		r.take(r.members["a"], r.members["a"].status, nil)
		r.take(b, says, nil)
		r.update()
	}
	at, ok := l.choose(r.seen.view, nil, now)
	require.True(t, ok)
	assert.EqualValues(t, 6, at.Sequence)
	s := l.towers[1].sets[0]
	_, err := s.do(t.Context(), at, &s.other, nil)
	none, ok := errors.AsType[*NoReplicaError](err)
	require.True(t, ok)
	assert.True(t, none.Behind)
	assert.EqualError(t, none, "all nodes that are ready for users shard 0 of 1 of snapshot d have read less of the live log than to position 6, the furthest to 5")
}

// While a router answers at a position, each shard has a node that can be asked at it, or is about
// to: what no node has is not asked. A store that is away from all, and nodes that read again later
// than the router, are told by the fence.
func TestAnswersAreOfPositionsThatNodesHave(t *testing.T) {
	step := rapid.Custom(func(t *rapid.T) historyStep {
		return historyStep{
			rapid.SampledFrom([]string{"append", "prove", "node", "wait"}).Draw(t, "kind"),
			rapid.IntRange(0, 1).Draw(t, "node"), time.Duration(rapid.IntRange(1, 40).Draw(t, "quarters")) * updateEvery,
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(step, 1, 60).Draw(rt, "steps")
		wrong := ""
		synctest.Test(t, func(*testing.T) { wrong = askedOfNobody(steps) })
		require.Empty(rt, wrong)
	})
}

// historyStep is something that happens to a router with two nodes.
type historyStep struct {
	kind string
	node int           // that reads the log, of "node"
	wait time.Duration // of "wait"
}

// askedOfNobody has steps happen, and says when queries are asked at a position that no node can be
// asked at; empty if they never are.
func askedOfNobody(steps []historyStep) string {
	const fence = 5 * time.Second
	r, l := ready(time.Now, fence, 5, 5)
	newest, read := uint64(5), [2]uint64{5, 5}
	view := viewAt("", newest, time.Now())
	r.Published(view)
	var last *livelog.Laid
	waited := time.Duration(0)
	for i := 0; i < len(steps); {
		switch step := steps[i]; step.kind {
		case "append":
			newest++
			fallthrough
		case "prove":
			view = viewAt("", newest, time.Now())
			r.Published(view)
		case "node":
			read[step.node] = newest
		case "wait":
			time.Sleep(updateEvery)
			waited += updateEvery
		}
		if steps[i].kind != "wait" || waited >= steps[i].wait {
			i, waited = i+1, 0
		}
		for i, m := range []*member{r.members["a"], r.members["b"]} {
			s := proto.CloneOf(m.status)
			for _, h := range s.Snapshots[0].Shards {
				h.Newest = read[i]
			}
			r.take(m, s, nil)
		}
		r.update()
		at, ok := l.choose(view, last, time.Now())
		if !ok {
			continue
		}
		last = &livelog.Laid{Overlaid: &overlay.Overlaid{Position: at}, View: view}
		proof, lags := r.seen.proved(at)
		age := time.Since(proof)
		if !lags {
			age = view.Proof.Age()
		}
		for _, b := range l.towers {
			may := func(one replica) bool { return one.has(at) || one.behind(at) }
			if age <= fence && !slices.ContainsFunc(*b.sets[0].now.Load(), may) {
				return fmt.Sprintf("at %s, proved %s ago, after step %d: nodes have read to %d, the router to %d", at, age, i, read, newest)
			}
		}
	}
	return ""
}

// A router that has read an entry which no node has, before the store is away from all, goes on at
// the position that nodes have, and so refuses by the fence; nor does it ask nobody once the store
// is back and it is the first to read.
func TestStoreAwayAfterTheRouterHasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fence = 5 * time.Second
		r, l := ready(time.Now, fence, 5)
		says := func() {
			m := r.members["a"]
			r.take(m, m.status, nil)
			r.update()
		}
		view := viewAt("", 5, time.Now())
		r.Published(view)
		time.Sleep(updateEvery)
		r.Published(viewAt("", 6, time.Now()))
		time.Sleep(100 * time.Millisecond)
		view = viewAt("", 6, time.Now()) // the last proof
		r.Published(view)
		refused := func() bool {
			at, ok := l.choose(view, nil, time.Now())
			require.True(t, ok)
			require.EqualValues(t, 5, at.Sequence)
			return r.beyondFence(at, time.Now())
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			says()
			require.Equal(t, view.Proof.Age()+100*time.Millisecond+updateEvery > fence, refused())
		}
		view = viewAt("", 6, time.Now()) // it is back for the router
		r.Published(view)
		says()
		require.True(t, refused())
		for _, h := range r.members["a"].status.Snapshots[0].Shards {
			h.Newest = 6
		}
		says()
		at, _ := l.choose(view, nil, time.Now())
		require.EqualValues(t, 6, at.Sequence)
		require.False(t, r.beyondFence(at, time.Now()))
	})
}

// Of two copies of a store that were both written to, nodes of the other one are not asked, once
// both have read as far: they would answer from other events.
func TestNodeOfAnotherCopy(t *testing.T) {
	now := time.Now()
	r, l := ready(func() time.Time { return now }, 5*time.Second, 7)
	m := r.members["a"]
	says := m.status
	read := func(sequence uint64, entry byte) {
		s := proto.CloneOf(says)
		hash := appendlog.HashOf([]byte{entry})
		s.Read, s.Entry = &tandemv1.LivePosition{Sequence: sequence}, hash[:]
		r.take(m, s, nil)
		r.update()
	}
	publish := func(sequence uint64, entry byte) {
		v := viewAt("", sequence, now)
		v.Position.Hash = appendlog.HashOf([]byte{entry})
		r.Published(v)
	}
	asked := func() bool { return len(*l.towers[0].sets[0].now.Load()) > 0 }
	publish(7, 7)
	read(7, 7)
	assert.True(t, asked())
	read(8, 18)
	assert.True(t, asked(), "the router does not know")
	publish(8, 8)
	assert.False(t, asked(), "it does by now")
	require.EqualError(t, r.Look().Nodes[0].Err, "its store is another one, or another copy: entry 8 of its live log is "+
		appendlog.HashOf([]byte{18}).Short()+", and the router's is "+appendlog.HashOf([]byte{8}).Short())
	read(9, 19)
	assert.False(t, asked(), "that it goes on says nothing")
	read(8, 18)
	assert.False(t, asked())
	publish(9, 9)
	read(9, 9)
	assert.True(t, asked(), "its store was mended")
	r.take(m, says, nil)
	r.update()
	assert.True(t, asked(), "nodes before this version do not say")
}

// A node of another store is not asked, whatever its log; one that does not say of which is.
func TestNodeOfAnotherStore(t *testing.T) {
	now := time.Now()
	r, l := ready(func() time.Time { return now }, 5*time.Second, 0)
	r.o.StoreID = "1234"
	m := r.members["a"]
	says := m.status
	for id, asked := range map[string]bool{"": true, "1234": true, "5678": false} {
		s := proto.CloneOf(says)
		s.StoreId = id
		r.take(m, s, nil)
		r.update()
		assert.Equal(t, asked, len(*l.towers[0].sets[0].now.Load()) > 0, "%q", id)
		if !asked {
			assert.EqualError(t, r.Look().Nodes[0].Err, `its store is another one: that has the id "5678", and the router's "1234"`)
		}
	}
}

// A router that comes back to the log waits for no node where that would have answers refused.
func TestNobodyIsAwaitedBeyondTheFence(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		ago  time.Duration // of the last proof before
		want uint64
	}{{time.Second, 5}, {5*time.Second - 2*updateEvery, 5}, {5*time.Second - updateEvery/2, 6}, {9 * time.Second, 6}, {0, 6}} {
		r, l := ready(func() time.Time { return now }, 5*time.Second, 5, 6)
		proof := time.Time{} // none
		if c.ago > 0 {
			proof = now.Add(-c.ago)
		}
		r.mu.Lock()
		r.seen.add(viewAt("", 5, proof), now)
		r.seen.add(viewAt("", 6, now), now)
		r.mu.Unlock()
		r.update()
		at, ok := l.choose(r.seen.view, nil, now)
		require.True(t, ok)
		assert.Equal(t, c.want, at.Sequence, "%s", c.ago)
	}
}

// Once a person has accepted another log, queries go on to be asked of the one before, which is as
// old as its last proof, until all shards have the new one, or for as long as the fence.
func TestAcceptedLogIsAwaited(t *testing.T) {
	now := time.Now()
	r, l := ready(func() time.Time { return now }, 5*time.Second, 5, 5)
	r.mu.Lock()
	r.seen.add(viewAt("", 5, now.Add(-2*time.Second)), now)
	r.seen.add(viewAt("b", 4, now), now)
	r.mu.Unlock()
	last := &livelog.Laid{Overlaid: &overlay.Overlaid{Position: shard.Position{Sequence: 5}}, View: viewAt("", 5, now)}
	choose := func() shard.Position {
		for _, m := range r.members {
			r.take(m, m.status, nil)
		}
		r.update()
		at, ok := l.choose(r.seen.view, last, now)
		require.True(t, ok)
		return at
	}
	assert.Equal(t, shard.Position{Sequence: 5}, choose())
	proof, lags := r.seen.proved(shard.Position{Sequence: 5})
	require.True(t, lags)
	assert.InDelta(t, 2*time.Second, now.Sub(proof), float64(time.Second), "it is as old as that")

	for _, h := range r.members["a"].status.Snapshots[0].Shards {
		h.Log, h.Newest = "b", 4
	}
	assert.Equal(t, shard.Position{Log: "b", Sequence: 4}, choose(), "each shard has a node that has read it")
	for _, h := range r.members["a"].status.Snapshots[0].Shards {
		h.Log, h.Newest = "", 5
	}
	for range 30 {
		now = now.Add(updateEvery)
		choose()
	}
	assert.Equal(t, shard.Position{Log: "b", Sequence: 4}, choose(), "those that do not follow are lost")
}

// Nodes may go between being counted and being asked.
func TestLearnWhileNodesGo(t *testing.T) {
	_, l := ready(time.Now, 0)
	_, err := l.towers[0].learn(t.Context(), l.manifest)
	require.ErrorAs(t, err, new(*NoReplicaError))
}

func towerOf(k shard.Kind) tandemv1.Tower {
	if k == shard.Users {
		return tandemv1.Tower_TOWER_USERS
	}
	return tandemv1.Tower_TOWER_APPS
}
