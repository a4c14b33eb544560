package snapshots

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Store is where snapshots are, in a folder or in a bucket of a cloud (see package
// objects):
//
//	shards/DIGEST.shard       shard files, named by the SHA-256 of their bytes
//	snapshots/DIGEST.json     manifests, named by the SHA-256 of theirs
//	store.json                the id of the store, which its copies have too
//	releases/                 the log of what serves
//	released                  is there once something was released
//	gates/DIGEST/             what was found when a snapshot was gated
//	queries/                  recorded queries, which servers write
//	outcomes/                 what users did, which servers write
//	builds/ID/                builds in steps, from the plan until they are committed
//	intents/, doomed/         what writers and [Store.Collect] agree by
//	staging/                  what builds are writing, in a folder only
//	.reserve/                 what is given up on a full disk, in a folder only
//
// An object appears whole or not at all, shards and manifests never change, and a
// manifest is written after the shards it names. A Store may be used by any number of
// goroutines and processes. Shards are mapped where they are in a folder; those of a
// bucket are downloaded to a local cache first.
type Store struct {
	bucket *objects.Bucket
	cache  *cache // nil in a folder
	local  string // the folder for files of this machine
	o      Options
}

// Options say how a store is used. A zero field means its default.
type Options struct {
	// Cache is the folder where shards of a bucket are kept on this machine, and
	// where builds for it work. Default: tandem in the user's cache folder. A store
	// that is a folder has no use for it.
	Cache string
	// CacheBytes bounds the shards in the cache, in bytes, with those that are being
	// downloaded, by this process or another one. What was not used for longest goes
	// first, but nothing that a process is opening. It does not bound what is in staging/,
	// nor the space of files that were removed while they were mapped. Default: no bound.
	CacheBytes int64
	// Timeout is how long a store that is no folder may be silent before a request is made
	// again; it fails after four times that (see package objects). Default:
	// [objects.DefaultTimeout].
	Timeout time.Duration
	// Progress is told of the shards that are uploaded, downloaded and checked. Calls come
	// from several goroutines. Default: nobody is told.
	Progress func(Transfer)
	// Waiting is told, now and then, for how long [Store.Protect] has waited and will.
	// Default: nobody is told.
	Waiting func(Marked)
}

const (
	shardsDir    = "shards"
	snapshotsDir = "snapshots"
	stagingDir   = "staging"
)

// ErrNoSnapshot is the class of every error that says that a store does not have
// the snapshot asked for.
var ErrNoSnapshot = errors.New("no such snapshot")

// ErrNoShard is the class of every error that says that a store lacks a shard of a
// snapshot.
var ErrNoShard = errors.New("is not in the store")

// OpenStore opens the store at a location that [objects.Open] takes. A folder must
// exist.
func OpenStore(ctx context.Context, location string, o Options) (*Store, error) {
	bucket, err := objects.Open(ctx, location, objects.WithTimeout(o.Timeout))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s, err := NewStore(bucket, o)
	if err != nil {
		return nil, errors.Join(err, bucket.Close())
	}
	return s, nil
}

// NewStore returns the store in a bucket, which it takes over.
func NewStore(bucket *objects.Bucket, o Options) (*Store, error) {
	s := &Store{bucket: bucket, o: o, local: bucket.Dir()}
	if s.local == "" {
		var err error
		if s.cache, err = openCache(o); err != nil {
			return nil, fmt.Errorf("open store %s: %w", bucket.Location(), err)
		}
		s.local = s.cache.dir
	}
	return s, nil
}

// CreateStore opens the store at a location for writing, and makes sure that it can be
// written. It makes a folder if need be, durably, but no bucket.
func CreateStore(ctx context.Context, location string, o Options) (*Store, error) {
	dir, isDir, err := objects.Folder(location)
	if err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	if isDir {
		for _, sub := range []string{"", shardsDir, snapshotsDir, stagingDir, intentsDir, doomedDir} {
			if err := objects.MakeDir(filepath.Join(dir, sub)); err != nil {
				return nil, fmt.Errorf("create store: %w", err)
			}
		}
	}
	s, err := OpenStore(ctx, location, o)
	if err != nil {
		return nil, err
	}
	if err := s.bucket.CheckWritable(ctx, fmt.Sprintf("%s/try-%016x.json", intentsDir, rand.Uint64())); err != nil {
		return nil, errors.Join(fmt.Errorf("create store: %w", err), s.Close())
	}
	return s, nil
}

// Close frees what the store holds. Snapshots that it opened stay open.
func (s *Store) Close() error { return s.bucket.Close() }

// Objects returns the bucket that the store is in.
func (s *Store) Objects() *objects.Bucket { return s.bucket }

// Location returns where the store is.
func (s *Store) Location() string { return s.bucket.Location() }

func shardKey(d manifest.Digest) string    { return shardsDir + "/" + string(d) + ".shard" }
func manifestKey(d manifest.Digest) string { return snapshotsDir + "/" + string(d) + ".json" }

// ShardPath returns where a shard file is on this machine, if it is there: in the
// store's folder, or in the cache.
func (s *Store) ShardPath(d manifest.Digest) string {
	if s.cache != nil {
		return s.cache.path(d)
	}
	return filepath.Join(s.local, shardsDir, string(d)+".shard")
}

// ManifestPath returns where the manifest of a store in a folder is.
func (s *Store) ManifestPath(d manifest.Digest) string {
	return filepath.Join(s.bucket.Dir(), snapshotsDir, string(d)+".json")
}

// CheckShards returns an error unless the store has every shard of a snapshot, of the
// size that the manifest says. It reads none of them.
func (s *Store) CheckShards(ctx context.Context, m *manifest.Manifest) error {
	g, looking := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for number, sm := range m.Tower(kind).Shards {
			g.Go(func() error {
				o, err := s.bucket.Stat(looking, shardKey(sm.Digest))
				switch {
				case errors.Is(err, objects.ErrNotFound):
					return fmt.Errorf("shard %s (%s) %w", ShardName(kind, number), shardKey(sm.Digest), ErrNoShard)
				case err != nil:
					return fmt.Errorf("shard %s: %w", ShardName(kind, number), err)
				case o.Size != sm.Size:
					return fmt.Errorf("shard %s (%s) has %d bytes, the manifest says %d: %w", ShardName(kind, number), shardKey(sm.Digest), o.Size, sm.Size, sections.ErrCorrupt)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

func checksumText(f *sections.File) string { return fmt.Sprintf("%016x", f.Checksum()) }

// sumFile returns the digest and the size of a file.
func sumFile(path string) (manifest.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return manifest.SumReader(f)
}

// SumFile returns the digest and the size of an input file.
func SumFile(path string) (manifest.Digest, int64, error) {
	d, n, err := sumFile(path)
	if err != nil {
		return "", 0, fmt.Errorf("digest: %w", err)
	}
	return d, n, nil
}

// Publish makes a snapshot visible: it writes the manifest, whose shards must be
// in the store. Publishing a snapshot again makes it the newest. Where [Store.Collect]
// may run, [Store.Import] is what to use.
func (s *Store) Publish(ctx context.Context, m *manifest.Manifest) (manifest.Digest, error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	return manifest.Sum(data), s.publish(ctx, m, data)
}

// publish writes the bytes of a manifest.
func (s *Store) publish(ctx context.Context, m *manifest.Manifest, data []byte) error {
	for _, sm := range m.Shards() {
		if err := s.checkSize(ctx, sm); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if dir := s.bucket.Dir(); dir != "" {
		// Who placed a shard that was there already may not have lived to do this.
		if err := sections.SyncDir(filepath.Join(dir, shardsDir)); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if err := s.bucket.Identify(ctx); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if err := s.bucket.Write(ctx, manifestKey(manifest.Sum(data)), data); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// checkSize returns an error unless the store has a shard, of the right size.
func (s *Store) checkSize(ctx context.Context, sm manifest.Shard) error {
	o, err := s.bucket.Stat(ctx, shardKey(sm.Digest))
	if err == nil && o.Size != sm.Size {
		err = fmt.Errorf("%s has %d bytes, the manifest says %d: %w", s.name(shardKey(sm.Digest)), o.Size, sm.Size, sections.ErrCorrupt)
	}
	return err
}

// name names an object for people.
func (s *Store) name(key string) string { return strings.TrimSuffix(s.Location(), "/") + "/" + key }

// Manifest reads the manifest of a snapshot and checks it against its name.
func (s *Store) Manifest(ctx context.Context, d manifest.Digest) (*manifest.Manifest, error) {
	m, _, err := s.manifest(ctx, d)
	return m, err
}

// ManifestBytes is Manifest that also returns the bytes, whose SHA-256 is the digest.
func (s *Store) ManifestBytes(ctx context.Context, d manifest.Digest) (*manifest.Manifest, []byte, error) {
	return s.manifest(ctx, d)
}

// manifest returns a manifest and its bytes.
func (s *Store) manifest(ctx context.Context, d manifest.Digest) (*manifest.Manifest, []byte, error) {
	data, err := s.bucket.Read(ctx, manifestKey(d))
	if errors.Is(err, objects.ErrNotFound) {
		return nil, nil, fmt.Errorf("store %s: snapshot %s: %w", s.Location(), d, ErrNoSnapshot)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := manifest.Decode(data)
	if sum := manifest.Sum(data); sum != d {
		damage := fmt.Errorf("its digest is %s, not its name: %w", sum, sections.ErrCorrupt)
		if err != nil {
			damage = fmt.Errorf("%w; %w", damage, err)
		}
		err = damage
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest %s: %w", s.name(manifestKey(d)), err)
	}
	return m, data, nil
}

// Published is a snapshot in a store.
type Published struct {
	Digest manifest.Digest
	Time   time.Time // when it was last published
}

// Published returns when a snapshot was last published, by the store's clock.
func (s *Store) Published(ctx context.Context, d manifest.Digest) (time.Time, error) {
	o, err := s.bucket.Stat(ctx, manifestKey(d))
	if err != nil {
		return time.Time{}, fmt.Errorf("look up manifest: %w", err)
	}
	return o.Time, nil
}

// Snapshots lists the snapshots, newest first.
func (s *Store) Snapshots(ctx context.Context) ([]Published, error) {
	var list []Published
	for o, err := range s.bucket.List(ctx, snapshotsDir+"/") {
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		if d, ok := digestOf(o.Key, snapshotsDir, ".json"); ok {
			list = append(list, Published{d, o.Time})
		}
	}
	slices.SortFunc(list, func(a, b Published) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Digest, b.Digest))
	})
	return list, nil
}

// digestOf returns the digest in an object's name.
func digestOf(key, dir, suffix string) (manifest.Digest, bool) {
	name, isIn := strings.CutPrefix(key, dir+"/")
	name, ends := strings.CutSuffix(name, suffix)
	return manifest.Digest(name), isIn && ends && manifest.Digest(name).Valid()
}

// Resolve returns the digest of the snapshot that ref means: a digest, a unique
// beginning of one, or, when empty, the newest snapshot. An error is of class
// [ErrNoSnapshot] when there is none.
func (s *Store) Resolve(ctx context.Context, ref string) (manifest.Digest, error) {
	list, err := s.Snapshots(ctx)
	if err != nil {
		return "", err
	}
	if ref == "" {
		if len(list) == 0 {
			return "", fmt.Errorf("store %s has no snapshot: %w", s.Location(), ErrNoSnapshot)
		}
		return list[0].Digest, nil
	}
	var found []manifest.Digest
	for _, p := range list {
		if strings.HasPrefix(string(p.Digest), ref) {
			found = append(found, p.Digest)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("store %s: snapshot %q: %w", s.Location(), ref, ErrNoSnapshot)
	case 1:
		return found[0], nil
	}
	return "", &AmbiguousError{Store: s.Location(), Ref: ref, Found: len(found)}
}

// AmbiguousError says that a text is the beginning of several digests. It is of class
// [ErrNoSnapshot].
type AmbiguousError struct {
	Store string // its location
	Ref   string
	Found int
}

// Error implements [error].
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("store %s: snapshot %q means any of %d snapshots; give more digits: %v", e.Store, e.Ref, e.Found, ErrNoSnapshot)
}

// Unwrap returns [ErrNoSnapshot].
func (e *AmbiguousError) Unwrap() error { return ErrNoSnapshot }
