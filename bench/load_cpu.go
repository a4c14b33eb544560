package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ is 100 on all of Linux.
const clockTick = time.Second / 100

// ProcessCPU returns the CPU time, of user and kernel, that a process of this
// machine has taken. It reads /proc, so it is for Linux.
func ProcessCPU(pid int) (time.Duration, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	return parseStat(string(data))
}

// parseStat returns utime + stime of a /proc/PID/stat, its fields 14 and 15; see
// proc(5).
func parseStat(text string) (time.Duration, error) {
	// The second field is the program's name in parentheses, and may have any.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const first = 3 // the number of fields[0]
	if len(fields) <= 15-first {
		return 0, fmt.Errorf("read a process's CPU time: %d fields after its name, want at least 13", len(fields))
	}
	var ticks time.Duration
	for _, field := range fields[14-first : 16-first] {
		n, err := strconv.ParseUint(field, 10, 62)
		if err != nil {
			return 0, fmt.Errorf("read a process's CPU time: %w", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * clockTick, nil
}
