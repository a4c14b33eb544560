package shard_test

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
	"github.com/tandem-ann/tandem/shard/objects"
)

// publish writes a small snapshot to a new store.
func publish(t *testing.T, rows, shards int) (*shard.Store, shard.Digest) {
	store := newStore(t, t.TempDir())
	d, err := store.Publish(t.Context(), newManifest(t, store, grid(rows), 1, shards, index.DefaultParams(index.Dot)))
	require.NoError(t, err)
	return store, d
}

func TestSnapshotRoundTrip(t *testing.T) {
	store, d := publish(t, 50, 3)
	s, err := shard.OpenSnapshot(context.Background(), store, d)
	require.NoError(t, err)
	require.NoError(t, s.Warm(context.Background()))
	require.Equal(t, d, s.Digest())
	require.Equal(t, "feed", s.Manifest().Model)
	require.Equal(t, 50, s.Tower(shard.Apps).Rows())
	require.Equal(t, "users-0002", s.Tower(shard.Users).Shards()[2].Name())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "Close is idempotent")

	var names []string
	require.NoError(t, shard.VerifySnapshot(context.Background(), store, d, func(name string) { names = append(names, name) }))
	require.Len(t, names, 6)
}

func TestPublishNeedsItsShards(t *testing.T) {
	store := newStore(t, t.TempDir())
	m := newManifest(t, store, grid(10), 1, 1, index.DefaultParams(index.Dot))
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
	store := newStore(t, t.TempDir())
	_, err := store.Resolve(t.Context(), "")
	require.ErrorIs(t, err, shard.ErrNoSnapshot)
	var digests []shard.Digest
	for i, version := range []string{"1", "2", "3"} {
		m := newManifest(t, store, grid(10), 1, 1, index.DefaultParams(index.Dot))
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
	require.ErrorIs(t, err, shard.ErrNoSnapshot)

	m, err := store.Manifest(t.Context(), digests[0])
	require.NoError(t, err)
	again, err := store.Publish(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, digests[0], again)
	newest, err = store.Resolve(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, digests[0], newest, "publishing again makes it the newest")
}

// One flipped byte anywhere in a shard file is found when it is opened, and the
// error names the place.
func TestEveryByteOfAShardIsChecked(t *testing.T) {
	store, d := publish(t, 12, 1)
	m, err := store.Manifest(t.Context(), d)
	require.NoError(t, err)
	data, err := os.ReadFile(store.ShardPath(m.Apps.Shards[0].Digest))
	require.NoError(t, err)
	f, err := sections.FromBytes(data)
	require.NoError(t, err)
	place := func(at int) string {
		if at < sections.PageSize {
			return "header"
		}
		for _, e := range f.Entries() {
			end := e.Offset + (e.Length+sections.PageSize-1)/sections.PageSize*sections.PageSize
			if uint64(at) >= e.Offset && uint64(at) < end {
				return "section " + e.Name + ":"
			}
		}
		return "table of contents"
	}
	step := 1
	if testing.Short() {
		step = 97
	}
	for at := 0; at < len(data); at += step {
		data[at] ^= 0x40
		_, err := shard.FromBytes(data)
		if !errors.Is(err, sections.ErrCorrupt) && !errors.Is(err, sections.ErrVersion) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if !strings.Contains(err.Error(), place(at)) {
			t.Fatalf("byte %d: error %q does not name %q", at, err, place(at))
		}
		data[at] ^= 0x40
	}
	for _, length := range []int{0, 1, 4095, 4096, 8192, len(data) - 4096, len(data) - 1} {
		_, err := shard.FromBytes(data[:length])
		require.ErrorIs(t, err, sections.ErrCorrupt)
	}
	_, err = shard.FromBytes(append(data, make([]byte, 4096)...))
	require.ErrorIs(t, err, sections.ErrCorrupt)
}

// Damage to a store is found by the library and by verification, which name the
// file.
func TestDamagedStore(t *testing.T) {
	shardPath := func(store *shard.Store, d shard.Digest, number int) string {
		m, err := store.Manifest(t.Context(), d)
		require.NoError(t, err)
		return store.ShardPath(m.Apps.Shards[number].Digest)
	}
	for name, test := range map[string]struct {
		damage func(*testing.T, *shard.Store, shard.Digest) (path string)
		text   string
		class  error // of opening; verifying finds the same, unless the file is missing
	}{
		"flipped byte in a shard": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			flip(t, shardPath(s, d, 1), 4096)
			return shardPath(s, d, 1)
		}, "section shard.id_offsets: checksum", sections.ErrCorrupt},
		"truncated shard": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			require.NoError(t, os.Truncate(shardPath(s, d, 0), 20000))
			return shardPath(s, d, 0)
		}, "header: file has 20000 bytes", sections.ErrCorrupt},
		"empty shard file": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			require.NoError(t, os.Truncate(shardPath(s, d, 0), 0))
			return shardPath(s, d, 0)
		}, "header: file has 0 bytes", sections.ErrCorrupt},
		"shard of another version": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			flip(t, shardPath(s, d, 0), 8)
			return shardPath(s, d, 0)
		}, "format version is 0, this build reads version 1", sections.ErrVersion},
		"shards swapped": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			a, b := shardPath(s, d, 0), shardPath(s, d, 1)
			data, err := os.ReadFile(a)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(b, data, 0o600))
			return b
		}, "the manifest says", sections.ErrCorrupt},
		"missing shard": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			p := shardPath(s, d, 0)
			require.NoError(t, os.Remove(p))
			return p
		}, "no such file", os.ErrNotExist},
		"flipped byte in the manifest": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			data, err := os.ReadFile(s.ManifestPath(d))
			require.NoError(t, err)
			flip(t, s.ManifestPath(d), int64(strings.Index(string(data), "feed")))
			return s.ManifestPath(d)
		}, "not its name", sections.ErrCorrupt},
		"truncated manifest": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			require.NoError(t, os.Truncate(s.ManifestPath(d), 100))
			return s.ManifestPath(d)
		}, "unexpected end of JSON", sections.ErrCorrupt},
		"manifest of another version": {func(t *testing.T, s *shard.Store, d shard.Digest) string {
			data, err := os.ReadFile(s.ManifestPath(d))
			require.NoError(t, err)
			data = []byte(strings.Replace(string(data), `"version": 1`, `"version": 9`, 1))
			require.NoError(t, os.WriteFile(s.ManifestPath(d), data, 0o600))
			return s.ManifestPath(d)
		}, "version is 9, this build reads versions 1 to 6", sections.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			store, d := publish(t, 40, 2)
			path := test.damage(t, store, d)
			_, err := shard.OpenSnapshot(context.Background(), store, d)
			require.ErrorIs(t, err, test.class)
			require.ErrorContains(t, err, filepath.Base(path))
			require.ErrorContains(t, err, test.text)
			err = shard.VerifySnapshot(context.Background(), store, d, func(string) {})
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

func FuzzDecodeManifest(f *testing.F) {
	store := newStore(f, f.TempDir())
	m := newManifest(f, store, grid(3), 1, 1, index.DefaultParams(index.Dot))
	data, err := m.Encode()
	require.NoError(f, err)
	f.Add(data)
	data, err = gatedManifest(f).Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"version": 2}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := shard.DecodeManifest(data)
		if err != nil {
			require.True(t, errors.Is(err, sections.ErrCorrupt) || errors.Is(err, sections.ErrVersion), "%v", err)
			return
		}
		_, err = m.Encode()
		require.NoError(t, err, "what decodes can be encoded")
	})
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int64) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[at] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
}
