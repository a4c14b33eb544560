package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// A build in steps, which many machines take part in, has a folder of its own in the store,
// builds/ID/, from its plan until it is committed. The shards that its records name are kept by
// [Store.Collect] as those of a snapshot are, as long as the build is not abandoned. A writer
// goes from an intent to a record to a manifest, and Collect reads in that order.
const (
	buildsDir = "builds"
	// BuildPlan, BuildCommitted and BuildRecords are within the folder of a build: its plan,
	// what says that it is done, and the folder of the records of its shards.
	BuildPlan      = "plan.json"
	BuildCommitted = "committed.json"
	BuildRecords   = "shards/"
)

// BuildLife is how long [Store.Collect] leaves a build alone in whose folder nothing was
// written.
const BuildLife = 7 * 24 * time.Hour

// buildLeftover is how old what is left of a committed build must be to be of a step that
// died, or came too late.
const buildLeftover = time.Hour

// BuildPrefix is what the names of the objects of a build begin with.
func BuildPrefix(id manifest.Digest) string { return buildsDir + "/" + string(id) + "/" }

// Builds lists the builds whose plan is there.
func (s *Store) Builds(ctx context.Context) ([]manifest.Digest, error) {
	var list []manifest.Digest
	for o, err := range s.bucket.List(ctx, buildsDir+"/") {
		if err != nil {
			return nil, fmt.Errorf("list builds: %w", err)
		}
		if d, ok := digestOf(o.Key, buildsDir, "/"+BuildPlan); ok {
			list = append(list, d)
		}
	}
	return list, nil
}

// AddBuilt takes a durable shard file of a build in steps into the store, as [Store.AddShard]
// does, and calls record, which makes the build's record name it. Nothing of it is collected
// meanwhile.
func (s *Store) AddBuilt(ctx context.Context, path string, record func(manifest.Shard) error) (err error) {
	digest, _, err := sumFile(path)
	if err != nil {
		return fmt.Errorf("add shard: %w", err)
	}
	protection, err := s.Protect(ctx, digest)
	if err != nil {
		return err
	}
	recording := false
	defer func() {
		if recording && err != nil {
			protection.Leave() // the record may appear yet
			return
		}
		err = errors.Join(err, protection.End(ctx))
	}()
	for attempt, wait := 1, uploadWait; ; attempt, wait = attempt+1, 2*wait {
		sm, err := s.AddShard(ctx, path)
		if err == nil {
			recording = true
			return record(sm)
		}
		if ctx.Err() != nil || s.cache == nil || attempt == attempts {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// HasShard reports whether the store has a shard, whole. It reads all of it.
func (s *Store) HasShard(ctx context.Context, sm manifest.Shard) (bool, error) {
	err := s.checkStored(ctx, sm)
	if errors.As(err, new(damageError)) {
		return false, nil
	}
	return err == nil, err
}

// PublishBuilt publishes a snapshot whose shards are in the store. Nothing of it is collected
// meanwhile. That a shard is not there, or is of another size, is an error of class
// [objects.ErrNotFound] or [sections.ErrCorrupt].
func (s *Store) PublishBuilt(ctx context.Context, m *manifest.Manifest) (digest manifest.Digest, err error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	digest = manifest.Sum(data)
	protection, err := s.Protect(ctx, append(m.ShardDigests(), digest)...)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			protection.Leave() // the manifest may appear yet
			return
		}
		err = protection.End(ctx)
	}()
	if err := s.publish(ctx, m, data); err != nil {
		return "", err
	}
	s.bucket.KeepReserve()
	return digest, nil
}

// OpenUnpublished opens a snapshot whose shards a store has and whose manifest it need not
// have, as [Open] does.
func OpenUnpublished(ctx context.Context, store *Store, m *manifest.Manifest) (*Snapshot, error) {
	data, err := m.Encode()
	if err != nil {
		return nil, err
	}
	return openManifest(ctx, store, m, manifest.Sum(data))
}

// building is what a Collect knows of builds in steps.
type building struct {
	last    map[string]time.Time       // by the prefix of the build, when something of it was written last
	done    map[string]bool            // those that are committed
	records map[string]manifest.Digest // by the record's name and date; empty if it names no shard
	needed  map[manifest.Digest]bool   // shards that builds need which are not abandoned
	names   map[string][]objects.Object
}

// buildOf returns the prefix of the build that an object is of.
func buildOf(key string) (prefix, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, buildsDir+"/")
	id, name, found := strings.Cut(rest, "/")
	return BuildPrefix(manifest.Digest(id)), name, ok && found
}

// readBuilds reads which shards builds need. A record that cannot be read is an error: it may
// name anything.
func (c *collection) readBuilds(ctx context.Context) error {
	b := &building{last: map[string]time.Time{}, done: map[string]bool{}, records: map[string]manifest.Digest{}, needed: map[manifest.Digest]bool{}, names: map[string][]objects.Object{}}
	var records []objects.Object
	for o, err := range c.bucket.List(ctx, buildsDir+"/") {
		if err != nil {
			return err
		}
		prefix, name, ok := buildOf(o.Key)
		if !ok {
			continue
		}
		if o.Time.After(b.last[prefix]) || o.Time.Year() <= 1980 { // nobody knows how old that is
			b.last[prefix] = o.Time
		}
		b.done[prefix] = b.done[prefix] || name == BuildCommitted
		b.names[prefix] = append(b.names[prefix], o)
		if strings.HasPrefix(name, BuildRecords) {
			records = append(records, o)
		}
	}
	for _, o := range records {
		version := o.Key + " " + o.Time.String()
		digest, known := c.building.records[version]
		if !known {
			data, err := c.bucket.Read(ctx, o.Key)
			if errors.Is(err, objects.ErrNotFound) {
				continue // its build is committed, and what it wrote is read after this
			}
			if err != nil {
				return err
			}
			var record struct {
				Shard *manifest.Shard `json:"shard"`
			}
			if err := json.Unmarshal(data, &record); err != nil || record.Shard != nil && !record.Shard.Digest.Valid() {
				return fmt.Errorf("nothing is deleted, since it is not known which shard a build needs: record %s: %w", c.name(o.Key), errors.Join(err, sections.ErrCorrupt))
			}
			if record.Shard != nil {
				digest = record.Shard.Digest
			}
		}
		b.records[version] = digest
		if prefix, _, _ := buildOf(o.Key); digest != "" && !c.abandoned(b.last[prefix]) {
			b.needed[digest] = true
		}
	}
	c.building = b
	return nil
}

// abandoned reports whether a build that was last written at a time is.
func (c *collection) abandoned(last time.Time) bool { return c.older(last, BuildLife) }

// collectBuilds deletes what is left of builds that are abandoned or committed.
func (c *collection) collectBuilds(ctx context.Context) error {
	if err := c.readBuilds(ctx); err != nil { // again: one may have gone on
		return err
	}
	for prefix, list := range c.building.names {
		abandoned := c.abandoned(c.building.last[prefix])
		gone := false
		for _, o := range list {
			name := strings.TrimPrefix(o.Key, prefix)
			leftover := c.building.done[prefix] && name != BuildPlan && name != BuildCommitted && c.older(o.Time, buildLeftover)
			if !abandoned && !leftover {
				continue
			}
			gone = true
			if c.DryRun {
				break
			}
			if err := c.deleteIfThere(ctx, o.Key); err != nil {
				return err
			}
		}
		if gone {
			c.done.Leftovers = append(c.done.Leftovers, prefix)
		}
	}
	return nil
}
