package server

import (
	"context"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
)

// tell notes what is to be told of an answer, but for times. It aliases nothing that is
// mapped.
func (q *query) tell(now *pinned, answer *tandemv1.RetrieveResponse, found *shard.Answer) {
	q.told = events.Answer{
		Generation: now.generation, Arm: now.name, Snapshot: now.snapshot.Digest(), Segment: q.Segment,
		Plan: answer.Plan, K: q.asked, Candidates: len(answer.Candidates), Short: answer.ShortReason,
		Eligible: found.Eligible, Coverage: answer.Coverage.EligibleShare,
		Fallback: q.fallback != tandemv1.Fallback_FALLBACK_UNSPECIFIED,
	}
	q.told.Shards = found.Shards
	for i := range found.Shards {
		q.told.Distances += found.Shards[i].Scored
	}
}

// answered has told of an answer when it is encoded; at once where there is no request that
// is answered with it.
func (s *Service) answered(ctx context.Context, told *events.Answer) {
	c := callFrom(ctx)
	if c == nil {
		s.events.Answered(told)
		return
	}
	c.one[0] = told
	c.told, c.answered = c.one[:], time.Now()
}

// answeredAll is answered for the items of a batch.
func (s *Service) answeredAll(ctx context.Context, items []batchItem) {
	c := callFrom(ctx)
	for i := range items {
		switch {
		case items[i].failure != nil:
		case c == nil:
			s.events.Answered(items[i].told)
		default:
			c.told = append(c.told, items[i].told)
		}
	}
	if c != nil {
		c.answered = time.Now()
	}
}

// tellAnswers tells of what was answered: it is encoded.
func (c *call) tellAnswers() {
	if len(c.told) == 0 {
		return
	}
	each := time.Since(c.answered) / time.Duration(len(c.told))
	for _, told := range c.told {
		told.Wait = c.wait
		told.Encode += each
		told.Caller, told.Trace = c.exchange.callerName(), c.exchange.traceID()
		c.exchange.service.events.Answered(told)
	}
	c.told, c.one[0] = nil, nil
}

// notAnswered has nothing told of what the request of ctx would have been answered with.
func notAnswered(ctx context.Context) {
	if c := callFrom(ctx); c != nil {
		c.told, c.one[0] = nil, nil
	}
}

// armsOf returns the arms of what answers, nil for nothing.
func armsOf(s *state) (list []events.ServedArm) {
	if s == nil {
		return nil
	}
	for _, a := range s.arms {
		served := events.ServedArm{Name: a.name}
		for _, segment := range a.snapshot.Manifest().Apps.Segments {
			served.Segments = append(served.Segments, segment.Name)
		}
		list = append(list, served)
	}
	return list
}
