package audit

import (
	"context"
	"time"
)

// Clock is what a budget is measured by. The real one is of the calling thread.
type Clock interface {
	// Used returns the processor time that was taken, since whenever.
	Used() time.Duration
	// Sleep waits, or until ctx ends.
	Sleep(ctx context.Context, d time.Duration)
}

// Slice is the processor time that is taken at a stretch, at most and a step more.
const Slice = 200 * time.Microsecond

// budget lets its goroutine take a share of a processor: after each slice it sleeps for so
// long that the slice was no more than that of the time since it began. What was not taken
// is not saved up.
type budget struct {
	clock Clock
	now   func() time.Time
	share float64
	begun time.Time     // the slice
	used  time.Duration // by the clock, when it began

	longest time.Duration // of all slices
	total   time.Duration // of those that have ended
}

func newBudget(clock Clock, now func() time.Time, share float64) *budget {
	return &budget{clock: clock, now: now, share: share, begun: now(), used: clock.Used()}
}

const (
	// crowded is how late a thread is woken where others want its processor. What is taken
	// from it in the midst of a slice then it gets back late, and all of Go waits for it if
	// memory is to be collected meanwhile.
	crowded = time.Millisecond
	// longestWait is how long it waits for others to leave a processor idle.
	longestWait = 2 * time.Second
)

// pause is called in the midst of work, often. It waits once a slice is over, for longer where
// others want the processor.
func (b *budget) pause(ctx context.Context) {
	used := b.clock.Used() - b.used
	if used < Slice {
		return
	}
	begun, rest := b.now(), b.rest(used)
	for {
		due := b.now().Add(rest)
		b.clock.Sleep(ctx, rest)
		late := b.now().Sub(due)
		if late <= crowded || b.now().Sub(begun) >= longestWait || ctx.Err() != nil {
			break
		}
		rest = min(10*late, longestWait/4)
	}
	b.begin(used)
}

// rest returns how long it is until a slice of so much may be followed by the next.
func (b *budget) rest(used time.Duration) time.Duration {
	all := time.Duration(float64(used) / b.share)
	return min(b.begun.Add(all).Sub(b.now()), all) // which it is beyond where a clock was set back
}

// begin begins another slice.
func (b *budget) begin(used time.Duration) {
	b.longest, b.total = max(b.longest, used), b.total+used
	b.begun, b.used = b.now(), b.clock.Used()
}

// resume is called after a wait for work: if that was long enough, another slice begins.
func (b *budget) resume() {
	if used := b.clock.Used() - b.used; b.rest(used) <= 0 {
		b.begin(used)
	}
}

// spent returns the processor time that was taken in all.
func (b *budget) spent() time.Duration { return b.total + b.clock.Used() - b.used }

// threadClock is the clock of a goroutine that is locked to its thread. Where the time of a
// thread is not known, that in which it did not sleep stands for it, which is no less.
type threadClock struct {
	start time.Time
	slept time.Duration
}

// Used implements [Clock].
func (c *threadClock) Used() time.Duration {
	if used, ok := threadTime(); ok {
		return used
	}
	return time.Since(c.start) - c.slept
}

// Sleep implements [Clock].
func (c *threadClock) Sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	begun := time.Now()
	defer func() { c.slept += time.Since(begun) }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
