package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/auth"
)

// queue is requests that arrive at a shedder and pass it one after the other.
type queue struct {
	shedder
	now     time.Time
	arrived []time.Time // of those that wait
	longest time.Duration
}

// run has requests arrive for a time, each so long after the one before, and pass, each so long
// after the one before. It returns how many arrived and how many were let in.
func (q *queue) run(d, arrives, passes time.Duration, priority auth.Priority) (asked, in int) {
	const tick = 50 * time.Microsecond
	for since := time.Duration(0); since < d; since += tick {
		q.now = q.now.Add(tick)
		if since%arrives == 0 {
			asked++
			if _, refused := q.refuses(priority, q.now); !refused {
				in++
				q.wait()
				q.arrived = append(q.arrived, q.now)
			}
		}
		if since%passes == 0 && len(q.arrived) > 0 {
			q.longest = max(q.longest, q.now.Sub(q.arrived[0]))
			q.arrived = q.arrived[1:]
			q.pass(q.now)
		}
	}
	return asked, in
}

// TestShedding asks twice what can be answered: half is let in, and waits for about as long as the
// target, and all is again once there is less to do.
func TestShedding(t *testing.T) {
	q := &queue{now: time.Now()}
	asked, in := q.run(time.Second, 400*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
	require.Equal(t, asked, in, "as much as can be answered")

	q.run(time.Second, 100*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
	require.Less(t, q.longest, 2*shedInterval, "before it was known that it is no burst")
	q.longest = 0
	asked, in = q.run(10*time.Second, 100*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
	require.InDelta(t, asked/2, in, float64(asked)/50, "goodput")
	require.Less(t, q.longest, shedTarget+shedTarget/4)

	// What is less urgent has no place beside that.
	_, in = q.run(time.Second, 100*time.Microsecond, time.Hour, auth.BatchPriority)
	require.Zero(t, in)

	q.run(time.Second, 400*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
	asked, in = q.run(time.Second, 400*time.Microsecond, 200*time.Microsecond, auth.AuditPriority)
	require.Equal(t, asked, in)
	require.False(t, q.shedding)
}

// TestBurstsAreLetIn has many requests arrive at once, as a caller sends them that has collected
// some, and nothing for a while then.
func TestBurstsAreLetIn(t *testing.T) {
	q := &queue{now: time.Now()}
	q.run(time.Second, 250*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
	for range 20 {
		asked, in := q.run(20*time.Millisecond, 50*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
		require.Equal(t, asked, in)
		q.run(100*time.Millisecond, time.Hour, 200*time.Microsecond, auth.LivePriority)
	}
}

// TestShedsAnyway refuses what would wait for very long, though it may be a burst.
func TestShedsAnyway(t *testing.T) {
	q := &queue{now: time.Now()}
	q.run(50*time.Millisecond, 100*time.Microsecond, 200*time.Microsecond, auth.LivePriority)
	asked, in := q.run(90*time.Millisecond, 50*time.Microsecond, time.Millisecond, auth.LivePriority)
	require.Less(t, in, asked)
}

// Where as many requests are in flight as may be, one more is refused by its headers: it does not wait
// for the gate. A write does, for there may be room when it is read.
func TestCrowdedIsRefusedByHeaders(t *testing.T) {
	a := testAdmission()
	a.maxRequests = 4
	handler := gated(&shedder{}, a, &refusals{errors: connect.NewErrorWriter()}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	ask := func(path, priority string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, path, http.NoBody)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(PriorityHeader, priority)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for range 2 {
		require.NoError(t, a.enter(&cost{work: time.Microsecond}))
	}
	code, _ := ask(tandemv1connect.RetrievalServiceRetrieveProcedure, "live")
	require.Equal(t, http.StatusNoContent, code)
	code, body := ask(tandemv1connect.RetrievalServiceRetrieveProcedure, "batch")
	require.Equal(t, http.StatusTooManyRequests, code)
	require.Contains(t, body, "2 requests are in flight, as many as are accepted of priority batch")
	for range 2 {
		require.NoError(t, a.enter(&cost{work: time.Microsecond}))
	}
	code, body = ask(tandemv1connect.RetrievalServiceRetrieveProcedure, "live")
	require.Equal(t, http.StatusTooManyRequests, code)
	require.Contains(t, body, "4 requests are in flight, as many as are accepted")
	code, _ = ask(tandemv1connect.LiveServiceWriteProcedure, "live")
	require.Equal(t, http.StatusNoContent, code)
}

// TestLongRunsAreExpected takes a connection for one of long work after several in a row, looks at
// some all the same, and forgets it at the first short one.
func TestLongRunsAreExpected(t *testing.T) {
	c := &conn{}
	for range longRun {
		require.False(t, c.expectsLong())
		c.sent(true)
	}
	looked := 0
	for range 10 * looksEach {
		if !c.expectsLong() {
			looked++
		}
	}
	require.Equal(t, 10, looked)
	c.sent(false)
	require.False(t, c.expectsLong())

	a := testAdmission()
	full := func(p auth.Priority) bool {
		_, full := a.isFull(p)
		return full
	}
	require.False(t, full(auth.LivePriority))
	require.NoError(t, a.enter(&cost{work: 200 * time.Millisecond}))
	require.False(t, full(auth.LivePriority))
	require.True(t, full(auth.BatchPriority))
	require.NoError(t, a.enter(&cost{work: 150 * time.Millisecond}))
	require.True(t, full(auth.LivePriority))
}
