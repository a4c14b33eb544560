package server

import (
	"cmp"
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
)

// Retrieve implements [tandemv1connect.RetrievalServiceHandler].
func (s *Service) Retrieve(ctx context.Context, r *connect.Request[tandemv1.RetrieveRequest]) (*connect.Response[tandemv1.RetrieveResponse], error) {
	answer, err := s.retrieve(ctx, r.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

// retrieve answers a request that keeps the rules of the contract, if it is admitted.
func (s *Service) retrieve(ctx context.Context, r *tandemv1.RetrieveRequest) (*tandemv1.RetrieveResponse, error) {
	now, err := s.acquire(r.ModelVersion, requestKey(r))
	if err != nil {
		return nil, err
	}
	defer now.release()
	b := boundsFrom(ctx)
	if c := callFrom(ctx); c != nil {
		k := now.estimate(r, b.processors)
		if k.answer > b.answer {
			return nil, estimatedTooLong(r, k.answer, 0, b.answer)
		}
		if err := c.admit(ctx, k); err != nil {
			return nil, err
		}
	}
	return s.answer(ctx, now, r, b)
}

// answer answers a request by an arm, within bounds.
func (s *Service) answer(ctx context.Context, now *arm, r *tandemv1.RetrieveRequest, b bounds) (*tandemv1.RetrieveResponse, error) {
	start := time.Now()
	q, err := newQuery(ctx, now.snapshot, r)
	if err != nil {
		s.noteLost(now.serving, nil, err)
		return nil, err
	}
	prepared := time.Since(start)
	q.MaxText, q.Workers = b.answer, b.processors
	found, err := q.tower.Search(ctx, &q.Query)
	s.noteLost(now.serving, found, err)
	if text, ok := errors.AsType[*shard.TextError](err); ok {
		return nil, textTooLong(ctx, now.snapshot, q, r, text, b.answer)
	}
	if err != nil {
		return nil, searchError(ctx, err)
	}
	answer, err := newAnswer(ctx, now.snapshot, q, found)
	if err != nil {
		return nil, err
	}
	answer.RequestId, answer.Generation, answer.Arm = r.RequestId, now.generation, now.name
	if r.Explain || len(r.ExplainIds) > 0 {
		answer.Explain = newExplain(ctx, q, found, prepared)
		answer.Explain.TotalTime = duration(time.Since(start))
	}
	if b.answer > 0 && mayExceed(q, found, b.answer) {
		if size := proto.Size(answer); size > b.answer {
			return nil, answerTooLong(r, answer, size, 0, b.answer)
		}
	}
	s.recorder.offer(start, r, answer)
	return answer, nil
}

// mayExceed reports whether an answer may have more than so many bytes in protobuf.
func mayExceed(q *query, found *shard.Answer, most int) bool {
	each := shard.MaxIDLen + 16
	for _, name := range q.names {
		each += len(name) + 32
	}
	return len(found.Candidates)*each+3*found.Text+1024*len(found.Shards) > most
}

// requestKey returns what decides the arm of a request. A request that does not say who
// it is for has a request_id, if only one that was made up for it.
func requestKey(r *tandemv1.RetrieveRequest) string {
	return cmp.Or(r.RequestKey, r.UserId, r.RequestId)
}
