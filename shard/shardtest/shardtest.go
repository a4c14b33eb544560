// Package shardtest makes small towers, and snapshots of them, for tests.
package shardtest

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// App is one row of a test tower.
type App struct {
	ID        string
	Vector    []float32
	Platforms []string
	Age       int64  // absent when negative
	Developer string // absent when empty
	Free      bool
}

// The attributes, by their places in the schema.
const (
	Developer = iota
	Free
	MinAge
	Platforms
)

// Schema returns the attributes, in the order of their places.
func Schema() attribute.Schema {
	s, err := attribute.NewSchema([]attribute.Field{
		{Name: "developer", Type: attribute.Keyword},
		{Name: "free", Type: attribute.Bool},
		{Name: "min_age", Type: attribute.Int},
		{Name: "platforms", Type: attribute.KeywordList},
		{Name: "price", Type: attribute.Float},
	})
	if err != nil {
		panic(err)
	}
	return s
}

// TB is a testing.TB or a *rapid.T, as far as this package needs it.
type TB interface {
	require.TestingT
	Helper()
}

// WriteTower writes the shards of a tower to a store and lists them.
func WriteTower(t TB, store *snapshots.Store, apps []App, dim, shards int, params index.Params, segments ...shard.Segment) manifest.Tower {
	t.Helper()
	m := manifest.Tower{Params: params.String(), Schema: Schema()}
	for number := range shards {
		var rows []App
		for _, a := range apps {
			if shard.Partition(a.ID, shards) == number {
				rows = append(rows, a)
			}
		}
		slices.SortFunc(rows, func(a, b App) int { return cmp.Compare(a.ID, b.ID) })
		vectors, err := index.NewMatrix(dim, len(rows))
		require.NoError(t, err)
		w := attribute.NewWriter(m.Schema, len(rows))
		var ids []string
		var keys []uint64
		for i, a := range rows {
			require.NoError(t, vectors.Append(a.Vector))
			ids = append(ids, a.ID)
			keys = append(keys, shard.Key(a.ID))
			if a.Age >= 0 {
				require.NoError(t, w.Set(i, MinAge, attribute.OfInt(a.Age)))
			}
			if a.Developer != "" {
				require.NoError(t, w.Set(i, Developer, attribute.OfKeyword(a.Developer)))
			}
			require.NoError(t, w.Set(i, Free, attribute.OfBool(a.Free)))
			require.NoError(t, w.Set(i, Platforms, attribute.OfKeywords(slices.Clone(a.Platforms))))
		}
		x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(t, err)
		stage, err := store.Stage()
		require.NoError(t, err)
		path := filepath.Join(stage.Dir(), "a.shard")
		require.NoError(t, shard.Write(path, ids, x, w, segments...))
		sm, err := store.AddShard(context.Background(), path)
		require.NoError(t, err)
		require.NoError(t, stage.Close())
		sm.Rows = len(rows)
		m.Rows += len(rows)
		m.Shards = append(m.Shards, sm)
	}
	return m
}

// Manifest returns the manifest of a snapshot with the same rows in both
// towers.
func Manifest(t TB, store *snapshots.Store, apps []App, dim, shards int, params index.Params) *manifest.Manifest {
	tm := WriteTower(t, store, apps, dim, shards, params)
	return &manifest.Manifest{
		Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: "1",
		Metric: params.Metric, Dim: dim, Apps: tm, Users: tm,
	}
}

// Store makes a store that cleanup removes.
func Store(t TB, dir string) *snapshots.Store {
	store, err := snapshots.CreateStore(context.Background(), dir, snapshots.Options{})
	require.NoError(t, err)
	return store
}

// Grid returns n apps on a line: the inner product with {1} is the number.
func Grid(n int) []App {
	apps := make([]App, n)
	for i := range apps {
		apps[i] = App{ID: fmt.Sprintf("app-%03d", i), Vector: []float32{float32(i + 1)}, Age: int64(i % 20), Platforms: []string{"ios"}}
	}
	return apps
}
