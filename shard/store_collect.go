package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// What is needed and what may be deleted is agreed on by two kinds of objects. A writer
// writes an intent, which names what it is about to rely on, before it looks whether
// that is there. Collect writes a mark on what it is about to delete, before it looks
// whether anyone needs it. So either the writer sees the mark, and waits until it is
// gone before it looks, or Collect sees the intent, and spares what it names. Either
// sees both in a store that shows an object to all once it is written, as folders, S3,
// Google Cloud Storage and Azure do. All times are the store's own.
const (
	intentsDir = "intents"
	doomedDir  = "doomed"

	// An intent that was not renewed for intentLife is that of a writer that died.
	intentLife  = time.Hour
	intentRenew = intentLife / 6
	// A mark older than markLife is that of a Collect that died: one that lives
	// deletes within markWork of marking, or gives up.
	markLife = 3 * time.Minute
	markWork = time.Minute
	// markPoll is how often a writer looks whether a mark is gone.
	markPoll = 100 * time.Millisecond
)

// intent is what a writer relies on.
type intent struct {
	Digests []Digest `json:"digests"`
}

func markKey(d Digest) string { return doomedDir + "/" + string(d) }

// Protect keeps shards and snapshots from being collected until release is called, or
// this process dies. It waits for a [Store.Collect] that is about to delete one of
// them; what that has deleted is then found not to be there. Who publishes or releases
// a snapshot protects it before he looks whether it is there, until the snapshot, or
// the release, is written.
func (s *Store) Protect(ctx context.Context, digests ...Digest) (release func() error, err error) {
	data, err := json.Marshal(intent{digests})
	if err != nil {
		return nil, fmt.Errorf("protect: %w", err)
	}
	key := fmt.Sprintf("%s/%016x%016x.json", intentsDir, rand.Uint64(), rand.Uint64())
	if err := s.bucket.Create(ctx, key, data); err != nil {
		return nil, fmt.Errorf("protect: %w", err)
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewed sync.WaitGroup
	renewed.Go(func() {
		ticker := time.NewTicker(intentRenew)
		defer ticker.Stop()
		for {
			select {
			case <-renewing.Done():
				return
			case <-ticker.C:
				_ = s.bucket.Write(renewing, key, data) // the next one is in time too
			}
		}
	})
	release = sync.OnceValue(func() error {
		stop()
		renewed.Wait()
		if err := s.bucket.Delete(context.WithoutCancel(ctx), key); err != nil && !errors.Is(err, objects.ErrNotFound) {
			return fmt.Errorf("end of protection: %w", err)
		}
		return nil
	})
	if err := s.awaitUnmarked(ctx, key, digests); err != nil {
		return nil, errors.Join(fmt.Errorf("protect: %w", err), release())
	}
	return release, nil
}

// awaitUnmarked waits until none of the digests is marked. It removes marks that are
// older than a Collect that lives would leave them.
func (s *Store) awaitUnmarked(ctx context.Context, intentKey string, digests []Digest) error {
	wanted := map[string]bool{}
	for _, d := range digests {
		wanted[markKey(d)] = true
	}
	for {
		var marks []objects.Object
		for o, err := range s.bucket.List(ctx, doomedDir+"/") {
			if err != nil {
				return err
			}
			if wanted[o.Key] {
				marks = append(marks, o)
			}
		}
		if len(marks) == 0 {
			return nil
		}
		now, err := s.now(ctx, intentKey)
		if err != nil {
			return err
		}
		for _, o := range marks {
			if now.Sub(o.Time) < markLife {
				continue
			}
			if err := s.bucket.Delete(ctx, o.Key); err != nil && !errors.Is(err, objects.ErrNotFound) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(markPoll):
		}
	}
}

// now returns the time of the store's clock, which it reads off an object that the
// caller has written, and writes again.
func (s *Store) now(ctx context.Context, key string) (time.Time, error) {
	data, err := s.bucket.Read(ctx, key)
	if err != nil {
		return time.Time{}, err
	}
	if err := s.bucket.Write(ctx, key, data); err != nil {
		return time.Time{}, err
	}
	o, err := s.bucket.Stat(ctx, key)
	return o.Time, err
}

// CollectOptions say what [Store.Collect] keeps.
type CollectOptions struct {
	// Live returns the snapshots that are kept whatever their age: those that a
	// release needs. It is called again after what is to go is marked, and must then
	// read the store anew.
	Live func(context.Context) ([]Digest, error)
	// Keep is how many of the newest snapshots are kept.
	Keep int
	// KeepFor is how long a snapshot is kept since it was last published.
	KeepFor time.Duration
	// Grace is how long a shard that no snapshot has, or a temporary file of a folder, is
	// kept. Shards that are being imported and files that are being written are kept in
	// any case.
	Grace time.Duration
	// DryRun reports what would go, and deletes nothing.
	DryRun bool
}

// Collected is what [Store.Collect] deleted.
type Collected struct {
	Snapshots []Digest
	Shards    []Digest
	Bytes     int64    // of the shards
	Leftovers []string // names of objects, files and folders of writers that died
}

// Collect deletes the snapshots that nobody needs, the shards that no snapshot has, and
// what writers that died left behind. It never deletes what a live snapshot, or one
// that is being imported or protected meanwhile, has. It deletes no shard if a manifest
// cannot be read. Several may run at a time.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (*Collected, error) {
	c := &collection{Store: s, CollectOptions: o, done: &Collected{}}
	if err := c.run(ctx); err != nil {
		return c.done, fmt.Errorf("collect: %w", err)
	}
	return c.done, nil
}

// Remove deletes one snapshot; its shards are left to [Store.Collect]. It refuses one
// that live says is needed, or that is protected.
func (s *Store) Remove(ctx context.Context, d Digest, live func(context.Context) ([]Digest, error)) error {
	c := &collection{Store: s, CollectOptions: CollectOptions{Live: live}, done: &Collected{}}
	if _, err := s.Manifest(ctx, d); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if err := c.drop(ctx, []Digest{d}, manifestKey, &c.done.Snapshots); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if len(c.done.Snapshots) == 0 {
		return fmt.Errorf("remove snapshot %s: a release or a writer needs it", d.Short())
	}
	return nil
}

// collection is a Collect in progress.
type collection struct {
	*Store
	CollectOptions
	done *Collected
}

func (c *collection) run(ctx context.Context) error {
	key := fmt.Sprintf("%s/collect-%016x.json", intentsDir, rand.Uint64())
	if err := c.bucket.Create(ctx, key, []byte(`{"digests":[]}`)); err != nil {
		return err
	}
	defer func() { _ = c.bucket.Delete(context.WithoutCancel(ctx), key) }() // it would be a leftover
	now, err := c.now(ctx, key)
	if err != nil {
		return err
	}
	snapshots, err := c.Snapshots(ctx)
	if err != nil {
		return err
	}
	var old []Digest
	for i, p := range snapshots {
		if i >= c.Keep && now.Sub(p.Time) >= c.KeepFor {
			old = append(old, p.Digest)
		}
	}
	if err := c.drop(ctx, old, manifestKey, &c.done.Snapshots); err != nil {
		return err
	}
	if err := c.collectShards(ctx, now); err != nil {
		return err
	}
	if err := c.collectObjects(ctx, key, now); err != nil {
		return err
	}
	return c.collectFiles(ctx, now)
}

// collectShards deletes the shards that no snapshot has.
func (c *collection) collectShards(ctx context.Context, now time.Time) error {
	needed, err := c.referenced(ctx)
	if err != nil {
		return err
	}
	var unused []Digest
	sizes := map[Digest]int64{}
	for o, err := range c.bucket.List(ctx, shardsDir+"/") {
		if err != nil {
			return err
		}
		if d, ok := digestOf(o.Key, shardsDir, ".shard"); ok && !needed[d] && now.Sub(o.Time) >= c.Grace {
			unused = append(unused, d)
			sizes[d] = o.Size
		}
	}
	err = c.drop(ctx, unused, shardKey, &c.done.Shards)
	for _, d := range c.done.Shards {
		c.done.Bytes += sizes[d]
	}
	return err
}

// referenced returns the shards that a snapshot has, of those that are not to go.
func (c *collection) referenced(ctx context.Context) (map[Digest]bool, error) {
	snapshots, err := c.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	needed := map[Digest]bool{}
	for _, p := range snapshots {
		if c.DryRun && slices.Contains(c.done.Snapshots, p.Digest) {
			continue
		}
		m, err := c.Manifest(ctx, p.Digest)
		if errors.Is(err, ErrNoSnapshot) {
			continue // another Collect, or Remove
		}
		if err != nil {
			return nil, err
		}
		for _, d := range m.shardDigests() {
			needed[d] = true
		}
	}
	return needed, nil
}

// batch is how many objects are marked at a time.
const batch = 64

// drop deletes objects that nobody needs, and adds their digests to dropped.
func (c *collection) drop(ctx context.Context, list []Digest, key func(Digest) string, dropped *[]Digest) error {
	for part := range slices.Chunk(list, batch) {
		if err := c.dropBatch(ctx, part, key, dropped); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) dropBatch(ctx context.Context, list []Digest, key func(Digest) string, dropped *[]Digest) (err error) {
	start := time.Now()
	if !c.DryRun {
		defer func() {
			for _, d := range list {
				if delErr := c.bucket.Delete(context.WithoutCancel(ctx), markKey(d)); !errors.Is(delErr, objects.ErrNotFound) {
					err = errors.Join(err, delErr)
				}
			}
		}()
		for _, d := range list {
			if err := c.bucket.Write(ctx, markKey(d), nil); err != nil {
				return err
			}
		}
	}
	needed, err := c.needed(ctx)
	if err != nil {
		return err
	}
	working, cancel := context.WithDeadline(ctx, start.Add(markWork))
	defer cancel()
	for _, d := range list {
		if needed[d] {
			continue
		}
		if !c.DryRun {
			if err := c.bucket.Delete(working, key(d)); err != nil && !errors.Is(err, objects.ErrNotFound) {
				return err
			}
		}
		*dropped = append(*dropped, d)
	}
	return nil
}

// needed returns everything that someone relies on: intents first, since a writer
// removes his once what he wrote shows it.
func (c *collection) needed(ctx context.Context) (map[Digest]bool, error) {
	needed := map[Digest]bool{}
	for o, err := range c.bucket.List(ctx, intentsDir+"/") {
		if err != nil {
			return nil, err
		}
		data, err := c.bucket.Read(ctx, o.Key)
		if errors.Is(err, objects.ErrNotFound) {
			continue // he is done, and what he wrote is read below
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
	if c.Live != nil {
		live, err := c.Live(ctx)
		if err != nil {
			return nil, err
		}
		for _, d := range live {
			needed[d] = true
		}
	}
	shards, err := c.referenced(ctx)
	if err != nil {
		return nil, err
	}
	for d := range shards {
		needed[d] = true
	}
	return needed, nil
}

// collectObjects deletes the intents and marks of processes that died.
func (c *collection) collectObjects(ctx context.Context, own string, now time.Time) error {
	for _, left := range []struct {
		dir  string
		life time.Duration
	}{{intentsDir, intentLife}, {doomedDir, markLife}} {
		for o, err := range c.bucket.List(ctx, left.dir+"/") {
			if err != nil {
				return err
			}
			if o.Key == own || now.Sub(o.Time) < left.life {
				continue
			}
			if !c.DryRun {
				if err := c.bucket.Delete(ctx, o.Key); err != nil && !errors.Is(err, objects.ErrNotFound) {
					return err
				}
			}
			c.done.Leftovers = append(c.done.Leftovers, o.Key)
		}
	}
	return nil
}

// temporaryLife is how old a file of the cache must be to be one of a process that died:
// nobody writes one for so long.
const temporaryLife = 24 * time.Hour

// collectFiles deletes what died with a process on this machine: the folders of builds,
// partial downloads, and, in a store that is a folder, the temporary files of objects
// that are older than the grace and that nobody is writing.
func (c *collection) collectFiles(ctx context.Context, now time.Time) error {
	staging := filepath.Join(c.local, stagingDir)
	builds, err := os.ReadDir(staging)
	if _, linkErr := os.Lstat(staging); errors.Is(linkErr, os.ErrNotExist) {
		err = nil // no build has been here
	}
	if err != nil {
		return err
	}
	for _, e := range builds {
		if !strings.HasPrefix(e.Name(), "build-") {
			continue
		}
		dir := filepath.Join(staging, e.Name())
		dead, err := c.removeStage(dir)
		if err != nil {
			return err
		}
		if dead {
			c.done.Leftovers = append(c.done.Leftovers, dir)
		}
	}
	return objects.Walk(ctx, c.local, func(path string) bool { return path != staging }, func(path string, info os.FileInfo) error {
		temporary, life := objects.IsTemporary(info.Name()), c.Grace
		if c.cache != nil {
			temporary = temporary || filepath.Dir(path) == filepath.Join(c.local, partialDir)
			life = temporaryLife
		}
		if !temporary || now.Sub(info.ModTime()) < life {
			return nil
		}
		dead, err := objects.RemoveTemporary(path, c.DryRun)
		if dead {
			c.done.Leftovers = append(c.done.Leftovers, path)
		}
		return err
	})
}
