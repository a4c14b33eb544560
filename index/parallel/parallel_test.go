package parallel_test

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index/parallel"
)

func TestCallsEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		threads, n, chunk := rapid.IntRange(0, 6).Draw(t, "threads"), rapid.IntRange(0, 100).Draw(t, "n"), rapid.IntRange(1, 20).Draw(t, "chunk")
		calls := make([]atomic.Int32, n)
		var beyond atomic.Int32
		parallel.Chunks(threads, n, chunk, func(worker, i int) {
			if worker < 0 || worker >= max(threads, 1) {
				beyond.Add(1)
			}
			calls[i].Add(1)
		})
		require.Zero(t, beyond.Load())
		for i := range calls {
			require.EqualValues(t, 1, calls[i].Load())
		}
	})
}
