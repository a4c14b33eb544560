// Package resident reads how much memory of the machine a process has, as the kernel of Linux tells it.
//
// Package server/metrics shows it of the server itself, and packages of bench measure processes by it.
package resident

import (
	"fmt"
	"strconv"
	"strings"
)

// Memory is what of a process is in memory, in bytes.
type Memory struct {
	// Anonymous is of no file: the heap and the stacks. It cannot be given back and read again.
	Anonymous int64
	// File is of files that are mapped, such as snapshots and the program.
	File int64
}

// parse reads the text of /proc/PID/status. That of a process that has ended, and that nobody has
// waited for, has nothing of memory.
func parse(text string) (m Memory, err error) {
	missing := map[string]*int64{"RssAnon": &m.Anonymous, "RssFile": &m.File}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		to := missing[name]
		if to == nil {
			continue
		}
		rest = strings.TrimSpace(rest)
		number, isKiB := strings.CutSuffix(rest, "kB")
		kib, err := strconv.ParseUint(strings.TrimSpace(number), 10, 53)
		if err != nil || !isKiB {
			return Memory{}, fmt.Errorf("%s is %.100q, want a number of kB", name, rest)
		}
		*to = int64(kib) << 10
		delete(missing, name)
	}
	for _, name := range []string{"RssAnon", "RssFile"} {
		if missing[name] != nil {
			return Memory{}, fmt.Errorf("it has no %s", name)
		}
	}
	return m, nil
}
