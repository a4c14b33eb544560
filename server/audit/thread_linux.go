package audit

import (
	"time"

	"golang.org/x/sys/unix"
)

// lower gives the calling thread a lower priority than the process has: a third of the weight
// under Linux's scheduler. The error says why it could not.
//
// It is not the lowest. Go stops all goroutines to collect memory, and waits for a thread that
// the kernel has taken the processor from in the midst of a slice: where others want it, one of
// nice 19 is let go on after a second or two, and nothing is answered meanwhile.
func lower() error {
	const by = 5
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 0 is the thread, as far as Linux knows
	if err != nil {
		return err
	}
	nice := 20 - raw // as the system call gives it
	return unix.Setpriority(unix.PRIO_PROCESS, 0, min(nice+by, 19))
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
