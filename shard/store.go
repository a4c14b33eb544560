package shard

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index/sections"
)

// Store is a folder of snapshots:
//
//	shards/DIGEST.shard       shard files, named by the SHA-256 of their bytes
//	snapshots/DIGEST.json     manifests, named by the SHA-256 of theirs
//	staging/                  what builds are writing; nothing reads it
//
// An object appears whole or not at all, never changes, and a manifest is written
// after the shards it names. A Store may be used by any number of goroutines and
// processes.
type Store struct {
	dir string
}

const (
	shardsDir    = "shards"
	snapshotsDir = "snapshots"
	stagingDir   = "staging"
)

// ErrNoSnapshot is the class of every error that says that a store does not have
// the snapshot asked for.
var ErrNoSnapshot = errors.New("no such snapshot")

// OpenStore opens the store in a folder that exists.
func OpenStore(dir string) (*Store, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open store %s: not a folder", dir)
	}
	return &Store{dir: dir}, nil
}

// CreateStore opens the store in a folder, which it makes if need be.
func CreateStore(dir string) (*Store, error) {
	for _, sub := range []string{shardsDir, snapshotsDir, stagingDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("create store: %w", err)
		}
	}
	if err := sections.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Dir returns the store's folder.
func (s *Store) Dir() string { return s.dir }

// Stage makes a new folder for a build to work in. The build removes it.
func (s *Store) Stage() (string, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, stagingDir), "build-")
	if err != nil {
		return "", fmt.Errorf("stage: %w", err)
	}
	return dir, nil
}

// ShardPath returns where a shard file is.
func (s *Store) ShardPath(d Digest) string {
	return filepath.Join(s.dir, shardsDir, string(d)+".shard")
}

// ManifestPath returns where a manifest is.
func (s *Store) ManifestPath(d Digest) string {
	return filepath.Join(s.dir, snapshotsDir, string(d)+".json")
}

// AddShard moves a durable shard file from the staging folder into the store and
// describes it. A shard that the store already has is not written again.
func (s *Store) AddShard(path string) (ShardManifest, error) {
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
	if err := os.Rename(path, s.ShardPath(m.Digest)); err != nil {
		return m, fmt.Errorf("add shard: %w", err)
	}
	return m, sections.SyncDir(filepath.Join(s.dir, shardsDir))
}

// Adopt moves a shard from another store on the same file system, such as one in
// the staging folder. A shard that the store already has is not moved.
func (s *Store) Adopt(from *Store, d Digest) error {
	if _, err := os.Stat(s.ShardPath(d)); err == nil {
		return nil
	}
	if err := os.Rename(from.ShardPath(d), s.ShardPath(d)); err != nil {
		return fmt.Errorf("adopt shard: %w", err)
	}
	return sections.SyncDir(filepath.Join(s.dir, shardsDir))
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
// in the store. Publishing a snapshot again makes it the newest.
func (s *Store) Publish(m *Manifest) (Digest, error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	for _, kind := range []Kind{Apps, Users} {
		for _, sh := range m.Tower(kind).Shards {
			info, err := os.Stat(s.ShardPath(sh.Digest))
			if err != nil {
				return "", fmt.Errorf("publish: %w", err)
			}
			if info.Size() != sh.Size {
				return "", fmt.Errorf("publish: shard %s has %d bytes, the manifest says %d: %w",
					s.ShardPath(sh.Digest), info.Size(), sh.Size, sections.ErrCorrupt)
			}
		}
	}
	d := Sum(data)
	if err := writeDurably(s.ManifestPath(d), data); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	return d, nil
}

// writeDurably writes a whole file: temporary file, fsync, rename, fsync of the
// folder.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644) // a server may run as another user
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return sections.SyncDir(filepath.Dir(path))
}

// Manifest reads the manifest of a snapshot and checks it against its name.
func (s *Store) Manifest(d Digest) (*Manifest, error) {
	path := s.ManifestPath(d)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store %s: snapshot %s: %w", s.dir, d, ErrNoSnapshot)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	// The version comes first: a newer manifest should say so rather than seem
	// damaged.
	m, err := DecodeManifest(data)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	if sum := Sum(data); sum != d {
		return nil, fmt.Errorf("read manifest %s: its digest is %s, not its name: %w", path, sum, sections.ErrCorrupt)
	}
	return m, nil
}

// Published is a snapshot in a store.
type Published struct {
	Digest Digest
	Time   time.Time // when it was last published
}

// Snapshots lists the snapshots, newest first.
func (s *Store) Snapshots() ([]Published, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, snapshotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var list []Published
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !Digest(name).Valid() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		list = append(list, Published{Digest(name), info.ModTime()})
	}
	slices.SortFunc(list, func(a, b Published) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Digest, b.Digest))
	})
	return list, nil
}

// Resolve returns the digest of the snapshot that ref means: a digest, a unique
// beginning of one, or, when empty, the newest snapshot. An error is of class
// [ErrNoSnapshot] when there is none.
func (s *Store) Resolve(ref string) (Digest, error) {
	list, err := s.Snapshots()
	if err != nil {
		return "", err
	}
	if ref == "" {
		if len(list) == 0 {
			return "", fmt.Errorf("store %s has no snapshot: %w", s.dir, ErrNoSnapshot)
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
		return "", fmt.Errorf("store %s: snapshot %q: %w", s.dir, ref, ErrNoSnapshot)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("store %s: snapshot %q means any of %d snapshots; give more digits: %w", s.dir, ref, len(found), ErrNoSnapshot)
}
