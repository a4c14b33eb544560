package snapshots_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// everything collects all that nothing needs.
func everything(live ...manifest.Digest) snapshots.CollectOptions {
	return snapshots.CollectOptions{
		Live:       func(context.Context) ([]manifest.Digest, error) { return live, nil },
		Unreleased: len(live) == 0,
	}
}

func TestCollect(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
		var digests []manifest.Digest
		var manifests []*manifest.Manifest
		for _, rows := range []int{20, 30, 40} {
			from, m := staged(t, rows, 2)
			d, err := store.Import(ctx, from, m)
			require.NoError(t, err)
			digests, manifests = append(digests, d), append(manifests, m)
		}
		kept := func() (list []manifest.Digest) {
			published, err := store.Snapshots(ctx)
			require.NoError(t, err)
			for _, d := range digests {
				if slices.ContainsFunc(published, func(p snapshots.Published) bool { return p.Digest == d }) {
					list = append(list, d)
					require.NoError(t, snapshots.Verify(ctx, store, d, func(string) {}))
				}
			}
			return list
		}
		o := everything(digests[1])
		o.KeepFor = time.Hour
		done, err := store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Empty(t, done.Snapshots, "all are young")
		why := func(done *snapshots.Collected) map[manifest.Digest][]snapshots.Reason {
			reasons := map[manifest.Digest][]snapshots.Reason{}
			for _, k := range done.Kept {
				reasons[k.Snapshot] = k.Why
			}
			return reasons
		}
		assert.Equal(t, map[manifest.Digest][]snapshots.Reason{
			digests[0]: {snapshots.KeptYoung}, digests[1]: {snapshots.KeptLive, snapshots.KeptYoung}, digests[2]: {snapshots.KeptYoung},
		}, why(done))
		o.KeepFor, o.DryRun = 0, true
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.ElementsMatch(t, []manifest.Digest{digests[0], digests[2]}, done.Snapshots)
		assert.Len(t, done.Shards, 4)
		assert.Equal(t, digests, kept(), "a dry run deletes nothing")
		assert.Equal(t, map[manifest.Digest][]snapshots.Reason{digests[1]: {snapshots.KeptLive}}, why(done))
		o.Keep = 3
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Equal(t, []snapshots.Reason{snapshots.KeptNewest}, why(done)[digests[0]])
		o.Keep = 0

		protection, err := store.Protect(ctx, digests[2])
		require.NoError(t, err)
		assert.ErrorContains(t, store.Remove(ctx, digests[2], o.Live), "a release or a writer needs it")
		assert.ErrorContains(t, store.Remove(ctx, digests[1], o.Live), "a release or a writer needs it")
		o.DryRun = false
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Equal(t, digests[:1], done.Snapshots)
		assert.Equal(t, map[manifest.Digest][]snapshots.Reason{digests[1]: {snapshots.KeptLive}, digests[2]: {snapshots.KeptProtected}}, why(done))
		assert.Len(t, done.Shards, 2)
		assert.Equal(t, manifests[0].Apps.Shards[0].Size+manifests[0].Apps.Shards[1].Size, done.Bytes)
		assert.Equal(t, digests[1:], kept())
		require.NoError(t, protection.End(ctx))

		require.NoError(t, store.Remove(ctx, digests[2], o.Live))
		assert.ErrorIs(t, store.Remove(ctx, digests[2], o.Live), snapshots.ErrNoSnapshot)
		assert.Equal(t, digests[1:2], kept())
		o.Grace = time.Hour
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Empty(t, done.Shards, "they are young")
		assert.Equal(t, 2, done.Young)
		o.Grace = 0
		done, err = store.Collect(ctx, o)
		require.NoError(t, err)
		assert.Len(t, done.Shards, 2)
		var left []string
		for o, err := range bucket.List(ctx, "") {
			require.NoError(t, err)
			left = append(left, o.Key)
		}
		assert.Len(t, left, 4, "one snapshot, and the id of the store: %v", left)
	})
}

// Who releases what is live is not held up by a Collect, or by one that died.
func TestCollectMarksNothingLive(t *testing.T) {
	bucket, _, d := bucketWith(t, 20, 30)
	store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
	o := everything(d[0])
	marked := false
	o.Live = func(ctx context.Context) ([]manifest.Digest, error) {
		_, err := bucket.Stat(ctx, "doomed/"+string(d[1]))
		if marked = marked || err == nil; err == nil {
			protection, err := store.TryProtect(ctx, d[0])
			if assert.NoError(t, err, "it is live") {
				assert.NoError(t, protection.End(ctx))
			}
		}
		return d[:1], nil
	}
	done, err := store.Collect(t.Context(), o)
	require.NoError(t, err)
	assert.True(t, marked)
	assert.Equal(t, d[1:], done.Snapshots)
}

// A manifest that another Collect deleted when it died may come back after a crash, until
// the folder is synced: its shards stay until then.
func TestCollectDeletesNoShardBeforeItsManifestIsGoneForGood(t *testing.T) {
	collect := func(dir string) []string {
		store := shardtest.Store(t, dir)
		_, err := store.Collect(t.Context(), everything())
		return []string{fmt.Sprint(errors.Is(err, objects.ErrNotDurable))}
	}
	dir := t.TempDir()
	store := shardtest.Store(t, dir)
	from, m := staged(t, 20, 1)
	d, err := store.Import(t.Context(), from, m)
	require.NoError(t, err)
	require.NoError(t, os.Remove(store.ManifestPath(d)))
	shards := func() []string {
		list, err := filepath.Glob(filepath.Join(dir, "shards", "*.shard"))
		require.NoError(t, err)
		return list
	}
	said := objectstest.UnderStrace(t, dir, collect, "-e", "trace=fsync", "-P", filepath.Join(dir, "snapshots"), "-e", "inject=fsync:error=EIO")
	assert.Equal(t, []string{"true"}, said)
	assert.Len(t, shards(), 1)
	assert.Equal(t, []string{"false"}, objectstest.UnderStrace(t, dir, collect, "-e", "trace=fsync"))
	assert.Empty(t, shards())
}

func TestCollectDeletesNoShardIfAManifestIsDamaged(t *testing.T) {
	bucket, m, d := bucketWith(t, 20, 30)
	store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d[0])+".json", []byte("{")))
	_, err := store.Collect(t.Context(), everything(d...))
	require.ErrorIs(t, err, sections.ErrCorrupt)
	_, err = bucket.Stat(t.Context(), "shards/"+string(m[0].Apps.Shards[0].Digest)+".shard")
	assert.NoError(t, err)
}

func TestCollectKeepsLiveStages(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	alive, err := store.Stage()
	require.NoError(t, err)
	dead := filepath.Join(filepath.Dir(alive.Dir()), "build-dead")
	require.NoError(t, os.MkdirAll(filepath.Join(dead, "store", "shards"), 0o755))
	old := filepath.Join(store.Location(), "shards", ".x.shard.1.tmp")
	require.NoError(t, os.WriteFile(old, nil, 0o600))
	at := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(old, at, at))
	done, err := store.Collect(t.Context(), everything())
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{dead, old}, done.Leftovers)
	assert.DirExists(t, alive.Dir())
	assert.NoFileExists(t, old)
	require.NoError(t, alive.Close())
	assert.NoDirExists(t, alive.Dir())
}

// What killed publishers were writing goes after the grace, wherever in the store it is;
// what is being written stays.
func TestCollectTemporaryFiles(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	var old, young []string
	at := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{"releases/.000000000012.json.1.tmp", "gates/ab/.000000000001.json.1.tmp", "queries/day/.x.parquet.1.tmp",
		"snapshots/.ab.json.1.tmp", "shards/.ab.shard.1.tmp", "intents/.ab.json.1.tmp", "live/.000000000012.log.1.tmp",
		".store.json.1.tmp", ".released.1.tmp"} {
		path := filepath.Join(store.Location(), name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
		old = append(old, path)
		young = append(young, strings.Replace(path, ".1.tmp", ".2.tmp", 1))
		require.NoError(t, os.WriteFile(young[len(young)-1], nil, 0o600))
	}
	// A writer in the middle of an object, older than any grace.
	reader, writer := io.Pipe()
	written := make(chan error)
	go func() { written <- store.Objects().Upload(t.Context(), "queries/slow.parquet", reader) }()
	_, err := writer.Write([]byte("half"))
	require.NoError(t, err)
	slow, err := filepath.Glob(filepath.Join(store.Location(), "queries", ".slow.parquet.*.tmp"))
	require.NoError(t, err)
	require.Len(t, slow, 1)
	require.NoError(t, os.Chtimes(slow[0], at, at))

	collect := func(grace time.Duration, dryRun bool) []string {
		o := everything()
		o.Grace, o.DryRun = grace, dryRun
		done, err := store.Collect(t.Context(), o)
		require.NoError(t, err)
		return done.Leftovers
	}
	assert.Empty(t, collect(3*time.Hour, false))
	assert.ElementsMatch(t, old, collect(time.Hour, true))
	assert.ElementsMatch(t, old, collect(time.Hour, false))
	assert.ElementsMatch(t, young, collect(0, false))
	assert.Empty(t, collect(0, false))

	_, err = writer.Write([]byte(" and half"))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	require.NoError(t, <-written)
	data, err := store.Objects().Read(t.Context(), "queries/slow.parquet")
	require.NoError(t, err)
	assert.Equal(t, "half and half", string(data))
}

// Publishers race with collectors that want to delete everything as soon as they may:
// a snapshot that was imported is whole for as long as it is live.
func TestCollectRacesWithImport(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		store := newStoreIn(t, bucket, snapshots.Options{Cache: t.TempDir()})
		from, m := staged(t, 10, 1)
		first, err := store.Import(ctx, from, m)
		require.NoError(t, err)
		var mu sync.Mutex
		live := []manifest.Digest{first}
		collecting := everything(first)
		collecting.Live = func(context.Context) ([]manifest.Digest, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(live), nil
		}
		var collectors sync.WaitGroup
		for range 2 {
			collectors.Go(func() {
				for ctx.Err() == nil {
					if _, err := store.Collect(ctx, collecting); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}
			})
		}
		var publishers sync.WaitGroup
		for range 3 {
			publishers.Go(func() {
				for range 3 {
					from, m := staged(t, 20, 2) // the same shards each time
					d := want(t, m)
					protection, err := store.Protect(ctx, d) // as a release does
					if !assert.NoError(t, err) {
						return
					}
					if _, err := store.Import(ctx, from, m); !assert.NoError(t, err) {
						return
					}
					mu.Lock()
					live = []manifest.Digest{first, d}
					mu.Unlock()
					assert.NoError(t, protection.End(ctx))
					cache := t.TempDir()
					fresh := newStoreIn(t, bucket, snapshots.Options{Cache: cache})
					assert.NoError(t, snapshots.Verify(ctx, fresh, d, func(string) {}))
				}
			})
		}
		publishers.Wait()
		stop()
		collectors.Wait()
	})
}

// A batch that takes too long is given up before what it deletes may be needed again, and
// smaller ones follow.
func TestCollectFromASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		live, _ := put(t, f, "live", time.Now())
		const n = 200
		for i := range n {
			f.Put("shards/"+string(manifest.Sum([]byte{byte(i)}))+".shard", nil, time.Now().Add(-time.Hour))
		}
		// 64 marks take 16 s, and as many deletions 7 s.
		var mu sync.Mutex
		batches := map[string]time.Time{}
		f.Inject(objectstest.Rule{Op: objectstest.Write, Key: "doomed/", Fault: objectstest.Slow, Delay: 2 * time.Second, Do: func(q objectstest.Request) {
			mu.Lock()
			defer mu.Unlock()
			batches[q.Key] = time.Now()
		}})
		f.Inject(objectstest.Rule{Op: objectstest.Delete, Key: "shards/", Fault: objectstest.Slow, Delay: 900 * time.Millisecond, Do: func(q objectstest.Request) {
			mu.Lock()
			defer mu.Unlock()
			marked := time.Time{}
			for key, at := range batches {
				data, _ := f.Data(key)
				if bytes.Contains(data, []byte(q.Key[len("shards/"):len("shards/")+64])) && at.After(marked) {
					marked = at
				}
			}
			assert.LessOrEqual(t, time.Since(marked), 20*time.Second)
		}})
		done, err := storeOf(t, f, "", snapshots.Options{}).Collect(t.Context(), everything(live))
		require.NoError(t, err)
		assert.Len(t, done.Shards, n)

		// A deletion that is not answered ends in time, and is asked for again. It may have
		// its effect yet, so what it would delete stays marked for as long.
		f.Heal()
		d := manifest.Sum([]byte{1})
		key := "shards/" + string(d) + ".shard"
		f.Put(key, nil, time.Now().Add(-time.Hour))
		f.Inject(objectstest.Rule{Op: objectstest.Delete, Key: key, Times: 1, Fault: objectstest.Hang})
		start := time.Now()
		done, err = storeOf(t, f, "", snapshots.Options{}).Collect(t.Context(), everything(live))
		require.NoError(t, err)
		assert.Equal(t, []manifest.Digest{d}, done.Shards)
		assert.Less(t, time.Since(start), 21*time.Second)
		_, err = storeOf(t, f, "", snapshots.Options{}).TryProtect(t.Context(), d)
		require.ErrorAs(t, err, new(*snapshots.MarkedError))
		time.Sleep(time.Minute)
		p, err := storeOf(t, f, "", snapshots.Options{}).TryProtect(t.Context(), d)
		require.NoError(t, err)
		require.NoError(t, p.End(t.Context()))

		// One object is too many.
		f.Heal()
		o := everything(live)
		o.Live = func(context.Context) ([]manifest.Digest, error) {
			time.Sleep(21 * time.Second)
			return []manifest.Digest{live}, nil
		}
		f.Put("shards/"+string(manifest.Sum(nil))+".shard", nil, time.Now().Add(-time.Hour))
		done, err = storeOf(t, f, "", snapshots.Options{}).Collect(t.Context(), o)
		require.ErrorContains(t, err, "the store is too slow")
		assert.Empty(t, done.Shards)
		assert.Len(t, f.Keys("shards/"), 3)
	})
}

// A Collect that stands still after it has looked, for longer than others wait for it,
// deletes nothing of what it looked for.
func TestCollectThatStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, err := objects.Open(t.Context(), t.TempDir())
		require.NoError(t, err)
		for name, store := range map[string]*snapshots.Store{
			"faults": storeOf(t, objectstest.NewFaults(), "", snapshots.Options{}), "folder": newStoreIn(t, bucket, snapshots.Options{}),
		} {
			var digests []manifest.Digest
			for _, rows := range []int{10, 20, 30} {
				from, m := staged(t, rows, 1)
				d, err := store.Import(t.Context(), from, m)
				require.NoError(t, err)
				digests = append(digests, d)
			}
			o := everything(digests[0])
			var p *snapshots.Protection
			looks := 0
			o.Live = func(context.Context) ([]manifest.Digest, error) {
				if looks++; looks == 2 {
					time.Sleep(59 * time.Second)
					// A folder has the time of the machine, and not of the bubble: nobody waits
					// there, as if he had waited before.
					for _, key := range keysOf(t, store, "doomed/") {
						require.NoError(t, store.Objects().Delete(t.Context(), key))
					}
					if p, err = store.Protect(t.Context(), digests[1:]...); err != nil {
						return nil, err
					}
				}
				return digests[:1], nil
			}
			done, err := store.Collect(t.Context(), o)
			require.NoError(t, err, name)
			assert.Empty(t, done.Snapshots, name)
			for _, d := range digests {
				require.NoError(t, snapshots.Verify(t.Context(), store, d, func(string) {}), name)
			}
			require.NoError(t, p.End(t.Context()))
		}
	})
}

func keysOf(t *testing.T, store *snapshots.Store, prefix string) (keys []string) {
	t.Helper()
	for o, err := range store.Objects().List(t.Context(), prefix) {
		require.NoError(t, err)
		keys = append(keys, o.Key)
	}
	return keys
}

// An error ends a Collect, which returns what it deleted before; the next one goes on.
func TestCollectGoesOnAfterAnError(t *testing.T) {
	for _, rule := range []objectstest.Rule{
		{Op: objectstest.Delete, Key: "snapshots/", Skip: 1},
		{Op: objectstest.Delete, Key: "shards/", Skip: 3},
		{Op: objectstest.Delete, Key: "shards/", Skip: 3, Fault: objectstest.Lose},
		{Op: objectstest.List, Key: "intents/", Skip: 2},
		{Op: objectstest.Write, Key: "doomed/", Skip: 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := objectstest.NewFaults()
			live, kept := put(t, f, "live", time.Now().Add(-time.Hour))
			for _, version := range []string{"1", "2", "3"} {
				put(t, f, version, time.Now().Add(-time.Hour))
			}
			store := storeOf(t, f, "", snapshots.Options{})
			f.Inject(rule)
			before := len(f.Keys("snapshots/")) + len(f.Keys("shards/"))
			done, err := store.Collect(t.Context(), everything(live))
			require.ErrorIs(t, err, objectstest.ErrInjected, "%v", rule)
			gone := before - len(f.Keys("snapshots/")) - len(f.Keys("shards/"))
			if rule.Fault == objectstest.Lose {
				assert.LessOrEqual(t, len(done.Snapshots)+len(done.Shards), gone)
			} else {
				assert.Equal(t, gone, len(done.Snapshots)+len(done.Shards))
			}
			f.Heal()
			if rule.Op != objectstest.Delete { // else it may have its effect yet
				assert.Empty(t, f.Keys("doomed/"))
			}
			time.Sleep(time.Minute)
			_, err = store.Collect(t.Context(), everything(live))
			require.NoError(t, err)
			assert.Len(t, f.Keys(""), 1+len(kept))
		})
	}
}

// What killed processes left goes, a dry run says the same, and what is dated ahead gets a
// date so that it goes in time.
func TestCollectLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		live, _ := put(t, f, "1", time.Now().Add(-time.Hour))
		old, shards := put(t, f, "2", time.Now().Add(-time.Hour))
		intent := fmt.Appendf(nil, `{"digests":["%s","%s","%s"]}`, old, shards[0], shards[1])
		f.Put("intents/dead.json", intent, time.Now().Add(-2*time.Hour))
		f.Put("doomed/batch-dead.json", intent, time.Now().Add(-2*time.Minute))
		f.Put("doomed/"+string(old), nil, time.Now().Add(-2*time.Minute))
		f.Put("doomed/clock-dead", nil, time.Now().Add(-2*time.Minute))
		f.Put("doomed/batch-alive.json", intent, time.Now().Add(-time.Second))
		f.Put("intents/broken.json", []byte("{"), time.Now().Add(-2*time.Hour))
		f.Put("intents/ahead.json", []byte(`{"digests":[]}`), time.Now().Add(1000*time.Hour))
		f.Put("doomed/batch-ahead.json", intent, time.Now().Add(1000*time.Hour))
		store := storeOf(t, f, "", snapshots.Options{})
		o := everything(live)
		o.DryRun = true
		would, err := store.Collect(t.Context(), o)
		require.NoError(t, err)
		assert.Equal(t, []manifest.Digest{old}, would.Snapshots)
		assert.ElementsMatch(t, []string{"intents/dead.json", "intents/broken.json", "doomed/batch-dead.json", "doomed/clock-dead", "doomed/" + string(old)}, would.Leftovers)
		assert.Len(t, f.Keys(""), 14)
		o.DryRun = false
		done, err := store.Collect(t.Context(), o)
		require.NoError(t, err)
		assert.Equal(t, would, done)
		assert.Len(t, f.Keys(""), 6)
		time.Sleep(time.Hour)
		done, err = store.Collect(t.Context(), o)
		require.NoError(t, err)
		assert.ElementsMatch(t, []string{"doomed/batch-alive.json", "doomed/batch-ahead.json", "intents/ahead.json"}, done.Leftovers)
	})
}

// The folder of a build that may be running on another machine, where a lock is not seen,
// goes when nothing in it was written for long.
func TestCollectStagesOfOtherMachines(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	here, err := store.Stage()
	require.NoError(t, err)
	name := filepath.Base(here.Dir())
	other := filepath.Join(filepath.Dir(here.Dir()), "build-00000000-1")
	dead := filepath.Join(filepath.Dir(here.Dir()), name[:strings.LastIndex(name, "-")]+"-1")
	file := filepath.Join(other, "store", "shards", "x")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Mkdir(dead, 0o755))
	old := time.Now().Add(-2 * time.Hour)
	age := func(path string) {
		require.NoError(t, os.Chtimes(path, old, old))
	}
	o := everything()
	o.Grace = time.Hour
	collect := func() []string {
		done, err := store.Collect(t.Context(), o)
		require.NoError(t, err)
		return done.Leftovers
	}
	assert.Equal(t, []string{dead}, collect())
	for _, dir := range []string{other, filepath.Join(other, "store"), filepath.Dir(file)} {
		age(dir)
	}
	assert.Empty(t, collect(), "a file was just written")
	age(file)
	assert.Equal(t, []string{other}, collect())
	require.NoError(t, here.Close())
}
