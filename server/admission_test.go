package server

import (
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/auth"
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

// TestPriorities refuses what is less urgent first: a quarter of what may be in flight is there
// for all, another one for batches too, and the rest for what is live.
func TestPriorities(t *testing.T) {
	for _, work := range []time.Duration{time.Millisecond, 5 * time.Millisecond} {
		a := testAdmission()
		a.maxRequests = 1000
		room := a.maxWork - a.maxWork/shortShare
		if work <= shortWork {
			room = a.maxWork / shortShare
		}
		n := time.Duration(0)
		for _, c := range []struct {
			priority auth.Priority
			most     time.Duration
			text     string
		}{{auth.AuditPriority, room / 4 / work, " of priority audit"}, {auth.BatchPriority, room / 2 / work, " of priority batch"}, {auth.LivePriority, room / work, ""}} {
			for {
				err := a.enter(&cost{work: work, priority: c.priority})
				if err != nil {
					require.ErrorContains(t, err, "as much as is accepted"+c.text+"; retry")
					break
				}
				n++
			}
			require.Equal(t, c.most, n, "%s of %s", c.priority, work)
		}
	}
	a := testAdmission()
	for range 25 {
		require.NoError(t, a.enter(&cost{work: 1, priority: auth.AuditPriority}))
	}
	require.ErrorContains(t, a.enter(&cost{work: 1, priority: auth.AuditPriority}), "25 requests are in flight, as many as are accepted of priority audit; retry")
	require.NoError(t, a.enter(&cost{work: 1, priority: auth.BatchPriority}))
}
