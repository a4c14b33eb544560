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

// A merge equals sorting everything and keeping the best occurrence of each id.
func TestMergeEqualsSort(t *testing.T) {
	var m merger // its memory is reused
	rapid.Check(t, func(t *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.Dot, index.L2}).Draw(t, "metric")
		compare := func(a, b hit) int {
			if a.before(&b, metric) {
				return -1
			}
			return cmp.Compare(boolInt(b.before(&a, metric)), 0)
		}
		lists := make([][]hit, rapid.IntRange(0, 6).Draw(t, "lists"))
		var all []hit
		for i := range lists {
			seen := map[string]bool{}
			for range rapid.IntRange(0, 12).Draw(t, "hits") {
				h := hit{id: fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "id")), score: float32(rapid.IntRange(0, 4).Draw(t, "score"))}
				if !seen[h.id] {
					seen[h.id] = true
					lists[i] = append(lists[i], h)
				}
			}
			slices.SortFunc(lists[i], compare)
			all = append(all, lists[i]...)
		}
		slices.SortStableFunc(all, compare)
		seen := map[string]bool{}
		want := []hit{}
		k := rapid.IntRange(1, 40).Draw(t, "k")
		for _, h := range all {
			if !seen[h.id] && len(want) < k {
				seen[h.id] = true
				want = append(want, h)
			}
		}
		got, err := m.merge(context.Background(), metric, k, nil, lists)
		require.NoError(t, err)
		require.Equal(t, want, append([]hit{}, got...))
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func BenchmarkMerge(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	lists := make([][]hit, 4)
	for i := range lists {
		for range 49 {
			lists[i] = append(lists[i], hit{id: fmt.Sprint(r.IntN(1 << 20)), score: r.Float32()})
		}
		slices.SortFunc(lists[i], func(x, y hit) int {
			if x.before(&y, index.Dot) {
				return -1
			}
			return 1
		})
	}
	var m merger
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.merge(context.Background(), index.Dot, 100, nil, lists); err != nil {
			b.Fatal(err)
		}
	}
}
