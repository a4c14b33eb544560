package server

import (
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
)

func testAdmission() *admission {
	return &admission{maxRequests: 100, maxWork: 400 * time.Millisecond, processors: 2, ratio: 1, since: time.Now()}
}

// TestAdmission lets work in up to a bound, and keeps an eighth for short work.
func TestAdmission(t *testing.T) {
	a := testAdmission()
	var in []*cost
	enter := func(work time.Duration) error {
		k := &cost{work: work}
		err := a.enter(k)
		if err == nil {
			in = append(in, k)
		}
		return err
	}
	require.NoError(t, enter(time.Minute), "more than is let in otherwise, but alone")
	requireError(t, enter(2*time.Millisecond), connect.CodeResourceExhausted, "work of 350ms is in flight, as much as is accepted; retry in 1s")
	a.maxRequests = 1000
	for range 50 {
		require.NoError(t, enter(time.Millisecond))
	}
	requireError(t, enter(time.Millisecond), connect.CodeResourceExhausted, "work of 50ms is in flight, as much as is accepted; retry in 1s")
	a.leave(in[0])
	require.NoError(t, enter(200*time.Millisecond))
	require.NoError(t, enter(150*time.Millisecond))
	require.Error(t, enter(2*time.Millisecond))
	for _, k := range in[1:] {
		a.leave(k)
	}
	require.Zero(t, a.requests)
	require.Zero(t, a.short)
	require.Zero(t, a.long)
}

// TestAdmissionMeasures corrects estimates that are wrong by what was measured, within
// bounds, and not from work that is little beside what else the process does.
func TestAdmissionMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testAdmission()
		second := func(estimated, measured time.Duration) {
			now := a.since.Add(time.Second)
			a.used, a.ended = processorTime()-measured, estimated
			a.measure(now, time.Second)
		}
		second(time.Millisecond, 2*time.Second)
		require.Equal(t, 1.0, a.ratio, "too little to tell")
		second(time.Second, 2*time.Second)
		require.InDelta(t, 1.3, a.ratio, 0.1)
		for range 20 {
			second(time.Second, 2*time.Second)
		}
		require.InDelta(t, 2, a.ratio, 0.1)
		k := cost{work: 10 * time.Millisecond}
		require.NoError(t, a.enter(&k))
		require.InDelta(t, 20*time.Millisecond, k.counted, float64(time.Millisecond))
		for range 20 {
			second(time.Second, 100*time.Second)
		}
		require.Equal(t, float64(maxRatio), a.ratio)
		a.leave(&k)
		require.Zero(t, a.long, "it leaves as what it entered")
		for range 20 {
			second(4*time.Second, time.Millisecond)
		}
		require.Equal(t, 1.0/maxRatio, a.ratio)
	})
}
