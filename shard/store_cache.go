package shard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
)

// cache keeps the shards of buckets on this machine. Several processes may share its
// folder:
//
//	shards/DIGEST.shard    a whole shard
//	partial/DIGEST         one that is being downloaded, locked by who does
//	staging/               what builds are writing
//
// A file that is mapped may be removed: it is gone once nobody maps it.
type cache struct {
	dir   string
	bound int64 // bytes; 0 is none

	mu   sync.Mutex // held to count and to remove files
	pins map[Digest]int
}

const partialDir = "partial"

func openCache(o StoreOptions) (*cache, error) {
	dir := o.Cache
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find a folder for the cache: %w", err)
		}
		dir = filepath.Join(base, "tandem")
	}
	if o.CacheBytes < 0 {
		return nil, fmt.Errorf("the bound of the cache is %d bytes, want at least 0", o.CacheBytes)
	}
	for _, sub := range []string{shardsDir, partialDir, stagingDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make the cache: %w", err)
		}
	}
	return &cache{dir: dir, bound: o.CacheBytes, pins: map[Digest]int{}}, nil
}

func (c *cache) path(d Digest) string { return filepath.Join(c.dir, shardsDir, string(d)+".shard") }

// pin keeps a shard in the cache until it is unpinned.
func (c *cache) pin(d Digest) (unpin func()) {
	c.mu.Lock()
	c.pins[d]++
	c.mu.Unlock()
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pins[d]--; c.pins[d] == 0 {
			delete(c.pins, d)
		}
	})
}

// has reports whether a whole shard is there, and notes that it was used.
func (c *cache) has(sm ShardManifest) bool {
	info, err := os.Stat(c.path(sm.Digest))
	if err != nil || info.Size() != sm.Size {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(c.path(sm.Digest), now, now) // in another user's cache it stays older than it is
	return true
}

// makeRoom removes the shards that were not used for longest, until so many bytes more
// are within the bound.
func (c *cache) makeRoom(size int64) error {
	if c.bound == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	entries, err := os.ReadDir(filepath.Join(c.dir, shardsDir))
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	total := size
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		files = append(files, info)
		total += info.Size()
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, f := range files {
		if total <= c.bound {
			return nil
		}
		if d, ok := digestOf(shardsDir+"/"+f.Name(), shardsDir, ".shard"); ok && c.pins[d] > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, shardsDir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= f.Size()
	}
	if total > c.bound {
		return fmt.Errorf("the cache %s may hold %d bytes; what is being opened takes %d", c.dir, c.bound, total)
	}
	return nil
}

// Fetch brings the shards of a snapshot onto this machine, several at a time, so that
// opening it has nothing to download. What is there is not downloaded again, and an
// interrupted download goes on where it ended. In a folder there is nothing to do.
func (s *Store) Fetch(ctx context.Context, m *Manifest) error {
	if s.cache == nil {
		return nil
	}
	// Pinned until all are there, so that one does not make room by removing another.
	var unpin []func()
	defer func() {
		for _, f := range unpin {
			f()
		}
	}()
	g, fetching := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	for _, kind := range []Kind{Apps, Users} {
		for _, sm := range m.Tower(kind).Shards {
			unpin = append(unpin, s.cache.pin(sm.Digest))
			g.Go(func() error {
				_, done, err := s.fetch(fetching, sm)
				if err == nil {
					done()
				}
				return err
			})
		}
	}
	return g.Wait()
}

// fetch returns where a shard is on this machine. It stays there at least until done is
// called.
func (s *Store) fetch(ctx context.Context, sm ShardManifest) (path string, done func(), err error) {
	if s.cache == nil {
		return s.ShardPath(sm.Digest), func() {}, nil
	}
	done = s.cache.pin(sm.Digest)
	if s.cache.has(sm) {
		return s.cache.path(sm.Digest), done, nil
	}
	if err := s.download(ctx, sm); err != nil {
		done()
		return "", nil, fmt.Errorf("download shard %s: %w", sm.Digest, err)
	}
	return s.cache.path(sm.Digest), done, nil
}

// discard removes a shard from the cache, and reports whether there is a cache.
func (s *Store) discard(d Digest) bool {
	return s.cache != nil && os.Remove(s.cache.path(d)) == nil
}

// attempts is how often a download goes on after the store failed.
const attempts = 4

// download brings a shard into the cache. Of several that want it, here or in other
// processes, one downloads it while the others wait.
func (s *Store) download(ctx context.Context, sm ShardManifest) error {
	partial := filepath.Join(s.cache.dir, partialDir, string(sm.Digest))
	f, err := openLocked(ctx, partial)
	if err != nil {
		return err
	}
	defer f.Close() // and unlock
	if s.cache.has(sm) {
		return os.Remove(partial) // another has downloaded it
	}
	if err := s.cache.makeRoom(sm.Size); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := s.resume(ctx, f, sm)
		if err == nil {
			break
		}
		if ctx.Err() != nil || attempt == attempts {
			return err
		}
	}
	if err := os.Rename(partial, s.cache.path(sm.Digest)); err != nil {
		return err
	}
	return sections.SyncDir(filepath.Join(s.cache.dir, shardsDir))
}

// resume downloads what a partial file lacks, and syncs it once it is whole. A file
// that turns out wrong is emptied.
func (s *Store) resume(ctx context.Context, f *os.File, sm ShardManifest) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	have, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if have < sm.Size {
		r, err := s.bucket.Reader(ctx, shardKey(sm.Digest), have)
		if err != nil {
			return err
		}
		defer r.Close()
		t := &transferReader{r: r, transfer: Transfer{Digest: sm.Digest, Done: have, Size: sm.Size}, report: s.o.Progress}
		// One byte more than it should be is enough to know.
		n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(t, sm.Size-have+1))
		have += n
		if err != nil {
			return err
		}
	}
	if sum := Digest(hex.EncodeToString(h.Sum(nil))); sum != sm.Digest {
		return errors.Join(fmt.Errorf("its SHA-256 is %s and it has %d bytes, want %d: %w", sum, have, sm.Size, sections.ErrCorrupt), f.Truncate(0))
	}
	return f.Sync()
}

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 20 * time.Millisecond

// openLocked opens a file, which it makes if need be, and waits until nobody else has
// it open so.
func openLocked(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		locked, err := lock(f)
		if locked {
			// Whoever had it may have moved it away or removed it.
			there, statErr := os.Stat(path)
			mine, mineErr := f.Stat()
			if statErr == nil && mineErr == nil && os.SameFile(there, mine) {
				return f, nil
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		if locked {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// lock takes the only lock on a file, and reports whether nobody else has it.
func lock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
