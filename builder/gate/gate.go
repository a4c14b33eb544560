// Package gate measures whether a snapshot may be released.
//
// # Goals
//
// Whatever would reach users as bad candidates without any error must fail here: towers
// of two model versions, vectors that got other ids, rows that the index hides, a tower
// of which a half is missing, a segment of which nobody looked at the recall. A failure
// names its cause. A healthy retrain, which may have turned the whole space, passes.
//
// # Design
//
// [Run] looks at a snapshot by itself, against the one before, and against what users
// did:
//
//   - structure: every graph, code, id, vector and segment of every shard.
//   - recall: what held-out users are given at the default target, against
//     [probe.Exact], which has nothing in common with the index but the vectors. A
//     limit bounds Wilson's lower bound, so that it holds with 95% confidence.
//   - concentration: how alike the candidates of different users are.
//   - contract: whether what live queries name, attributes and segments, is still there and
//     of the same type as in the snapshot before.
//   - rows, coverage, norms, overlap, placement: how package compare finds the snapshot
//     to differ from the one before.
//   - run: whether both towers say that they are of one training run, where trainers write
//     that down ([tower.RunKey]).
//   - axes: whether the towers vary in the same directions, as those of one training do,
//     by their vectors alone ([axes.Compare]).
//   - alignment: whether users' vectors find the apps that the users interacted with,
//     more often than the vectors of other users do, and than their own in a space that
//     was turned at random. Towers of two versions do not, whatever their labels say.
//
// What had nothing to look at is said to be not run, and why; what looked and found
// nothing either way is inconclusive. Neither passes for the other or for a pass: every
// gate has a [gates.Row].
//
// All that is a function of its inputs, so its report is part of the manifest, whose
// digest names the snapshot. [gates.CheckFilters], [CheckFresh] and [Measure] add the gates
// that are not: whether the filters of recorded queries can be asked, whether the snapshot has
// the apps that were upserted before its inputs, and the latency. The whole is
// recorded in the store ([gates.Record]). [gates.Judge] says what all runs on a snapshot
// amount to.
//
// The Wilson score interval is that of Wilson, "Probable Inference, the Law of
// Succession, and Statistical Inference", JASA 1927. The hits of one user are not
// independent, so the number of trials is the effective one, by which the variance
// between users is explained (Korn and Graubard, "Confidence Intervals for Proportions
// with Small Expected Number of Positive Counts Estimated from Survey Data", Survey
// Methodology 1998).
package gate

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Input is what the gates look at.
type Input struct {
	Candidate *snapshots.Snapshot
	// Previous is the snapshot that serves now; nil if there is none, and then the gates
	// that compare are not run.
	Previous *snapshots.Snapshot
	// Interactions say what users did; without paths the alignment gate is not run.
	Interactions tower.InteractionOptions
	Thresholds   gates.Thresholds
	// Forgotten reports whether a user is forgotten, whose interactions do not count; nil if
	// nobody is.
	Forgotten func(user string) bool
	// Unnamed keeps the ids of users out of what is found: a report outlives those who are in
	// it, and in a store with a live log one of them may be forgotten.
	Unnamed bool
	// Begin is told the name of each gate, or group of gates, when it begins; it may be nil.
	Begin func(gate string)
}

// run is one run of the gates.
type run struct {
	Input
	gates.Findings
}

// Run runs every gate but filters, fresh and latency. A gate that fails is no error: the report says so.
// Two runs of the same input give the same report, on any machine.
func Run(ctx context.Context, in Input) (_ *manifest.GateReport, err error) {
	defer sections.Guard(&err)()
	r := &run{Input: in, Findings: gates.Findings{Checks: []manifest.GateCheck{}}}
	report := &manifest.GateReport{Loosened: in.Thresholds.Loosened()}
	if in.Previous != nil {
		report.Previous = in.Previous.Digest()
	}
	for _, name := range slices.Sorted(maps.Keys(in.Thresholds.Off)) {
		if name != gates.Filters && name != gates.Fresh && name != gates.Latency {
			report.Off = append(report.Off, name)
		}
	}
	var segments []string
	for _, s := range in.Candidate.Tower(shard.Apps).Segments() {
		segments = append(segments, s.Name)
	}
	if err := in.Thresholds.CheckSegments(segments); err != nil {
		return nil, fmt.Errorf("gates: %w", err)
	}
	for _, g := range []struct {
		name string
		run  func(context.Context) error
	}{{gates.Structure, r.structure}, {gates.Recall, r.recall}, {"comparison", r.compared}, {gates.TrainingRun, r.trainingRun}, {gates.Axes, r.axes}, {gates.Alignment, r.alignment}} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if in.Begin != nil {
			in.Begin(g.name)
		}
		if err := g.run(ctx); err != nil {
			return nil, fmt.Errorf("gate %s: %w", g.name, err)
		}
	}
	settleAxes(&r.Findings)
	report.Checks, report.Undecided = r.Checks, r.Undecided
	return report, nil
}

// names reports whether the ids of a tower may be in what is found.
func (r *run) names(kind shard.Kind) bool { return kind == shard.Apps || !r.Unnamed }

// off reports whether a gate does not run.
func (r *run) off(gate string) bool { return r.Thresholds.Off[gate] }

// compared runs the gates that compare with the previous snapshot.
func (r *run) compared(ctx context.Context) error {
	var before *manifest.Manifest
	if r.Previous != nil {
		before = r.Previous.Manifest()
	}
	r.Join(gates.CheckContract(r.Candidate.Manifest(), before, r.Thresholds))
	type comparing struct {
		name, subject string
		run           func(*compare.Report)
	}
	on := slices.DeleteFunc([]comparing{
		{gates.Concentration, gates.FallOf + "the spread", r.spreadAgainst}, {gates.Rows, "", r.rows}, {gates.Coverage, "", r.coverage},
		{gates.Norms, "", r.norms}, {gates.Overlap, "", r.overlap}, {gates.Placement, "", r.placement},
	}, func(g comparing) bool { return r.off(g.name) })
	if r.Previous == nil {
		for _, g := range on {
			r.NotRun(g.name, g.subject, gates.NoPrevious)
		}
		return nil
	}
	if len(on) == 0 {
		return nil
	}
	c, err := compare.Compare(ctx, r.Candidate, r.Previous, compare.Options{})
	if err != nil {
		return err
	}
	for _, g := range on {
		g.run(c)
	}
	return nil
}
