package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// fitness is what the gates of a snapshot have found, as far as it matters to a release.
type fitness struct {
	failed error // says which failed and why, or that none was run; nil if none did
	// failedGates are the names of those that failed, and of nothing else.
	failedGates []string
	off         []string        // the gates that were off
	undecided   []UndecidedGate // those that did not run, or found nothing either way
	loosened    []string        // limits under which more passed than by default
	compared    bool            // whether they compared it with a previous snapshot
	// unproved says what nothing has shown of the snapshot, and a first release needs a
	// reason to pass over; empty if there is no such thing.
	unproved string
}

// mostLoosened is how many loosened limits a release keeps.
const mostLoosened = 50

// fitnessOf returns what a release keeps of a verdict.
func fitnessOf(v *gates.Verdict) fitness {
	f := fitness{failed: v.Err(), off: v.Off, compared: v.Compared, loosened: slices.Clone(v.Loosened), unproved: v.Unproved()}
	if more := len(v.Loosened) - mostLoosened; more > 0 {
		f.loosened = append(slices.Clip(v.Loosened[:mostLoosened]), fmt.Sprintf("and %d more", more))
	}
	for _, row := range v.Undecided() {
		f.undecided = append(f.undecided, UndecidedGate{Gate: row.Gate, State: row.State, Why: firstOf(row.Why, MaxText)})
	}
	for _, row := range v.Rows {
		if row.State == manifest.GateFailed {
			f.failedGates = append(f.failedGates, row.Gate)
		}
	}
	for i, text := range f.loosened {
		f.loosened[i] = firstOf(text, MaxText)
	}
	return f
}

// firstOf returns as much of a text as most bytes hold.
func firstOf(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(" ...")], "") + " ..."
}

// judged returns what all runs of the gates on a snapshot amount to, beside what answers
// most queries now. An error says that it is not known; that there was no run is a verdict
// that has failed.
func (r *Releases) judged(ctx context.Context, d manifest.Digest) (fitness, error) {
	live := gates.Live{Filters: gates.LiveFilters(r.store)}
	now, _, err := r.Newest(ctx)
	// Where the log is lost nobody but one who begins it anew gets as far as to ask.
	if err != nil && !errors.Is(err, ErrNone) && !errors.Is(err, ErrLost) {
		return fitness{}, err
	}
	if now != nil {
		live.Lately = r.Lately(ctx, now)
		if most := now.Most(); most.Snapshot != d {
			live.Released, err = r.store.Manifest(ctx, most.Snapshot)
			if err != nil && !errors.Is(err, snapshots.ErrNoSnapshot) {
				return fitness{}, fmt.Errorf("the snapshot that is released: %w", err)
			}
		}
	}
	v, err := gates.JudgeNow(ctx, r.store, d, live)
	if errors.Is(err, gates.ErrNotRun) {
		return fitness{failed: err}, nil
	}
	if err != nil {
		return fitness{}, err
	}
	return fitnessOf(v), nil
}

// judgeTime is how long a rollback waits for a verdict; it goes back without one.
const judgeTime = 5 * time.Second

// fit returns what the gates of a snapshot have found. The error says what keeps it from
// getting traffic beside what serves: of class [ErrGates], or that this is not known.
func (r *Releases) fit(ctx context.Context, now *Release, d manifest.Digest) (fitness, error) {
	f, err := r.judge(ctx, d)
	switch {
	case err != nil:
		return f, fmt.Errorf("what its gates have found is not known: %w", err)
	case f.failed != nil:
		if err = f.failed; len(f.failedGates) == 0 {
			f.failedGates = []string{"all"} // none was run
		}
	case !f.compared:
		if err = uncompared(now, d); err != nil {
			f.failedGates = []string{"comparison"}
		}
	}
	if err == nil && len(now.Arms) == 0 && f.unproved != "" {
		err = fmt.Errorf("%w, and %s", ErrUnproved, f.unproved)
		f.failedGates = []string{"proof of one training"}
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrGates, err)
	}
	return f, err
}

// uncompared returns an error for a snapshot that no gate compared with another, unless
// there is none to compare it with: nothing serves, or it serves already.
func uncompared(now *Release, d manifest.Digest) error {
	if len(now.Arms) == 0 || slices.ContainsFunc(now.Arms, func(a Arm) bool { return a.Snapshot == d }) {
		return nil
	}
	return fmt.Errorf("its gates compared it with no snapshot that serves, while %s is released; run tandem gate", now.Most().Snapshot.Short())
}

// admit returns an error unless the gates of an arm's snapshot let it get traffic, or more
// of it, beside what serves, or there is a reason to give it some all the same: the
// override, which the arm keeps, or one that it has and that was given for these gates; of a
// verdict that is not known nobody knows that. The arm notes the gates that failed, and those
// that decided nothing.
func (r *Releases) admit(ctx context.Context, now *Release, a *Arm, override string) error {
	f, err := r.fit(ctx, now, a.Snapshot)
	if err == nil {
		a.GatesOff, a.GatesUndecided, a.GatesLoosened, a.Override = f.off, f.undecided, f.loosened, ""
		a.GatesFailed = nil
		return nil
	}
	known := a.Override != "" && errors.Is(err, ErrGates) && !slices.ContainsFunc(f.failedGates, func(gate string) bool { return !slices.Contains(a.GatesFailed, gate) })
	if override == "" && !known || ctx.Err() != nil {
		err = fmt.Errorf("snapshot %s: %w", a.Snapshot.Short(), err)
		if a.Override != "" && errors.Is(err, ErrGates) {
			err = fmt.Errorf("%w\n  the reason that was given, %.200q, was for less: %s", err, a.Override, cmp.Or(strings.Join(a.GatesFailed, ", "), "nobody noted for what"))
		}
		return err
	}
	a.Override = cmp.Or(override, a.Override)
	if f.failedGates != nil {
		a.GatesFailed = f.failedGates
	}
	if f.off != nil || f.undecided != nil || f.loosened != nil {
		a.GatesOff, a.GatesUndecided, a.GatesLoosened = f.off, f.undecided, f.loosened
	}
	return nil
}

// unfit says of each snapshot of arms that comes back what is wrong with it, or why that is
// not known, and which snapshots these are. It keeps nobody from going back.
func (r *Releases) unfit(ctx context.Context, next *Release) (texts []string, which []manifest.Digest) {
	ctx, cancel := context.WithTimeout(ctx, judgeTime)
	defer cancel()
	judged := map[manifest.Digest]bool{}
	for _, a := range next.Arms {
		if judged[a.Snapshot] {
			continue
		}
		judged[a.Snapshot] = true
		if _, err := r.fit(ctx, next, a.Snapshot); err != nil {
			text := fmt.Sprintf("snapshot %s: %v", a.Snapshot.Short(), err)
			if a.Override != "" {
				text += fmt.Sprintf(" (it was released all the same: %s)", a.Override)
			}
			texts, which = append(texts, text), append(which, a.Snapshot)
		}
	}
	return texts, which
}
