package lowest_test

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/lowest"
)

// value is compared by its key alone.
type value struct{ key, at int }

func compare(a, b value) int { return cmp.Compare(a.key, b.key) }

// What is kept is what sorting all would leave, and every value is kept or dropped once.
func TestKeepsTheLowest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(-1, 20).Draw(t, "n")
		keys := rapid.SliceOfN(rapid.IntRange(0, 30), 0, 100).Draw(t, "keys")
		kept := lowest.New(n, compare)
		var all, dropped []value
		for i, key := range keys {
			v := value{key, i}
			all = append(all, v)
			takes := kept.Takes(v)
			gone, ok := kept.Add(v)
			require.Equal(t, takes, !ok || gone != v)
			if ok {
				dropped = append(dropped, gone)
			}
		}
		got := kept.Sorted()
		require.ElementsMatch(t, all, append(dropped, got...))
		slices.SortStableFunc(all, compare)
		want := all[:min(max(n, 0), len(all))]
		require.Len(t, got, len(want))
		for i := range want {
			require.Equal(t, want[i].key, got[i].key)
		}
		require.Equal(t, got, kept.Sorted(), "it is not spent")
	})
}
