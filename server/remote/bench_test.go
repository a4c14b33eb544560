package remote_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/remote/remotetest"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// newBenchWorld returns a world of one shard whose rows have 64 numbers each, in which a search
// costs little.
func newBenchWorld(b *testing.B) *world {
	d := drawer{rand.New(rand.NewPCG(1, 2))}
	w := &world{d: d, metric: index.Dot, dim: 64, digest: manifest.Sum(nil), schema: schema(b), using: map[string]int{}}
	const rows = 2000
	vectors, err := index.NewMatrix(w.dim, rows)
	require.NoError(b, err)
	writer := attribute.NewWriter(w.schema, rows)
	for i := range rows {
		v := make([]float32, w.dim)
		for j := range v {
			v[j] = float32(d.NormFloat64())
		}
		require.NoError(b, vectors.Append(v))
		w.ids = append(w.ids, fmt.Sprintf("app-%012d", i))
	}
	x, err := index.Flat(vectors, w.metric)
	require.NoError(b, err)
	local, err := shard.InMemory("apps-0000", w.ids, x, writer, nil, nil)
	require.NoError(b, err)
	w.shards = []*shard.Shard{local}
	w.ground, err = shard.NewTower(shard.Apps, w.shards, w.metric, w.dim, w.schema)
	require.NoError(b, err)
	w.lay(b, nil)
	return w
}

// cpu returns the processor time of the process.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a search for 100 rows costs here, and over the network with both sides in this process.
func BenchmarkSearch(b *testing.B) {
	w := newBenchWorld(b)
	v := make([]float32, w.dim)
	for i := range v {
		v[i] = float32(w.d.NormFloat64())
	}
	r := &shard.Request{Moment: shard.Moment{Time: clock}, Vectors: [][]float32{v}, K: 100, Target: 1}
	path, h := remote.NewHandler(w, remote.Options{})
	n := ask(b, serve(b, path, h))
	for name, part := range map[string]shard.Part{
		"local":  w.ground.Parts()[0],
		"remote": remotetest.NewPart(n, w.id(0), shard.Position{}, shard.Info{}, remote.NewNames(w.metric)),
	} {
		b.Run(name, func(b *testing.B) {
			var reply shard.Reply
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				require.NoError(b, part.Search(b.Context(), r, &reply))
			}
			b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-us/op")
			require.Len(b, reply.Hits, 100)
		})
	}
}
