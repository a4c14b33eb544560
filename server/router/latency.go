package router

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// window is how many of the last calls a quantile is of, and refresh after how many it is
	// computed anew.
	window  = 256
	refresh = 32
	// enough is how many there must be for a quantile to say anything.
	enough = 20
	// hedgeQuantile is how many of the calls end before another replica is asked, too.
	hedgeQuantile = 0.95
	// leastHedge is how long a call takes at least before that: what a machine that is busy
	// with something else takes for anything.
	leastHedge = time.Millisecond
	// firstHedge is how long it is while nothing is known.
	firstHedge = 50 * time.Millisecond
)

// latencies are how long the last calls of a kind took.
type latencies struct {
	quantile atomic.Int64 // 0 while it is not known

	mu   sync.Mutex
	last [window]int64
	n    int // calls so far
}

// add takes in how long a call took.
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

// hedge returns after how long another replica is asked, too.
func (l *latencies) hedge() time.Duration {
	usual, _ := l.usual()
	return usual
}

// usual returns how long most calls take at most, and whether that is known.
func (l *latencies) usual() (took time.Duration, known bool) {
	q := time.Duration(l.quantile.Load())
	if q == 0 {
		return firstHedge, false
	}
	return max(q+q/8, leastHedge), true // where all take about as long, none is slow
}

// bands is how many kinds of searches there are, by how much they ask for.
const bands = 16

// bandOf returns the kind of a search by the rows that it asks for, over all vectors.
func bandOf(rows int) int { return min(bits.Len(uint(rows)), bands-1) }
