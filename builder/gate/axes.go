package gate

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/builder/axes"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// axes judges by the vectors alone whether both towers come of one training; see package
// axes. What serves now says how far towers of such trainings agree.
func (r *run) axes(ctx context.Context) error {
	if r.off(Axes) {
		return nil
	}
	if metric := r.Candidate.Manifest().Metric; metric == index.L2 {
		r.notRun(Axes, "", "the metric is %s, and only models that score by inner products are known to give their towers the same axes", metric)
		return nil
	}
	found, err := compareAxes(ctx, r.Candidate)
	if err != nil {
		return err
	}
	var reference *axes.Result
	if p := r.Previous; p != nil && p.Manifest().Metric == r.Candidate.Manifest().Metric {
		if reference, err = compareAxes(ctx, p); err != nil {
			return err
		}
	}
	state, text := found.Verdict(reference)
	c := check(Axes, "agreement above chance", found.Sigmas(), shard.BoundMin, axes.Agreed, state == axes.Together, text)
	switch state {
	case axes.Inconclusive:
		c.Undecided = shard.GateInconclusive
		r.report.Undecided = append(r.report.Undecided, c)
		return nil
	case axes.Apart:
		c.Text = bounded(text + "; the towers do not belong together: they may be of different model versions, or the columns of one are in another order")
	}
	r.report.Checks = append(r.report.Checks, c)
	return nil
}

// compareAxes compares the towers of a snapshot, as its metric sees them.
func compareAxes(ctx context.Context, s *shard.Snapshot) (*axes.Result, error) {
	kinds := [2]shard.Kind{shard.Apps, shard.Users}
	var sides [2]*axes.Side
	err := probe.Each(ctx, len(sides), func(i int) (err error) {
		rows := probe.Vectors(probe.Pick(s.Tower(kinds[i]), axes.MaxRows, nil))
		if s.Manifest().Metric == index.Cosine {
			for _, v := range rows {
				normalise(v)
			}
		}
		sides[i], err = axes.Measure(ctx, rows)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.Digest().Short(), err)
	}
	return axes.Compare(sides[0], sides[1]), nil
}

// normalise gives v the norm 1, unless it is 0.
func normalise(v []float32) {
	if norm := probe.Norm(v); norm > 0 {
		for i, x := range v {
			v[i] = float32(float64(x) / norm)
		}
	}
}
