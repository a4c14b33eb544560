package snapshots_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// damages are what may become of a file; nil is that it is gone.
var damages = map[string]func([]byte) []byte{
	"flipped bit":     func(d []byte) []byte { d[len(d)/2] ^= 4; return d },
	"flipped version": func(d []byte) []byte { d[8] ^= 1; return d },
	"first byte":      func(d []byte) []byte { d[0] ^= 1; return d },
	"last byte":       func(d []byte) []byte { d[len(d)-1] ^= 1; return d },
	"zeroed block":    func(d []byte) []byte { clear(d[max(0, len(d)-4096):][:512]); return d },
	"truncated":       func(d []byte) []byte { return d[:len(d)/2] },
	"empty":           func([]byte) []byte { return []byte{} },
	"extended":        func(d []byte) []byte { return append(d, 0) },
	"other file":      func(d []byte) []byte { return bytes.Repeat([]byte{'x'}, len(d)) },
	"missing":         func([]byte) []byte { return nil },
}

func shardKey(d manifest.Digest) string    { return "shards/" + string(d) + ".shard" }
func manifestKey(d manifest.Digest) string { return "snapshots/" + string(d) + ".json" }

// damage changes an object behind the store's back.
func damage(t *testing.T, bucket *objects.Bucket, key string, change func([]byte) []byte) {
	t.Helper()
	data, err := bucket.Read(t.Context(), key)
	require.NoError(t, err)
	if data = change(data); data == nil {
		require.NoError(t, bucket.Delete(t.Context(), key))
		return
	}
	require.NoError(t, bucket.Write(t.Context(), key, data))
}

// content returns all that is in a bucket.
func content(t *testing.T, bucket *objects.Bucket) map[string]string {
	t.Helper()
	all := map[string]string{}
	for o, err := range bucket.List(t.Context(), "") {
		require.NoError(t, err)
		data, err := bucket.Read(t.Context(), o.Key)
		require.NoError(t, err)
		all[o.Key] = string(data)
	}
	delete(all, "store.json") // each store has its own
	return all
}

// Importing or copying a snapshot again mends whatever has become of the store's files,
// and transfers nothing else.
func TestImportAndCopyMend(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		var moved transferred
		store := newStoreIn(t, bucket, moved.options(t.TempDir()))
		from, m := staged(t, 60, 2)
		d, err := from.Publish(t.Context(), m)
		require.NoError(t, err)
		require.NoError(t, store.Copy(t.Context(), from, d))
		whole := content(t, bucket)
		require.Len(t, whole, 3, "both towers are the same here")
		again := map[string]func(t *testing.T){
			"copy": func(t *testing.T) { require.NoError(t, store.Copy(t.Context(), from, d)) },
			"import": func(t *testing.T) {
				built, m := staged(t, 60, 2)
				_, err := store.Import(t.Context(), built, m)
				require.NoError(t, err)
			},
		}
		for name, change := range damages {
			for how, mend := range again {
				for _, key := range []string{shardKey(m.Apps.Shards[1].Digest), shardKey(m.Users.Shards[0].Digest), manifestKey(d)} {
					damage(t, bucket, key, change)
					clear(moved.up)
					mend(t)
					require.Equal(t, whole, content(t, bucket), "%s after %s of %s", how, name, key)
					for up := range moved.up {
						require.Equal(t, key, shardKey(up), "it was whole")
					}
				}
			}
		}
		for key := range whole {
			damage(t, bucket, key, damages["zeroed block"])
		}
		again["copy"](t)
		assert.Equal(t, whole, content(t, bucket), "all at once")
	})
}

// What a server has mapped stays as it is when the file is mended: it is another one then.
func TestMendedFileIsAnotherOne(t *testing.T) {
	store, from := shardtest.Store(t, t.TempDir()), shardtest.Store(t, t.TempDir())
	built, m := staged(t, 60, 2)
	d, err := from.Import(t.Context(), built, m)
	require.NoError(t, err)
	require.NoError(t, store.Copy(t.Context(), from, d))
	s, err := snapshots.Open(t.Context(), store, d)
	require.NoError(t, err)
	defer s.Close()
	paths := []string{store.ShardPath(m.Apps.Shards[0].Digest), store.ShardPath(m.Apps.Shards[1].Digest)}
	stat := func(path string) os.FileInfo {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info
	}
	damage(t, store.Objects(), shardKey(m.Apps.Shards[0].Digest), damages["flipped bit"])
	before := []os.FileInfo{stat(paths[0]), stat(paths[1])}
	require.NoError(t, store.Copy(t.Context(), from, d))
	assert.False(t, os.SameFile(before[0], stat(paths[0])))
	assert.True(t, os.SameFile(before[1], stat(paths[1])), "it was whole")
	assert.NoError(t, s.Warm(t.Context()), "what was mapped first answers")
}

// A source that is damaged changes nothing where it is copied to.
func TestDamagedSourceIsNotTaken(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		from := shardtest.Store(t, t.TempDir())
		built, m := staged(t, 60, 2)
		d, err := from.Import(t.Context(), built, m)
		require.NoError(t, err)
		source := content(t, from.Objects())
		store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
		for name, change := range damages {
			for _, key := range []string{shardKey(m.Apps.Shards[1].Digest), manifestKey(d)} {
				damage(t, from.Objects(), key, change)
				err := store.Copy(t.Context(), from, d)
				require.Error(t, err, "%s of %s", name, key)
				require.ErrorContains(t, err, strings.TrimSuffix(strings.TrimSuffix(filepath.Base(key), ".json"), ".shard"))
				if strings.HasPrefix(key, "shards/") {
					require.ErrorIs(t, err, snapshots.ErrSource)
				}
				for there := range content(t, bucket) {
					require.Equal(t, shardKey(m.Apps.Shards[0].Digest), there, "%s of %s", name, key)
				}
				require.NoError(t, from.Objects().Write(t.Context(), key, []byte(source[key])))
			}
		}
		require.NoError(t, store.Copy(t.Context(), from, d))
		for key := range source {
			damage(t, from.Objects(), key, damages["flipped bit"])
		}
		require.Error(t, store.Copy(t.Context(), from, d))
		assert.Equal(t, source, content(t, bucket), "what is whole stays")
	})
}

// A build's file that has rotted before it is moved is not published.
func TestImportRefusesADamagedStage(t *testing.T) {
	for name, change := range damages {
		store := shardtest.Store(t, t.TempDir())
		from, m := staged(t, 30, 1)
		damage(t, from.Objects(), shardKey(m.Apps.Shards[0].Digest), change)
		_, err := store.Import(t.Context(), from, m)
		require.ErrorIs(t, err, snapshots.ErrSource, name)
		assert.NotContains(t, content(t, store.Objects()), shardKey(m.Apps.Shards[0].Digest))
		assert.NotContains(t, content(t, store.Objects()), manifestKey(want(t, m)))
	}
}

// A copy from a bucket heals its own cache.
func TestCopyHealsTheCache(t *testing.T) {
	bucket, m, d := bucketWith(t, 200)
	from := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
	done, err := from.Fetch(t.Context(), m[0])
	require.NoError(t, err)
	done()
	path := from.ShardPath(m[0].Apps.Shards[0].Digest)
	for name, change := range damages {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		if data = change(data); data == nil {
			require.NoError(t, os.Remove(path))
		} else {
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}
		to := shardtest.Store(t, t.TempDir())
		require.NoError(t, to.Copy(t.Context(), from, d[0]), name)
		require.NoError(t, snapshots.Verify(t.Context(), to, d[0], func(string) {}))
	}
}

// Through an outage an import goes on where it was, and says how far that is.
func TestImportGoesOnAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := objectstest.NewFaults()
		var moved transferred
		store := newStoreIn(t, faults.Bucket(""), moved.options(t.TempDir()))
		from, m := staged(t, 90, 3)
		last := m.Users.Shards[2].Digest
		for _, r := range []objectstest.Rule{
			{Op: objectstest.Write, Key: shardKey(last)},
			{Op: objectstest.Write, Key: shardKey(last), Fault: objectstest.Cut, Bytes: 5000},
			{Op: objectstest.Write, Key: shardKey(last), Fault: objectstest.Tear, Bytes: 5000},
			{Op: objectstest.Write, Key: "snapshots/"},
		} {
			faults.Inject(r)
			_, err := store.Import(t.Context(), from, m)
			require.ErrorIs(t, err, objectstest.ErrInjected)
			incomplete := (*snapshots.IncompleteError)(nil)
			if strings.HasPrefix(r.Key, "shards/") {
				require.ErrorAs(t, err, &incomplete)
				assert.Equal(t, 3, incomplete.Want)
				assert.Less(t, incomplete.Have, 3)
				assert.ErrorContains(t, err, fmt.Sprintf("take snapshot: the store has %d of 3 shards: ", incomplete.Have))
			}
			list, err := store.Snapshots(t.Context())
			require.NoError(t, err)
			require.Empty(t, list)
			faults.Heal()
		}
		clear(moved.up)
		d, err := store.Import(t.Context(), from, m)
		require.NoError(t, err)
		assert.Empty(t, moved.up, "all was there already")
		fresh := newStoreIn(t, faults.Bucket(""), snapshots.Options{Cache: t.TempDir()})
		require.NoError(t, snapshots.Verify(t.Context(), fresh, d, func(string) {}))
	})
}

// A file that can be read only in parts is not taken for whole, and one that the store
// fails to give for a while is.
func TestImportReadsThroughFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := objectstest.NewFaults()
		var moved transferred
		store := newStoreIn(t, faults.Bucket(""), moved.options(t.TempDir()))
		from, m := staged(t, 90, 1)
		_, err := store.Import(t.Context(), from, m)
		require.NoError(t, err)
		key := shardKey(m.Apps.Shards[0].Digest)
		clear(moved.up)
		faults.Inject(objectstest.Rule{Op: objectstest.Read, Key: key, Times: 2, Fault: objectstest.Cut, Bytes: 5000})
		_, err = store.Import(t.Context(), from, m)
		require.NoError(t, err)
		assert.Empty(t, moved.up)
		faults.Heal()
		faults.Inject(objectstest.Rule{Op: objectstest.Read, Key: key, Fault: objectstest.Short, Bytes: 0})
		_, err = store.Import(t.Context(), from, m)
		require.NoError(t, err)
		assert.Len(t, moved.up, 1)
	})
}
