package release_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// What the collections of these tests keep, and how old a request may be when it has its
// effect: that is what a collection relies on.
const (
	keepFor  = 2 * time.Hour
	inFlight = 30 * time.Second
)

// archive is a store that has snapshots, from which others copy them: version n has the
// shards n and n+1.
type archive struct {
	store     *snapshots.Store
	cache     string
	digests   []manifest.Digest
	manifests []*manifest.Manifest
}

func newArchive(t *testing.T, versions int) *archive {
	bucket := objectstest.NewFaults().Bucket("archive")
	cache := t.TempDir()
	store, err := snapshots.NewStore(bucket, snapshots.Options{Cache: cache})
	require.NoError(t, err)
	a := &archive{store: store, cache: cache}
	one := func(n int) manifest.Tower {
		data := fmt.Appendf(nil, "shard %d", n)
		require.NoError(t, bucket.Write(t.Context(), "shards/"+string(manifest.Sum(data))+".shard", data))
		return manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum(data), Size: int64(len(data))}}}
	}
	for n := range versions {
		m := &manifest.Manifest{
			Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: fmt.Sprint(n), Metric: index.Dot, Dim: 1,
			Apps: one(n), Users: one(n + 1),
		}
		data, err := m.Encode()
		require.NoError(t, err)
		a.digests, a.manifests = append(a.digests, manifest.Sum(data)), append(a.manifests, m)
		require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(manifest.Sum(data))+".json", data))
		done, err := store.Fetch(t.Context(), m) // so that a copy reads files only
		require.NoError(t, err)
		done()
	}
	return a
}

// whole returns an error unless a store has a snapshot and all its shards.
func (a *archive) whole(f *objectstest.Faults, d manifest.Digest) error {
	n := slices.Index(a.digests, d)
	keys := []string{"snapshots/" + string(d) + ".json"}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		keys = append(keys, "shards/"+string(a.manifests[n].Tower(kind).Shards[0].Digest)+".shard")
	}
	for _, key := range keys {
		if _, ok := f.Data(key); !ok {
			return fmt.Errorf("version %d lacks %s", n, key)
		}
	}
	return nil
}

// releasedWhole returns an error unless everything that the last ten releases need is there.
func (a *archive) releasedWhole(f *objectstest.Faults) error {
	entries := f.Keys("releases/")
	for _, key := range entries[max(len(entries)-10, 0):] {
		data, _ := f.Data(key)
		var r release.Release
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		for _, arm := range r.Arms {
			if err := a.whole(f, arm.Snapshot); err != nil {
				return fmt.Errorf("generation %d of %d: %w", r.Generation, len(entries), err)
			}
		}
	}
	return nil
}

// client is one that uses a store.
type client struct {
	*release.Releases
	archive *archive
}

func newClient(t *testing.T, f *objectstest.Faults, a *archive, name string) *client {
	store, err := snapshots.NewStore(f.Bucket(name), snapshots.Options{Cache: a.cache})
	require.NoError(t, err)
	return &client{release.NewJudged(store, fit), a}
}

func (c *client) copy(ctx context.Context, n int) error {
	return c.Store().Copy(ctx, c.archive.store, c.archive.digests[n])
}

func (c *client) start(ctx context.Context, n int) error {
	_, err := c.Start(ctx, release.StartOptions{Snapshot: c.archive.digests[n], Weight: 10})
	return err
}

func (c *client) promote(ctx context.Context) error {
	_, err := c.Promote(ctx, release.Change{}, "")
	return err
}

func (c *client) split(ctx context.Context) error {
	_, err := c.Split(ctx, release.SplitOptions{Pins: map[string][]string{release.Control: {"key"}}})
	return err
}

func (c *client) rollback(ctx context.Context, to uint64) error {
	_, err := c.Rollback(ctx, release.RollbackOptions{To: to})
	return err
}

func (c *client) collect(ctx context.Context) error {
	_, err := c.Store().Collect(ctx, snapshots.CollectOptions{Live: c.Live, KeepFor: keepFor, Grace: keepFor})
	return err
}

// generations returns the objects of a store with four snapshots and 13 generations. Version 0
// is in 1 and 2, version 1 in 2 to 4, and version 2 in 4 to 13: so that version 1 is live
// by the first of the last ten alone. Version 3 was never released.
func generations(t *testing.T, a *archive) map[string][]byte {
	ctx := t.Context()
	f := objectstest.NewFaults()
	c := newClient(t, f, a, "history")
	for n := range 4 {
		require.NoError(t, c.copy(ctx, n))
	}
	require.NoError(t, c.start(ctx, 0))
	for n := range 2 {
		require.NoError(t, c.start(ctx, n+1))
		require.NoError(t, c.promote(ctx))
	}
	for range 8 {
		require.NoError(t, c.split(ctx))
	}
	objects := map[string][]byte{}
	for _, key := range f.Keys("") {
		objects[key], _ = f.Data(key)
	}
	return objects
}

// old returns a store in which nothing is young.
func old(objects map[string][]byte) *objectstest.Faults {
	f := objectstest.NewFaults()
	for key, data := range objects {
		f.Put(key, data, time.Now().Add(-2*keepFor))
	}
	return f
}

// Whatever is done while a collection is at any point, and whatever a collection does
// while something else is, what is released is whole.
func TestCollectMeetsReleases(t *testing.T) {
	collect := func(ctx context.Context, c *client) error { return c.collect(ctx) }
	others := map[string]func(context.Context, *client) error{
		"start":    func(ctx context.Context, c *client) error { return c.start(ctx, 3) },
		"edge":     func(ctx context.Context, c *client) error { return c.rollback(ctx, 4) },
		"long ago": func(ctx context.Context, c *client) error { return c.rollback(ctx, 2) },
		"moving edge": func(ctx context.Context, c *client) error {
			return errors.Join(c.split(ctx), c.rollback(ctx, 4))
		},
		"copy":    func(ctx context.Context, c *client) error { return errors.Join(c.copy(ctx, 0), c.start(ctx, 0)) },
		"remove":  func(ctx context.Context, c *client) error { return c.Store().Remove(ctx, c.archive.digests[3], c.Live) },
		"collect": collect,
	}
	a := newArchive(t, 4)
	before := generations(t, a)
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]func(context.Context, *client) error{{collect, other}, {other, collect}} {
				for k, more := 0, true; more; k++ {
					synctest.Test(t, func(t *testing.T) {
						f := old(before)
						first, second := newClient(t, f, a, "first"), newClient(t, f, a, "second")
						more = false
						f.Inject(objectstest.Rule{Client: "first", Skip: k, Times: 1, Choose: func(objectstest.Request) objectstest.Fault {
							more = true
							start := time.Now()
							expected(t, order[1](t.Context(), second))
							assert.LessOrEqual(t, time.Since(start), 62*time.Second)
							if time.Since(start) > inFlight {
								return objectstest.Fail
							}
							return ""
						}})
						expected(t, order[0](t.Context(), first))
						require.NoError(t, a.releasedWhole(f), "second at request %d of the first", k)
					})
				}
			}
		})
	}
}

// expected fails a test unless an error is one that those that meet a collection may get.
func expected(t *testing.T, err error) {
	t.Helper()
	marked := (*snapshots.MarkedError)(nil)
	if err == nil || errors.Is(err, snapshots.ErrNoSnapshot) || errors.Is(err, release.ErrConflict) ||
		errors.Is(err, objectstest.ErrInjected) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &marked) {
		return
	}
	for _, text := range []string{"is not in the store", "a release or a writer needs it"} {
		if strings.Contains(err.Error(), text) {
			return
		}
	}
	assert.NoError(t, err)
}

// What a gc that died has marked holds up who starts it, for a minute, and nobody else: of
// the last ten generations it is not deleted, and an earlier one is refused at once.
func TestWhoWaitsForTheDead(t *testing.T) {
	a := newArchive(t, 4)
	before := generations(t, a)
	synctest.Test(t, func(t *testing.T) {
		f := old(before)
		c := newClient(t, f, a, "")
		f.Put("doomed/batch-1.json", nil, time.Now().Add(100*time.Hour)) // stands for everything
		for _, d := range a.digests {
			f.Put("doomed/"+string(d), nil, time.Now().Add(100*time.Hour))
		}
		began := time.Now()
		marked := &snapshots.MarkedError{}
		require.ErrorAs(t, c.rollback(t.Context(), 1), &marked)
		assert.Equal(t, a.digests[:1], marked.Digests)
		require.ErrorAs(t, c.rollback(t.Context(), 3), &marked)
		require.NoError(t, c.rollback(t.Context(), 4))
		require.NoError(t, c.promote(t.Context()))
		require.NoError(t, c.split(t.Context()))
		require.ErrorAs(t, c.rollback(t.Context(), 0), &marked, "what had all traffic before is as old")
		assert.Zero(t, time.Since(began))
		require.NoError(t, c.start(t.Context(), 3))
		assert.InDelta(t, time.Minute, time.Since(began), float64(2*time.Second))
		require.NoError(t, c.rollback(t.Context(), 1))
		assert.InDelta(t, time.Minute, time.Since(began), float64(2*time.Second))
		assert.Empty(t, f.Keys("intents/"))
	})
}

// A snapshot stays protected while it is not known whether it was released.
func TestUnansweredReleaseProtects(t *testing.T) {
	a := newArchive(t, 4)
	before := generations(t, a)
	for fault, left := range map[objectstest.Fault]int{objectstest.Fail: 1, objectstest.Lose: 0, "": 0} {
		synctest.Test(t, func(t *testing.T) {
			f := old(before)
			c := newClient(t, f, a, "")
			f.Inject(objectstest.Rule{Op: objectstest.Create, Key: "releases/", Choose: func(objectstest.Request) objectstest.Fault {
				if fault == "" { // another was first
					f.Put("releases/000000000014.json", before["releases/000000000013.json"], time.Now())
				}
				return fault
			}})
			assert.Equal(t, fault == objectstest.Lose, c.start(t.Context(), 3) == nil)
			assert.Len(t, f.Keys("intents/"), left)
			if f.Heal(); fault != "" {
				require.NoError(t, c.collect(t.Context()))
				assert.NoError(t, a.whole(f, a.digests[3]))
			}
		})
	}
}

func TestRollbackNeedsShards(t *testing.T) {
	a := newArchive(t, 4)
	before := generations(t, a)
	for _, to := range []uint64{1, 4} {
		f := old(before)
		c := newClient(t, f, a, "")
		for _, lost := range []string{"shards/" + string(a.manifests[1].Apps.Shards[0].Digest) + ".shard", "snapshots/" + string(a.digests[0]) + ".json"} {
			f.Remove(lost)
		}
		require.ErrorContains(t, c.rollback(t.Context(), to), map[uint64]string{1: "no such snapshot", 4: "is not in the store; tandem snapshot verify "}[to])
		assert.Len(t, f.Keys("releases/"), 13)
		assert.Empty(t, f.Keys("intents/"))
	}
}

func TestLive(t *testing.T) {
	a := newArchive(t, 4)
	before := generations(t, a)
	f := old(before)
	c := newClient(t, f, a, "")
	live := func() []manifest.Digest {
		list, err := c.Live(t.Context())
		require.NoError(t, err)
		return list
	}
	assert.ElementsMatch(t, a.digests[1:3], live())
	for n := 1; n < 4; n++ {
		f.Remove(fmt.Sprintf("releases/%012d.json", n))
	}
	assert.ElementsMatch(t, a.digests[1:3], live(), "what it does not need may be gone")
	f.Remove("releases/000000000004.json")
	_, err := c.Live(t.Context())
	require.ErrorContains(t, err, "what generation 4 needs is not known, and matters until generation 14, or until a change accepts the log as it is: ")
	require.NoError(t, c.split(t.Context()))
	assert.Equal(t, a.digests[2:3], live())
	f.Inject(objectstest.Rule{Op: objectstest.Read, Key: "releases/000000000007.json"})
	_, err = c.Live(t.Context())
	require.ErrorIs(t, err, objectstest.ErrInjected)
}
