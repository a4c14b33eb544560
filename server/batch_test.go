package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestBatchDeadline has the deadline pass amid a batch: what was answered is there, and the
// others fail with it. If the caller goes away, all does.
func TestBatchDeadline(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // items are answered one after the other
	s := smallTowers(index.Dot).loaded(t)
	ask := func() *connect.Request[tandemv1.BatchRetrieveRequest] {
		batch := &tandemv1.BatchRetrieveRequest{}
		for range 6 {
			batch.Requests = append(batch.Requests, &tandemv1.RetrieveRequest{UserId: "u1", K: 3})
		}
		return connect.NewRequest(batch)
	}
	whole := &deadlineAfter{Context: t.Context()}
	whole.looks.Store(1 << 30)
	_, err := s.BatchRetrieve(whole, ask())
	require.NoError(t, err)
	looks := 1<<30 - whole.looks.Load()
	answered := map[int]bool{}
	for n := range looks {
		late := &deadlineAfter{Context: t.Context()}
		late.looks.Store(n)
		got, err := s.BatchRetrieve(late, ask())
		require.NoError(t, err)
		require.Len(t, got.Msg.Results, 6)
		had := 0
		for i, result := range got.Msg.Results {
			if result.GetResponse() != nil {
				require.Equal(t, i, had, "the first")
				had++
				continue
			}
			require.Equal(t, "deadline_exceeded", result.GetError().GetCode())
			require.Equal(t, string(reasonDeadline), result.GetError().GetInfo().GetReason())
		}
		answered[had] = true
	}
	require.Len(t, answered, 7, "%v", answered)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.BatchRetrieve(ctx, ask())
	require.ErrorIs(t, err, context.Canceled)
}

// TestLateBatch encodes the large answer of a batch whose deadline has passed.
func TestLateBatch(t *testing.T) {
	r := &tandemv1.RetrieveResponse{}
	for i := range largeAnswer + 1 {
		r.Candidates = append(r.Candidates, &tandemv1.Candidate{Id: fmt.Sprint("application-", i), Score: 1})
	}
	batch := &tandemv1.BatchRetrieveResponse{Results: []*tandemv1.BatchRetrieveResult{{Outcome: &tandemv1.BatchRetrieveResult_Response{Response: r}}}}
	x := &exchange{}
	late := &deadlineAfter{Context: context.WithValue(t.Context(), exchangeKey{}, x)}
	for _, gone := range []bool{false, true} {
		caller, cancel := context.WithCancel(t.Context())
		if gone {
			cancel()
		}
		x.request = httptest.NewRequestWithContext(caller, http.MethodPost, "/", nil)
		_, err := encoding(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return connect.NewResponse(batch), nil
		})(late, connect.NewRequest(&tandemv1.BatchRetrieveRequest{}))
		if gone {
			require.ErrorIs(t, err, context.Canceled)
		} else {
			require.NoError(t, err)
		}
		_, err = encoding(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return connect.NewResponse(r), nil
		})(late, connect.NewRequest(&tandemv1.RetrieveRequest{}))
		require.ErrorIs(t, err, context.DeadlineExceeded, "of one query it is cut")
		cancel()
	}
}
