package builder

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

// readLive reads the live log of the store that is built into, unless the caller has, and
// checks the position in it.
func (o *Options) readLive(ctx context.Context, store *snapshots.Store) error {
	if o.Live == nil {
		var err error
		if o.Live, err = live.Read(ctx, store.Objects()); err != nil {
			return fmt.Errorf("read the live log: %w", err)
		}
		if o.LivePosition == nil && o.Live.Position().Shard() != (shard.Position{}) {
			o.LivePosition = &shard.Position{}
		}
	}
	if o.LivePosition == nil {
		return nil
	}
	if err := CheckLivePosition(*o.LivePosition, o.Live); err != nil {
		return err
	}
	return upkeep.CheckInputs(ctx, store.Objects(), *o.LivePosition, o.Model, o.ModelVersion)
}

// checkSettled returns a [*upkeep.SettledError] if a collection has settled, since the build
// began, what its inputs lack.
func (b *build) checkSettled(ctx context.Context) error {
	var inputs shard.Position // of inputs of which nobody has said anything
	if b.LivePosition != nil {
		inputs = *b.LivePosition
	}
	return upkeep.CheckInputs(ctx, b.store.Objects(), inputs, b.Model, b.ModelVersion)
}

// CheckLivePosition returns an error unless the inputs of a build can reflect a position of a
// live log: one that the log has reached, or one of a log that it has replaced.
func CheckLivePosition(p shard.Position, log *live.State) error {
	head := log.Position().Shard()
	if p.Log == head.Log && p.Sequence > head.Sequence || p.Log > head.Log {
		return fmt.Errorf("live position is %s, and the live log of the store ends at %s; accepted: up to that", p, head)
	}
	return nil
}

// digestOf returns that of all who are forgotten; empty if nobody is.
func digestOf(f live.Forgotten) manifest.Digest {
	if f.Len() == 0 {
		return ""
	}
	return manifest.Digest(f.Digest())
}

// forgottenInput describes those who were met, ascending, as an input of the snapshot: the same
// files, and the same users who were left out, give the same digest, whoever else is forgotten.
func forgottenInput(met []live.UserHash) manifest.Input {
	var data []byte
	for _, h := range met {
		data = append(data, h[:]...)
	}
	return manifest.Input{Role: manifest.ForgottenRole, Name: "live", Size: int64(len(data)), Digest: manifest.Sum(data)}
}
