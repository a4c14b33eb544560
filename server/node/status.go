package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
)

// changesEvery is how long a status stays at least: entries of the live log, and shards that are
// loaded, come in bursts.
const changesEvery = 20 * time.Millisecond

// board shows a status until it changes.
type board struct {
	make func() *shardv1.NodeStatus
	now  atomic.Pointer[shown]
	news chan struct{} // has an element when there is another one
}

// shown is a status, and what is closed when another takes its place.
type shown struct {
	status *shardv1.NodeStatus
	next   chan struct{}
}

func newBoard(status func() *shardv1.NodeStatus) *board {
	b := &board{make: status, news: make(chan struct{}, 1)}
	b.now.Store(&shown{status(), make(chan struct{})})
	return b
}

// read returns the status, and what is closed when it has changed.
func (b *board) read() (*shardv1.NodeStatus, <-chan struct{}) {
	now := b.now.Load()
	return now.status, now.next
}

// changed has the status made anew. It does not wait.
func (b *board) changed() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// run makes the status anew whenever that is due, until ctx ends, and then once more.
func (b *board) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-b.news:
		case <-ctx.Done():
		}
		b.show()
		rest(ctx, changesEvery)
	}
	b.show()
}

func (b *board) show() {
	last := b.now.Swap(&shown{b.make(), make(chan struct{})})
	close(last.next)
}

// maxError is how many bytes of an error a status has.
const maxError = 1 << 10

// status says what the node is and holds.
func (n *Node) status() *shardv1.NodeStatus {
	n.mu.RLock()
	defer n.mu.RUnlock()
	m := &shardv1.NodeStatus{
		Name: n.name, Zone: n.c.Zone, Weight: uint64(n.c.MemoryLimit), Mapped: uint64(n.mapped(nil)), Phase: n.phase,
		Replicas: uint32(n.c.Factor), StoreId: n.c.StoreID,
	}
	if n.newest != nil {
		m.Generation = n.newest.Generation
	}
	if at, read := n.live.Entry(); read {
		m.Read = &tandemv1.LivePosition{Log: at.Log, Sequence: at.Sequence}
		if !at.Hash.IsZero() {
			m.Entry = at.Hash[:]
		}
	}
	list := make([]*slot, 0, len(n.slots))
	for _, s := range n.slots {
		if !s.withdrawn {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *slot) int {
		return cmp.Or(strings.Compare(string(a.key.snapshot), string(b.key.snapshot)), cmp.Compare(a.tower, b.tower), cmp.Compare(a.number, b.number))
	})
	var last *shardv1.HeldSnapshot
	for _, s := range list {
		if last == nil || last.Snapshot != string(s.key.snapshot) {
			last = &shardv1.HeldSnapshot{Snapshot: string(s.key.snapshot)}
			m.Snapshots = append(m.Snapshots, last)
		}
		last.Shards = append(last.Shards, s.status())
	}
	return m
}

// status says how far a shard is. The caller has the lock of the node.
func (s *slot) status() *shardv1.HeldShard {
	m := &shardv1.HeldShard{Tower: tandemv1.Tower_TOWER_APPS, Number: uint32(s.number), State: shardv1.HeldState_HELD_STATE_LOADING}
	if s.tower == shard.Users {
		m.Tower = tandemv1.Tower_TOWER_USERS
	}
	err := s.err
	if s.now != nil {
		m.State = shardv1.HeldState_HELD_STATE_READY
		if err = s.now.failure(); err != nil && s.err != nil {
			err = s.err // why it could not be opened again
		}
		s.position(m)
	}
	if err != nil {
		m.State = shardv1.HeldState_HELD_STATE_FAILED
		text := strings.ToValidUTF8(err.Error(), "\ufffd")
		m.Error = strings.ToValidUTF8(text[:min(len(text), maxError)], "")
	}
	return m
}

// position says at which positions a shard can be asked, and what there is at the last.
func (s *slot) position(m *shardv1.HeldShard) {
	oldest, newest := s.now.layer.Range()
	now := s.now.layer.Now()
	m.Log, m.Oldest, m.Newest = newest.Log, oldest.Sequence, newest.Sequence
	m.Rows, m.Changed = uint64(now.Tower.Rows()), uint64(now.Status.Changed)
	m.Dead, m.Fresh = uint64(now.Status.Dead), uint64(now.Status.Fresh)
	for _, rows := range now.Tower.SegmentRows() {
		m.SegmentRows = append(m.SegmentRows, uint64(rows))
	}
}
