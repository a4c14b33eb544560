package index

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// GiveWay lets other goroutines run, and other threads of the machine. It is for the midst
// of long work, about every 0.1 ms, so that who has little to do need not wait: the
// scheduler of Go takes a processor from a goroutine only after 10 ms, and that of the
// kernel from a thread after 3.
func GiveWay() {
	runtime.Gosched()
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // it always succeeds
}
