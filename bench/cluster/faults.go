package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// fault is something that goes wrong.
type fault struct {
	name string
	// cannot returns why it cannot go wrong, empty if it can; nil is always.
	cannot func(s *Site) string
	// fences reports whether the fence may demand that queries are refused.
	fences bool
	// inject makes it go wrong for some time and returns what ends it, or does all of it.
	inject func(ctx context.Context, w *world) (heal func(context.Context) error, err error)
	// lasts is for how long it goes on in a run of faults; by itself, where that is more, it is
	// away, for as long as the options say.
	lasts time.Duration
	away  bool
	// hedged is whether other replicas answer meanwhile what it leaves unanswered: how often
	// they are asked is bounded, and so is how much longer that takes.
	hedged bool
}

// faults are all that there are.
var faults = []fault{
	{name: "kill", lasts: time.Second, inject: killNode},
	{name: "stop", lasts: 4 * time.Second, hedged: true, inject: stopNode},
	{name: "slow", lasts: 4 * time.Second, hedged: true, inject: slowNode},
	{name: "delay", lasts: 4 * time.Second, hedged: true, inject: delayNode},
	{name: "cut", lasts: 4 * time.Second, hedged: true, inject: cutNode(Cut)},
	{name: "freeze", lasts: 4 * time.Second, hedged: true, inject: cutNode(Freeze)},
	{name: "store", lasts: 8 * time.Second, away: true, fences: true, inject: loseStore},
	{name: "caches", lasts: time.Second, cannot: isFolder, inject: loseCaches},
	{name: "members", lasts: 4 * time.Second, away: true, inject: loseMembers},
	{name: "restart", inject: rolling},
	{name: "upgrade", cannot: noOlder, inject: upgrade},
	{name: "join", lasts: 2 * time.Second, inject: joinNode},
	{name: "loss", lasts: 6 * time.Second, cannot: noneToSpare, inject: loseNode},
	{name: "router", lasts: 2 * time.Second, cannot: oneRouter, inject: killRouter},
	{name: diskFault, lasts: 8 * time.Second, cannot: noDisks, inject: fullDiskOfOne},
	{name: "restored", lasts: 8 * time.Second, fences: true, inject: restoreStore},
}

// FaultNames are the names of all faults.
func FaultNames() []string {
	var list []string
	for _, f := range faults {
		list = append(list, f.name)
	}
	return list
}

// diskFault is the fault for which processes have disks of their own.
const diskFault = "disk"

func isFolder(s *Site) string {
	if s.folder != "" {
		return "the store is a folder, of which nobody has a cache"
	}
	return ""
}

func noOlder(s *Site) string {
	if s.o.Old == "" {
		return "there is no older program"
	}
	return ""
}

func noneToSpare(s *Site) string {
	if s.o.Nodes <= s.o.Replicas {
		return "there are no more nodes than replicas"
	}
	return ""
}

func oneRouter(s *Site) string {
	if len(s.routers) == 1 {
		return "there is one router, and nobody else could be asked"
	}
	return ""
}

func noDisks(s *Site) string {
	if s.noDisks != nil {
		return s.noDisks.Error()
	}
	return ""
}

// one draws a node.
func (s *Site) one(random *rand.Rand) (*node, error) {
	list := s.running()
	if len(list) == 0 {
		return nil, errors.New("no node runs")
	}
	return list[random.IntN(len(list))], nil
}

// onOne makes a fault of one node.
func onOne(do func(ctx context.Context, s *Site, n *node) (func(context.Context) error, error)) func(context.Context, *world) (func(context.Context) error, error) {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		n, err := w.site.one(w.random)
		if err != nil {
			return nil, err
		}
		return do(ctx, w.site, n)
	}
}

var killNode = onOne(func(_ context.Context, s *Site, n *node) (func(context.Context) error, error) {
	n.kill()
	return func(ctx context.Context) error { return s.startNode(ctx, n) }, nil
})

var stopNode = onOne(func(_ context.Context, _ *Site, n *node) (func(context.Context) error, error) {
	err := n.signal(syscall.SIGSTOP)
	return func(context.Context) error { return n.signal(syscall.SIGCONT) }, err
})

// slowPeriod is the time in which a node that is slow runs once, and slowTimes how much slower
// it is.
const (
	slowPeriod = 200 * time.Millisecond
	slowTimes  = 100
)

var slowNode = onOne(func(_ context.Context, _ *Site, n *node) (func(context.Context) error, error) {
	slowing, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for slowing.Err() == nil {
			if err := n.signal(syscall.SIGSTOP); err != nil {
				done <- err
				return
			}
			_ = rest(slowing, slowPeriod) // the loop looks
			if err := n.signal(syscall.SIGCONT); err != nil {
				done <- err
				return
			}
			_ = rest(slowing, slowPeriod/slowTimes)
		}
		done <- nil
	}()
	return func(context.Context) error {
		end()
		return <-done
	}, nil
})

// delayed is how much later what a node and routers say arrives.
const delayed = 200 * time.Millisecond

var delayNode = onOne(func(_ context.Context, _ *Site, n *node) (func(context.Context) error, error) {
	n.proxy.Set(Pass, delayed)
	return func(context.Context) error { n.proxy.Set(Pass, 0); return nil }, nil
})

func cutNode(mode Mode) func(context.Context, *world) (func(context.Context) error, error) {
	return onOne(func(_ context.Context, _ *Site, n *node) (func(context.Context) error, error) {
		n.proxy.Set(mode, 0)
		return func(context.Context) error { n.proxy.Set(Pass, 0); return nil }, nil
	})
}

func loseStore(_ context.Context, w *world) (func(context.Context) error, error) {
	s := w.site
	if s.behind != nil {
		mode := []Mode{Cut, Freeze}[w.random.IntN(2)]
		s.behind.Set(mode, 0)
		return func(context.Context) error { s.behind.Set(Pass, 0); return nil }, nil
	}
	err := os.Remove(s.link)
	return func(context.Context) error { return os.Symlink(s.folder, s.link) }, err
}

// loseCaches removes the caches of all nodes, and ends one node, which has to download what it
// held.
func loseCaches(ctx context.Context, w *world) (func(context.Context) error, error) {
	for _, n := range w.site.nodes {
		if err := os.RemoveAll(w.site.cache(n.name)); err != nil {
			return nil, err
		}
	}
	return killNode(ctx, w)
}

func loseMembers(_ context.Context, w *world) (func(context.Context) error, error) {
	err := os.Remove(w.site.members())
	return func(context.Context) error { return w.site.writeMembers() }, err
}

// rolling restarts all nodes, and then all routers, one after the other.
func rolling(ctx context.Context, w *world) (func(context.Context) error, error) {
	s := w.site
	for _, n := range s.running() {
		if err := n.stop(); err != nil {
			return nil, err
		}
		if err := errors.Join(s.startNode(ctx, n), n.awaitReady(ctx), s.settle(ctx)); err != nil {
			return nil, fmt.Errorf("restart %s: %w", n.name, err)
		}
	}
	for _, r := range s.routers {
		if len(s.routers) == 1 {
			break // nobody else could be asked meanwhile
		}
		r.out.Store(true)
		if err := r.stop(); err != nil {
			return nil, err
		}
		if err := s.startRouter(ctx, r); err != nil {
			return nil, fmt.Errorf("restart %s: %w", r.name, err)
		}
	}
	return nil, nil
}

// upgrade goes back to the older program, and to the newer one again.
func upgrade(ctx context.Context, w *world) (func(context.Context) error, error) {
	w.site.program = w.o.Old
	_, err := rolling(ctx, w)
	w.site.program = w.o.Program
	if err != nil {
		return nil, fmt.Errorf("to the older program: %w", err)
	}
	_, err = rolling(ctx, w)
	return nil, err
}

// joinNode adds a node, which leaves again.
func joinNode(ctx context.Context, w *world) (func(context.Context) error, error) {
	s := w.site
	n, err := s.addNode()
	if err == nil {
		err = s.startNode(ctx, n)
	}
	if err == nil {
		err = s.writeMembers()
	}
	if err == nil {
		err = s.settle(ctx)
	}
	return func(ctx context.Context) error {
		n.member = false
		if err := s.writeMembers(); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil { // what it held is held by others first
			return err
		}
		return n.stop()
	}, err
}

// loseNode kills a node that never comes back: another takes its place.
func loseNode(ctx context.Context, w *world) (func(context.Context) error, error) {
	s := w.site
	n, err := s.one(w.random)
	if err != nil {
		return nil, err
	}
	n.kill()
	n.member = false
	if err := errors.Join(s.writeMembers(), s.settle(ctx)); err != nil {
		return nil, fmt.Errorf("lose %s: %w", n.name, err)
	}
	return func(ctx context.Context) error {
		n, err := s.addNode()
		if err != nil {
			return err
		}
		return errors.Join(s.startNode(ctx, n), s.writeMembers())
	}, nil
}

// killRouter kills a router, which is started again with what it remembers.
func killRouter(_ context.Context, w *world) (func(context.Context) error, error) {
	r := w.site.routers[w.random.IntN(len(w.site.routers))]
	r.killAsked()
	return func(ctx context.Context) error { return w.site.startRouter(ctx, r) }, nil
}

// fullDiskOfOne fills the disk of a node or a router, on which it has its cache and what it
// remembers. A router cannot know then that it will refuse older logs, so the fence has it refuse;
// a node falls behind, or cannot load, and others are asked.
func fullDiskOfOne(_ context.Context, w *world) (func(context.Context) error, error) {
	nodes := w.site.running()
	n := w.random.IntN(len(nodes) + len(w.site.routers))
	if n < len(nodes) {
		home := w.site.home(nodes[n].name)
		return func(context.Context) error { return emptyDisk(home) }, fillDisk(home)
	}
	r := w.site.routers[n-len(nodes)]
	home := w.site.home(r.name)
	r.full.Store(true)
	return func(ctx context.Context) error {
		err := errors.Join(emptyDisk(home), r.awaitReady(ctx))
		r.full.Store(false)
		return err
	}, fillDisk(home)
}
