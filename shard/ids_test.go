package shard

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index/sections"
)

// Each id is found in its row and no other id is found, whatever they have in common.
func TestFindIDs(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"", "a", "b", "\x00", "\x00\x00", "aaaaaaaa", "aaaaaaab", "ü", "zzzzzzzzzzzzzzzz"})
		common := part.Draw(t, "common")
		draw := rapid.Custom(func(t *rapid.T) string {
			s := common
			for range rapid.IntRange(0, 5).Draw(t, "parts") {
				s += part.Draw(t, "part")
			}
			return s
		})
		list := rapid.SliceOfN(draw, 0, 200).Draw(t, "ids")
		list = slices.DeleteFunc(list, func(id string) bool { return id == "" })
		slices.Sort(list)
		list = slices.Compact(list)
		path := dir + "/ids"
		w, err := sections.Create(path)
		require.NoError(t, err)
		require.NoError(t, writeIDs(w, list))
		require.NoError(t, w.Commit())
		f, err := sections.Open(path)
		require.NoError(t, err)
		defer f.Close()
		l, err := openIDs(f, len(list))
		require.NoError(t, err)
		others := rapid.SliceOfN(rapid.OneOf(part, draw), 0, 30).Draw(t, "others")
		for _, id := range append(others, list...) {
			want, known := slices.BinarySearch(list, id)
			row, ok := l.find(id)
			require.Equal(t, known, ok, "%q in %q", id, list)
			if known {
				require.EqualValues(t, want, row)
			}
		}
	})
}
