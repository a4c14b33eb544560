package router

import (
	"cmp"
	"slices"
	"strings"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Cluster is what a router knows of its nodes and shards at one moment.
type Cluster struct {
	Replicas int // that each shard is to have
	Nodes    []Node
	// Shards are those of the snapshots that are open and can be asked, those that the fewest
	// nodes are ready for first.
	Shards []ShardState
	// Lag is for how long there has been a newer position than that which queries are asked at,
	// of the snapshot for which that is longest; 0 if they are asked at the newest.
	Lag    time.Duration
	Counts Counts
}

// ShardState is how a shard of an open snapshot stands.
type ShardState struct {
	Of    remote.ShardID
	Ready int // nodes that are asked for it: neither left alone nor about to stop
	// Why is what nodes that are not ready say, where there are fewer than there are to be;
	// empty if none is to hold it.
	Why string
}

// Node is what a router knows of a node.
type Node struct {
	Member
	// Status is what it said last of itself, nil if it cannot be watched, and Err why.
	Status *shardv1.NodeStatus
	Heard  time.Time // when it said so
	Err    error
	// Out is whether it is left alone, since it failed several times in a row.
	Out      bool
	InFlight int // requests of this router
	// Position is the newest that all shards it is ready for have, of the log that is
	// followed, and Lag for how long there has been a newer one. Has is whether there is any.
	Position shard.Position
	Has      bool
	Lag      time.Duration
}

// Look returns what is known. What it returns is not changed any more.
func (r *Router) Look() Cluster {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	out := Cluster{Replicas: r.o.Replicas, Nodes: r.nodes(now), Counts: r.Counts()}
	seen := map[manifest.Digest]bool{}
	for l := range r.layers {
		laid := l.now.Load()
		if laid == nil || seen[l.digest] {
			continue
		}
		seen[l.digest] = true
		out.Lag = max(out.Lag, r.lag(laid.Position(), now))
		for _, b := range l.towers {
			for _, s := range b.sets {
				state := ShardState{Of: s.of}
				for _, one := range *s.now.Load() {
					if !one.spare && !one.isOut() {
						state.Ready++
					}
				}
				if state.Ready < r.o.Replicas {
					state.Why = r.why(s.of)
				}
				out.Shards = append(out.Shards, state)
			}
		}
	}
	slices.SortFunc(out.Shards, func(a, b ShardState) int {
		return cmp.Or(a.Ready-b.Ready, cmp.Compare(a.Of.Snapshot, b.Of.Snapshot), cmp.Compare(a.Of.Tower, b.Of.Tower), a.Of.Number-b.Of.Number)
	})
	return out
}

// lag is for how long there has been a newer position than one. The caller holds mu.
func (r *Router) lag(at shard.Position, now time.Time) time.Duration {
	return max(r.seen.lag(at, now), 0)
}

// nodes returns what is known of each node, in the order of their addresses. The caller holds
// mu.
func (r *Router) nodes(now time.Time) (list []Node) {
	for _, m := range r.members {
		n := Node{Member: m.Member, Status: m.status, Heard: m.heard, Err: m.failed, Out: m.isOut(), InFlight: int(m.inFlight.Load())}
		n.Leaving = n.Leaving || !m.left.IsZero()
		if n.Status == nil && n.Err == nil && !m.heard.IsZero() {
			n.Err = errSilent
		}
		for _, snapshot := range n.Status.GetSnapshots() {
			for _, h := range snapshot.GetShards() {
				at := shard.Position{Log: h.GetLog(), Sequence: h.GetNewest()}
				if h.GetState() == shardv1.HeldState_HELD_STATE_READY && (!n.Has || at.Log != r.seen.log || at.Sequence < n.Position.Sequence) {
					n.Has, n.Position = true, at
				}
			}
		}
		if n.Has {
			n.Lag = r.lag(n.Position, now)
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Node) int { return strings.Compare(a.Address, b.Address) })
	return list
}
