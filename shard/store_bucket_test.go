package shard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// staged builds a snapshot in a store of its own, from which others import it.
func staged(t *testing.T, rows, shards int) (*shard.Store, *shard.Manifest) {
	t.Helper()
	store := newStore(t, t.TempDir())
	return store, newManifest(t, store, grid(rows), 1, shards, index.DefaultParams(index.Dot))
}

// transferred counts the bytes that a store moved, by shard.
type transferred struct {
	mu sync.Mutex
	up map[shard.Digest]int64
	by map[shard.Digest]int64
}

func (c *transferred) options(cache string) shard.StoreOptions {
	c.up, c.by = map[shard.Digest]int64{}, map[shard.Digest]int64{}
	return shard.StoreOptions{Cache: cache, Progress: func(p shard.Transfer) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch p.Kind {
		case shard.Upload:
			c.up[p.Digest] = p.Done
		case shard.Download:
			c.by[p.Digest] = p.Done
		}
	}}
}

func newStoreIn(t *testing.T, bucket *objects.Bucket, o shard.StoreOptions) *shard.Store {
	t.Helper()
	s, err := shard.NewStore(bucket, o)
	require.NoError(t, err)
	return s
}

func TestImport(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		var moved transferred
		store := newStoreIn(t, bucket, moved.options(t.TempDir()))
		from, m := staged(t, 90, 3)
		d, err := store.Import(ctx, from, m)
		require.NoError(t, err)
		assert.Equal(t, want(t, m), d)
		require.NoError(t, shard.VerifySnapshot(ctx, store, d, func(string) {}))
		if bucket.Dir() == "" {
			for _, sm := range m.Apps.Shards {
				assert.Equal(t, sm.Size, moved.up[sm.Digest])
				assert.Equal(t, sm.Size, moved.by[sm.Digest])
			}
		}

		// Two of the three shards are there already.
		from, m2 := staged(t, 90, 3)
		m2.ModelVersion = "2"
		clear(moved.up)
		d2, err := store.Import(ctx, from, m2)
		require.NoError(t, err)
		assert.NotEqual(t, d, d2)
		assert.Empty(t, moved.up, "a shard that did not change is not uploaded again")

		// Another machine downloads; the same one does not again.
		clear(moved.by)
		s, err := shard.OpenSnapshot(ctx, store, d2)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.Empty(t, moved.by)

		for o, err := range bucket.List(ctx, "intents/") {
			assert.NoError(t, err)
			assert.Fail(t, "intent left", o.Key)
		}
	})
}

func want(t *testing.T, m *shard.Manifest) shard.Digest {
	t.Helper()
	data, err := m.Encode()
	require.NoError(t, err)
	return shard.Sum(data)
}

func TestImportRefusesAnotherFile(t *testing.T) {
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir()})
	defer store.Close()
	from, m := staged(t, 30, 1)
	flip(t, from.ShardPath(m.Apps.Shards[0].Digest), 5000)
	_, err := store.Import(t.Context(), from, m)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
	for o, err := range bucket.List(t.Context(), "") {
		require.NoError(t, err)
		assert.Fail(t, "object left", o.Key)
	}
}

// bucketWith publishes snapshots of so many rows in memory.
func bucketWith(t *testing.T, rows ...int) (*objects.Bucket, []*shard.Manifest, []shard.Digest) {
	t.Helper()
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir()})
	var manifests []*shard.Manifest
	var digests []shard.Digest
	for _, n := range rows {
		from, m := staged(t, n, 1)
		d, err := store.Import(t.Context(), from, m)
		require.NoError(t, err)
		manifests, digests = append(manifests, m), append(digests, d)
	}
	return bucket, manifests, digests
}

func TestDownloadGoesOn(t *testing.T) {
	bucket, m, d := bucketWith(t, 200)
	sm := m[0].Apps.Shards[0]
	whole, err := bucket.Read(t.Context(), "shards/"+string(sm.Digest)+".shard")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		partial []byte
		fetched int64
	}{
		"nothing": {nil, sm.Size},
		"a part":  {whole[:9000], sm.Size - 9000},
		"all":     {whole, 0},
		"wrong":   {append([]byte{^whole[0]}, whole[1:9000]...), sm.Size},
		"longer":  {append(slices.Clone(whole), 1), sm.Size},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			var moved transferred
			first, fetched := map[shard.Digest]int64{}, int64(0)
			o := moved.options(cache)
			count := o.Progress
			o.Progress = func(p shard.Transfer) {
				count(p)
				if p.Done < first[p.Digest] { // it began anew
					first[p.Digest] = 0
				}
				fetched += p.Done - max(first[p.Digest], sm.Size-c.fetched)
				first[p.Digest] = p.Done
			}
			store := newStoreIn(t, bucket, o)
			require.NoError(t, os.WriteFile(filepath.Join(cache, "partial", fmt.Sprintf("%s-%d", sm.Digest, sm.Size)), c.partial, 0o600))
			s, err := shard.OpenSnapshot(t.Context(), store, d[0])
			require.NoError(t, err)
			require.NoError(t, s.Close())
			if name == "a part" || name == "all" || name == "nothing" {
				assert.Equal(t, c.fetched, fetched)
			}
			left, err := os.ReadDir(filepath.Join(cache, "partial"))
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

func TestCacheHeals(t *testing.T) {
	bucket, m, d := bucketWith(t, 200)
	store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir()})
	done, err := store.Fetch(t.Context(), m[0])
	require.NoError(t, err)
	done()
	flip(t, store.ShardPath(m[0].Apps.Shards[0].Digest), 5000)
	s, err := shard.OpenSnapshot(t.Context(), store, d[0])
	require.NoError(t, err, "what is damaged in the cache is downloaded again")
	require.NoError(t, s.Close())
}

func TestCacheBound(t *testing.T) {
	bucket, m, d := bucketWith(t, 200, 201, 202)
	size := m[2].Apps.Shards[0].Size
	store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir(), CacheBytes: 2*size + 10})
	has := func(i int) bool {
		_, err := os.Stat(store.ShardPath(m[i].Apps.Shards[0].Digest))
		return err == nil
	}
	at := time.Now().Add(-time.Hour)
	for i := range 2 {
		s, err := shard.OpenSnapshot(t.Context(), store, d[i])
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		require.NoError(t, os.Chtimes(store.ShardPath(m[i].Apps.Shards[0].Digest), at, at))
		at = at.Add(time.Minute)
	}
	s, err := shard.OpenSnapshot(t.Context(), store, d[0]) // uses it again
	require.NoError(t, err)
	require.NoError(t, s.Close())
	s, err = shard.OpenSnapshot(t.Context(), store, d[2])
	require.NoError(t, err)
	require.NoError(t, s.Close())
	assert.Equal(t, []bool{true, false, true}, []bool{has(0), has(1), has(2)}, "the one not used for longest goes")

	small := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir(), CacheBytes: size / 2})
	_, err = shard.OpenSnapshot(t.Context(), small, d[0])
	assert.ErrorContains(t, err, "what is being opened takes")
}

// everything collects all that nothing needs.
func everything(live ...shard.Digest) shard.CollectOptions {
	return shard.CollectOptions{Live: func(context.Context) ([]shard.Digest, error) { return live, nil }}
}

func TestCollect(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir()})
		var digests []shard.Digest
		var manifests []*shard.Manifest
		for _, rows := range []int{20, 30, 40} {
			from, m := staged(t, rows, 2)
			d, err := store.Import(ctx, from, m)
			require.NoError(t, err)
			digests, manifests = append(digests, d), append(manifests, m)
		}
		kept := func() (list []shard.Digest) {
			snapshots, err := store.Snapshots(ctx)
			require.NoError(t, err)
			for _, d := range digests {
				if slices.ContainsFunc(snapshots, func(p shard.Published) bool { return p.Digest == d }) {
					list = append(list, d)
					require.NoError(t, shard.VerifySnapshot(ctx, store, d, func(string) {}))
				}
			}
			return list
		}
		o := everything(digests[1])
		o.KeepFor = time.Hour
		done, err := store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Empty(t, done.Snapshots, "all are young")
		o.KeepFor, o.DryRun = 0, true
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.ElementsMatch(t, []shard.Digest{digests[0], digests[2]}, done.Snapshots)
		assert.Len(t, done.Shards, 4)
		assert.Equal(t, digests, kept(), "a dry run deletes nothing")

		release, err := store.Protect(ctx, digests[2])
		require.NoError(t, err)
		assert.ErrorContains(t, store.Remove(ctx, digests[2], o.Live), "a release or a writer needs it")
		assert.ErrorContains(t, store.Remove(ctx, digests[1], o.Live), "a release or a writer needs it")
		o.DryRun = false
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Equal(t, digests[:1], done.Snapshots)
		assert.Len(t, done.Shards, 2)
		assert.Equal(t, manifests[0].Apps.Shards[0].Size+manifests[0].Apps.Shards[1].Size, done.Bytes)
		assert.Equal(t, digests[1:], kept())
		require.NoError(t, release())

		require.NoError(t, store.Remove(ctx, digests[2], o.Live))
		assert.ErrorIs(t, store.Remove(ctx, digests[2], o.Live), shard.ErrNoSnapshot)
		assert.Equal(t, digests[1:2], kept())
		o.Grace = time.Hour
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Empty(t, done.Shards, "they are young")
		o.Grace = 0
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Len(t, done.Shards, 2)
		var left []string
		for o, err := range bucket.List(ctx, "") {
			require.NoError(t, err)
			left = append(left, o.Key)
		}
		assert.Len(t, left, 3, "one snapshot: %v", left)
	})
}

func TestCollectDeletesNoShardIfAManifestIsDamaged(t *testing.T) {
	bucket, m, d := bucketWith(t, 20, 30)
	store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir()})
	require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d[0])+".json", []byte("{")))
	_, err := store.Collect(t.Context(), everything(d...))
	require.ErrorIs(t, err, sections.ErrCorrupt)
	_, err = bucket.Stat(t.Context(), "shards/"+string(m[0].Apps.Shards[0].Digest)+".shard")
	assert.NoError(t, err)
}

func TestCollectKeepsLiveStages(t *testing.T) {
	store := newStore(t, filepath.Join(t.TempDir(), "*[store]?"))
	alive, err := store.Stage()
	require.NoError(t, err)
	dead := filepath.Join(filepath.Dir(alive.Dir()), "build-dead")
	require.NoError(t, os.MkdirAll(filepath.Join(dead, "store", "shards"), 0o755))
	old := filepath.Join(store.Location(), "shards", ".x.shard.1.tmp")
	require.NoError(t, os.WriteFile(old, nil, 0o600))
	at := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(old, at, at))
	done, err := store.Collect(t.Context(), everything())
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{dead, old}, done.Leftovers)
	assert.DirExists(t, alive.Dir())
	assert.NoFileExists(t, old)
	require.NoError(t, alive.Close())
	assert.NoDirExists(t, alive.Dir())
}

// What killed publishers were writing goes after the grace, wherever in the store it is;
// what is being written stays.
func TestCollectTemporaryFiles(t *testing.T) {
	store := newStore(t, t.TempDir())
	var old, young []string
	at := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{"releases/.000000000012.json.1.tmp", "gates/ab/.000000000001.json.1.tmp", "queries/day/.x.parquet.1.tmp",
		"snapshots/.ab.json.1.tmp", "shards/.ab.shard.1.tmp", "intents/.ab.json.1.tmp"} {
		path := filepath.Join(store.Location(), name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
		old = append(old, path)
		young = append(young, strings.Replace(path, ".1.tmp", ".2.tmp", 1))
		require.NoError(t, os.WriteFile(young[len(young)-1], nil, 0o600))
	}
	// A writer in the middle of an object, older than any grace.
	reader, writer := io.Pipe()
	written := make(chan error)
	go func() { written <- store.Objects().Upload(t.Context(), "queries/slow.parquet", reader) }()
	_, err := writer.Write([]byte("half"))
	require.NoError(t, err)
	slow, err := filepath.Glob(filepath.Join(store.Location(), "queries", ".slow.parquet.*.tmp"))
	require.NoError(t, err)
	require.Len(t, slow, 1)
	require.NoError(t, os.Chtimes(slow[0], at, at))

	collect := func(grace time.Duration, dryRun bool) []string {
		o := everything()
		o.Grace, o.DryRun = grace, dryRun
		done, err := store.Collect(t.Context(), o)
		require.NoError(t, err)
		return done.Leftovers
	}
	assert.Empty(t, collect(3*time.Hour, false))
	assert.ElementsMatch(t, old, collect(time.Hour, true))
	assert.ElementsMatch(t, old, collect(time.Hour, false))
	assert.ElementsMatch(t, young, collect(0, false))
	assert.Empty(t, collect(0, false))

	_, err = writer.Write([]byte(" and half"))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	require.NoError(t, <-written)
	data, err := store.Objects().Read(t.Context(), "queries/slow.parquet")
	require.NoError(t, err)
	assert.Equal(t, "half and half", string(data))
}

// Publishers race with collectors that want to delete everything as soon as they may:
// a snapshot that was imported is whole for as long as it is live.
func TestCollectRacesWithImport(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		store := newStoreIn(t, bucket, shard.StoreOptions{Cache: t.TempDir()})
		var mu sync.Mutex
		var live []shard.Digest
		collecting := everything()
		collecting.Live = func(context.Context) ([]shard.Digest, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(live), nil
		}
		var collectors sync.WaitGroup
		for range 2 {
			collectors.Go(func() {
				for ctx.Err() == nil {
					if _, err := store.Collect(ctx, collecting); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}
			})
		}
		var publishers sync.WaitGroup
		for range 3 {
			publishers.Go(func() {
				for range 3 {
					from, m := staged(t, 20, 2) // the same shards each time
					d := want(t, m)
					release, err := store.Protect(ctx, d) // as a release does
					if !assert.NoError(t, err) {
						return
					}
					if _, err := store.Import(ctx, from, m); !assert.NoError(t, err) {
						return
					}
					mu.Lock()
					live = []shard.Digest{d}
					mu.Unlock()
					assert.NoError(t, release())
					cache := t.TempDir()
					fresh := newStoreIn(t, bucket, shard.StoreOptions{Cache: cache})
					assert.NoError(t, shard.VerifySnapshot(ctx, fresh, d, func(string) {}))
				}
			})
		}
		publishers.Wait()
		stop()
		collectors.Wait()
	})
}
