package client

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// window is how many of the last calls a quantile is of, refresh after how many it is
	// computed anew, and enough how many there must be for it to say anything.
	window  = 256
	refresh = 32
	enough  = 20
	// hedgeQuantile is how many of the calls end before another server is asked, too.
	hedgeQuantile = 0.95
	// leastHedge is how long a call takes at least before that, firstHedge while nothing is known.
	leastHedge = time.Millisecond
	firstHedge = 50 * time.Millisecond
)

// latencies are how long the last calls of a procedure took.
type latencies struct {
	quantile atomic.Int64 // 0 while it is not known

	mu   sync.Mutex
	last [window]int64
	n    int // calls so far
}

// add takes in how long a call took that was answered.
func (l *latencies) add(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[l.n%window] = int64(took)
	l.n++
	if l.n < enough || l.n%refresh != 0 && l.n != enough {
		return
	}
	var sorted [window]int64
	list := sorted[:copy(sorted[:], l.last[:min(l.n, window)])]
	slices.Sort(list)
	l.quantile.Store(list[int(math.Ceil(hedgeQuantile*float64(len(list))))-1])
}

// hedge returns after how long another server is asked, too.
func (l *latencies) hedge() time.Duration {
	q := time.Duration(l.quantile.Load())
	if q == 0 {
		return firstHedge
	}
	return max(q+q/8, leastHedge) // where all take about as long, none is slow
}
