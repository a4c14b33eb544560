// Package parallel shares calls among goroutines, each of which takes the next when it is
// done: builds of indexes, measuring them, and batches of queries are such calls.
package parallel

import (
	"sync"
	"sync/atomic"

	"github.com/tandem-ann/tandem/index/sections"
)

// Each calls work(worker, i) for every i below n on up to threads goroutines and returns
// when all calls have. Which worker gets which i is not determined, so work must not let
// its result depend on it.
func Each(threads, n int, work func(worker, i int)) {
	Chunks(threads, n, 8, work)
}

// Chunks does the same, and a goroutine takes chunk calls at a time. A fault in a mapped
// file, which no goroutine but the caller's may have a guard for, is raised there.
func Chunks(threads, n, chunk int, work func(worker, i int)) {
	threads = min(threads, (n+chunk-1)/chunk)
	if threads <= 1 {
		for i := range n {
			work(0, i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	faults := make([]error, threads)
	for worker := range threads {
		group.Go(func() {
			defer sections.Guard(&faults[worker])()
			for {
				from := int(next.Add(int64(chunk))) - chunk
				if from >= n {
					return
				}
				for i := from; i < min(from+chunk, n); i++ {
					work(worker, i)
				}
			}
		})
	}
	group.Wait()
	for _, fault := range faults {
		if fault != nil {
			panic(fault)
		}
	}
}
