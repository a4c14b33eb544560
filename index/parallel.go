package index

import (
	"sync"
	"sync/atomic"
)

// parallel calls work(worker, i) for every i below n on up to threads
// goroutines and returns when all calls have. Which worker gets which i is not
// determined, so work must not let its result depend on it.
func parallel(threads, n int, work func(worker, i int)) {
	const chunk = 8
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
				from := int(next.Add(chunk)) - chunk
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
