package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// A rollback by a server takes a snapshot off traffic whose recall is below its floor, where
// the release says so: at most once in a generation, by the same compare-and-swap as a
// person's, so of several servers one does it. It waits where the control arm is no better,
// or not known to be: then it is what is asked that has changed, and another snapshot would
// not do better. A control arm without traffic is not waited for, since it would be for good.
// What a node has is no reason: its copy of a snapshot may be bad, and others good.
// And it only goes back to snapshots that passed their gates or that audits have found to be
// good, and that they have not found to be bad.

// rollback is guarded by the auditor's mu.
type rollback struct {
	text   string // what has become of it
	done   bool   // or is not to be tried again in this generation
	active bool   // it is under way
	tries  int
	next   time.Time // try
	// found is what audits had found of snapshots when they were replaced, the newest last.
	found []verdict
}

// verdict is what audits have found of a snapshot.
type verdict struct {
	snapshot manifest.Digest
	good     bool // or bad
}

const (
	// rollbackTime is how long a rollback may take.
	rollbackTime = time.Minute
	// firstRetry is when one that has failed is tried again, and then twice as long each time.
	firstRetry = 15 * time.Second
	// maxTries is how often it is tried.
	maxTries = 5
	// maxFound is of how many snapshots that is remembered.
	maxFound = 64
)

// waits reports whether a retry is not due yet. None is for longer than the last of them is
// after: a clock was set back.
func (r *rollback) waits(now time.Time) bool {
	left := r.next.Sub(now)
	return left > 0 && left <= firstRetry<<maxTries
}

// begin begins a generation.
func (r *rollback) begin() { r.text, r.done, r.tries, r.next = "", false, 0, time.Time{} }

// remember remembers what was found of the arms that are replaced.
func (r *rollback) remember(arms []*Arm) {
	for _, arm := range arms {
		bad := arm.alarmed() != nil
		if !bad && !arm.isGood() {
			continue
		}
		r.found = slices.DeleteFunc(r.found, func(v verdict) bool { return v.snapshot == arm.Snapshot })
		r.found = append(r.found, verdict{arm.Snapshot, !bad})
		if len(r.found) > maxFound {
			r.found = slices.Delete(r.found, 0, 1)
		}
	}
}

// alarmed returns the stratum whose alarm was raised first, but for those of nodes; nil if there
// is none.
func (arm *Arm) alarmed() (first *stratum) {
	for _, s := range arm.strata {
		if s.kind != Node && s.alarm != nil && (first == nil || s.alarm.Since.Before(first.alarm.Since)) {
			first = s
		}
	}
	return first
}

// isGood reports whether audits have found an arm to be good: enough of them, and no alarm.
func (arm *Arm) isGood() bool { return len(arm.all.window) >= Enough && arm.alarmed() == nil }

// margin returns the mean margin of an arm's window.
func (arm *Arm) margin() float64 {
	recall, reference := arm.all.means()
	return recall - reference
}

// bad returns the arm to take off; nil if there is none.
func (a *Auditor) bad() *Arm {
	var worst *Arm
	for _, arm := range a.arms {
		s := arm.alarmed()
		if s != nil && (worst == nil || worst.Name == release.Control && arm.Name != release.Control) {
			worst = arm
		}
	}
	return worst
}

// mayLeave returns an error unless an arm may be taken off beside what the control does.
func (a *Auditor) mayLeave(bad *Arm) error {
	for _, arm := range a.arms {
		if arm.Name != release.Control || arm == bad || arm.Snapshot == bad.Snapshot {
			continue
		}
		switch n := len(arm.all.window); {
		case arm.alarmed() != nil:
			return fmt.Errorf("arm %s has an alarm as well: it is what is asked that has changed, or both are bad", arm.Name)
		case n < Enough && arm.Idle: // its gates count, and what was found of it before
		case n < Enough:
			return fmt.Errorf("what arm %s has is not known: %d audits, %d are needed", arm.Name, n, Enough)
		case bad.all.total > 0 && arm.margin() <= bad.margin():
			return fmt.Errorf("the recall of arm %s is no better: %+.4f beside what was measured, that of %s %+.4f", arm.Name, arm.margin(), bad.Name, bad.margin())
		}
	}
	return nil
}

// rollBack begins a rollback if one is due. The auditor's mu is held.
func (w *worker) rollBack(ctx context.Context, now time.Time) {
	r := &w.rollback
	if !w.auto || r.done || r.active || r.waits(now) {
		return
	}
	bad := w.bad()
	if bad == nil {
		r.text = ""
		return
	}
	if w.c.Releases == nil {
		w.keep(bad, errors.New("this server follows no releases"))
		return
	}
	if err := w.mayLeave(bad); err != nil {
		r.text = "waits: " + err.Error()
		return
	}
	s := bad.alarmed()
	r.active = true
	reason := fmt.Sprintf("recall of live queries of arm %s, snapshot %s (%s): %s", bad.Name, bad.Snapshot.Short(), s.describe(), s.alarm)
	if low := bad.lowNodes(); len(low) > 0 {
		reason += "; its floor is above what was found by nodes " + strings.Join(low, ", ")
	}
	w.aside.Go(func() { w.goBack(ctx, bad, reason) })
}

// describe says which queries a stratum is of.
func (s *stratum) describe() string {
	if s.name == "" {
		return s.kind.String()
	}
	return s.kind.String() + " " + s.name
}

// keep notes that there will be no rollback in this generation.
func (w *worker) keep(bad *Arm, err error) {
	w.rollback.done, w.rollback.text = true, "not done: "+err.Error()
	w.tellKept(bad, err)
}

func (w *worker) tellKept(bad *Arm, err error) {
	w.c.Events.Recall(events.Recall{Change: events.RecallKept, Generation: bad.Generation, Arm: bad.Name, Snapshot: bad.Snapshot, Err: err})
}

// refusedError says that what would come back is not known to be good.
type refusedError struct{ text string }

func (e refusedError) Error() string { return e.text }

// goBack rolls back.
func (w *worker) goBack(ctx context.Context, bad *Arm, reason string) {
	ctx, cancel := context.WithTimeout(ctx, rollbackTime)
	defer cancel()
	next, err := w.c.Releases.Rollback(ctx, release.RollbackOptions{
		Change:   release.Change{Author: w.c.Author, Reason: reason[:min(len(reason), release.MaxText)], Generation: bad.Generation},
		AwayFrom: string(bad.Snapshot), Check: w.mayComeBack,
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &w.rollback
	r.active = false
	switch {
	case err == nil:
		w.c.Events.Recall(events.Recall{
			Change: events.RecallRolledBack, Generation: bad.Generation, Arm: bad.Name, Snapshot: bad.Snapshot, To: next.Of,
		})
		if !bad.gone.Load() {
			r.done, r.text = true, fmt.Sprintf("done: generation %d brings generation %d back", next.Generation, next.Of)
		}
	case bad.gone.Load(): // it is off already
	case errors.As(err, new(refusedError)), errors.Is(err, release.ErrChange):
		w.keep(bad, err)
	case errors.Is(err, release.ErrConflict):
		r.done, r.text = true, "not done: "+err.Error()
	case r.tries+1 >= maxTries:
		w.keep(bad, fmt.Errorf("%w; given up after %d tries: a person can go back to a generation without snapshot %s", err, maxTries, bad.Snapshot.Short()))
	default:
		r.next = w.c.Now().Add(firstRetry << r.tries)
		r.tries++
		r.text = "failed, and is tried again: " + err.Error()
		w.tellKept(bad, err)
	}
}

// mayComeBack returns an error unless every snapshot that would serve is good.
func (w *worker) mayComeBack(p release.Plan) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, next := range p.Next.Arms {
		good := false
		for _, v := range w.rollback.found {
			if v.snapshot == next.Snapshot && !v.good {
				return refusedError{fmt.Sprintf("snapshot %s would come back, and the recall of live queries was below its floor when it was replaced", v.snapshot.Short())}
			}
			good = good || v.snapshot == next.Snapshot
		}
		for _, arm := range w.arms {
			if arm.Snapshot != next.Snapshot {
				continue
			}
			if arm.alarmed() != nil {
				return refusedError{fmt.Sprintf("snapshot %s would go on, and arm %s has an alarm as well", next.Snapshot.Short(), arm.Name)}
			}
			good = good || arm.isGood()
		}
		if i := slices.Index(p.UnfitSnapshots, next.Snapshot); i >= 0 && !good {
			return refusedError{"what would come back is not known to be good: " + p.Unfit[i]}
		}
	}
	return nil
}
