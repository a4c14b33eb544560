package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var update = flag.Bool("update", false, "write golden files anew")

// Sizes of the towers that tests build.
const (
	testApps  = 2500
	testUsers = 2200
)

// buildSnapshot builds synthetic towers in dir and opens the snapshot.
func buildSnapshot(dir string, shards int) (*snapshots.Snapshot, error) {
	ctx := context.Background()
	if err := synthetic.Write(ctx, dir, synthetic.Options{Apps: testApps, Users: testUsers, Dim: 12, Seed: 3}, nil); err != nil {
		return nil, err
	}
	store, err := snapshots.CreateStore(context.Background(), filepath.Join(dir, "store"), snapshots.Options{})
	if err != nil {
		return nil, err
	}
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 8, 40
	report, err := builder.Build(ctx, store, builder.Options{
		Model: "test", ModelVersion: "1", Params: params, Threads: 2,
		Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.AppsFile)}, IDColumn: synthetic.AppIDColumn}, Shards: shards},
		Users: builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.UsersFile)}, IDColumn: synthetic.UserIDColumn}, Shards: 1},
	})
	if err != nil {
		return nil, err
	}
	return snapshots.Open(ctx, store, report.Digest)
}

// oneShard and threeShards are the same towers, built once for all tests.
var oneShard, threeShards *snapshots.Snapshot

// testDir has their stores, 1/store and 3/store.
var testDir string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bench-test-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is a temporary folder
	testDir = dir
	if oneShard, err = buildSnapshot(filepath.Join(dir, "1"), 1); err != nil {
		panic(err)
	}
	defer oneShard.Close()
	if threeShards, err = buildSnapshot(filepath.Join(dir, "3"), 3); err != nil {
		panic(err)
	}
	defer threeShards.Close()
	return m.Run()
}

func find(t *testing.T, r *Report, k int, setting Setting, ef int, target float64) Result {
	t.Helper()
	for _, result := range r.Results {
		if result.K == k && result.Setting == setting && result.Ef == ef && result.Target == target {
			return result
		}
	}
	require.Failf(t, "no such result", "k %d, %s %d %v", k, setting, ef, target)
	return Result{}
}

func TestRun(t *testing.T) {
	s := threeShards
	var done, total int64
	r, err := Run(t.Context(), s, Options{
		K: []int{20, 5, 5}, Queries: 150, Ef: []int{2000, 5, 10}, Targets: []float64{1, 0.99}, Rounds: 2, Walk: true,
		Progress: func(d, n int64) { done, total = d, n },
	})
	require.NoError(t, err)
	assert.Equal(t, total, done)
	assert.Positive(t, total)
	assert.Equal(t, []any{"test", "1", shard.Apps, index.Dot, 12, testApps, 3, testApps, 150, 0, 2},
		[]any{r.Model, r.ModelVersion, r.Tower, r.Metric, r.Dim, r.Rows, r.Shards, r.Eligible, r.Queries, r.Overlap, r.Rounds})
	assert.Equal(t, s.Digest(), r.Snapshot)

	var names []string
	for _, result := range r.Results {
		names = append(names, fmt.Sprintf("%d %s", result.K, result.name()))
		assert.GreaterOrEqual(t, result.Recall, result.RecallMin)
		assert.GreaterOrEqual(t, result.Recall, result.Worst)
		assert.GreaterOrEqual(t, result.Worst, result.RecallMin)
		assert.GreaterOrEqual(t, result.RecallP1, result.RecallMin)
		assert.LessOrEqual(t, result.P50, result.P99)
		assert.Positive(t, result.Mean)
		assert.Positive(t, result.QPS)
		assert.Len(t, result.ShardEf, 3)
	}
	assert.Equal(t, []string{
		"5 exact", "5 ef 5", "5 ef 10", "5 ef 2000", "5 * target 0.99", "5 target 1",
		"20 exact", "20 ef 2000", "20 * target 0.99", "20 target 1", // efforts below k are left out
	}, names)

	for _, k := range []int{5, 20} {
		exact := find(t, r, k, Exact, 0, 0)
		assert.Equal(t, 1.0, exact.RecallMin)
		assert.Equal(t, 1.0, exact.Speedup)
		// A shard that has more of the best than its share is scanned once more.
		assert.InDelta(t, testApps, exact.Scored, 0.02*testApps)
		assert.Equal(t, map[string]float64{"exact scan": 1}, exact.Plans)
		assert.Equal(t, []int{0, 0, 0}, exact.ShardEf)
		assert.Equal(t, 1.0, find(t, r, k, Target, 0, 1).RecallMin)
		assert.Greater(t, find(t, r, k, Target, 0, 0.99).Recall, 0.98)
		// A pool as large as the shard walks the whole graph.
		whole := find(t, r, k, Ef, 2000, 0)
		assert.Equal(t, 1.0, whole.RecallMin)
		assert.Equal(t, map[string]float64{"graph walk": 1}, whole.Plans)
	}
	least := find(t, r, 5, Ef, 5, 0)
	assert.Less(t, least.Scored, float64(testApps))
	assert.LessOrEqual(t, least.Recall, find(t, r, 5, Ef, 10, 0).Recall)

	again, err := Run(t.Context(), s, Options{K: []int{5}, Queries: 150, Ef: []int{5}, Rounds: 1, Walk: true, Seed: 7})
	require.NoError(t, err)
	assert.Equal(t, least.Recall, find(t, again, 5, Ef, 5, 0).Recall, "recall depends on the order of turns")
}

func TestRunOnUsers(t *testing.T) {
	r, err := Run(t.Context(), oneShard, Options{Target: shard.Users, K: []int{3}, Queries: 600, Ef: []int{10}, Targets: []float64{0.9}, Rounds: 1})
	require.NoError(t, err)
	assert.Equal(t, testUsers, r.Rows)
	assert.Equal(t, 600, r.Queries)
	// 2000 of the 2500 apps, those of the lowest keys, were the build's.
	assert.Equal(t, 100, r.Overlap)
	assert.Greater(t, find(t, r, 3, Target, 0, 0.9).Recall, 0.85)
}

func TestRunForMoreThanThereIs(t *testing.T) {
	r, err := Run(t.Context(), threeShards, Options{K: []int{testApps + 1}, Queries: 5, Targets: []float64{0.9}, Rounds: 1, Walk: true})
	require.NoError(t, err)
	for _, result := range r.Results {
		assert.Equal(t, 1.0, result.RecallMin, "all rows come back: %s", result.name())
	}
}

func TestRunWithFilter(t *testing.T) {
	s := threeShards
	o := Options{
		K: []int{10}, Queries: 40, Ef: []int{40}, Targets: []float64{0.99}, Rounds: 1, Walk: true,
		Filter: `"ios" in platforms && min_age <= user.age`, Bindings: map[string]any{"age": int64(12)},
	}
	r, err := Run(t.Context(), s, o)
	require.NoError(t, err)
	assert.Equal(t, o.Filter, r.Filter)
	assert.Positive(t, r.Eligible)
	assert.Less(t, r.Eligible, testApps)
	assert.Equal(t, float64(r.Eligible), find(t, r, 10, Exact, 0, 0).Scored)
	assert.Greater(t, find(t, r, 10, Ef, 40, 0).Plans["filtered walk"], 0.5, "the other queries are apart")

	o.Filter, o.Bindings = "false", nil
	r, err = Run(t.Context(), s, o)
	require.NoError(t, err)
	assert.Zero(t, r.Eligible)
	assert.Equal(t, 1.0, find(t, r, 10, Target, 0, 0.99).Recall, "there is nothing to miss")

	o.Filter = "nope"
	_, err = Run(t.Context(), s, o)
	assert.ErrorAs(t, err, new(*eligibility.Error))
	o.Filter = "min_age <= user.age"
	_, err = Run(t.Context(), s, o)
	assert.ErrorAs(t, err, new(*eligibility.BindError))
	_, err = Run(t.Context(), s, Options{Segment: "ios"})
	assert.ErrorAs(t, err, new(*shard.SegmentError))
}

func TestRunStops(t *testing.T) {
	s := oneShard
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, s, Options{Queries: 200, Progress: func(done, _ int64) {
		if done > 0 {
			cancel()
		}
	}})
	assert.ErrorIs(t, err, context.Canceled)
}

func TestRunOnShardThatIsCut(t *testing.T) {
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		s, err := buildSnapshot(t.TempDir(), 1)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(s.Tower(kind).Local()[0].File().Path(), 0))
		_, err = Run(t.Context(), s, Options{Target: shard.Apps, Queries: 10})
		require.ErrorIs(t, err, sections.ErrUnreadable)
		require.NoError(t, s.Close())
	}
}

func TestQueriesDoNotDependOnShards(t *testing.T) {
	want := queries(oneShard.Tower(shard.Apps), 50)
	assert.Len(t, want, 50)
	assert.Equal(t, want, queries(threeShards.Tower(shard.Apps), 50))
	assert.Equal(t, want[:20], queries(threeShards.Tower(shard.Apps), 20), "more queries are the same ones and others")
	assert.Len(t, queries(oneShard.Tower(shard.Users), 1_000_000), testUsers)
}

func TestRecallCountsTies(t *testing.T) {
	answer := func(scores ...float32) *shard.Answer {
		a := &shard.Answer{}
		for _, s := range scores {
			a.Candidates = append(a.Candidates, shard.Candidate{Score: s})
		}
		return a
	}
	for _, test := range []struct {
		metric index.Metric
		exact  float32
		count  int
		found  *shard.Answer
		want   float64
	}{
		{index.Dot, 2, 2, answer(3, 2), 1},
		{index.Dot, 2, 2, answer(2, 2), 1},
		{index.Dot, 2, 2, answer(3, 1.999999), 1}, // within the tolerance
		{index.Dot, 2, 2, answer(3, 1.99999), 0.5},
		{index.Dot, -2, 2, answer(-1, -2.000001), 1},
		{index.Dot, -2, 2, answer(-1, -2.00001), 0.5},
		{index.Dot, 0, 1, answer(0), 1},
		{index.Dot, 2, 4, answer(3, 2), 0.5}, // too few
		{index.Dot, 0, 0, answer(), 1},       // nothing to find
		{index.L2, 2, 2, answer(1, 2.000001), 1},
		{index.L2, 2, 2, answer(1, 2.00001), 0.5},
		{index.Cosine, 0.5, 1, answer(0.5), 1},
	} {
		of := &truth{worst: []float32{worst(test.metric, test.exact)}, count: []int{test.count}}
		assert.Equal(t, test.want, of.recallOf(test.metric, 0, test.found), "%+v", test)
	}
}

func TestValidate(t *testing.T) {
	assert.NoError(t, Options{}.Validate())
	for text, o := range map[string]Options{
		`target is "app", want apps or users`:                 {Target: "app"},
		"k is 0, want at least 1":                             {K: []int{10, 0}},
		"ef is -1, want at least 1":                           {Ef: []int{-1}},
		"queries is -1, want 1 to 1000000":                    {Queries: -1},
		"rounds is 1001, want 1 to 1000":                      {Rounds: 1001},
		"recall target is 1.5, want above 0 and at most 1":    {Targets: []float64{1.5}},
		"1 bindings without a filter":                         {Bindings: map[string]any{"age": 1}},
		"recall target is -0.001, want above 0 and at most 1": {Targets: []float64{0.5, -0.001}},
	} {
		assert.EqualError(t, o.Validate(), text)
		_, err := Run(t.Context(), nil, o)
		assert.EqualError(t, err, text)
	}
}

// fixedReport has every form that a report's lines take.
func fixedReport() *Report {
	r := &Report{
		Model: "feed", ModelVersion: "2026-11-22", Snapshot: manifest.Sum([]byte("x")), Builder: "tandem-builder/1",
		Tower: shard.Apps, Metric: index.Dot, Dim: 64, Rows: 44428, Shards: 3,
		Params: "metric=dot m=16", Filter: `"linux" in platforms`, Eligible: 9000, Queries: 1000, Overlap: 17, Rounds: 3,
		Processors: 2, Kernel: "avx512", Go: "go1.26.0", Platform: "linux/amd64",
	}
	scan, walk, both := map[string]float64{"exact scan": 1}, map[string]float64{"graph walk": 1}, map[string]float64{"exact scan": 0.25, "graph walk": 0.75}
	for _, k := range []int{10, 100} {
		x := float64(k)
		r.Results = append(r.Results,
			Result{K: k, Setting: Exact, Recall: 1, Worst: 1, RecallP1: 1, RecallMin: 1, Mean: 1234.5, P50: 1200, P95: 1500, P99: 2_000_000, QPS: 810, Speedup: 1, Scored: 44428, Plans: scan, ShardEf: []int{0, 0, 0}},
			Result{K: k, Setting: Ef, Ef: k, Recall: 0.9, Worst: 0.25, RecallP1: 0.5, RecallMin: 0.1, Mean: x * 1.25, P50: x, P95: 2 * x, P99: 3 * x, QPS: 8e5 / x, Speedup: 987.6 / x, Scored: 5.5 * x, Expanded: x, Plans: both, ShardEf: []int{k, k, 0}},
			Result{K: k, Setting: Target, Target: 0.99, Default: true, Recall: 0.99316, Worst: 0.85, RecallP1: 0.9, RecallMin: 0.8, Mean: x * 1.5, P50: x, P95: 2 * x, P99: 30 * x, QPS: 6e5 / x, Speedup: 800 / x, Scored: 8 * x, Expanded: x, Plans: walk, ShardEf: []int{k + 20, k + 18, k + 19}},
			Result{K: k, Setting: Target, Target: 0.999, Recall: 1, Worst: 1, RecallP1: 1, RecallMin: 1, Mean: 1234, P50: 1200, P95: 1500, P99: 2000, QPS: 810, Speedup: 1, Scored: 44428, Plans: scan, ShardEf: []int{0, 0, 0}},
		)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got), "run with -update if this is right")
}

func TestReport(t *testing.T) {
	var table, text bytes.Buffer
	require.NoError(t, fixedReport().WriteTable(&table))
	golden(t, "report.txt", table.Bytes())
	require.NoError(t, fixedReport().WriteJSON(&text))
	golden(t, "report.json", text.Bytes())
	var back Report
	require.NoError(t, json.Unmarshal(text.Bytes(), &back))
	assert.Equal(t, fixedReport(), &back)
	assert.Error(t, fixedReport().WriteTable(failing{}))
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestManyShardsAreSummedUp(t *testing.T) {
	r := Result{ShardEf: []int{100, 120, 110, 100, 100, 100, 100, 100, 90}}
	assert.Equal(t, "ef 90 to 120", r.effort())
	r.ShardEf = []int{100, 100}
	assert.Equal(t, "ef 100", r.effort())
}
