package server

import (
	"context"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// BatchRetrieve implements [tandemv1connect.RetrievalServiceHandler]. It answers
// on at most one goroutine for each processor.
func (s *Service) BatchRetrieve(ctx context.Context, r *connect.Request[tandemv1.BatchRetrieveRequest]) (*connect.Response[tandemv1.BatchRetrieveResponse], error) {
	requests := r.Msg.Requests
	results := make([]*tandemv1.BatchRetrieveResult, len(requests))
	batch := idFrom(ctx)
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(requests) {
				return
			}
			if requests[i].RequestId == "" {
				requests[i].RequestId = batch + "-" + strconv.Itoa(i)
			}
			results[i] = s.batchItem(ctx, requests[i])
		}
	}
	var group sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(requests)) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
	return connect.NewResponse(&tandemv1.BatchRetrieveResponse{Results: results}), nil
}

// batchItem is Retrieve for one request of a batch, with the same errors.
func (s *Service) batchItem(ctx context.Context, r *tandemv1.RetrieveRequest) *tandemv1.BatchRetrieveResult {
	answer, err := s.retrieveSafely(ctx, r)
	if err == nil {
		return &tandemv1.BatchRetrieveResult{Outcome: &tandemv1.BatchRetrieveResult_Response{Response: answer}}
	}
	coded := callerError(err, r.RequestId)
	if coded.Code() == connect.CodeInternal {
		s.logger.ErrorContext(ctx, "request failed", "request_id", r.RequestId, "error", err)
	}
	return &tandemv1.BatchRetrieveResult{Outcome: &tandemv1.BatchRetrieveResult_Error{
		Error: &tandemv1.ItemError{Code: coded.Code().String(), Message: coded.Message()},
	}}
}

// retrieveSafely does for a request of a batch what interceptors do for a single
// one: it validates, and a panic or a fault in a mapped file becomes an error.
func (s *Service) retrieveSafely(ctx context.Context, r *tandemv1.RetrieveRequest) (answer *tandemv1.RetrieveResponse, err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			answer, err = nil, panicError(p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := validate(r); err != nil {
		return nil, err
	}
	return s.retrieve(ctx, r)
}
