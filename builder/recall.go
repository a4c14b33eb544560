package builder

import (
	"context"
	"errors"
	"math"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// recallBands are the values of k that a build reports on, ascending.
var recallBands = [...]int{10, 100}

// recall measures the tower as it will be asked: through the fan-out, at each
// target, by queries that calibrated nothing.
func (b *build) recall(ctx context.Context, kind shard.Kind, queries *index.Matrix) (_ []manifest.Recall, err error) {
	t, err := snapshots.OpenTower(ctx, b.staged, b.manifest, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	targets := make([]float64, len(index.Targets))
	for i, target := range index.Targets {
		targets[i] = rounded(float64(target))
	}
	return measureRecall(ctx, t, queries, "", targets, func(done int) { b.Progress.Step(int64(done)) })
}

// measureRecall measures the recall of a tower, or of one segment of it, at each band
// and target. Without queries it measures nothing. It calls step with how many queries were
// asked.
func measureRecall(ctx context.Context, t *shard.Tower, queries *index.Matrix, segment string, targets []float64, step func(done int)) ([]manifest.Recall, error) {
	if queries.Rows() == 0 {
		return nil, nil
	}
	var report []manifest.Recall
	var each [][]float64 // the recalls of the queries, for each of the report
	for _, k := range recallBands {
		for _, target := range targets {
			report = append(report, manifest.Recall{K: k, Target: target, Queries: queries.Rows()})
			each = append(each, nil)
		}
	}
	for i := range queries.Rows() {
		step(i)
		q := &shard.Query{Vectors: [][]float32{queries.Row(i)}, K: recallBands[len(recallBands)-1], Segment: segment, Target: 1, MinCoverage: 1}
		exact, err := t.Search(ctx, q)
		if err != nil {
			return nil, err
		}
		for j := range report {
			r := &report[j]
			q.K, q.Target = r.K, r.Target
			found, err := t.Search(ctx, q)
			if err != nil {
				return nil, err
			}
			// The best k are the first of the best of the largest k.
			each[j] = append(each[j], shard.RecallOf(t.Metric(), exact.Candidates[:min(r.K, len(exact.Candidates))], found.Candidates))
			if i == 0 {
				for _, s := range found.Shards {
					r.Ef = append(r.Ef, s.Ef)
				}
			}
		}
	}
	for j := range report {
		mean, worst := shard.MeanRecall(each[j])
		mean, worst = rounded(mean), rounded(worst)
		report[j].Recall, report[j].Worst = mean, &worst
	}
	return report, nil
}

// rounded returns a share to six decimals, as a person would write it: 0.9, not
// the float32 next to it.
func rounded(share float64) float64 { return math.Round(share*1e6) / 1e6 }
