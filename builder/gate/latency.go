package gate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Measure runs the latency gate: the default query for 100 candidates, for each held-out
// user, one at a time, in this process, after every shard was asked once. What it finds
// is true of this machine at this time, so it is no part of a manifest.
func Measure(ctx context.Context, s *snapshots.Snapshot, t gates.Thresholds) (_ []manifest.GateCheck, err error) {
	defer sections.Guard(&err)()
	if t.Off[gates.Latency] {
		return nil, nil
	}
	queries := probe.Vectors(probe.HeldOut(s.Tower(shard.Users), probe.SampleOf(manifest.Gate), nil))
	if len(queries) == 0 {
		return nil, nil
	}
	if err := s.Warm(ctx); err != nil {
		return nil, fmt.Errorf("gate %s: %w", gates.Latency, err)
	}
	times := make([]float64, len(queries))
	for i, q := range queries {
		start := time.Now()
		if _, err := s.Tower(shard.Apps).Search(ctx, probe.Default(q, topK, "")); err != nil {
			return nil, fmt.Errorf("gate %s: %w", gates.Latency, err)
		}
		times[i] = float64(time.Since(start)) / float64(time.Millisecond)
	}
	slices.Sort(times)
	var f gates.Findings
	for _, q := range []struct {
		name         string
		share, limit float64
	}{{"p50", 0.5, t.Latency.P50}, {"p99", 0.99, t.Latency.P99}} {
		x := probe.Quantile(times, q.share)
		f.AtMost(gates.Latency, q.name+" in milliseconds", x, q.limit,
			"the %s of %s queries for %d candidates is %.3g ms, at most %v ms are accepted", q.name, wording.Count(len(times)), topK, x, q.limit)
	}
	return f.Checks, nil
}
