package outcomes_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

var began = time.Date(2026, 11, 25, 8, 15, 0, 123456000, time.UTC)

// some returns n outcomes, a second apart, of which every second one has a value.
func some(n int) (list []outcomes.Outcome) {
	for i := range n {
		at := began.Add(time.Duration(i) * time.Second)
		o := outcomes.Outcome{
			ID: fmt.Sprint("o", i), RequestID: fmt.Sprint("r", i), UserID: fmt.Sprint("u", i), AppID: fmt.Sprint("a", i%3),
			Kind: outcomes.KindOpen, Time: at, Received: at.Add(time.Second), Caller: "feed",
		}
		if i%2 == 1 {
			o.Kind, o.Value, o.HasValue = outcomes.KindPlayTime, float64(i), true
		}
		list = append(list, o)
	}
	return list
}

func encode(tb testing.TB, list []outcomes.Outcome) []byte {
	data, err := outcomes.Encode(list)
	require.NoError(tb, err)
	return data
}

// decode returns all outcomes of a file, or the error.
func decode(data []byte) (out []outcomes.Outcome, err error) {
	for o, err := range outcomes.Decode(data) {
		if err != nil {
			return out, err
		}
		out = append(out, *o)
	}
	return out, nil
}

// outcome draws any outcome, of one of the users.
func outcome(users ...string) *rapid.Generator[outcomes.Outcome] {
	return rapid.Custom(func(t *rapid.T) outcomes.Outcome {
		text := rapid.StringN(0, 8, 64)
		at := func(name string) time.Time {
			return time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, name)).UTC()
		}
		o := outcomes.Outcome{
			ID: text.Draw(t, "id"), RequestID: text.Draw(t, "request"), AppID: text.Draw(t, "app"), Caller: text.Draw(t, "caller"),
			Kind: rapid.StringMatching(`[a-z][a-z0-9_]{0,63}`).Draw(t, "kind"), Time: at("time"), Received: at("received"),
			HasValue: rapid.Bool().Draw(t, "has value"),
		}
		if o.UserID = text.Draw(t, "user"); len(users) > 0 {
			o.UserID = rapid.SampledFrom(users).Draw(t, "user")
		}
		if o.HasValue {
			o.Value = rapid.Float64().Draw(t, "value")
		}
		return o
	})
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SliceOfN(outcome(), 0, 40).Draw(rt, "outcomes")
		data, err := outcomes.Encode(want)
		require.NoError(rt, err)
		got, err := decode(data)
		require.NoError(rt, err)
		require.Len(rt, got, len(want))
		for i := range want {
			require.Equal(rt, want[i], got[i])
		}
	})
}

// A file reads as anybody's Parquet.
func TestAnyReader(t *testing.T) {
	table, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(encode(t, some(3))), nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	require.NoError(t, err)
	defer table.Release()
	var got []string
	for i := range int(table.NumCols()) {
		column := table.Column(i)
		got = append(got, column.Name()+"="+column.Data().Chunk(0).ValueStr(1))
	}
	assert.Equal(t, []string{
		"id=o1", "request_id=r1", "user_id=u1", "app_id=a1", "kind=play_time", "value=1",
		"time=2026-11-25T08:15:01.123456Z", "received=2026-11-25T08:15:02.123456Z", "caller=feed",
	}, got)
	assert.True(t, table.Column(5).Data().Chunk(0).IsNull(0), "what has no value has none, and not 0")
}

func TestDamage(t *testing.T) {
	change := func(f func(*outcomes.Outcome)) []byte {
		list := some(3)
		f(&list[2])
		return encode(t, list)
	}
	queries, err := querylog.Encode([]querylog.Query{{RequestID: "r"}})
	require.NoError(t, err)
	good := encode(t, some(9))
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "0 bytes are no Parquet file"},
		{"cut", good[:len(good)-1], "is it truncated?"},
		{"queries", queries, "does not say in its metadata that it has outcomes (tandem.outcomes)"},
		{"id", change(func(o *outcomes.Outcome) { o.ID = strings.Repeat("x", 129) }), "row 2: column id: 129 bytes; accepted: up to 128"},
		{"kind", change(func(o *outcomes.Outcome) { o.Kind = "Open it" }), `row 2: column kind: kind is "Open it"; accepted: impression, open`},
		{"value", change(func(o *outcomes.Outcome) { o.Value, o.HasValue = math.NaN(), true }), "row 2: column value: NaN; accepted: finite numbers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := decode(test.data)
			require.ErrorIs(t, err, outcomes.ErrDamaged)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, some(4)))
	f.Add(encode(f, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decode(data)
		if err != nil {
			require.ErrorIs(t, err, outcomes.ErrDamaged)
		}
		for _, o := range list {
			require.NoError(t, outcomes.CheckKind(o.Kind))
			require.False(t, math.IsNaN(o.Value) || math.IsInf(o.Value, 0))
		}
	})
}

// ids returns the ids of what a log gives.
func ids(t *testing.T, list func(yield func(*outcomes.Outcome, error) bool)) (out []string) {
	t.Helper()
	for o, err := range list {
		require.NoError(t, err)
		out = append(out, o.ID)
	}
	return out
}

func TestLog(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		ctx := t.Context()
		l := outcomes.Of(b)
		days, err := l.Days(ctx)
		require.NoError(t, err)
		require.Empty(t, days)
		list := some(5)
		list[4].Time = began.Add(20 * time.Hour) // of a caller whose clock is ahead
		put := func(at time.Time, list []outcomes.Outcome) {
			require.NoError(t, b.Create(ctx, outcomes.Key(at), encode(t, list)))
		}
		put(began, list[3:])
		put(began.Add(time.Hour), list[:2])
		put(began.Add(48*time.Hour), list[1:3]) // late, and one of them again
		require.NoError(t, b.Create(ctx, "queries/2026-11-25/x.parquet", []byte("of another kind")))
		assert.Equal(t, []string{"o3", "o4", "o0", "o1", "o1", "o2"}, ids(t, l.Outcomes(ctx, time.Time{}, time.Time{})))
		assert.Equal(t, []string{"o4"}, ids(t, l.Outcomes(ctx, began.Add(time.Hour), time.Time{})))
		assert.Equal(t, []string{"o0", "o1", "o1"}, ids(t, l.Outcomes(ctx, began, began.Add(2*time.Second))))
		days, err = l.Days(ctx)
		require.NoError(t, err)
		day := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
		assert.Equal(t, []time.Time{day, day.AddDate(0, 0, 2)}, days)
		assert.Equal(t, []string{"o3", "o4", "o0", "o1"}, ids(t, l.OfDay(ctx, day)))
		assert.Equal(t, []string{"o1", "o2"}, ids(t, l.OfDay(ctx, days[1].Add(3*time.Hour))))
		assert.Empty(t, ids(t, l.OfDay(ctx, day.AddDate(0, 0, 1))))

		// What follows a damaged file is read all the same.
		require.NoError(t, b.Create(ctx, outcomes.Key(began.Add(-time.Hour)), []byte("nothing of the kind")))
		n, damaged := 0, 0
		for _, err := range l.OfDay(ctx, day) {
			if n++; err != nil {
				require.ErrorIs(t, err, outcomes.ErrDamaged)
				damaged++
			}
		}
		require.Equal(t, []int{5, 1}, []int{n, damaged})
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		for _, err := range l.OfDay(stopped, day) {
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

// A log that cannot be listed or read is an error, and never empty.
func TestLogFails(t *testing.T) {
	store := objectstest.NewFaults()
	bucket := store.Bucket("")
	defer func() { require.NoError(t, bucket.Close()) }()
	store.Put(outcomes.Key(began), encode(t, some(2)), began)
	for _, op := range []objectstest.Op{objectstest.List, objectstest.Read} {
		store.Inject(objectstest.Rule{Op: op, Err: objectstest.ErrDenied})
		failed := 0
		for _, err := range outcomes.Of(bucket).Outcomes(t.Context(), time.Time{}, time.Time{}) {
			require.Error(t, err)
			require.NotErrorIs(t, err, outcomes.ErrDamaged)
			failed++
		}
		require.Equal(t, 1, failed, op)
		store.Heal()
	}
	store.Inject(objectstest.Rule{Op: objectstest.List, Err: objectstest.ErrDenied})
	_, err := outcomes.Of(bucket).Days(t.Context())
	require.Error(t, err)
	_, err = outcomes.Of(bucket).Unswept(t.Context(), "")
	require.Error(t, err)
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.parquet")
	require.NoError(t, os.WriteFile(file, encode(t, some(2)), 0o600))
	for _, location := range []string{file, dir} {
		l, err := outcomes.Open(t.Context(), location)
		require.NoError(t, err)
		require.Equal(t, []string{"o0", "o1"}, ids(t, l.Outcomes(t.Context(), time.Time{}, time.Time{})))
		require.Contains(t, l.Location(), dir)
		require.NoError(t, l.Close())
	}
	_, err := outcomes.Open(t.Context(), filepath.Join(dir, "none"))
	require.ErrorContains(t, err, "open log: stat ")
}

// Random files, users who are forgotten one after the other, and requests that fail at any place:
// what is left is what names nobody, once a sweep ends well.
func TestSweep(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		store := objectstest.NewFaults()
		bucket := store.Bucket("")
		defer func() { require.NoError(rt, bucket.Close()) }()
		now := began
		store.SetClock(func() time.Time { return now })
		users := []string{"", "u1", "u2", "u3", "u4"}
		one := rapid.Custom(func(t *rapid.T) outcomes.Outcome {
			o := outcome(users...).Draw(t, "outcome")
			o.RequestID, o.ID = rapid.SampledFrom(users).Draw(t, "request"), rapid.SampledFrom(users).Draw(t, "id")
			o.AppID = rapid.SampledFrom(users).Draw(t, "app") // an app may be called like a user
			return o
		})
		var forgotten []string
		want := map[string][]outcomes.Outcome{}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40*24).Draw(rt, "hours")) * time.Hour)
			for _, list := range rapid.SliceOfN(rapid.SliceOfN(one, 1, 4), 0, 3).Draw(rt, "files") {
				data, err := outcomes.Encode(list)
				require.NoError(rt, err)
				key := outcomes.Key(now)
				store.Put(key, data, now)
				want[key] = list
			}
			if rapid.Bool().Draw(rt, "forget") {
				forgotten = append(forgotten, rapid.SampledFrom(users[1:]).Draw(rt, "forgotten"))
			}
			o := outcomes.SweepOptions{
				Now: now, Keep: 90 * 24 * time.Hour, Set: strings.Join(forgotten, " "),
				Forgotten: func(id string) bool { return slices.Contains(forgotten, id) },
			}
			if n := rapid.IntRange(0, 12).Draw(rt, "requests until it fails"); n > 0 {
				store.Inject(objectstest.Rule{Skip: n - 1, Err: objectstest.ErrDenied})
				_, err := outcomes.Of(bucket).Sweep(ctx, o)
				store.Heal()
				if err == nil {
					continue // it had fewer requests to make; the next one is compared
				}
			}
			for key, list := range want {
				at, err := time.Parse("20060102T150405.000Z", key[len("outcomes/2026-11-25/"):][:20])
				require.NoError(rt, err)
				list = slices.DeleteFunc(slices.Clone(list), func(o outcomes.Outcome) bool {
					return slices.Contains(forgotten, o.UserID) || slices.Contains(forgotten, o.RequestID) || slices.Contains(forgotten, o.ID)
				})
				if want[key] = list; len(list) == 0 || now.Sub(at) >= o.Keep {
					delete(want, key)
				}
			}
			dry := o
			dry.DryRun = true
			would, err := outcomes.Of(bucket).Sweep(ctx, dry)
			require.NoError(rt, err)
			done, err := outcomes.Of(bucket).Sweep(ctx, o)
			require.NoError(rt, err)
			require.Equal(rt, would, done)
			got := map[string][]outcomes.Outcome{}
			for _, key := range store.Keys(outcomes.Prefix) {
				if data, _ := store.Data(key); strings.HasSuffix(key, ".parquet") {
					got[key], err = decode(data)
					require.NoError(rt, err)
				}
			}
			require.Equal(rt, want, got)
		}
	})
}

// Files that a sweep has seen are told to be seen, an hour later: an upload may take so long.
func TestUnswept(t *testing.T) {
	store := objectstest.NewFaults()
	bucket := store.Bucket("")
	defer func() { require.NoError(t, bucket.Close()) }()
	now := began
	store.SetClock(func() time.Time { return now })
	store.Put(outcomes.Key(now), encode(t, some(3)), now)
	l := outcomes.Of(bucket)
	unswept := func(set string) int {
		n, err := l.Unswept(t.Context(), set)
		require.NoError(t, err)
		return n
	}
	sweep := func(user string) {
		_, err := l.Sweep(t.Context(), outcomes.SweepOptions{Now: now, Set: user, Forgotten: func(id string) bool { return id == user }})
		require.NoError(t, err)
	}
	require.Equal(t, 1, unswept("u9"))
	sweep("u9")
	require.Equal(t, 1, unswept("u9"))
	now = now.Add(2 * time.Hour)
	sweep("u9")
	require.Equal(t, 0, unswept("u9"))
	require.Equal(t, 1, unswept("u8"), "another set")
	sweep("u1")
	got, err := decode(func() []byte { data, _ := store.Data(store.Keys(outcomes.Prefix + "2026")[0]); return data }())
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, []string{"o0", "o2"}, []string{got[0].ID, got[1].ID})
}

func BenchmarkEncode(b *testing.B) {
	list := some(20_000)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(encode(b, list))))
	}
}
