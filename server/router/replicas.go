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

	"github.com/tandem-ann/tandem/api/latency"
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
	search [bands]latency.Calls
	other  latency.Calls
}

// NoReplicaError says that no node can be asked for a shard.
type NoReplicaError struct {
	Of  remote.ShardID
	At  shard.Position
	Err error // of the last one that was asked; nil if none was
	// Behind is whether there are nodes that are ready for it, and none of them has read the live
	// log to the position: the furthest has to Furthest. They lack what came since.
	Behind   bool
	Furthest uint64
}

// Error implements error.
func (e *NoReplicaError) Error() string {
	switch {
	case e.Behind:
		return fmt.Sprintf("all nodes that are ready for %s have read less of the live log than to position %s, the furthest to %d", e.Of, e.At, e.Furthest)
	case e.Err == nil:
		return fmt.Sprintf("no node is ready for %s at position %s of the live log", e.Of, e.At)
	}
	return fmt.Sprintf("no node has answered for %s: %v", e.Of, e.Err)
}

// Unwrap returns why the last one has not answered.
func (e *NoReplicaError) Unwrap() error { return e.Err }

// maxTries is how many replicas are asked at most for one thing, beside the first hedge.
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

// searched counts a search of the shard, which is what hedges are earned by: a query makes one
// of each shard.
func (s *set) searched() { s.router.hedges.earn(hedgeShare / float64(max(s.of.Of, 1))) }

// do makes a call on one replica after the other until one has answered, and says where that
// has written to. If that takes longer than most, another replica is asked beside it, and if
// that one fails the next: they write to memory that the call makes for them. When do returns,
// all calls have ended: none reads or writes memory of the caller.
func (s *set) do(ctx context.Context, at shard.Position, l *latency.Calls, c call) (slot, error) {
	s.router.retries.earn(retryShare)
	t := &try{set: s, caller: ctx, at: at, latencies: l, call: c}
	if len(*s.now.Load()) < 2 { // there is nobody to ask beside it
		return own, t.each(ctx, own, t.pick())
	}
	t.done = make(chan struct{})
	var cancel context.CancelFunc
	t.both, cancel = context.WithCancel(ctx)
	t.cancel = cancel
	defer cancel()
	timer := time.AfterFunc(l.Hedge(), t.hedge)
	err := t.each(t.both, own, t.pick())
	if timer.Stop() {
		return own, err
	}
	if !errors.As(err, new(*NoReplicaError)) || !t.hedged.Load() {
		cancel() // or else the hedge may have an answer yet; the caller's time bounds it
	}
	<-t.done // it reads what it sends from memory of the caller
	switch {
	case err != nil && t.won:
		return hedged, nil
	case err != nil && ctx.Err() != nil:
		return own, ctx.Err()
	}
	return own, err
}

// timeGrain is how exactly nodes are told how long a caller waits: so much too early they give up.
const timeGrain = time.Millisecond

// retryable reports whether another replica may have an answer.
func retryable(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, index.ErrQuery) {
		return false
	}
	if end, ok := ctx.Deadline(); ok && errors.Is(err, context.DeadlineExceeded) && time.Until(end) < timeGrain {
		return false // the node's clock was first
	}
	_, panicked := errors.AsType[*shard.PanicError](err)
	return !panicked
}

// try is one thing that is asked, by two calls at a time at most: one of each slot.
type try struct {
	*set
	caller    context.Context
	at        shard.Position
	latencies *latency.Calls
	call      call

	mu    sync.Mutex
	asked [maxTries + 1]*peer
	n     int
	// silent is one that has given no sign of life, or was given up, to be asked again if there is no
	// other.
	silent *peer

	// Of the hedge.
	both   context.Context // of both calls
	cancel context.CancelFunc
	hedged atomic.Bool   // a replica is asked
	done   chan struct{} // closed once it has ended, and won is set
	won    bool
}

// each asks a replica, nil if there is none, and one after the other if it fails, until one has
// answered. If all that may be asked have failed, the error is a [*NoReplicaError].
func (t *try) each(ctx context.Context, to slot, p *peer) error {
	var last error
	for p != nil {
		instead, err := t.one(ctx, p, to)
		if instead != nil {
			t.again(p)
			p, last = instead, errSlow
			continue
		}
		if err == nil || !retryable(ctx, err) {
			return err
		}
		if last = err; errors.Is(err, remote.ErrSilent) || errors.Is(err, remote.ErrCut) {
			t.again(p)
		}
		p = t.next()
	}
	return t.nobody(last)
}

// nobody returns the error that none of those that may be asked has answered, the last one for a
// reason, nil if none was asked.
func (t *try) nobody(last error) error {
	e := &NoReplicaError{Of: t.of, At: t.at, Err: last}
	if last != nil && !isBehind(last) {
		return e
	}
	list := *t.now.Load()
	e.Behind = len(list) > 0
	for i := range list {
		r := &list[i]
		e.Behind = e.Behind && r.log == t.at.Log && r.newest < t.at.Sequence
		e.Furthest = max(e.Furthest, r.newest)
	}
	return e
}

// isBehind reports whether a node refuses since it has not read the live log as far.
func isBehind(err error) bool {
	r, ok := errors.AsType[*remote.Refusal](err)
	return ok && r.Reason == remote.Behind
}

// again has a replica asked again that has given no sign of life, or was given up for another or with
// all calls of its node, if there is no other: it may have had no processor.
func (t *try) again(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.silent = p
}

// next returns the replica to ask after one has failed, nil if there is none, or the budget does
// not allow it.
func (t *try) next() *peer {
	p := t.pick()
	switch {
	case p == nil:
		return nil
	case !t.router.retries.spend(0):
		t.router.counts.denied.Add(1)
		return nil
	}
	t.router.counts.retries.Add(1)
	return p
}

// pick returns the replica to ask next, nil if there is none, and notes that it was asked: the
// better of two that are drawn. One that is left alone, or is a little behind, is taken only if
// there is no other.
func (t *try) pick() *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
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
	if nBest == 0 && t.silent != nil {
		best[0], nBest, t.silent = t.silent, 1, nil
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

// one asks one replica, and notes how that went. A hedge that hangs, too, is given up for a replica
// that was not asked, if there is one: the error is of no meaning then.
func (t *try) one(ctx context.Context, p *peer, to slot) (instead *peer, err error) {
	p.begin()
	start := t.router.clock()
	if to == own {
		err = t.call(ctx, p.node, to)
	} else {
		instead, err = t.unlessItHangs(ctx, p, to)
	}
	now := t.router.clock()
	took := now.Sub(start)
	switch {
	case instead != nil:
		t.router.lost(p, p.end(now, took, late), errSlow)
	case err == nil:
		t.latencies.Add(took)
		p.end(now, took, answered)
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		t.ended(ctx, p, to, now, took)
	case !retryable(ctx, err):
		p.end(now, took, answered) // it is the caller's mistake, or a bug
	default:
		how := failed
		if isRefusal(err) && !t.contradicts(p, err) {
			how = answered
		}
		t.router.lost(p, p.end(now, max(took, t.latencies.Hedge()), how), err)
	}
	return instead, err
}

// hangFactor is how many times as long as most calls a hedge takes until it is given up for another.
const hangFactor = 8

// unlessItHangs makes a call, and gives it up for a replica that was not asked if it takes many times
// as long as most, and the budget allows another hedge.
func (t *try) unlessItHangs(ctx context.Context, p *peer, to slot) (*peer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var instead *peer
	looked := make(chan struct{})
	timer := time.AfterFunc(hangFactor*t.latencies.Hedge(), func() {
		defer close(looked)
		if !t.hasOthers() || !t.router.hedges.spend(0) {
			return
		}
		if instead = t.pick(); instead == nil {
			t.router.hedges.earn(1) // it is not used
			return
		}
		cancel()
	})
	err := t.call(ctx, p.node, to)
	if timer.Stop() {
		return nil, err
	}
	<-looked
	if err == nil || instead == nil || t.both.Err() != nil {
		return nil, err
	}
	t.router.counts.hedges.Add(1)
	return instead, err
}

// hasOthers reports whether there are replicas that were not asked.
func (t *try) hasOthers() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n < len(*t.now.Load())
}

// ended notes that a call has ended before it was answered: another replica was faster, or there
// was no more time. Of the latter only a node that has kept a caller waiting for as long as one
// that stands still is the cause: all replicas may take longer for some queries than for most.
func (t *try) ended(ctx context.Context, p *peer, to slot, now time.Time, took time.Duration) {
	usual, known := t.latencies.Usual()
	beaten := ctx.Err() != nil && t.caller.Err() == nil
	switch {
	case to == hedged || took < usual:
		p.drop()
	case beaten, known && took >= mute:
		t.router.lost(p, p.end(now, took, late), errSlow)
	case known:
		p.end(now, took, cut)
	default:
		p.drop()
	}
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
	return isBehind(err) && slices.ContainsFunc(*t.now.Load(), func(one replica) bool { return one.peer == p && one.has(t.at) })
}

// hedge asks other replicas beside the first, once the budget allows it, unless all has ended
// before.
func (t *try) hedge() {
	defer close(t.done)
	if !t.awaitHedge() {
		return
	}
	p := t.pick()
	if p == nil {
		t.router.hedges.earn(1) // it is not used
		return
	}
	t.hedged.Store(true)
	t.router.counts.hedges.Add(1)
	if t.each(t.both, hedged, p) == nil {
		t.won = true
		t.cancel()
		t.router.counts.hedgesWon.Add(1)
	}
}

// awaitHedge waits until the budget allows a hedge, and reports whether it does. Calls that take
// much longer than most may have what is kept for them.
func (t *try) awaitHedge() bool {
	for wait, kept := t.latencies.Hedge(), float64(hedgeKept); t.both.Err() == nil; wait, kept = 2*wait, 0 {
		if t.router.hedges.spend(kept) {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-t.both.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	return false
}

// errSlow says that a node has not answered until another one had, or there was no more time.
var errSlow = errors.New("it was slower than most, and another replica had the answer before, or the time was over")
