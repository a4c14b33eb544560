package live

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// View is what queries see of a state. It does not change, but for the proof, and any number
// of goroutines may use it.
type View struct {
	Position  Position
	Digest    Digest
	Down      TakenDown
	Forgotten Forgotten
	Lineage   Lineage
	// Proof tells how old the knowledge is that this is all there is.
	Proof *Proof
}

// Proof is when the log was last proved to end at a position: a reading of the clocks before
// the first request of that proof was sent. All who hold the view share it. Once another entry
// follows, it gets older and no younger.
type Proof struct{ asked atomic.Pointer[time.Time] } // nil if there was none

// NewProof returns the proof of a moment, and none for the zero time. The time is one that
// [time.Now] has returned.
func NewProof(at time.Time) *Proof {
	p := &Proof{}
	if !at.IsZero() {
		p.asked.Store(&at)
	}
	return p
}

// Age returns how old the proof is, as [objects.Elapsed] has it, and the longest duration if
// there was none. So a machine that wakes up knows that its proof is old; one whose clock is
// set forward takes it for old until the next.
func (p *Proof) Age() time.Duration {
	asked := p.asked.Load()
	if asked == nil {
		return math.MaxInt64
	}
	return objects.Elapsed(*asked)
}

// time returns when it was asked, the zero time if there was no proof.
func (p *Proof) time() time.Time {
	if asked := p.asked.Load(); asked != nil {
		return *asked
	}
	return time.Time{}
}

// renew takes a proof that is younger, by the monotonic clock, which nobody sets back. Where
// that does not tell, the proof that comes later counts.
func (p *Proof) renew(asked time.Time) {
	for {
		old := p.asked.Load()
		if old != nil && isOlder(asked, *old) || p.asked.CompareAndSwap(old, &asked) {
			return
		}
	}
}

// isOlder reports whether a time is known to be no later than another.
func isOlder(t, than time.Time) bool {
	return objects.IsMonotonic(t) && objects.IsMonotonic(than) && !t.After(than)
}

// next returns the proof of a position that follows: what was known to be all there is, it
// knows too.
func (p *Proof) next() *Proof { return NewProof(p.time()) }
