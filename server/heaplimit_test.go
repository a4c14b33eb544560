package server

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The limit has room for requests, and follows what is in use beyond that.
func TestHeapLimit(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	rapid.Check(t, func(t *rapid.T) {
		l := heapLimit{room: rapid.Int64Range(1<<20, 1<<30).Draw(t, "room")}
		for _, used := range rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 1, 20).Draw(t, "used") {
			l.look(used)
			now := debug.SetMemoryLimit(-1)
			require.GreaterOrEqual(t, now, l.room)
			require.Greater(t, now, used+used/4, "or Go collects all the time")
			require.LessOrEqual(t, now, max(l.room, 2*used))
		}
	})
	l := heapLimit{room: 100}
	l.look(1000)
	require.EqualValues(t, 1500, debug.SetMemoryLimit(-1))
	l.look(1010)
	require.EqualValues(t, 1500, debug.SetMemoryLimit(-1), "it is nearly right")
	l.look(0)
	require.EqualValues(t, 100, debug.SetMemoryLimit(-1))
}

// The ballast is as much as requests may take, up to a bound.
func TestBallast(t *testing.T) {
	for _, requests := range []int64{1 << 20, 64 << 20, maxBallast} {
		require.Equal(t, requests, Options{MaxBytesInFlight: requests}.Ballast())
	}
	require.EqualValues(t, maxBallast, Options{MaxBytesInFlight: 1 << 40}.Ballast())
	usual := Options{}.Ballast()
	require.GreaterOrEqual(t, usual, int64(64<<20))
	require.LessOrEqual(t, usual, int64(maxBallast))
}

// A server has a limit for as long as it runs, and what others have set stays.
func TestLimitHeap(t *testing.T) {
	before := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(before)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			limitHeap(ctx, 50<<20)
		}()
		synctest.Wait()
		low := debug.SetMemoryLimit(-1)
		require.GreaterOrEqual(t, low, 2*int64(50<<20)+Options{MaxBytesInFlight: 50 << 20}.Ballast(), "there is room for the ballast")
		require.Less(t, low, int64(math.MaxInt64))

		much := make([]byte, 2*low)
		runtime.GC()
		time.Sleep(limitEvery)
		synctest.Wait()
		require.Greater(t, debug.SetMemoryLimit(-1), int64(len(much)))
		runtime.KeepAlive(much)
		cancel()
		<-done
	})
	require.EqualValues(t, math.MaxInt64, debug.SetMemoryLimit(-1))

	debug.SetMemoryLimit(1 << 40)
	limitHeap(t.Context(), 1) // returns at once
	require.EqualValues(t, 1<<40, debug.SetMemoryLimit(-1))
}
