package attack

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/server/resident"
)

// memoryEvery is how often a process's memory is looked at.
const memoryEvery = 200 * time.Millisecond

// anonymous returns the bytes of a process that are in memory and of no file: the heap and
// the stacks, not the mapped snapshots. It is for Linux.
func anonymous(pid int) (int64, error) {
	m, err := resident.Of(pid)
	return m.Anonymous, err
}

// leastIn returns the least memory that a process has within a time in which it is asked
// nothing, or until ctx ends. What it makes by itself, such as when it looks at its store, is
// garbage until it is collected: at one moment that is as likely much as little.
func leastIn(ctx context.Context, pid int, within time.Duration) (int64, error) {
	least, err := anonymous(pid)
	for until := time.Now().Add(within); err == nil && ctx.Err() == nil && time.Now().Before(until); {
		hold(ctx, min(memoryEvery, time.Until(until)))
		var n int64
		if n, err = anonymous(pid); err == nil {
			least = min(least, n)
		}
	}
	return least, err
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
