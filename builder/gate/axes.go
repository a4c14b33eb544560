package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/axes"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// axes judges by the vectors alone whether both towers come of one training; see package
// axes. How far towers of such trainings agree is known from what serves now. That they
// agree much less is a check of its own, for only a run beside a previous snapshot may
// take it back.
func (r *run) axes(ctx context.Context) error {
	if r.off(gates.Axes) {
		return nil
	}
	metric := r.Candidate.Manifest().Metric
	if metric == index.L2 {
		r.NotRun(gates.Axes, "", "the metric is %s, and only models that score by inner products are known to give their towers the same axes", metric)
		return nil
	}
	found, err := compareAxes(ctx, r.Candidate)
	if err != nil {
		return err
	}
	state, text := found.Alone()
	r.axesCheck(agreement, found, axes.Agreed, state, text)
	switch {
	case r.Previous == nil:
		r.NotRun(gates.Axes, gates.FallOf+agreement, gates.NoPrevious)
		return nil
	case r.Previous.Manifest().Metric != metric:
		r.NotRun(gates.Axes, gates.FallOf+agreement, "the metric was %s and is %s", r.Previous.Manifest().Metric, metric)
		return nil
	}
	reference, err := compareAxes(ctx, r.Previous)
	if err != nil {
		return err
	}
	state, text = found.Beside(reference)
	r.axesCheck(gates.FallOf+agreement, found, reference.Least(), state, text)
	return nil
}

// agreement is the subject of the check of towers by themselves.
const agreement = "agreement above chance"

// settleAxes makes it inconclusive that towers by themselves show no common axes if what
// users interacted with shows that they are of one training: networks were found that had
// learnt all there was to learn, and whose towers agree by nothing (see package
// bench/alignment). What towers show beside a previous snapshot stays. That both name one
// training run settles nothing: the columns of one may have been mixed up after it.
func settleAxes(f *gates.Findings) {
	shown := 0
	for _, c := range f.Checks {
		switch {
		case c.Gate == gates.Alignment && !c.Passed:
			return
		case c.Gate == gates.Alignment:
			shown++
		}
	}
	if shown == 0 {
		return
	}
	f.Checks = slices.DeleteFunc(f.Checks, func(c manifest.GateCheck) bool {
		if c.Gate != gates.Axes || c.Subject != agreement || c.Passed {
			return false
		}
		f.Inconclusive(c.Gate, c.Subject, c.Value, c.Bound, c.Limit, "%s", settled+strings.TrimPrefix(c.Text, apart))
		return true
	})
}

// apart begins the text of a check that found towers apart.
const apart = "the towers do not belong together: they may be of different model versions, or the columns of one in another order; "

// settled begins the text of a check that something else has settled.
const settled = "what users interacted with shows that the towers belong together, and by their vectors alone they would not: "

// axesCheck adds what a comparison amounts to.
func (r *run) axesCheck(subject string, found *axes.Result, least float64, state axes.State, text string) {
	if state == axes.Apart {
		text = apart + text
	}
	if state == axes.Inconclusive {
		r.Inconclusive(gates.Axes, subject, found.Sigmas(), manifest.BoundMin, least, "%s", text)
		return
	}
	r.Add(gates.Axes, subject, found.Sigmas(), manifest.BoundMin, least, state == axes.Together, text)
}

// compareAxes compares the towers of a snapshot, as its metric sees them.
func compareAxes(ctx context.Context, s *snapshots.Snapshot) (*axes.Result, error) {
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
