package release

import (
	"context"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Found is what a test says that the gates of a snapshot have found.
type Found struct {
	Failed      error
	FailedGates []string
	Off         []string
	Compared    bool
	Unproved    string
}

// NewJudged is [New] with gates that have found what a test says.
func NewJudged(store *snapshots.Store, judge func(context.Context, manifest.Digest) (Found, error)) *Releases {
	r := New(store)
	r.judge = func(ctx context.Context, d manifest.Digest) (fitness, error) {
		f, err := judge(ctx, d)
		return fitness{failed: f.Failed, failedGates: f.FailedGates, off: f.Off, compared: f.Compared, unproved: f.Unproved}, err
	}
	return r
}
