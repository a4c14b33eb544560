package shard_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
)

// One flipped byte anywhere in a shard file is found when it is opened, and the
// error names the place.
func TestEveryByteOfAShardIsChecked(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, shardtest.Grid(12), 1, 1, index.DefaultParams(index.Dot))
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
