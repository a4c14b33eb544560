package snapshots_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// publish writes a small snapshot to a new store.
func publish(t *testing.T, rows, shards int) (*snapshots.Store, manifest.Digest) {
	store := shardtest.Store(t, t.TempDir())
	d, err := store.Publish(t.Context(), shardtest.Manifest(t, store, shardtest.Grid(rows), 1, shards, index.DefaultParams(index.Dot)))
	require.NoError(t, err)
	return store, d
}

func TestSnapshotRoundTrip(t *testing.T) {
	store, d := publish(t, 50, 3)
	s, err := snapshots.Open(context.Background(), store, d)
	require.NoError(t, err)
	require.NoError(t, s.Warm(context.Background()))
	require.Equal(t, d, s.Digest())
	require.Equal(t, "feed", s.Manifest().Model)
	require.Equal(t, 50, s.Tower(shard.Apps).Rows())
	require.Equal(t, "users-0002", s.Tower(shard.Users).Local()[2].Name())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "Close is idempotent")

	var names []string
	require.NoError(t, snapshots.Verify(context.Background(), store, d, func(name string) { names = append(names, name) }))
	require.Len(t, names, 6)
}

func TestPublishNeedsItsShards(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, shardtest.Grid(10), 1, 1, index.DefaultParams(index.Dot))
	require.NoError(t, os.Truncate(store.ShardPath(m.Apps.Shards[0].Digest), 4096))
	_, err := store.Publish(t.Context(), m)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.NoError(t, os.Remove(store.ShardPath(m.Apps.Shards[0].Digest)))
	_, err = store.Publish(t.Context(), m)
	require.ErrorIs(t, err, objects.ErrNotFound)
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestResolve(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	_, err := store.Resolve(t.Context(), "")
	require.ErrorIs(t, err, snapshots.ErrNoSnapshot)
	var digests []manifest.Digest
	for i, version := range []string{"1", "2", "3"} {
		m := shardtest.Manifest(t, store, shardtest.Grid(10), 1, 1, index.DefaultParams(index.Dot))
		m.ModelVersion = version
		d, err := store.Publish(t.Context(), m)
		require.NoError(t, err)
		at := time.Unix(int64(1000*(i+1)), 0)
		require.NoError(t, os.Chtimes(store.ManifestPath(d), at, at))
		digests = append(digests, d)
	}
	newest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, digests[2], newest)
	found, err := store.Resolve(t.Context(), string(digests[0][:20]))
	require.NoError(t, err)
	require.Equal(t, digests[0], found)
	_, err = store.Resolve(t.Context(), "zz")
	require.ErrorIs(t, err, snapshots.ErrNoSnapshot)

	m, err := store.Manifest(t.Context(), digests[0])
	require.NoError(t, err)
	again, err := store.Publish(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, digests[0], again)
	newest, err = store.Resolve(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, digests[0], newest, "publishing again makes it the newest")
}

// Damage to a store is found by the library and by verification, which name the
// file.
func TestDamagedStore(t *testing.T) {
	shardPath := func(store *snapshots.Store, d manifest.Digest, number int) string {
		m, err := store.Manifest(t.Context(), d)
		require.NoError(t, err)
		return store.ShardPath(m.Apps.Shards[number].Digest)
	}
	for name, test := range map[string]struct {
		damage func(*testing.T, *snapshots.Store, manifest.Digest) (path string)
		text   string
		class  error // of opening; verifying finds the same, unless the file is missing
	}{
		"flipped byte in a shard": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			flip(t, shardPath(s, d, 1), 4096)
			return shardPath(s, d, 1)
		}, "section shard.id_offsets: checksum", sections.ErrCorrupt},
		"truncated shard": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			require.NoError(t, os.Truncate(shardPath(s, d, 0), 20000))
			return shardPath(s, d, 0)
		}, "header: file has 20000 bytes", sections.ErrCorrupt},
		"empty shard file": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			require.NoError(t, os.Truncate(shardPath(s, d, 0), 0))
			return shardPath(s, d, 0)
		}, "header: file has 0 bytes", sections.ErrCorrupt},
		"shard of another version": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			flip(t, shardPath(s, d, 0), 8)
			return shardPath(s, d, 0)
		}, "format version is 0, this build reads version 1", sections.ErrVersion},
		"shards swapped": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			a, b := shardPath(s, d, 0), shardPath(s, d, 1)
			data, err := os.ReadFile(a)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(b, data, 0o600))
			return b
		}, "the manifest says", sections.ErrCorrupt},
		"missing shard": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			p := shardPath(s, d, 0)
			require.NoError(t, os.Remove(p))
			return p
		}, "no such file", os.ErrNotExist},
		"flipped byte in the manifest": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			data, err := os.ReadFile(s.ManifestPath(d))
			require.NoError(t, err)
			flip(t, s.ManifestPath(d), int64(strings.Index(string(data), "feed")))
			return s.ManifestPath(d)
		}, "not its name", sections.ErrCorrupt},
		"truncated manifest": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			require.NoError(t, os.Truncate(s.ManifestPath(d), 100))
			return s.ManifestPath(d)
		}, "unexpected end of JSON", sections.ErrCorrupt},
		"manifest of another version": {func(t *testing.T, s *snapshots.Store, d manifest.Digest) string {
			data, err := os.ReadFile(s.ManifestPath(d))
			require.NoError(t, err)
			data = []byte(strings.Replace(string(data), `"version": 1`, `"version": 9`, 1))
			require.NoError(t, os.WriteFile(s.ManifestPath(d), data, 0o600))
			return s.ManifestPath(d)
		}, "version is 9, this build reads versions 1 to 7", sections.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			store, d := publish(t, 40, 2)
			path := test.damage(t, store, d)
			_, err := snapshots.Open(context.Background(), store, d)
			require.ErrorIs(t, err, test.class)
			require.ErrorContains(t, err, filepath.Base(path))
			require.ErrorContains(t, err, test.text)
			err = snapshots.Verify(context.Background(), store, d, func(string) {})
			if errors.Is(test.class, os.ErrNotExist) {
				require.ErrorIs(t, err, objects.ErrNotFound)
				require.ErrorContains(t, err, filepath.Base(path))
				return
			}
			require.ErrorIs(t, err, test.class)
			require.ErrorContains(t, err, test.text)
		})
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int64) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[at] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
}
