package builder_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// followed is the progress of a build: its stages and notes.
type followed struct {
	stages, notes []string
	onStage       func(string)
}

func (f *followed) Stage(name string, _ int64) {
	f.stages = append(f.stages, name)
	if f.onStage != nil {
		f.onStage(name)
	}
}
func (f *followed) Step(int64)       {}
func (f *followed) Note(text string) { f.notes = append(f.notes, text) }

// did reports whether the build had a stage whose name begins so.
func (f *followed) did(stage string) bool {
	return slices.ContainsFunc(f.stages, func(name string) bool { return strings.HasPrefix(name, stage) })
}

// uploads are the shards that a store has uploaded whole.
type uploads struct {
	mu   sync.Mutex
	list []manifest.Digest
}

func (u *uploads) options(cache string) snapshots.Options {
	return snapshots.Options{Cache: cache, Progress: func(p snapshots.Transfer) {
		if p.Kind == snapshots.Upload && p.Done == p.Size {
			u.mu.Lock()
			u.list = append(u.list, p.Digest)
			u.mu.Unlock()
		}
	}}
}

// segmented are options of a build with everything that a manifest has. Its files are of
// formats whose readers are at home in a bubble of synctest.
func segmented(t *testing.T) builder.Options {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	in := func(prefix string, list []row) builder.TowerOptions {
		data := binary.LittleEndian.AppendUint32(nil, uint32(len(list)))
		data = binary.LittleEndian.AppendUint32(data, uint32(len(list[0].vector)))
		var ids, attributes []byte
		for i, r := range list {
			for _, x := range r.vector {
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
			}
			ids = append(ids, r.id+"\n"...)
			attributes = fmt.Appendf(attributes, "{\"id\": %q, \"free\": %t, \"price\": %d.5}\n", r.id, i%3 == 0, i)
		}
		return builder.TowerOptions{
			Input:      tower.Options{Paths: []string{file(prefix+".fbin", data)}, IDs: []string{file(prefix+".ids", ids)}, IDColumn: "id"},
			Attributes: tower.AttributeOptions{Paths: []string{file(prefix+".jsonl", attributes)}, IDKey: "id"},
			Shards:     3,
		}
	}
	apps := rows("app", 200, 8, 1)
	apps[7].vector = make([]float32, 8)
	apps[7].vector[3] = float32(math.NaN())
	o := builder.Options{
		Apps: in("apps", apps), Users: in("users", rows("user", 100, 8, 2)), MaxRejected: 1,
		Model: "feed", ModelVersion: "1", Params: index.DefaultParams(index.Dot), Threads: 2,
		Segments: file("segments.yaml", []byte("free: free\nnobody: price > 9000\n")),
	}
	o.Users.Shards = 2
	return o
}

// stages lists the folders of builds in a cache or a store.
func stages(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "staging"))
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, filepath.Join(dir, "staging", e.Name()))
	}
	return list
}

// attempt runs a build in a store that may fail, and follows it.
func attempt(ctx context.Context, store *snapshots.Store, o builder.Options) (*followed, *builder.Report, error) {
	f := &followed{}
	o.Progress = f
	report, err := builder.Build(ctx, store, o)
	return f, report, err
}

// A build whose store fails when it is to publish gives up after a time, and keeps what it
// has built. Run again, it goes on from there, with the digest of a build without trouble.
func TestBuildGoesOnAfterAnOutage(t *testing.T) {
	o := segmented(t)
	_, undisturbed := build(t, o)
	for _, outage := range []objectstest.Rule{
		{Op: objectstest.Create, Key: "gates/"},
		{Op: objectstest.List, Key: "gates/"},
		{Op: objectstest.Create, Key: "intents/"},
		{Op: objectstest.Stat, Key: "shards/"},
		{Op: objectstest.Write, Key: "shards/"},
		{Op: objectstest.Write, Key: "shards/", Skip: 3},
		{Op: objectstest.Write, Key: "shards/", Skip: 4, Fault: objectstest.Cut, Bytes: 3000},
		{Op: objectstest.Write, Key: "snapshots/"},
	} {
		t.Run(strings.ReplaceAll(string(outage.Op)+" "+outage.Key, "/", ""), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults := objectstest.NewFaults()
				faults.Inject(outage)
				cache := t.TempDir()
				var moved uploads
				store, err := snapshots.NewStore(faults.Bucket(""), moved.options(cache))
				require.NoError(t, err)
				began := time.Now()
				f, _, err := attempt(t.Context(), store, o)
				require.ErrorIs(t, err, objectstest.ErrInjected)
				require.ErrorContains(t, err, "publish: the store has taken nothing for 2m0s: ")
				assert.Greater(t, time.Since(began), 2*time.Minute)
				assert.Less(t, time.Since(began), 4*time.Minute)
				assert.Contains(t, strings.Join(f.notes, "\n"), "; trying again in 1s")
				require.Len(t, stages(t, cache), 1)
				assert.Equal(t, "what is built is kept in "+stages(t, cache)[0]+", for 7 days: the same build, run again, goes on from there", f.notes[len(f.notes)-1])
				list, err := store.Snapshots(t.Context())
				require.NoError(t, err)
				assert.Empty(t, list)

				faults.Heal()
				before := len(moved.list)
				o.Threads = 1
				f, report, err := attempt(t.Context(), store, o)
				require.NoError(t, err)
				assert.Equal(t, []string{"look at the first embeddings", "digest inputs (bytes)", "publish"}, f.stages, "nothing is built or gated again")
				assert.Contains(t, f.notes[0], "the same was built before")
				assert.Equal(t, undisturbed.Digest, report.Digest)
				assert.Equal(t, undisturbed.Manifest, report.Manifest)
				assert.Equal(t, undisturbed.Rejected, report.Rejected)
				assert.Equal(t, undisturbed.Gates.Report, report.Gates.Report)
				assert.Empty(t, stages(t, cache))
				if outage.Fault != objectstest.Cut {
					slices.Sort(moved.list)
					assert.Len(t, slices.Compact(moved.list), len(moved.list), "nothing is uploaded twice")
				}
				assert.LessOrEqual(t, len(moved.list)-before, 5)
				require.NoError(t, snapshots.Verify(t.Context(), store, report.Digest, func(string) {}))
			})
		})
	}
}

// An outage that ends while a build waits is none for who runs it.
func TestBuildWaitsForTheStore(t *testing.T) {
	o := segmented(t)
	synctest.Test(t, func(t *testing.T) {
		faults := objectstest.NewFaults()
		faults.Inject(objectstest.Rule{Op: objectstest.Write, Skip: 2, Err: objectstest.ErrBusy})
		store, err := snapshots.NewStore(faults.Bucket(""), snapshots.Options{Cache: t.TempDir()})
		require.NoError(t, err)
		time.AfterFunc(100*time.Second, faults.Heal)
		f, report, err := attempt(t.Context(), store, o)
		require.NoError(t, err)
		assert.Contains(t, strings.Join(f.notes, "\n"), "status 503; trying again in 4s")
		require.NoError(t, snapshots.Verify(t.Context(), store, report.Digest, func(string) {}))
	})
}

// What else may end a build once its towers are done does not cost them: the gates run
// when it goes on, if they have not.
func TestBuildIsKeptOnceItsTowersAreDone(t *testing.T) {
	o := segmented(t)
	store, previous := build(t, o)
	o.Model, o.ModelVersion, o.Previous = "feed", "next", previous.Digest
	_, undisturbed := buildBeside(t, store, o)

	again := func(ctx context.Context, o builder.Options, onStage func(string)) (*followed, *builder.Report, error) {
		f := &followed{onStage: onStage}
		o.Progress = f
		report, err := builder.Build(ctx, store, o)
		return f, report, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	f, _, err := again(ctx, o, func(name string) {
		if name == "run the gates" {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	assert.Contains(t, f.notes[len(f.notes)-1], "what is built is kept in ")
	dir := store.Location()
	require.Len(t, stages(t, dir), 1)
	assert.NoDirExists(t, filepath.Join(stages(t, dir)[0], "work"), "what is not needed any more is not kept")

	// The previous snapshot cannot be read.
	path := store.ShardPath(previous.Manifest.Apps.Shards[0].Digest)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 4096))
	f, _, err = again(t.Context(), o, nil)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	assert.Equal(t, []string{"look at the first embeddings", "digest inputs (bytes)", "run the gates"}, f.stages)
	require.NoError(t, os.WriteFile(path, whole, 0o600))

	// Other inputs, or other options, are another build.
	for _, change := range []func(*builder.Options){
		func(o *builder.Options) { o.ModelVersion = "other" },
		func(o *builder.Options) { o.Params.Seed = 9 },
		func(o *builder.Options) { o.Apps.Shards = 2 },
		func(o *builder.Options) { o.Previous = "" },
		func(o *builder.Options) { o.Segments = "" },
		func(o *builder.Options) { o.Tool = "other" },
		func(o *builder.Options) { o.MaxRejected = 2 },
		func(o *builder.Options) { o.Users.Attributes.IgnoreKeys = []string{"price"} },
		func(o *builder.Options) {
			o.Users.Input.NumberRows, o.Users.Input.IDs, o.Users.Attributes.Paths = true, nil, nil
		},
		func(o *builder.Options) { // of the same name and size
			data, err := os.ReadFile(o.Users.Input.Paths[0])
			require.NoError(t, err)
			data[len(data)-1] ^= 0x80
			o.Users.Input.Paths = []string{filepath.Join(t.TempDir(), filepath.Base(o.Users.Input.Paths[0]))}
			require.NoError(t, os.WriteFile(o.Users.Input.Paths[0], data, 0o600))
		},
	} {
		other := o
		change(&other)
		f, _, err := again(t.Context(), other, nil)
		require.NoError(t, err)
		assert.True(t, f.did("index apps"))
		require.Len(t, stages(t, dir), 1)
	}
	f, report, err := again(t.Context(), o, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"look at the first embeddings", "digest inputs (bytes)", "run the gates", "gate structure", "gate recall", "gate comparison", "gate training", "gate axes", "gate alignment", "gate filters", "gate fresh", "gate latency", "publish"}, f.stages)
	assert.Equal(t, undisturbed.Digest, report.Digest)
	assert.Empty(t, stages(t, dir))
}

// buildBeside builds in a store of its own, with the previous snapshot of another.
func buildBeside(t *testing.T, previous *snapshots.Store, o builder.Options) (*snapshots.Store, *builder.Report) {
	t.Helper()
	o.PreviousStore = previous
	return build(t, o)
}

// What was kept and is not whole any more is built anew.
func TestDamagedKeptBuild(t *testing.T) {
	o := segmented(t)
	_, undisturbed := build(t, o)
	staged := func(stage string, pattern string) string {
		list, err := filepath.Glob(filepath.Join(stage, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, list)
		return list[0]
	}
	for _, gated := range []bool{false, true} {
		for name, damage := range map[string]func(t *testing.T, stage string){
			"flipped bit of a shard": func(t *testing.T, stage string) { flipByte(t, staged(stage, "store/shards/*"), 5000) },
			"truncated shard": func(t *testing.T, stage string) {
				require.NoError(t, os.Truncate(staged(stage, "store/shards/*"), 5000))
			},
			"missing shard":    func(t *testing.T, stage string) { require.NoError(t, os.Remove(staged(stage, "store/shards/*"))) },
			"missing store":    func(t *testing.T, stage string) { require.NoError(t, os.RemoveAll(filepath.Join(stage, "store"))) },
			"damaged state":    func(t *testing.T, stage string) { flipByte(t, filepath.Join(stage, "kept"), 300) },
			"truncated state":  func(t *testing.T, stage string) { require.NoError(t, os.Truncate(filepath.Join(stage, "kept"), 300)) },
			"state of another": func(t *testing.T, stage string) { flipByte(t, filepath.Join(stage, "kept"), 3) },
		} {
			store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
			require.NoError(t, err)
			dir := store.Location()
			if gated {
				// Nothing can be published, and nothing is moved.
				require.NoError(t, os.Remove(filepath.Join(dir, "shards")))
				require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "shards")))
				_, _, err = attempt(t.Context(), store, o)
				require.Error(t, err)
				require.NoError(t, os.Remove(filepath.Join(dir, "shards")))
			} else {
				ctx, cancel := context.WithCancel(t.Context())
				interrupted := o
				interrupted.Progress = &followed{onStage: func(name string) {
					if name == "run the gates" {
						cancel()
					}
				}}
				_, err = builder.Build(ctx, store, interrupted)
				require.ErrorIs(t, err, context.Canceled)
			}
			require.Len(t, stages(t, dir), 1)
			damage(t, stages(t, dir)[0])
			f, report, err := attempt(t.Context(), store, o)
			require.NoError(t, err, name)
			assert.True(t, f.did("index apps"), name)
			assert.Equal(t, undisturbed.Digest, report.Digest, name)
			require.NoError(t, snapshots.Verify(t.Context(), store, report.Digest, func(string) {}))
			if !strings.Contains(name, "state") {
				assert.Empty(t, stages(t, dir), name)
				assert.Contains(t, strings.Join(f.notes, "\n"), "what was built before is not whole any more, and is built anew")
			}
		}
	}
}

func flipByte(t *testing.T, path string, at int) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[at] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// A collection leaves alone what is kept, until it is old.
func TestCollectKeepsKeptBuilds(t *testing.T) {
	o := segmented(t)
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = &followed{onStage: func(name string) {
		if name == "run the gates" {
			cancel()
		}
	}}
	_, err = builder.Build(ctx, store, o)
	require.ErrorIs(t, err, context.Canceled)
	kept := stages(t, store.Location())
	require.Len(t, kept, 1)
	collect := func(dryRun bool) []string {
		done, err := store.Collect(t.Context(), snapshots.CollectOptions{DryRun: dryRun})
		require.NoError(t, err)
		return done.Leftovers
	}
	assert.Empty(t, collect(false))
	old := time.Now().Add(-snapshots.KeptLife - time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(kept[0], "kept"), old, old))
	assert.Equal(t, kept, collect(true))
	assert.Equal(t, kept, collect(false))
	assert.Empty(t, stages(t, store.Location()))
}
