package snapshots_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// A Collect deletes nothing, and neither would it, while it does not know what to keep.
func TestCollectIsSure(t *testing.T) {
	errLive := errors.New("a release cannot be read")
	type given struct {
		f      *objectstest.Faults
		o      *snapshots.CollectOptions
		d      []manifest.Digest
		shards []manifest.Digest
	}
	for name, c := range map[string]struct {
		change func(given)
		want   error
		text   string
	}{
		"no release":            {func(g given) { *g.o = everything() }, snapshots.ErrNothingLive, "there is no release, and snapshots would go (3, "},
		"nobody knows releases": {func(g given) { *g.o = snapshots.CollectOptions{} }, snapshots.ErrNothingLive, "there is no release, and snapshots would go (3, "},
		"no snapshot": {func(g given) {
			*g.o = everything()
			for _, d := range g.d {
				g.f.Remove("snapshots/" + string(d) + ".json")
			}
		}, snapshots.ErrNothingLive, "there is no snapshot, and shards would go (6)"},
		"snapshots cannot be listed, though released": {func(g given) {
			g.f.Inject(objectstest.Rule{Op: objectstest.List, Key: "snapshots/", Fault: objectstest.Empty})
		}, snapshots.ErrNoSnapshot, "one of the last releases needs snapshot "},
		"a released snapshot is not there": {func(g given) { g.f.Remove("snapshots/" + string(g.d[1]) + ".json") }, snapshots.ErrNoSnapshot, "one of the last releases needs snapshot "},
		"a released snapshot goes while it looks": {func(g given) {
			g.f.Inject(objectstest.Rule{Op: objectstest.Read, Key: "snapshots/" + string(g.d[1]), Do: func(objectstest.Request) { g.f.Remove("snapshots/" + string(g.d[1]) + ".json") }})
		}, snapshots.ErrNoSnapshot, "one of the last releases needs snapshot "},
		"the shards of a released snapshot are not there": {func(g given) {
			for _, key := range g.f.Keys("shards/") {
				g.f.Remove(key)
			}
		}, nil, "and its shard "},
		"a release cannot be read": {func(g given) {
			g.o.Live = func(context.Context) ([]manifest.Digest, error) { return nil, errLive }
		}, errLive, ""},
		"a manifest of a newer version": {func(g given) {
			g.f.Put("snapshots/"+string(manifest.Sum(nil))+".json", []byte(`{"version": 99}`), time.Now())
		}, nil, "version is 99"},
		"a manifest cannot be read":            {func(g given) { g.f.Inject(objectstest.Rule{Op: objectstest.Read, Key: "snapshots/" + string(g.d[0])}) }, objectstest.ErrInjected, ""},
		"snapshots cannot be listed":           {func(g given) { g.f.Inject(objectstest.Rule{Op: objectstest.List, Key: "snapshots/"}) }, objectstest.ErrInjected, ""},
		"shards cannot be listed":              {func(g given) { g.f.Inject(objectstest.Rule{Op: objectstest.List, Key: "shards/"}) }, objectstest.ErrInjected, ""},
		"it is said that nothing was released": {func(g given) { g.o.Unreleased = true }, nil, "there are releases, so nothing was deleted as if there were none"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := objectstest.NewFaults()
				g := given{f: f}
				for _, version := range []string{"1", "2", "3"} {
					d, shards := put(t, f, version, time.Now().Add(-time.Hour))
					g.d, g.shards = append(g.d, d), append(g.shards, shards...)
				}
				// Died long ago.
				f.Put("intents/1.json", []byte(`{"digests":[]}`), time.Now().Add(-2*time.Hour))
				o := everything(g.d[1])
				g.o = &o
				c.change(g)
				o.Unreleased = name == "it is said that nothing was released"
				store := storeOf(t, f, "", snapshots.Options{})
				before := f.Keys("")
				for _, o.DryRun = range []bool{true, false} {
					done, err := store.Collect(t.Context(), o)
					require.Error(t, err)
					if c.want != nil {
						require.ErrorIs(t, err, c.want)
					}
					assert.ErrorContains(t, err, c.text)
					missing := (*snapshots.MissingShardError)(nil)
					if errors.As(err, &missing) {
						assert.Equal(t, g.d[1], missing.Snapshot)
						assert.Contains(t, g.shards, missing.Shard)
					}
					assert.Equal(t, name == "the shards of a released snapshot are not there", missing != nil)
					assert.Equal(t, &snapshots.Collected{}, done)
				}
				if name == "a released snapshot goes while it looks" {
					before = slices.DeleteFunc(before, func(key string) bool { return key == "snapshots/"+string(g.d[1])+".json" })
				}
				assert.Equal(t, before, f.Keys(""))
			})
		})
	}
}

// A folder where nothing is mounted is left as it is.
func TestCollectWhereNoStoreIs(t *testing.T) {
	dir := t.TempDir()
	store, err := snapshots.OpenStore(t.Context(), dir, snapshots.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	_, err = store.Collect(t.Context(), snapshots.CollectOptions{})
	require.ErrorIs(t, err, snapshots.ErrNothingLive)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestCollectWhereNothingWasReleased(t *testing.T) {
	f := objectstest.NewFaults()
	put(t, f, "1", time.Now().Add(-time.Hour))
	store := storeOf(t, f, "", snapshots.Options{})
	done, err := store.Collect(t.Context(), snapshots.CollectOptions{Keep: 1})
	require.NoError(t, err, "no snapshot would go")
	assert.Empty(t, done.Snapshots)
	d, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	require.NoError(t, store.Remove(t.Context(), d, nil))
	_, err = store.Collect(t.Context(), snapshots.CollectOptions{Grace: 2 * time.Hour})
	require.NoError(t, err, "no shard would go")
	done, err = store.Collect(t.Context(), snapshots.CollectOptions{Unreleased: true})
	require.NoError(t, err)
	assert.Len(t, done.Shards, 2)
	assert.Empty(t, f.Keys(""))
}

// A store that shows less while a Collect runs, as a folder that is unmounted does, does
// not make it delete what it has seen to be needed.
func TestCollectRemembersWhatItSaw(t *testing.T) {
	for _, prefix := range []string{"snapshots/", "live"} {
		synctest.Test(t, func(t *testing.T) {
			f := objectstest.NewFaults()
			old, shards := put(t, f, "1", time.Now().Add(-time.Hour))
			live, _ := put(t, f, "2", time.Now().Add(-time.Hour))
			f.Put("shards/"+string(manifest.Sum(nil))+".shard", nil, time.Now().Add(-time.Hour))
			looks := 0
			o := everything(live)
			o.Live = func(context.Context) ([]manifest.Digest, error) {
				if looks++; looks > 1 && prefix == "live" {
					return nil, nil
				}
				return []manifest.Digest{live}, nil
			}
			if prefix != "live" {
				f.Inject(objectstest.Rule{Op: objectstest.List, Key: prefix, Skip: 1, Fault: objectstest.Empty})
			}
			done, err := storeOf(t, f, "", snapshots.Options{}).Collect(t.Context(), o)
			require.NoError(t, err)
			assert.Equal(t, []manifest.Digest{old}, done.Snapshots)
			assert.ElementsMatch(t, append(shards, manifest.Sum(nil)), done.Shards)
			assert.Len(t, f.Keys(""), 3)
		})
	}
}

// What is published again, or published at all, after a Collect has listed what is old is
// not old.
func TestCollectSparesWhatIsPublishedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		live, _ := put(t, f, "1", time.Now().Add(-time.Hour))
		again, _ := put(t, f, "2", time.Now().Add(-time.Hour))
		data, _ := f.Data("snapshots/" + string(again) + ".json")
		loose := []byte("3apps") // of a snapshot that is published below
		f.Put("shards/"+string(manifest.Sum(loose))+".shard", loose, time.Now().Add(-time.Hour))
		f.Inject(objectstest.Rule{Op: objectstest.Write, Key: "doomed/", Times: 1, Do: func(objectstest.Request) {
			f.Put("snapshots/"+string(again)+".json", data, time.Now())
			put(t, f, "3", time.Now())
		}})
		done, err := storeOf(t, f, "", snapshots.Options{}).Collect(t.Context(), everything(live))
		require.NoError(t, err)
		assert.ElementsMatch(t, []snapshots.Kept{
			{Snapshot: live, Why: []snapshots.Reason{snapshots.KeptLive}}, {Snapshot: again, Why: []snapshots.Reason{snapshots.KeptProtected}},
		}, done.Kept)
		done.Kept = nil
		assert.Equal(t, &snapshots.Collected{}, done)
	})
}

// Age is what the store's clock says, and is unknown where the date is that of a tool
// that knows none.
func TestCollectJudgesAge(t *testing.T) {
	for name, c := range map[string]struct {
		date func(now time.Time) time.Time
		goes bool
	}{
		"old":        {func(now time.Time) time.Time { return now.Add(-2 * time.Hour) }, true},
		"young":      {func(now time.Time) time.Time { return now.Add(-time.Minute) }, false},
		"the future": {func(now time.Time) time.Time { return now.Add(1000 * time.Hour) }, false},
		"1970":       {func(time.Time) time.Time { return time.Unix(0, 0) }, false},
		"1980":       {func(time.Time) time.Time { return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := objectstest.NewFaults()
			f.Advance(-24 * time.Hour)
			now := time.Now().Add(-24 * time.Hour)
			live, _ := put(t, f, "1", now)
			old, _ := put(t, f, "2", c.date(now))
			loose := manifest.Sum([]byte("loose"))
			f.Put("shards/"+string(loose)+".shard", nil, c.date(now))
			o := everything(live)
			o.KeepFor, o.Grace = time.Hour, time.Hour
			done, err := storeOf(t, f, "", snapshots.Options{}).Collect(t.Context(), o)
			require.NoError(t, err)
			assert.Equal(t, c.goes, slices.Contains(done.Snapshots, old), name)
			assert.Equal(t, c.goes, slices.Contains(done.Shards, loose), name)
		})
	}
}

// A folder of a store may be a link, to another disk say, and the store's path may look
// like a pattern. What is there is found, and nothing live goes.
func TestCollectInFoldersThatAreLinks(t *testing.T) {
	for _, linked := range []string{"snapshots", "shards", "intents", "doomed", "staging", ""} {
		t.Run("link "+linked, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "[a]*?")
			store := shardtest.Store(t, dir)
			from, m := staged(t, 20, 2)
			d, err := store.Import(t.Context(), from, m)
			require.NoError(t, err)
			if linked != "" {
				elsewhere := filepath.Join(t.TempDir(), "elsewhere")
				require.NoError(t, os.Rename(filepath.Join(dir, linked), elsewhere))
				require.NoError(t, os.Symlink(elsewhere, filepath.Join(dir, linked)))
			}
			dead := filepath.Join(dir, "staging", "build-dead")
			require.NoError(t, os.Mkdir(dead, 0o755))
			temporary := filepath.Join(dir, "shards", ".x.shard.1.tmp")
			require.NoError(t, os.WriteFile(temporary, nil, 0o600))
			store, err = snapshots.OpenStore(t.Context(), dir, snapshots.Options{})
			require.NoError(t, err)
			defer store.Close()
			done, err := store.Collect(t.Context(), everything(d))
			require.NoError(t, err)
			assert.ElementsMatch(t, []string{dead, temporary}, done.Leftovers)
			assert.NoDirExists(t, dead)
			assert.NoFileExists(t, temporary)
			assert.NoError(t, snapshots.Verify(t.Context(), store, d, func(string) {}))

			// A link that leads nowhere hides what must be kept.
			if linked == "snapshots" || linked == "shards" || linked == "intents" {
				elsewhere, err := os.Readlink(filepath.Join(dir, linked))
				require.NoError(t, err)
				require.NoError(t, os.Rename(elsewhere, elsewhere+"2"))
				_, err = store.Collect(t.Context(), everything(d))
				assert.Error(t, err)
				require.NoError(t, os.Rename(elsewhere+"2", elsewhere))
				assert.NoError(t, snapshots.Verify(t.Context(), store, d, func(string) {}))
			}
		})
	}
}
