package gates

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Verdict is what all runs on a snapshot amount to: of each gate the newest run that
// evaluated it decides. So a run with a gate turned off, or with nothing to compare
// with, takes back nothing of what an earlier one found.
type Verdict struct {
	// Off are the gates that a run turned off and none evaluated, and those that [JudgeNow]
	// would have run anew, had the last run not turned them off.
	Off []string
	// Rows are what every gate came to. Of one that no run evaluated the last run says why.
	Rows []Row
	// Loosened are the limits that were loosened in the newest run that evaluated their
	// gate; see [Thresholds.Loosened].
	Loosened []string
	// ComparedWith are the other snapshots that runs compared it with, the last one last.
	ComparedWith []manifest.Digest
	// Compared is whether one of these is one that shows something; see [Judge].
	Compared bool

	snapshot, previous manifest.Digest
	checks             []manifest.GateCheck // that decide
}

// part is what one run may leave out of a gate while it evaluates the rest.
type part struct{ gate, of string }

// partOf returns the part that a check belongs to. Recall may be turned off for a
// segment, and its checks are the same ones in each run on a snapshot. What has fallen
// is only known beside a previous snapshot. Other gates run as a whole, and what their
// checks are depends on the previous snapshot.
func partOf(c *manifest.GateCheck) part {
	if c.Gate == Recall || strings.HasPrefix(c.Subject, FallOf) {
		return part{c.Gate, c.Subject}
	}
	return part{gate: c.Gate}
}

// compares reports whether the part is about another snapshot.
func (p part) compares() bool {
	switch p.gate {
	case Contract, Rows, Coverage, Norms, Overlap, Placement:
		return true
	}
	return strings.HasPrefix(p.of, FallOf)
}

func failed(c manifest.GateCheck) bool { return c.Undecided == "" && !c.Passed }

// Judge returns the verdict on a snapshot. The error is of class [ErrNotRun] if no gates
// were run on it. Released are those that serve, or lately did, and are not known to be bad:
// what a comparison with one snapshot has found is only taken back by one with the same, or
// with one of these. Else a bad snapshot would only have to be compared with another bad one.
func Judge(ctx context.Context, store *snapshots.Store, d manifest.Digest, released ...manifest.Digest) (*Verdict, error) {
	list, err := Runs(ctx, store, d)
	if err != nil {
		return nil, err
	}
	return judge(list, nil, released...), nil
}

// Live is what is known of live queries.
type Live struct {
	// Released is the snapshot that answers most of them; nil if none does.
	Released *manifest.Manifest
	// Lately are those that serve, or lately did, and are not known to be bad; see [Judge].
	Lately []manifest.Digest
	// Filters reads those that were recorded; see [CheckFilters].
	Filters func(context.Context) (*querylog.LiveFilters, error)
}

// JudgeNow is [Judge] of a snapshot that is about to be released: the gates that take no
// more than manifests, contract and filters, are run anew, since what is released and what
// is asked may not be what it was at the last run. Their limits are that run's.
func JudgeNow(ctx context.Context, store *snapshots.Store, d manifest.Digest, live Live) (*Verdict, error) {
	list, err := Runs(ctx, store, d)
	if err != nil {
		return nil, err
	}
	m, err := store.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	t := list[len(list)-1].liveLimits()
	contract := CheckContract(m, live.Released, t)
	filters, err := CheckFilters(ctx, m, live.Released, t, live.Filters)
	if err != nil {
		return nil, err
	}
	now := &Recorded{
		Snapshot: d, Report: &manifest.GateReport{Checks: contract.Checks, Undecided: contract.Undecided, Loosened: t.Loosened()},
		Filters: filters.Checks, Undecided: filters.Undecided,
	}
	v := judge(list, now, live.Lately...)
	for _, name := range []string{Contract, Filters} {
		// What an earlier run has found says nothing of what is released and asked by now.
		if t.Off[name] && !slices.Contains(v.Off, name) {
			v.Off = append(v.Off, name)
		}
	}
	return v, nil
}

// liveLimits returns the limits that a run had of the gates that [JudgeNow] runs anew.
func (r *Recorded) liveLimits() Thresholds {
	t := DefaultThresholds()
	for _, name := range r.Off() {
		t.Off[name] = true
	}
	for _, c := range r.Checks() {
		switch {
		case c.Gate == Contract && c.Subject == segmentsMissing:
			t.Contract.Segments = c.Limit
		case c.Gate == Contract && strings.HasPrefix(c.Subject, attributesOf):
			t.Contract.Attributes = c.Limit
		case c.Gate == Filters:
			t.Filters.Share = c.Limit
		}
	}
	return t
}

// evaluates reports whether a run has anything of a gate.
func (r *Recorded) evaluates(gate string) bool {
	is := func(c manifest.GateCheck) bool { return c.Gate == gate && c.Undecided != manifest.GateNotRun }
	return slices.ContainsFunc(r.Checks(), is) || slices.ContainsFunc(r.undecided(), is)
}

// judge returns the verdict of runs that are recorded, and of one that is newer than them
// and has only some gates, or nil.
func judge(oldestFirst []*Recorded, now *Recorded, released ...manifest.Digest) *Verdict {
	v := &Verdict{}
	last := oldestFirst[len(oldestFirst)-1]
	if now != nil {
		oldestFirst = append(slices.Clip(oldestFirst), now)
	}
	var order []part
	decided := map[part][]manifest.GateCheck{} // what the newest run has found that evaluated it
	against := map[part]manifest.Digest{}      // what that run compared with
	evaluated, off := map[string]bool{}, map[string]bool{}
	notRun := map[string][]manifest.GateCheck{} // by gate, what the newest run says that says so
	for _, r := range oldestFirst {
		previous := r.Report.Previous
		if previous == last.Snapshot {
			previous = "" // itself, which tells nothing
		}
		if previous != "" {
			v.ComparedWith, v.previous = append(v.ComparedWith, previous), previous
		}
		for _, name := range r.Off() {
			off[name] = true
		}
		found, left := map[part][]manifest.GateCheck{}, map[string][]manifest.GateCheck{}
		for _, c := range slices.Concat(r.Checks(), r.undecided()) {
			if c.Undecided == manifest.GateNotRun {
				left[c.Gate] = append(left[c.Gate], c) // it takes nothing back
				continue
			}
			p := partOf(&c)
			if p.compares() && r != now {
				if previous == "" && r.Report.Previous != "" {
					continue
				}
				other := against[p] != "" && previous != against[p] && !slices.Contains(released, previous)
				if other && slices.ContainsFunc(decided[p], failed) {
					continue
				}
				against[p] = previous
			}
			if _, known := decided[p]; !known {
				order, decided[p] = append(order, p), nil
			}
			found[p], evaluated[c.Gate] = append(found[p], c), true
		}
		maps.Copy(decided, found)
		maps.Copy(notRun, left)
		v.Loosened = slices.DeleteFunc(v.Loosened, func(text string) bool { return r.evaluates(gateOf(text)) })
		for _, text := range r.Report.Loosened {
			if r.evaluates(gateOf(text)) {
				v.Loosened = append(v.Loosened, text)
			}
		}
	}
	var checks, undecided []manifest.GateCheck
	for _, p := range order {
		for _, c := range decided[p] {
			if c.Undecided != "" {
				undecided = append(undecided, c)
			} else {
				checks = append(checks, c)
			}
		}
	}
	for _, name := range Names() {
		if off[name] && !evaluated[name] {
			v.Off = append(v.Off, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(notRun)) {
		undecided = append(undecided, notRun[name]...)
	}
	v.Compared = slices.ContainsFunc(v.ComparedWith, func(d manifest.Digest) bool { return slices.Contains(released, d) })
	v.snapshot, v.checks = last.Snapshot, checks
	v.Rows = rows(checks, undecided, v.Off, last.unmeasured())
	return v
}

// Undecided returns the rows of gates that did not run or were inconclusive.
func (v *Verdict) Undecided() []Row {
	return slices.DeleteFunc(slices.Clone(v.Rows), func(r Row) bool { return r.State == manifest.GatePassed || r.State == manifest.GateFailed })
}

// Err returns nil if no gate failed, and else a [*FailedError].
func (v *Verdict) Err() error {
	if e := refusal(v.Rows, v.checks); e != nil {
		e.Snapshot, e.Previous = v.snapshot, v.previous
		return e
	}
	return nil
}
