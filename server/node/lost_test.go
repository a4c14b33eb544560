package node_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// cluster is nodes that ask one another, some of which are members.
type cluster struct {
	*world
	nodes map[string]*running
}

// holds asks a node whether it holds a shard.
func (c *cluster) holds(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool {
	_, release, err := c.nodes[member].Acquire(ctx, of, at)
	if err == nil {
		release()
	}
	time.Sleep(20 * time.Millisecond) // until the answer is there
	return err == nil
}

// somebody waits a moment until some nodes have a shard ready, by their own word, and returns
// the first of them, nil if none has it: two that rely on each other hold it back meanwhile.
func (c *cluster) somebody(of remote.ShardID) *running {
	for range 10 {
		for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
			s, _ := c.nodes[name].Status()
			if heldOf(s, of).GetState() == shardv1.HeldState_HELD_STATE_READY {
				return c.nodes[name]
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// requireHeld checks that of each shard of a snapshot some node has it ready, by its own word, and
// answers.
func (c *cluster) requireHeld(t *testing.T, n int, at shard.Position, down map[int]int, what string) {
	t.Helper()
	for number := range shards {
		have := c.somebody(c.of(n, number))
		require.NotNil(t, have, "shard %d after %s", number, what)
		c.requireBest(t, have, n, number, at, down[number])
	}
}

// Two nodes that were told of different members, each of which relies on the other, do not both
// let go.
func TestTwoRelyOnEachOther(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			c := &cluster{newWorld(t, 1), map[string]*running{}}
			for _, name := range []string{"a", "b"} {
				c.nodes[name] = c.run(t, node.Config{Name: name, Holds: c.holds}, t.TempDir(), name)
			}
			for _, r := range c.nodes {
				r.ready(t, 1, 1)
			}
			c.nodes["a"].Members(membersOf("b"))
			time.Sleep(time.Duration(seed) * 3 * time.Second)
			c.nodes["b"].Members(membersOf("a"))
			for range 120 {
				time.Sleep(time.Second)
				for number := range shards {
					require.NotNil(t, c.somebody(c.of(0, number)))
				}
			}
		})
	}
}

// Whatever members each node is told of, and when, no shard of a snapshot that a router uses is
// let go of by all, and in the end each is where it is to be and nowhere else.
func TestNothingIsLost(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) { testNothingIsLost(t, seed) })
	}
}

func testNothingIsLost(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	names := []string{"a", "b", "c"}
	c := &cluster{newWorld(t, 2), map[string]*running{}}
	cfg := func(name string) node.Config {
		return node.Config{Name: name, Holds: c.holds, Keep: time.Minute, Factor: 1 + int(seed%2)}
	}
	for _, name := range names {
		c.nodes[name] = c.run(t, cfg(name), t.TempDir(), "a")
		t.Cleanup(c.nodes[name].Uses("router", []string{string(c.digests[0])}))
	}
	c.nodes["a"].ready(t, 1, 1)
	var at shard.Position
	down := map[int]int{}
	for step := range 40 {
		what := fmt.Sprintf("seed %d, step %d", seed, step)
		switch r.IntN(4) {
		case 0:
			number := r.IntN(shards)
			if down[number] < 5 {
				at = c.takeDown(t, ids(number)[down[number]])
				down[number]++
			}
		default: // one node is told of others
			var members []string
			for _, name := range names {
				if r.IntN(2) == 0 {
					members = append(members, name)
				}
			}
			c.nodes[names[r.IntN(3)]].Members(membersOf(members...))
		}
		if step == 20 {
			c.promote(t, 1)
		}
		time.Sleep(time.Duration(r.IntN(20_000)) * time.Millisecond)
		c.requireHeld(t, 0, at, down, what)
	}
	for _, name := range names {
		c.nodes[name].Members(membersOf(names...))
	}
	time.Sleep(time.Minute)
	copies := 0
	for _, name := range names {
		for _, snapshot := range c.nodes[name].ready(t, 3, 2).GetSnapshots() {
			copies += len(snapshot.GetShards())
		}
	}
	require.Equal(t, 2*2*shards*(1+int(seed%2)), copies)
	c.requireHeld(t, 0, at, down, "all")
	c.requireHeld(t, 1, at, down, "all")
}
