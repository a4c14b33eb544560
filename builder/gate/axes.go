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
// axes. How far towers of such trainings agree is known from what serves now. That they
// agree much less is a check of its own, for only a run beside a previous snapshot may
// take it back.
func (r *run) axes(ctx context.Context) error {
	const agreement = "agreement above chance"
	if r.off(Axes) {
		return nil
	}
	metric := r.Candidate.Manifest().Metric
	if metric == index.L2 {
		r.notRun(Axes, "", "the metric is %s, and only models that score by inner products are known to give their towers the same axes", metric)
		return nil
	}
	found, err := compareAxes(ctx, r.Candidate)
	if err != nil {
		return err
	}
	state, text := found.Verdict()
	r.axesCheck(agreement, found, axes.Agreed, state, text)
	switch {
	case r.Previous == nil:
		r.notRun(Axes, fallOf+agreement, noPrevious)
		return nil
	case r.Previous.Manifest().Metric != metric:
		r.notRun(Axes, fallOf+agreement, "the metric was %s and is %s", r.Previous.Manifest().Metric, metric)
		return nil
	}
	reference, err := compareAxes(ctx, r.Previous)
	if err != nil {
		return err
	}
	state, text = found.Beside(reference)
	r.axesCheck(fallOf+agreement, found, reference.Least(), state, text)
	return nil
}

// axesCheck adds what a comparison amounts to.
func (r *run) axesCheck(subject string, found *axes.Result, least float64, state axes.State, text string) {
	if state == axes.Apart {
		text = "the towers do not belong together: they may be of different model versions, or the columns of one in another order; " + text
	}
	c := check(Axes, subject, found.Sigmas(), shard.BoundMin, least, state == axes.Together, text)
	if state != axes.Inconclusive {
		r.report.Checks = append(r.report.Checks, c)
		return
	}
	c.Undecided = shard.GateInconclusive
	r.report.Undecided = append(r.report.Undecided, c)
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
