package gate

import (
	"fmt"
	"slices"
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
		"later run fails":      {runs: []*Recorded{run(before, nil, pass(Rows, "fewer apps")), run(before, nil, fail(Rows, "more apps"))}, failed: "rows failed\n  rows: more apps is bad"},
		"later run is without": {runs: []*Recorded{run(before, nil, fail(Rows, "fewer apps")), run("", nil, pass(Recall, "recall@10"))}, failed: "rows failed\n  rows: fewer apps is bad"},
		"later run is off":     {runs: []*Recorded{run(before, nil, fail(Rows, "fewer apps")), run(before, []string{Rows})}, failed: "rows failed\n  rows: fewer apps is bad"},
		"off throughout":       {runs: []*Recorded{run(before, []string{Norms, Rows}, pass(Recall, "recall@10")), run(before, nil, pass(Norms, "drift"))}, off: []string{Rows}},
		"all gates, first checks": {
			runs:   []*Recorded{run(before, nil, pass(Rows, "a"), fail(Rows, "b"), fail(Rows, "c"), fail(Alignment, "d"))},
			failed: "rows, alignment failed\n  rows: b is bad\n  alignment: d is bad",
		},
		"a fall needs a previous": {
			runs:   []*Recorded{run(before, nil, pass(Alignment, "hit-rate"), fail(Alignment, fallOf+"it")), run("", nil, pass(Alignment, "hit-rate"))},
			failed: "alignment failed\n  alignment: fall of it is bad",
		},
		"a segment that is off": {
			runs:   []*Recorded{run(before, nil, pass(Recall, "recall@10"), fail(Recall, "recall@10 in segment ios")), run(before, nil, pass(Recall, "recall@10"))},
			failed: "recall failed\n  recall: recall@10 in segment ios is bad",
		},
		"nothing to compare with": {runs: []*Recorded{run("", nil, pass(Recall, "recall@10"))}, uncompared: true},
	} {
		v := judge(c.runs)
		assert.Equal(t, c.off, v.Off, name)
		assert.Equal(t, !c.uncompared, v.Compared, name)
		if c.failed == "" {
			assert.NoError(t, v.Err(), name)
		} else {
			assert.EqualError(t, v.Err(), ErrFailed.Error()+": "+c.failed, name)
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
	v := judge([]*Recorded{run(before, nil, fail(Rows, "fewer apps")), undecided(shard.GateNotRun, Rows, "nothing is there")})
	assert.Equal(t, Row{Gate: Rows, State: shard.GateFailed, Checks: 1, Failed: 1, Undecided: 1, Why: "fewer apps is bad"}, rowOf(v.Rows, Rows))
	v = judge([]*Recorded{run(before, nil, fail(Rows, "fewer apps")), undecided(shard.GateInconclusive, Rows, "who knows")})
	assert.NoError(t, v.Err())
	assert.Equal(t, Row{Gate: Rows, State: shard.GateInconclusive, Undecided: 1, Why: "who knows"}, rowOf(v.Rows, Rows))
	v = judge([]*Recorded{undecided(shard.GateNotRun, Alignment, "no interactions were given")})
	assert.Equal(t, Row{Gate: Alignment, State: shard.GateNotRun, Undecided: 1, Why: "no interactions were given"}, rowOf(v.Rows, Alignment))
	assert.Len(t, v.Rows, len(Names()), "every gate has a row")
	assert.Len(t, v.Undecided(), len(Names())-1)
	assert.Equal(t, fmt.Sprintf("passed, %d not run", len(Names())-1), Summary(v.Rows))
	v = judge([]*Recorded{run(before, []string{Norms}, fail(Rows, "fewer apps"), pass(Recall, "recall@10"), fail(Placement, "moved apps"), fail(Placement, "moved users"))})
	assert.Equal(t, turnedOff, rowOf(v.Rows, Norms).Why)
	assert.Equal(t, 2, rowOf(v.Rows, Placement).Failed)
	assert.Equal(t, fmt.Sprintf("failed: rows, placement, %d not run", len(Names())-3), Summary(v.Rows))

	off := run(before, nil)
	off.LatencyOff = true
	assert.Equal(t, []string{Latency}, judge([]*Recorded{off}).Off)
}
