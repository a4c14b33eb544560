package release

import (
	"context"
	"errors"
	"slices"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Lately returns the snapshots beside which gates show that another one is fit: what has most
// traffic of what is released now, whatever got it there, and those of the last ten releases
// that needed no reason to get their traffic, and that no rollback, and no end of their arm,
// has taken off since. Beside one that is bad itself the next one of its
// kind passes. What is behind a release that cannot be read, or behind a fault of the log,
// does not count, since nobody knows what has become of it.
func (r *Releases) Lately(ctx context.Context, now *Release) []manifest.Digest {
	list, err := r.vouching(ctx)
	if err != nil {
		list = nil // what has most traffic is known all the same
	}
	if most := now.Most().Snapshot; !slices.Contains(list, most) {
		list = append(list, most)
	}
	return list
}

// vouching returns those of [Releases.Lately], but for what has most traffic for a reason.
func (r *Releases) vouching(ctx context.Context) ([]manifest.Digest, error) {
	var list, off []manifest.Digest
	var after *Release // the one that came after
	n := 0
	for one, err := range r.History(ctx) {
		u, b := (*UnreadableError)(nil), (*BrokenError)(nil)
		switch {
		case errors.As(err, &u) && n == 0:
			continue // the newest that can be read serves
		case errors.As(err, &u), errors.As(err, &b):
			return list, nil
		case err != nil:
			return nil, err
		}
		if after != nil && (after.Kind == RolledBack || after.Stopped != "") {
			off = append(off, without(snapshotsOf(one), after)...)
		}
		for _, a := range one.Arms {
			if a.Override == "" && !slices.Contains(off, a.Snapshot) && !slices.Contains(list, a.Snapshot) {
				list = append(list, a.Snapshot)
			}
		}
		if n++; n == keptReleases {
			break
		}
		after = one
	}
	return list, nil
}
