package objectstest

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

func TestMain(m *testing.M) { Main(m) }

// raw is the store as the client library sees it, so that nothing is tried again.
func raw(f *Faults, client string) *blob.Bucket {
	return blob.NewBucket(&connection{faults: f, client: client})
}

func list(t *testing.T, b *blob.Bucket, prefix string) (keys []string) {
	t.Helper()
	it := b.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := it.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return keys
		}
		require.NoError(t, err)
		keys = append(keys, o.Key)
	}
}

func create(ctx context.Context, b *blob.Bucket, key, data string) error {
	return b.WriteAll(ctx, key, []byte(data), &blob.WriterOptions{IfNotExist: true, ContentType: "text/plain"})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFaults()
		b := raw(f, "one")
		inject := func(r Rule) {
			f.Heal()
			f.Inject(r)
		}
		data := func(key string) string {
			data, ok := f.Data(key)
			if !ok {
				return "nothing"
			}
			return string(data)
		}

		inject(Rule{Op: Create, Key: "a/"})
		require.ErrorIs(t, create(t.Context(), b, "a/1", "one"), ErrInjected)
		assert.Equal(t, "nothing", data("a/1"))
		require.NoError(t, create(t.Context(), b, "b/1", "other key"))

		inject(Rule{Fault: Lose, Times: 1})
		require.ErrorIs(t, create(t.Context(), b, "a/1", "one"), ErrInjected)
		assert.Equal(t, "one", data("a/1"))
		assert.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(create(t.Context(), b, "a/1", "two")))

		inject(Rule{Fault: Cut, Bytes: 2})
		got, err := b.ReadAll(t.Context(), "a/1")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, "on", string(got))
		require.ErrorIs(t, create(t.Context(), b, "a/2", "two"), ErrInjected)
		assert.Equal(t, "nothing", data("a/2"))

		inject(Rule{Fault: Short, Bytes: 2})
		got, err = b.ReadAll(t.Context(), "a/1")
		require.NoError(t, err)
		assert.Equal(t, "on", string(got))

		inject(Rule{Fault: Tear, Bytes: 2, Err: ErrBusy})
		require.ErrorIs(t, create(t.Context(), b, "torn", "three"), ErrBusy)
		assert.Equal(t, "th", data("torn"))
		f.Remove("torn")

		inject(Rule{Fault: Slow, Delay: time.Minute, Skip: 1, Times: 1})
		start := time.Now()
		require.NoError(t, create(t.Context(), b, "quick", ""))
		assert.Zero(t, time.Since(start))
		require.NoError(t, create(t.Context(), b, "slow", ""))
		assert.Equal(t, time.Minute, time.Since(start))
		f.Remove("quick")
		f.Remove("slow")

		briefly, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		inject(Rule{Fault: LoseHanging, Op: Delete, Client: "one"})
		require.ErrorIs(t, b.Delete(briefly, "b/1"), context.DeadlineExceeded)
		assert.Equal(t, []string{"a/1"}, f.Keys(""))

		briefly, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		inject(Rule{Fault: Late, Delay: time.Minute})
		require.ErrorIs(t, create(briefly, b, "late", "come"), context.DeadlineExceeded)
		assert.Equal(t, "nothing", data("late"))
		time.Sleep(time.Hour)
		assert.Equal(t, "come", data("late"))
		f.Remove("late")

		briefly, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		inject(Rule{Fault: Hang, Client: "one"})
		_, err = b.Attributes(briefly, "a/1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 2, f.Requests("one", Delete, "b")+f.Requests("", Stat, "a/1"))
		_, err = raw(f, "two").Attributes(t.Context(), "a/1")
		require.NoError(t, err, "another client's")
	})
}

func TestFaultyLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFaults()
		f.SetPageSize(2)
		b := raw(f, "")
		f.Advance(-time.Hour)
		for _, key := range []string{"a/1", "a/2", "a/3", "a/4", "b/1"} {
			require.NoError(t, create(t.Context(), b, key, key))
			f.Advance(time.Minute)
		}
		f.Remove("a/2")
		assert.Equal(t, []string{"a/1", "a/3", "a/4"}, list(t, b, "a/"))
		f.Inject(Rule{Op: List, Fault: Lag, Delay: 3 * time.Minute})
		assert.Equal(t, []string{"a/1", "a/2", "a/3"}, list(t, b, ""))
		a, err := b.Attributes(t.Context(), "a/1")
		require.NoError(t, err)
		assert.Equal(t, time.Now().Add(-time.Hour), a.ModTime)

		f.Heal()
		f.Inject(Rule{Op: List, Skip: 1, Err: ErrDenied})
		it := b.List(nil)
		for range 2 {
			_, err := it.Next(t.Context())
			require.NoError(t, err)
		}
		_, err = it.Next(t.Context())
		assert.Equal(t, gcerrors.PermissionDenied, gcerrors.Code(err))

		f.Heal()
		f.Inject(Rule{Fault: Empty})
		assert.Empty(t, list(t, b, ""))
		_, err = b.ReadAll(t.Context(), "a/1")
		assert.NoError(t, err, "only lists are")
	})
}

// Faults at random are those of the seed, whatever others do.
func TestRandomFaults(t *testing.T) {
	outcome := func(seed uint64, others bool) (failed []bool) {
		f := NewFaults()
		f.Random(seed, 0.5, Fail)
		for range 64 {
			if others {
				_, _ = raw(f, "other").ReadAll(t.Context(), "a")
			}
			_, err := raw(f, "one").Attributes(t.Context(), "a")
			failed = append(failed, gcerrors.Code(err) != gcerrors.NotFound)
		}
		return failed
	}
	assert.Equal(t, outcome(1, false), outcome(1, true))
	assert.NotEqual(t, outcome(1, false), outcome(2, false))
	assert.Contains(t, outcome(1, false), true)
	assert.Contains(t, outcome(1, false), false)
}

func TestHook(t *testing.T) {
	f := NewFaults()
	b := raw(f, "one")
	f.Inject(Rule{Op: Create, Client: "one", Times: 1, Do: func(q Request) {
		assert.Equal(t, Request{"one", Create, "a"}, q)
		assert.NoError(t, create(t.Context(), raw(f, "two"), q.Key, "theirs"))
	}})
	assert.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(create(t.Context(), b, "a", "ours")))
}
