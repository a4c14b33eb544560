package attack

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// memoryEvery is how often a process's memory is looked at.
const memoryEvery = 200 * time.Millisecond

// anonymous returns the bytes of a process that are in memory and of no file: the heap and
// the stacks, not the mapped snapshots. It reads /proc, so it is for Linux.
func anonymous(pid int) (int64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the memory of process %d: RssAnon is %q, want a number of kB", pid, strings.TrimSpace(text))
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read the memory of process %d: its status has no RssAnon", pid)
}

// peak follows the most memory that a process had.
type peak struct{ most atomic.Int64 }

// follow looks until ctx ends, or the process does.
func (p *peak) follow(ctx context.Context, pid int) {
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	for {
		n, err := anonymous(pid)
		if err != nil {
			return // that it ended is told by who started it
		}
		p.most.Store(max(p.most.Load(), n))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
