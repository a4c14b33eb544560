package gate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tandem-ann/tandem/shard"
)

func TestVerdict(t *testing.T) {
	const before = shard.Digest("before")
	pass := func(gate, subject string) shard.GateCheck {
		return shard.GateCheck{Gate: gate, Subject: subject, Passed: true}
	}
	fail := func(gate, subject string) shard.GateCheck {
		return shard.GateCheck{Gate: gate, Subject: subject, Text: subject + " is bad"}
	}
	run := func(previous shard.Digest, off []string, checks ...shard.GateCheck) *Recorded {
		return &Recorded{Report: &shard.GateReport{Previous: previous, Off: off, Checks: checks}}
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
			runs:   []*Recorded{run(before, nil, pass(Alignment, "hit-rate"), fail(Alignment, fallOf+"it")), run("", nil, pass(Alignment, "hit-rate"))},
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
	undecided := func(state shard.GateState, gate string, why string) *Recorded {
		r := run("", nil, pass(Recall, "recall@10"))
		r.Report.Undecided = []shard.GateCheck{{Gate: gate, Undecided: state, Text: why}}
		return r
	}
	// A gate that did not run takes nothing back, and one that is inconclusive does.
	v := judge([]*Recorded{run(before, nil, fail(Rows, "fewer apps")), undecided(shard.GateNotRun, Rows, "nothing is there")}, nil)
	assert.Equal(t, Row{Gate: Rows, State: shard.GateFailed, Checks: 1, Failed: 1, Undecided: 1, Why: "fewer apps is bad"}, rowOf(v.Rows, Rows))
	inconclusive := undecided(shard.GateInconclusive, Rows, "who knows")
	inconclusive.Report.Previous = before
	v = judge([]*Recorded{run(before, nil, fail(Rows, "fewer apps")), inconclusive}, nil)
	assert.NoError(t, v.Err())
	assert.Equal(t, Row{Gate: Rows, State: shard.GateInconclusive, Undecided: 1, Why: "who knows"}, rowOf(v.Rows, Rows))
	v = judge([]*Recorded{undecided(shard.GateNotRun, Alignment, "no interactions were given")}, nil)
	assert.Equal(t, Row{Gate: Alignment, State: shard.GateNotRun, Undecided: 1, Why: "no interactions were given"}, rowOf(v.Rows, Alignment))
	assert.Len(t, v.Rows, len(Names()), "every gate has a row")
	assert.Len(t, v.Undecided(), len(Names())-1)
	assert.Equal(t, fmt.Sprintf("passed, %d not run", len(Names())-1), Summary(v.Rows))
	v = judge([]*Recorded{run(before, []string{Norms}, fail(Rows, "fewer apps"), pass(Recall, "recall@10"), fail(Placement, "moved apps"), fail(Placement, "moved users"))}, nil)
	assert.Equal(t, turnedOff, rowOf(v.Rows, Norms).Why)
	assert.Equal(t, 2, rowOf(v.Rows, Placement).Failed)
	assert.Equal(t, fmt.Sprintf("failed: rows, placement, %d not run", len(Names())-3), Summary(v.Rows))

	// What was found beside a previous snapshot is not taken back by a run without one.
	v = judge([]*Recorded{run(before, nil, fail(Axes, fallOf+"agreement")), undecided(shard.GateInconclusive, Axes, "too few rows")}, nil)
	assert.Equal(t, shard.GateFailed, rowOf(v.Rows, Axes).State)
	assert.Error(t, v.Err())

	off := run(before, nil)
	off.LatencyOff = true
	assert.Equal(t, []string{Latency}, judge([]*Recorded{off}, nil).Off)
}

func TestUnproved(t *testing.T) {
	cannotTell := shard.GateCheck{Gate: Axes, Undecided: shard.GateInconclusive, Text: "too few"}
	none := shard.GateCheck{Gate: Alignment, Undecided: shard.GateNotRun, Text: "no interactions were given"}
	run := func(undecided []shard.GateCheck, checks ...shard.GateCheck) *Recorded {
		return &Recorded{Report: &shard.GateReport{Checks: checks, Undecided: undecided}}
	}
	const text = "nothing shows that its towers are of one training: axes inconclusive: too few; alignment not run: no interactions were given"
	first := run([]shard.GateCheck{cannotTell, none})
	assert.Equal(t, text, judge([]*Recorded{first}, nil).Unproved())
	assert.Equal(t, text, judge([]*Recorded{first, run([]shard.GateCheck{none})}, nil).Unproved(), "a later run that looked at neither")
	for name, later := range map[string]*Recorded{
		"the vectors tell":                run([]shard.GateCheck{none}, shard.GateCheck{Gate: Axes, Passed: true}),
		"the interactions tell":           run([]shard.GateCheck{cannotTell}, shard.GateCheck{Gate: Alignment, Passed: true}),
		"a run is named":                  run([]shard.GateCheck{cannotTell, none}, shard.GateCheck{Gate: TrainingRun, Passed: true}),
		"the interactions tell otherwise": run([]shard.GateCheck{cannotTell}, shard.GateCheck{Gate: Alignment}),
	} {
		assert.Empty(t, judge([]*Recorded{first, later}, nil).Unproved(), name)
	}
	notRun := shard.GateCheck{Gate: Axes, Undecided: shard.GateNotRun, Text: "the metric is l2"}
	assert.Empty(t, judge([]*Recorded{run([]shard.GateCheck{notRun, none})}, nil).Unproved(), "nothing was tried")
}

// A comparison with another snapshot takes back nothing, unless that was released; nor does
// one with itself.
func TestWhatComparisonsTakeBack(t *testing.T) {
	const itself = shard.Digest("itself")
	run := func(previous shard.Digest, passed bool) *Recorded {
		checks := []shard.GateCheck{{Gate: Placement, Passed: passed}, {Gate: Axes, Subject: fallOf + "agreement", Passed: passed}}
		return &Recorded{Snapshot: itself, Report: &shard.GateReport{Previous: previous, Checks: checks}}
	}
	refused := run("good", false)
	for name, c := range map[string]struct {
		later    *Recorded
		released []shard.Digest
		failed   bool
	}{
		"itself":               {run(itself, true), []shard.Digest{"good", itself}, true},
		"another":              {run("bad", true), []shard.Digest{"good"}, true},
		"the same":             {run("good", true), nil, false},
		"one released by then": {run("better", true), []shard.Digest{"better", "good"}, false},
	} {
		v := judge([]*Recorded{refused, c.later}, nil, c.released...)
		assert.Equal(t, c.failed, v.Err() != nil, name)
		assert.NotContains(t, v.ComparedWith, itself, name)
	}
	assert.Error(t, judge([]*Recorded{run("bad", true), refused}, nil).Err(), "what fails counts at once")
	assert.Empty(t, judge([]*Recorded{run(itself, true)}, nil).ComparedWith)
}
