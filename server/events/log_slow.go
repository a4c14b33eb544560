package events

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
)

// answered tells of a query that was slow how it was answered: of some of them, if they are many.
func (l *Log) answered(e *Answer) {
	took := e.Took()
	if l.Slow <= 0 || took < l.Slow || !l.logger.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	leftOut, ok := l.slow.take(time.Now())
	if !ok {
		return
	}
	args := withNames([]any{"request_id", e.ID, "duration", took}, "caller", e.Caller, "trace_id", e.Trace)
	args = append(args, "generation", e.Generation, "arm", e.Arm, "snapshot", e.Snapshot.Short())
	args = withNames(args, "segment", e.Segment)
	args = append(args, "plan", PlanName(e.Plan), "k", e.K, "candidates", e.Candidates, "eligible", e.Eligible, "distances", e.Distances, "coverage", rounded(e.Coverage),
		"wait", e.Wait, "prepare", e.Prepare, "search", e.Search, "encode", e.Encode, "shards", explained(e.Shards))
	l.logger.Warn("slow query", withLeftOut(args, leftOut)...)
}

// maxExplained is how many shards are explained in a line.
const maxExplained = 16

// explained says how shards took part in an answer, those that took longest first.
func explained(shards []shard.ShardAnswer) []string {
	shards = slices.Clone(shards)
	slices.SortStableFunc(shards, func(a, b shard.ShardAnswer) int { return cmp.Compare(b.Filter+b.Search, a.Filter+a.Search) })
	var out []string
	for i, s := range shards {
		switch {
		case i == maxExplained:
			return append(out, fmt.Sprintf("%d more", len(shards)-i))
		case s.Err != nil:
			out = append(out, s.Shard+": no answer")
		default:
			out = append(out, fmt.Sprintf("%s: %s, %d eligible, ef %d, %d scored, filter %s, search %s", s.Shard, s.Plan, s.Eligible, s.Ef, s.Scored, s.Filter, s.Search))
		}
	}
	return out
}
