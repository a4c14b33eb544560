package objects

import (
	"math"
	"time"
)

// Elapsed returns how long ago it was at a time that [time.Now] has returned, by whichever of
// this machine's clocks says more: the monotonic one stands still while the machine sleeps, or
// is paused, and the other may be set. It is never negative. Where neither clock can tell, it is
// the longest duration: a time beyond the year 2157 has no reading of the monotonic clock, and
// says nothing once the other one was set back. It is for those who know what a store was like
// then, and not what has become of it.
func Elapsed(since time.Time) time.Duration {
	now := time.Now()
	wall := now.Round(0).Sub(since.Round(0))
	switch {
	case IsMonotonic(since):
		return max(time.Since(since), wall)
	case IsMonotonic(now) || wall < 0:
		return math.MaxInt64
	}
	return wall
}

// IsMonotonic reports whether a time has a reading of the monotonic clock. One that [time.Now]
// has returned has it up to the year 2157.
func IsMonotonic(t time.Time) bool { return t != t.Round(0) }
