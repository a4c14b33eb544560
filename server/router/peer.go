package router

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/server/remote"
)

const (
	// lossesInARow is how many calls in a row a node may fail, or lose to another replica,
	// before it is left alone until it has answered a probe.
	lossesInARow = 3
	// mute is for how long a node that is late has answered nothing before it is left alone, and
	// lateFactor how many times as slow it is taken for until then.
	mute       = 500 * time.Millisecond
	lateFactor = 8
	// rampTime is how long it takes until a node that is back is given as much as others, and
	// rampLeast the share that it begins with.
	rampTime  = 5 * time.Second
	rampLeast = 0.05
	// latencyTime is in how long what is known of a node's speed loses most of its weight; so a
	// node that was slow is tried again.
	latencyTime = 3 * time.Second
	// unknownLatency is assumed of a node that was never asked: it is to be asked soon.
	unknownLatency = 200 * time.Microsecond
)

// peer is a node as the router sees it: how fast it answers, and whether it does.
type peer struct {
	address string
	node    *remote.Node

	inFlight atomic.Int32 // calls of this router
	reported atomic.Int32 // requests that the node said it has, of all routers

	mu      sync.Mutex
	latency float64 // of a call, in nanoseconds, a mean over the last ones; 0: none yet
	at      time.Time
	losses  int       // in a row
	heard   time.Time // when it answered last; if it never did, when it first did not
	out     bool      // it is left alone
	back    time.Time // since when it is not any more; zero if it never was
}

// begin counts a call that begins.
func (p *peer) begin() { p.inFlight.Add(1) }

// outcome is how a call has ended.
type outcome int

const (
	answered outcome = iota
	failed           // it is known not to have an answer
	late             // another replica had one before, or a caller has waited for long
	cut              // its caller had no more time: it may be no slower than others
)

// end takes in a call that has ended, and how long it took. It reports whether the node is left
// alone from now on. One that is late is only slow for as long as it answers some: it is asked
// less. One that was cut off has lost nothing.
func (p *peer) end(now time.Time, took time.Duration, how outcome) (ejected bool) {
	p.inFlight.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.observe(now, took)
	switch how {
	case answered:
		p.losses, p.heard = 0, now
		return false
	case cut:
		return false
	}
	if how == late {
		p.latency = max(p.latency, lateFactor*float64(took))
	}
	if p.losses++; p.losses == 1 && p.heard.IsZero() {
		p.heard = now
	}
	if p.out || p.losses < lossesInARow || how == late && now.Sub(p.heard) < mute {
		return false
	}
	p.out = true
	return true
}

// drop counts a call that has ended of which nothing is known, since its caller gave up.
func (p *peer) drop() { p.inFlight.Add(-1) }

// observe takes in how long a call took: a call counts a tenth, and what is older less.
func (p *peer) observe(now time.Time, took time.Duration) {
	if p.latency == 0 {
		p.latency, p.at = float64(took), now
		return
	}
	kept := 0.9 * math.Exp(-max(now.Sub(p.at), 0).Seconds()/latencyTime.Seconds())
	p.latency, p.at = kept*p.latency+(1-kept)*float64(took), now
}

// probed takes in that a node which is left alone has answered a probe.
func (p *peer) probed(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out {
		p.out, p.back, p.losses, p.latency = false, now, 0, 0
	}
}

// isOut reports whether the node is left alone.
func (p *peer) isOut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// rank is how a node compares with another one: the lower the better. A node that has been
// left alone is given less for a while: it loses by a draw.
func (p *peer) rank(now time.Time) float64 {
	p.mu.Lock()
	latency, at, back := p.latency, p.at, p.back
	p.mu.Unlock()
	if latency == 0 {
		latency = float64(unknownLatency)
	} else if idle := now.Sub(at); idle > 0 { // it may be faster by now
		latency = max(latency*math.Exp(-idle.Seconds()/latencyTime.Seconds()), float64(unknownLatency))
	}
	own := float64(p.inFlight.Load())
	queue := 1 + max(own, float64(p.reported.Load()))
	rank := latency * queue * queue * queue
	if !back.IsZero() {
		share := max(now.Sub(back).Seconds()/rampTime.Seconds(), rampLeast)
		if share < 1 && rand.Float64() > share {
			rank = math.Inf(1)
		}
	}
	return rank
}
