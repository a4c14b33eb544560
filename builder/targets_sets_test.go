package builder_test

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
)

// targetSet is two towers that recall targets are tried on.
type targetSet struct {
	name   string
	metric index.Metric
	shards int
	apps   func() [][]float32
	users  func() [][]float32
}

// targetUsers is how many users each made set has: those that a build asks with, and
// 2,000 that it does not.
const targetUsers = 4000

// madeSets are of different shapes, each drawn from a seed of its own.
func madeSets() []targetSet {
	const seed = 20
	return []targetSet{
		clusters("clustered", seed, index.Dot, 1, 24_000, 32, 200, 0.6, nil),
		clusters("heavy norms", seed+1, index.Dot, 1, 24_000, 48, 200, 0.8, func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()) }),
		clusters("heavy norms in shards", seed+2, index.Dot, 3, 24_000, 32, 100, 0.8, func(r *rand.Rand) float64 { return math.Pow(1-r.Float64(), -0.4) }),
		clusters("cosine", seed+3, index.Cosine, 1, 24_000, 64, 300, 0.8, nil),
		clusters("l2 of wide clusters", seed+4, index.L2, 1, 20_000, 96, 50, 1, nil),
		clusters("l2 of narrow clusters", seed+5, index.L2, 1, 24_000, 24, 400, 0.15, nil),
		clusters("small", seed+6, index.Cosine, 1, 3000, 16, 30, 0.7, nil),
		plane("l2 of few dimensions", seed+7, index.L2, 1, 30_000, 8, 8, 0),
		plane("high dimensions", seed+8, index.Dot, 1, 10_000, 384, 12, 0.05),
		plane("collapsed", seed+9, index.Cosine, 2, 24_000, 64, 6, 0.1),
		apart("users apart", seed+10, 20_000, 48),
	}
}

// normal returns rows of independent normal components.
func normal(r *rand.Rand, rows, dim int) [][]float32 {
	out := make([][]float32, rows)
	for i := range out {
		out[i] = make([]float32, dim)
		for j := range out[i] {
			out[i][j] = float32(r.NormFloat64())
		}
	}
	return out
}

// clusters has rows around centres that both towers share; scale, if not nil, draws how
// long an app's vector is.
func clusters(name string, seed uint64, metric index.Metric, shards, apps, dim, centres int, spread float64, scale func(*rand.Rand) float64) targetSet {
	around := func(part uint64, rows int, scale func(*rand.Rand) float64) [][]float32 {
		middle := normal(rand.New(rand.NewPCG(seed, 0)), centres, dim)
		r := rand.New(rand.NewPCG(seed, part))
		out := normal(r, rows, dim)
		for _, v := range out {
			// Some clusters have many more rows than others.
			u := r.Float64()
			c, by := middle[int(u*u*float64(centres))], 1.0
			if scale != nil {
				by = scale(r)
			}
			for j := range v {
				v[j] = float32(by * (float64(c[j]) + spread*float64(v[j])))
			}
		}
		return out
	}
	return targetSet{
		name, metric, shards,
		func() [][]float32 { return around(1, apps, scale) },
		func() [][]float32 { return around(2, targetUsers, nil) },
	}
}

// plane has rows near a plane of a few dimensions, off its origin, in a space of many.
func plane(name string, seed uint64, metric index.Metric, shards, apps, dim, rank int, noise float64) targetSet {
	near := func(part uint64, rows int) [][]float32 {
		shared := rand.New(rand.NewPCG(seed, 0))
		base, origin := normal(shared, rank, dim), normal(shared, 1, dim)[0]
		r := rand.New(rand.NewPCG(seed, part))
		at, out := normal(r, rows, rank), normal(r, rows, dim)
		for i, v := range out {
			for j := range v {
				x := float64(origin[j]) + noise*float64(v[j])
				for d := range base {
					x += float64(float64(at[i][d])*float64(base[d][j])) / math.Sqrt(float64(rank))
				}
				v[j] = float32(x)
			}
		}
		return out
	}
	return targetSet{
		name, metric, shards,
		func() [][]float32 { return near(1, apps) },
		func() [][]float32 { return near(2, targetUsers) },
	}
}

// apart has users that are mixtures of a few apps, which no app is like.
func apart(name string, seed uint64, apps, dim int) targetSet {
	of := clusters(name, seed, index.Dot, 1, apps, dim, 500, 0.5, func(r *rand.Rand) float64 { return math.Exp(0.3 * r.NormFloat64()) })
	of.users = func() [][]float32 {
		from, r := of.apps(), rand.New(rand.NewPCG(seed, 3))
		out := normal(r, targetUsers, dim)
		for _, v := range out {
			for range 4 {
				for j, x := range from[r.IntN(len(from))] {
					v[j] += x
				}
			}
		}
		return out
	}
	return of
}

// realSets are the sets that are in a folder.
func realSets(t *testing.T, dir string) []targetSet {
	read := func(limit int, parts ...string) func() [][]float32 {
		return func() [][]float32 { return vectorsOf(t, filepath.Join(append([]string{dir}, parts...)...), limit) }
	}
	// Descriptors of other photographs are too few, so half of the users are rows.
	const siftRows, siftUsers = 40_000, 5000
	return []targetSet{
		{"steam", index.Dot, 2, read(0, "steam", "apps.parquet"), read(0, "steam", "users.parquet")},
		{"steam_sgd", index.Dot, 1, read(0, "steam_sgd", "apps.parquet"), read(0, "steam_sgd", "users.parquet")},
		{
			"sift", index.L2, 1, read(siftRows, "sift", "base.u8bin"),
			func() [][]float32 { return read(siftRows+siftUsers, "sift", "base.u8bin")()[siftRows:] },
		},
	}
}

// vectorsOf reads the vectors of at most limit rows of a file; 0 is no limit.
func vectorsOf(t *testing.T, path string, limit int) [][]float32 {
	o := tower.Options{Paths: []string{path}}
	switch filepath.Base(path) {
	case "apps.parquet":
		o.IDColumn = "app_id"
	case "users.parquet":
		o.IDColumn = "user_id"
	default:
		o.NumberRows = true
	}
	r, err := tower.Open(t.Context(), o)
	require.NoError(t, err)
	n := int(r.Rows())
	if limit > 0 {
		n = min(n, limit)
	}
	out := make([][]float32, n)
	for i := range out {
		row, err := r.Next()
		require.NoError(t, err)
		out[i] = slices.Clone(row.Vector)
	}
	require.NoError(t, r.Close())
	return out
}

// numbered gives vectors ids.
func numbered(prefix string, vectors [][]float32) []row {
	out := make([]row, len(vectors))
	for i, v := range vectors {
		out[i] = row{id: prefix + strconv.Itoa(i), vector: v}
	}
	return out
}
