package builder_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Exact answers are those of a sum in float64, among all rows and in each segment,
// whatever the shards.
func TestProbeExact(t *testing.T) {
	apps, users := rows("app", 700, 20, 21), rows("user", 70, 20, 22)
	for _, metric := range []index.Metric{index.Dot, index.Cosine, index.L2} {
		t.Run(metric.String(), func(t *testing.T) {
			o := options(t, metric, apps, users)
			o.Segments = segmentsFile(t, "free: free\nrare: min_age == 3 && free\nnone: min_age > 100\n")
			store, report := build(t, o)
			tw := open(t, store, report.Digest).Tower(shard.Apps)
			var queries [][]float32
			for _, u := range users {
				queries = append(queries, u.vector)
			}
			const k = 15
			a, err := probe.Exact(t.Context(), tw, queries, k, []string{"rare", "none", "free"})
			require.NoError(t, err)
			in := map[string]map[string]bool{"free": {}, "rare": {}, "none": {}}
			for _, r := range apps {
				free := !r.values[0].Absent() && r.values[0].Bool()
				in["free"][r.id] = free
				in["rare"][r.id] = free && !r.values[2].Absent() && r.values[2].Int() == 3
			}
			for q, query := range queries {
				requireExact(t, metric, apps, query, k, func(string) bool { return true }, a.All[q])
				for i, name := range []string{"rare", "none", "free"} {
					requireExact(t, metric, apps, query, k, func(id string) bool { return in[name][id] }, a.Segments[i][q])
				}
				for _, h := range a.All[q] {
					require.Equal(t, in["rare"][h.ID], a.InSegment(0, h))
					require.Equal(t, in["free"][h.ID], a.InSegment(2, h))
				}
			}
		})
	}
}

func requireExact(t *testing.T, metric index.Metric, apps []row, query []float32, k int, eligible func(string) bool, got []probe.Hit) {
	t.Helper()
	var want []scoredID
	for _, r := range apps {
		if !eligible(r.id) {
			continue
		}
		var dot, square, a, b float64
		for i, x := range r.vector {
			y := query[i]
			dot += float64(x) * float64(y)
			a += float64(x) * float64(x)
			b += float64(y) * float64(y)
			square += float64(x-y) * float64(x-y)
		}
		score := dot
		switch metric {
		case index.Cosine:
			score = dot / math.Sqrt(a*b)
		case index.L2:
			score = -square
		}
		want = append(want, scoredID{id: r.id, score: score})
	}
	slices.SortFunc(want, func(a, b scoredID) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id)) })
	require.Len(t, got, min(k, len(want)))
	for i, h := range got {
		score := float64(h.Score)
		if metric == index.L2 {
			score = -score
		}
		require.InDelta(t, want[i].score, score, 1e-4*math.Max(1, math.Abs(want[i].score)))
		if i > 0 && h.Score == got[i-1].Score {
			require.Less(t, got[i-1].ID, h.ID, "ties are by id")
		}
	}
}

// Where most vectors are the same, ties are by id, in each shard and across them.
func TestProbeExactTies(t *testing.T) {
	apps, users := rows("app", 3000, 8, 23), rows("user", 20, 8, 24)
	for i := range apps {
		if i%10 > 0 {
			apps[i].vector = apps[i%3].vector
		}
	}
	o := options(t, index.Dot, apps, users)
	o.Segments = segmentsFile(t, "free: free\n")
	store, report := build(t, o)
	tw := open(t, store, report.Digest).Tower(shard.Apps)
	require.Greater(t, len(tw.Local()), 1)
	const k = 500
	queries := [][]float32{users[0].vector, users[1].vector, make([]float32, 8)}
	a, err := probe.Exact(t.Context(), tw, queries, k, []string{"free"})
	require.NoError(t, err)
	for q := range queries {
		// The same from answers as long as the tower, where no row is left out.
		all, err := probe.Exact(t.Context(), tw, queries[q:q+1], len(apps), []string{"free"})
		require.NoError(t, err)
		require.Len(t, all.All[0], len(apps))
		require.Equal(t, all.All[0][:k], a.All[q])
		require.Equal(t, all.Segments[0][0][:k], a.Segments[0][q])
		for i, h := range all.All[0][1:] {
			before := all.All[0][i]
			require.True(t, h.Score < before.Score || h.Score == before.Score && h.ID > before.ID)
		}
	}
}

// The cost of an exact answer does not depend on how many vectors are the same.
func BenchmarkProbeExact(b *testing.B) {
	for _, same := range []int{0, 50, 100} {
		b.Run(fmt.Sprintf("same=%d%%", same), func(b *testing.B) {
			apps, users := rows("app", 20_000, 32, 25), rows("user", 100, 32, 26)
			for i := range apps {
				if i%100 < same {
					apps[i].vector = apps[0].vector
				}
			}
			store, report := build(b, options(b, index.Dot, apps, users))
			tw := open(b, store, report.Digest).Tower(shard.Apps)
			queries := [][]float32{users[0].vector}
			for b.Loop() {
				_, err := probe.Exact(b.Context(), tw, queries, 100, nil)
				require.NoError(b, err)
			}
		})
	}
}

// Held-out users are those that the build measured with, and beyond them those it did
// not use.
func TestHeldOut(t *testing.T) {
	users := rows("user", 2300, 4, 31)
	store, report := build(t, options(t, index.Dot, rows("app", 40, 4, 32), users))
	tw := open(t, store, report.Digest).Tower(shard.Users)
	ids := make([]string, 0, len(users))
	for _, u := range users {
		ids = append(ids, u.id)
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(shard.SampleKey(a), shard.SampleKey(b)) })
	of := func(rows []probe.Row) (list []string) {
		for _, r := range rows {
			list = append(list, r.ID)
		}
		return list
	}
	var measured []string
	for i := 1; i < probe.SampleSize; i += 4 {
		measured = append(measured, ids[i])
	}
	require.Equal(t, measured, of(probe.HeldOut(tw, 500, nil)))
	require.Equal(t, measured[:7], of(probe.HeldOut(tw, 7, nil)))
	require.Equal(t, append(measured, ids[probe.SampleSize:][:100]...), of(probe.HeldOut(tw, 600, nil)))
	require.Equal(t, append(measured[1:], ids[probe.SampleSize]), of(probe.HeldOut(tw, 500, func(id string) bool { return id != measured[0] })))
	require.Equal(t, ids[:9], of(probe.Pick(tw, 9, nil)))
	require.Equal(t, &manifest.Samples{Shape: 500, Calibrate: 1000, Gate: 500}, report.Manifest.Apps.Samples)
	require.Equal(t, &manifest.Samples{Shape: 10, Calibrate: 20, Gate: 10, Weaker: []manifest.Purpose{manifest.Shape, manifest.Calibrate, manifest.Gate}}, report.Manifest.Users.Samples)
	require.Empty(t, probe.Pick(tw, 0, nil))
}
