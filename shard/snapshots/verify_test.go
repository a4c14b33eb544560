package snapshots_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// twoStores publishes a snapshot of three shard files in a bucket and in a folder.
func twoStores(t *testing.T, bucket *objects.Bucket) (store, from *snapshots.Store, m *manifest.Manifest, d manifest.Digest) {
	t.Helper()
	from = shardtest.Store(t, t.TempDir())
	built, m := staged(t, 90, 3)
	d, err := from.Import(t.Context(), built, m)
	require.NoError(t, err)
	store = newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, store.Copy(t.Context(), from, d))
	return store, from, m, d
}

// verify returns the lines of what is wrong with a snapshot, and the shards that were
// looked into.
func verify(ctx context.Context, store *snapshots.Store, d manifest.Digest) (looked, wrong []string) {
	err := snapshots.Verify(ctx, store, d, func(name string) { looked = append(looked, name) })
	if err != nil {
		wrong = strings.Split(err.Error(), "\n")
	}
	return looked, wrong
}

// Everything that is wrong is said at once, whatever it is.
func TestVerifyGoesOn(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		store, _, m, d := twoStores(t, bucket)
		_, wrong := verify(t.Context(), store, d)
		require.Empty(t, wrong)
		damage(t, bucket, shardKey(m.Apps.Shards[0].Digest), damages["missing"])
		damage(t, bucket, shardKey(m.Apps.Shards[2].Digest), damages["flipped bit"])
		looked, wrong := verify(t.Context(), store, d)
		text := strings.Join(wrong, "\n")
		assert.Contains(t, text, string(m.Apps.Shards[0].Digest)+".shard: no such object")
		assert.Contains(t, text, string(m.Apps.Shards[2].Digest)+".shard: its SHA-256 is ")
		assert.NotContains(t, text, m.Apps.Shards[1].Digest)
		assert.Contains(t, looked, "apps-0001")
		assert.Contains(t, looked, "users-0001")
		if bucket.Dir() == "" {
			return
		}
		assert.Regexp(t, string(m.Apps.Shards[2].Digest)+`\.shard: section [a-z0-9._-]+: checksum`, text)

		// A folder that has vanished.
		require.NoError(t, os.RemoveAll(filepath.Join(bucket.Dir(), "shards")))
		looked, wrong = verify(t.Context(), store, d)
		assert.Empty(t, looked)
		assert.Len(t, wrong, 3)
		require.NoError(t, os.RemoveAll(filepath.Join(bucket.Dir(), "snapshots")))
		_, wrong = verify(t.Context(), store, d)
		require.Len(t, wrong, 1)
		assert.Contains(t, wrong[0], "no such snapshot")
	})
}

// What is verified is what the store has, and not what this machine has of it.
func TestVerifyLooksBehindTheCache(t *testing.T) {
	bucket, m, d := bucketWith(t, 200)
	cache := t.TempDir()
	store := newStoreIn(t, bucket, snapshots.Options{Cache: cache})
	sm := m[0].Apps.Shards[0]
	for _, state := range []string{"cached", "half downloaded"} {
		if state == "cached" {
			done, err := store.Fetch(t.Context(), m[0])
			require.NoError(t, err)
			done()
		} else {
			whole, err := os.ReadFile(store.ShardPath(sm.Digest))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(partialPath(cache, sm), whole[:len(whole)/2], 0o600))
			require.NoError(t, os.Remove(store.ShardPath(sm.Digest)))
		}
		good, err := bucket.Read(t.Context(), shardKey(sm.Digest))
		require.NoError(t, err)
		damage(t, bucket, shardKey(sm.Digest), damages["first byte"])
		require.ErrorIs(t, snapshots.Verify(t.Context(), store, d[0], func(string) {}), sections.ErrCorrupt, state)
		require.NoError(t, bucket.Write(t.Context(), shardKey(sm.Digest), good))
		require.NoError(t, snapshots.Verify(t.Context(), store, d[0], func(string) {}), state)
	}
	// What is wrong with the cache is mended on the way.
	flip(t, store.ShardPath(sm.Digest), 8)
	require.NoError(t, snapshots.Verify(t.Context(), store, d[0], func(string) {}))
	s, err := snapshots.Open(t.Context(), store, d[0])
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// repair returns what was mended.
func repair(ctx context.Context, store, from *snapshots.Store, d manifest.Digest) (mended []string, err error) {
	err = snapshots.Repair(ctx, store, from, d, func(string) {}, func(file string, was error) {
		if was == nil {
			file = "whole: " + file
		}
		mended = append(mended, file)
	})
	slices.Sort(mended)
	return mended, err
}

// Each file that is damaged or missing is replaced by a whole one, and no other.
func TestRepairSnapshot(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		store, from, m, d := twoStores(t, bucket)
		whole := content(t, bucket)
		all := slices.Sorted(maps.Keys(whole))
		require.Len(t, all, 4)
		mended, err := repair(t.Context(), store, from, d)
		require.NoError(t, err)
		require.Empty(t, mended)
		for name, change := range damages {
			for _, keys := range [][]string{{shardKey(m.Apps.Shards[1].Digest)}, {manifestKey(d)}, all} {
				for _, key := range keys {
					damage(t, bucket, key, change)
				}
				mended, err := repair(t.Context(), store, from, d)
				require.NoError(t, err, name)
				require.Equal(t, keys, mended, name)
				require.Equal(t, whole, content(t, bucket), name)
			}
		}
	})
}

// A store that lacks the same files mends the others, and those that it lacks are named.
// A missing manifest waits for its shards; a damaged one does not.
func TestRepairFromADamagedStore(t *testing.T) {
	for name, change := range damages {
		faults := objectstest.NewFaults()
		bucket := faults.Bucket("")
		store, from, m, d := twoStores(t, bucket)
		whole := content(t, bucket)
		bad, good := shardKey(m.Apps.Shards[0].Digest), shardKey(m.Apps.Shards[1].Digest)
		damage(t, from.Objects(), bad, change)
		damage(t, bucket, bad, damages["flipped bit"])
		damage(t, bucket, good, damages["truncated"])
		rotten, err := bucket.Read(t.Context(), bad)
		require.NoError(t, err)

		damage(t, bucket, manifestKey(d), damages["missing"])
		mended, err := repair(t.Context(), store, from, d)
		require.ErrorIs(t, err, snapshots.ErrSource, name)
		require.ErrorIs(t, err, snapshots.ErrNoSnapshot)
		require.ErrorContains(t, err, "mend "+bad+" from "+from.Location())
		require.Equal(t, []string{good}, mended)
		after, err := bucket.Read(t.Context(), bad)
		require.NoError(t, err)
		require.Equal(t, rotten, after, "what cannot be mended is left as it is")

		require.NoError(t, bucket.Write(t.Context(), manifestKey(d), []byte("{}")))
		mended, err = repair(t.Context(), store, from, d)
		require.ErrorIs(t, err, snapshots.ErrSource, name)
		require.NotErrorIs(t, err, snapshots.ErrNoSnapshot)
		require.Equal(t, []string{manifestKey(d)}, mended)

		damage(t, from.Objects(), manifestKey(d), change)
		damage(t, bucket, manifestKey(d), damages["empty"])
		_, err = repair(t.Context(), store, from, d)
		require.ErrorIs(t, err, snapshots.ErrSource, "there is no manifest")

		other := shardtest.Store(t, t.TempDir())
		built, m := staged(t, 90, 3)
		_, err = other.Import(t.Context(), built, m)
		require.NoError(t, err)
		mended, err = repair(t.Context(), store, other, d)
		require.NoError(t, err)
		require.Equal(t, []string{bad, manifestKey(d)}, mended)
		require.Equal(t, whole, content(t, bucket))
	}
}

// A store that fails is not taken for one that is damaged for good, and a repair that
// fails leaves nothing worse.
func TestRepairThroughFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := objectstest.NewFaults()
		bucket := faults.Bucket("")
		store, from, m, d := twoStores(t, bucket)
		whole := content(t, bucket)
		key := shardKey(m.Apps.Shards[0].Digest)
		for _, fault := range []objectstest.Fault{objectstest.Fail, objectstest.Lose, objectstest.Cut, objectstest.Tear} {
			damage(t, bucket, key, damages["flipped bit"])
			faults.Inject(objectstest.Rule{Op: objectstest.Write, Key: key, Fault: fault, Bytes: 5000})
			_, err := repair(t.Context(), store, from, d)
			require.True(t, err == nil || errors.Is(err, objectstest.ErrInjected), "%s: %v", fault, err)
			faults.Heal()
			_, err = repair(t.Context(), store, from, d)
			require.NoError(t, err)
			require.Equal(t, whole, content(t, bucket))
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := repair(canceled, store, from, d)
		require.ErrorIs(t, err, context.Canceled)
	})
}
