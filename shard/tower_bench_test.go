package shard_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/shardtest"
)

// BenchmarkTower asks a tower of two shards by each way that a query can take.
func BenchmarkTower(b *testing.B) {
	const rows, dim = 20_000, 32
	r := rand.New(rand.NewPCG(1, 2))
	apps := make([]shardtest.App, rows)
	for i := range apps {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(r.NormFloat64())
		}
		apps[i] = shardtest.App{ID: fmt.Sprintf("app-%06d", i), Vector: v, Age: int64(r.IntN(20)), Developer: fmt.Sprint(r.IntN(500)), Platforms: []string{"ios"}}
	}
	tw := openApps(b, b.TempDir(), apps, dim, 2, index.Dot)
	b.Cleanup(func() { require.NoError(b, tw.Close()) })
	filter, err := tw.Compile(`min_age < 12 && "ios" in platforms`)
	require.NoError(b, err)
	bound, err := filter.Bind(b.Context(), nil)
	require.NoError(b, err)
	for name, q := range map[string]shard.Query{
		"walk":     {K: 100, Ef: 150},
		"scan":     {K: 100, Target: 1},
		"filter":   {K: 100, Ef: 150, Filter: &bound},
		"exclude":  {K: 100, Ef: 150, Exclude: []string{apps[1].ID, apps[2].ID}, Self: apps[3].ID},
		"at most":  {K: 100, Target: 1, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 1}}},
		"returned": {K: 100, Ef: 150, Attributes: []int{shardtest.Developer, shardtest.MinAge}},
	} {
		b.Run(name, func(b *testing.B) {
			q.Workers = 1
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q.Vectors = [][]float32{apps[i%1000].Vector}
				if _, err := tw.Search(b.Context(), &q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("vector", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, _, err := tw.Vector(b.Context(), shard.Moment{}, apps[i%rows].ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
