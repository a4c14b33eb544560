package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/wording"
)

// newExplain tells how a query was answered; the caller adds the total time.
func newExplain(ctx context.Context, q *query, found *shard.Answer, prepared time.Duration) *tandemv1.Explain {
	out := &tandemv1.Explain{
		Shards:      make([]*tandemv1.ShardExplain, len(found.Shards)),
		PrepareTime: duration(prepared),
		FanOutTime:  duration(found.FanOut),
		MergeTime:   duration(found.Merge),
	}
	for i := range found.Shards {
		s := &found.Shards[i]
		out.Shards[i] = &tandemv1.ShardExplain{Shard: s.Shard, Rows: uint64(s.Rows), Error: shardError(s)}
		if s.Err != nil {
			continue
		}
		e := out.Shards[i]
		e.Plan, e.Eligible, e.Ef = shardPlan(s), uint64(s.Eligible), uint32(s.Ef)
		e.Scored, e.Expanded = uint64(s.Scored), uint64(s.Expanded)
		e.FilterTime, e.SearchTime = duration(s.Filter), duration(s.Search)
		e.Reason, e.Asked = planReason(q, s), uint32(s.Asked)
	}
	out.UnknownIncludeIds, out.UnknownExcludeIds = uint32(found.UnknownInclude), uint32(found.UnknownExclude)
	if out.UnknownIncludeIds+out.UnknownExcludeIds > 0 {
		// The answer is found: of a shard that can no longer be read, and after the
		// deadline, there is nothing to tell.
		out.OtherForms, _ = otherForms(ctx, q.tower, q.Moment, q.Include, q.Exclude)
	}
	for i := range found.Explained {
		out.Ids = append(out.Ids, idExplain(ctx, q, found, &found.Explained[i]))
	}
	return out
}

// planReason says why a shard was asked by its plan.
func planReason(q *query, s *shard.ShardAnswer) string {
	of := fmt.Sprintf("%s eligible of %s", wording.Count(s.Eligible), wording.Count(s.Rows))
	switch {
	case s.Eligible == 0:
		return of + ": there is nothing to find"
	case s.Deep && s.Asked < s.Eligible:
		return of + ": at_most passes over so many that an exact scan finds the rest"
	}
	switch s.Reason {
	case index.NothingToFind, index.AllAsked:
		return of + ": all are asked for"
	case index.NoGraph:
		return of + ": what is newer than the snapshot is scanned"
	case index.NoEffort:
		if q.Target >= 1 {
			return of + ": recall_target 1 is the exact scan"
		}
		return fmt.Sprintf("%s: no walk that costs less than the exact scan reaches recall_target %g", of, q.Target)
	}
	costs := fmt.Sprintf("%s: exact scan costs %s, %s %s", of, wording.Count(int(s.ExactCost)), s.Walk, wording.Count(int(s.WalkCost)))
	switch {
	case s.GaveUp:
		costs += "; the walk was given up: " + whyGivenUp(s.Apart)
	case s.Reason == index.TooNear:
		costs += ", too near to that: some walks cost more than expected"
	}
	return costs
}

func whyGivenUp(apart bool) string {
	if apart {
		return "hardly any eligible row is near the query"
	}
	return "it went beyond that"
}

var standings = map[shard.Standing]tandemv1.Verdict{
	shard.ShardMissing:  tandemv1.Verdict_VERDICT_SHARD_MISSING,
	shard.TakenDown:     tandemv1.Verdict_VERDICT_TAKEN_DOWN,
	shard.Unknown:       tandemv1.Verdict_VERDICT_UNKNOWN,
	shard.OutsideWindow: tandemv1.Verdict_VERDICT_OUTSIDE_WINDOW,
	shard.IsQuery:       tandemv1.Verdict_VERDICT_QUERY,
	shard.Excluded:      tandemv1.Verdict_VERDICT_EXCLUDED,
	shard.NotIncluded:   tandemv1.Verdict_VERDICT_NOT_INCLUDED,
	shard.NotEligible:   tandemv1.Verdict_VERDICT_NOT_ELIGIBLE,
	shard.Earlier:       tandemv1.Verdict_VERDICT_EARLIER_PAGE,
	shard.Returned:      tandemv1.Verdict_VERDICT_RETURNED,
	shard.Capped:        tandemv1.Verdict_VERDICT_CAPPED,
	shard.BelowCut:      tandemv1.Verdict_VERDICT_BELOW_CUT,
	shard.NotVisited:    tandemv1.Verdict_VERDICT_NOT_VISITED,
}

// idExplain says why an entity is or is not in the answer.
func idExplain(ctx context.Context, q *query, found *shard.Answer, e *shard.Explained) *tandemv1.IdExplain {
	out := &tandemv1.IdExplain{
		Id: e.ID, Verdict: standings[e.Standing], Shard: e.Shard, Rank: uint32(e.Rank), Clause: e.Clause, Fresh: e.Fresh,
	}
	switch e.Standing {
	case 0, shard.ShardMissing, shard.TakenDown, shard.Unknown, shard.OutsideWindow:
	default:
		out.Score = &e.Score
	}
	returned, last := len(found.Candidates), float32(0)
	if returned > 0 {
		last = found.Candidates[returned-1].Score
	}
	switch kind := noun(q.tower.Kind()); e.Standing {
	case 0:
		out.Text = "the deadline passed before it could be explained"
	case shard.ShardMissing:
		out.Text = fmt.Sprintf("shard %s, which it belongs to, did not answer", e.Shard)
	case shard.TakenDown:
		out.Text = "it is taken down"
	case shard.OutsideWindow:
		out.Text = "its window does not contain the time of the request"
	case shard.Unknown:
		other, _ := inAnotherForm(ctx, q.tower, q.Moment, e.ID) // as with other forms of the lists
		out.Text = fmt.Sprintf("the %s tower does not have it%s", kind, other)
	case shard.IsQuery:
		out.Text = "it is the query itself"
	case shard.Excluded:
		out.Text = "it is in exclude_ids"
	case shard.NotIncluded:
		out.Text = "it is not in include_ids"
	case shard.NotEligible:
		out.Text = "the filter is false for it: " + e.Clause
		if e.Segment != "" {
			out.Text = fmt.Sprintf("it is not in segment %s, which is false for it: %s", e.Segment, e.Clause)
		}
	case shard.Earlier:
		out.Text = fmt.Sprintf("it scores %.6g, page_token is of %s, which scores %.6g: it belongs to an earlier page", e.Score, excerpt(q.After.ID), q.After.Score)
	case shard.Returned:
		out.Text = fmt.Sprintf("returned at rank %d of %d", e.Rank, returned)
		if q.After != nil {
			out.Text = fmt.Sprintf("returned at rank %d, which is %d of %d on this page", e.Rank, e.Rank-q.After.Rank, returned)
		}
	case shard.Capped:
		out.Attribute, out.Value = q.tower.Schema().Field(e.Limit.Field).Name, wire.AttributeValue(e.Value)
		out.Text = fmt.Sprintf("%d with %s %q rank before it, as many as at_most allows", e.Limit.N, out.Attribute, excerpt(e.Value.String()))
	case shard.BelowCut:
		out.Text = fmt.Sprintf("it scores %.6g, the last of %d returned %.6g", e.Score, returned, last)
	case shard.NotVisited:
		out.Text = fmt.Sprintf("it scores %.6g, the last of %d returned %.6g: the walk did not find it", e.Score, returned, last)
		if slices.ContainsFunc(found.Shards, func(s shard.ShardAnswer) bool { return s.Shard == e.Shard && s.Cut != nil }) {
			out.Text = fmt.Sprintf("it scores %.6g, the last of %d returned %.6g: its shard was cut short", e.Score, returned, last)
		}
	}
	return out
}

// shardError says why a shard did not answer, or not once more.
func shardError(s *shard.ShardAnswer) string {
	err, when := s.Err, ""
	if err == nil {
		err, when = s.Cut, " before it had answered once more"
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return "the deadline passed" + when
	case errors.Is(err, context.Canceled):
		return "the caller went away" + when
	}
	return err.Error()
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
