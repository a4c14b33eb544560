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
	v, err := gate.Judge(ctx, store, d)
	if errors.Is(err, gate.ErrNotRun) {
		return release.Verdict{Failed: err}, nil
	}
	if err != nil {
		return release.Verdict{}, err
	}
	out := release.Verdict{Failed: v.Err(), Off: v.Off, Compared: v.Compared, Inconclusive: v.Inconclusive}
	for _, row := range v.Undecided() {
		out.Undecided = append(out.Undecided, release.UndecidedGate{Gate: row.Gate, State: row.State, Why: row.Why})
	}
	return out, nil
}
