// Package compare says how one snapshot differs from the one before: which apps and
// users came and went, how norms and scores are distributed, what the same users are
// given, overall and in each segment, and whether apps and users are where they were.
//
// # Goals
//
// A retrained model may have turned its space by any rotation, and scaled one tower up
// and the other down, without any user noticing; it must not look like a change. A small
// part of the rows that got the vectors of others must.
//
// # Design
//
// So no vector of one snapshot is ever compared with one of the other. What is compared
// is what does not depend on the geometry: ids, norms as a distribution, candidates, and
// the profile of a row, which is its scores against a fixed set of anchors of the other
// tower. See [Placement].
//
// Rows are sampled by the hash of their ids, so that the same two snapshots give the
// same report. [Compare] serves `tandem snapshot diff` and package builder/gate.
package compare

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Options say how much is looked at. A zero field means its default.
type Options struct {
	// Users is how many users whose candidates are compared. Default: 500.
	Users int
	// Rows is how many rows of each tower at most are looked at for norms and
	// placement. Default: 20,000.
	Rows int
	// Anchors is how many rows of the other tower make a profile. Default: 128.
	Anchors int
}

func (o Options) withDefaults() Options {
	if o.Users == 0 {
		o.Users = probe.SampleOf(manifest.Gate)
	}
	if o.Rows == 0 {
		o.Rows = 20_000
	}
	if o.Anchors == 0 {
		o.Anchors = 128
	}
	return o
}

// bands are the values of k at which candidates are compared, ascending.
var bands = [...]int{10, 100}

// ranks are the ranks whose scores are described.
var ranks = [...]int{1, 10, 100}

// shares are the quantiles that describe a distribution.
var shares = [...]float64{0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99}

// named is how many ids of each kind of change are named.
const named = 5

// Compare compares a snapshot with the one before. An error is that of a search, or of
// ctx.
func Compare(ctx context.Context, candidate, previous *snapshots.Snapshot, o Options) (_ *Report, err error) {
	defer sections.Guard(&err)()
	o = o.withDefaults()
	r := &Report{Candidate: sideOf(candidate), Previous: sideOf(previous)}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t := r.Tower(kind)
		*t = compareRows(candidate.Tower(kind), previous.Tower(kind))
		t.Norms = compareNorms(candidate.Tower(kind), previous.Tower(kind), o.Rows)
		var err error
		if t.Placement, err = place(ctx, candidate, previous, kind, o); err != nil {
			return nil, fmt.Errorf("compare %s: %w", kind, err)
		}
	}
	r.Attributes = compareAttributes(candidate.Tower(shard.Apps), previous.Tower(shard.Apps))
	if err := r.compareCandidates(ctx, candidate, previous, o); err != nil {
		return nil, fmt.Errorf("compare candidates: %w", err)
	}
	return r, nil
}

func sideOf(s *snapshots.Snapshot) Side {
	m := s.Manifest()
	return Side{Snapshot: s.Digest(), Model: m.Model, ModelVersion: m.ModelVersion, Metric: m.Metric, Dim: m.Dim}
}

// compareRows counts the ids that came and went.
func compareRows(candidate, previous *shard.Tower) Tower {
	t := Tower{Rows: candidate.Rows(), PreviousRows: previous.Rows()}
	t.Added, t.FirstAdded = missing(candidate, previous)
	t.Removed, t.FirstRemoved = missing(previous, candidate)
	t.Kept = t.Rows - t.Added
	return t
}

// missing counts the ids of one tower that another has not, and names the first in
// their order.
func missing(of, in *shard.Tower) (n int, first []string) {
	has := probe.Has(in)
	for _, s := range of.Local() {
		for ordinal := range uint32(s.Rows()) {
			id := s.ID(ordinal)
			if has(id) {
				continue
			}
			n++
			if len(first) < named || id < first[len(first)-1] {
				at, _ := slices.BinarySearch(first, id)
				first = slices.Insert(first, at, id)
				first = first[:min(len(first), named)]
			}
		}
	}
	return n, first
}

func compareNorms(candidate, previous *shard.Tower, rows int) []Quantile {
	var lists [2][]float64
	for i, t := range []*shard.Tower{candidate, previous} {
		for _, r := range probe.Pick(t, rows, nil) {
			lists[i] = append(lists[i], r.Norm())
		}
	}
	return quantiles(lists)
}

// quantiles describes two lists, the candidate's first.
func quantiles(lists [2][]float64) []Quantile {
	for _, list := range lists {
		slices.Sort(list)
	}
	var out []Quantile
	for _, share := range shares {
		out = append(out, Quantile{Share: share,
			Candidate: manifest.Rounded(probe.Quantile(lists[0], share)), Previous: manifest.Rounded(probe.Quantile(lists[1], share))})
	}
	return out
}

// compareAttributes counts the rows that have each attribute.
func compareAttributes(candidate, previous *shard.Tower) []Attribute {
	byName := map[string]*Attribute{}
	for i, t := range []*shard.Tower{candidate, previous} {
		for field, f := range t.Schema().Fields() {
			a := byName[f.Name]
			if a == nil {
				a = &Attribute{Name: f.Name}
				byName[f.Name] = a
			}
			rows := 0
			for _, s := range t.Local() {
				has := index.NewBitset(s.Rows())
				s.Attributes().Has(field).CopyTo(has)
				rows += has.Count()
			}
			if share := manifest.Rounded(float64(rows) / float64(max(t.Rows(), 1))); i == 0 {
				a.Type, a.Rows, a.Coverage = f.Type.String(), rows, share
			} else {
				a.PreviousType, a.PreviousRows, a.PreviousCoverage = f.Type.String(), rows, share
			}
		}
	}
	var list []Attribute
	for _, a := range byName {
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b Attribute) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// compareCandidates asks both snapshots for the candidates of the same users.
func (r *Report) compareCandidates(ctx context.Context, candidate, previous *snapshots.Snapshot, o Options) error {
	users := probe.HeldOut(candidate.Tower(shard.Users), o.Users, probe.Has(previous.Tower(shard.Users)))
	r.Queried = len(users)
	queries := [2][][]float32{probe.Vectors(users), probe.Vectors(probe.In(previous.Tower(shard.Users), users))}
	ask := func(segment string) (given [2][][]shard.Candidate, err error) {
		for i, s := range []*snapshots.Snapshot{candidate, previous} {
			if given[i], err = probe.Serve(ctx, s.Tower(shard.Apps), queries[i], bands[len(bands)-1], segment); err != nil {
				return given, err
			}
		}
		return given, nil
	}
	given, err := ask("")
	if err != nil {
		return err
	}
	r.Overlap = overlaps("", given)
	r.Examples = examplesOf(candidate.Tower(shard.Apps), previous.Tower(shard.Apps), users, given)
	r.Distinct, r.PreviousDistinct = Distinct(given[0]), Distinct(given[1])
	for _, rank := range ranks {
		var scores [2][]float64
		for i := range given {
			for _, list := range given[i] {
				if len(list) >= rank {
					scores[i] = append(scores[i], float64(list[rank-1].Score))
				}
			}
		}
		r.Scores = append(r.Scores, Scores{Rank: rank, Quantiles: quantiles(scores)})
	}
	r.Segments = compareSegments(candidate.Tower(shard.Apps), previous.Tower(shard.Apps))
	for i := range r.Segments {
		s := &r.Segments[i]
		if !s.InCandidate || !s.InPrevious {
			continue
		}
		if given, err = ask(s.Name); err != nil {
			return fmt.Errorf("segment %s: %w", s.Name, err)
		}
		s.Overlap = overlaps(s.Name, given)
	}
	return nil
}

// Distinct counts the apps that are in any of the lists.
func Distinct(given [][]shard.Candidate) int {
	seen := map[string]bool{}
	for _, list := range given {
		for _, c := range list {
			seen[c.ID] = true
		}
	}
	return len(seen)
}

// compareSegments counts the eligible rows of each segment that either tower has.
func compareSegments(candidate, previous *shard.Tower) []Segment {
	byName := map[string]*Segment{}
	for i, t := range []*shard.Tower{candidate, previous} {
		rows := t.SegmentRows()
		for j, g := range t.Segments() {
			s := byName[g.Name]
			if s == nil {
				s = &Segment{Name: g.Name}
				byName[g.Name] = s
			}
			if i == 0 {
				s.InCandidate, s.Eligible = true, rows[j]
			} else {
				s.InPrevious, s.PreviousEligible = true, rows[j]
			}
		}
	}
	var list []Segment
	for _, s := range byName {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Segment) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// overlaps returns the mean share of candidates that the same users have in both
// snapshots, at each band.
func overlaps(segment string, given [2][][]shard.Candidate) []Overlap {
	var out []Overlap
	for _, k := range bands {
		var sum float64
		for i := range given[0] {
			sum += overlap(given[0][i], given[1][i], k)
		}
		n := len(given[0])
		out = append(out, Overlap{Segment: segment, K: k, Users: n, Mean: manifest.Rounded(sum / float64(max(n, 1)))})
	}
	return out
}

// overlap returns the share of the longer of two lists, up to k, that both have. Two
// empty lists agree.
func overlap(a, b []shard.Candidate, k int) float64 {
	a, b = a[:min(len(a), k)], b[:min(len(b), k)]
	if len(a) == 0 && len(b) == 0 {
		return 1
	}
	in := make(map[string]bool, len(a))
	for _, c := range a {
		in[c.ID] = true
	}
	both := 0
	for _, c := range b {
		if in[c.ID] {
			both++
		}
	}
	return float64(both) / float64(max(len(a), len(b)))
}
