package gate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard"
)

// turnedOff is why a gate did not run that the thresholds turn off.
const turnedOff = "it was turned off"

// Row is what one gate came to, in a run or in all runs on a snapshot.
type Row struct {
	Gate  string          `json:"gate"`
	State shard.GateState `json:"state"`
	// Checks are those that passed or failed, Failed those that failed, Undecided those
	// that did not run or found nothing either way.
	Checks    int `json:"checks"`
	Failed    int `json:"failed"`
	Undecided int `json:"undecided"`
	// Why is what the first check has found that makes the state what it is; empty of a
	// gate that passed.
	Why string `json:"why,omitempty"`
}

// rows returns the row of every gate, in the order of [Names], and then those of gates
// that only a later release of the tool knows. A gate fails by one check, and is
// inconclusive by one that is; it is not run if no check was.
func rows(checks, undecided []shard.GateCheck, off []string, latency string) []Row {
	var list []Row
	at := func(gate string) *Row {
		i := slices.IndexFunc(list, func(r Row) bool { return r.Gate == gate })
		if i < 0 {
			list, i = append(list, Row{Gate: gate, State: shard.GateNotRun}), len(list)
		}
		return &list[i]
	}
	for _, name := range Names() {
		at(name)
	}
	for _, c := range checks {
		r := at(c.Gate)
		r.Checks++
		switch {
		case !c.Passed && r.State != shard.GateFailed:
			r.State, r.Why, r.Failed = shard.GateFailed, c.Text, 1
		case !c.Passed:
			r.Failed++
		case r.State == shard.GateNotRun:
			r.State = shard.GatePassed
		}
	}
	for _, c := range undecided {
		r := at(c.Gate)
		r.Undecided++
		switch {
		case c.Undecided == shard.GateInconclusive && (r.State == shard.GatePassed || r.State == shard.GateNotRun):
			r.State, r.Why = shard.GateInconclusive, c.Text
		case r.State == shard.GateNotRun && r.Why == "":
			r.Why = c.Text
		}
	}
	for i := range list {
		r := &list[i]
		switch {
		case r.State != shard.GateNotRun || r.Why != "":
		case slices.Contains(off, r.Gate):
			r.Why = turnedOff
		case r.Gate == Latency:
			r.Why = latency
		default:
			r.Why = "the tool that ran the gates does not say why"
		}
	}
	return list
}

// Rows returns what each gate came to: one row for every gate.
func (r *Recorded) Rows() []Row {
	return rows(r.Checks(), r.Report.Undecided, r.Off(), r.unmeasured())
}

// unmeasured is why a run has no latency that did not turn the gate off.
func (r *Recorded) unmeasured() string {
	if r.Time.IsZero() {
		return "a manifest has no latency, and the run is not recorded in this store"
	}
	return "no user is held out"
}

// OfManifest returns the run whose report is in a snapshot's manifest; nil if there is none.
func OfManifest(d shard.Digest, m *shard.Manifest) *Recorded {
	if m.Gates == nil {
		return nil
	}
	return &Recorded{Snapshot: d, Tool: m.Tool, Report: m.Gates}
}

// Summary says in a few words what the gates came to: "passed, 2 not run", or
// "failed: placement, 2 not run".
func Summary(list []Row) string {
	count := map[shard.GateState]int{}
	var failed []string
	for _, r := range list {
		count[r.State]++
		if r.State == shard.GateFailed {
			failed = append(failed, r.Gate)
		}
	}
	var words []string
	switch {
	case len(failed) > 0:
		words = []string{"failed: " + strings.Join(failed, ", ")}
	case count[shard.GatePassed] > 0:
		words = []string{"passed"}
	}
	for _, state := range []shard.GateState{shard.GateInconclusive, shard.GateNotRun} {
		if n := count[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(words, ", ")
}
