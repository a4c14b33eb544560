package snapshots

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// attempts is how often a shard is transferred before a store that fails is given up.
const attempts = 4

// Fetch brings the shards of a snapshot onto this machine, several at a time, so that
// opening it has nothing to download. They stay there at least until done is called, or
// this process dies. What is there is not downloaded again, and an interrupted download
// goes on where it ended. In a folder there is nothing to do.
func (s *Store) Fetch(ctx context.Context, m *manifest.Manifest) (done func(), err error) {
	if s.cache == nil {
		return func() {}, nil
	}
	return s.fetchAll(ctx, m.Shards())
}

// fetch returns where a shard is on this machine. It stays there at least until done is
// called.
func (s *Store) fetch(ctx context.Context, sm manifest.Shard) (path string, done func(), err error) {
	if s.cache == nil {
		return s.ShardPath(sm.Digest), func() {}, nil
	}
	done, err = s.fetchAll(ctx, []manifest.Shard{sm})
	return s.cache.path(sm.Digest), done, err
}

func (s *Store) fetchAll(ctx context.Context, list []manifest.Shard) (done func(), err error) {
	held, err := s.cache.claim(ctx, list)
	if err != nil {
		return nil, err
	}
	if err := s.downloadAll(ctx, held); err != nil {
		held.release()
		return nil, err
	}
	// Those of others come last: who waits for us must not wait for as long as we do.
	for _, sm := range held.waited {
		if err := s.await(ctx, sm, held); err != nil {
			held.release()
			return nil, err
		}
	}
	return held.release, nil
}

// await waits until a shard that another is downloading is there, or downloads it if he
// gives up, and adds it to those that are held.
func (s *Store) await(ctx context.Context, sm manifest.Shard, held *claim) error {
	var size int64
	for deadline := time.Now().Add(cachePatience); ; {
		one, err := s.cache.claim(ctx, []manifest.Shard{sm})
		if err != nil {
			return err
		}
		if err := s.downloadAll(ctx, one); err != nil {
			one.release()
			return err
		}
		if len(one.whole) > 0 {
			held.whole = append(held.whole, one.whole...)
			return nil
		}
		if info, err := os.Stat(s.cache.partial(sm)); err == nil && info.Size() != size {
			size, deadline = info.Size(), time.Now().Add(cachePatience)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("download shard %s: another process is downloading it, and has not got on for %s", sm.Digest, cachePatience)
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return err
		}
	}
}

// downloadAll downloads what a claim lacks.
func (s *Store) downloadAll(ctx context.Context, held *claim) error {
	g, downloading := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	whole := make([]bool, len(held.missing))
	for i, m := range held.missing {
		g.Go(func() error {
			if err := s.download(downloading, m); err != nil {
				return fmt.Errorf("download shard %s: %w", m.Digest, err)
			}
			whole[i] = true
			return nil
		})
	}
	err := g.Wait()
	var missing []*missing
	for i, m := range held.missing {
		if whole[i] {
			held.whole = append(held.whole, m.file)
		} else {
			missing = append(missing, m)
		}
	}
	held.missing = missing
	return err
}

// download brings a shard into the cache. Its file then is under a shared lock.
func (s *Store) download(ctx context.Context, m *missing) error {
	for attempt := 1; ; attempt++ {
		began, err := s.resume(ctx, m)
		if err == nil {
			break
		}
		if errors.Is(err, unix.ENOSPC) {
			return errors.Join(err, m.file.Truncate(0)) // others need the room meanwhile
		}
		wrong := errors.Is(err, sections.ErrCorrupt) && began == 0 // all of it is from the store
		if wrong || ctx.Err() != nil || attempt == attempts || errors.Is(err, objects.ErrNotFound) {
			return err
		}
	}
	unlock, err := s.cache.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Rename(m.file.Name(), s.cache.path(m.Digest)); err != nil {
		return err
	}
	if err := unix.Flock(int(m.file.Fd()), unix.LOCK_SH); err != nil {
		return fmt.Errorf("lock %s: %w", s.cache.path(m.Digest), err)
	}
	return sections.SyncDir(filepath.Join(s.cache.dir, shardsDir))
}

// resume downloads what a partial file lacks, and syncs it once it is whole. A file
// that turns out wrong is emptied. It returns how many bytes were there before.
func (s *Store) resume(ctx context.Context, m *missing) (began int64, err error) {
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	h := sha256.New()
	have, err := io.Copy(h, m.file)
	began = have
	if err != nil {
		return began, errors.Join(err, m.file.Truncate(0)) // a bad block, perhaps
	}
	if have < m.Size {
		n, err := s.read(ctx, m.Shard, Download, have, io.MultiWriter(m.file, h))
		have += n
		if err != nil && have < m.Size { // of all that came, the digest decides
			return began, err
		}
	}
	if sum := digestOfHash(h); sum != m.Digest {
		return began, errors.Join(fmt.Errorf("its SHA-256 is %s and it has %d bytes, want %d: %w", sum, have, m.Size, sections.ErrCorrupt), m.file.Truncate(0))
	}
	return began, m.file.Sync()
}

// discardDamaged removes a shard from the cache if it is not what its name says, and
// reports whether it was not.
func (s *Store) discardDamaged(d manifest.Digest) bool {
	if s.cache == nil {
		return false
	}
	if sum, _, err := sumFile(s.cache.path(d)); err == nil && sum == d {
		return false
	}
	err := os.Remove(s.cache.path(d))
	return err == nil || errors.Is(err, os.ErrNotExist)
}
