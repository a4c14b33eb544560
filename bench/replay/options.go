package replay

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Options say what to replay.
type Options struct {
	// Log has the recorded queries.
	Log *querylog.Log
	// Since and Until bound when the queries came: from Since on and before Until. A
	// zero time sets no bound.
	Since, Until time.Time
	// Limit is how many of these queries are replayed: a random sample, the same each
	// time. 0: all of them, up to MaxQueries.
	Limit int
	// Store has the snapshots.
	Store *snapshots.Store
	// Against is the snapshot to ask, as [snapshots.Store.Resolve] takes it.
	Against string
	// Baseline is the snapshot to ask the same queries, to compare with; empty for
	// none.
	Baseline string
	// Answer, if not nil, is called with what the snapshot answers to each query, best first, unless
	// it fails or answers by a fallback. Its error ends the run.
	Answer func(requestID string, ids []string) error
	// Logger is told why a snapshot failed to answer, where that is ours to mend.
	// Default: nobody is told.
	Logger *slog.Logger
	// Progress, if not nil, is called now and then with the queries that were read.
	Progress func(read int)
}

// MaxQueries is how many queries are replayed at most.
const MaxQueries = 1_000_000

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	switch {
	case o.Log == nil || o.Store == nil:
		return errors.New("log or store is missing")
	case o.Limit < 0 || o.Limit > MaxQueries:
		return fmt.Errorf("limit is %d, want 0 to %d", o.Limit, MaxQueries)
	case !o.Until.IsZero() && !o.Since.Before(o.Until):
		return fmt.Errorf("until is %s, want a time after %s", o.Until.Format(time.RFC3339), o.Since.Format(time.RFC3339))
	}
	return nil
}

// Thresholds say how much answers may differ. They are for all queries together. A nil
// or zero field sets none.
type Thresholds struct {
	// MinOverlap is the least mean overlap, 0 to 1.
	MinOverlap *float64
	// MaxFailed is the largest share of the queries that may fail, 0 to 1.
	MaxFailed *float64
	// MaxScoreShift is the most that ScoreShift, and MeanScoreShift whatever its
	// sign, may be.
	MaxScoreShift *float64
	// MaxLatencyRatio is the largest ratio of the mean latency to the baseline's.
	MaxLatencyRatio *float64
	// MaxLatencyP99 is the largest 99th percentile of the latency.
	MaxLatencyP99 time.Duration
}

// Validate returns an error that names the threshold out of bounds.
func (t Thresholds) Validate() error {
	for _, x := range []struct {
		name  string
		value *float64
		most  float64
	}{
		{"min-overlap", t.MinOverlap, 1},
		{"max-failed", t.MaxFailed, 1},
		{"max-score-shift", t.MaxScoreShift, 2},
		{"max-latency-ratio", t.MaxLatencyRatio, math.MaxFloat64},
	} {
		if x.value == nil || *x.value >= 0 && *x.value <= x.most {
			continue
		}
		if x.most == math.MaxFloat64 {
			return fmt.Errorf("%s is %v, want at least 0", x.name, *x.value)
		}
		return fmt.Errorf("%s is %v, want 0 to %v", x.name, *x.value, x.most)
	}
	if t.MaxLatencyP99 < 0 {
		return fmt.Errorf("max-latency-p99 is %s, want at least 0", t.MaxLatencyP99)
	}
	return nil
}

// Broken returns what of a report breaks a threshold, one text for each, which begins
// with the threshold's name. Where a threshold is set and there is nothing to hold
// against it, it is broken.
func (t Thresholds) Broken(r *Report) []string {
	var broken []string
	hold := func(name string, limit any, ok bool, what string, args ...any) {
		if !ok {
			broken = append(broken, fmt.Sprintf("%s is %v, %s", name, limit, fmt.Sprintf(what, args...)))
		}
	}
	all := &r.Overall
	if t.MaxFailed != nil {
		hold("max-failed", *t.MaxFailed, all.Queries > 0, "no query was asked")
		if all.Queries > 0 {
			share := float64(all.Failed) / float64(all.Queries)
			hold("max-failed", *t.MaxFailed, share <= *t.MaxFailed, "%.4g of the queries failed", share)
		}
	}
	answered := all.Queries > all.Failed
	if t.MinOverlap != nil {
		hold("min-overlap", *t.MinOverlap, answered, "no query was answered")
		hold("min-overlap", *t.MinOverlap, !answered || all.Overlap >= *t.MinOverlap, "the mean overlap is %.4f", all.Overlap)
	}
	if t.MaxScoreShift != nil {
		hold("max-score-shift", *t.MaxScoreShift, answered, "no query was answered")
		hold("max-score-shift", *t.MaxScoreShift, all.ScoreShift <= *t.MaxScoreShift, "the score shift is %.4f", all.ScoreShift)
		hold("max-score-shift", *t.MaxScoreShift, math.Abs(all.MeanScoreShift) <= *t.MaxScoreShift,
			"the mean score has shifted by %+.4f", all.MeanScoreShift)
	}
	if t.MaxLatencyRatio != nil {
		both := all.Baseline != nil && all.Baseline.Queries > 0
		hold("max-latency-ratio", *t.MaxLatencyRatio, both, "no query was answered by a baseline too")
		if both {
			ratio := all.Baseline.LatencyRatio
			hold("max-latency-ratio", *t.MaxLatencyRatio, ratio <= *t.MaxLatencyRatio, "the mean latency is %.3f times the baseline's", ratio)
		}
	}
	if t.MaxLatencyP99 > 0 {
		hold("max-latency-p99", t.MaxLatencyP99, answered, "no query was answered")
		p99 := time.Duration(all.Replayed.P99 * 1e3)
		hold("max-latency-p99", t.MaxLatencyP99, p99 <= t.MaxLatencyP99, "the 99th percentile is %s", p99.Round(time.Microsecond))
	}
	return broken
}
