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
	// muchKept is how many bytes are worth looking for what may be given back.
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

// keeper knows how much memory the process may keep without need.
type keeper struct {
	given     uint64 // bytes that had ever been allocated when memory was given back last
	allocated uint64 // the same at the last look
	more      int    // looks that give back some whatever they see
	trim      func() // is called before memory is given back
}

// look gives memory back if much was allocated between when it did so last and the last look,
// and at some looks more; and reports whether it did. How much the heap has says less: what
// was in use when memory was given back last may be garbage now.
//
// It frees at once what each collection finds. Go begins to do so by itself after a
// collection, and what the next one finds meanwhile it may pass over, up to 4 MiB for good.
func (k *keeper) look() bool {
	before := k.allocated
	k.allocated = allocatedBytes()
	switch {
	case k.allocated-before > busyBytes:
		return false
	case before-k.given >= muchKept:
		k.more = looksAfter
	case k.more == 0:
		return false
	default:
		k.more--
	}
	k.trim()
	debug.FreeOSMemory() // what pools hold survives one collection
	onOneProcessor(debug.FreeOSMemory)
	k.allocated = allocatedBytes()
	k.given = k.allocated
	return true
}

// onOneProcessor has Go end all its processors but one, and make them anew after a call. Each
// holds for itself the stacks of 64 goroutines that have ended, and some pages that are free:
// after a burst these are some MiB.
func onOneProcessor(call func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	call()
}

// allocatedBytes returns how many bytes of the heap were ever allocated.
func allocatedBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
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
