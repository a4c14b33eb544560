package shard

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// BenchmarkEligibleIDs looks 50,000 ids up to include and as many to exclude, half of
// which the shard has.
func BenchmarkEligibleIDs(b *testing.B) {
	const rows, asked = 250_000, 50_000
	names := make([]string, rows)
	vectors, err := index.NewMatrix(4, rows)
	require.NoError(b, err)
	keys := make([]uint64, rows)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range names {
		names[i] = fmt.Sprintf("app-%09d", i*7919%1_000_000_007)
	}
	slices.Sort(names)
	for i, id := range names {
		require.NoError(b, vectors.Append([]float32{r.Float32(), r.Float32(), r.Float32(), 1}))
		keys[i] = Key(id)
	}
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 2, 2 // the graph is not what is measured
	x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: keys}, params)
	require.NoError(b, err)
	schema, err := attribute.NewSchema(nil)
	require.NoError(b, err)
	path := filepath.Join(b.TempDir(), "a.shard")
	require.NoError(b, Write(path, names, x, attribute.NewWriter(schema, rows)))
	s, err := Open(path)
	require.NoError(b, err)
	defer s.Close()
	draw := func() (ids []string) {
		for range asked {
			id := names[r.IntN(rows)]
			if r.IntN(2) == 0 {
				id += "x"
			}
			ids = append(ids, id)
		}
		return ids
	}
	compiler, err := eligibility.NewCompiler(schema)
	require.NoError(b, err)
	l := NewLocal(s, compiler)
	request, w := &Request{Included: true, Include: draw(), Exclude: draw()}, &work{view: view{shard: s}}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.narrow(b.Context(), request, w); err != nil {
			b.Fatal(err)
		}
	}
}
