package builder_test

import (
	"context"
	"fmt"
	oldrand "math/rand"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/coder/hnsw"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// export builds a coder/hnsw graph over the rows and writes its export.
func export(t *testing.T, list []row) string {
	g := hnsw.NewGraph[string]()
	g.Distance = hnsw.EuclideanDistance
	g.M = 32
	g.Rng = oldrand.New(oldrand.NewSource(1))
	for _, r := range list {
		g.Add(hnsw.MakeNode(r.id, r.vector))
	}
	path := filepath.Join(t.TempDir(), "apps.hnsw")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, g.Export(f))
	require.NoError(t, f.Close())
	return path
}

func TestGraphIsFrozen(t *testing.T) {
	apps, users := rows("app", 800, 8, 11), rows("user", 100, 8, 12)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range apps { // the library does not find its way among equal vectors
		apps[i].vector[0] += r.Float32() / 100
	}
	o := options(t, index.L2, apps, users)
	o.Apps.Shards, o.Apps.Graph = 1, export(t, apps)
	store, report := build(t, o)
	require.Len(t, report.Manifest.Inputs, 3)
	require.Equal(t, "apps-graph", report.Manifest.Inputs[1].Role)
	require.NotEmpty(t, report.Manifest.Apps.Recall, "a frozen graph is measured like any other")
	require.NoError(t, snapshots.Verify(context.Background(), store, report.Digest, func(string) {}))

	x := open(t, store, report.Digest).Tower(shard.Apps).Local()[0].Index()
	require.True(t, x.Params().Frozen)
	require.Equal(t, 800, x.Layers()[0].Nodes)
	hits, stats, err := x.Search(index.Query{Vector: users[0].vector, K: 800, Ef: 800, Plan: index.GraphWalk}, nil)
	require.NoError(t, err)
	require.Equal(t, index.GraphWalk, stats.Plan)
	require.Len(t, hits, 800, "what the library left unreachable is linked")

	_, again := build(t, o)
	require.Equal(t, report.Digest, again.Digest)
}

func TestGraphMustHaveTheSameIDs(t *testing.T) {
	apps := rows("app", 60, 8, 13)
	o := options(t, index.L2, apps, rows("user", 20, 8, 14))
	o.Apps.Shards = 1
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	for text, list := range map[string][]row{
		fmt.Sprintf("has no node for the row %q", apps[0].id): apps[1:],
		`has a node "other"`: append([]row{{id: "other", vector: apps[0].vector}}, apps...),
	} {
		o.Apps.Graph = export(t, list)
		_, err = builder.Build(context.Background(), store, o)
		require.ErrorContains(t, err, text)
	}
	o.Apps.Graph = o.Apps.Input.Paths[0]
	_, err = builder.Build(context.Background(), store, o)
	require.ErrorContains(t, err, "coder/hnsw")
}
