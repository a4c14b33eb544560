package gates

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Row is what one gate came to, in a run or in all runs on a snapshot.
type Row struct {
	Gate  string             `json:"gate"`
	State manifest.GateState `json:"state"`
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
func rows(checks, undecided []manifest.GateCheck, off []string, unmeasured map[string]string) []Row {
	var list []Row
	at := func(gate string) *Row {
		i := slices.IndexFunc(list, func(r Row) bool { return r.Gate == gate })
		if i < 0 {
			list, i = append(list, Row{Gate: gate, State: manifest.GateNotRun}), len(list)
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
		case !c.Passed && r.State != manifest.GateFailed:
			r.State, r.Why, r.Failed = manifest.GateFailed, c.Text, 1
		case !c.Passed:
			r.Failed++
		case r.State == manifest.GateNotRun:
			r.State = manifest.GatePassed
		}
	}
	for _, c := range undecided {
		r := at(c.Gate)
		r.Undecided++
		switch {
		case c.Undecided == manifest.GateInconclusive && (r.State == manifest.GatePassed || r.State == manifest.GateNotRun):
			r.State, r.Why = manifest.GateInconclusive, c.Text
		case r.State == manifest.GateNotRun && r.Why == "":
			r.Why = c.Text
		}
	}
	for i := range list {
		r := &list[i]
		switch {
		case r.State != manifest.GateNotRun || r.Why != "":
		case slices.Contains(off, r.Gate):
			r.Why = TurnedOff
		case r.Gate == Latency || r.Gate == Filters || r.Gate == Fresh:
			r.Why = unmeasured[r.Gate]
		default:
			r.Why = "the tool that ran the gates does not say why"
		}
	}
	return list
}

// Rows returns what each gate came to: one row for every gate.
func (r *Recorded) Rows() []Row {
	return rows(r.Checks(), r.undecided(), r.Off(), r.unmeasured())
}

// unmeasured is why a run has nothing of gates that are no part of a report, though they
// were not turned off.
func (r *Recorded) unmeasured() map[string]string {
	if r.Time.IsZero() {
		const why = "the run is not recorded in this store, and no part of the manifest"
		return map[string]string{Filters: why, Fresh: why, Latency: why}
	}
	const unknown = "the tool that ran the gates does not know it"
	return map[string]string{Filters: unknown, Fresh: unknown, Latency: "no user is held out"}
}

// OfManifest returns the run whose report is in a snapshot's manifest; nil if there is none.
func OfManifest(d manifest.Digest, m *manifest.Manifest) *Recorded {
	if m.Gates == nil {
		return nil
	}
	return &Recorded{Snapshot: d, Tool: m.Tool, Report: m.Gates}
}

// Summary says in a few words what the gates came to: "passed, 2 not run", or
// "failed: placement, 2 not run".
func Summary(list []Row) string {
	count := map[manifest.GateState]int{}
	var failed []string
	for _, r := range list {
		count[r.State]++
		if r.State == manifest.GateFailed {
			failed = append(failed, r.Gate)
		}
	}
	var words []string
	switch {
	case len(failed) > 0:
		words = []string{"failed: " + strings.Join(failed, ", ")}
	case count[manifest.GatePassed] > 0:
		words = []string{"passed"}
	}
	for _, state := range []manifest.GateState{manifest.GateInconclusive, manifest.GateNotRun} {
		if n := count[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(words, ", ")
}
