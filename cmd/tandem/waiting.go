package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	waitQuiet = time.Second      // a wait that is shorter is not worth a line
	waitAgain = 15 * time.Second // between two lines of one that is longer
)

// newWaiting returns what says on which collection of a store a command waits. Calls may
// come from any goroutine.
func newWaiting(w io.Writer) func(snapshots.Marked) {
	var mu sync.Mutex
	next := waitQuiet
	return func(m snapshots.Marked) {
		mu.Lock()
		defer mu.Unlock()
		if m.Waited >= next {
			next = m.Waited + waitAgain
			fmt.Fprintf(w, "waiting for snapshot or shard %s\n", m)
		}
	}
}
