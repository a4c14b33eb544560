package snapshots_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// One shard is opened without the others, and is the one that the manifest names.
func TestOpenShard(t *testing.T) {
	ctx, cache := t.Context(), t.TempDir()
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	defer func() { require.NoError(t, bucket.Close()) }()
	var moved transferred
	store := newStoreIn(t, bucket, moved.options(cache))
	from, m := staged(t, 90, 3)
	_, err := store.Import(ctx, from, m)
	require.NoError(t, err)
	clear(moved.by)
	sm := m.Apps.Shards[1]

	open := func() {
		t.Helper()
		tower, err := snapshots.OpenShard(ctx, store, m, shard.Apps, 1)
		require.NoError(t, err)
		assert.Equal(t, []any{"apps-0001", sm.Rows, 1}, []any{tower.Parts()[0].Info().Name, tower.Rows(), len(tower.Parts())})
		require.NoError(t, snapshots.WarmTower(ctx, tower))
		require.NoError(t, tower.Close())
	}
	open()
	assert.Len(t, moved.by, 1, "no other file is read")
	assert.Equal(t, sm.Size, moved.by[sm.Digest])

	path := filepath.Join(cache, "shards", string(sm.Digest)+".shard")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
	clear(moved.by)
	open()
	assert.Equal(t, sm.Size, moved.by[sm.Digest], "what is damaged is downloaded once more")

	for _, number := range []int{-1, 3} {
		_, err = snapshots.OpenShard(ctx, store, m, shard.Users, number)
		assert.ErrorContains(t, err, "of users, of which there are 3")
	}
	wrong := *m
	wrong.Apps.Shards = append(wrong.Apps.Shards[:0:0], m.Apps.Shards...)
	wrong.Apps.Shards[1], wrong.Apps.Shards[2] = wrong.Apps.Shards[2], wrong.Apps.Shards[1]
	_, err = snapshots.OpenShard(ctx, store, &wrong, shard.Apps, 1)
	assert.ErrorIs(t, err, sections.ErrCorrupt)
}
