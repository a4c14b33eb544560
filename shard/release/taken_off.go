package release

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// maxTakenOff is how many snapshots a release says to be taken off: the last ones.
const maxTakenOff = 256

// maxWalked is how many releases are read for that which do not say it: each is a request, and
// who rolls back waits for them.
const maxWalked = 200

// takenOff returns what was taken off up to a release and has not come back. What a release
// does not say that is older than the field is found in those before it, of which the last
// ones count.
func (r *Releases) takenOff(ctx context.Context, now *Release) (map[manifest.Digest]uint64, error) {
	if now.TakenOff != nil || now.Generation == 0 {
		return now.TakenOff, nil
	}
	var walked []*Release // newest first
	for one, err := range r.History(ctx) {
		u, b := (*UnreadableError)(nil), (*BrokenError)(nil)
		switch {
		case errors.As(err, &u), errors.As(err, &b):
			continue // nobody knows what it took off
		case err != nil:
			return nil, err
		case one.Generation > now.Generation:
			continue
		}
		walked = append(walked, one)
		if one.TakenOff != nil || len(walked) == maxWalked {
			break
		}
	}
	taken := map[manifest.Digest]uint64{}
	for i, one := range slices.Backward(walked) {
		switch {
		case one.TakenOff != nil:
			taken = one.TakenOff
		case i+1 < len(walked):
			taken = takenOffBy(taken, walked[i+1], one)
		}
	}
	return taken, nil
}

// takenOffBy returns what is taken off after a release that follows another.
func takenOffBy(before map[manifest.Digest]uint64, last, next *Release) map[manifest.Digest]uint64 {
	taken := map[manifest.Digest]uint64{}
	maps.Copy(taken, before)
	came := without(snapshotsOf(next), last)
	// A rollback that brings back what was taken off takes that back; what it ends is
	// what was there instead.
	again := slices.ContainsFunc(came, func(d manifest.Digest) bool { return taken[d] != 0 })
	for _, d := range came {
		delete(taken, d)
	}
	if next.Kind == RolledBack && !again || next.Stopped != "" {
		for _, d := range without(snapshotsOf(last), next) {
			taken[d] = next.Generation
		}
	}
	if more := len(taken) - maxTakenOff; more > 0 {
		oldest := slices.SortedFunc(maps.Keys(taken), func(a, b manifest.Digest) int {
			return cmp.Or(cmp.Compare(taken[a], taken[b]), cmp.Compare(a, b))
		})
		for _, d := range oldest[:more] {
			delete(taken, d)
		}
	}
	return taken
}
