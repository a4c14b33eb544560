package shard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Store is where snapshots are, in a folder or in a bucket of a cloud (see package
// objects):
//
//	shards/DIGEST.shard       shard files, named by the SHA-256 of their bytes
//	snapshots/DIGEST.json     manifests, named by the SHA-256 of theirs
//	releases/                 the log of what serves
//	gates/DIGEST/             what was found when a snapshot was gated
//	queries/                  recorded queries, which servers write
//	intents/, doomed/         what writers and [Store.Collect] agree by
//	staging/                  what builds are writing, in a folder only
//
// An object appears whole or not at all, shards and manifests never change, and a
// manifest is written after the shards it names. A Store may be used by any number of
// goroutines and processes. Shards are mapped where they are in a folder; those of a
// bucket are downloaded to a local cache first.
type Store struct {
	bucket *objects.Bucket
	cache  *cache // nil in a folder
	local  string // the folder for files of this machine
	o      StoreOptions
}

// StoreOptions say how a store is used. A zero field means its default.
type StoreOptions struct {
	// Cache is the folder where shards of a bucket are kept on this machine, and
	// where builds for it work. Default: tandem in the user's cache folder. A store
	// that is a folder has no use for it.
	Cache string
	// CacheBytes bounds the shards in the cache, in bytes: those that were not used for
	// longest go first, but none that is being opened. Default: no bound.
	CacheBytes int64
	// Timeout is how long a store that is no folder may be silent before a request is made
	// again; it fails after four times that (see package objects). Default:
	// [objects.DefaultTimeout].
	Timeout time.Duration
	// Progress is told of the shards that are uploaded and downloaded. Calls come from
	// several goroutines. Default: nobody is told.
	Progress func(Transfer)
}

// Transfer is the progress of one shard between this machine and a bucket.
type Transfer struct {
	Digest Digest
	Upload bool
	Done   int64 // bytes
	Size   int64 // bytes
}

// transfers is how many shards are uploaded or downloaded at a time.
const transfers = 4

const (
	shardsDir    = "shards"
	snapshotsDir = "snapshots"
	stagingDir   = "staging"
)

// ErrNoSnapshot is the class of every error that says that a store does not have
// the snapshot asked for.
var ErrNoSnapshot = errors.New("no such snapshot")

// OpenStore opens the store at a location that [objects.Open] takes. A folder must
// exist.
func OpenStore(ctx context.Context, location string, o StoreOptions) (*Store, error) {
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
func NewStore(bucket *objects.Bucket, o StoreOptions) (*Store, error) {
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
func CreateStore(ctx context.Context, location string, o StoreOptions) (*Store, error) {
	dir, isDir, err := objects.Folder(location)
	if err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	if isDir {
		for _, sub := range []string{"", shardsDir, snapshotsDir, stagingDir} {
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

func shardKey(d Digest) string    { return shardsDir + "/" + string(d) + ".shard" }
func manifestKey(d Digest) string { return snapshotsDir + "/" + string(d) + ".json" }

// ShardPath returns where a shard file is on this machine, if it is there: in the
// store's folder, or in the cache.
func (s *Store) ShardPath(d Digest) string {
	if s.cache != nil {
		return s.cache.path(d)
	}
	return filepath.Join(s.local, shardsDir, string(d)+".shard")
}

// ManifestPath returns where the manifest of a store in a folder is.
func (s *Store) ManifestPath(d Digest) string {
	return filepath.Join(s.bucket.Dir(), snapshotsDir, string(d)+".json")
}

// AddShard takes a durable shard file that nothing else uses into the store, and
// describes it. It moves the file where it can. A shard that the store has is not
// written again.
func (s *Store) AddShard(ctx context.Context, path string) (ShardManifest, error) {
	f, err := sections.Open(path)
	if err != nil {
		return ShardManifest{}, err
	}
	m := ShardManifest{Size: f.Size(), Checksum: checksumText(f)}
	if err := f.Close(); err != nil {
		return m, err
	}
	if m.Digest, _, err = sumFile(path); err != nil {
		return m, fmt.Errorf("add shard: %w", err)
	}
	return m, s.takeShard(ctx, path, m.Digest, m.Size)
}

// takeShard moves or uploads a shard file, unless the store has it.
func (s *Store) takeShard(ctx context.Context, path string, d Digest, size int64) error {
	there, err := s.hasShard(ctx, d, size)
	if err != nil {
		return fmt.Errorf("add shard: %w", err)
	}
	if dir := s.bucket.Dir(); dir != "" && !there {
		if err := os.MkdirAll(filepath.Join(dir, shardsDir), 0o755); err != nil {
			return fmt.Errorf("add shard: %w", err)
		}
		if err := os.Rename(path, s.ShardPath(d)); err == nil {
			return sections.SyncDir(filepath.Join(dir, shardsDir))
		} else if !errors.Is(err, unix.EXDEV) {
			return fmt.Errorf("add shard: %w", err)
		}
	}
	if !there {
		if err := s.upload(ctx, path, d, size); err != nil {
			return fmt.Errorf("add shard: %w", err)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("add shard: %w", err)
	}
	return nil
}

// hasShard reports whether the store has a shard, whole.
func (s *Store) hasShard(ctx context.Context, d Digest, size int64) (bool, error) {
	o, err := s.bucket.Stat(ctx, shardKey(d))
	if errors.Is(err, objects.ErrNotFound) {
		return false, nil
	}
	return err == nil && o.Size == size, err
}

// CheckShards returns an error unless the store has every shard of a snapshot, of the
// size that the manifest says. It reads none of them.
func (s *Store) CheckShards(ctx context.Context, m *Manifest) error {
	g, looking := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	for _, kind := range []Kind{Apps, Users} {
		for number, sm := range m.Tower(kind).Shards {
			g.Go(func() error {
				o, err := s.bucket.Stat(looking, shardKey(sm.Digest))
				switch {
				case errors.Is(err, objects.ErrNotFound):
					return fmt.Errorf("shard %s (%s) is not in the store", shardName(kind, number), shardKey(sm.Digest))
				case err != nil:
					return fmt.Errorf("shard %s: %w", shardName(kind, number), err)
				case o.Size != sm.Size:
					return fmt.Errorf("shard %s (%s) has %d bytes, the manifest says %d: %w", shardName(kind, number), shardKey(sm.Digest), o.Size, sm.Size, sections.ErrCorrupt)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// upload copies a shard file into the store, and makes sure on the way that it is the
// one it is named for.
func (s *Store) upload(ctx context.Context, path string, d Digest, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	r := &transferReader{r: io.TeeReader(f, h), transfer: Transfer{Digest: d, Upload: true, Size: size}, report: s.o.Progress}
	// What is wrong must be known before the last byte is sent.
	r.end = func() error {
		if sum := Digest(hex.EncodeToString(h.Sum(nil))); sum != d {
			return fmt.Errorf("upload %s: its SHA-256 is %s, not %s: %w", path, sum, d, sections.ErrCorrupt)
		}
		return nil
	}
	return s.bucket.Upload(ctx, shardKey(d), r)
}

// transferReader reports what is read.
type transferReader struct {
	r        io.Reader
	transfer Transfer
	report   func(Transfer)
	end      func() error // called at the end of r, if not nil
}

func (t *transferReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.transfer.Done += int64(n)
	if t.report != nil && n > 0 {
		t.report(t.transfer)
	}
	if errors.Is(err, io.EOF) && t.end != nil {
		if endErr := t.end(); endErr != nil {
			return n, endErr
		}
	}
	return n, err
}

// Import takes a snapshot that a build staged in another store into this one: first the
// shards that it does not have yet, several at a time, then the manifest. The shard
// files are moved where that is possible. What an interrupted Import has taken is not
// taken again. Nothing of it is collected while it runs.
func (s *Store) Import(ctx context.Context, from *Store, m *Manifest) (Digest, error) {
	return s.take(ctx, from, m, s.takeShard)
}

// Copy does what [Store.Import] does for a snapshot that another store has, and leaves
// it there.
func (s *Store) Copy(ctx context.Context, from *Store, d Digest) error {
	m, err := from.Manifest(ctx, d)
	if err != nil {
		return err
	}
	_, err = s.take(ctx, from, m, s.upload)
	return err
}

func (s *Store) take(ctx context.Context, from *Store, m *Manifest, shard func(context.Context, string, Digest, int64) error) (_ Digest, err error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	digests := append(m.shardDigests(), Sum(data))
	release, err := s.Protect(ctx, digests...)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	g, taking := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	taken := map[Digest]bool{}
	for _, kind := range []Kind{Apps, Users} {
		for _, sh := range m.Tower(kind).Shards {
			if taken[sh.Digest] {
				continue // two shards without a row
			}
			taken[sh.Digest] = true
			g.Go(func() error {
				there, err := s.hasShard(taking, sh.Digest, sh.Size)
				if err != nil || there {
					return err
				}
				path, done, err := from.fetch(taking, sh)
				if err != nil {
					return err
				}
				defer done()
				return shard(taking, path, sh.Digest, sh.Size)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return s.Publish(ctx, m)
}

// shardDigests lists the shards of both towers.
func (m *Manifest) shardDigests() []Digest {
	var list []Digest
	for _, kind := range []Kind{Apps, Users} {
		for _, sh := range m.Tower(kind).Shards {
			list = append(list, sh.Digest)
		}
	}
	return list
}

func checksumText(f *sections.File) string { return fmt.Sprintf("%016x", f.Checksum()) }

// sumFile returns the digest and the size of a file.
func sumFile(path string) (Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return SumReader(f)
}

// SumFile returns the digest and the size of an input file.
func SumFile(path string) (Digest, int64, error) {
	d, n, err := sumFile(path)
	if err != nil {
		return "", 0, fmt.Errorf("digest: %w", err)
	}
	return d, n, nil
}

// Publish makes a snapshot visible: it writes the manifest, whose shards must be
// in the store. Publishing a snapshot again makes it the newest. Where [Store.Collect]
// may run, [Store.Import] is what to use.
func (s *Store) Publish(ctx context.Context, m *Manifest) (Digest, error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	for _, kind := range []Kind{Apps, Users} {
		for _, sh := range m.Tower(kind).Shards {
			o, err := s.bucket.Stat(ctx, shardKey(sh.Digest))
			if err != nil {
				return "", fmt.Errorf("publish: %w", err)
			}
			if o.Size != sh.Size {
				return "", fmt.Errorf("publish: shard %s has %d bytes, the manifest says %d: %w",
					sh.Digest, o.Size, sh.Size, sections.ErrCorrupt)
			}
		}
	}
	d := Sum(data)
	if err := s.bucket.Write(ctx, manifestKey(d), data); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	return d, nil
}

// Manifest reads the manifest of a snapshot and checks it against its name.
func (s *Store) Manifest(ctx context.Context, d Digest) (*Manifest, error) {
	data, err := s.bucket.Read(ctx, manifestKey(d))
	if errors.Is(err, objects.ErrNotFound) {
		return nil, fmt.Errorf("store %s: snapshot %s: %w", s.Location(), d, ErrNoSnapshot)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	// The version comes first: a newer manifest should say so rather than seem
	// damaged.
	name := strings.TrimSuffix(s.Location(), "/") + "/" + manifestKey(d)
	m, err := DecodeManifest(data)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", name, err)
	}
	if sum := Sum(data); sum != d {
		return nil, fmt.Errorf("read manifest %s: its digest is %s, not its name: %w", name, sum, sections.ErrCorrupt)
	}
	return m, nil
}

// Published is a snapshot in a store.
type Published struct {
	Digest Digest
	Time   time.Time // when it was last published
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
func digestOf(key, dir, suffix string) (Digest, bool) {
	name, isIn := strings.CutPrefix(key, dir+"/")
	name, ends := strings.CutSuffix(name, suffix)
	return Digest(name), isIn && ends && Digest(name).Valid()
}

// Resolve returns the digest of the snapshot that ref means: a digest, a unique
// beginning of one, or, when empty, the newest snapshot. An error is of class
// [ErrNoSnapshot] when there is none.
func (s *Store) Resolve(ctx context.Context, ref string) (Digest, error) {
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
	var found []Digest
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
	return "", fmt.Errorf("store %s: snapshot %q means any of %d snapshots; give more digits: %w", s.Location(), ref, len(found), ErrNoSnapshot)
}
