package server

import (
	"cmp"
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
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
	arrived := s.clock()
	if err := s.reach(ctx, r.MinLive); err != nil {
		return nil, err
	}
	now, err := s.acquireFor(r, arrived)
	if err != nil {
		return nil, err
	}
	defer now.release()
	if err := s.begin(now); err != nil {
		return nil, err
	}
	b := boundsFrom(ctx)
	c := callFrom(ctx)
	if c != nil {
		c.arm = now.name
		k := now.estimate(r, b.processors)
		if k.answer > b.answer {
			return nil, estimatedTooLong(r, k.answer, 0, b.answer)
		}
		if err := c.admit(ctx, k); err != nil {
			return nil, err
		}
		b.rows = c.takeRows()
	}
	answer, told, err := s.answer(ctx, now, r, b, c.span())
	if err != nil {
		return nil, err
	}
	if err := s.guard(ctx, now); err != nil {
		return nil, err
	}
	s.answered(ctx, told)
	return answer, nil
}

// answer answers a request by an arm, or by two, within bounds and a span, and says what is to be
// told of that.
func (s *Service) answer(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest, b bounds, in traces.Span) (*tandemv1.RetrieveResponse, *events.Answer, error) {
	if now.twin != nil && now.twin.pinned != nil {
		return s.answerTwo(ctx, now, r, b, in)
	}
	return s.answerOne(ctx, now, r, b, in)
}

// answerOne is answer by one arm.
func (s *Service) answerOne(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest, b bounds, in traces.Span) (*tandemv1.RetrieveResponse, *events.Answer, error) {
	start := time.Now()
	traceArm(in, now)
	preparing := in.BeginAt("prepare", start)
	q, err := newQuery(ctx, now, r, preparing)
	preparing.End()
	if err != nil {
		s.noteLost(now.serving, nil, err)
		if connect.CodeOf(err) == connect.CodeNotFound {
			s.events.NotFound(events.NotFound{Arm: now.name, Segment: r.Segment})
		}
		return nil, nil, err
	}
	prepared := time.Since(start)
	q.MaxText, q.Workers = b.answer, b.processors
	searching := in.Begin("search")
	traceSearch(q, searching)
	found, err := now.search(ctx, q, r)
	searching.End()
	q.Observe = nil // whoever keeps the query does not keep the trace
	s.noteLost(now.serving, found, err)
	if text, ok := errors.AsType[*shard.TextError](err); ok {
		return nil, nil, textTooLong(ctx, now, q, r, text, b.answer)
	}
	if err != nil {
		return nil, nil, searchError(ctx, err)
	}
	searched := time.Since(start)
	defer in.Begin("answer").End()
	x, err := now.exploreAnswer(ctx, q, r, found)
	if text, ok := errors.AsType[*shard.TextError](err); ok {
		return nil, nil, textTooLong(ctx, now, q, r, text, b.answer)
	}
	if err != nil {
		return nil, nil, searchError(ctx, err)
	}
	answer, err := newAnswer(ctx, now, q, x.shown(found), b.rows)
	if err != nil {
		return nil, nil, err
	}
	answer.RequestId, answer.Generation, answer.Arm = r.RequestId, now.generation, now.name
	answer.NextPageToken = nextPage(now, q, r, found)
	x.fill(now, r, answer)
	if now.twin != nil {
		answer.NotInterleaved = now.twin.text
	}
	if r.Explain || len(r.ExplainIds) > 0 {
		answer.Explain = newExplain(ctx, q, found, prepared)
		answer.Explain.TotalTime = duration(time.Since(start))
	}
	if b.answer > 0 && (answer.Explored || mayExceed(q, found, b.answer)) {
		if size := proto.Size(answer); size > b.answer {
			return nil, nil, answerTooLong(r, answer, size, 0, b.answer)
		}
	}
	if s.recorder.wants(r, now.generation) {
		s.recorder.record(start, r, answer, x.without(s.recorder.nextOf(ctx, q, found)))
	}
	now.offer(q, found)
	q.tell(now, answer, found)
	q.told.Explored = answer.Explored
	if now.twin != nil {
		q.told.Interleaving = now.twin.why
	}
	q.told.ID = r.RequestId
	traceAnswer(in, &q.told)
	q.told.Prepare, q.told.Search, q.told.Encode = prepared, searched-prepared, time.Since(start)-searched
	return answer, &q.told, nil
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
