package release

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Previous returns the snapshot that gates compare a candidate with where none is named:
// the one with the most traffic of what is released now, which is nil if nothing is. That a
// candidate is that one already tells nothing of it: then it is the one that its own build
// compared it with, if the store still has it. The result is empty if there is none. The
// candidate is empty if it is yet to be built.
func (r *Releases) Previous(ctx context.Context, now *Release, candidate manifest.Digest) (manifest.Digest, error) {
	if now == nil {
		return "", nil
	}
	most := now.Most()
	if most.Snapshot != candidate {
		return most.Snapshot, nil
	}
	m, err := r.store.Manifest(ctx, candidate)
	if err != nil || m.Lineage == nil {
		return "", err
	}
	if _, err = r.store.Manifest(ctx, m.Lineage.Previous); errors.Is(err, snapshots.ErrNoSnapshot) {
		return "", nil // collected meanwhile
	}
	return m.Lineage.Previous, err
}

// NothingError says that no snapshot is meant where none is named, since nothing is
// released: not the newest either, which nobody has let pass. It is of class [ErrNone].
type NothingError struct {
	Store     string          // its location
	Snapshots int             // how many the store has, at least 1
	Newest    manifest.Digest // one that could be named
	// Model and ModelVersion are those of the newest.
	Model, ModelVersion string
}

// Error implements [error].
func (e *NothingError) Error() string {
	return fmt.Sprintf("store %s: nothing is released; name a snapshot, such as the newest of %d, %s (%s at %s)",
		e.Store, e.Snapshots, e.Newest.Short(), Escape(e.Model), Escape(e.ModelVersion))
}

// Unwrap returns [ErrNone].
func (e *NothingError) Unwrap() error { return ErrNone }

// Nothing returns the error for those who need a snapshot, name none, and find nothing
// released: a [*NothingError], or one of class [snapshots.ErrNoSnapshot] if the store has
// none to name.
func (r *Releases) Nothing(ctx context.Context) error {
	list, err := r.store.Snapshots(ctx)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return fmt.Errorf("store %s has no snapshot: %w", r.store.Location(), snapshots.ErrNoSnapshot)
	}
	m, err := r.store.Manifest(ctx, list[0].Digest)
	if err != nil {
		return fmt.Errorf("nothing is released: %w", err)
	}
	return &NothingError{Store: r.store.Location(), Snapshots: len(list), Newest: list[0].Digest, Model: m.Model, ModelVersion: m.ModelVersion}
}
