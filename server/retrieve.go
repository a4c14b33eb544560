package server

import (
	"cmp"
	"context"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// Retrieve implements [tandemv1connect.RetrievalServiceHandler].
func (s *Service) Retrieve(ctx context.Context, r *connect.Request[tandemv1.RetrieveRequest]) (*connect.Response[tandemv1.RetrieveResponse], error) {
	answer, err := s.retrieve(ctx, r.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

// retrieve answers a request that keeps the rules of the contract.
func (s *Service) retrieve(ctx context.Context, r *tandemv1.RetrieveRequest) (*tandemv1.RetrieveResponse, error) {
	start := time.Now()
	now, err := s.acquire(r.ModelVersion, requestKey(r))
	if err != nil {
		return nil, err
	}
	defer now.release()
	q, err := newQuery(now.snapshot, r)
	if err != nil {
		s.noteLost(now.serving, nil, err)
		return nil, err
	}
	prepared := time.Since(start)
	searching, cancel := searchContext(ctx, q.MinCoverage)
	defer cancel()
	found, err := q.tower.Search(searching, &q.Query)
	s.noteLost(now.serving, found, err)
	if err != nil {
		return nil, searchError(ctx, err)
	}
	answer := newAnswer(now.snapshot, q, found)
	answer.RequestId, answer.Generation, answer.Arm = r.RequestId, now.generation, now.name
	if r.Explain || len(r.ExplainIds) > 0 {
		answer.Explain = newExplain(q, found, prepared)
		answer.Explain.TotalTime = duration(time.Since(start))
	}
	s.recorder.offer(start, r, answer)
	return answer, nil
}

// requestKey returns what decides the arm of a request. A request that does not say who
// it is for has a request_id, if only one that was made up for it.
func requestKey(r *tandemv1.RetrieveRequest) string {
	return cmp.Or(r.RequestKey, r.UserId, r.RequestId)
}

// searchContext returns the context of a search. If the caller takes an answer
// that lacks shards, the search ends a little before the caller's deadline, or the
// answer would come too late.
func searchContext(ctx context.Context, minCoverage float64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || minCoverage >= 1 {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, 20*time.Millisecond)))
}
