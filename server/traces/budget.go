package traces

import (
	"sync"
	"time"
)

// A caller that has every request traced, or a share that was meant for less traffic, must not
// cost more than was agreed. So spans come from a bucket that is filled at a rate and has room
// for a second's. A trace begins only while there are some, and takes what it took when it ends.
// Callers leave a quarter for traces that the server begins itself.

// typicalSpans is what a trace is taken to need until it has ended.
const typicalSpans = 16

// budget bounds how many spans are made.
type budget struct {
	rate float64 // a second

	mu   sync.Mutex
	left float64
	last time.Time
}

func newBudget(rate int) *budget { return &budget{rate: float64(rate), left: float64(rate)} }

// begin takes what one more trace needs, if there is that, and reports whether there was. A
// trace that a caller has asked for is to leave some.
func (b *budget) begin(now time.Time, asked bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() {
		b.left = min(b.left+max(now.Sub(b.last), 0).Seconds()*b.rate, b.rate)
	}
	b.last = now
	least := 0.0
	if asked {
		least = b.rate / 4
	}
	if b.left <= least {
		return false
	}
	b.left -= typicalSpans
	return true
}

// end takes what a trace has needed, of which it has typicalSpans already.
func (b *budget) end(spans int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left -= float64(spans - typicalSpans)
}
