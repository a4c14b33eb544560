package gate

import (
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
	off := run(before, nil)
	off.LatencyOff = true
	assert.Equal(t, []string{Latency}, judge([]*Recorded{off}).Off)
}
