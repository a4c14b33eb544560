package server

import (
	"context"
	"fmt"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// newAnswer puts what a tower found on the wire, its candidates in rows. The error is the
// context's.
func newAnswer(ctx context.Context, now *pinned, q *query, found *shard.Answer, rows *candidateRows) (*tandemv1.RetrieveResponse, error) {
	m := now.snapshot.Manifest()
	answered := found.Answered()
	list, err := candidates(ctx, found.Candidates, q.names, rows)
	if err != nil {
		return nil, err
	}
	out := &tandemv1.RetrieveResponse{
		Candidates:   list,
		Model:        m.Model,
		ModelVersion: m.ModelVersion,
		Snapshot:     string(now.snapshot.Digest()),
		Coverage: &tandemv1.Coverage{
			ShardsAnswered: uint32(answered),
			Shards:         uint32(len(found.Shards)),
			ShardShare:     float64(answered) / float64(len(found.Shards)),
			EligibleShare:  found.Coverage(),
			ShardsCut:      uint32(found.Cut()),
		},
		Plan:         planOf(found.Shards),
		Eligible:     uint64(found.Eligible),
		FallbackUsed: q.fallback,
	}
	if answered == len(found.Shards) {
		out.Coverage.EligibleShare = 1
	}
	out.Live, out.Staleness = now.stamp()
	out.ShortReason, out.ShortReasonText = shortReason(q, found, answered)
	return out, nil
}

// giveWay is for the midst of long work: it gives way to others, and returns the error of
// a context that has ended.
func giveWay(ctx context.Context) error {
	index.GiveWay()
	return ctx.Err()
}

// candidateStep is how many attributes are put on the wire between two looks whether the
// caller still waits.
const candidateStep = 512

// candidateRows is memory for the candidates of an answer. One that is used again is what most
// of the garbage of small queries would be.
type candidateRows struct {
	rows []tandemv1.Candidate
	list []*tandemv1.Candidate // all of rows
}

// keptRows is how many rows are used again at most.
const keptRows = 1000

// take returns n empty rows, as they are until the next call. Of a nil one they are new.
func (c *candidateRows) take(n int) []*tandemv1.Candidate {
	if c == nil || n > keptRows {
		c = &candidateRows{}
	}
	if len(c.rows) < n {
		c.rows, c.list = make([]tandemv1.Candidate, n), make([]*tandemv1.Candidate, n)
		for i := range c.rows {
			c.list[i] = &c.rows[i]
		}
	}
	return c.list[:n:n]
}

// clear makes all rows empty, which keep nothing alive then.
func (c *candidateRows) clear() {
	for i := range c.rows {
		row := &c.rows[i]
		row.Id, row.Score, row.Attributes, row.Team, row.Propensity = "", 0, nil, "", nil
	}
}

// candidates puts candidates on the wire, in rows. The error is the context's.
func candidates(ctx context.Context, found []shard.Candidate, names []string, rows *candidateRows) ([]*tandemv1.Candidate, error) {
	if len(found) == 0 {
		return nil, nil
	}
	out := rows.take(len(found))
	for i, c := range out {
		c.Id, c.Score = found[i].ID, found[i].Score
		if len(names) > 0 {
			if i*len(names)/candidateStep != (i+1)*len(names)/candidateStep {
				if err := giveWay(ctx); err != nil {
					return nil, err
				}
			}
			c.Attributes = attributes(found[i].Attributes, names)
		}
	}
	return out, nil
}

func attributes(values []attribute.Value, names []string) map[string]*tandemv1.AttributeValue {
	out := make(map[string]*tandemv1.AttributeValue, len(values))
	for i, v := range values {
		if !v.Absent() {
			out[names[i]] = wire.AttributeValue(v)
		}
	}
	return out
}

// shardPlan is the plan of a shard that needed one.
func shardPlan(s *shard.ShardAnswer) tandemv1.Plan {
	if s.Err != nil || s.Eligible == 0 {
		return tandemv1.Plan_PLAN_UNSPECIFIED
	}
	switch s.Plan {
	case index.ExactScan:
		return tandemv1.Plan_PLAN_EXACT_SCAN
	case index.FilteredWalk:
		return tandemv1.Plan_PLAN_FILTERED_WALK
	case index.GraphWalk:
		return tandemv1.Plan_PLAN_GRAPH_WALK
	}
	return tandemv1.Plan_PLAN_UNSPECIFIED
}

// planOf sums up the plans of the shards.
func planOf(shards []shard.ShardAnswer) tandemv1.Plan {
	sum := tandemv1.Plan_PLAN_UNSPECIFIED
	for i := range shards {
		switch p := shardPlan(&shards[i]); {
		case p == sum || p == tandemv1.Plan_PLAN_UNSPECIFIED:
		case sum == tandemv1.Plan_PLAN_UNSPECIFIED:
			sum = p
		default:
			return tandemv1.Plan_PLAN_MIXED
		}
	}
	return sum
}

// shortReason says why there are fewer candidates than asked for.
func shortReason(q *query, found *shard.Answer, answered int) (tandemv1.ShortReason, string) {
	n, kind, shards := len(found.Candidates), q.tower.Kind(), len(found.Shards)
	if n >= q.asked {
		return tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED, ""
	}
	all, k := found.Before+n, fmt.Sprintf(", k is %d", q.asked)
	switch {
	case n < q.K && answered < shards:
		return tandemv1.ShortReason_SHORT_REASON_COVERAGE, fmt.Sprintf("%d of %d shards answered", answered, shards) + k
	case n < q.K && found.Cut() > 0:
		return tandemv1.ShortReason_SHORT_REASON_COVERAGE, fmt.Sprintf("the deadline cut %d of %d shards short", found.Cut(), shards) + k
	case n == q.K || all >= maxCandidates:
		return tandemv1.ShortReason_SHORT_REASON_PAGES,
			fmt.Sprintf("all pages together have at most %d candidates, %d of them before this one", maxCandidates, max(found.Before, q.After.Rank)) + k
	}
	if q.After != nil {
		k = fmt.Sprintf(", %d of them after page_token", n) + k
	}
	switch {
	case all < found.Eligible:
		return tandemv1.ShortReason_SHORT_REASON_AT_MOST, fmt.Sprintf("at_most leaves %d of %d eligible %s", all, found.Eligible, kind) + k
	case all == 1:
		return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("1 %s is eligible", noun(kind)) + k
	}
	return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("%d %s are eligible", all, kind) + k
}
