package snapshots_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// staged builds a snapshot in a store of its own, from which others import it.
func staged(t *testing.T, rows, shards int) (*snapshots.Store, *manifest.Manifest) {
	t.Helper()
	store := shardtest.Store(t, t.TempDir())
	return store, shardtest.Manifest(t, store, shardtest.Grid(rows), 1, shards, index.DefaultParams(index.Dot))
}

// transferred counts the bytes that a store moved, by shard.
type transferred struct {
	mu sync.Mutex
	up map[manifest.Digest]int64
	by map[manifest.Digest]int64
}

func (c *transferred) options(cache string) snapshots.Options {
	c.up, c.by = map[manifest.Digest]int64{}, map[manifest.Digest]int64{}
	return snapshots.Options{Cache: cache, Progress: func(p snapshots.Transfer) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch p.Kind {
		case snapshots.Upload:
			c.up[p.Digest] = p.Done
		case snapshots.Download:
			c.by[p.Digest] = p.Done
		}
	}}
}

func newStoreIn(t *testing.T, bucket *objects.Bucket, o snapshots.Options) *snapshots.Store {
	t.Helper()
	s, err := snapshots.NewStore(bucket, o)
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
		require.NoError(t, snapshots.Verify(ctx, store, d, func(string) {}))
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
		s, err := snapshots.Open(ctx, store, d2)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.Empty(t, moved.by)

		for o, err := range bucket.List(ctx, "intents/") {
			assert.NoError(t, err)
			assert.Fail(t, "intent left", o.Key)
		}
	})
}

func want(t *testing.T, m *manifest.Manifest) manifest.Digest {
	t.Helper()
	data, err := m.Encode()
	require.NoError(t, err)
	return manifest.Sum(data)
}

func TestImportRefusesAnotherFile(t *testing.T) {
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
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
func bucketWith(t *testing.T, rows ...int) (*objects.Bucket, []*manifest.Manifest, []manifest.Digest) {
	t.Helper()
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
	var manifests []*manifest.Manifest
	var digests []manifest.Digest
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
			first, fetched := map[manifest.Digest]int64{}, int64(0)
			o := moved.options(cache)
			count := o.Progress
			o.Progress = func(p snapshots.Transfer) {
				count(p)
				if p.Done < first[p.Digest] { // it began anew
					first[p.Digest] = 0
				}
				fetched += p.Done - max(first[p.Digest], sm.Size-c.fetched)
				first[p.Digest] = p.Done
			}
			store := newStoreIn(t, bucket, o)
			require.NoError(t, os.WriteFile(filepath.Join(cache, "partial", fmt.Sprintf("%s-%d", sm.Digest, sm.Size)), c.partial, 0o600))
			s, err := snapshots.Open(t.Context(), store, d[0])
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
	store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
	done, err := store.Fetch(t.Context(), m[0])
	require.NoError(t, err)
	done()
	flip(t, store.ShardPath(m[0].Apps.Shards[0].Digest), 5000)
	s, err := snapshots.Open(t.Context(), store, d[0])
	require.NoError(t, err, "what is damaged in the cache is downloaded again")
	require.NoError(t, s.Close())
}

func TestCacheBound(t *testing.T) {
	bucket, m, d := bucketWith(t, 200, 201, 202)
	size := m[2].Apps.Shards[0].Size
	store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir(), CacheBytes: 2*size + 10})
	has := func(i int) bool {
		_, err := os.Stat(store.ShardPath(m[i].Apps.Shards[0].Digest))
		return err == nil
	}
	at := time.Now().Add(-time.Hour)
	for i := range 2 {
		s, err := snapshots.Open(t.Context(), store, d[i])
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		require.NoError(t, os.Chtimes(store.ShardPath(m[i].Apps.Shards[0].Digest), at, at))
		at = at.Add(time.Minute)
	}
	s, err := snapshots.Open(t.Context(), store, d[0]) // uses it again
	require.NoError(t, err)
	require.NoError(t, s.Close())
	s, err = snapshots.Open(t.Context(), store, d[2])
	require.NoError(t, err)
	require.NoError(t, s.Close())
	assert.Equal(t, []bool{true, false, true}, []bool{has(0), has(1), has(2)}, "the one not used for longest goes")

	small := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir(), CacheBytes: size / 2})
	_, err = snapshots.Open(t.Context(), small, d[0])
	assert.ErrorContains(t, err, "what is being opened takes")
}
