package router

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Options say how a router works. A zero field means its default, where there is one.
type Options struct {
	// Name tells nodes who asks. Required.
	Name string
	// Node returns how a node is asked. Required.
	Node func(address string) *remote.Node
	// Replicas is how many nodes are to have each shard. Default: 1.
	Replicas int
	// StoreID is the id of the store. A node of another one is not asked. Default: none, all are.
	StoreID string
	// Fence is for how long a node may be behind the live log: beyond that it is not asked.
	// Default: 0, for any time.
	Fence time.Duration
	// Events are told of nodes that come, go and fail. Default: nobody is.
	Events *events.Listener
	// Clock is time.Now, where that is not another.
	Clock func() time.Time
}

// Member is a node that may hold shards.
type Member struct {
	Name    string
	Address string // HOST:PORT of its shard RPC
	Zone    string
	// Leaving is whether whoever runs it is about to stop it.
	Leaving bool
}

const (
	// A node that could not be watched is tried again after firstRetry, and then twice as long
	// each time, up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
	// silence is how long a node may say nothing of itself: it speaks every second.
	silence = 3 * time.Second
	// leaveTime is how long a node that is no member any more may still be asked, where there is
	// no other: who lists members may be wrong for a moment.
	leaveTime = 30 * time.Second
	// updatePause is how long what nodes say is gathered for, and updateEvery how often the
	// time is looked at, if they say nothing.
	updatePause = 2 * time.Millisecond
	updateEvery = 250 * time.Millisecond
	// stall is how much time between two looks says that this process stood still.
	stall = silence / 2

	// Retries may be a fifth of the requests to nodes, and ten a second (as those of Finagle).
	retryShare, retryPerSecond, retryMost = 0.2, 10, 100
	// Hedges may be a share of the queries, however many shards those ask, and what was saved up
	// of that: of any thousand queries a twentieth. Some are kept for calls that take several
	// times as long as most: where all is well, those that are a little slower take all others.
	hedgeShare, hedgeMost, hedgeKept = 0.03, 20, 10
)

// Router knows the nodes, and which shards each can be asked for. Its methods are safe for any
// number of goroutines.
type Router struct {
	o       Options
	clock   func() time.Time
	retries *budget
	hedges  *budget
	counts  counts
	news    chan struct{} // has an element when something has changed

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	group   sync.WaitGroup  // what watches and probes
	members map[string]*member
	layers  map[*Layer]struct{}
	uses    map[manifest.Digest]int
	used    chan struct{} // closed when uses change
	updated chan struct{} // closed when layers were updated
	looked  time.Time     // when that was
	seen    positions
	// unproved is when the log was last seen not to be proved to end where this process has read it
	// to, within the fence.
	unproved time.Time
}

// counts are what was done, since the beginning.
type counts struct{ retries, denied, hedges, hedgesWon, ejected atomic.Int64 }

// Counts are how often what was done beside requests to one replica of each shard.
type Counts struct {
	Retries   int64 // requests to another replica after one has failed
	Denied    int64 // those that the budget did not allow
	Hedges    int64 // requests to another replica beside a slow one
	HedgesWon int64 // those that were faster
	Ejected   int64 // times that a node was left alone
}

// member is a node that is watched.
type member struct {
	Member
	*peer
	stop   context.CancelFunc
	status *shardv1.NodeStatus // what it said last; nil if it cannot be watched
	heard  time.Time           // when that was
	failed error               // why it cannot be
	parted error               // that its log is another one, as far as that is known; nil if it is not
	left   time.Time           // since when it is no member any more; zero if it is one
}

// New returns a router that knows of no node.
func New(o Options) *Router {
	o.Replicas = max(o.Replicas, 1)
	r := &Router{
		o: o, clock: o.Clock, news: make(chan struct{}, 1), members: map[string]*member{}, layers: map[*Layer]struct{}{},
		uses: map[manifest.Digest]int{}, used: make(chan struct{}), updated: make(chan struct{}),
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	if r.o.Events == nil {
		r.o.Events = events.Tee()
	}
	r.retries = newBudget(retryPerSecond, retryMost, r.clock)
	r.hedges = newBudget(0, hedgeMost, r.clock)
	return r
}

// Counts returns what was done so far.
func (r *Router) Counts() Counts {
	return Counts{
		Retries: r.counts.retries.Load(), Denied: r.counts.denied.Load(), Hedges: r.counts.hedges.Load(),
		HedgesWon: r.counts.hedgesWon.Load(), Ejected: r.counts.ejected.Load(),
	}
}

// Run watches the nodes that there are, until ctx ends. It is called once.
func (r *Router) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.ctx = ctx
	for _, m := range r.members {
		r.start(m)
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		cancel() // from now on nothing is started
		for _, m := range r.members {
			m.node.Close()
		}
		r.mu.Unlock()
		r.group.Wait()
	}()
	ticker := time.NewTicker(updateEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.news:
		}
		r.update()
		select {
		case <-ctx.Done():
			return
		case <-time.After(updatePause):
		}
	}
}

// changed has what is known looked at anew.
func (r *Router) changed() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// Members says which nodes there are. Those that were, and are not named, are asked only where
// there is no other, for a while.
func (r *Router) Members(list []Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	named := map[string]bool{}
	for _, given := range list {
		named[given.Address] = true
		m := r.members[given.Address]
		if m == nil {
			m = &member{peer: &peer{address: given.Address, node: r.o.Node(given.Address)}}
			r.members[given.Address] = m
			m.Member = given
			r.start(m)
			continue
		}
		m.Member, m.left = given, time.Time{}
	}
	for address, m := range r.members {
		if !named[address] && m.left.IsZero() {
			m.left = now
		}
	}
	r.changed()
}

// start has a member watched, once the router runs.
func (r *Router) start(m *member) {
	if r.ctx == nil || r.ctx.Err() != nil {
		return
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(r.ctx)
	r.group.Go(func() { r.watch(ctx, m) })
}

// watch takes in what a node says of itself until ctx ends.
func (r *Router) watch(ctx context.Context, m *member) {
	for retry := firstRetry; ctx.Err() == nil; {
		r.mu.Lock()
		used := r.used
		digests := slices.Sorted(maps.Keys(r.uses))
		r.mu.Unlock()
		snapshots := make([]string, len(digests))
		for i, d := range digests {
			snapshots[i] = string(d)
		}
		watching, stop := context.WithCancel(ctx)
		var other sync.WaitGroup
		other.Go(func() {
			select {
			case <-used: // it must know of them
			case <-watching.Done():
			}
			stop()
		})
		err := m.node.Watch(watching, r.o.Name, snapshots, func(s *shardv1.NodeStatus) {
			retry = firstRetry
			r.take(m, s, nil)
		})
		again := watching.Err() != nil
		stop()
		other.Wait()
		if again {
			continue
		}
		r.take(m, nil, err)
		wait := time.NewTimer(retry/2 + rand.N(retry))
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		retry = min(2*retry, lastRetry)
	}
}

// take takes in what a node says of itself, or why it cannot be watched.
func (r *Router) take(m *member, s *shardv1.NodeStatus, err error) {
	r.mu.Lock()
	if name := s.GetName(); s != nil && m.Name != "" && m.Name != m.address && name != m.Name {
		// Addresses are used again, and who lists members may be late.
		s, err = nil, fmt.Errorf("it says that it is %.100q, and not %.100q", name, m.Name)
	}
	if id := s.GetStoreId(); id != "" && r.o.StoreID != "" && id != r.o.StoreID {
		s, err = nil, &otherStoreError{id, r.o.StoreID}
	}
	if m.parted = r.seen.parted(s, m.parted); m.parted != nil && s != nil {
		s, err = nil, m.parted
	}
	was, failed := m.status, m.failed
	m.status, m.failed = s, err
	if s != nil {
		m.heard = r.clock()
		m.reported.Store(int32(min(s.GetLoad().GetInFlight(), 1<<20)))
	}
	r.mu.Unlock()
	switch {
	case s != nil && was == nil:
		r.o.Events.Nodes(events.Nodes{Change: events.NodeWatched, Node: s.GetName(), Address: m.address})
	case s == nil && (was != nil || failed == nil):
		r.o.Events.Nodes(events.Nodes{Change: events.NodeLost, Node: m.Name, Address: m.address, Err: err})
	}
	r.changed()
}

// lost is told of a call that a node has lost, and whether it is to be left alone for that.
func (r *Router) lost(p *peer, ejected bool, err error) {
	if !ejected {
		return
	}
	r.counts.ejected.Add(1)
	p.node.Cut() // another replica may have time to answer
	r.o.Events.Nodes(events.Nodes{Change: events.NodeEjected, Address: p.address, Err: err})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx == nil || r.ctx.Err() != nil {
		return
	}
	ctx := r.ctx
	r.group.Go(func() { r.probe(ctx, p) })
}

const (
	firstProbe   = 250 * time.Millisecond
	lastProbe    = 4 * time.Second
	probeTimeout = time.Second
)

// probe asks a node that is left alone now and then, until it answers.
func (r *Router) probe(ctx context.Context, p *peer) {
	for wait := firstProbe; ; wait = min(2*wait, lastProbe) {
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		r.mu.Lock()
		m := r.members[p.address]
		gone := m == nil || m.peer != p
		var held *heldOf
		if !gone {
			held = r.anyHeld(m)
		}
		r.mu.Unlock()
		if gone {
			return
		}
		if held == nil {
			continue // it says that it has nothing
		}
		probing, cancel := context.WithTimeout(ctx, probeTimeout)
		_, _, err := p.node.GetShard(probing, held.of, held.at)
		cancel()
		if err != nil {
			continue
		}
		p.probed(r.clock())
		r.o.Events.Nodes(events.Nodes{Change: events.NodeBack, Address: p.address})
		r.changed()
		return
	}
}

// use counts a use of a snapshot, of which nodes are told.
func (r *Router) use(d manifest.Digest, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.uses[d] > 0
	if r.uses[d] += n; r.uses[d] == 0 {
		delete(r.uses, d)
	}
	if was != (r.uses[d] > 0) {
		close(r.used)
		r.used = make(chan struct{})
	}
}

// Published takes in what was read of the live log.
func (r *Router) Published(v *live.View) {
	r.mu.Lock()
	r.seen.add(v, r.clock())
	r.mu.Unlock()
	r.update()
}
