package builder_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// schema is that of the towers that towers writes.
func schema(t testing.TB) attribute.Schema {
	s, err := attribute.NewSchema([]attribute.Field{
		{Name: "free", Type: attribute.Bool},
		{Name: "genre", Type: attribute.Keyword},
		{Name: "min_age", Type: attribute.Int},
		{Name: "platforms", Type: attribute.KeywordList},
		{Name: "price", Type: attribute.Float},
		{Name: "released", Type: attribute.Timestamp},
	})
	require.NoError(t, err)
	return s
}

// row is one row of a test tower.
type row struct {
	id     string
	vector []float32
	values []attribute.Value
}

// rows returns n rows with clustered vectors, some of them equal, and attributes,
// some of them absent.
func rows(prefix string, n, dim int, seed uint64) []row {
	r := rand.New(rand.NewPCG(seed, 1))
	genres := []string{"action", "puzzle", "racing", "strategy"}
	platforms := []string{"android", "ios", "linux", "mac", "windows"}
	out := make([]row, n)
	for i := range out {
		v := make([]float32, dim)
		if i > 0 && r.IntN(20) == 0 {
			copy(v, out[r.IntN(i)].vector)
		} else {
			scale := math.Exp(r.NormFloat64() / 2)
			cluster := rand.New(rand.NewPCG(7, uint64(r.IntN(12))))
			for j := range v {
				v[j] = float32(scale * (cluster.NormFloat64() + r.NormFloat64()/2))
			}
		}
		values := []attribute.Value{
			attribute.OfBool(r.IntN(2) == 0),
			attribute.OfKeyword(genres[r.IntN(len(genres))]),
			attribute.OfInt(int64(r.IntN(19))),
			attribute.OfKeywords(append([]string(nil), platforms[:r.IntN(len(platforms)+1)]...)),
			attribute.OfFloat(float64(r.IntN(4000)) / 100),
			attribute.OfTimestamp(time.UnixMilli(int64(1.5e12) + int64(r.IntN(1e9)))),
		}
		if r.IntN(5) == 0 {
			values[r.IntN(len(values))] = attribute.Value{}
		}
		out[i] = row{fmt.Sprintf("%s-%05d", prefix, r.IntN(1e5)*n+i), v, values}
	}
	return out
}

// write writes rows as Parquet and returns the path.
func write(t testing.TB, name, idColumn string, s attribute.Schema, list []row) string {
	path := filepath.Join(t.TempDir(), name)
	w, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: idColumn, EmbeddingColumn: "embedding", Schema: s})
	require.NoError(t, err)
	for _, r := range list {
		require.NoError(t, w.Append(&tower.Row{ID: r.id, Vector: r.vector, Attributes: r.values}))
	}
	require.NoError(t, w.Close())
	return path
}

func options(t testing.TB, metric index.Metric, apps, users []row) builder.Options {
	return builder.Options{
		Apps: builder.TowerOptions{
			Input:  tower.Options{Paths: []string{write(t, "apps.parquet", "app_id", schema(t), apps)}, IDColumn: "app_id"},
			Shards: 3,
		},
		Users: builder.TowerOptions{
			Input:  tower.Options{Paths: []string{write(t, "users.parquet", "user_id", attribute.Schema{}, bare(users))}, IDColumn: "user_id"},
			Shards: 2,
		},
		Model: "feed", ModelVersion: "2026-11-22", Params: index.DefaultParams(metric), Threads: 2,
	}
}

// bare returns the rows without attributes.
func bare(list []row) []row {
	out := make([]row, len(list))
	for i, r := range list {
		out[i] = row{id: r.id, vector: r.vector}
	}
	return out
}

func build(t testing.TB, o builder.Options) (*snapshots.Store, *builder.Report) {
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	report, err := builder.Build(context.Background(), store, o)
	require.NoError(t, err)
	return store, report
}

func open(t testing.TB, store *snapshots.Store, d manifest.Digest) *snapshots.Snapshot {
	s, err := snapshots.Open(context.Background(), store, d)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestBuildHoldsEveryRow(t *testing.T) {
	for _, metric := range []index.Metric{index.Dot, index.Cosine, index.L2} {
		if raceEnabled && metric != index.Dot {
			continue
		}
		t.Run(metric.String(), func(t *testing.T) {
			apps, users := rows("app", 1500, 20, 1), rows("user", 300, 20, 2)
			store, report := build(t, options(t, metric, apps, users))
			m := report.Manifest
			require.Equal(t, 1500, m.Apps.Rows)
			require.Equal(t, 300, m.Users.Rows)
			require.Len(t, m.Apps.Shards, 3)
			require.Len(t, m.Inputs, 2)
			require.NotEmpty(t, m.Apps.Recall)
			for _, r := range m.Apps.Recall {
				require.GreaterOrEqual(t, r.Recall, r.Target-0.02, "k %d target %v", r.K, r.Target)
			}
			require.NoError(t, snapshots.Verify(context.Background(), store, report.Digest, func(string) {}))
			entries, err := os.ReadDir(filepath.Join(store.Location(), "staging"))
			require.NoError(t, err)
			require.Empty(t, entries, "the build leaves nothing behind")

			snapshot := open(t, store, report.Digest)
			tw := snapshot.Tower(shard.Apps)
			for _, r := range apps {
				v, ok, err := tw.Vector(t.Context(), shard.Moment{}, r.id)
				require.NoError(t, err)
				require.True(t, ok)
				require.InDeltaSlice(t, r.vector, v, 1e-5)
				s := tw.Local()[shard.Partition(r.id, 3)]
				ordinal, ok := s.Ordinal(r.id)
				require.True(t, ok)
				require.Equal(t, r.id, s.ID(ordinal))
				for field, want := range r.values {
					if want.Type() == attribute.Timestamp {
						continue // Parquet keeps milliseconds
					}
					require.True(t, want.Equal(s.Attributes().Value(ordinal, field)), "%s: %v", r.id, want)
				}
			}
		})
	}
}

func TestSameInputsSameSnapshot(t *testing.T) {
	n := 2000
	if raceEnabled {
		n = 600
	}
	o := options(t, index.Dot, rows("app", n, 16, 3), rows("user", 200, 16, 4))
	o.Threads = 1
	_, one := build(t, o)
	for _, threads := range []int{2, 5} {
		o.Threads = threads
		_, many := build(t, o)
		require.Equal(t, one.Digest, many.Digest, "%d threads", threads)
	}
	o.Params.Seed = 1
	_, other := build(t, o)
	require.NotEqual(t, one.Digest, other.Digest, "the digest covers the parameters")
}

func TestAnswersDoNotDependOnTheShards(t *testing.T) {
	apps, users := rows("app", 900, 12, 5), rows("user", 60, 12, 6)
	var want []*shard.Answer
	for _, shards := range []int{1, 4, 7} {
		o := options(t, index.Dot, apps, users)
		o.Apps.Shards = shards
		store, report := build(t, o)
		tw := open(t, store, report.Digest).Tower(shard.Apps)
		filter, err := tw.Compile(`"linux" in platforms || min_age < 6`)
		require.NoError(t, err)
		bound, err := filter.Bind(t.Context(), nil)
		require.NoError(t, err)
		var got []*shard.Answer
		for i, u := range users {
			q := &shard.Query{Vectors: [][]float32{u.vector}, K: 50, Target: 1, MinCoverage: 1}
			if i%2 == 1 {
				q.Filter = &bound
			}
			a, err := tw.Search(context.Background(), q)
			require.NoError(t, err)
			got = append(got, a)
		}
		if want == nil {
			want = got
			continue
		}
		for i := range got {
			require.Equal(t, want[i].Candidates, got[i].Candidates)
			require.Equal(t, want[i].Eligible, got[i].Eligible)
		}
	}
}

func TestRejections(t *testing.T) {
	good := rows("app", 50, 8, 7)
	v := func(change func([]float32)) []float32 {
		out := append([]float32(nil), good[0].vector...)
		change(out)
		return out
	}
	bad := []struct {
		kind, text string
		row        row
	}{
		{"NaN", "component 3 is NaN", row{id: "nan", vector: v(func(x []float32) { x[3] = float32(math.NaN()) })}},
		{"infinity", "component 0 is -Inf", row{id: "inf", vector: v(func(x []float32) { x[0] = float32(math.Inf(-1)) })}},
		{"zero vector", "the zero vector", row{id: "zero", vector: make([]float32, 8)}},
		{"norm too large", "want at most 1e+18", row{id: "giant", vector: v(func(x []float32) { x[0] = 1e20 })}},
		{"wrong dimension", "has 7 numbers, want 8", row{id: "short", vector: make([]float32, 7)}},
		{"wrong dimension", "has 0 numbers, want 8", row{id: "none"}},
		{"empty id", "id is empty", row{id: "", vector: good[0].vector}},
		{"oversized id", "257 bytes", row{id: strings.Repeat("x", 257), vector: good[0].vector}},
		{"id is not UTF-8", "not UTF-8", row{id: "a\xff", vector: good[0].vector}},
		{"invalid attribute", "not valid UTF-8", row{id: "text", vector: good[0].vector, values: []attribute.Value{1: attribute.OfKeyword("\xff"), 5: {}}}},
		{"duplicate id", "has this id already", row{id: good[3].id, vector: good[1].vector}},
	}
	list := append([]row(nil), good...)
	for _, b := range bad {
		list = append(list, b.row)
	}
	for i := range list {
		if list[i].values == nil {
			list[i].values = make([]attribute.Value, schema(t).Len())
		}
	}
	o := options(t, index.Cosine, list, rows("user", 20, 8, 8))
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	for _, accepted := range []int{0, len(bad) - 1} {
		o.MaxRejected = accepted
		_, err = builder.Build(context.Background(), store, o)
		var rejected *builder.RejectedError
		require.ErrorAs(t, err, &rejected)
		require.Contains(t, err.Error(), fmt.Sprintf("%d rows rejected, at most %d are accepted", len(bad), accepted))
		for i, b := range bad {
			require.Contains(t, err.Error(), b.kind+": ")
			require.Contains(t, err.Error(), b.text)
			require.Contains(t, err.Error(), fmt.Sprintf("row %d ", 50+i), "the row is named")
		}
	}
	list2, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	require.Empty(t, list2, "a failed build publishes nothing")

	o.MaxRejected = len(bad)
	report, err := builder.Build(context.Background(), store, o)
	require.NoError(t, err)
	require.Equal(t, 50, report.Manifest.Apps.Rows)
	require.Equal(t, len(bad), report.Manifest.Apps.Rejected)
	require.Equal(t, len(bad), report.Rejected[shard.Apps].Total)
}

func TestTowersMustFit(t *testing.T) {
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	_, err = builder.Build(context.Background(), store, options(t, index.Dot, rows("app", 10, 8, 1), rows("user", 10, 9, 1)))
	require.ErrorContains(t, err, "apps have embeddings of dimension 8, users of 9")

	o := options(t, index.Dot, rows("app", 10, 8, 1), rows("user", 10, 8, 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = builder.Build(ctx, store, o)
	require.ErrorIs(t, err, context.Canceled)
}

func TestOptionsAreChecked(t *testing.T) {
	for text, change := range map[string]func(*builder.Options){
		"model: id is empty":                    func(o *builder.Options) { o.Model = "" },
		"model version: id is empty":            func(o *builder.Options) { o.ModelVersion = "" },
		"apps: no input file":                   func(o *builder.Options) { o.Apps.Input.Paths = nil },
		"users: 0 shards, want 1 to 4096":       func(o *builder.Options) { o.Users.Shards = 0 },
		"max rejected is -1, want at least 0":   func(o *builder.Options) { o.MaxRejected = -1 },
		"m is 1, want 2 to 128":                 func(o *builder.Options) { o.Params.M = 1 },
		"a graph spans all rows, so it takes 1": func(o *builder.Options) { o.Apps.Graph = "x" },
	} {
		o := builder.Options{
			Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{"a.parquet"}}, Shards: 2},
			Users: builder.TowerOptions{Input: tower.Options{Paths: []string{"u.parquet"}}, Shards: 2},
			Model: "m", ModelVersion: "1", Params: index.DefaultParams(index.Dot),
		}
		require.NoError(t, o.Validate())
		change(&o)
		require.ErrorContains(t, o.Validate(), text)
	}
}

func TestAttributeLinesAreJoined(t *testing.T) {
	apps := bare(rows("app", 200, 8, 9))
	dir := t.TempDir()
	var lines strings.Builder
	for i, a := range apps {
		line := map[string]any{"app_id": a.id, "year": 2000 + i%20}
		switch i {
		case 10:
			line["year"] = "soon" // another type than the first
		case 11:
			continue // no attributes at all
		}
		data, err := json.Marshal(line)
		require.NoError(t, err)
		fmt.Fprintf(&lines, "%s\n", data)
	}
	fmt.Fprintf(&lines, "{\"app_id\": \"nobody\", \"year\": 1999}\n")
	path := filepath.Join(dir, "attributes.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(lines.String()), 0o600))

	o := options(t, index.Dot, rows("app", 1, 8, 9), rows("user", 20, 8, 8))
	o.Apps.Input.Paths[0] = write(t, "apps.parquet", "app_id", attribute.Schema{}, apps)
	o.Apps.Attributes = tower.AttributeOptions{Paths: []string{path}, IDKey: "app_id"}
	notes := &recorder{}
	o.Progress = notes
	store, err := snapshots.CreateStore(t.Context(), dir, snapshots.Options{})
	require.NoError(t, err)
	_, err = builder.Build(context.Background(), store, o)
	require.ErrorContains(t, err, "attribute type change: 1")
	require.ErrorContains(t, err, "line 11")

	o.MaxRejected = 1
	report, err := builder.Build(context.Background(), store, o)
	require.NoError(t, err)
	require.Contains(t, notes.text(), "1 attribute lines are for ids that the tower does not have")
	tw := open(t, store, report.Digest).Tower(shard.Apps)
	require.Equal(t, 199, tw.Rows())
	for i, a := range apps {
		_, found, err := tw.Vector(t.Context(), shard.Moment{}, a.id)
		require.NoError(t, err)
		require.Equal(t, i != 10, found, "an app whose attributes are not what they say is not served")
		if !found {
			continue
		}
		s := tw.Local()[shard.Partition(a.id, 3)]
		ordinal, _ := s.Ordinal(a.id)
		want := attribute.OfInt(int64(2000 + i%20))
		if i == 11 {
			want = attribute.Value{}
		}
		require.True(t, want.Equal(s.Attributes().Value(ordinal, 0)))
	}
}

// recorder keeps the notes of a build.
type recorder struct{ notes []string }

func (r *recorder) Stage(string, int64) {}
func (r *recorder) Step(int64)          {}
func (r *recorder) Note(text string)    { r.notes = append(r.notes, text) }
func (r *recorder) text() string        { return strings.Join(r.notes, "\n") }
