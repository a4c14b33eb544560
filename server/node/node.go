package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	// DefaultKeep is how long a snapshot stays by default once nobody needs it.
	DefaultKeep = 10 * time.Minute
	// DefaultFence is the age of the proof of the live log by default from which on it is told,
	// and that is the fence of routers by default.
	DefaultFence = 5 * time.Second
	// DefaultHearing is how long a node that starts hears from routers by default: they try one
	// that did not answer every few seconds.
	DefaultHearing = 5 * time.Second
)

// Config says what a node is, and what it follows. Store, Name, MemoryLimit and Factor must be
// set.
type Config struct {
	// Store has the snapshots, the releases and the live log.
	Store *snapshots.Store
	// Name is that of the node among the members, until [Node.MembersAs] says another one, and Zone
	// where it is.
	Name, Zone string
	// MemoryLimit is how many bytes of shards may be mapped: what would take more is not
	// loaded, and the status says so.
	MemoryLimit int64
	// Factor is how many nodes are to hold each shard.
	Factor int
	// StoreID is the id of the store, which routers compare with that of theirs; empty if it has none.
	StoreID string
	// Holds reports whether a member holds a shard at a position, by asking it; it takes no
	// longer than ctx lasts. Default: nobody is known to, and what this node once held it lets
	// go of with its snapshot alone.
	Holds func(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool
	// Keep is how long a snapshot stays mapped once neither the newest release has it nor a
	// router uses it. Default: DefaultKeep.
	Keep time.Duration
	// Hearing is how long a node that starts hears from routers what they use before it is
	// ready: they may be at older releases still. Default: DefaultHearing.
	Hearing time.Duration
	// Grace is how long what a member holds stays its own once it is not listed any more, as when it
	// restarts, while each shard has another member: others load it only then. Default: no time.
	Grace time.Duration
	// Memory is where it is remembered which release was read last: of a store whose log of
	// releases is behind that, or is another one, nothing is loaded. Empty: nothing is remembered.
	Memory appendlog.Memory
	// Live says how the live log is followed. Of it AtLeast, Unfenced, Changed, Published and
	// Events are the node's.
	Live livelog.Options
	// Events is told of what happens. Default: nobody is.
	Events *events.Listener
}

// Node is a node of a cluster. Its methods may be called from any number of goroutines.
type Node struct {
	c        Config
	events   *events.Listener
	releases *release.Releases
	live     *livelog.Follower
	board    *board
	open     sync.WaitGroup // of what is open

	news chan struct{} // has an element when what is to be held may have changed

	mu      sync.RWMutex
	name    string
	slots   map[key]*slot
	known   map[manifest.Digest]*snapshot
	newest  *release.Release   // nil before one was read
	members []placement.Member // nil before any were told
	away    map[string]away    // by name; see [Config].Grace
	uses    map[*use]struct{}
	mine    *placed // nil before it is known
	phase   shardv1.NodePhase
	ended   bool // nothing is given out any more

	// What follows is of keep alone.
	begun      time.Time // when it had read the logs
	remembered *release.Release
	closing    []*mapping // what was let go of
	told       uint64     // the generation of which it was told that all is loaded
	missing    string     // the name of which it was told that no member has it; empty if one has
	loading    int
	loaded     chan result
	asked      chan []question // with their answers
	asking     bool
	askedAt    time.Time
}

var _ remote.Holder = (*Node)(nil)

// use is what one stream of a router says that it uses.
type use struct{ snapshots []manifest.Digest }

// New returns a node, which holds nothing before it runs.
func New(c Config) (*Node, error) {
	switch {
	case c.Store == nil:
		return nil, errors.New("new node: it has no store")
	case c.Name == "":
		return nil, errors.New("new node: it has no name")
	case c.Factor < 1 || c.Factor > placement.MaxFactor:
		return nil, fmt.Errorf("new node: the factor is %d, want 1 to %d", c.Factor, placement.MaxFactor)
	case c.Grace < 0:
		return nil, fmt.Errorf("new node: the grace is %s, want at least 0", c.Grace)
	case c.MemoryLimit <= 0:
		return nil, fmt.Errorf("new node: the memory limit is %d bytes, want at least 1", c.MemoryLimit)
	}
	c.Keep, c.Hearing = cmp.Or(c.Keep, DefaultKeep), cmp.Or(c.Hearing, DefaultHearing)
	n := &Node{
		c: c, name: c.Name, events: c.Events, releases: release.New(c.Store), news: make(chan struct{}, 1),
		slots: map[key]*slot{}, away: map[string]away{}, known: map[manifest.Digest]*snapshot{}, uses: map[*use]struct{}{},
		phase:  shardv1.NodePhase_NODE_PHASE_STARTING,
		loaded: make(chan result, loads), asked: make(chan []question, 1),
	}
	if n.events == nil {
		n.events = events.Tee()
	}
	o := c.Live
	o.Fence = cmp.Or(o.Fence, DefaultFence)
	o.AtLeast = func(ctx context.Context) (shard.Position, string, error) {
		bound, err := n.releases.LiveBound(ctx)
		return bound.Position, bound.By, err
	}
	o.Unfenced, o.AnswerStale, o.Writes, o.Events = true, true, false, n.events
	o.Changed, o.Published = func() {}, func() { n.board.changed() }
	n.live = livelog.New(c.Store.Objects(), o)
	n.board = newBoard(n.status)
	return n, nil
}

// Run follows the store and holds what is to be held until ctx ends; then it refuses all that
// is asked, and returns when the last query has ended and all is closed. It is called once,
// [Node.Drain] before ctx ends, and the listener is closed in between, where no query is to be
// refused. It returns nil if ctx ended it. A store in which nothing was released is an error of
// class [release.ErrNone], and one that is an older copy than was read before, or another one, of
// class [release.ErrTimeTravel] or [live.ErrTimeTravel].
func (n *Node) Run(ctx context.Context) error {
	// Positions are laid over what is open until the last query has ended.
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var aside sync.WaitGroup
	aside.Go(func() { n.board.run(following) })
	err := n.run(ctx, following, &aside)
	n.end()
	stop()
	aside.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

func (n *Node) run(ctx, following context.Context, aside *sync.WaitGroup) error {
	first, err := n.first(ctx)
	if err != nil {
		return err
	}
	if err := n.live.Open(ctx); err != nil {
		return err
	}
	aside.Go(func() { n.live.Run(following) })
	if err := n.live.Await(ctx); err != nil {
		return err
	}
	if err := n.recall(ctx, first); err != nil {
		return err
	}
	n.note(first)
	n.begun = time.Now()
	var working sync.WaitGroup
	working.Go(func() { n.watch(ctx, first) })
	n.keep(ctx, &working)
	working.Wait()
	for len(n.loaded) > 0 {
		if r := <-n.loaded; r.open != nil {
			r.open.release()
		}
	}
	return ctx.Err()
}

// Members tells who there is: all that are to hold shards, whether or not they are ready, and so
// this node too, which is not ready before it is one of them. What is to be held follows from it.
func (n *Node) Members(list []placement.Member) {
	n.mu.Lock()
	n.tell(list)
	n.mu.Unlock()
	n.poke()
}

// MembersAs is Members, and tells under which name this node is among them: who lists them may have
// another one for it than before.
func (n *Node) MembersAs(name string, list []placement.Member) {
	n.mu.Lock()
	n.name = name
	n.tell(list)
	n.mu.Unlock()
	n.poke()
}

// Drain has the status say that the node stops, for good: routers ask others then. It answers
// all the same.
func (n *Node) Drain() {
	n.mu.Lock()
	n.phase = shardv1.NodePhase_NODE_PHASE_STOPPING
	n.mu.Unlock()
	n.board.changed()
}

// end gives nothing out any more, and waits until what is open is closed.
func (n *Node) end() {
	n.mu.Lock()
	n.ended, n.phase = true, shardv1.NodePhase_NODE_PHASE_STOPPING
	for _, s := range n.slots {
		if s.now != nil {
			n.closing = append(n.closing, s.now)
		}
	}
	clear(n.slots)
	n.mu.Unlock()
	n.board.changed()
	n.close()
	n.open.Wait()
}

// poke has keep look again.
func (n *Node) poke() {
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// mapping is a shard that is open. It is closed when the last of its users has gone.
type mapping struct {
	tower  *shard.Tower
	layer  *livelog.ShardLayer
	lost   atomic.Pointer[shard.UnreadableError] // nil unless a query could not read it
	users  atomic.Int64
	closed func(error)
}

// acquire counts a user, unless the last has gone.
func (m *mapping) acquire() bool {
	for {
		n := m.users.Load()
		if n == 0 {
			return false
		}
		if m.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release ends a use.
func (m *mapping) release() {
	if m.users.Add(-1) == 0 {
		m.layer.End() // it reads the file
		m.closed(m.tower.Close())
	}
}

// failure returns why the shard is not what it is to be; nil if it is.
func (m *mapping) failure() error {
	if lost := m.lost.Load(); lost != nil {
		return lost
	}
	return m.layer.Failed()
}
