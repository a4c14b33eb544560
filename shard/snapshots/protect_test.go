package snapshots_test

import (
	"context"
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
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// put puts a snapshot, with shards that nothing can open, into a store, and returns its
// digest and those of its shards.
func put(t *testing.T, f *objectstest.Faults, version string, at time.Time) (manifest.Digest, []manifest.Digest) {
	t.Helper()
	m := &manifest.Manifest{Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: version, Metric: index.Dot, Dim: 1}
	var shards []manifest.Digest
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		data := []byte(version + string(kind))
		shards = append(shards, manifest.Sum(data))
		m.Tower(kind).Shards = []manifest.Shard{{Digest: manifest.Sum(data), Size: int64(len(data))}}
		f.Put("shards/"+string(manifest.Sum(data))+".shard", data, at)
	}
	data, err := m.Encode()
	require.NoError(t, err)
	f.Put("snapshots/"+string(manifest.Sum(data))+".json", data, at)
	return manifest.Sum(data), shards
}

// storeOf returns a store as a client of a faulty bucket sees it.
func storeOf(t *testing.T, f *objectstest.Faults, client string, o snapshots.Options) *snapshots.Store {
	t.Helper()
	o.Cache = t.TempDir()
	return newStoreIn(t, f.Bucket(client), o)
}

// What a collection that died has marked is waited for, for a minute by the store's clock
// or by ours, whatever the marks are dated; and who waits is told.
func TestProtectWaitsForTheDead(t *testing.T) {
	d, other := manifest.Sum([]byte("d")), manifest.Sum([]byte("other"))
	batch := func(digests ...manifest.Digest) string {
		return fmt.Sprintf(`{"digests":["%s"]}`, strings.Join(texts(digests), `","`))
	}
	for name, c := range map[string]struct {
		key, data string
		age       time.Duration
		frozen    bool // the store's clock
		want      time.Duration
	}{
		"of an old version":      {"doomed/" + string(d), "", 0, false, time.Minute},
		"of this version":        {"doomed/batch-1.json", batch(other, d), 0, false, time.Minute},
		"of a full disk":         {"doomed/batch-1.json", "", 0, false, time.Minute},
		"of a newer version":     {"doomed/batch-1.json", "{", 0, false, time.Minute},
		"from the past":          {"doomed/batch-1.json", batch(d), 40 * time.Second, false, 20 * time.Second},
		"dead":                   {"doomed/" + string(d), "", time.Hour, false, 0},
		"from 1970":              {"doomed/batch-1.json", batch(d), 20 * 365 * 24 * time.Hour, false, 0},
		"from the future":        {"doomed/batch-1.json", batch(d), -40 * time.Second, false, time.Minute},
		"from the far future":    {"doomed/" + string(d), "", -365 * 24 * time.Hour, false, time.Minute},
		"by a clock that stands": {"doomed/" + string(d), "", 0, true, time.Minute},
		"on something else":      {"doomed/batch-1.json", batch(other), 0, false, 0},
		"no mark":                {"doomed/clock-1", "", 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := objectstest.NewFaults()
				if c.frozen {
					now := time.Now()
					f.SetClock(func() time.Time { return now })
				}
				f.Put(c.key, []byte(c.data), time.Now().Add(-c.age))
				var told []snapshots.Marked
				store := storeOf(t, f, "", snapshots.Options{Waiting: func(m snapshots.Marked) { told = append(told, m) }})

				tried, err := store.TryProtect(t.Context(), d)
				if c.want == 0 {
					require.NoError(t, err)
					require.NoError(t, tried.End(t.Context()))
				} else {
					marked := &snapshots.MarkedError{}
					require.ErrorAs(t, err, &marked)
					assert.Equal(t, []manifest.Digest{d}, marked.Digests)
					assert.InDelta(t, c.want, marked.Longest, float64(time.Second))
					assert.ErrorContains(t, err, d.Short()+", which a gc has marked at ")
					assert.ErrorContains(t, err, "try again then")
				}
				assert.Empty(t, f.Keys("intents/"))

				start := time.Now()
				p, err := store.Protect(t.Context(), d)
				require.NoError(t, err)
				assert.InDelta(t, c.want, time.Since(start), float64(2*time.Second))
				if c.want > 0 {
					for _, m := range told {
						assert.Equal(t, []manifest.Digest{d}, m.Digests)
						assert.InDelta(t, c.want, m.Waited+m.Longest, float64(2*time.Second))
					}
					assert.Greater(t, len(told), 15)
					assert.Empty(t, f.Keys("doomed/"), "a dead mark is removed")
				}
				require.NoError(t, p.End(t.Context()))
			})
		})
	}
}

func texts(digests []manifest.Digest) (list []string) {
	for _, d := range digests {
		list = append(list, string(d))
	}
	return list
}

// Who tries and goes away finds that a mark from the future gets old.
func TestMarkFromTheFutureGetsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		d := manifest.Sum(nil)
		f.Put("doomed/batch-1.json", fmt.Appendf(nil, `{"digests":["%s"]}`, d), time.Now().Add(1000*time.Hour))
		store := storeOf(t, f, "", snapshots.Options{})
		_, err := store.TryProtect(t.Context(), d)
		require.ErrorAs(t, err, new(*snapshots.MarkedError))
		time.Sleep(time.Minute)
		p, err := store.TryProtect(t.Context(), d)
		require.NoError(t, err)
		require.NoError(t, p.End(t.Context()))
	})
}

func TestProtectIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		f.Put("doomed/"+string(manifest.Sum(nil)), nil, time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := storeOf(t, f, "", snapshots.Options{}).Protect(ctx, manifest.Sum(nil))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Empty(t, f.Keys("intents/"))
	})
}

// A protection that is renewed holds for as long as it takes. One that was not for so long
// that a collection may have taken its process for dead says so.
func TestProtectionLapses(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(f *objectstest.Faults)
		lapses  bool
	}{
		"no trouble":            {func(*objectstest.Faults) { time.Sleep(9 * time.Hour) }, false},
		"a short outage":        {func(f *objectstest.Faults) { f.Inject(objectstest.Rule{}); time.Sleep(35 * time.Minute) }, false},
		"a long outage":         {func(f *objectstest.Faults) { f.Inject(objectstest.Rule{}); time.Sleep(65 * time.Minute) }, true},
		"collected":             {func(f *objectstest.Faults) { f.Remove(f.Keys("intents/")[0]); time.Sleep(time.Minute) }, true},
		"collected and renewed": {func(f *objectstest.Faults) { f.Remove(f.Keys("intents/")[0]); time.Sleep(time.Hour) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := objectstest.NewFaults()
				p, err := storeOf(t, f, "", snapshots.Options{}).Protect(t.Context(), manifest.Sum(nil))
				require.NoError(t, err)
				c.trouble(f)
				f.Heal()
				for _, err := range []error{p.Held(t.Context()), p.End(t.Context())} {
					assert.Equal(t, c.lapses, errors.Is(err, snapshots.ErrLapsed), "%v", err)
				}
				assert.Empty(t, f.Keys("intents/"))
			})
		})
	}
}

// A collection does not take another's mark away: who comes after it sees that the other
// is about to delete.
func TestCollectionsHaveTheirOwnMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		d, _ := put(t, f, "1", time.Now().Add(-time.Hour))
		live, _ := put(t, f, "2", time.Now())
		store := storeOf(t, f, "writer", snapshots.Options{})
		writer, err := store.Protect(t.Context(), d)
		require.NoError(t, err)

		deleting, goOn := make(chan struct{}), make(chan struct{})
		key := "snapshots/" + string(d) + ".json"
		f.Inject(objectstest.Rule{Client: "second", Op: objectstest.Delete, Key: key, Do: func(objectstest.Request) { close(deleting); <-goOn }})
		var second chan error
		f.Inject(objectstest.Rule{Client: "first", Op: objectstest.Delete, Key: "doomed/" + string(d), Do: func(objectstest.Request) {
			// The first has spared it for the writer, who ends; so the second does not.
			assert.NoError(t, writer.End(t.Context()))
			second = make(chan error, 1)
			go func() {
				_, err := storeOf(t, f, "second", snapshots.Options{}).Collect(t.Context(), everything(live))
				second <- err
			}()
			<-deleting
		}})
		_, err = storeOf(t, f, "first", snapshots.Options{}).Collect(t.Context(), everything(live))
		require.NoError(t, err)
		_, err = store.TryProtect(t.Context(), d)
		require.ErrorAs(t, err, new(*snapshots.MarkedError))
		close(goOn)
		require.NoError(t, <-second)
		assert.NotContains(t, f.Keys("snapshots/"), key)
		assert.Empty(t, slices.Concat(f.Keys("doomed/"), f.Keys("intents/")))
	})
}
