package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard"
)

// Judge says what the gates of a snapshot of a store have found. An error says that it is
// not known; that they were not run is a verdict that has failed.
type Judge func(context.Context, *shard.Store, shard.Digest) (Verdict, error)

// Verdict is what the gates of a snapshot have found.
type Verdict struct {
	Failed error // says which failed and why, or that none was run; nil if none did
	// FailedGates are the names of those that failed, and of nothing else.
	FailedGates []string
	Off         []string        // the gates that were off
	Undecided   []UndecidedGate // those that did not run, or found nothing either way
	Loosened    []string        // limits under which more passed than by default
	Compared    bool            // whether they compared it with a previous snapshot
	// Unproved says what nothing has shown of the snapshot, and a first release needs a
	// reason to pass over; empty if there is no such thing.
	Unproved string
}

// judgeTime is how long a rollback waits for a verdict, which it goes back without.
const judgeTime = 5 * time.Second

// errNotAsked is what is found where nobody is asked.
var errNotAsked = errors.New("nobody was asked what they have found")

// verdict asks the judge. The error says what keeps a snapshot from getting traffic beside
// what serves: of class [ErrGates], or that the verdict is not known.
func (r *Releases) verdict(ctx context.Context, now *Release, d shard.Digest) (Verdict, error) {
	if r.judge == nil {
		return Verdict{}, fmt.Errorf("%w: %w", ErrGates, errNotAsked)
	}
	v, err := r.judge(ctx, r.store, d)
	switch {
	case err != nil:
		return v, fmt.Errorf("what its gates have found is not known: %w", err)
	case v.Failed != nil:
		if err = v.Failed; len(v.FailedGates) == 0 {
			v.FailedGates = []string{"all"} // none was run
		}
	case !v.Compared:
		if err = uncompared(now, d); err != nil {
			v.FailedGates = []string{"comparison"}
		}
	}
	if err == nil && len(now.Arms) == 0 && v.Unproved != "" {
		err = fmt.Errorf("a first release has nothing to fall back on, and %s", v.Unproved)
		v.FailedGates = []string{"proof of one training"}
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrGates, err)
	}
	return v, err
}

// uncompared returns an error for a snapshot that no gate compared with another, unless
// there is none to compare it with: nothing serves, or it serves already.
func uncompared(now *Release, d shard.Digest) error {
	if len(now.Arms) == 0 || slices.ContainsFunc(now.Arms, func(a Arm) bool { return a.Snapshot == d }) {
		return nil
	}
	most := slices.MaxFunc(now.Arms, func(a, b Arm) int { return cmp.Compare(a.Weight, b.Weight) })
	return fmt.Errorf("its gates compared it with no snapshot that serves, while %s is released; run tandem gate", most.Snapshot.Short())
}

// admit returns an error unless the gates of an arm's snapshot let it get traffic, or more
// of it, beside what serves, or there is a reason to give it some all the same: the
// override, which the arm keeps, or one that it has and that was given for these gates; of a
// verdict that is not known nobody knows that. The arm notes the gates that failed, and those that decided nothing.
func (r *Releases) admit(ctx context.Context, now *Release, a *Arm, override string) error {
	v, err := r.verdict(ctx, now, a.Snapshot)
	if err == nil {
		a.GatesOff, a.GatesUndecided, a.GatesLoosened, a.Override = v.Off, v.Undecided, v.Loosened, ""
		a.GatesFailed = nil
		return nil
	}
	known := a.Override != "" && errors.Is(err, ErrGates) && !slices.ContainsFunc(v.FailedGates, func(gate string) bool { return !slices.Contains(a.GatesFailed, gate) })
	if override == "" && !known || ctx.Err() != nil {
		err = fmt.Errorf("snapshot %s: %w", a.Snapshot.Short(), err)
		if a.Override != "" && errors.Is(err, ErrGates) {
			err = fmt.Errorf("%w\n  the reason that was given, %.200q, was for less: %s", err, a.Override, cmp.Or(strings.Join(a.GatesFailed, ", "), "nobody noted for what"))
		}
		return err
	}
	a.Override = cmp.Or(override, a.Override)
	if v.FailedGates != nil {
		a.GatesFailed = v.FailedGates
	}
	if v.Off != nil || v.Undecided != nil || v.Loosened != nil {
		a.GatesOff, a.GatesUndecided, a.GatesLoosened = v.Off, v.Undecided, v.Loosened
	}
	return nil
}

// unfit says of each snapshot of arms that comes back what is wrong with it, or why that is
// not known. It keeps nobody from going back.
func (r *Releases) unfit(ctx context.Context, next *Release) (texts []string) {
	ctx, cancel := context.WithTimeout(ctx, judgeTime)
	defer cancel()
	judged := map[shard.Digest]bool{}
	for _, a := range next.Arms {
		if judged[a.Snapshot] {
			continue
		}
		judged[a.Snapshot] = true
		if _, err := r.verdict(ctx, next, a.Snapshot); err != nil {
			text := fmt.Sprintf("snapshot %s: %v", a.Snapshot.Short(), err)
			if a.Override != "" {
				text += fmt.Sprintf(" (it was released all the same: %s)", a.Override)
			}
			texts = append(texts, text)
		}
	}
	return texts
}
