package release_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// newReleases returns the releases of a store that has manifests of some versions of a
// model; nothing here opens their shards, which are one byte.
func newReleases(t testing.TB, bucket *objects.Bucket, versions ...string) (*release.Releases, []manifest.Digest) {
	return newJudged(t, bucket, fit, versions...)
}

// judge says what the gates of a snapshot have found.
type judge = func(context.Context, manifest.Digest) (release.Found, error)

func newJudged(t testing.TB, bucket *objects.Bucket, judge judge, versions ...string) (*release.Releases, []manifest.Digest) {
	store, digests := newStore(t, bucket, versions...)
	return release.NewJudged(store, judge), digests
}

func newStore(t testing.TB, bucket *objects.Bucket, versions ...string) (*snapshots.Store, []manifest.Digest) {
	store, err := snapshots.NewStore(bucket, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	var digests []manifest.Digest
	for _, v := range versions {
		empty := manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum([]byte(v)), Size: 1}}}
		m := &manifest.Manifest{
			Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: v, Metric: index.Dot, Dim: 1, Apps: empty, Users: empty,
		}
		if v == "other" {
			m.Model = "other"
		}
		data, err := m.Encode()
		require.NoError(t, err)
		d := manifest.Sum(data)
		require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d)+".json", data))
		require.NoError(t, bucket.Write(t.Context(), "shards/"+string(empty.Shards[0].Digest)+".shard", []byte{0}))
		digests = append(digests, d)
	}
	return store, digests
}

// fit judges snapshots that have no gates.
func fit(context.Context, manifest.Digest) (release.Found, error) {
	return release.Found{Compared: true}, nil
}

func folder(t testing.TB) *objects.Bucket {
	bucket, err := objects.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	return bucket
}

// shares returns the weights by the arm's name.
func shares(r *release.Release) map[string]int {
	weights := map[string]int{}
	for _, a := range r.Arms {
		weights[a.Name] = a.Weight
	}
	return weights
}

func TestReleases(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		r, d := newReleases(t, bucket, "1", "2", "3", "other")
		_, err := r.Current(ctx)
		require.ErrorIs(t, err, release.ErrNone)
		_, err = r.Promote(ctx, release.Change{}, "")
		require.ErrorIs(t, err, release.ErrNone)

		first, err := r.Start(ctx, release.StartOptions{Snapshot: d[0], Weight: 10, Change: release.Change{Author: "ann", Reason: "begin"}})
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"control": 1000}, shares(first))
		now, err := r.Current(ctx)
		require.NoError(t, err)
		assert.Equal(t, first, now)

		_, err = r.Start(ctx, release.StartOptions{Snapshot: manifest.Sum(nil)})
		require.ErrorIs(t, err, snapshots.ErrNoSnapshot)
		_, err = r.Start(ctx, release.StartOptions{Snapshot: d[3]})
		require.ErrorIs(t, err, release.ErrChange)
		require.ErrorContains(t, err, "is of model other, feed serves")
		_, err = r.Start(ctx, release.StartOptions{Snapshot: d[1], Arm: "control"})
		require.ErrorContains(t, err, "there is an arm control already")
		_, err = r.Start(ctx, release.StartOptions{Snapshot: d[1], Weight: 1001})
		require.ErrorContains(t, err, "weight is 1001; accepted: 0 to 1000 per mille")

		second, err := r.Start(ctx, release.StartOptions{Snapshot: d[1], Weight: 10})
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"control": 990, "candidate": 10}, shares(second))
		third, err := r.Start(ctx, release.StartOptions{Snapshot: d[2], Arm: "bold", Weight: 100})
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"control": 891, "candidate": 9, "bold": 100}, shares(third))
		assert.Equal(t, second.Salt, third.Salt)

		split, err := r.Split(ctx, release.SplitOptions{Weights: map[string]int{"candidate": 400, "bold": 0}, Pins: map[string][]string{"bold": {"u7", "u3"}}})
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"control": 600, "candidate": 400, "bold": 0}, shares(split))
		assert.Equal(t, []string{"u3", "u7"}, split.Arm("bold").Pins)
		split, err = r.Split(ctx, release.SplitOptions{Pins: map[string][]string{"candidate": {"u7"}}, Unpin: []string{"u3"}})
		require.NoError(t, err)
		assert.Equal(t, []any{[]string{"u7"}, 0}, []any{split.Arm("candidate").Pins, len(split.Arm("bold").Pins)})
		_, err = r.Split(ctx, release.SplitOptions{Weights: map[string]int{"nobody": 1}})
		require.ErrorContains(t, err, "there is no arm nobody; there are: control, candidate, bold")
		_, err = r.Split(ctx, release.SplitOptions{Weights: map[string]int{"control": 700, "candidate": 400}})
		require.ErrorContains(t, err, "the weights add up to 1100 per mille")
		_, err = r.Promote(ctx, release.Change{}, "")
		require.ErrorContains(t, err, "2 arms could be promoted; name one")
		split, err = r.Split(ctx, release.SplitOptions{Remove: []string{"bold"}})
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"control": 600, "candidate": 400}, shares(split))

		promoted, err := r.Promote(ctx, release.Change{Generation: split.Generation}, "")
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"control": 1000}, shares(promoted))
		assert.Equal(t, d[1], promoted.Arms[0].Snapshot)
		_, err = r.Promote(ctx, release.Change{Generation: split.Generation}, "control")
		require.ErrorIs(t, err, release.ErrConflict)

		back, err := r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Reason: "worse"}})
		require.NoError(t, err)
		assert.Equal(t, first.Arms, back.Arms, "the last in which another had all")
		assert.Equal(t, first.Salt, back.Salt)
		assert.Equal(t, first.Generation, back.Of)
		back, err = r.Rollback(ctx, release.RollbackOptions{To: split.Generation})
		require.NoError(t, err)
		assert.Equal(t, split.Arms, back.Arms)
		assert.Equal(t, split.Salt, back.Salt)
		_, err = r.Rollback(ctx, release.RollbackOptions{To: 99})
		require.ErrorContains(t, err, "there is no generation 99")

		var kinds []release.Kind
		for one, err := range r.History(ctx) {
			require.NoError(t, err)
			kinds = append(kinds, one.Kind)
		}
		assert.Equal(t, []release.Kind{"rollback", "rollback", "promote", "split", "split", "split", "start", "start", "start"}, kinds)
		live, err := r.Live(ctx)
		require.NoError(t, err)
		assert.ElementsMatch(t, d[:3], live)
	})
}

// What was released last and cannot be read stops every change but a rollback to a
// generation that is named, and hides no earlier release.
func TestUnreadableRelease(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		r, d := newReleases(t, bucket, "1", "2")
		spoil := func(generation int, data string) {
			require.NoError(t, bucket.Create(ctx, fmt.Sprintf("releases/%012d.json", generation), []byte(data)))
		}
		unreadable := &release.UnreadableError{}
		first, err := r.Start(ctx, release.StartOptions{Snapshot: d[0]})
		require.NoError(t, err)
		second, err := r.Start(ctx, release.StartOptions{Snapshot: d[1]})
		require.NoError(t, err)
		spoil(3, "\x00\xff")
		spoil(4, `{"version": 9}`)

		newest, u, err := r.Newest(ctx)
		require.NoError(t, err)
		assert.Equal(t, second, newest)
		assert.EqualValues(t, 4, u.Generation)
		var listed []uint64
		for one, err := range r.History(ctx) {
			if errors.As(err, &unreadable) {
				listed = append(listed, 100+unreadable.Generation)
				continue
			}
			require.NoError(t, err)
			listed = append(listed, one.Generation)
		}
		assert.Equal(t, []uint64{104, 103, 2, 1}, listed)

		_, started := r.Start(ctx, release.StartOptions{Snapshot: d[0], Arm: "third"})
		_, split := r.Split(ctx, release.SplitOptions{Weights: map[string]int{"control": 0}})
		_, promoted := r.Promote(ctx, release.Change{}, "")
		_, rolled := r.Rollback(ctx, release.RollbackOptions{})
		_, live := r.Live(ctx)
		for _, err := range []error{started, split, promoted, rolled, live} {
			require.ErrorAs(t, err, &unreadable)
			assert.ErrorContains(t, err, "version is 9, this build reads versions 1 to 3")
			var past *release.PastError
			require.ErrorAs(t, err, &past)
			assert.EqualValues(t, 2, past.Readable)
		}
		_, err = r.Rollback(ctx, release.RollbackOptions{To: 3})
		require.ErrorContains(t, err, "name another generation")
		_, err = r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Generation: 2}, To: 1})
		require.ErrorIs(t, err, release.ErrConflict)

		back, err := r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Generation: 4}, To: 1})
		require.NoError(t, err)
		assert.Equal(t, []uint64{5, 1}, []uint64{back.Generation, back.Of})
		assert.Equal(t, first.Arms, back.Arms)
		assert.Equal(t, first.Salt, back.Salt)
		_, err = r.Rollback(ctx, release.RollbackOptions{})
		require.ErrorIs(t, err, release.ErrChange)
		require.ErrorContains(t, err, "there is no earlier generation in which another snapshot had all traffic than "+d[0].Short()+" that can come back; name one of")
		_, err = r.Live(ctx)
		require.ErrorAs(t, err, &unreadable)
		assert.ErrorContains(t, err, "what generation 4 needs is not known, and matters until generation 14")
		_, err = r.Start(ctx, release.StartOptions{Snapshot: d[1]})
		require.NoError(t, err)
		for range 8 {
			_, err = r.Rollback(ctx, release.RollbackOptions{To: 6})
			require.NoError(t, err)
		}
		digests, err := r.Live(ctx)
		require.NoError(t, err)
		assert.ElementsMatch(t, d, digests)
	})
}

func TestNothingReadableIsReleased(t *testing.T) {
	r, d := newReleases(t, folder(t), "1")
	require.NoError(t, r.Store().Objects().Create(t.Context(), "releases/000000000001.json", []byte("{")))
	_, u, err := r.Newest(t.Context())
	require.ErrorIs(t, err, release.ErrNone)
	assert.EqualValues(t, 1, u.Generation)
	_, err = r.Start(t.Context(), release.StartOptions{Snapshot: d[0]})
	require.ErrorAs(t, err, &u)
	_, err = r.Live(t.Context())
	require.ErrorAs(t, err, &u)
}

func TestStartNeedsShards(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		r, d := newReleases(t, bucket, "1")
		key := "shards/" + string(manifest.Sum([]byte("1"))) + ".shard"
		require.NoError(t, bucket.Write(t.Context(), key, []byte("no")))
		_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[0], Change: release.Change{Override: "no reason"}})
		require.ErrorContains(t, err, "-0000 ("+key+") has 2 bytes, the manifest says 1")
		require.NoError(t, bucket.Delete(t.Context(), key))
		_, err = r.Start(t.Context(), release.StartOptions{Snapshot: d[0]})
		require.ErrorContains(t, err, "-0000 ("+key+") is not in the store; tandem snapshot verify ")
		_, err = r.Current(t.Context())
		require.ErrorIs(t, err, release.ErrNone)
	})
}

// Of those that change one generation at a time, one wins; the others are told who.
func TestOnePublisherWins(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		r, d := newReleases(t, bucket, "1", "2")
		_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[0]})
		require.NoError(t, err)
		for round := range uint64(5) {
			var wins, conflicts atomic.Int32
			var racing sync.WaitGroup
			for i := range 4 {
				racing.Go(func() {
					_, err := r.Start(t.Context(), release.StartOptions{
						Snapshot: d[1], Arm: fmt.Sprintf("arm-%d-%d", round, i), Weight: 10,
						Change: release.Change{Author: fmt.Sprint("publisher ", i), Generation: round + 1},
					})
					switch {
					case err == nil:
						wins.Add(1)
					case errors.Is(err, release.ErrConflict):
						conflicts.Add(1)
						assert.ErrorContains(t, err, "is a start by publisher ")
					default:
						t.Error(err)
					}
				})
			}
			racing.Wait()
			assert.Equal(t, []int32{1, 3}, []int32{wins.Load(), conflicts.Load()})
		}
	})
}

// Every bucket has one arm, weights are what was asked, and nobody leaves an arm that
// grows, nor joins one that does not.
func TestTrafficIsSticky(t *testing.T) {
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	defer bucket.Close()
	r, d := newReleases(t, bucket, "1", "2", "3")
	_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[0]})
	require.NoError(t, err)
	for i, name := range []string{"b", "c"} {
		_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[i+1], Arm: name, Weight: 10})
		require.NoError(t, err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		before, err := r.Current(t.Context())
		require.NoError(rt, err)
		weights := map[string]int{"b": rapid.IntRange(0, 500).Draw(rt, "b")}
		if rapid.Bool().Draw(rt, "both") {
			weights["c"] = rapid.IntRange(0, 500).Draw(rt, "c")
		}
		if weights["b"]+weights["c"] == 1000 || before.Arm("control").Weight == 0 && before.Arm("c").Weight == 0 {
			weights["b"] = 1
		}
		after, err := r.Split(t.Context(), release.SplitOptions{Weights: weights})
		require.NoError(rt, err)
		for name, w := range weights {
			require.Equal(rt, w, after.Arm(name).Weight)
		}
		owners := map[int]string{}
		for _, a := range after.Arms {
			for _, n := range a.Buckets {
				if owners[n] != "" {
					rt.Fatalf("bucket %d has two arms", n)
				}
				owners[n] = a.Name
			}
		}
		require.Len(rt, owners, 1000)
		for _, old := range before.Arms {
			grown := after.Arm(old.Name)
			kept := 0
			for _, n := range old.Buckets {
				if owners[n] == old.Name {
					kept++
				}
			}
			require.Equal(rt, min(old.Weight, grown.Weight), kept, "who leaves %s, or joins it", old.Name)
		}
		router := release.NewRouter(after)
		key := rapid.String().Draw(rt, "key")
		require.True(rt, slices.Contains(after.Arms[router.Route(key)].Buckets, release.Bucket(after.Salt, key)))
	})
	now, err := r.Split(t.Context(), release.SplitOptions{Weights: map[string]int{"b": 100, "c": 10}})
	require.NoError(t, err)
	router := release.NewRouter(now)
	counts := make([]int, 3)
	const users = 100_000
	for i := range users {
		counts[router.Route(fmt.Sprint("user-", i))]++
	}
	for i, a := range now.Arms {
		assert.InDelta(t, float64(a.Weight)/1000, float64(counts[i])/users, 0.006, a.Name) // six standard deviations
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{"": "", "a plain ‘line’": "a plain ‘line’", "a\nb\tc\x1b[2J": `a\nb\tc\x1b[2J`, "\u202eright": `\u202eright`, "\xff": "\ufffd"} {
		assert.Equal(t, want, release.Escape(text))
	}
}

func TestBuckets(t *testing.T) {
	for text, want := range map[string]string{"": "", "0": "0", "0-2": "0-2", "0,1,2": "0-2", "5,7-9,998-999": "5,7-9,998-999", "3-3": "3"} {
		var b release.Buckets
		require.NoError(t, b.UnmarshalText([]byte(text)))
		got, err := b.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
	}
	for _, text := range []string{"x", "-1", "2-1", "1,1", "2,1", "1000", "0-1000", ",", "1,", "99999999999"} {
		var b release.Buckets
		assert.ErrorContains(t, b.UnmarshalText([]byte(text)), "want ascending numbers and ranges below 1000", text)
	}
}

func FuzzDecode(f *testing.F) {
	r, d := newReleases(f, folder(f), "1", "2")
	first, err := r.Start(f.Context(), release.StartOptions{Snapshot: d[0]})
	require.NoError(f, err)
	second, err := r.Start(f.Context(), release.StartOptions{Snapshot: d[1], Weight: 10})
	require.NoError(f, err)
	for _, one := range []*release.Release{first, second} {
		data, err := one.Encode()
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(`{"version":1,"generation":1,"arms":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		one, err := release.Decode(data)
		if err != nil {
			return
		}
		again, err := one.Encode()
		require.NoError(t, err)
		twice, err := release.Decode(again)
		require.NoError(t, err)
		release.NewRouter(twice).Route("u1")
	})
}
