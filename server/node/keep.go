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
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	// loads is how many shards are loaded at a time: while one is downloaded another is read.
	loads = 2
	// lookEvery is how often it is looked at least at what is to be held: whether what is open
	// can be read is noticed so.
	lookEvery = 5 * time.Second
	// lookSoonest is how long it takes at least where nothing happens but that time passes.
	lookSoonest = 50 * time.Millisecond
	// askEvery is how often others are asked whether they hold what this node is not to hold any
	// more, askPatience how long one answer may take, and allPatience all of them.
	askEvery, askPatience, allPatience = 5 * time.Second, time.Second, 10 * time.Second
	// parting is how long what others hold by now stays: routers hear of that within a moment,
	// and end the queries that they have begun.
	parting = 10 * time.Second
)

// snapshot is one that is needed, or was.
type snapshot struct {
	manifest *manifest.Manifest // nil before it was read
	failing
	released bool      // whether the newest release has it
	used     bool      // whether a router uses it
	needed   time.Time // when it was last, or began to be
}

// isNeeded reports whether its shards are to be loaded.
func (s *snapshot) isNeeded() bool { return s.released || s.used }

// failing is what has failed, and when it is tried again.
type failing struct {
	err   error
	pause time.Duration
	retry time.Time
}

// fail notes a failure.
func (f *failing) fail(err error) {
	last := lastRetry
	if errors.Is(err, sections.ErrCorrupt) || errors.Is(err, snapshots.ErrNoSnapshot) {
		last = corruptRetry
	}
	f.pause = min(max(2*f.pause, firstRetry), last)
	f.err, f.retry = err, time.Now().Add(f.pause)
}

// key names a shard.
type key struct {
	snapshot manifest.Digest
	tower    shard.Kind
	number   int
}

// slot is a shard that is held, or is to be. Only keep changes it, with the lock of the node.
type slot struct {
	key
	snapshot *snapshot
	failing
	now     *mapping           // nil if it is not open
	loading context.CancelFunc // nil if it is not being loaded
	wanted  bool               // whether it is to be held here
	parted  time.Time          // since when all others have it that are to; zero if they have not
	// withdrawn is whether it is not given out any more, to see whether others still have it then.
	withdrawn bool
}

// of is how many shards the tower has.
func (s *slot) of() int { return len(s.snapshot.manifest.Tower(s.tower).Shards) }

// file is the shard's file.
func (s *slot) file() manifest.Shard { return s.snapshot.manifest.Tower(s.tower).Shards[s.number] }

// id is the shard's name among nodes.
func (s *slot) id() remote.ShardID {
	return remote.ShardID{Snapshot: s.key.snapshot, Tower: s.tower, Number: s.number, Of: s.of()}
}

// keep has the node hold what it is to, until ctx ends.
func (n *Node) keep(ctx context.Context, working *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.news:
		case <-timer.C:
		case r := <-n.loaded:
			n.take(r)
		case answers := <-n.asked:
			n.asking = false
			n.part(answers)
		}
		n.look(ctx, working)
		n.close()
		timer.Reset(n.nextLook())
		n.board.changed()
	}
}

// look compares what is held with what is to be, and begins what is missing.
func (n *Node) look(ctx context.Context, working *sync.WaitGroup) {
	newest := n.remember(ctx)
	if newest == nil {
		return // it could not be remembered
	}
	n.need(newest)
	n.readManifests(ctx)
	if !n.want() {
		return
	}
	n.letGo()
	n.load(ctx, working)
	n.askOthers(ctx, working)
	n.judge(newest)
}

// remember returns the newest release that the node has remembered to have read: nothing is
// loaded for one that it has not.
func (n *Node) remember(ctx context.Context) *release.Release {
	n.mu.RLock()
	newest := n.newest
	n.mu.RUnlock()
	if newest == n.remembered {
		return newest
	}
	if err := newest.Remember(ctx, n.c.Memory); err != nil {
		if ctx.Err() == nil {
			n.events.NotServed(events.NotServed{Generation: newest.Generation, Err: err, Retry: lookEvery})
		}
		return n.remembered
	}
	n.remembered = newest
	return newest
}

// need notes which snapshots are needed.
func (n *Node) need(newest *release.Release) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.known {
		s.released, s.used = false, false
	}
	of := func(d manifest.Digest) *snapshot {
		s := n.known[d]
		if s == nil {
			s = &snapshot{}
			n.known[d] = s
		}
		s.needed = time.Now()
		return s
	}
	for _, a := range newest.Arms {
		of(a.Snapshot).released = true
	}
	for u := range n.uses {
		for _, d := range u.snapshots {
			of(d).used = true
		}
	}
}

// readManifests reads the manifests of what is needed that were not read yet.
func (n *Node) readManifests(ctx context.Context) {
	for d, s := range n.known { // which only keep changes
		if s.manifest != nil || !s.isNeeded() || time.Now().Before(s.retry) {
			continue
		}
		m, err := n.c.Store.Manifest(ctx, d)
		if ctx.Err() != nil {
			return
		}
		n.mu.Lock()
		if err != nil {
			s.fail(err)
		} else {
			s.manifest, s.failing = m, failing{}
		}
		n.mu.Unlock()
		if err != nil {
			n.events.Held(events.Held{Change: events.HeldNot, Snapshot: d, Err: err, Retry: s.pause})
		}
	}
}

// want makes a slot for each shard that this node is to hold. It reports whether that is known.
func (n *Node) want() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members == nil {
		return false // nobody has said who there is
	}
	n.findSelf()
	if shards, ok := n.places(); ok {
		if err := n.replace(shards); err != nil {
			n.events.Held(events.Held{Change: events.HeldNot, Err: err, Retry: lookEvery})
		}
	}
	if n.mine == nil {
		return false
	}
	for _, s := range n.slots {
		s.wanted = false
	}
	for d, s := range n.known {
		if s.manifest == nil || !s.isNeeded() {
			continue
		}
		for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
			for number := range s.manifest.Tower(kind).Shards {
				k := key{d, kind, number}
				if !slices.Contains(n.mine.of(k), n.name) {
					continue
				}
				if n.slots[k] == nil {
					n.slots[k] = &slot{key: k, snapshot: s}
				}
				n.slots[k].wanted = true
			}
		}
	}
	return true
}

// places returns what is to be placed. Where a manifest of the newest release could not be read
// that is not known. The caller has the lock.
func (n *Node) places() (list []placement.Shard, ok bool) {
	var released, others []*manifest.Manifest
	for _, s := range n.known {
		switch {
		case s.manifest == nil && s.released:
			return nil, false // that it could not be read was told
		case s.manifest == nil:
		case s.released:
			released = append(released, s.manifest)
		default:
			others = append(others, s.manifest)
		}
	}
	return placesOf(released, others), true
}

// letGo lets go of what is not needed any more, and of what others hold.
func (n *Node) letGo() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for d, s := range n.known {
		if !s.isNeeded() && (s.manifest == nil || time.Since(s.needed) >= n.c.Keep) {
			delete(n.known, d)
		}
	}
	for _, s := range n.slots {
		switch {
		case s.wanted:
			s.parted, s.withdrawn = time.Time{}, false
		case n.known[s.key.snapshot] == nil, s.now == nil:
			n.drop(s)
		case len(n.mine.of(s.key)) == 0: // there is nobody to ask
			s.parted, s.withdrawn = time.Time{}, false
		case !s.parted.IsZero() && time.Since(s.parted) >= parting && !s.withdrawn:
			s.withdrawn, n.askedAt = true, time.Time{}
		}
	}
}

// drop lets go of a slot. The caller has the lock.
func (n *Node) drop(s *slot) {
	if s.loading != nil {
		s.loading() // what comes of it is closed
	}
	if s.now != nil {
		n.closing = append(n.closing, s.now)
		n.events.Held(events.Held{Change: events.HeldLetGo, Snapshot: s.key.snapshot, Shard: s.name(), Bytes: s.file().Size})
	}
	delete(n.slots, s.key)
}

// close closes what was let go of, unless it is being asked. That waits for the live log to be
// laid over other shards, and so the lock is not for it.
func (n *Node) close() {
	for _, m := range n.closing {
		m.release()
	}
	n.closing = n.closing[:0]
}

// question is about a shard that this node is not to hold any more: whether others hold it.
type question struct {
	key
	id        remote.ShardID
	others    []string
	withdrawn bool // whether this node did not give it out when they were asked
	held      bool // the answer: whether all of them do
}

// askOthers asks those who are to hold what this node is not to any more whether they do.
func (n *Node) askOthers(ctx context.Context, working *sync.WaitGroup) {
	if n.c.Holds == nil || n.asking || time.Since(n.askedAt) < askEvery {
		return
	}
	var list []question
	n.mu.RLock()
	for _, s := range n.slots {
		if others := n.mine.of(s.key); !s.wanted && s.now != nil && s.snapshot.isNeeded() && len(others) > 0 {
			list = append(list, question{key: s.key, id: s.id(), others: others, withdrawn: s.withdrawn})
		}
	}
	n.mu.RUnlock()
	if len(list) == 0 {
		return
	}
	// What is not given out meanwhile is not to wait for the rest.
	if last := slices.DeleteFunc(slices.Clone(list), func(q question) bool { return !q.withdrawn }); len(last) > 0 {
		list = last
	}
	n.asking, n.askedAt = true, time.Now()
	at := n.live.Position()
	working.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, allPatience)
		defer cancel()
		for i := range list {
			q := &list[i]
			q.held = !slices.ContainsFunc(q.others, func(name string) bool { return !n.holds(ctx, name, q.id, at) })
		}
		n.asked <- list // there is room
	})
}

// holds asks a member whether it holds a shard.
func (n *Node) holds(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	return n.c.Holds(ctx, member, of, at)
}

// part lets go of what others hold, in two steps: after a time in which they have said so, it is
// given out no more, and they are asked again. Of two that rely on each other, since they were
// told of other members, one at least then hears that the other has it no more, and goes on.
func (n *Node) part(answers []question) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range answers {
		s := n.slots[q.key]
		if s == nil || s.wanted {
			continue
		}
		switch {
		case !q.held:
			s.parted, s.withdrawn = time.Time{}, false
		case q.withdrawn && s.withdrawn:
			n.drop(s)
		case s.parted.IsZero():
			s.parted = time.Now()
		}
	}
}

// judge makes the node ready once all is loaded that it is to hold of the newest release and of
// what routers use, or has failed, and was told to. One that is not a member yet is to hold
// nothing, and not ready, and neither is one that routers had no time to find: whoever restarts
// nodes one by one would go on. It tells when all of the newest release is loaded.
func (n *Node) judge(newest *release.Release) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := events.Held{Change: events.HeldAll, Generation: newest.Generation}
	tried, whole := n.missing == "", n.missing == ""
	for _, s := range n.known {
		if s.released && s.manifest == nil {
			return
		}
	}
	for _, s := range n.slots {
		if !s.wanted {
			continue
		}
		tried = tried && (s.now != nil || s.err != nil)
		if !s.snapshot.released {
			continue
		}
		all.Shards++
		all.Bytes += s.file().Size
		whole = whole && s.now != nil
	}
	tried = tried && time.Since(n.begun) >= n.c.Hearing
	if tried && n.phase == shardv1.NodePhase_NODE_PHASE_STARTING {
		n.phase = shardv1.NodePhase_NODE_PHASE_READY
	}
	if whole && n.told != newest.Generation {
		n.told = newest.Generation
		n.events.Held(all)
	}
}

// findSelf tells if the node is none of the members. The caller has the lock.
func (n *Node) findSelf() {
	switch is := slices.ContainsFunc(n.members, func(m placement.Member) bool { return m.Name == n.name }); {
	case is:
		n.missing = ""
	case n.missing != n.name:
		n.missing = n.name
		n.events.Held(events.Held{Change: events.HeldNoMember, Node: n.name, Err: membersError(n.members)})
	}
}

// shownMembers is how many members an error names, and shownName how many bytes of each.
const shownMembers, shownName = 4, 100

// membersError says who there is, where this node is not.
func membersError(list []placement.Member) error {
	if len(list) == 0 {
		return errors.New("there are no members")
	}
	text := "the members are "
	for i, m := range list[:min(len(list), shownMembers)] {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%.*q", shownName, m.Name)
	}
	if more := len(list) - shownMembers; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return errors.New(text)
}

// nextLook returns when to look again, if nothing happens.
func (n *Node) nextLook() time.Duration {
	n.mu.RLock()
	defer n.mu.RUnlock()
	next := time.Now().Add(lookEvery)
	if n.phase == shardv1.NodePhase_NODE_PHASE_STARTING && time.Since(n.begun) < n.c.Hearing {
		next = n.begun.Add(n.c.Hearing)
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(n.back())
	for _, s := range n.known {
		if s.manifest == nil && s.isNeeded() {
			sooner(s.retry)
		}
		if !s.isNeeded() {
			sooner(s.needed.Add(n.c.Keep))
		}
	}
	for _, s := range n.slots {
		if s.wanted && s.loading == nil && s.err != nil {
			sooner(s.retry)
		}
		if !s.parted.IsZero() && !s.withdrawn {
			sooner(s.parted.Add(parting))
		}
	}
	return max(time.Until(next), lookSoonest)
}

// byNeed orders slots: those that routers use first, so that what answers is there again soonest.
func byNeed(a, b *slot) int {
	rank := func(s *slot) int {
		switch {
		case s.snapshot.used:
			return 0
		case s.snapshot.released:
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.key.snapshot, b.key.snapshot),
		cmp.Compare(a.tower, b.tower), cmp.Compare(a.number, b.number))
}
