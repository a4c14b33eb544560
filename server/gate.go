package server

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

// gate has goroutines that do little do it a few at a time, those first whose connection
// took little of late.
//
// # Goals
//
// A request that is answered in a millisecond is answered soon, however many others are
// ready. The scheduler of Go lets goroutines run in the order in which they are ready:
// who opens a thousand connections, or sends a thousand requests on one, is served a
// thousand times before who asks once. And it looks for what has arrived from the network
// only every 10 ms for as long as all its processors are busy.
//
// # Design
//
// There are two gates: goroutines pass one when they have read from a connection, before
// they look for requests in that, and one when they begin to work on a request. So few of
// them are ready at a time, and there is nearly always a processor of Go (see [Threads]) that
// waits for the network.
//
// A place is taken for longestPass at most: who has passed waits for something else by
// then, or does what is long, which has bounds of its own. So no goroutine waits for ever
// for another.
//
// Who waits passes in the order of turns. A turn is when the goroutine came, later by
// several times what its connection took of late. So each turn comes, whatever others do.
type gate struct {
	mu      sync.Mutex
	places  []*pass // those who have passed, nil where there is room
	waiting turns
	timer   *time.Timer // ends what a place is taken for, nil until somebody waits
	timed   bool        // it runs
}

// pass is how one goroutine at a time passes a gate.
type pass struct {
	use   *usage
	since time.Time     // it has a place
	turn  time.Time     // when it is to have one, while it waits
	ready chan struct{} // is closed once it has one, nil unless it waits
	index int           // in the heap of those that wait
}

const (
	longestPass = time.Millisecond
	// setBack is how many times what its connection took of late a turn is later.
	setBack = 10
)

func newGate(places int) *gate { return &gate{places: make([]*pass, places)} }

// enter waits until p has passed, or done is closed.
func (g *gate) enter(done <-chan struct{}, p *pass, use *usage) {
	now := time.Now()
	g.mu.Lock()
	p.use = use
	if len(g.waiting) == 0 && g.let(p, now) {
		g.mu.Unlock()
		return
	}
	p.turn = now.Add(setBack * use.ofLate(now))
	ready := make(chan struct{})
	p.ready = ready
	heap.Push(&g.waiting, p)
	g.next(now)
	g.mu.Unlock()
	select {
	case <-ready:
	case <-done:
		g.leave(p)
	}
}

// leave gives back the place of p, if it has one still, or its turn.
func (g *gate) leave(p *pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.ready != nil {
		heap.Remove(&g.waiting, p.index)
		p.ready = nil
		return
	}
	g.free(p)
}

// giveBack gives back the place of p, if it has one. It is for any goroutine: that of p may
// wait for its next place, and goes on doing so.
func (g *gate) giveBack(p *pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free(p)
}

// free makes the place of p free, if it has one. The lock is held.
func (g *gate) free(p *pass) {
	for i, other := range g.places {
		if other == p {
			now := time.Now()
			g.clear(i, now)
			g.next(now)
			return
		}
	}
}

// let gives p a place, if there is one.
func (g *gate) let(p *pass, now time.Time) bool {
	for i, other := range g.places {
		if other != nil && now.Sub(other.since) < longestPass {
			continue
		}
		g.clear(i, now)
		g.places[i], p.since = p, now
		return true
	}
	return false
}

// clear makes a place free.
func (g *gate) clear(i int, now time.Time) {
	if p := g.places[i]; p != nil {
		p.use.add(min(now.Sub(p.since), longestPass), now)
		g.places[i] = nil
	}
}

// next lets those in who wait, as long as there are places, and comes again if there are
// more.
func (g *gate) next(now time.Time) {
	for len(g.waiting) > 0 && g.let(g.waiting[0], now) {
		p := heap.Pop(&g.waiting).(*pass)
		close(p.ready)
		p.ready = nil
	}
	if len(g.waiting) == 0 || g.timed {
		return
	}
	g.timed = true
	if g.timer == nil {
		g.timer = time.AfterFunc(longestPass, g.comeAgain)
	} else {
		g.timer.Reset(longestPass)
	}
}

func (g *gate) comeAgain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timed = false
	g.next(time.Now())
}

// turns is a heap of passes that wait, the earliest turn first.
type turns []*pass

// Len implements [sort.Interface].
func (t turns) Len() int { return len(t) }

// Less implements [sort.Interface].
func (t turns) Less(i, j int) bool { return t[i].turn.Before(t[j].turn) }

// Swap implements [sort.Interface].
func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push implements [heap.Interface].
func (t *turns) Push(x any) {
	p := x.(*pass)
	p.index = len(*t)
	*t = append(*t, p)
}

// Pop implements [heap.Interface].
func (t *turns) Pop() any {
	last := len(*t) - 1
	p := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return p
}

// usage is what the requests of a connection took of late, in time for which they had
// places. A nil usage is of nobody, and stays 0.
type usage struct {
	mu   sync.Mutex
	took time.Duration // at
	at   time.Time
}

const (
	// halfLife is when half of what was taken is forgotten.
	halfLife = time.Second
	// firstUse is what a new connection is taken to have taken: more than one that asks
	// now and then, whatever many new ones ask.
	firstUse = 100 * time.Millisecond
)

func (u *usage) ofLate(now time.Time) time.Duration {
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.decay(now)
}

// add adds what was taken.
func (u *usage) add(d time.Duration, now time.Time) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.took = u.decay(now) + d
}

func (u *usage) decay(now time.Time) time.Duration {
	since := now.Sub(u.at)
	if since > 0 {
		u.took = time.Duration(float64(u.took) * math.Exp2(-float64(since)/float64(halfLife)))
	}
	if since > 0 || since < -time.Minute { // the clock was set back
		u.at = now
	}
	return u.took
}

// placesFor is how many places a gate has: enough for one to wait, as for a page of a
// file, while as many run as there are processors.
func placesFor(processors int) int { return processors + 1 }

// Threads is how many processors Go is to have (see [runtime.GOMAXPROCS]) in a server
// that does long work on so many at a time: those, one for work that is not long, and two
// that are idle and find at once what arrives.
//
// More do harm. All that are idle when Go collects take part in that, each in a thread that
// a kernel leaves its processor for some milliseconds, and who asks waits for one after
// the other.
func Threads(processors int) int { return processors + 3 }
