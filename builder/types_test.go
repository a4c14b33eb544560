package builder_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// TestFloat32AndAllYears builds a snapshot of attributes that a float64 and 64-bit
// nanoseconds cannot hold, and asks for them.
func TestFloat32AndAllYears(t *testing.T) {
	schema, err := attribute.NewSchema([]attribute.Field{
		{Name: "price", Type: attribute.Float32}, {Name: "until", Type: attribute.Timestamp},
	})
	require.NoError(t, err)
	never, now := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	apps := rows("app", 600, 12, 41)
	for i := range apps {
		until := now.Add(time.Duration(i-300) * time.Hour)
		if i%3 == 0 {
			until = never
		}
		apps[i].values = []attribute.Value{attribute.OfFloat32(float32(i%20) + 0.99), attribute.OfTimestamp(until)}
	}
	o := options(t, index.Dot, nil, rows("user", 200, 12, 42))
	o.Apps.Input.Paths[0] = write(t, "typed.parquet", "app_id", schema, apps)
	store, report := build(t, o)
	require.Equal(t, schema, report.Manifest.Apps.Schema)
	require.Equal(t, manifest.EvidenceVersion, report.Manifest.Version)
	require.NoError(t, snapshots.Verify(t.Context(), store, report.Digest, func(string) {}))
	tw := open(t, store, report.Digest).Tower(shard.Apps)
	for filter, eligible := range map[string]func(i int) bool{
		"price == 9.99":       func(i int) bool { return i%20 == 9 },
		"price < 9.99":        func(i int) bool { return i%20 < 9 },
		"price >= user.price": func(i int) bool { return i%20 >= 9 },
		"until > user.now":    func(i int) bool { return i%3 == 0 || i > 300 },
		`until < timestamp("3000-01-01T00:00:00Z")`: func(i int) bool { return i%3 != 0 },
	} {
		f, err := tw.Compile(filter)
		require.NoError(t, err)
		bound, err := f.Bind(t.Context(), map[string]any{"price": 9.99, "now": now.Format(time.RFC3339)})
		require.NoError(t, err)
		answer, err := tw.Search(t.Context(), &shard.Query{Vectors: [][]float32{apps[0].vector}, K: 600, Target: 1, MinCoverage: 1, Filter: &bound, Attributes: []int{0, 1}})
		require.NoError(t, err)
		found := map[string][]attribute.Value{}
		for _, c := range answer.Candidates {
			found[c.ID] = c.Attributes
		}
		for i, a := range apps {
			values, ok := found[a.id]
			require.Equal(t, eligible(i), ok, "%s: %d", filter, i)
			if ok {
				require.Equal(t, fmt.Sprintf("%d.99", i%20), values[0].String())
				require.Equal(t, a.values[1].Time(), values[1].Time())
			}
		}
	}
}
