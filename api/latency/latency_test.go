package latency_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/api/latency"
)

func TestHedge(t *testing.T) {
	var c latency.Calls
	add := func(n int, took time.Duration) {
		for range n {
			c.Add(took)
		}
	}
	add(19, time.Second)
	took, known := c.Usual()
	require.False(t, known, "19 calls say nothing")
	require.Equal(t, latency.First, took)
	require.Equal(t, latency.First, c.Hedge())
	add(1, time.Second)
	took, known = c.Usual()
	require.True(t, known)
	require.Equal(t, time.Second+time.Second/8, took)
	add(268, 8*time.Microsecond) // 288, as after each 32nd it is computed anew
	require.Equal(t, time.Millisecond, c.Hedge(), "no call is late before")
	add(12, 800*time.Millisecond)
	add(20, 8*time.Microsecond)
	require.Equal(t, time.Millisecond, c.Hedge(), "12 of 256 are fewer than one in twenty")
	add(32, 800*time.Millisecond)
	require.Equal(t, 900*time.Millisecond, c.Hedge())
}
