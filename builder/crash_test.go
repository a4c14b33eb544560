package builder_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var kills = flag.Int("kills", 6, "how often a build is killed in TestKilledBuilds")

// job is a build that another process does.
type job struct {
	Store, Cache string
	Options      builder.Options
	Steps        bool // in steps, and until all are done
}

// jobVariable has the path of a job's file where this process is to do it.
const jobVariable = "TANDEM_TEST_BUILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(jobVariable); path != "" {
		if err := work(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	objectstest.Main(m)
}

func work(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	store, err := snapshots.CreateStore(context.Background(), j.Store, snapshots.Options{Cache: j.Cache, Progress: func(p snapshots.Transfer) {
		if p.Kind == snapshots.Upload && p.Done == p.Size {
			fmt.Println(p.Digest)
		}
	}})
	if err != nil {
		return err
	}
	j.Options.Progress = told{}
	if j.Steps {
		report, err := inSteps(context.Background(), store, j.Options, 1, rand.New(rand.NewPCG(1, 1)))
		if err == nil {
			fmt.Println("committed", report.Digest)
		}
		return err
	}
	_, err = builder.Build(context.Background(), store, j.Options)
	return err
}

// told prints the stages of a build.
type told struct{}

func (told) Stage(name string, _ int64) { fmt.Println("stage", name) }
func (told) Step(int64)                 {}
func (told) Note(string)                {}

// A builder that is killed at any point leaves a store that opens, in which every
// snapshot and every shard is whole; the next build finishes, and moves nothing that is
// there.
func TestKilledBuilds(t *testing.T) {
	t.Run("folder", func(t *testing.T) { testKilledBuilds(t, filepath.Join(t.TempDir(), "store")) })
	t.Run("s3", func(t *testing.T) { testKilledBuilds(t, objectstest.S3Location(t)) })
}

// Steps that are killed at any point go on when they are run again, and give the digest of one
// machine. What they had done whole is not done again.
func TestKilledSteps(t *testing.T) {
	location := filepath.Join(t.TempDir(), "store")
	o := options(t, index.Cosine, rows("app", 400, 8, 1), rows("user", 200, 8, 2))
	_, want := build(t, o)
	run := func(location string) *exec.Cmd {
		data, err := json.Marshal(job{Store: location, Cache: t.TempDir(), Options: o, Steps: true})
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "job.json")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), jobVariable+"="+path)
		cmd.Stderr = os.Stderr
		return cmd
	}
	start := time.Now()
	require.NoError(t, run(filepath.Join(t.TempDir(), "whole")).Run())
	whole := time.Since(start)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range *kills {
		at := fmt.Sprint(location, i)
		for range 3 {
			before := written(t, at)
			cmd := run(at)
			require.NoError(t, cmd.Start())
			timer := time.AfterFunc(time.Duration(r.Float64()*1.1*float64(whole)), func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait() // killed, or done before
			timer.Stop()
			after := written(t, at)
			for key, date := range before {
				if now, is := after[key]; is { // else the build is committed
					assert.Equal(t, date, now, "%s was written again", key)
				}
			}
			if _, err := os.Stat(at); err == nil {
				checkWhole(t, at)
			}
		}
		said, err := run(at).Output()
		require.NoError(t, err)
		assert.Contains(t, string(said), "committed "+string(want.Digest))
		checkWhole(t, at)
	}
}

// written returns when the shards of a store, and the rows of its builds, were written.
func written(t *testing.T, location string) map[string]time.Time {
	t.Helper()
	list := map[string]time.Time{}
	for _, pattern := range []string{"shards/*.shard", "builds/*/partition/*"} {
		names, err := filepath.Glob(filepath.Join(location, pattern))
		require.NoError(t, err)
		for _, name := range names {
			info, err := os.Stat(name)
			require.NoError(t, err)
			list[name] = info.ModTime()
		}
	}
	return list
}

func testKilledBuilds(t *testing.T, location string) {
	o := options(t, index.Dot, rows("app", 400, 8, 1), rows("user", 200, 8, 2))
	j := job{Store: location, Cache: t.TempDir(), Options: o}
	run := func(version string) *exec.Cmd {
		j.Options.ModelVersion = version
		data, err := json.Marshal(j)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "job.json")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), jobVariable+"="+path)
		cmd.Stderr = os.Stderr
		return cmd
	}
	start := time.Now()
	require.NoError(t, run("first").Run())
	whole := time.Since(start)

	r := rand.New(rand.NewPCG(1, 2))
	for i := range *kills {
		// A version of its own, so that there is a manifest to write; the shards are
		// other ones for each seed of the graph.
		o := &j.Options
		o.Params.Seed = uint64(i)
		cmd := run(fmt.Sprintf("killed-%d", i))
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(time.Duration(r.Float64()*1.1*float64(whole)), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed, or done before
		timer.Stop()
		checkWhole(t, location)

		before := shardsOf(t, location)
		cmd = run(fmt.Sprintf("killed-%d", i))
		moved, err := cmd.Output()
		require.NoError(t, err)
		after := shardsOf(t, location)
		for key, at := range before {
			assert.Equal(t, at, after[key], "%s was written again", key)
			assert.NotContains(t, string(moved), key, "it was uploaded again")
		}
		checkWhole(t, location)
	}
	store, err := snapshots.OpenStore(t.Context(), location, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, *kills+1)
	if store.Objects().Dir() != "" {
		_, err = store.Collect(t.Context(), snapshots.CollectOptions{KeepFor: time.Hour})
		require.NoError(t, err)
		left, err := os.ReadDir(filepath.Join(location, "staging"))
		require.NoError(t, err)
		assert.Empty(t, left, "what killed builds left is collected")
	}
}

// A builder that is killed while it uploads has built for the next one, which uploads only
// what is left.
func TestKilledUploadGoesOn(t *testing.T) {
	location := objectstest.S3Location(t)
	o := options(t, index.Dot, rows("app", 400, 8, 1), rows("user", 200, 8, 2))
	_, undisturbed := build(t, o)
	data, err := json.Marshal(job{Store: location, Cache: t.TempDir(), Options: o})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "job.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	start := func() (*exec.Cmd, *bufio.Scanner) {
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), jobVariable+"="+path), os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		return cmd, bufio.NewScanner(out)
	}
	cmd, lines := start()
	for lines.Scan() && !manifest.Digest(lines.Text()).Valid() { // an upload
	}
	require.NoError(t, cmd.Process.Kill())
	for lines.Scan() {
	}
	require.Error(t, cmd.Wait())
	checkWhole(t, location)

	before := shardsOf(t, location)
	cmd, lines = start()
	for lines.Scan() {
		assert.NotContains(t, lines.Text(), "stage index", "it is built")
		assert.NotContains(t, lines.Text(), "stage load", "it is built")
		assert.NotContains(t, before, lines.Text(), "it is uploaded")
	}
	require.NoError(t, cmd.Wait())
	checkWhole(t, location)
	store, err := snapshots.OpenStore(t.Context(), location, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	d, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, undisturbed.Digest, d)
}

// checkWhole verifies every snapshot, and that every shard is what its name says.
func checkWhole(t *testing.T, location string) {
	t.Helper()
	store, err := snapshots.OpenStore(t.Context(), location, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	for _, p := range list {
		require.NoError(t, snapshots.Verify(t.Context(), store, p.Digest, func(string) {}))
	}
	for o, err := range store.Objects().List(t.Context(), "shards/") {
		require.NoError(t, err)
		r, err := store.Objects().Reader(t.Context(), o.Key, 0)
		require.NoError(t, err)
		d, _, err := manifest.SumReader(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, "shards/"+string(d)+".shard", o.Key)
	}
}

// shardsOf returns when each shard was written, by digest.
func shardsOf(t *testing.T, location string) map[string]time.Time {
	t.Helper()
	store, err := snapshots.OpenStore(t.Context(), location, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	list := map[string]time.Time{}
	for o, err := range store.Objects().List(t.Context(), "shards/") {
		require.NoError(t, err)
		list[o.Key[len("shards/"):len("shards/")+64]] = o.Time
	}
	return list
}
