package main

import (
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// newestRelease returns the newest release that can be read, nil if there is none, and
// tells people if that is not what was released last.
func newestRelease(e *environment, store *snapshots.Store) (*release.Release, error) {
	now, unreadable, err := release.New(store).Newest(e.ctx)
	if errors.Is(err, release.ErrNone) {
		err = nil
	}
	if err == nil {
		tellUnreadable(e, unreadable)
	}
	return now, err
}

// tellUnreadable tells people that what was released last cannot be read, if that is so.
func tellUnreadable(e *environment, unreadable *release.UnreadableError) {
	if unreadable != nil {
		fmt.Fprintf(e.stderr, "release %d cannot be read, the newest that can is meant: %v\n", unreadable.Generation, unreadable.Err)
	}
}

// besideReleased returns what is released beside the snapshots of a store, and tells people if
// that is not what was released last.
func besideReleased(e *environment, releases *release.Releases) (*release.Beside, error) {
	beside, err := releases.Beside(e.ctx)
	if err == nil {
		tellUnreadable(e, beside.Unreadable)
	}
	return beside, err
}

// released returns the snapshot that is released to most traffic, and tells people which
// that is. Where nothing is released it is an error that says what to do: no other
// snapshot is meant unless it is named.
func released(e *environment, store *snapshots.Store) (manifest.Digest, error) {
	now, err := newestRelease(e, store)
	if err != nil {
		return "", err
	}
	if now == nil {
		return "", nothingReleased(e, store)
	}
	return tellReleased(e, now), nil
}

// tellReleased returns the snapshot that a release gives most traffic, and tells people
// which that is.
func tellReleased(e *environment, now *release.Release) manifest.Digest {
	arm, of := now.Most(), ""
	if len(now.Arms) > 1 {
		of = fmt.Sprintf(", with %d of %d per mille", arm.Weight, release.Total)
	}
	fmt.Fprintf(e.stderr, "snapshot %s, %s at %s, is what is released (generation %d, arm %s%s)\n", arm.Snapshot.Short(),
		release.Escape(now.Model), release.Escape(arm.ModelVersion), now.Generation, release.Escape(arm.Name), of)
	return arm.Snapshot
}

// nothingReleased says that a snapshot must be named, which there are, and how else to go
// on.
func nothingReleased(e *environment, store *snapshots.Store) error {
	err := release.New(store).Nothing(e.ctx)
	switch {
	case errors.Is(err, release.ErrNone):
		return fmt.Errorf("%w, or release one with tandem release start", err)
	case errors.Is(err, snapshots.ErrNoSnapshot):
		return fmt.Errorf("%w; tandem build makes one", err)
	}
	return err
}
