package snapshots_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// partialPath is where a cache keeps what it has downloaded of a shard so far.
func partialPath(cache string, sm manifest.Shard) string {
	return filepath.Join(cache, "partial", fmt.Sprintf("%s-%d", sm.Digest, sm.Size))
}

// cached returns how many bytes of shards a cache holds, whole or not, while nothing is
// removed from it: what goes between two looks would count beside what has come for it.
func cached(cache string) (total int64, err error) {
	lock, err := os.Open(filepath.Join(cache, "lock"))
	if err != nil {
		return 0, err
	}
	defer lock.Close() // and unlock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return 0, err
	}
	for _, sub := range []string{"shards", "partial"} {
		entries, readErr := os.ReadDir(filepath.Join(cache, sub))
		err = errors.Join(err, readErr)
		for _, e := range entries {
			if info, infoErr := e.Info(); infoErr == nil {
				total += info.Size()
			} else if !errors.Is(infoErr, fs.ErrNotExist) {
				err = errors.Join(err, infoErr)
			}
		}
	}
	return total, err
}

// Several that share a cache, each of which knows nothing of the others, keep it within
// its bound at every moment, and all get what they want.
func TestCacheBoundIsShared(t *testing.T) {
	rows := []int{150, 160, 170, 180, 190, 200}
	bucket, m, d := bucketWith(t, rows...)
	bound := 5 * m[5].Apps.Shards[0].Size / 2
	cache := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var users sync.WaitGroup
	for user := range 6 {
		store := newStoreIn(t, bucket, snapshots.Options{Cache: cache, CacheBytes: bound, Progress: func(snapshots.Transfer) {
			total, err := cached(cache)
			assert.NoError(t, err)
			assert.LessOrEqual(t, total, bound)
		}})
		users.Go(func() {
			for i := range 8 {
				which := (user*5 + i*(user+1)) % len(rows)
				s, err := snapshots.Open(ctx, store, d[which])
				if assert.NoError(t, err) {
					assert.NoError(t, s.Warm(ctx))
					assert.NoError(t, s.Close())
				}
			}
		})
	}
	users.Wait()
	total, err := cached(cache)
	require.NoError(t, err)
	assert.LessOrEqual(t, total, bound)
	assert.Greater(t, total, m[5].Apps.Shards[0].Size, "it is used")
}

// A cache that was removed, folders and all, is made again by who uses it, beside what is mapped.
func TestCacheRemoved(t *testing.T) {
	bucket, _, d := bucketWith(t, 200, 201)
	cache := t.TempDir()
	store := newStoreIn(t, bucket, snapshots.Options{Cache: cache})
	for i := range 2 {
		s, err := snapshots.Open(t.Context(), store, d[i])
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, s.Close()) })
		require.NoError(t, os.RemoveAll(cache))
		require.NoError(t, s.Warm(t.Context()))
	}
}

// What one has fetched another one does not remove, until the first is done. Who finds no
// room waits for a time, and then says why.
func TestCacheKeepsWhatOthersHold(t *testing.T) {
	bucket, m, d := bucketWith(t, 200, 201)
	synctest.Test(t, func(t *testing.T) {
		o := snapshots.Options{Cache: t.TempDir(), CacheBytes: m[1].Apps.Shards[0].Size + 10}
		first, second := newStoreIn(t, bucket, o), newStoreIn(t, bucket, o)
		done, err := first.Fetch(t.Context(), m[0])
		require.NoError(t, err)
		began := time.Now()
		_, err = snapshots.Open(t.Context(), second, d[1])
		require.ErrorContains(t, err, "what is being opened, and what others open or download, takes")
		assert.InDelta(t, time.Minute, time.Since(began), float64(time.Second))
		assert.FileExists(t, first.ShardPath(m[0].Apps.Shards[0].Digest))

		time.AfterFunc(10*time.Second, done)
		s, err := snapshots.Open(t.Context(), second, d[1])
		require.NoError(t, err, "there is room when the first is done")
		require.NoError(t, s.Close())
		assert.NoFileExists(t, first.ShardPath(m[0].Apps.Shards[0].Digest))
		left, err := os.ReadDir(filepath.Join(o.Cache, "partial"))
		require.NoError(t, err)
		assert.Empty(t, left)
	})
}

// A download counts with its whole size from its beginning, for as long as someone does
// it; then with what there is of it, which goes for room.
func TestPartialDownloadsCount(t *testing.T) {
	bucket, m, d := bucketWith(t, 200, 201)
	synctest.Test(t, func(t *testing.T) {
		sm := m[0].Apps.Shards[0]
		cache := t.TempDir()
		store := newStoreIn(t, bucket, snapshots.Options{Cache: cache, CacheBytes: m[1].Apps.Shards[0].Size + 5000})
		require.NoError(t, os.WriteFile(partialPath(cache, sm), make([]byte, 6000), 0o600))
		f, err := os.Open(partialPath(cache, sm))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		_, err = store.Fetch(t.Context(), m[1])
		require.ErrorContains(t, err, fmt.Sprintf("takes %d", sm.Size+m[1].Apps.Shards[0].Size))
		require.NoError(t, f.Close()) // as when its process dies
		s, err := snapshots.Open(t.Context(), store, d[1])
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.NoFileExists(t, partialPath(cache, sm))
	})
}

// A cache that holds one shard at a time is enough to copy and to verify, however long
// each takes, and one that is opened waits for those that get on.
func TestSmallCache(t *testing.T) {
	bucket := objectstest.NewFaults().Bucket("")
	_, _, m, d := twoStores(t, bucket)
	var largest int64
	for _, sm := range m.Apps.Shards {
		largest = max(largest, sm.Size)
	}
	synctest.Test(t, func(t *testing.T) {
		from := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir(), CacheBytes: largest + 10})
		bucket, err := objects.Open(t.Context(), t.TempDir())
		require.NoError(t, err)
		defer bucket.Close()
		to := newStoreIn(t, bucket, snapshots.Options{Progress: func(p snapshots.Transfer) {
			if p.Kind == snapshots.Upload && p.Done == p.Size {
				time.Sleep(3 * time.Minute)
			}
		}})
		require.NoError(t, to.Copy(t.Context(), from, d))
		require.NoError(t, snapshots.Verify(t.Context(), from, d, func(string) {}))
		damage(t, bucket, shardKey(m.Apps.Shards[0].Digest), damages["flipped bit"])
		damage(t, bucket, shardKey(m.Apps.Shards[1].Digest), damages["missing"])
		mended, err := repair(t.Context(), to, from, d)
		require.NoError(t, err)
		assert.Len(t, mended, 2)
	})
}

// Who finds no room waits for as long as others get on.
func TestCacheWaitsForDownloads(t *testing.T) {
	bucket, m, _ := bucketWith(t, 200, 201)
	synctest.Test(t, func(t *testing.T) {
		cache := t.TempDir()
		store := newStoreIn(t, bucket, snapshots.Options{Cache: cache, CacheBytes: m[1].Apps.Shards[0].Size + 5000})
		f, err := os.Create(partialPath(cache, m[0].Apps.Shards[0]))
		require.NoError(t, err)
		require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		go func() { // another process
			for range 10 {
				_, err := f.Write(make([]byte, 100))
				assert.NoError(t, err)
				time.Sleep(30 * time.Second)
			}
			assert.NoError(t, f.Close())
		}()
		began := time.Now()
		done, err := store.Fetch(t.Context(), m[1])
		require.NoError(t, err)
		done()
		assert.InDelta(t, 5*time.Minute, time.Since(began), float64(time.Second))
	})
}

// A download of another process that does not get on is not waited for for ever, nor is
// the lock of one that was stopped.
func TestCacheWaitsEnd(t *testing.T) {
	bucket, m, _ := bucketWith(t, 200)
	for path, text := range map[string]string{
		partialPath("", m[0].Apps.Shards[0]): "another process is downloading it, and has not got on for 1m0s",
		"lock":                               "has been locked by another process for 1m0s",
	} {
		synctest.Test(t, func(t *testing.T) {
			cache := t.TempDir()
			store := newStoreIn(t, bucket, snapshots.Options{Cache: cache})
			f, err := os.Create(filepath.Join(cache, path))
			require.NoError(t, err)
			defer f.Close()
			require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
			_, err = store.Fetch(t.Context(), m[0])
			require.ErrorContains(t, err, text)
			time.AfterFunc(30*time.Second, func() { assert.NoError(t, f.Close()) })
			done, err := store.Fetch(t.Context(), m[0])
			require.NoError(t, err, "the other one has died")
			done()
		})
	}
}

// A store that has rotted is not downloaded again and again, and one that fails is tried
// again.
func TestDownloadsTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := objectstest.NewFaults()
		bucket := faults.Bucket("")
		_, _, m, d := twoStores(t, bucket)
		key := shardKey(m.Apps.Shards[0].Digest)
		open := func() error {
			s, err := snapshots.Open(t.Context(), newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()}), d)
			if err != nil {
				return err
			}
			return s.Close()
		}
		faults.Inject(objectstest.Rule{Op: objectstest.Read, Key: key, Times: 2, Fault: objectstest.Cut, Bytes: 5000})
		require.NoError(t, open())
		faults.Heal()
		damage(t, bucket, key, damages["flipped bit"])
		before := faults.Requests("", objectstest.Read, key)
		require.ErrorContains(t, open(), "its SHA-256 is")
		assert.Equal(t, before+1, faults.Requests("", objectstest.Read, key))
		// A store that says itself, at the end, that the object is damaged.
		faults.Inject(objectstest.Rule{Op: objectstest.Read, Key: key, Fault: objectstest.Cut, Bytes: m.Apps.Shards[0].Size})
		require.ErrorContains(t, open(), "its SHA-256 is")
		assert.Equal(t, before+2, faults.Requests("", objectstest.Read, key))
		store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
		require.ErrorContains(t, snapshots.Verify(t.Context(), store, d, func(string) {}), "its SHA-256 is")
		faults.Heal()
		faults.Remove(key)
		before = faults.Requests("", objectstest.Read, key)
		require.ErrorContains(t, open(), "no such object")
		assert.LessOrEqual(t, faults.Requests("", objectstest.Read, key), before+2)
	})
}
