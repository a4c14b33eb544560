// Package gate decides whether a snapshot may be released.
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
//   - rows, coverage, norms, overlap, placement: how package compare finds the snapshot
//     to differ from the one before.
//   - alignment: whether users' vectors find the apps that the users interacted with,
//     more often than the vectors of other users do, and than their own in a space that
//     was turned at random. Towers of two versions do not, whatever their labels say.
//
// What had nothing to look at is said to be not run, and why; what looked and found
// nothing either way is inconclusive. Neither passes for the other or for a pass: every
// gate has a [Row].
//
// All that is a function of its inputs, so its report is part of the manifest, whose
// digest names the snapshot. [Measure] adds the latency gate, which is not; the whole is
// recorded in the store ([Record]). [Judge] says what all runs on a snapshot amount to.
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
	"strconv"

	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
)

// Input is what the gates look at.
type Input struct {
	Candidate *shard.Snapshot
	// Previous is the snapshot that serves now; nil if there is none, and then the gates
	// that compare are not run.
	Previous *shard.Snapshot
	// Interactions say what users did; without paths the alignment gate is not run.
	Interactions tower.InteractionOptions
	Thresholds   Thresholds
	// Begin is told the name of each gate, or group of gates, when it begins; it may be nil.
	Begin func(gate string)
}

// run is one run of the gates.
type run struct {
	Input
	report *shard.GateReport
}

// Run runs every gate but latency. A gate that fails is no error: the report says so.
// Two runs of the same input give the same report, on any machine.
func Run(ctx context.Context, in Input) (_ *shard.GateReport, err error) {
	defer sections.Guard(&err)()
	r := &run{Input: in, report: &shard.GateReport{Checks: []shard.GateCheck{}}}
	if in.Previous != nil {
		r.report.Previous = in.Previous.Digest()
	}
	for _, name := range slices.Sorted(maps.Keys(in.Thresholds.Off)) {
		if name != Latency {
			r.report.Off = append(r.report.Off, name)
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
	}{{Structure, r.structure}, {Recall, r.recall}, {"comparison", r.compared}, {Alignment, r.alignment}} {
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
	return r.report, nil
}

// off reports whether a gate does not run.
func (r *run) off(gate string) bool { return r.Thresholds.Off[gate] }

// atLeast adds a check that a value is not below a limit.
func (r *run) atLeast(gate, subject string, value, limit float64, format string, args ...any) {
	r.add(gate, subject, value, shard.BoundMin, limit, value >= limit, fmt.Sprintf(format, args...))
}

// atMost adds a check that a value is not above a limit.
func (r *run) atMost(gate, subject string, value, limit float64, format string, args ...any) {
	r.add(gate, subject, value, shard.BoundMax, limit, value <= limit, fmt.Sprintf(format, args...))
}

// notRun adds that a gate did not run, or, with a subject, one check of it.
func (r *run) notRun(gate, subject, format string, why ...any) {
	r.report.Undecided = append(r.report.Undecided, shard.GateCheck{
		Gate: gate, Subject: subject, Undecided: shard.GateNotRun, Text: bounded(fmt.Sprintf(format, why...)),
	})
}

func (r *run) add(gate, subject string, value float64, bound shard.GateBound, limit float64, passed bool, text string) {
	r.report.Checks = append(r.report.Checks, check(gate, subject, value, bound, limit, passed, text))
}

// check returns a check. A text is bounded, for ids may be long.
func check(gate, subject string, value float64, bound shard.GateBound, limit float64, passed bool, text string) shard.GateCheck {
	return shard.GateCheck{
		Gate: gate, Subject: subject, Value: probe.Rounded(value), Bound: bound, Limit: probe.Rounded(limit),
		Passed: passed, Text: bounded(text),
	}
}

func bounded(text string) string { return fmt.Sprintf("%.1000s", text) }

// compared runs the gates that compare with the previous snapshot.
func (r *run) compared(ctx context.Context) error {
	type comparing struct {
		name, subject string
		run           func(*compare.Report)
	}
	on := slices.DeleteFunc([]comparing{
		{Concentration, fallOf + "the spread", r.spreadAgainst}, {Rows, "", r.rows}, {Coverage, "", r.coverage},
		{Norms, "", r.norms}, {Overlap, "", r.overlap}, {Placement, "", r.placement},
	}, func(g comparing) bool { return r.off(g.name) })
	if r.Previous == nil {
		for _, g := range on {
			r.notRun(g.name, g.subject, noPrevious)
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

// noPrevious is why what compares did not run.
const noPrevious = "there is no previous snapshot to compare with"

// percent formats a share as a person would.
func percent(share float64) string {
	return strconv.FormatFloat(probe.Rounded(100*share*10)/10, 'f', decimals(100*share), 64) + "%"
}

// decimals returns how many of a percentage tell it from its neighbours: none of 20,
// one of 99.4, two of 0.12.
func decimals(x float64) int {
	switch {
	case x == float64(int(x)):
		return 0
	case x < 1:
		return 2
	}
	return 1
}

// count formats n with thousands separated.
func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
