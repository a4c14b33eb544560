package index

import (
	"sync"
	"sync/atomic"
)

// parallel calls work(worker, i) for every i below n on up to threads
// goroutines and returns when all calls have. Which worker gets which i is not
// determined, so work must not let its result depend on it.
func parallel(threads, n int, work func(worker, i int)) {
	parallelChunks(threads, n, 8, work)
}

// parallelChunks does the same, and a goroutine takes chunk calls at a time.
func parallelChunks(threads, n, chunk int, work func(worker, i int)) {
	threads = min(threads, (n+chunk-1)/chunk)
	if threads <= 1 {
		for i := range n {
			work(0, i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for worker := range threads {
		group.Go(func() {
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
}
