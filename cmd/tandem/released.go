package main

import (
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
)

// mostTraffic returns the arm of a release with the most traffic; of equal ones that is
// control, or else the first.
func mostTraffic(r *release.Release) release.Arm {
	most := r.Arms[0]
	for _, arm := range r.Arms[1:] {
		if arm.Weight > most.Weight || arm.Weight == most.Weight && arm.Name == release.Control {
			most = arm
		}
	}
	return most
}

// released returns the snapshot that is released to most traffic, and tells people which
// that is. Where nothing is released it is an error that says what to do: no other
// snapshot is meant unless it is named.
func released(e *environment, store *shard.Store) (shard.Digest, error) {
	now, err := newestRelease(e, store)
	if err != nil {
		return "", err
	}
	if now == nil {
		return "", nothingReleased(e, store)
	}
	arm := mostTraffic(now)
	of := ""
	if len(now.Arms) > 1 {
		of = fmt.Sprintf(", with %d of %d per mille", arm.Weight, release.Total)
	}
	fmt.Fprintf(e.stderr, "snapshot %s, %s at %s, is what is released (generation %d, arm %s%s)\n", arm.Snapshot.Short(),
		release.Escape(now.Model), release.Escape(arm.ModelVersion), now.Generation, release.Escape(arm.Name), of)
	return arm.Snapshot, nil
}

// nothingReleased says that a snapshot must be named, and which there are.
func nothingReleased(e *environment, store *shard.Store) error {
	list, err := store.Snapshots(e.ctx)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return fmt.Errorf("store %s has no snapshot: %w; tandem build makes one", store.Location(), shard.ErrNoSnapshot)
	}
	err = fmt.Errorf("store %s: nothing is released", store.Location())
	m, readErr := store.Manifest(e.ctx, list[0].Digest)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w; name a snapshot, such as the newest of %s, %s (%s at %s), or release one with tandem release start",
		err, count(int64(len(list))), list[0].Digest.Short(), release.Escape(m.Model), release.Escape(m.ModelVersion))
}
