package router

import (
	"cmp"
	"slices"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// update makes the sets of all layers what nodes say, and has layers asked at the position
// that is best then.
func (r *Router) update() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	var stood time.Duration // for which this process heard nothing, whoever spoke
	if since := now.Sub(r.looked); !r.looked.IsZero() && since > stall {
		stood = since
	}
	r.looked = now
	if v := r.seen.view; v == nil || r.o.Fence > 0 && v.Proof.Age() > r.o.Fence {
		r.unproved = now
	}
	list := make([]*member, 0, len(r.members))
	for address, m := range r.members {
		m.heard = m.heard.Add(stood)
		if m.status != nil && now.Sub(m.heard) > silence {
			m.status = nil
			r.o.Events.Nodes(events.Nodes{Change: events.NodeLost, Node: m.Name, Address: address, Err: errSilent})
		}
		if m.parted = r.seen.parted(m.status, m.parted); m.parted != nil && m.status != nil {
			m.status, m.failed = nil, m.parted
			r.o.Events.Nodes(events.Nodes{Change: events.NodeLost, Node: m.Name, Address: address, Err: m.parted})
		}
		if !m.left.IsZero() && (m.status == nil || now.Sub(m.left) > leaveTime) {
			r.drop(m)
			continue
		}
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *member) int { return cmp.Compare(a.address, b.address) })
	for l := range r.layers {
		l.gather(list, now)
	}
	for l := range r.layers {
		l.lay(now)
	}
	for l := range r.layers { // none is left at a position before that of one which came after it
		l.lay(now)
	}
	close(r.updated)
	r.updated = make(chan struct{})
}

// drop forgets a node.
func (r *Router) drop(m *member) {
	delete(r.members, m.address)
	if m.stop != nil {
		m.stop()
	}
	m.node.Close()
}

type silentError struct{}

func (silentError) Error() string { return "it has said nothing for " + silence.String() }

var errSilent error = silentError{}

// gather makes the sets of a layer what nodes say.
func (l *Layer) gather(nodes []*member, now time.Time) {
	var next [2][][]replica
	for i, b := range l.towers {
		next[i] = make([][]replica, len(b.sets))
	}
	for _, m := range nodes {
		spare := m.Leaving || !m.left.IsZero() || m.status.GetPhase() == shardv1.NodePhase_NODE_PHASE_STOPPING
		for _, snapshot := range m.status.GetSnapshots() {
			if snapshot.GetSnapshot() != string(l.digest) {
				continue
			}
			for _, h := range snapshot.GetShards() {
				i := 0
				if kindOf(h.GetTower()) == shard.Users {
					i = 1
				}
				if h.GetState() != shardv1.HeldState_HELD_STATE_READY || uint64(h.GetNumber()) >= uint64(len(next[i])) {
					continue
				}
				// A store that is away from all says nothing about who is behind.
				lag := min(l.router.seen.lag(shard.Position{Log: h.GetLog(), Sequence: h.GetNewest()}, now), now.Sub(l.router.unproved))
				next[i][h.GetNumber()] = append(next[i][h.GetNumber()], replica{
					peer: m.peer, spare: spare, log: h.GetLog(), oldest: h.GetOldest(), newest: h.GetNewest(), held: heldIn(h),
					audits: m.status.GetAudits(), late: l.router.o.Fence > 0 && lag > l.router.o.Fence,
				})
			}
		}
	}
	for i, b := range l.towers {
		for number, s := range b.sets {
			s.now.Store(&next[i][number])
		}
	}
}

func heldIn(h *shardv1.HeldShard) held {
	out := held{rows: int(h.GetRows()), changed: int(h.GetChanged()), dead: int(h.GetDead()), fresh: int(h.GetFresh())}
	for _, n := range h.GetSegmentRows() {
		out.segmentRows = append(out.segmentRows, int(n))
	}
	return out
}

// heldOf is a shard that a node says it has, and a moment to ask it at.
type heldOf struct {
	of remote.ShardID
	at shard.Moment
}

// anyHeld returns a shard that a node says it is ready for, nil if there is none that an open
// snapshot has.
func (r *Router) anyHeld(m *member) *heldOf {
	for l := range r.layers {
		for _, b := range l.towers {
			for _, s := range b.sets {
				h := find(m.status, s.of)
				if h.GetState() == shardv1.HeldState_HELD_STATE_READY {
					at := shard.Moment{Snapshot: string(s.of.Snapshot), Position: shard.Position{Log: h.GetLog(), Sequence: h.GetNewest()}, Time: r.clock()}
					return &heldOf{s.of, at}
				}
			}
		}
	}
	return nil
}
