package audit

import (
	"time"

	"golang.org/x/sys/unix"
)

// lowest gives the calling thread the lowest priority. The error says why it could not.
func lowest() error {
	return unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // 0 is the thread, as far as Linux knows
}

// isFirstThread reports whether the calling thread is the one that the process began with.
func isFirstThread() bool { return unix.Gettid() == unix.Getpid() }

// threadTime returns the processor time that the calling thread has taken.
func threadTime() (time.Duration, bool) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}
