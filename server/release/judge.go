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
	Failed    error           // says which failed and why, or that none was run; nil if none did
	Off       []string        // the gates that were off
	Undecided []UndecidedGate // those that did not run, or found nothing either way
	Compared  bool            // whether they compared it with a previous snapshot
	// Inconclusive are the gates that could not tell, each with why: "alignment: ...". A
	// first release needs a reason to pass over one.
	Inconclusive []string
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
		err = v.Failed
	case !v.Compared:
		err = uncompared(now, d)
	}
	if err == nil && len(now.Arms) == 0 && len(v.Inconclusive) > 0 {
		err = fmt.Errorf("a first release has nothing to fall back on, and they could not tell whether it is right: %s", strings.Join(v.Inconclusive, "; "))
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
	return fmt.Errorf("its gates compared it with no previous snapshot while %s is released; run tandem gate", most.Snapshot.Short())
}

// admit returns an error unless the gates of an arm's snapshot let it get traffic, or more
// of it, beside what serves, or there is a reason to give it some all the same: the
// override, which the arm keeps, or one that it has. The arm notes the gates of which nobody knows.
func (r *Releases) admit(ctx context.Context, now *Release, a *Arm, override string) error {
	v, err := r.verdict(ctx, now, a.Snapshot)
	if err == nil {
		a.GatesOff, a.GatesUndecided, a.Override = v.Off, v.Undecided, ""
		return nil
	}
	if a.Override = cmp.Or(override, a.Override); a.Override == "" || ctx.Err() != nil {
		return fmt.Errorf("snapshot %s: %w", a.Snapshot.Short(), err)
	}
	if v.Off != nil || v.Undecided != nil {
		a.GatesOff, a.GatesUndecided = v.Off, v.Undecided
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
