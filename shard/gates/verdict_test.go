package gates

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tandem-ann/tandem/shard/manifest"
)

func TestVerdict(t *testing.T) {
	const before = manifest.Digest("before")
	pass := func(gate, subject string) manifest.GateCheck {
		return manifest.GateCheck{Gate: gate, Subject: subject, Passed: true}
	}
	fail := func(gate, subject string) manifest.GateCheck {
		return manifest.GateCheck{Gate: gate, Subject: subject, Text: subject + " is bad"}
	}
	run := func(previous manifest.Digest, off []string, checks ...manifest.GateCheck) *Recorded {
		return &Recorded{Report: &manifest.GateReport{Previous: previous, Off: off, Checks: checks}}
	}
	for name, c := range map[string]struct {
		runs       []*Recorded
		failed     string
		off        []string
		uncompared bool
	}{
		"passed":               {runs: []*Recorded{run(before, nil, pass(Rows, "fewer apps"))}},
		"later run passes":     {runs: []*Recorded{run(before, nil, fail(Rows, "fewer apps")), run(before, nil, pass(Rows, "more apps"))}},
		"later run fails":      {runs: []*Recorded{run(before, nil, pass(Rows, "fewer apps")), run(before, nil, fail(Rows, "more apps"))}, failed: "rows failed: more apps is bad"},
		"later run is without": {runs: []*Recorded{run(before, nil, fail(Rows, "fewer apps")), run("", nil, pass(Recall, "recall@10"))}, failed: "rows failed: fewer apps is bad"},
		"later run is off":     {runs: []*Recorded{run(before, nil, fail(Rows, "fewer apps")), run(before, []string{Rows})}, failed: "rows failed: fewer apps is bad"},
		"off throughout":       {runs: []*Recorded{run(before, []string{Norms, Rows}, pass(Recall, "recall@10")), run(before, nil, pass(Norms, "drift"))}, off: []string{Rows}},
		"all gates, first checks": {
			runs:   []*Recorded{run(before, nil, pass(Rows, "a"), fail(Rows, "b"), fail(Rows, "c"), fail(Alignment, "d"))},
			failed: "alignment failed: d is bad",
		},
		"a fall needs a previous": {
			runs:   []*Recorded{run(before, nil, pass(Alignment, "hit-rate"), fail(Alignment, FallOf+"it")), run("", nil, pass(Alignment, "hit-rate"))},
			failed: "alignment failed: fall of it is bad",
		},
		"a segment that is off": {
			runs:   []*Recorded{run(before, nil, pass(Recall, "recall@10"), fail(Recall, "recall@10 in segment ios")), run(before, nil, pass(Recall, "recall@10"))},
			failed: "recall failed: recall@10 in segment ios is bad",
		},
		"nothing to compare with": {runs: []*Recorded{run("", nil, pass(Recall, "recall@10"))}, uncompared: true},
	} {
		v := judge(c.runs, nil)
		assert.Equal(t, c.off, v.Off, name)
		assert.Equal(t, c.uncompared, len(v.ComparedWith) == 0, name)
		if c.failed == "" {
			assert.NoError(t, v.Err(), name)
		} else {
			assert.ErrorIs(t, v.Err(), ErrFailed, name)
			first, _, _ := strings.Cut(v.Err().Error(), "\n")
			assert.Equal(t, c.failed, first, name)
		}
	}
	rowOf := func(list []Row, gate string) Row {
		return list[slices.IndexFunc(list, func(r Row) bool { return r.Gate == gate })]
	}
	undecided := func(state manifest.GateState, gate string, why string) *Recorded {
		r := run("", nil, pass(Recall, "recall@10"))
		r.Report.Undecided = []manifest.GateCheck{{Gate: gate, Undecided: state, Text: why}}
		return r
	}
	// A gate that did not run takes nothing back, and one that is inconclusive does.
	v := judge([]*Recorded{run(before, nil, fail(Rows, "fewer apps")), undecided(manifest.GateNotRun, Rows, "nothing is there")}, nil)
	assert.Equal(t, Row{Gate: Rows, State: manifest.GateFailed, Checks: 1, Failed: 1, Undecided: 1, Why: "fewer apps is bad"}, rowOf(v.Rows, Rows))
	inconclusive := undecided(manifest.GateInconclusive, Rows, "who knows")
	inconclusive.Report.Previous = before
	v = judge([]*Recorded{run(before, nil, fail(Rows, "fewer apps")), inconclusive}, nil)
	assert.NoError(t, v.Err())
	assert.Equal(t, Row{Gate: Rows, State: manifest.GateInconclusive, Undecided: 1, Why: "who knows"}, rowOf(v.Rows, Rows))
	v = judge([]*Recorded{undecided(manifest.GateNotRun, Alignment, "no interactions were given")}, nil)
	assert.Equal(t, Row{Gate: Alignment, State: manifest.GateNotRun, Undecided: 1, Why: "no interactions were given"}, rowOf(v.Rows, Alignment))
	assert.Len(t, v.Rows, len(Names()), "every gate has a row")
	assert.Len(t, v.Undecided(), len(Names())-1)
	assert.Equal(t, fmt.Sprintf("passed, %d not run", len(Names())-1), Summary(v.Rows))
	v = judge([]*Recorded{run(before, []string{Norms}, fail(Rows, "fewer apps"), pass(Recall, "recall@10"), fail(Placement, "moved apps"), fail(Placement, "moved users"))}, nil)
	assert.Equal(t, TurnedOff, rowOf(v.Rows, Norms).Why)
	assert.Equal(t, 2, rowOf(v.Rows, Placement).Failed)
	assert.Equal(t, fmt.Sprintf("failed: rows, placement, %d not run", len(Names())-3), Summary(v.Rows))

	// What was found beside a previous snapshot is not taken back by a run without one.
	v = judge([]*Recorded{run(before, nil, fail(Axes, FallOf+"agreement")), undecided(manifest.GateInconclusive, Axes, "too few rows")}, nil)
	assert.Equal(t, manifest.GateFailed, rowOf(v.Rows, Axes).State)
	assert.Error(t, v.Err())

	off := run(before, nil)
	off.LatencyOff = true
	assert.Equal(t, []string{Latency}, judge([]*Recorded{off}, nil).Off)
}

func TestUnproved(t *testing.T) {
	cannotTell := manifest.GateCheck{Gate: Axes, Undecided: manifest.GateInconclusive, Text: "too few"}
	none := manifest.GateCheck{Gate: Alignment, Undecided: manifest.GateNotRun, Text: "no interactions were given"}
	run := func(undecided []manifest.GateCheck, checks ...manifest.GateCheck) *Recorded {
		return &Recorded{Report: &manifest.GateReport{Checks: checks, Undecided: undecided}}
	}
	const text = "nothing shows that its towers are of one training: axes inconclusive: too few; alignment not run: no interactions were given"
	first := run([]manifest.GateCheck{cannotTell, none})
	assert.Equal(t, text, judge([]*Recorded{first}, nil).Unproved())
	assert.Equal(t, text, judge([]*Recorded{first, run([]manifest.GateCheck{none})}, nil).Unproved(), "a later run that looked at neither")
	for name, later := range map[string]*Recorded{
		"the vectors tell":                run([]manifest.GateCheck{none}, manifest.GateCheck{Gate: Axes, Passed: true}),
		"the interactions tell":           run([]manifest.GateCheck{cannotTell}, manifest.GateCheck{Gate: Alignment, Passed: true}),
		"a run is named":                  run([]manifest.GateCheck{cannotTell, none}, manifest.GateCheck{Gate: TrainingRun, Passed: true}),
		"the interactions tell otherwise": run([]manifest.GateCheck{cannotTell}, manifest.GateCheck{Gate: Alignment}),
	} {
		assert.Empty(t, judge([]*Recorded{first, later}, nil).Unproved(), name)
	}
	notRun := manifest.GateCheck{Gate: Axes, Undecided: manifest.GateNotRun, Text: "the metric is l2"}
	assert.Empty(t, judge([]*Recorded{run([]manifest.GateCheck{notRun, none})}, nil).Unproved(), "nothing was tried")
}

// A comparison with another snapshot takes back nothing, unless that was released; nor does
// one with itself.
func TestWhatComparisonsTakeBack(t *testing.T) {
	const itself = manifest.Digest("itself")
	run := func(previous manifest.Digest, passed bool) *Recorded {
		checks := []manifest.GateCheck{{Gate: Placement, Passed: passed}, {Gate: Axes, Subject: FallOf + "agreement", Passed: passed}}
		return &Recorded{Snapshot: itself, Report: &manifest.GateReport{Previous: previous, Checks: checks}}
	}
	refused := run("good", false)
	for name, c := range map[string]struct {
		later    *Recorded
		released []manifest.Digest
		failed   bool
	}{
		"itself":               {run(itself, true), []manifest.Digest{"good", itself}, true},
		"another":              {run("bad", true), []manifest.Digest{"good"}, true},
		"the same":             {run("good", true), nil, false},
		"one released by then": {run("better", true), []manifest.Digest{"better", "good"}, false},
	} {
		v := judge([]*Recorded{refused, c.later}, nil, c.released...)
		assert.Equal(t, c.failed, v.Err() != nil, name)
		assert.NotContains(t, v.ComparedWith, itself, name)
	}
	assert.Error(t, judge([]*Recorded{run("bad", true), refused}, nil).Err(), "what fails counts at once")
	assert.Empty(t, judge([]*Recorded{run(itself, true)}, nil).ComparedWith)
}

// Limits count as loosened as far as the newest run says that evaluated their gate.
func TestLoosenedInTheNewestRun(t *testing.T) {
	run := func(loosened []string, checks ...manifest.GateCheck) *Recorded {
		return &Recorded{Report: &manifest.GateReport{Loosened: loosened, Checks: checks}}
	}
	norms, overlap := manifest.GateCheck{Gate: Norms, Passed: true}, manifest.GateCheck{Gate: Overlap, Passed: true}
	loose := []string{"norms.drift: 9, by default 2", "overlap.at_10: 0, by default 0.2"}
	assert.Equal(t, loose, judge([]*Recorded{run(loose, norms, overlap)}, nil).Loosened)
	assert.Equal(t, loose[:1], judge([]*Recorded{run(loose, norms, overlap), run(nil, overlap)}, nil).Loosened, "the newest run that evaluated it counts")
	assert.Equal(t, loose[1:], judge([]*Recorded{run(loose, overlap)}, nil).Loosened, "what was not evaluated was not loosened")
}
