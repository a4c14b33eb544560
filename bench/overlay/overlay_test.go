package overlay_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/overlay"
	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// build builds synthetic towers, and opens the snapshot.
func build(t *testing.T, apps, users int) *snapshots.Snapshot {
	ctx, dir := context.Background(), t.TempDir()
	require.NoError(t, synthetic.Write(ctx, dir, synthetic.Options{Apps: int64(apps), Users: int64(users), Dim: 12, Seed: 3}, nil))
	store, err := snapshots.CreateStore(ctx, filepath.Join(dir, "store"), snapshots.Options{})
	require.NoError(t, err)
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 8, 40
	report, err := builder.Build(ctx, store, builder.Options{
		Model: "test", ModelVersion: "1", Params: params, Threads: 2,
		Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.AppsFile)}, IDColumn: synthetic.AppIDColumn}, Shards: 2},
		Users: builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.UsersFile)}, IDColumn: synthetic.UserIDColumn}, Shards: 1},
	})
	require.NoError(t, err)
	s, err := snapshots.Open(ctx, store, report.Digest)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// A run lays over the snapshot what it is told to, finds all fresh apps, and says of each
// setting what each side took.
func TestRun(t *testing.T) {
	s := build(t, 3000, 300)
	var phases []string
	r, err := overlay.Run(t.Context(), s, overlay.Options{
		Takedowns: 300, Fresh: 200, Batch: 60, K: []int{20, 5, 5}, Targets: []float64{0.9}, Queries: 50, Rounds: 2,
		Progress: func(phase string) { phases = append(phases, phase) },
	})
	require.NoError(t, err)
	assert.Equal(t, []any{s.Digest(), index.Dot, 12, 3000, 2, 300, 200, 50, 2},
		[]any{r.Snapshot, r.Metric, r.Dim, r.Apps, r.Shards, r.Takedowns, r.Fresh, r.Queries, r.Rounds})
	assert.Positive(t, r.Runs)
	assert.Contains(t, phases, "round 2 of 2")
	require.Len(t, r.Results, 2)
	for i, k := range []int{5, 20} {
		result := r.Results[i]
		assert.Equal(t, k, result.K)
		assert.Positive(t, result.Fresh)
		assert.Equal(t, result.Fresh, result.Found)
		require.Len(t, result.Sides, 4)
		for n, name := range []string{"without", "empty", "takedowns", "all"} {
			side := result.Sides[n]
			assert.Equal(t, name, side.Name)
			assert.Positive(t, side.P50)
			assert.LessOrEqual(t, side.P50, side.P99)
			assert.Positive(t, side.Ratio)
			assert.Equal(t, n == 0 || n == 3, side.Recall != nil)
		}
		assert.Equal(t, 1.0, result.Sides[0].Ratio)
		assert.Greater(t, *result.Sides[3].Recall, 0.8)
	}
	var table bytes.Buffer
	require.NoError(t, r.WriteTable(&table))
	assert.Contains(t, table.String(), "3000 apps, 12 dimensions, dot, 2 shards; 300 taken down, 200 fresh in")
	assert.Equal(t, 2+4*2, strings.Count(table.String(), "\n"))
	// What the run laid over the snapshot is gone with it.
	again, err := overlay.Run(t.Context(), s, overlay.Options{K: []int{5}, Targets: []float64{0.9}, Queries: 10, Rounds: 1})
	require.NoError(t, err)
	assert.Equal(t, []int{0, 0, 0}, []int{again.Fresh, again.Runs, again.Results[0].Fresh})
}

func TestBounds(t *testing.T) {
	for want, o := range map[string]overlay.Options{
		"takedowns is -1, want 0 to 10000000":          {Takedowns: -1},
		"fresh is 10000001, want 0 to 10000000":        {Fresh: overlay.MaxChanges + 1},
		"batch is -1, want 1 to 10000":                 {Batch: -1},
		"k is 10001, want 1 to 10000":                  {K: []int{10, 10_001}},
		"recall target is 1, want above 0 and below 1": {Targets: []float64{1}},
		"queries is -5, want 1 to 1000000":             {Queries: -5},
		"rounds is 1001, want 1 to 1000":               {Rounds: 1001},
	} {
		require.EqualError(t, o.Validate(), want)
	}
	require.NoError(t, overlay.Options{}.Validate())
	s := build(t, 50, 5)
	_, err := overlay.Run(t.Context(), s, overlay.Options{Takedowns: 50})
	require.EqualError(t, err, "takedowns is 50, want fewer than the 50 apps of the snapshot")
}
