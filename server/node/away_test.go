package node_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// holds returns which shards of apps a node has of the first snapshot.
func (w *world) holds(r *running) (list []int) {
	s, _ := r.Status()
	for number := range shards {
		if heldOf(s, w.of(0, number)) != nil {
			list = append(list, number)
		}
	}
	return list
}

// placedOn returns which shards of apps a member is to hold among some.
func (w *world) placedOn(t *testing.T, member string, factor int, members ...string) (list []int) {
	t.Helper()
	var spots []placement.Shard
	for number := range shards {
		for key, tower := range map[string]manifest.Tower{"apps": w.manifests[0].Apps, "users": w.manifests[0].Users} {
			spots = append(spots, placement.Shard{Key: fmt.Sprintf("%s/%d", key, number), Bytes: tower.Shards[number].Size})
		}
	}
	plan, err := placement.Place(membersOf(members...), spots, factor)
	require.NoError(t, err)
	for _, s := range plan.Shards() {
		if number, is := strings.CutPrefix(s.Key, "apps/"); is && slices.Contains(s.Members, member) {
			n, err := strconv.Atoi(number)
			require.NoError(t, err)
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

// What a member holds stays its own while it may be back, and is another's then.
func TestMembersThatAreBackMoveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		with, without := w.placedOn(t, "a", 2, "a", "b", "c"), w.placedOn(t, "a", 2, "a", "b")
		require.Less(t, len(with), len(without), "a has to take over something")
		n := w.run(t, node.Config{Name: "a", Factor: 2, Grace: 30 * time.Second}, t.TempDir(), "a", "b", "c")
		n.ready(t, 1, 1)
		require.Equal(t, with, w.holds(n))
		loaded := len(n.downloads())

		for range 3 { // it restarts, and each time begins anew
			n.Members(membersOf("a", "b"))
			for range 4 {
				time.Sleep(7 * time.Second)
				n.Members(membersOf("a", "b")) // who lists them says so again
			}
			n.Members(membersOf("a", "b", "c"))
			time.Sleep(time.Minute)
			require.Equal(t, with, w.holds(n))
		}
		assert.Len(t, n.downloads(), loaded)
		require.Len(t, n.told(events.HeldAway), 3)
		assert.Equal(t, events.Held{Change: events.HeldAway, Node: "c", Nodes: 1, Retry: 30 * time.Second}, n.told(events.HeldAway)[0])

		n.Members(membersOf("a", "b"))
		time.Sleep(29 * time.Second)
		require.Equal(t, with, w.holds(n))
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, without, w.holds(n), "nobody had to tell it that the time was over")
	})
}

// What nobody else would hold is not waited for, and neither is anybody without a grace.
func TestNobodyIsWaitedForWhereNoOtherIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		config node.Config
		left   []string
	}{
		"one replica":           {node.Config{Factor: 1, Grace: time.Hour}, []string{"a"}},
		"both nodes of a shard": {node.Config{Factor: 2, Grace: time.Hour}, []string{"a"}},
		"no grace":              {node.Config{Factor: 2}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				c.config.Name = "a"
				n := w.run(t, c.config, t.TempDir(), "a", "b", "c")
				n.ready(t, 1, 1)
				before, after := w.holds(n), w.placedOn(t, "a", c.config.Factor, c.left...)
				require.Less(t, len(before), len(after))
				n.Members(membersOf(c.left...))
				time.Sleep(time.Second)
				require.Equal(t, after, w.holds(n))
			})
		})
	}
}

// A node that is taken off the list itself holds what it had while it may be back.
func TestNodeItselfIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		n := w.run(t, node.Config{Name: "a", Factor: 2, Grace: 30 * time.Second}, t.TempDir(), "a", "b", "c")
		n.ready(t, 1, 1)
		before := w.holds(n)
		require.NotEmpty(t, before)
		n.Members(membersOf("b", "c"))
		time.Sleep(time.Minute)
		require.Equal(t, before, w.holds(n), "others have not said that they hold it")
		n.Members(membersOf("a", "b", "c"))
		time.Sleep(time.Second)
		require.Equal(t, before, w.holds(n))
		assert.Empty(t, n.told(events.HeldLetGo))
	})
}

func TestNegativeGraceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		_, err := node.New(node.Config{Store: w.store, Name: "a", Factor: 1, MemoryLimit: 1, Grace: -time.Second})
		require.EqualError(t, err, "new node: the grace is -1s, want at least 0")
	})
}
