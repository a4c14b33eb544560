package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// result is what came of loading a shard.
type result struct {
	slot *slot
	open *mapping // nil after an error
	err  error
	took time.Duration
}

// name is that of the shard in its snapshot.
func (s *slot) name() string { return fmt.Sprintf("%s-%04d", s.tower, s.number) }

// isDue reports whether a slot is to be loaded now: it is to be held, and is not open, or what
// is open cannot be read.
func (s *slot) isDue(now time.Time) bool {
	return s.wanted && s.loading == nil && (s.now == nil || s.now.failure() != nil) && !now.Before(s.retry)
}

// load begins to load what is due, as much at a time as may be.
func (n *Node) load(ctx context.Context, working *sync.WaitGroup) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase == shardv1.NodePhase_NODE_PHASE_STOPPING {
		return
	}
	var due []*slot
	for _, s := range n.slots {
		if s.isDue(time.Now()) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, byNeed)
	for _, s := range due {
		if n.loading == loads {
			return
		}
		if err := n.admit(s); err != nil {
			n.fail(s, err)
			continue
		}
		n.loading++
		loading, cancel := context.WithCancel(ctx)
		s.loading = cancel
		working.Go(func() {
			start := time.Now()
			open, err := n.openShard(loading, s)
			cancel()
			n.loaded <- result{s, open, err, time.Since(start)} // there is room
		})
	}
}

// openShard opens a shard, warms it, and lays the live log over it.
func (n *Node) openShard(ctx context.Context, s *slot) (*mapping, error) {
	m := s.snapshot.manifest // which does not change once it is read
	tower, err := snapshots.OpenShard(ctx, n.c.Store, m, s.tower, s.number)
	if err != nil {
		return nil, err
	}
	if err := snapshots.WarmTower(ctx, tower); err != nil {
		return nil, errors.Join(fmt.Errorf("warm: %w", err), tower.Close())
	}
	layer, err := n.live.LayShard(ctx, livelog.OneShard{Tower: tower, Snapshot: m, Digest: s.key.snapshot, Number: s.number})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lay the live log over it: %w", err), tower.Close())
	}
	open := &mapping{tower: tower, layer: layer}
	open.users.Store(1)
	n.open.Add(1)
	open.closed = func(err error) {
		if err != nil {
			n.events.Closed(events.Closed{Snapshot: s.key.snapshot, Err: err})
		}
		n.open.Done()
	}
	return open, nil
}

// take takes in what came of loading a shard.
func (n *Node) take(r result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loading--
	s := r.slot
	s.loading = nil
	if n.slots[s.key] != s { // it was let go of meanwhile
		if r.open != nil {
			n.closing = append(n.closing, r.open)
		}
		return
	}
	if r.err != nil {
		n.fail(s, r.err)
		return
	}
	if s.now != nil {
		n.closing = append(n.closing, s.now)
	}
	s.now, s.failing = r.open, failing{}
	n.events.Held(events.Held{Change: events.HeldReady, Snapshot: s.key.snapshot, Shard: s.name(), Bytes: s.file().Size, Took: r.took})
}

// fail notes that a shard could not be loaded, and tells of it. The caller has the lock.
func (n *Node) fail(s *slot, err error) {
	s.failing.fail(err)
	n.events.Held(events.Held{Change: events.HeldNot, Snapshot: s.key.snapshot, Shard: s.name(), Err: err, Retry: s.pause})
}

// admit makes sure that a shard fits beside what is open. For that it closes what nobody needs,
// what was needed longest ago first, and no more of it than it must. The caller has the lock.
func (n *Node) admit(s *slot) error {
	size := func() int64 { return n.mapped(s) }
	if size() <= n.c.MemoryLimit {
		return nil
	}
	var free []*slot
	for _, o := range n.slots {
		if o.now != nil && !o.snapshot.isNeeded() {
			free = append(free, o)
		}
	}
	least := n.mapped(s, free...)
	if least > n.c.MemoryLimit {
		file := s.file().Size
		return fmt.Errorf("not admitted: it takes %d bytes beside the %d that answer or are loaded, and %d may be mapped", file, least-file, n.c.MemoryLimit)
	}
	slices.SortFunc(free, func(a, b *slot) int {
		return cmp.Or(a.snapshot.needed.Compare(b.snapshot.needed), byNeed(a, b))
	})
	for _, o := range free {
		n.drop(o)
		if size() <= n.c.MemoryLimit {
			break
		}
	}
	return nil
}

// mapped returns how many bytes are mapped, or will be once what is being loaded is, with one
// more slot, and without others. What several snapshots have is in memory once. The caller has
// the lock.
func (n *Node) mapped(more *slot, without ...*slot) (bytes int64) {
	counted := map[manifest.Digest]bool{}
	count := func(s *slot) {
		if file := s.file(); !counted[file.Digest] {
			counted[file.Digest] = true
			bytes += file.Size
		}
	}
	for _, s := range n.slots {
		if (s.now != nil || s.loading != nil) && !slices.Contains(without, s) {
			count(s)
		}
	}
	if more != nil {
		count(more)
	}
	return bytes
}
