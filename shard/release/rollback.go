package release

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// RollbackOptions say how far to go back. At most one of To and AwayFrom is given. With
// neither it is the last generation in which another snapshot had all traffic: another
// than the one that has all of it now, or, where several have some, than the one that came
// last (see [Releases.Rollback]).
type RollbackOptions struct {
	Change
	// To is the generation to bring back, whatever it was.
	To uint64
	// AwayFrom is the digest, or the beginning of it, of a snapshot that serves: the last
	// generation without it comes back.
	AwayFrom string
	// Before, if set, is called with what will serve, before it is written.
	Before func(Plan)
	// Check, if set, is called likewise: its error keeps the rollback from being made.
	Check func(Plan) error
}

// Plan is what a rollback, or the end of an arm, is about to do. The change may fail yet:
// another may be first.
type Plan struct {
	Next *Release
	// Off are the snapshots that will have no traffic.
	Off []manifest.Digest
	// Passed says of the generations that were passed over why.
	Passed []string
	// Unfit says of the snapshots that will have traffic what their gates hold against them,
	// or that nobody knows, and UnfitSnapshots which they are, in the same order.
	Unfit          []string
	UnfitSnapshots []manifest.Digest
}

// Rollback brings the state of an earlier generation back, as a new one. Unless the
// generation is named, what is gone back to is the state of the last one that was not
// itself undone: behind a rollback to generation N comes what was before N. A snapshot that
// a rollback, or the end of its arm, has taken off does not come back that way, however
// often it is done, until a person has given it traffic again. Generations are passed over
// whose snapshots are not there any more, or that cannot be read.
//
// It is the one change that can follow a release that cannot be read, and only to a
// generation that is named. It asks nobody's leave: the plan says what is not fit. It waits
// for nobody: if the generation is not one of the last ten, and a collection is about to
// delete what it needs, or died when it was, the error is a [*snapshots.MarkedError].
func (r *Releases) Rollback(ctx context.Context, o RollbackOptions) (*Release, error) {
	// What it goes back to never changes, so it may be read before it is protected.
	old, passed, err := r.target(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("rollback: %w", err)
	}
	digests := snapshotsOf(old)
	protect := func(ctx context.Context, now *Release) (*snapshots.Protection, error) {
		if isLive(old.Generation, now.Generation) && old.Log == now.Log {
			return nil, nil
		}
		return r.store.TryProtect(ctx, digests...)
	}
	return r.change(ctx, o.Change, RolledBack, protect, func(ctx context.Context, next *Release) error {
		for _, d := range digests {
			if _, err := r.servable(ctx, d); err != nil {
				return err
			}
		}
		now := *next
		next.Of, next.Model, next.Salt, next.Arms = old.Generation, old.Model, old.Salt, old.Arms
		next.Variants, next.Interleaving, next.Exploration = old.Variants, old.Interleaving, old.Exploration
		if o.Before == nil && o.Check == nil {
			return nil
		}
		plan := r.plan(ctx, &now, next, passed)
		if o.Before != nil {
			o.Before(plan)
		}
		if o.Check != nil {
			return o.Check(plan)
		}
		return nil
	})
}

// plan says what a change is about to do.
func (r *Releases) plan(ctx context.Context, now, next *Release, passed []string) Plan {
	p := Plan{Next: next, Off: without(snapshotsOf(now), next), Passed: passed}
	p.Unfit, p.UnfitSnapshots = r.unfit(ctx, next)
	return p
}

// target returns the release to go back to, and what was passed over. Unless a generation
// is named the change is one to what serves now.
func (r *Releases) target(ctx context.Context, o *RollbackOptions) (old *Release, passed []string, err error) {
	if o.To != 0 {
		if o.AwayFrom != "" {
			return nil, nil, fmt.Errorf("generation %d and the last without snapshot %.80q are two; accepted: one of them: %w", o.To, o.AwayFrom, ErrChange)
		}
		old, err = r.Get(ctx, o.To)
		if u := (*UnreadableError)(nil); errors.As(err, &u) || errors.Is(err, ErrChange) {
			err = fmt.Errorf("%w; name another generation, of those that tandem release history lists", err)
		}
		return old, nil, err
	}
	now, err := r.Current(ctx)
	if err != nil {
		return nil, nil, r.goOn(ctx, err)
	}
	if o.Generation == 0 {
		o.Generation = now.Generation
	}
	if o.Generation != now.Generation {
		return nil, nil, r.conflict(ctx, o.Generation+1)
	}
	if now.Generation == 1 {
		return nil, nil, fmt.Errorf("generation 1 is the first: %w", ErrChange)
	}
	s := &search{releases: r, now: now}
	if o.AwayFrom != "" {
		d, err := resolve(now, o.AwayFrom)
		if err != nil {
			return nil, nil, err
		}
		s.off = []manifest.Digest{d}
	}
	old, err = s.run(ctx)
	return old, s.passed, err
}
