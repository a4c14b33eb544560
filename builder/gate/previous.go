package gate

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/wording"
)

// fall returns by how much of what it was a value has fallen; below 0 it has risen.
func fall(now, before float64) float64 {
	if before <= 0 {
		return 0
	}
	return 1 - now/before
}

// spreadAgainst judges the spread of candidates against what it was.
func (r *run) spreadAgainst(c *compare.Report) {
	switch {
	case c.Queried == 0:
		r.NotRun(gates.Concentration, gates.FallOf+"the spread", "no user is in both snapshots")
		return
	case c.Apps.Rows <= topK || c.Apps.PreviousRows <= topK:
		r.NotRun(gates.Concentration, gates.FallOf+"the spread", "one of the snapshots has at most %d apps: everybody is given all", topK)
		return
	}
	now, before := spread(c.Distinct, c.Apps.Rows, c.Queried), spread(c.PreviousDistinct, c.Apps.PreviousRows, c.Queried)
	r.AtMost(gates.Concentration, gates.FallOf+"the spread", fall(now, before), r.Thresholds.Concentration.Drop,
		"%s apps are among the best %d of any of %s users, %s were in the previous snapshot: the spread is %s, it was %s; it may fall by %s of that",
		wording.Count(c.Distinct), topK, wording.Count(c.Queried), wording.Count(c.PreviousDistinct), gates.Percent(now), gates.Percent(before), gates.Percent(r.Thresholds.Concentration.Drop))
}

// change says how a number differs from what it was.
func change(now, before int) string {
	switch {
	case before == 0 || now == before:
		return "as many"
	case now < before:
		return gates.Percent(1-float64(now)/float64(before)) + " fewer"
	}
	return gates.Percent(float64(now)/float64(before)-1) + " more"
}

// rows judges how the towers and the segments grow and shrink.
func (r *run) rows(c *compare.Report) {
	l := r.Thresholds.Rows
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := c.Tower(kind)
		text := fmt.Sprintf("%s: %s rows, the previous snapshot has %s: %s", kind, wording.Count(t.Rows), wording.Count(t.PreviousRows), change(t.Rows, t.PreviousRows))
		drop := fall(float64(t.Rows), float64(t.PreviousRows))
		if drop >= 0 {
			r.AtMost(gates.Rows, fmt.Sprintf("fewer %s", kind), drop, l.Fewer, "%s, at most %s are accepted", text, gates.Percent(l.Fewer))
		} else {
			r.AtMost(gates.Rows, fmt.Sprintf("more %s", kind), -drop, l.More, "%s, at most %s are accepted", text, gates.Percent(l.More))
		}
		limit := l.RemovedApps
		if kind == shard.Users {
			limit = l.RemovedUsers
		}
		gone := float64(t.Removed) / float64(max(t.PreviousRows, 1))
		text = fmt.Sprintf("%s of the %s %s of the previous snapshot are gone (%s), at most %s are accepted",
			wording.Count(t.Removed), wording.Count(t.PreviousRows), kind, gates.Percent(gone), gates.Percent(limit))
		if len(t.FirstRemoved) > 0 && r.names(kind) {
			text += "; e.g. " + strings.Join(t.FirstRemoved, ", ")
		}
		r.AtMost(gates.Rows, fmt.Sprintf("removed %s", kind), gone, limit, "%s", text)
	}
	for _, s := range c.Segments {
		if !s.InCandidate || !s.InPrevious || r.Thresholds.Segment(s.Name).Off {
			continue
		}
		drop := fall(float64(s.Eligible), float64(s.PreviousEligible))
		if s.PreviousEligible-s.Eligible < fewest {
			drop = math.Min(drop, 0)
		}
		r.AtMost(gates.Rows, "fewer eligible in segment "+s.Name, math.Max(drop, 0), l.SegmentFewer,
			"segment %s: %s apps are eligible, in the previous snapshot %s are: %s, at most %s fewer are accepted",
			s.Name, wording.Count(s.Eligible), wording.Count(s.PreviousEligible), change(s.Eligible, s.PreviousEligible), gates.Percent(l.SegmentFewer))
	}
}

// coverage judges how many apps have each attribute.
func (r *run) coverage(c *compare.Report) {
	compared := false
	defer func() {
		if !compared {
			r.NotRun(gates.Coverage, "", "the apps of the previous snapshot have no attributes")
		}
	}()
	for _, a := range c.Attributes {
		if a.PreviousType == "" {
			continue
		}
		compared = true
		limit := r.Thresholds.CoverageDrop
		subject := "coverage of " + a.Name
		if a.Type == "" {
			r.AtMost(gates.Coverage, subject, 1, limit, "attribute %s is gone: %s of apps had it in the previous snapshot", a.Name, gates.Percent(a.PreviousCoverage))
			continue
		}
		drop := math.Max(fall(a.Coverage, a.PreviousCoverage), 0)
		if lost := a.PreviousCoverage*float64(c.Apps.Rows) - float64(a.Rows); lost < fewest {
			drop = 0
		}
		r.AtMost(gates.Coverage, subject, drop, limit, "attribute %s: %s of apps have it, in the previous snapshot %s do; it may fall by %s of that",
			a.Name, gates.Percent(a.Coverage), gates.Percent(a.PreviousCoverage), gates.Percent(limit))
	}
}

// norms judges how the norms of both towers have changed. Under cosine they decide
// nothing.
func (r *run) norms(c *compare.Report) {
	switch {
	case c.Candidate.Metric != c.Previous.Metric:
		r.NotRun(gates.Norms, "", "the metric is %s, that of the previous snapshot is %s", c.Candidate.Metric, c.Previous.Metric)
		return
	case c.Candidate.Metric == index.Cosine:
		r.NotRun(gates.Norms, "", "under cosine norms decide nothing")
		return
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		var worst compare.Quantile
		drift := 1.0
		for _, q := range c.Tower(kind).Norms {
			if q.Share < 0.1 || q.Share > 0.9 {
				continue // a few rows
			}
			const nothing = 1e-6
			a, b := math.Max(q.Candidate, nothing), math.Max(q.Previous, nothing)
			if d := math.Min(math.Max(a/b, b/a), gates.Largest); d > drift || worst.Share == 0 {
				worst, drift = q, d
			}
		}
		r.AtMost(gates.Norms, fmt.Sprintf("drift of norms of %s", kind), drift, r.Thresholds.NormDrift,
			"norms of %s: the %s quantile is %.4g, in the previous snapshot %.4g: a factor of %.3g, at most %v is accepted",
			kind, gates.Percent(worst.Share), worst.Candidate, worst.Previous, drift, r.Thresholds.NormDrift)
	}
}

// overlap judges how many candidates the same users keep.
func (r *run) overlap(c *compare.Report) {
	list := slices.Clone(c.Overlap)
	for _, s := range c.Segments {
		if !r.Thresholds.Segment(s.Name).Off {
			list = append(list, s.Overlap...)
		}
	}
	for _, o := range list {
		limit := r.Thresholds.Overlap.At10
		if o.K == topK {
			limit = r.Thresholds.Overlap.At100
		}
		subject := fmt.Sprintf("overlap@%d", o.K)
		if o.Segment != "" {
			subject += " in segment " + o.Segment
		}
		if o.Users == 0 {
			r.AtLeast(gates.Overlap, subject, 0, limit, "%s: the snapshots have no user in common to compare the candidates of", subject)
			continue
		}
		r.AtLeast(gates.Overlap, subject, o.Mean, limit, "%s: %s users have %s of their candidates in common with the previous snapshot, at least %s are required",
			subject, wording.Count(o.Users), gates.Percent(o.Mean), gates.Percent(limit))
	}
}

// placement judges how many rows have moved among those of the other tower.
func (r *run) placement(c *compare.Report) {
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		p := &c.Tower(kind).Placement
		limit, other := r.Thresholds.Placement.Apps, shard.Users
		if kind == shard.Users {
			limit, other = r.Thresholds.Placement.Users, shard.Apps
		}
		if p.Rows == 0 {
			r.NotRun(gates.Placement, fmt.Sprintf("moved %s", kind), "the snapshots have too few rows in common to tell where %s are", kind)
			continue
		}
		text := fmt.Sprintf("%s of %s %s (%s) are not where they were among the %s in the previous snapshot, as if vectors had been exchanged; at most %s are accepted; "+
			"the scores of most agree by %.2f with what they were, those of another by %.2f",
			wording.Count(p.Moved), wording.Count(p.Rows), kind, gates.Percent(p.Share), other, gates.Percent(limit), p.Agreement, p.Chance)
		if len(p.First) > 0 && r.names(kind) {
			text += "; e.g. " + strings.Join(p.First, ", ")
		}
		r.AtMost(gates.Placement, fmt.Sprintf("moved %s", kind), p.Share, limit, "%s", text)
		for _, s := range p.Segments {
			if r.Thresholds.Segment(s.Segment).Off {
				continue
			}
			if s.Rows < fewest {
				r.NotRun(gates.Placement, "moved apps in segment "+s.Segment, "%s of it are in both snapshots, at least %d are needed to tell", wording.Plural(s.Rows, "app"), fewest)
				continue
			}
			limit := r.Thresholds.Placement.SegmentApps
			r.AtMost(gates.Placement, "moved apps in segment "+s.Segment, s.Share, limit,
				"segment %s: %s of %s apps (%s) are not where they were among the %s in the previous snapshot, as if vectors had been exchanged; at most %s are accepted",
				s.Segment, wording.Count(s.Moved), wording.Count(s.Rows), gates.Percent(s.Share), other, gates.Percent(limit))
		}
	}
}
