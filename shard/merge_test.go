package shard

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// A merge equals sorting everything and keeping the best occurrence of each id: the best, or
// those up to a cursor and the best after it.
func TestMergeEqualsSort(t *testing.T) {
	var m merger // its memory is reused
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.Dot, index.L2}).Draw(t, "metric")
		compare := func(a, b Hit) int {
			if a.before(&b, metric) {
				return -1
			}
			return cmp.Compare(boolInt(b.before(&a, metric)), 0)
		}
		lists := make([][]Hit, rapid.IntRange(0, 6).Draw(t, "lists"))
		var all []Hit
		for i := range lists {
			seen := map[string]bool{}
			for range rapid.IntRange(0, 12).Draw(t, "hits") {
				h := Hit{ID: fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "id")), Score: float32(rapid.IntRange(0, 4).Draw(t, "score"))}
				if !seen[h.ID] {
					seen[h.ID] = true
					lists[i] = append(lists[i], h)
				}
			}
			slices.SortFunc(lists[i], compare)
			all = append(all, lists[i]...)
		}
		slices.SortStableFunc(all, compare)
		seen := map[string]bool{}
		want := []Hit{}
		k, wanted, before := rapid.IntRange(1, 40).Draw(t, "k"), 0, 0
		wanted = k
		var after *Cursor
		if rapid.Bool().Draw(t, "a page") {
			after = &Cursor{ID: fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "after")), Score: float32(rapid.IntRange(0, 4).Draw(t, "score after"))}
			after.Most = rapid.SampledFrom([]int{0, 1, 5, 20}).Draw(t, "most")
		}
		var refused Refused
		none := refusedIDs{}
		if rapid.Bool().Draw(t, "refuses") {
			for _, id := range rapid.SliceOfN(rapid.IntRange(0, 30), 0, 20).Draw(t, "refused") {
				none[fmt.Sprint(id)] = true
			}
			refused = none
		}
		for _, h := range all {
			if after != nil && after.Most > 0 {
				wanted = min(wanted, after.Most)
			}
			if !seen[h.ID] && len(want) < wanted && !none[h.ID] {
				seen[h.ID] = true
				want = append(want, h)
				if after != nil && compare(h, Hit{ID: after.ID, Score: after.Score}) <= 0 {
					before++
					wanted = k + before
				}
			}
		}
		if after != nil && after.Most > 0 {
			wanted = min(wanted, after.Most)
		}
		got, err := m.merge(context.Background(), metric, k, after, nil, refused, lists)
		require.NoError(t, err)
		require.Equal(t, want, append([]Hit{}, got...))
		require.Equal(t, before, m.before)
		require.Equal(t, len(want) == wanted, m.full)
	})
}

// refusedIDs is a set of ids.
type refusedIDs map[string]bool

func (r refusedIDs) Has(id string) bool { return r[id] }

func (r refusedIDs) HasAny(ids []string) bool { return slices.ContainsFunc(ids, r.Has) }

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func BenchmarkMerge(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	lists := make([][]Hit, 4)
	for i := range lists {
		for range 49 {
			lists[i] = append(lists[i], Hit{ID: fmt.Sprint(r.IntN(1 << 20)), Score: r.Float32()})
		}
		slices.SortFunc(lists[i], func(x, y Hit) int {
			if x.before(&y, index.Dot) {
				return -1
			}
			return 1
		})
	}
	var m merger
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.merge(context.Background(), index.Dot, 100, nil, nil, nil, lists); err != nil {
			b.Fatal(err)
		}
	}
}
