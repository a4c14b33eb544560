package recent_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/recent"
)

// clock is a time that is set.
type clock struct{ time.Time }

func (c *clock) now() time.Time       { return c.Time }
func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

func newRecent() (*recent.Recent, *events.Listener, *clock) {
	c := &clock{time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	r := recent.New(c.now)
	return r, r.Listener(), c
}

func query(code connect.Code, took time.Duration) events.RPC {
	return events.RPC{Procedure: tandemv1connect.RetrievalServiceRetrieveProcedure, Code: code, Duration: took}
}

// TestQueries has queries counted for a minute and not longer.
func TestQueries(t *testing.T) {
	r, l, c := newRecent()
	require.Equal(t, recent.Queries{}, r.Queries())
	for i := range 100 {
		l.RPCEnd(query(0, time.Duration(i+1)*time.Millisecond))
	}
	l.RPCEnd(query(connect.CodeResourceExhausted, time.Hour))
	over := query(connect.CodeResourceExhausted, time.Hour)
	over.Shed = events.ShedQuotaCPU
	l.RPCEnd(over)
	l.RPCEnd(query(connect.CodeUnavailable, time.Hour))
	l.RPCEnd(events.RPC{Procedure: tandemv1connect.AdminServiceGetStatusProcedure, Duration: time.Hour})
	c.pass(15 * time.Second)
	q := r.Queries()
	require.Equal(t, []uint64{100, 2, 1, 1}, []uint64{q.Answered, q.Refused, q.Failed, q.OverQuota})
	require.Equal(t, 15*time.Second, q.Window)
	require.InEpsilon(t, 50*time.Millisecond, q.P50, 0.1)
	require.InEpsilon(t, 99*time.Millisecond, q.P99, 0.1)
	require.GreaterOrEqual(t, q.P99, 99*time.Millisecond, "no less than it was")

	c.pass(40 * time.Second)
	l.RPCEnd(query(0, 2*time.Minute))
	require.EqualValues(t, 101, r.Queries().Answered)
	c.pass(5 * time.Second)
	q = r.Queries()
	require.EqualValues(t, 1, q.Answered, "the first are a minute ago")
	require.Equal(t, 50*time.Second, q.Window)
	require.Greater(t, q.P99, time.Minute*9/10, "what is longest")
	c.pass(time.Hour)
	q = r.Queries()
	require.Zero(t, q.Answered)
	require.Zero(t, q.P99)
}

// TestStaleSecrets has files of secrets change: those that cannot be used are told of, until
// they can.
func TestStaleSecrets(t *testing.T) {
	r, l, _ := newRecent()
	require.Empty(t, r.StaleSecrets())
	l.Secrets(events.Secrets{Name: "tokens", Err: errors.New("bad")})
	l.Secrets(events.Secrets{Name: "certificates", Err: errors.New("bad")})
	require.Equal(t, []string{"certificates", "tokens"}, r.StaleSecrets())
	l.Secrets(events.Secrets{Name: "tokens"})
	require.Equal(t, []string{"certificates"}, r.StaleSecrets())
}

// TestFailures has the last failures told, the newest first, within bounds.
func TestFailures(t *testing.T) {
	r, l, c := newRecent()
	require.Empty(t, r.Failures())
	for range 1000 {
		c.pass(time.Second)
		l.NotServed(events.NotServed{Generation: 7, Err: errors.New("no room")})
	}
	l.LoadEnd(events.Load{Generation: 7}) // nothing is wrong
	l.Live(events.Live{Change: events.LiveWithin})
	l.ShardLost(events.ShardLost{Snapshot: "abc", Err: errors.New(strings.Repeat("x", 10_000))})
	list := r.Failures()
	require.Len(t, list, 2)
	require.Equal(t, recent.Shard, list[0].Kind)
	require.Less(t, len(list[0].Text), 1000)
	require.Equal(t, recent.Failure{Time: c.now(), Kind: recent.Release, Text: "generation 7: no room", Times: 1000}, list[1])

	for i := range 20 {
		l.LoadEnd(events.Load{Generation: uint64(i), Snapshot: "abcdef", Err: errors.New("it is damaged")})
	}
	list = r.Failures()
	require.Len(t, list, 8)
	for i, f := range list {
		require.Equal(t, fmt.Sprintf("snapshot abcdef of generation %d: it is damaged", 19-i), f.Text)
	}
}

// TestOneFailureIsToldOnce holds that a snapshot which cannot be opened, and the release that
// cannot be served therefore, are one failure however often they are tried, and that a release
// which cannot be served for something else is another.
func TestOneFailureIsToldOnce(t *testing.T) {
	r, l, c := newRecent()
	for range 3 {
		c.pass(time.Second)
		damaged := errors.New("it is damaged") // another each time, as of each try
		l.LoadEnd(events.Load{Generation: 4, Snapshot: "abcdef", Err: damaged})
		l.NotServed(events.NotServed{Generation: 4, Err: fmt.Errorf("arm control, snapshot abcdef: %w", damaged)})
	}
	require.Equal(t, []recent.Failure{{Time: c.now(), Kind: recent.Release, Text: "snapshot abcdef of generation 4: it is damaged", Times: 3}}, r.Failures())
	l.NotServed(events.NotServed{Generation: 5, Err: errors.New("it is damaged")})
	list := r.Failures()
	require.Len(t, list, 2)
	require.Equal(t, "generation 5: it is damaged", list[0].Text)
}

// TestEnded takes the parts of the window once they are over, each once.
func TestEnded(t *testing.T) {
	r, l, c := newRecent()
	began := c.Time
	l.RPCEnd(query(0, 4*time.Millisecond))
	l.Answered(&events.Answer{Coverage: 1})
	l.Answered(&events.Answer{Coverage: 0.5})
	l.RPCEnd(query(connect.CodeUnavailable, time.Hour))
	list, last := r.Ended(-1)
	require.Empty(t, list, "the first is not over")
	c.pass(recent.PartTime)
	over := query(connect.CodeResourceExhausted, time.Hour)
	over.Shed = events.ShedQuotaCPU
	l.RPCEnd(over)
	list, last = r.Ended(last)
	require.Len(t, list, 1)
	p := list[0]
	require.Equal(t, began.Add(recent.PartTime), p.End)
	require.Equal(t, []uint64{1, 0, 1, 2}, []uint64{p.Answered, p.Refused, p.Failed, p.Answers})
	require.Equal(t, []float64{0.75, 0.5}, []float64{p.Coverage, p.LowestCoverage})
	require.InEpsilon(t, 4*time.Millisecond, p.P99, 0.1)
	require.Equal(t, recent.PartTime, p.Window)
	again, same := r.Ended(last)
	require.Empty(t, again)
	require.Equal(t, last, same)

	// Two later, of which nothing happened in the second.
	c.pass(2 * recent.PartTime)
	list, last = r.Ended(last)
	require.Len(t, list, 2)
	require.EqualValues(t, 1, list[0].Refused)
	require.EqualValues(t, 1, list[0].OverQuota)
	require.Zero(t, list[0].Answers)
	require.Equal(t, recent.Part{End: began.Add(3 * recent.PartTime), Queries: recent.Queries{Window: recent.PartTime}}, list[1])

	// After a pause that is longer than the window, what is known is told.
	l.RPCEnd(query(0, time.Millisecond))
	c.pass(time.Hour)
	l.RPCEnd(query(0, time.Millisecond))
	list, last = r.Ended(last)
	require.Len(t, list, 5)
	for i, p := range list {
		require.Zero(t, p.Answered, "what it had is gone, and is not taken for what is later")
		require.Equal(t, began.Add(3*recent.PartTime+time.Hour-time.Duration(4-i)*recent.PartTime), p.End)
	}
	c.pass(recent.PartTime)
	list, _ = r.Ended(last)
	require.Len(t, list, 1)
	require.EqualValues(t, 1, list[0].Answered)
}
