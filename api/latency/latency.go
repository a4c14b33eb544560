// Package latency tells how long calls take, so that one that takes longer than most can be
// hedged: asked of another server too. The client and the router both do, after the manner of
// "The Tail at Scale" (Dean and Barroso, Communications of the ACM 56(2), 2013).
package latency

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// First is after how long a call is hedged while nothing is known.
const First = 50 * time.Millisecond

const (
	// window is how many of the last calls a quantile is of, refresh after how many it is
	// computed anew, and enough how many there must be for it to say anything.
	window  = 256
	refresh = 32
	enough  = 20
	// quantile is how many of the calls end before another server is asked, too.
	quantile = 0.95
	// least is how long a call takes at least before that: what a machine that is busy with
	// something else takes for anything.
	least = time.Millisecond
)

// Calls are how long the last calls of a kind took. The zero value knows of none. It may be
// used by several goroutines.
type Calls struct {
	quantile atomic.Int64 // 0 while it is not known

	mu   sync.Mutex
	last [window]int64
	n    int // calls so far
}

// Add takes in how long a call took.
func (c *Calls) Add(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[c.n%window] = int64(took)
	c.n++
	if c.n < enough || c.n%refresh != 0 && c.n != enough {
		return
	}
	var sorted [window]int64
	list := sorted[:copy(sorted[:], c.last[:min(c.n, window)])]
	slices.Sort(list)
	c.quantile.Store(list[int(math.Ceil(quantile*float64(len(list))))-1])
}

// Hedge returns after how long another server is asked, too.
func (c *Calls) Hedge() time.Duration {
	usual, _ := c.Usual()
	return usual
}

// Usual returns how long most calls take at most, and whether that is known.
func (c *Calls) Usual() (took time.Duration, known bool) {
	q := time.Duration(c.quantile.Load())
	if q == 0 {
		return First, false
	}
	return max(q+q/8, least), true // where all take about as long, none is slow
}
