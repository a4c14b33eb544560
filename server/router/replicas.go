package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// replica is one node that has a shard, and the positions that it can be asked at.
type replica struct {
	*peer
	log            string
	oldest, newest uint64
	held           held // what it says of the shard
	spare          bool // it is to be asked only where there is no other
	late           bool // it has been behind the log for longer than the fence
	audits         bool // it takes audits
}

// has reports whether it can be asked at a position.
func (r *replica) has(at shard.Position) bool {
	return r.log == at.Log && r.oldest <= at.Sequence && at.Sequence <= r.newest
}

// behind reports whether it may be asked at a position soon.
func (r *replica) behind(at shard.Position) bool {
	return r.log == at.Log && r.newest < at.Sequence && !r.late
}

// set is all that have one shard. What it has changes as nodes tell.
type set struct {
	of     remote.ShardID
	router *Router
	now    atomic.Pointer[[]replica] // those that are ready
	search [bands]latencies
	other  latencies
}

// NoReplicaError says that no node can be asked for a shard.
type NoReplicaError struct {
	Of  remote.ShardID
	At  shard.Position
	Err error // of the last one that was asked; nil if none was
}

// Error implements error.
func (e *NoReplicaError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("no node is ready for %s at position %s of the live log", e.Of, e.At)
	}
	return fmt.Sprintf("no node has answered for %s: %v", e.Of, e.Err)
}

// Unwrap returns why the last one has not answered.
func (e *NoReplicaError) Unwrap() error { return e.Err }

// maxTries is how many replicas are asked at most for one thing, beside hedges.
const maxTries = 4

// slot says whose memory a call writes to: that of the caller, or of a hedge.
type slot int

const (
	own slot = iota
	hedged
)

// call asks a node. It is given its context, and where it writes to. Calls of both slots may be
// under way at a time, one of each.
type call func(ctx context.Context, node *remote.Node, to slot) error

// do makes a call on one replica after the other until one has answered, and says where that
// has written to. If a call takes longer than most, another replica is asked beside it, which
// writes to memory that the call makes for it. When do returns, all calls have ended: none reads
// or writes memory of the caller.
func (s *set) do(ctx context.Context, at shard.Position, l *latencies, c call) (slot, error) {
	s.router.retries.earn()
	s.router.hedges.earn()
	t := try{set: s, at: at, latencies: l, call: c}
	var last error
	for n := range maxTries {
		if n > 0 && !s.router.retries.spend() {
			s.router.counts.denied.Add(1)
			break
		}
		p := t.pick()
		if p == nil {
			return own, &NoReplicaError{s.of, at, last}
		}
		if n > 0 {
			s.router.counts.retries.Add(1)
		}
		won, err := t.ask(ctx, p)
		if err == nil || !retryable(ctx, err) {
			return won, err
		}
		last = err
	}
	return own, &NoReplicaError{s.of, at, last}
}

// retryable reports whether another replica may have an answer.
func retryable(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, index.ErrQuery) {
		return false
	}
	_, panicked := errors.AsType[*shard.PanicError](err)
	return !panicked
}

// try is one thing that is asked.
type try struct {
	*set
	at        shard.Position
	latencies *latencies
	call      call
	asked     [maxTries + 1]*peer
	n         int
	hedges    int
}

// pick returns the replica to ask next, nil if there is none, and notes that it was asked: the
// better of two that are drawn. One that is left alone, or is a little behind, is taken only if
// there is no other.
func (t *try) pick() *peer {
	list := *t.now.Load()
	var best, spare [2]*peer
	nBest, nSpare := 0, 0
	draw := func(of *[2]*peer, n *int, p *peer) {
		if *n < 2 {
			of[*n] = p
		} else if i := rand.IntN(*n + 1); i < 2 {
			of[i] = p
		}
		*n++
	}
	for i := range list {
		r := &list[i]
		if t.has(r.peer) {
			continue
		}
		switch {
		case r.has(t.at) && !r.spare && !r.isOut():
			draw(&best, &nBest, r.peer)
		case r.has(t.at), r.behind(t.at):
			draw(&spare, &nSpare, r.peer)
		}
	}
	if nBest == 0 {
		best, nBest = spare, nSpare
	}
	if nBest == 0 || t.n == len(t.asked) {
		return nil
	}
	chosen := best[0]
	if nBest > 1 {
		now := t.router.clock()
		a, b := best[0].rank(now), best[1].rank(now)
		if b < a || a == b && rand.IntN(2) == 0 {
			chosen = best[1]
		}
	}
	t.asked[t.n] = chosen
	t.n++
	return chosen
}

// has reports whether a node was asked.
func (t *try) has(p *peer) bool {
	for _, asked := range t.asked[:t.n] {
		if asked == p {
			return true
		}
	}
	return false
}

// ask asks a replica, and another one beside it if it takes long.
func (t *try) ask(ctx context.Context, p *peer) (slot, error) {
	if t.hedges > 0 || len(*t.now.Load()) < 2 { // the hedge's memory may be in use, or there is nobody
		return own, t.one(ctx, p, own)
	}
	first, cancel := context.WithCancel(ctx)
	defer cancel()
	h := hedge{try: t, ctx: ctx, beat: cancel, done: make(chan struct{})}
	timer := time.AfterFunc(t.latencies.hedge(), h.run)
	err := t.one(first, p, own)
	if timer.Stop() {
		return own, err
	}
	h.mu.Lock()
	if err == nil && !h.won {
		h.lost = true
		if h.cancel != nil {
			h.cancel()
		}
		h.mu.Unlock()
		<-h.done // it reads what it sends from memory of the caller
		return own, nil
	}
	h.mu.Unlock()
	<-h.done // it has won, or is the only one left; the context bounds it
	if h.err == nil {
		return hedged, nil
	}
	if err == nil || ctx.Err() != nil {
		return own, ctx.Err()
	}
	return own, err
}

// one asks one replica, and notes how that went.
func (t *try) one(ctx context.Context, p *peer, to slot) error {
	p.begin()
	start := t.router.clock()
	err := t.call(ctx, p.node, to)
	now := t.router.clock()
	took := now.Sub(start)
	isEnd := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case err == nil:
		t.latencies.add(took)
		p.end(now, took, answered)
	case isEnd && (to == hedged || took < t.latencies.hedge()):
		p.drop() // the first was faster, or the caller has no time
	case isEnd:
		t.router.lost(p, p.end(now, took, late), errSlow)
	case !retryable(ctx, err):
		p.end(now, took, answered) // it is the caller's mistake, or a bug
	default:
		how := failed
		if isRefusal(err) && !t.contradicts(p, err) {
			how = answered
		}
		t.router.lost(p, p.end(now, max(took, t.latencies.hedge()), how), err)
	}
	return err
}

// isRefusal reports whether a node has answered, though not what it was asked, and not against
// what it says of itself.
func isRefusal(err error) bool {
	r, ok := errors.AsType[*remote.Refusal](err)
	return ok && r.Reason != remote.Unreadable && r.Reason != remote.NotHeld && r.Reason != remote.WrongProtocol
}

// contradicts reports whether a node refuses since it has not read the live log as far as it
// says of itself.
func (t *try) contradicts(p *peer, err error) bool {
	r, ok := errors.AsType[*remote.Refusal](err)
	return ok && r.Reason == remote.Behind && slices.ContainsFunc(*t.now.Load(), func(one replica) bool { return one.peer == p && one.has(t.at) })
}

// hedge is a call beside another one.
type hedge struct {
	*try
	ctx  context.Context
	beat context.CancelFunc // ends the other one
	done chan struct{}
	err  error // once it is done

	mu        sync.Mutex
	cancel    context.CancelFunc
	won, lost bool
}

// run makes the call, if there is another replica and the budget allows it.
func (h *hedge) run() {
	defer close(h.done)
	h.mu.Lock()
	if h.lost {
		h.mu.Unlock()
		h.err = context.Canceled
		return
	}
	if h.ctx.Err() != nil || !h.router.hedges.spend() {
		h.err = errNoHedge
		h.mu.Unlock()
		return
	}
	p := h.pick()
	if p == nil {
		h.err = errNoHedge
		h.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	h.cancel, h.hedges = cancel, h.hedges+1
	h.mu.Unlock()
	h.router.counts.hedges.Add(1)
	err := h.one(ctx, p, hedged)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err = err; err == nil && !h.lost {
		h.won = true
		h.beat()
		h.router.counts.hedgesWon.Add(1)
	}
}

// errSlow says that a node has not answered until another one had, or there was no more time.
var errSlow = errors.New("it was slower than most, and another replica had the answer before, or the time was over")

// errNoHedge says that there was no hedge.
var errNoHedge = errors.New("no hedge")
