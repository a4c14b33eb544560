package server

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/server/metrics"
)

// cpuOf returns how long this process lacked processors, by the files of root, as far as they
// tell. Threads come and go, and with them what the kernel counts of each: so it is told of
// the control groups of the process, and of the machine.
func cpuOf(root fs.FS) metrics.CPU {
	out := metrics.CPU{MachineWait: readPressure(root, "proc/pressure/cpu")}
	groups, err := controlGroups(root, "cpu")
	if err != nil {
		return out
	}
	for _, g := range groups {
		if g.version == 2 && out.GroupWait == nil {
			out.GroupWait = readPressure(root, path.Join(g.dir, "cpu.pressure"))
		}
		// One group may be seen by several mounts.
		if t := g.throttled(root); t != nil && (out.Throttled == nil || *t > *out.Throttled) {
			out.Throttled = t
		}
	}
	return out
}

// throttled returns for how long the group, and those that it is in, were held back; nil if no
// file tells.
func (g controlGroup) throttled(root fs.FS) *time.Duration {
	var all *time.Duration
	for dir := g.dir; ; dir = path.Dir(dir) {
		if t := readThrottled(root, path.Join(dir, "cpu.stat")); t != nil {
			if all == nil {
				all = new(time.Duration)
			}
			*all += *t
		}
		if dir == g.top || dir == "." {
			return all
		}
	}
}

// readThrottled reads cpu.stat: microseconds of version 2, nanoseconds of version 1.
func readThrottled(root fs.FS, name string) *time.Duration {
	for _, field := range []struct {
		key  string
		unit time.Duration
	}{{"throttled_usec ", time.Microsecond}, {"throttled_time ", time.Nanosecond}} {
		if t := readTime(root, name, field.key, field.unit); t != nil {
			return t
		}
	}
	return nil
}

// readPressure reads for how long some threads were delayed: some avg10=0.12 ... total=345678
func readPressure(root fs.FS, name string) *time.Duration {
	return readTime(root, name, "some ", time.Microsecond)
}

// readTime returns the time in units that ends the line of a file with a key; nil if it cannot
// be read, or has none.
func readTime(root fs.FS, name, key string, unit time.Duration) *time.Duration {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), key)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(text[strings.LastIndexAny(text, " =")+1:], 10, 64)
		if err != nil || n < 0 {
			return nil
		}
		told := time.Duration(n) * unit
		return &told
	}
	return nil
}
