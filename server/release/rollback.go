package release

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard"
)

// Rollback brings the state of an earlier generation back, as a new one; 0 means the
// generation before the one that serves. It is the one change that can follow a release
// that cannot be read, and only to a generation that is named. It waits for nobody: if
// the generation is not one of the last ten, and a collection is about to delete what it
// needs, or died when it was, the error is a [*shard.MarkedError].
func (r *Releases) Rollback(ctx context.Context, c Change, to uint64) (*Release, error) {
	// What it goes back to never changes, so it may be read before it is protected.
	if to == 0 {
		now, err := r.Current(ctx)
		if err != nil {
			return nil, fmt.Errorf("rollback: %w", r.goOn(ctx, err))
		}
		if c.Generation == 0 {
			c.Generation = now.Generation
		}
		if to = now.Generation - 1; to == 0 {
			return nil, fmt.Errorf("rollback: generation 1 is the first: %w", ErrChange)
		}
	}
	old, err := r.Get(ctx, to)
	if u := (*UnreadableError)(nil); errors.As(err, &u) || errors.Is(err, ErrChange) {
		return nil, fmt.Errorf("rollback: %w; name another generation, of those that tandem release history lists", err)
	}
	if err != nil {
		return nil, fmt.Errorf("rollback: %w", err)
	}
	var digests []shard.Digest
	for _, a := range old.Arms {
		if !slices.Contains(digests, a.Snapshot) {
			digests = append(digests, a.Snapshot)
		}
	}
	protect := func(ctx context.Context, now *Release) (*shard.Protection, error) {
		if isLive(to, now.Generation) && old.Log == now.Log {
			return nil, nil
		}
		return r.store.TryProtect(ctx, digests...)
	}
	return r.change(ctx, c, RolledBack, protect, func(ctx context.Context, next *Release) error {
		for _, d := range digests {
			if _, err := r.servable(ctx, d); err != nil {
				return err
			}
		}
		next.Of, next.Model, next.Salt, next.Arms = to, old.Model, old.Salt, old.Arms
		return nil
	})
}
