package querylog

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// swept is the object that says what was swept last.
const swept = Prefix + "swept.json"

// forget returns options that forget some users, whose ids requests have as their bytes.
func forget(now time.Time, users ...string) SweepOptions {
	return SweepOptions{
		Now: now, Set: strings.Join(users, " "), Keep: 90 * 24 * time.Hour,
		Forgotten: func(id string) bool { return slices.Contains(users, id) },
		Users:     func(request []byte) ([]string, error) { return strings.Fields(string(request)), nil },
	}
}

// namesAny is what Sweep is to find, said in another way.
func namesAny(q *Query, users []string) bool {
	ids := append(strings.Fields(string(q.Request)), q.UserID, q.RequestKey, q.RequestID)
	if q.Tower != shard.Apps {
		for _, c := range q.Candidates {
			ids = append(ids, c.ID)
		}
	}
	return slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(users, id) })
}

// queries returns what is recorded in a bucket, by its files.
func queries(t require.TestingT, ctx context.Context, bucket *objects.Bucket) map[string][]Query {
	all := map[string][]Query{}
	for o, err := range bucket.List(ctx, Prefix) {
		require.NoError(t, err)
		if path.Ext(o.Key) != rowlog.Extension {
			continue
		}
		data, err := bucket.Read(ctx, o.Key)
		require.NoError(t, err)
		all[o.Key], err = decode(data)
		require.NoError(t, err)
	}
	return all
}

// Random files, users who are forgotten one after the other, files that come between, and
// requests that fail at any place: what is left is what names nobody, once a sweep ends well.
func TestSweep(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		store := objectstest.NewFaults()
		bucket := store.Bucket("")
		defer func() { require.NoError(rt, bucket.Close()) }()
		now := began
		store.SetClock(func() time.Time { return now })
		user := rapid.SampledFrom([]string{"", "u1", "u2", "u3", "u4"})
		query := rapid.Custom(func(t *rapid.T) Query {
			q := some(1)[0]
			q.UserID, q.RequestKey = user.Draw(t, "user"), user.Draw(t, "key")
			q.Request = []byte(strings.Join(rapid.SliceOfN(user, 0, 3).Draw(t, "texts"), " "))
			q.Tower = rapid.SampledFrom([]shard.Kind{"", shard.Apps, shard.Users}).Draw(t, "tower")
			for _, id := range rapid.SliceOfN(user, 0, 3).Draw(t, "candidates") {
				q.Candidates = append(q.Candidates, Candidate{ID: id})
			}
			return q
		})
		var forgotten []string
		want := map[string][]Query{}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40*24).Draw(rt, "hours")) * time.Hour)
			for _, list := range rapid.SliceOfN(rapid.SliceOfN(query, 1, 4), 0, 3).Draw(rt, "files") {
				data, err := Encode(list)
				require.NoError(rt, err)
				key := Key(now)
				store.Put(key, data, now)
				want[key] = list
			}
			if rapid.Bool().Draw(rt, "forget") {
				forgotten = append(forgotten, rapid.SampledFrom([]string{"u1", "u2", "u3", "u4"}).Draw(rt, "forgotten"))
			}
			o := forget(now, forgotten...)
			if n := rapid.IntRange(0, 12).Draw(rt, "requests until it fails"); n > 0 {
				store.Inject(objectstest.Rule{Skip: n - 1, Err: objectstest.ErrDenied})
				_, err := Of(bucket).Sweep(ctx, o)
				store.Heal()
				if err == nil {
					continue // it had fewer requests to make; the next one is compared
				}
			}
			done, err := Of(bucket).Sweep(ctx, o)
			require.NoError(rt, err)
			for key, list := range want {
				at, own := rowlog.Written(key)
				require.True(rt, own)
				list = slices.DeleteFunc(slices.Clone(list), func(q Query) bool { return namesAny(&q, forgotten) })
				if want[key] = list; len(list) == 0 || now.Sub(at) >= o.Keep {
					delete(want, key)
				}
			}
			require.Equal(rt, want, queries(rt, ctx, bucket))
			again, err := Of(bucket).Sweep(ctx, o)
			require.NoError(rt, err)
			require.Empty(rt, again.Rewritten, "after %v", done)
			require.Empty(rt, again.Deleted)
		}
	})
}

func TestSweepSays(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		now := time.Now().UTC()
		put := func(at time.Time, data []byte) string {
			key := Key(at)
			require.NoError(t, bucket.Write(ctx, key, data))
			return key
		}
		list := some(6)
		old, mixed := put(now.Add(-91*24*time.Hour), encode(t, list)), put(now.Add(-time.Hour), encode(t, list))
		alone := put(now, encode(t, list[2:3]))
		foreign := Prefix + "mine.parquet"
		require.NoError(t, bucket.Write(ctx, foreign, encode(t, list)))
		before := queries(t, ctx, bucket)

		o := forget(now, "u2")
		o.DryRun = true
		would, err := Of(bucket).Sweep(ctx, o)
		require.NoError(t, err)
		require.Equal(t, before, queries(t, ctx, bucket), "a dry run changes nothing")
		o.DryRun = false
		done, err := Of(bucket).Sweep(ctx, o)
		require.NoError(t, err)
		require.Equal(t, would, done)
		slices.Sort(done.Rewritten)
		require.Equal(t, []string{old}, done.Deleted)
		require.ElementsMatch(t, []string{mixed, alone}, done.Rewritten)
		require.Equal(t, 2, done.Rows)
		require.Equal(t, map[string][]Query{
			mixed: slices.Concat(list[:2], list[3:]), foreign: list,
		}, queries(t, ctx, bucket), "another's file is left alone")

		// Nobody is forgotten, and nothing is too old.
		done, err = Of(bucket).Sweep(ctx, SweepOptions{Now: now})
		require.NoError(t, err)
		require.Equal(t, &rowlog.Swept{}, done)
	})
}

// What a sweep has seen is not read again until others are forgotten.
func TestSweepReads(t *testing.T) {
	store := objectstest.NewFaults()
	bucket := store.Bucket("")
	defer func() { require.NoError(t, bucket.Close()) }()
	now := began
	store.SetClock(func() time.Time { return now })
	reads := func(users ...string) int {
		now = now.Add(2 * time.Hour)
		done, err := Of(bucket).Sweep(t.Context(), forget(now, users...))
		require.NoError(t, err)
		return done.Read
	}
	for range 3 {
		store.Put(Key(now), encode(t, some(3)), now)
	}
	assert.Equal(t, 3, reads("u9"))
	assert.Equal(t, 0, reads("u9"))
	store.Put(Key(now), encode(t, some(3)), now)
	assert.Equal(t, 1, reads("u9"), "a file that came since")
	assert.Equal(t, 4, reads("u9", "u0"))
	assert.Equal(t, 4, reads("u9", "u0"), "what was written anew is looked into once more")
	assert.Equal(t, 0, reads("u9", "u0"))
	for _, damaged := range []string{"", "{", `{"set":7}`} {
		store.Put(swept, []byte(damaged), now)
		assert.Equal(t, 4, reads("u9", "u0"), "what cannot be read says nothing")
	}
}

// What cannot be looked into is told, file by file, and all else is done.
func TestSweepFails(t *testing.T) {
	store := objectstest.NewFaults()
	bucket := store.Bucket("")
	defer func() { require.NoError(t, bucket.Close()) }()
	now := began
	store.SetClock(func() time.Time { return now })
	good := encode(t, some(3))
	more := schema.MustPrimitive(schema.NewPrimitiveNode("more", parquet.Repetitions.Required, parquet.Types.ByteArray, -1, -1))
	files := map[string][]byte{}
	for i, data := range [][]byte{good, good[:len(good)-9], encodeAs(t, Version, "", more), good} {
		key := Key(now.Add(time.Duration(i) * time.Second))
		files[key] = data
		store.Put(key, data, now)
	}
	o := forget(now, "u2")
	first := true
	o.Users = func(request []byte) ([]string, error) {
		if string(request) == "" && first { // as in the file with more columns
			first = false
			return []string{"u2"}, nil
		}
		return nil, nil
	}
	done, err := Of(bucket).Sweep(t.Context(), o)
	require.ErrorContains(t, err, "2 of them could not be looked into")
	require.ErrorContains(t, err, "damaged file of queries")
	require.ErrorContains(t, err, "columns that this program does not know and would lose: more")
	require.Len(t, done.Rewritten, 2)
	for key, data := range files {
		now, _ := store.Data(key)
		assert.Equal(t, slices.Contains(done.Rewritten, key), string(now) != string(data), key)
	}
	_, noted := store.Data(swept)
	require.False(t, noted, "they are looked into again")

	// A request that nobody can read may name anyone.
	o.Users = func([]byte) ([]string, error) { return nil, fmt.Errorf("what is this: %w", ErrDamaged) }
	_, err = Of(bucket).Sweep(t.Context(), o)
	require.ErrorContains(t, err, "what is this")

	// In time they are deleted.
	now = now.Add(100 * 24 * time.Hour)
	o.Now = now
	done, err = Of(bucket).Sweep(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, done.Deleted, 4)

	store.Inject(objectstest.Rule{Op: objectstest.List, Err: objectstest.ErrDenied})
	_, err = Of(bucket).Sweep(t.Context(), o)
	require.ErrorContains(t, err, "sweep recorded queries")
}
