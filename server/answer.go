package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// newAnswer puts what a tower found on the wire. The error is the context's.
func newAnswer(ctx context.Context, snapshot *shard.Snapshot, q *query, found *shard.Answer) (*tandemv1.RetrieveResponse, error) {
	m := snapshot.Manifest()
	answered := found.Answered()
	list, err := candidates(ctx, found.Candidates, q.names)
	if err != nil {
		return nil, err
	}
	out := &tandemv1.RetrieveResponse{
		Candidates:   list,
		Model:        m.Model,
		ModelVersion: m.ModelVersion,
		Snapshot:     string(snapshot.Digest()),
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

// candidates makes two allocations for all of them, unless attributes were asked
// for. The error is the context's.
func candidates(ctx context.Context, found []shard.Candidate, names []string) ([]*tandemv1.Candidate, error) {
	if len(found) == 0 {
		return nil, nil
	}
	out := make([]*tandemv1.Candidate, len(found))
	slab := make([]tandemv1.Candidate, len(found))
	for i := range found {
		c := &slab[i]
		c.Id, c.Score = found[i].ID, found[i].Score
		if len(names) > 0 {
			if i*len(names)/candidateStep != (i+1)*len(names)/candidateStep {
				if err := giveWay(ctx); err != nil {
					return nil, err
				}
			}
			c.Attributes = attributes(found[i].Attributes, names)
		}
		out[i] = c
	}
	return out, nil
}

func attributes(values []attribute.Value, names []string) map[string]*tandemv1.AttributeValue {
	out := make(map[string]*tandemv1.AttributeValue, len(values))
	for i, v := range values {
		if !v.Absent() {
			out[names[i]] = attributeValue(v)
		}
	}
	return out
}

func attributeValue(v attribute.Value) *tandemv1.AttributeValue {
	switch v.Type() {
	case attribute.Keyword:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keyword{Keyword: v.Keyword()}}
	case attribute.KeywordList:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keywords{Keywords: &tandemv1.Keywords{Values: v.Keywords()}}}
	case attribute.Bool:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Bool{Bool: v.Bool()}}
	case attribute.Int:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Int{Int: v.Int()}}
	case attribute.Float, attribute.Float32:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Float{Float: v.Float()}}
	default:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Timestamp{Timestamp: timestamppb.New(v.Time())}}
	}
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
	n, kind := len(found.Candidates), q.tower.Kind()
	switch {
	case n >= q.K:
		return tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED, ""
	case answered < len(found.Shards):
		return tandemv1.ShortReason_SHORT_REASON_COVERAGE,
			fmt.Sprintf("%d of %d shards answered, k is %d", answered, len(found.Shards), q.K)
	case found.Cut() > 0:
		return tandemv1.ShortReason_SHORT_REASON_COVERAGE,
			fmt.Sprintf("the deadline cut %d of %d shards short, k is %d", found.Cut(), len(found.Shards), q.K)
	case n < found.Eligible:
		return tandemv1.ShortReason_SHORT_REASON_AT_MOST,
			fmt.Sprintf("at_most leaves %d of %d eligible %s, k is %d", n, found.Eligible, kind, q.K)
	case n == 1:
		return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("1 %s is eligible, k is %d", noun(kind), q.K)
	}
	return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("%d %s are eligible, k is %d", n, kind, q.K)
}
