package appendlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// onEach runs a test on every kind of store there is here.
func onEach(t *testing.T, test func(t *testing.T, bucket *objects.Bucket)) {
	objectstest.Run(t, test)
}

func read(t *testing.T, l *Log, from uint64) (list []string) {
	t.Helper()
	for e, err := range l.Read(t.Context(), from) {
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%d %s", e.Sequence, e.Data))
	}
	return list
}

// A list that lags behind, or lacks what is there, hides no entry.
func TestHeadOfLaggingList(t *testing.T) {
	store := objectstest.NewFaults()
	l := New(store.Bucket(""), Options{Prefix: "r"})
	for i := range uint64(3) {
		require.NoError(t, l.Append(t.Context(), i+1, fmt.Append(nil, i+1)))
	}
	store.Inject(objectstest.Rule{Op: objectstest.List, Fault: objectstest.Empty})
	head, err := l.Head(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 3, head)
	require.NoError(t, l.Append(t.Context(), 4, []byte("4")))
	assert.ErrorIs(t, l.Append(t.Context(), 4, []byte("late")), ErrConflict)
}

func TestBefore(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		l := New(bucket, Options{Prefix: "r"})
		for _, sequence := range []uint64{2, 3, 7} {
			require.NoError(t, bucket.Write(t.Context(), l.entryKey(sequence), nil))
		}
		for below, want := range map[uint64]uint64{1: 0, 2: 0, 3: 2, 7: 3, 8: 7} {
			got, err := l.Before(t.Context(), below)
			require.NoError(t, err)
			assert.Equal(t, want, got, below)
		}
	})
}

func TestAppend(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		l := New(bucket, Options{Prefix: "releases"})
		head, err := l.Head(ctx)
		require.NoError(t, err)
		assert.Zero(t, head)
		assert.Empty(t, read(t, l, 1))
		_, err = l.Get(ctx, 1)
		assert.ErrorIs(t, err, objects.ErrNotFound)

		require.NoError(t, l.Append(ctx, 1, []byte("a")))
		require.NoError(t, l.Append(ctx, 2, []byte("b")))
		require.NoError(t, l.Append(ctx, 2, []byte("b")), "its own entry is no conflict")
		err = l.Append(ctx, 2, []byte("c"))
		assert.ErrorIs(t, err, ErrConflict)
		assert.ErrorContains(t, err, "append entry 2 of log releases: ")
		err = l.Append(ctx, 4, []byte("d"))
		assert.NotErrorIs(t, err, ErrConflict)
		assert.ErrorContains(t, err, "the head is 2: there would be a gap")
		assert.ErrorContains(t, l.Append(ctx, 0, nil), "the first entry is 1")

		assert.Equal(t, []string{"1 a", "2 b"}, read(t, l, 0))
		assert.Equal(t, []string{"2 b"}, read(t, l, 2))
		head, err = l.Head(ctx)
		require.NoError(t, err)
		assert.EqualValues(t, 2, head)

		other := New(bucket, Options{Prefix: "live", Suffix: ".log"})
		require.NoError(t, other.Append(ctx, 1, []byte("x")))
		assert.Equal(t, []string{"1 x"}, read(t, other, 1))
	})
}

func TestOneWriterWins(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		const rounds, writers = 8, 8
		l := New(bucket, Options{Prefix: "r"})
		for sequence := uint64(1); sequence <= rounds; sequence++ {
			var wins, conflicts atomic.Int32
			var winner atomic.Value
			var done sync.WaitGroup
			for w := range writers {
				done.Go(func() {
					data := fmt.Sprintf("writer %d of %d", w, sequence)
					switch err := l.Append(t.Context(), sequence, []byte(data)); {
					case err == nil:
						wins.Add(1)
						winner.Store(data)
					case errors.Is(err, ErrConflict):
						conflicts.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			done.Wait()
			assert.EqualValues(t, 1, wins.Load())
			assert.EqualValues(t, writers-1, conflicts.Load())
			e, err := l.Get(t.Context(), sequence)
			require.NoError(t, err)
			assert.Equal(t, winner.Load(), string(e.Data))
		}
	})
}

func TestCompact(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		l := New(bucket, Options{Prefix: "live", Keep: 3})
		for i := range uint64(10) {
			require.NoError(t, l.Append(ctx, i+1, fmt.Append(nil, i+1)))
		}
		c, err := l.Checkpoint(ctx)
		require.NoError(t, err)
		assert.Zero(t, c)
		assert.ErrorContains(t, l.Compact(ctx, 11, nil), "compact log live at entry 11: want 1 to the head, 10")
		assert.ErrorContains(t, l.Compact(ctx, 0, nil), "want 1 to the head, 10")

		require.NoError(t, l.Compact(ctx, 4, []byte("up to 4")))
		require.NoError(t, l.Compact(ctx, 8, []byte("up to 8")))
		require.NoError(t, l.Compact(ctx, 8, []byte("up to 8")), "again")
		c, err = l.Checkpoint(ctx)
		require.NoError(t, err)
		assert.Equal(t, Entry{8, []byte("up to 8")}, c)
		_, err = l.Get(ctx, 5)
		assert.ErrorIs(t, err, ErrCompacted)
		assert.Equal(t, []string{"6 6", "7 7", "8 8", "9 9", "10 10"}, read(t, l, 6), "three that are summed up stay")

		assert.ErrorIs(t, l.Append(ctx, 5, []byte("late")), ErrConflict)
		assert.ErrorIs(t, l.Append(ctx, 8, []byte("late")), ErrConflict)
		require.NoError(t, l.Append(ctx, 11, []byte("11")))
		require.NoError(t, l.Compact(ctx, 11, []byte("all")))
		head, err := l.Head(ctx)
		require.NoError(t, err)
		assert.EqualValues(t, 11, head)
		require.NoError(t, l.Append(ctx, 12, []byte("12")))

		for _, at := range []Position{{}, {Sequence: 1, Hash: HashOf([]byte("1"))}} {
			err = l.Watch(ctx, at, Watcher{Apply: func(Entry) error { return nil }, Failed: func(err error) { t.Error(err) }})
			assert.ErrorIs(t, err, ErrCompacted)
		}
	})
}

// A writer that crashed after its object was created, or whose store answered late,
// appends again.
func TestAppendAfterLostAnswer(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		require.NoError(t, bucket.Create(t.Context(), "r/000000000001.json", []byte("mine")))
		l := New(bucket, Options{Prefix: "r"})
		require.NoError(t, l.Append(t.Context(), 1, []byte("mine")))
		assert.ErrorIs(t, l.Append(t.Context(), 1, []byte("yours")), ErrConflict)
	})
}

// An entry whose name the disk has not confirmed is not acknowledged, even though it
// can be read.
func TestAcknowledgedMeansDurable(t *testing.T) {
	dir := t.TempDir()
	appends := func(dir string) (lines []string) {
		bucket, err := objects.Open(context.Background(), dir)
		if err != nil {
			return []string{err.Error()}
		}
		l := New(bucket, Options{Prefix: "r"})
		head, err := l.Head(context.Background())
		if err == nil {
			err = l.Append(context.Background(), head+1, fmt.Append(nil, head+1))
		}
		return []string{fmt.Sprint(err == nil), fmt.Sprint(errors.Is(err, objects.ErrNotDurable)), fmt.Sprint(err)}
	}
	const syncs = 3 // the store's folder, for the name of the log's; the file; the log's folder
	for n := 1; n <= syncs+1; n++ {
		lines := objectstest.UnderStrace(t, dir, appends, "-e", fmt.Sprintf("inject=fsync:error=EIO:when=%d", n))
		require.Len(t, lines, 3)
		l := New(open(t, dir), Options{Prefix: "r"})
		there := read(t, l, 1)
		assert.Equal(t, fmt.Sprint(n > syncs), lines[0], lines)
		assert.Equal(t, fmt.Sprint(n == syncs), lines[1], lines)
		if n <= syncs {
			assert.Contains(t, lines[2], "input/output error")
		}
		want := [][]string{{}, {}, {"1 1"}, {"1 1", "2 2"}}[n-1]
		assert.ElementsMatch(t, want, there, "after %d", n)
	}
}

func open(t *testing.T, dir string) *objects.Bucket {
	t.Helper()
	bucket, err := objects.Open(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	return bucket
}
