package gate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard"
)

// Verdict is what all runs on a snapshot amount to: of each gate the newest run that
// evaluated it decides. So a run with a gate turned off, or with nothing to compare
// with, takes back nothing of what an earlier one found.
type Verdict struct {
	// Failed are the gates that failed, each by its first check that did.
	Failed []shard.GateCheck
	// Off are the gates that a run turned off and none evaluated.
	Off []string
	// Rows are what every gate came to. Of one that no run evaluated the last run says why.
	Rows []Row
	// Compared is whether any run compared the snapshot with a previous one.
	Compared bool
}

// part is what one run may leave out of a gate while it evaluates the rest.
type part struct{ gate, of string }

// partOf returns the part that a check belongs to. Recall may be turned off for a
// segment, and its checks are the same ones in each run on a snapshot. What has fallen
// is only known beside a previous snapshot. Other gates run as a whole, and what their
// checks are depends on the previous snapshot.
func partOf(c *shard.GateCheck) part {
	if c.Gate == Recall || strings.HasPrefix(c.Subject, fallOf) {
		return part{c.Gate, c.Subject}
	}
	return part{gate: c.Gate}
}

// Judge returns the verdict on a snapshot. The error is of class [ErrNotRun] if no gates
// were run on it.
func Judge(ctx context.Context, store *shard.Store, d shard.Digest) (*Verdict, error) {
	list, err := runs(ctx, store, d)
	if err != nil {
		return nil, err
	}
	return judge(list), nil
}

func judge(oldestFirst []*Recorded) *Verdict {
	v := &Verdict{}
	var order []part
	decided := map[part][]shard.GateCheck{} // what the newest run has found that evaluated it
	evaluated, off := map[string]bool{}, map[string]bool{}
	for _, r := range oldestFirst {
		v.Compared = v.Compared || r.Report.Previous != ""
		for _, name := range r.Off() {
			off[name] = true
		}
		now := map[part][]shard.GateCheck{}
		for _, c := range slices.Concat(r.Checks(), r.Report.Undecided) {
			if c.Undecided == shard.GateNotRun {
				continue // it takes nothing back
			}
			p := partOf(&c)
			if _, known := decided[p]; !known {
				order, decided[p] = append(order, p), nil
			}
			now[p], evaluated[c.Gate] = append(now[p], c), true
		}
		maps.Copy(decided, now)
	}
	var checks, undecided []shard.GateCheck
	for _, p := range order {
		for _, c := range decided[p] {
			switch {
			case c.Undecided != "":
				undecided = append(undecided, c)
				continue
			case !c.Passed && !slices.ContainsFunc(v.Failed, func(o shard.GateCheck) bool { return o.Gate == c.Gate }):
				v.Failed = append(v.Failed, c)
			}
			checks = append(checks, c)
		}
	}
	for _, name := range Names() {
		if off[name] && !evaluated[name] {
			v.Off = append(v.Off, name)
		}
	}
	last := oldestFirst[len(oldestFirst)-1]
	for _, c := range last.Report.Undecided {
		if c.Undecided == shard.GateNotRun {
			undecided = append(undecided, c)
		}
	}
	v.Rows = rows(checks, undecided, v.Off, last.unmeasured())
	return v
}

// Undecided returns the rows of gates that did not run or were inconclusive.
func (v *Verdict) Undecided() []Row {
	return slices.DeleteFunc(slices.Clone(v.Rows), func(r Row) bool { return r.State == shard.GatePassed || r.State == shard.GateFailed })
}

// Err returns nil if no gate failed. Else the error, of class [ErrFailed], names every
// gate that did, and then what each has found first.
func (v *Verdict) Err() error {
	if len(v.Failed) == 0 {
		return nil
	}
	var names []string
	var text strings.Builder
	for _, c := range v.Failed {
		names = append(names, c.Gate)
		fmt.Fprintf(&text, "\n  %s: %s", c.Gate, c.Text)
	}
	return fmt.Errorf("%w: %s failed%s", ErrFailed, strings.Join(names, ", "), text.String())
}
