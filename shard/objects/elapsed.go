package objects

import "time"

// Elapsed returns how long ago it was at a time that [time.Now] has returned, by whichever of
// this machine's clocks says more: the monotonic one stands still while the machine sleeps, or
// is paused, and the other may be set. It is for those who know what a store was like then, and
// not what has become of it.
func Elapsed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
