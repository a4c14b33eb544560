package interleave_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/interleave"
)

// TestDraft holds what a draft promises for any two lists.
func TestDraft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 0, 20, rapid.ID[int])
		var lists [2][]string
		for i := range lists {
			for _, id := range ids.Draw(t, "list") {
				lists[i] = append(lists[i], fmt.Sprint(id))
			}
		}
		k, seed := rapid.IntRange(0, 25).Draw(t, "k"), rapid.Uint64().Draw(t, "seed")
		bad := rapid.SliceOf(rapid.IntRange(0, 30)).Draw(t, "bad")
		asked := map[string]int{}
		may := func(p interleave.Pick) bool {
			asked[p.ID]++
			return !slices.ContainsFunc(bad, func(n int) bool { return fmt.Sprint(n) == p.ID })
		}
		d := interleave.Draft(lists, k, seed, may)

		seen := map[string]bool{}
		for _, p := range d.Picks {
			require.False(t, seen[p.ID], "no id twice")
			seen[p.ID] = true
			require.Equal(t, p.ID, lists[p.Team][p.Rank])
			require.Equal(t, 1, asked[p.ID])
		}
		for id, n := range asked {
			require.Equal(t, 1, n, id)
		}
		// The most that there can be.
		all := map[string]bool{}
		for _, list := range lists {
			for _, id := range list {
				if !slices.ContainsFunc(bad, func(n int) bool { return fmt.Sprint(n) == id }) {
					all[id] = true
				}
			}
		}
		require.Len(t, d.Picks, min(k, len(all)))
		// While neither team is out, each has one of each round, and takes its best.
		var turns [2]int
		taken := map[string]bool{}
		for i, p := range d.Picks {
			for team := range lists {
				if d.Out[team] >= 0 && i >= d.Out[team] {
					return
				}
			}
			if i%2 == 0 {
				require.Equal(t, turns[0], turns[1])
			}
			turns[p.Team]++
			best := slices.IndexFunc(lists[p.Team], func(id string) bool { return !taken[id] && all[id] })
			require.Equal(t, best, p.Rank)
			taken[p.ID] = true
		}
		require.Equal(t, d, interleave.Draft(lists, k, seed, may), "the same again")
	})
}

// TestFurther has drafts in pieces be one draft: each goes on where the one before has read to.
func TestFurther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 0, 20, rapid.ID[int])
		var lists, left [2][]string
		for i := range lists {
			for _, id := range ids.Draw(t, "list") {
				lists[i] = append(lists[i], fmt.Sprint(id))
			}
			left[i] = lists[i]
		}
		seed := rapid.Uint64().Draw(t, "seed")
		whole := interleave.Draft(lists, 100, seed, nil)
		var pieces []interleave.Pick
		shown := map[string]bool{}
		for len(pieces) < len(whole.Picks) {
			k := rapid.IntRange(1, 7).Draw(t, "k")
			d := interleave.Further(left, len(pieces), k, seed, func(p interleave.Pick) bool { return !shown[p.ID] })
			require.NotEmpty(t, d.Picks)
			for _, p := range d.Picks {
				shown[p.ID] = true
				pieces = append(pieces, interleave.Pick{ID: p.ID, Team: p.Team, Rank: p.Rank + len(lists[p.Team]) - len(left[p.Team])})
			}
			for team := range left {
				left[team] = left[team][d.Read[team]:]
			}
		}
		require.Equal(t, whole.Picks, pieces)
	})
}

// TestDraftIsFair has either team begin as often, in each round.
func TestDraftIsFair(t *testing.T) {
	lists := [2][]string{{"a", "b", "c"}, {"d", "e", "f"}}
	const n = 20_000
	var first [3]int
	for seed := range uint64(n) {
		d := interleave.Draft(lists, 6, seed, nil)
		for round := range first {
			first[round] += int(d.Picks[2*round].Team)
		}
	}
	for round, got := range first {
		require.InDelta(t, n/2, got, 4*70.7, "round %d", round) // four standard deviations
	}
}

func ExampleDraft() {
	d := interleave.Draft([2][]string{{"chess", "go", "poker"}, {"go", "chess", "rummy"}}, 3, 1, nil)
	for _, p := range d.Picks {
		fmt.Println(p.ID, p.Team)
	}
	// Output:
	// chess 0
	// go 1
	// rummy 1
}
