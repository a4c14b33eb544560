package inspect_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/inspect"
	"github.com/tandem-ann/tandem/shard/shardtest"
)

func TestFile(t *testing.T) {
	const rows = 40
	apps := shardtest.Grid(rows)
	apps[7].Age = -1
	apps[rows-1].Vector = apps[0].Vector // one node for both
	dir := t.TempDir()
	store := shardtest.Store(t, dir)
	tower := shardtest.WriteTower(t, store, apps, 1, 1, index.DefaultParams(index.Dot), shard.Segment{Name: "adult", Expression: "min_age >= 18"})
	path := store.ShardPath(tower.Shards[0].Digest)
	info, err := inspect.File(path)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	require.NoError(t, os.RemoveAll(dir)) // nothing of what follows needs it

	assert.Equal(t, path, info.Path)
	assert.Equal(t, tower.Shards[0].Size, info.Size)
	assert.Equal(t, []int{1, rows, rows - 1, 1}, []int{info.Dim, info.Rows, info.Nodes, info.Duplicates})
	assert.Equal(t, tower.Params, info.Params)
	for _, s := range info.Sections {
		assert.LessOrEqual(t, s.Offset+s.Length, uint64(info.Size), s.Name)
	}
	require.NotEmpty(t, info.Layers)
	nodes, links := 0, 0
	for degree, n := range info.Layers[0].Degrees {
		nodes += n
		links += degree * n
	}
	assert.Equal(t, []int{info.Nodes, info.Nodes, links}, []int{nodes, info.Layers[0].Nodes, info.Layers[0].Links})
	assert.InDelta(t, float64(links)/float64(nodes), info.Layers[0].Mean, 1e-9)

	// The norms are 1, 1, 2, ... 39.
	assert.Equal(t, inspect.Quantile{Share: 0, Norm: 1}, info.Norms.Quantiles[0])
	assert.Equal(t, inspect.Quantile{Share: 1, Norm: rows - 1}, info.Norms.Quantiles[8])
	sum := 0
	for _, n := range info.Norms.Bins {
		sum += n
	}
	assert.Equal(t, rows, sum)
	assert.Len(t, info.Norms.Bins, 10)
	assert.Equal(t, 5, info.Norms.Bins[0])

	present := map[string]int{}
	for _, a := range info.Attributes {
		present[a.Name] = a.Present
	}
	assert.Equal(t, map[string]int{"developer": 0, "free": rows, "min_age": rows - 1, "platforms": rows, "price": 0}, present)
	require.Len(t, info.Segments, 1)
	assert.Equal(t, "adult", info.Segments[0].Name)
	assert.Equal(t, 4, info.Segments[0].Eligible)

	data, err := json.Marshal(info)
	require.NoError(t, err)
	var back inspect.Shard
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, info, &back)
}

func TestFileThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.shard")
	_, err := inspect.File(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("nonsense"), 0o600))
	_, err = inspect.File(path)
	require.ErrorContains(t, err, path)
}
