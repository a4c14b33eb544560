package main

import (
	"context"
	"errors"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
)

// judge says what all runs of the gates on a snapshot amount to. That there was none is
// a verdict, too.
func judge(ctx context.Context, store *shard.Store, d shard.Digest) (release.Verdict, error) {
	v, err := judgeNow(ctx, store, d)
	if errors.Is(err, gate.ErrNotRun) {
		return release.Verdict{Failed: err}, nil
	}
	if err != nil {
		return release.Verdict{}, err
	}
	return releaseVerdict(v), nil
}
