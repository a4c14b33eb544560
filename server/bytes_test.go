package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// TestByteBudget takes bytes until there are none, and cuts off those that have waited
// for their callers for long, longest first, and no others.
func TestByteBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &byteBudget{most: 100}
		var all []*call
		next := func() (*call, *deadlines) {
			d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			c := &call{limits: &limiter{}, control: http.NewResponseController(d)}
			all = append(all, c)
			return c, d
		}
		slow, slowTimes := next()
		slower, slowerTimes := next()
		working, workingTimes := next()
		b.wait(slow)
		require.True(t, b.take(slow, 30))
		b.wait(slower)
		require.True(t, b.take(slower, 30))
		require.True(t, b.take(working, 30))
		other, _ := next()
		b.wait(other)
		require.False(t, b.take(other, 20), "nobody has waited for long")
		requireError(t, b.full(), connect.CodeResourceExhausted, "100 bytes of requests and answers are in flight, as many as are accepted; retry in 1s")
		require.True(t, b.take(other, 10))

		require.True(t, b.resume(slower))
		b.wait(slower) // to take its answer: its time begins anew
		time.Sleep(cutOffAfter - time.Millisecond)
		require.False(t, b.take(other, 1))
		time.Sleep(time.Millisecond)
		require.True(t, b.take(other, 30))
		require.EqualValues(t, 1, slowTimes.read.Unix(), "it is cut off")
		require.EqualValues(t, 1, slowTimes.write.Unix())
		require.Zero(t, slowerTimes.read)
		require.False(t, b.resume(slow))
		require.False(t, b.take(slow, 1))

		require.True(t, b.take(other, 1))
		require.EqualValues(t, 1, slowerTimes.read.Unix(), "and the next")
		more, _ := next()
		require.True(t, b.take(more, 50), "and the next")
		more, _ = next()
		require.False(t, b.take(more, 50), "what works is not cut off")
		require.Zero(t, workingTimes.read)
		alone := &byteBudget{most: 100}
		require.True(t, alone.take(&call{}, 1000))
		require.True(t, alone.take(&call{}, 50), "one has half at most")
		require.False(t, alone.take(&call{}, 1))

		for _, c := range all {
			b.release(c)
			b.release(c)
		}
		require.Zero(t, b.used)
		require.Nil(t, b.oldest)
		require.Nil(t, b.newest)
	})
}

// TestSlowBodies begins more large requests than there are bytes for, and sends most of
// each: the memory that they take is bounded, and a request that is sent in time gets
// through.
func TestSlowBodies(t *testing.T) {
	const most = 1 << 20
	s, l := serveLimited(t, smallTowers(index.Dot).loaded(t), Options{MaxBytesInFlight: most})
	var stops []func()
	for range 20 {
		some := `{"userId": "` + strings.Repeat("x", 100_000)
		stops = append(stops, stall(t, s, "/tandem.v1.RetrievalService/Retrieve", some))
	}
	defer each(stops)
	wait(t, func() bool { return l.bytes.inUse() > most/2 })
	wait(t, func() bool { return s.post(t, "Retrieve", heldRequest).status == http.StatusOK })
	large := `{"userId": "u1", "k": 3, "excludeIds": ["` + strings.Repeat(`x", "`, 60_000) + `x"]}`
	wait(t, func() bool {
		got := s.post(t, "Retrieve", large)
		require.Contains(t, []int{http.StatusOK, http.StatusTooManyRequests}, got.status, "%s", got.body)
		return got.status == http.StatusOK
	})
	require.LessOrEqual(t, l.bytes.inUse(), int64(most))
}

// TestUnreadBodies makes sure that a body which is refused before it is read does no harm.
func TestUnreadBodies(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{MaxMessageBytes: 1000})
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/tandem.v1.RetrievalService/Retrieve",
			io.LimitReader(endless{}, 1<<20))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = 1 << 20
		got := s.do(t, r)
		require.Equal(t, "the message has more than 1000 bytes; accepted: up to 1000", got.json["message"])
		require.Equal(t, http.StatusOK, s.post(t, "Retrieve", heldRequest).status)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
