package server

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// TestKeeper gives back what a burst leaves behind, and only that.
func TestKeeper(t *testing.T) {
	debug.FreeOSMemory() // what other tests have left
	trims := 0
	k := keeper{trim: func() { trims++ }}
	k.look()
	k.least, k.allocated = heapBytes()
	require.False(t, k.look(), "nothing was allocated since")
	trims = 0
	before, _ := heapBytes()
	var all [][]byte
	for range 64 {
		all = append(all, make([]byte, 1<<20))
	}
	require.False(t, k.look(), "it may still be in use")
	full, _ := heapBytes()
	require.GreaterOrEqual(t, full, before+60<<20)
	some := slices.Clone(all[:4])
	runtime.KeepAlive(all)
	all = nil
	require.True(t, k.look(), "hardly anything was allocated since")
	runtime.KeepAlive(some)
	require.True(t, k.look(), "what was given back last may have been held in part")
	after, _ := heapBytes()
	require.Less(t, after, before+16<<20, "others may hold a little more")
	for range looksAfter - 1 {
		require.True(t, k.look())
	}
	require.False(t, k.look(), "there is no more")
	require.Equal(t, 1+looksAfter, trims)

	for range 100 {
		all = append(all, make([]byte, 1<<20))
	}
	k.least = 0
	require.False(t, k.look(), "a busy server collects anyhow")
	runtime.KeepAlive(all)
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
