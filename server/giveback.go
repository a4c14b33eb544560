package server

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// giveBackEvery is how often the server looks whether it keeps memory without need.
	giveBackEvery = 10 * time.Second
	// muchKept is how many bytes are worth giving back.
	muchKept = 16 << 20
	// looksAfter is how many looks follow one that found much, and give back what was in
	// use then: requests in flight, or the timers of streams that are closed (see
	// writeTimeout).
	looksAfter = 5
	// busyBytes is how many bytes a busy server allocates between two looks, or more. Go
	// collects often then, and gives back what it does not need.
	busyBytes = 80 << 20
)

// giveBack gives memory back to the machine until ctx ends. Go itself collects only when
// about as much was allocated as is in use: after large answers a server that is hardly
// asked keeps for many minutes what they took. trim is called before, to let go of what can
// be made again.
func giveBack(ctx context.Context, b *buffers, trim func()) {
	ticker := time.NewTicker(giveBackEvery)
	defer ticker.Stop()
	k := keeper{trim: trim}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			b.trim()
			k.look()
		}
	}
}

// keeper knows how much memory the process keeps.
type keeper struct {
	least     uint64 // bytes of the heap after memory was given back last
	allocated uint64 // bytes that were ever allocated, at the last look
	more      int    // looks that give back some whatever they see
	trim      func() // is called before memory is given back
}

// look gives memory back if more is kept than there was, by much more than was allocated
// since the last look, and at some looks more; and reports whether it did.
//
// It frees at once what each collection finds. Go begins to do so by itself after a
// collection, and what the next one finds meanwhile it may pass over, up to 4 MiB for good.
func (k *keeper) look() bool {
	kept, allocated := heapBytes()
	since := allocated - k.allocated
	k.allocated = allocated
	switch {
	case since > busyBytes:
		return false
	case kept >= k.least+since+muchKept:
		k.more = looksAfter
	case k.more == 0:
		return false
	default:
		k.more--
	}
	k.trim()
	debug.FreeOSMemory() // what pools hold survives one collection
	onOneProcessor(debug.FreeOSMemory)
	k.least, k.allocated = heapBytes()
	return true
}

// onOneProcessor has Go end all its processors but one, and make them anew after a call. Each
// holds for itself the stacks of 64 goroutines that have ended, and some pages that are free:
// after a burst these are some MiB.
func onOneProcessor(call func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	call()
}

// heapBytes returns how many bytes of the machine's memory the heap has, and how many were ever
// allocated.
func heapBytes() (kept, allocated uint64) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	for _, s := range samples[:3] {
		kept += s.Value.Uint64()
	}
	return kept, samples[3].Value.Uint64()
}

// prepareGoroutines has Go make descriptors of so many goroutines, half a KiB each. It keeps
// them for ever: those that are made when many come lie scattered, each in memory that it
// keeps from being given back.
func prepareGoroutines(n int) {
	var all sync.WaitGroup
	made := make(chan struct{})
	for range n {
		all.Go(func() { <-made })
	}
	close(made)
	all.Wait()
}
