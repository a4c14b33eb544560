package attack

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// retrieval answers by a function, and by nothing but it.
type retrieval struct {
	tandemv1connect.UnimplementedRetrievalServiceHandler
	answer func() error
}

func (r *retrieval) Retrieve(context.Context, *connect.Request[tandemv1.RetrieveRequest]) (*connect.Response[tandemv1.RetrieveResponse], error) {
	return connect.NewResponse(&tandemv1.RetrieveResponse{}), r.answer()
}

func answering(t *testing.T, answer func() error) string {
	_, h := tandemv1connect.NewRetrievalServiceHandler(&retrieval{answer: answer})
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// A server that stalls is asked no less, and its latencies count from when a query was due.
func TestLightIsAnOpenLoop(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("stalled", func(t *testing.T) {
		const queries = 40
		var arrived atomic.Int64
		all := make(chan struct{})
		url := answering(t, func() error {
			if arrived.Add(1) == queries { // all others still wait for their answers
				close(all)
			}
			<-all
			return nil
		})
		l := newLight(url, []string{"u"}, 100)
		defer l.close()
		r := l.ask(t.Context(), queries*10*time.Millisecond)
		assert.EqualValues(t, queries, r.Queries)
		assert.Empty(t, r.Errors)
		assert.GreaterOrEqual(t, r.Max, float64((queries-1)*10_000), "the first waited for the last")
		assert.GreaterOrEqual(t, r.P99, r.P50)
	})
}

// Errors are counted by code; those of overload are no failures.
func TestLightErrors(t *testing.T) {
	var n atomic.Int64
	url := answering(t, func() error {
		switch n.Add(1) % 4 {
		case 0:
			return connect.NewError(connect.CodeResourceExhausted, nil)
		case 1:
			return connect.NewError(connect.CodeInternal, nil)
		}
		return nil
	})
	l := newLight(url, []string{"u"}, 1000)
	defer l.close()
	r := l.ask(t.Context(), 40*time.Millisecond)
	assert.EqualValues(t, 40, r.Queries)
	assert.Equal(t, map[string]int64{"resource_exhausted": 10, "internal": 10}, r.Errors)
	assert.EqualValues(t, 10, r.failed())
	assert.Equal(t, "internal", r.FirstError)
}
