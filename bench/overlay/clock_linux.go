package overlay

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// spent returns the time that a processor has taken for this thread: where others use it
// too, the time that passes says little.
func spent() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read the time of a thread: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
