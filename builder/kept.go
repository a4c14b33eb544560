package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

// kept is what a build has found out, beside its shards: it goes on from here once the
// towers are done, and once the gates have run.
type kept struct {
	Manifest *manifest.Manifest
	Rejected map[shard.Kind]*Rejections
	Gates    *gates.Recorded // nil if they have not run
}

// key returns the digest of all that the snapshot depends on.
func (b *build) key() (manifest.Digest, error) {
	m := b.manifest
	data, err := json.Marshal(struct {
		Version               int
		Builder, Tool         string
		Model, ModelVersion   string
		Params                string
		AppShards, UserShards int
		Parameters            *manifest.Parameters
		Previous              manifest.Digest
		Inputs, Gates         []manifest.Input
		Live                  *shard.Position
		Forgotten             manifest.Digest
	}{
		m.Version, m.Builder, m.Tool, m.Model, m.ModelVersion, b.Params.String(), b.Apps.Shards, b.Users.Shards,
		m.Parameters, b.Previous, m.Inputs, b.gates.inputs, b.LivePosition, b.plan.Forgotten,
	})
	return manifest.Sum(data), err
}

// openStage opens the stage of a build of the same that was kept, or a new one.
func (b *build) openStage(ctx context.Context) (err error) {
	if b.keyed, err = b.key(); err != nil {
		return err
	}
	if err := b.resume(ctx); err != nil {
		return err
	}
	if b.stage == nil {
		if b.stage, err = b.store.Stage(); err != nil {
			return err
		}
	}
	if b.staged, err = snapshots.CreateStore(ctx, filepath.Join(b.stage.Dir(), "store"), snapshots.Options{}); err != nil {
		return errors.Join(err, b.stage.Close())
	}
	return nil
}

// resume takes over a build of the same that was kept, if there is one.
func (b *build) resume(ctx context.Context) error {
	stage, state, err := b.store.KeptStage(ctx, b.keyed)
	if err != nil || stage == nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(state, &k); err != nil || k.Manifest == nil {
		b.Progress.Note(fmt.Sprintf("what was built before, in %s, cannot be read, and is built anew: %v", stage.Dir(), err))
		stage.Drop()
		return stage.Close()
	}
	b.stage, b.resumed, b.keeps = stage, true, true
	b.manifest, b.rejected, b.found = k.Manifest, k.Rejected, k.Gates
	b.Progress.Note(fmt.Sprintf("the same was built before, and is kept in %s: the build goes on from there", stage.Dir()))
	return nil
}

// keep makes what is done outlive this process. It is of use to a later one alone, so that
// a build goes on without.
func (b *build) keep(ctx context.Context) {
	state, err := json.Marshal(kept{b.manifest, b.rejected, b.found})
	if err == nil {
		err = b.stage.Keep(ctx, b.keyed, state)
	}
	if err != nil {
		b.Progress.Note(fmt.Sprintf("what is built cannot be kept, should it fail to be published: %v", err))
		return
	}
	b.keeps = true
}

// outworn reports whether a build that was kept has failed since it is not whole any more.
func (b *build) outworn(ctx context.Context, failed error) bool {
	return b.resumed && errors.Is(failed, snapshots.ErrSource) && ctx.Err() == nil
}

// closeStage removes the stage of a build that ended well, or that has nothing worth
// keeping.
func (b *build) closeStage(ctx context.Context, failed error) error {
	if failed == nil || b.outworn(ctx, failed) {
		b.stage.Drop()
	} else if b.keeps {
		b.Progress.Note(fmt.Sprintf("what is built is kept in %s, for %d days: the same build, run again, goes on from there", b.stage.Dir(), int(snapshots.KeptLife.Hours()/24)))
	}
	return errors.Join(b.staged.Close(), b.stage.Close())
}

const (
	// publishPatience is how long a build tries to publish while the store takes nothing.
	publishPatience = 2 * time.Minute
	// publishWait is how long it waits before it tries again; then twice as long each time.
	publishWait    = time.Second
	publishWaitMax = 30 * time.Second
)

// publish records what the gates have found and brings the snapshot into the store, and
// tries again for a time if a store that is no folder fails.
func (b *build) publish(ctx context.Context) (manifest.Digest, error) {
	recorded, have := false, 0
	wait, deadline := publishWait, time.Now().Add(publishPatience)
	for {
		digest, err := b.tryPublish(ctx, &recorded)
		if err == nil || ctx.Err() != nil || errors.Is(err, snapshots.ErrSource) || errors.As(err, new(*upkeep.SettledError)) || b.store.Objects().Dir() != "" {
			return digest, err
		}
		var incomplete *snapshots.IncompleteError
		if errors.As(err, &incomplete) && incomplete.Have > have {
			have = incomplete.Have
			wait, deadline = publishWait, time.Now().Add(publishPatience)
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("publish: the store has taken nothing for %s: %w", publishPatience, err)
		}
		b.Progress.Note(fmt.Sprintf("publish: %v; trying again in %s", err, wait))
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, publishWaitMax)
	}
}

// bring brings the snapshot into the store, with its shards unless they are there.
func (b *build) bring(ctx context.Context) (manifest.Digest, error) {
	if b.staged == b.store {
		return b.store.PublishBuilt(ctx, b.manifest)
	}
	return b.store.Import(ctx, b.staged, b.manifest)
}

// tryPublish publishes the snapshot. The gates are recorded first, so that no snapshot is
// there without.
func (b *build) tryPublish(ctx context.Context, recorded *bool) (manifest.Digest, error) {
	if err := b.checkSettled(ctx); err != nil {
		return "", err
	}
	if !*recorded {
		if err := gates.Record(ctx, b.store.Objects(), b.found); err != nil {
			return "", err
		}
		*recorded = true
	}
	digest, err := b.bring(ctx)
	if err != nil {
		return "", err
	}
	// A collection that has not seen the manifest has left a mark before this.
	if err := b.checkSettled(ctx); err != nil {
		return "", errors.Join(err, b.store.Remove(ctx, digest, release.New(b.store).Live))
	}
	return digest, nil
}
