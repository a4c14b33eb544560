package recall

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var (
	store  *snapshots.Store
	digest manifest.Digest // of the snapshot that tests serve
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "recall-test-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is a temporary folder
	if err := build(dir); err != nil {
		panic(err)
	}
	defer func() { _ = store.Close() }()
	return m.Run()
}

// build builds a snapshot that walks its graph for 10 candidates.
func build(dir string) (err error) {
	ctx := context.Background()
	if err := synthetic.Write(ctx, dir, synthetic.Options{Apps: 6000, Users: 2200, Dim: 16, Seed: 3}, nil); err != nil {
		return err
	}
	if store, err = snapshots.CreateStore(ctx, filepath.Join(dir, "store"), snapshots.Options{}); err != nil {
		return err
	}
	segments := filepath.Join(dir, "segments.yaml")
	if err := os.WriteFile(segments, []byte("ios: '\"ios\" in platforms'\n"), 0o600); err != nil {
		return err
	}
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 8, 60
	report, err := builder.Build(ctx, store, builder.Options{
		Model: "test", ModelVersion: "1", Params: params, Threads: 2, Segments: segments,
		Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.AppsFile)}, IDColumn: synthetic.AppIDColumn}, Shards: 2},
		Users: builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.UsersFile)}, IDColumn: synthetic.UserIDColumn}, Shards: 1},
	})
	if err != nil {
		return err
	}
	digest = report.Digest
	return nil
}

// A snapshot that lacks links opens, has the rows of the whole one, and finds less.
func TestCut(t *testing.T) {
	mean := func(d manifest.Digest) float64 {
		m, err := measure(t.Context(), store, d, 10)
		require.NoError(t, err)
		return m
	}
	cut, err := Cut(t.Context(), store, digest, 0.6, 1)
	require.NoError(t, err)
	again, err := Cut(t.Context(), store, digest, 0.6, 1)
	require.NoError(t, err)
	assert.Equal(t, cut, again, "the same links each time")
	whole, damaged := mean(digest), mean(cut)
	t.Logf("recall %.4f, without links %.4f", whole, damaged)
	assert.Greater(t, whole, 0.98)
	assert.Less(t, damaged, whole-0.03)
	none, err := Cut(t.Context(), store, digest, 0, 1)
	require.NoError(t, err)
	assert.Equal(t, digest, none, "without a cut it is the same")
}

// A server finds that links are missing, and goes back by itself.
func TestAlarmAndRollback(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	r, err := Run(t.Context(), store, digest, Options{
		Load: Load{QPS: 40, K: 10, Segments: 0.2, Seed: 1}, CPU: 0.5, Runs: 1, Cut: 0.6, Limit: 2 * time.Minute, Progress: func(text string) { t.Log(text) },
	})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Raised)
	assert.Equal(t, 1, r.Back)
	assert.Contains(t, r.Runs[0].Reason, "recall of live queries of arm control")
	assert.Contains(t, r.Runs[0].Reason, "its floor is")
	assert.Less(t, r.Runs[0].Recall, r.Runs[0].Floor)
	assert.Positive(t, r.Runs[0].Asked, r.Runs[0].Failure) // of a busy machine many may come too late
	t.Logf("%d of %d failed: %s", r.Runs[0].Failed, r.Runs[0].Asked, r.Runs[0].Failure)
	var out bytes.Buffer
	require.NoError(t, r.WriteTable(&out))
	assert.Contains(t, out.String(), "1 of 1 runs had an alarm")
}

// recorded records at least so many audits: of a busy machine they take a while.
func recorded(t *testing.T, audits int) *Recording {
	for d := 4 * time.Second; ; d *= 2 {
		r, err := Record(t.Context(), store, digest, 0.3, Load{QPS: 40, K: 10, Segments: 0.2, Seed: 1}, d)
		require.NoError(t, err)
		if len(r.Audits) >= audits {
			return r
		}
		require.Less(t, d, 2*time.Minute, "%d audits", len(r.Audits))
	}
}

// What is recorded of a snapshot that is whole raises no alarm, and neither does what is drawn
// from it; where there is no room for error at all, sequences say so as often as they may.
func TestRecordAndSimulate(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	r := recorded(t, 3*audit.Enough)
	assert.Zero(t, r.Alarms)
	var file bytes.Buffer
	require.NoError(t, r.WriteJSON(&file))
	read, err := ReadRecording(&file)
	require.NoError(t, err)
	assert.Equal(t, r, read)

	o := SimulateOptions{Hours: 20, Generation: 5 * time.Hour, Seed: 1}
	report, err := Simulate(t.Context(), read, o)
	require.NoError(t, err)
	assert.Zero(t, report.Replayed)
	require.Len(t, report.Runs, len(harms))
	for i, one := range report.Runs {
		assert.Zero(t, one.Alarms, one.What)
		assert.Equal(t, 20, one.Hours)
		if i > 0 {
			assert.InDelta(t, -audit.Margin, one.Recall, 0.003, one.What)
		}
	}
	again, err := Simulate(t.Context(), read, o)
	require.NoError(t, err)
	for i := range again.Runs { // floats are added as goroutines end
		again.Runs[i].Recall = report.Runs[i].Recall
	}
	assert.Equal(t, report, again, "the same from the same seed")

	// The simulator is able to find alarms.
	for i := range read.Audits {
		read.Audits[i].Recall -= min(read.Audits[i].Recall, 0.2)
	}
	report, err = Simulate(t.Context(), read, o)
	require.NoError(t, err)
	assert.Positive(t, report.Replayed)
	assert.Positive(t, report.Runs[0].Alarms)
}

func TestReadRecordingRefuses(t *testing.T) {
	for _, text := range []string{"", "{", `{"seconds": 1}`} {
		_, err := ReadRecording(bytes.NewReader([]byte(text)))
		assert.Error(t, err, text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Record(ctx, store, digest, 0.3, Load{QPS: 1, K: 1}, time.Second)
	assert.True(t, errors.Is(err, context.Canceled), "%v", err)
}
