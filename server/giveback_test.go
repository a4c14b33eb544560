package server

import (
	"log/slog"
	"runtime"
	"runtime/metrics"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// TestKeeper gives back what a burst leaves behind, and only that.
func TestKeeper(t *testing.T) {
	trims := 0
	k := keeper{trim: func() { trims++ }}
	exhaust := func() {
		for range looksAfter {
			require.True(t, k.look(), "what was given back last may have been in use in part")
		}
		require.False(t, k.look(), "there is no more")
	}
	var all [][]byte
	allocate := func(n int) {
		for range n {
			all = append(all, make([]byte, 1<<20))
		}
	}
	allocate(20)
	k.look()
	runtime.KeepAlive(all)
	all = nil
	require.True(t, k.look())
	exhaust()
	before := heapBytes()

	trims = 0
	allocate(64)
	require.False(t, k.look(), "it may still be in use")
	some := slices.Clone(all[:40])
	runtime.KeepAlive(all)
	all = nil
	require.True(t, k.look(), "hardly anything was allocated since")
	exhaust()
	require.Equal(t, 1+looksAfter, trims)

	runtime.KeepAlive(some) // and no longer
	runtime.GC()            // after which the heap takes no more than when memory was given back last
	allocate(20)
	require.False(t, k.look())
	runtime.KeepAlive(all)
	all = nil
	require.True(t, k.look(), "what was in use then is garbage now")
	exhaust()
	require.Less(t, heapBytes(), before+16<<20, "others may hold a little more")

	allocate(20)
	require.False(t, k.look())
	allocate(100)
	require.False(t, k.look(), "a busy server collects anyhow")
	runtime.KeepAlive(all)
}

// heapBytes returns how many bytes of the machine's memory the heap has.
func heapBytes() (n uint64) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	for _, s := range samples {
		n += s.Value.Uint64()
	}
	return n
}

// TestTrimForgetsFilters has a service forget the filters of what answers that nobody uses
// any more; one that answers nothing has none.
func TestTrimForgetsFilters(t *testing.T) {
	NewService(slog.New(slog.DiscardHandler)).trim()
	s := smallTowers(index.Dot).loaded(t)
	apps := s.current.Load().arms[0].snapshot.Tower(shard.Apps)
	compile := func() *eligibility.Filter {
		f, err := apps.Compile("true")
		require.NoError(t, err)
		return f
	}
	compile()
	remembered := compile()
	s.trim()
	require.Same(t, remembered, compile())
	s.trim()
	require.Same(t, remembered, compile())
	s.trim()
	s.trim()
	require.NotSame(t, remembered, compile())
}
