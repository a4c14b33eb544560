package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// ErrNothingLive is the class of every error that says that a Collect deleted nothing
// because there is no release, or no snapshot, to say what must be kept.
var ErrNothingLive = errors.New("what must be kept may be where it is not found, so nothing was deleted")

// MissingShardError says that a Collect deleted nothing since a shard that a release needs is
// not there: it is on a disk that is not mounted, or must be brought back by [Repair].
type MissingShardError struct {
	Store    string          // its location
	Snapshot manifest.Digest // which one of the last releases has
	Shard    manifest.Digest
}

// Error implements [error].
func (e *MissingShardError) Error() string {
	return fmt.Sprintf("store %s: nothing is deleted, since one of the last releases needs snapshot %s and its shard %s is not there: mount it, or mend it", e.Store, e.Snapshot.Short(), e.Shard)
}

// survey reads what says what must be kept, and returns the snapshots, newest first.
func (c *collection) survey(ctx context.Context) ([]Published, error) {
	// In this order, a snapshot that is published and released meanwhile is not missed.
	if err := c.readLive(ctx); err != nil {
		return nil, err
	}
	snapshots, err := c.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	c.published = map[manifest.Digest]time.Time{}
	for _, p := range snapshots {
		c.published[p.Digest] = p.Time
	}
	if err := c.readManifests(ctx, snapshots); err != nil {
		return nil, err
	}
	for d := range c.live {
		if _, known := c.shards[d]; !known {
			return nil, fmt.Errorf("store %s: nothing is deleted, since one of the last releases needs snapshot %s: %w", c.Location(), d, ErrNoSnapshot)
		}
	}
	return snapshots, nil
}

// whole returns an error if a folder is no store, or has not the shards that releases need:
// it may be one where nothing is mounted.
func (c *collection) whole(ctx context.Context) error {
	there := map[manifest.Digest]bool{}
	for o, err := range c.bucket.List(ctx, shardsDir+"/") {
		if err != nil {
			return err
		}
		if d, ok := digestOf(o.Key, shardsDir, ".shard"); ok {
			there[d] = true
		}
	}
	if dir := c.bucket.Dir(); dir != "" && !c.Unreleased {
		if _, err := os.Stat(filepath.Join(dir, shardsDir)); errors.Is(err, fs.ErrNotExist) && len(c.published)+len(c.live) == 0 {
			return fmt.Errorf("store %s: the folder has no %s, no snapshot and no release: %w", c.Location(), shardsDir, ErrNothingLive)
		}
	}
	for d := range c.live {
		for _, sh := range c.shards[d] {
			if !there[sh] {
				return &MissingShardError{Store: c.Location(), Snapshot: d, Shard: sh}
			}
		}
	}
	return nil
}

// sure returns an error unless what is about to be deleted is told by releases and by
// snapshots, or need not be.
func (c *collection) sure(old, unused []manifest.Digest) error {
	switch {
	case c.Unreleased && len(c.live) > 0:
		return fmt.Errorf("store %s: there are releases, so nothing was deleted as if there were none", c.Location())
	case c.Unreleased:
		return nil
	case len(c.live) == 0 && len(old) > 0:
		return fmt.Errorf("store %s: there is no release, and snapshots would go (%d, %s first): %w", c.Location(), len(old), old[0].Short(), ErrNothingLive)
	case len(c.published) == 0 && len(unused) > 0:
		return fmt.Errorf("store %s: there is no snapshot, and shards would go (%d): %w", c.Location(), len(unused), ErrNothingLive)
	}
	return nil
}

// look returns everything that someone relies on, or did since this Collect began: a
// store that shows less than before is not trusted.
func (c *collection) look(ctx context.Context) (map[manifest.Digest]bool, error) {
	needed, err := c.intended(ctx)
	if err != nil {
		return nil, err
	}
	if c.published != nil {
		if err := c.readBuilds(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.readLive(ctx); err != nil {
		return nil, err
	}
	for d := range c.live {
		needed[d] = true
	}
	if c.published == nil {
		return needed, nil // one snapshot is removed, whatever others have
	}
	for d := range c.building.needed {
		needed[d] = true
	}
	snapshots, err := c.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range snapshots {
		if date, known := c.published[p.Digest]; !known || !date.Equal(p.Time) {
			needed[p.Digest] = true // it was published again, so it is not old
		}
	}
	if err := c.readManifests(ctx, snapshots); err != nil {
		return nil, err
	}
	for d := range c.used() {
		needed[d] = true
	}
	return needed, nil
}

// readLive adds what is live now to what was.
func (c *collection) readLive(ctx context.Context) error {
	if c.Live == nil {
		return nil
	}
	live, err := c.Live(ctx)
	if err != nil {
		return err
	}
	for _, d := range live {
		c.live[d] = true
	}
	return nil
}

// readManifests reads the manifests that are not known.
func (c *collection) readManifests(ctx context.Context, snapshots []Published) error {
	var list []manifest.Digest
	for _, p := range snapshots {
		if _, known := c.shards[p.Digest]; !known && !(c.DryRun && slices.Contains(c.done.Snapshots, p.Digest)) {
			list = append(list, p.Digest)
		}
	}
	manifests := make([]*manifest.Manifest, len(list))
	err := each(list, func(i int, d manifest.Digest) error {
		m, err := c.Manifest(ctx, d)
		if errors.Is(err, ErrNoSnapshot) {
			return nil // another Collect, or Remove
		}
		manifests[i] = m
		return err
	})
	for i, d := range list {
		if m := manifests[i]; m != nil {
			c.shards[d] = m.ShardDigests()
		}
	}
	return err
}

// used returns the shards that a snapshot has, of those that are not dropped.
func (c *collection) used() map[manifest.Digest]bool {
	used := map[manifest.Digest]bool{}
	for _, shards := range c.shards {
		for _, d := range shards {
			used[d] = true
		}
	}
	return used
}

// intended returns what the intents of writers name.
func (c *collection) intended(ctx context.Context) (map[manifest.Digest]bool, error) {
	needed := map[manifest.Digest]bool{}
	for o, err := range c.bucket.List(ctx, intentsDir+"/") {
		if err != nil {
			return nil, err
		}
		if c.leftovers[o.Key] {
			continue // of a dry run
		}
		data, err := c.bucket.Read(ctx, o.Key)
		if errors.Is(err, objects.ErrNotFound) {
			continue // he is done, and what he wrote is read after this
		}
		if err != nil {
			return nil, err
		}
		var in intent
		if err := json.Unmarshal(data, &in); err != nil {
			return nil, fmt.Errorf("intent %s: %w", o.Key, err)
		}
		for _, d := range in.Digests {
			needed[d] = true
		}
	}
	return needed, nil
}
