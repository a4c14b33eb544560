package appendlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// extend appends a text behind a position, and returns the position behind it.
func extend(t *testing.T, l *Log, at Position, proved time.Time, text string) Position {
	t.Helper()
	require.NoError(t, l.Extend(t.Context(), at, proved, []byte(text), 0))
	return Position{Sequence: at.Sequence + 1, Hash: HashOf([]byte(text))}
}

func TestExtend(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		l := New(bucket, Options{Prefix: "r"})
		one := extend(t, l, Position{}, time.Time{}, "one")
		two := extend(t, l, one, time.Now(), "two")
		require.NoError(t, l.Extend(t.Context(), one, time.Now(), []byte("two"), 0), "its own entry is no conflict")
		for _, proved := range []time.Time{{}, time.Now()} {
			err := l.Extend(t.Context(), one, proved, []byte("other"), 0)
			require.ErrorIs(t, err, ErrConflict)
			var conflict *ConflictError
			require.ErrorAs(t, err, &conflict)
			assert.Equal(t, []Entry{{2, []byte("two")}}, conflict.Entries)
		}
		extend(t, l, two, time.Time{}, "three")
		for few, want := range []int{2, 3, 3, 3} {
			var conflict *ConflictError
			require.ErrorAs(t, l.Extend(t.Context(), one, time.Now(), []byte("other"), few), &conflict)
			assert.Len(t, conflict.Entries, want-1, "of those that there are")
		}
		assert.Equal(t, []string{"1 one", "2 two", "3 three"}, read(t, l, 1))
	})
}

// Of many who extend a log at a time, on one proof, one wins each number, and the others
// are handed what it wrote.
func TestExtendByMany(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		l := New(bucket, Options{Prefix: "r"})
		at := Position{}
		for range 5 {
			var writing sync.WaitGroup
			results := make([]error, 6)
			proved := time.Now()
			for w := range results {
				writing.Go(func() { results[w] = l.Extend(t.Context(), at, proved, fmt.Append(nil, at.Sequence, w), 0) })
			}
			writing.Wait()
			e, err := l.Get(t.Context(), at.Sequence+1)
			require.NoError(t, err)
			wins := 0
			for w, err := range results {
				if err == nil {
					wins++
					assert.Equal(t, fmt.Append(nil, at.Sequence, w), e.Data)
					continue
				}
				var conflict *ConflictError
				if assert.ErrorAs(t, err, &conflict) {
					assert.Equal(t, []Entry{e}, conflict.Entries)
				}
			}
			assert.Equal(t, 1, wins)
			at = l.Position(e)
		}
	})
}

// Behind a proof that is young an append is one request; without one, the proof comes first.
func TestExtendCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		l := New(store.Bucket(""), Options{Prefix: "r"})
		at := extend(t, l, Position{}, time.Time{}, "one")
		before := store.Requests("", "", "")
		at = extend(t, l, at, time.Now(), "two")
		assert.Equal(t, 2, store.Requests("", "", "")-before, "the new one, and at the same time ours")

		proved := time.Now()
		time.Sleep(sure + time.Second)
		before = store.Requests("", "", "")
		extend(t, l, at, proved, "three")
		assert.Equal(t, 4, store.Requests("", "", "")-before, "a read of the next, one of ours, the new one, and ours again")
	})
}

// A writer whose log is not the one that is there appends nothing to it.
func TestExtendOfAnotherLog(t *testing.T) {
	store := objectstest.NewFaults()
	l := New(store.Bucket(""), Options{Prefix: "r"})
	one := extend(t, l, Position{}, time.Time{}, "one")
	two := extend(t, l, one, time.Time{}, "two")
	store.Remove(l.entryKey(2))
	assert.ErrorIs(t, l.Extend(t.Context(), two, time.Time{}, []byte("three"), 0), ErrBehind)
	extend(t, l, one, time.Time{}, "another")
	err := l.Extend(t.Context(), two, time.Time{}, []byte("three"), 0)
	assert.ErrorIs(t, err, ErrForked)
	assert.ErrorContains(t, err, "append entry 3 of log r: ")
	assert.Equal(t, []string{"1 one", "2 another"}, read(t, l, 1))
}

// In a store that was replaced by an older copy a moment ago nothing is left that follows what
// is not there: who restores it would else have a log with a gap.
func TestExtendOfAnOlderCopy(t *testing.T) {
	store := objectstest.NewFaults()
	l := New(store.Bucket(""), Options{Prefix: "r"})
	one := extend(t, l, Position{}, time.Time{}, "one")
	two := extend(t, l, one, time.Now(), "two")
	proved := time.Now()
	store.Remove(l.entryKey(2))
	require.ErrorIs(t, l.Extend(t.Context(), two, proved, []byte("three"), 0), ErrBehind)
	assert.Equal(t, []string{"1 one"}, read(t, l, 1))
	_, there := store.Data(l.entryKey(3))
	assert.False(t, there)

	extend(t, l, one, time.Now(), "another")
	require.ErrorIs(t, l.Extend(t.Context(), two, proved, []byte("three"), 0), ErrForked)
	assert.Equal(t, []string{"1 one", "2 another"}, read(t, l, 1))
}

// All answers to the requests that create an entry are lost: reading tells that it is
// there. Where that fails too it is not known, and no conflict.
func TestExtendWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		l := New(store.Bucket(""), Options{Prefix: "r"})
		store.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.LoseHanging})
		one := extend(t, l, Position{}, time.Now(), "one")
		store.Inject(objectstest.Rule{Op: objectstest.Read, Fault: objectstest.Hang})
		err := l.Extend(t.Context(), one, time.Now(), []byte("two"), 0)
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrConflict)
		store.Heal()
		assert.Equal(t, []string{"1 one", "2 two"}, read(t, l, 1))
	})
}

// A creation that took so long that the entry may have been there, summed up and deleted
// meanwhile is not taken for one.
func TestExtendThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		l := New(store.Bucket("", objects.WithTimeout(time.Hour)), Options{Prefix: "r"})
		store.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.Slow, Delay: LeastAge})
		err := l.Extend(t.Context(), Position{}, time.Now(), []byte("one"), 0)
		require.ErrorContains(t, err, "the log may have gone on")
		require.NotErrorIs(t, err, ErrConflict)
	})
}

func TestTrim(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		l := New(bucket, Options{Prefix: "live", Suffix: ".log"})
		none, err := l.Trim(t.Context(), LeastAge, false)
		require.NoError(t, err)
		assert.Zero(t, none)
		at := Position{}
		for i := range 6 {
			at = extend(t, l, at, time.Now(), fmt.Sprint(i+1))
		}
		require.NoError(t, l.Sum(t.Context(), 3, []byte("up to 3")))
		require.NoError(t, l.Sum(t.Context(), 3, []byte("up to 3")), "again")
		require.NoError(t, l.Sum(t.Context(), 5, []byte("up to 5")))
		list, err := l.Checkpoints(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.EqualValues(t, 5, list[1].Sequence)
		assert.EqualValues(t, len("up to 5"), list[1].Size)
		_, err = l.Trim(t.Context(), LeastAge-1, false)
		assert.ErrorContains(t, err, "accepted: 10m0s and more")
		young, err := l.Trim(t.Context(), LeastAge, false)
		require.NoError(t, err)
		assert.Zero(t, young)
		assert.Len(t, read(t, l, 1), 6)
	})
}

// Entries go once a checkpoint is old by the store's clock, whatever that of the machine
// says, and whoever stands at the last of them reads on.
func TestTrimOfOldCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		store.Advance(-100 * time.Hour)
		l := New(store.Bucket(""), Options{Prefix: "live"})
		at, third := Position{}, Position{}
		for i := range 6 {
			if at = extend(t, l, at, time.Now(), fmt.Sprint(i+1)); i == 2 {
				third = at
			}
		}
		require.NoError(t, l.Sum(t.Context(), 2, []byte("up to 2")))
		require.NoError(t, l.Sum(t.Context(), 3, []byte("up to 3")))
		store.Advance(time.Hour)
		require.NoError(t, l.Sum(t.Context(), 5, []byte("up to 5")))
		store.Advance(30 * time.Minute)
		keys := store.Keys("")
		want := Trimmed{Through: 3, Entries: 2, Checkpoints: 1}
		would, err := l.Trim(t.Context(), time.Hour, true)
		require.NoError(t, err)
		assert.Equal(t, want, would)
		assert.Equal(t, keys, store.Keys(""), "a dry run")
		did, err := l.Trim(t.Context(), time.Hour, false)
		require.NoError(t, err)
		assert.Equal(t, want, did)
		assert.Equal(t, []string{
			"live/000000000003.json", "live/000000000004.json", "live/000000000005.json", "live/000000000006.json",
			"live/checkpoints/000000000003.json", "live/checkpoints/000000000005.json",
		}, store.Keys(""))
		found, err := l.look(t.Context(), third, true, 1)
		require.NoError(t, err)
		require.Len(t, found.entries, 1)
		assert.EqualValues(t, 4, found.entries[0].Sequence)
		_, err = l.look(t.Context(), Position{Sequence: 1, Hash: HashOf([]byte("1"))}, true, 1)
		assert.ErrorIs(t, err, ErrCompacted)

		// The last entry stays, so that its reader can prove that the log ends with it.
		require.NoError(t, l.Sum(t.Context(), 6, []byte("up to 6")))
		store.Advance(2 * time.Hour)
		did, err = l.Trim(t.Context(), time.Hour, false)
		require.NoError(t, err)
		assert.Equal(t, Trimmed{Through: 6, Entries: 3, Checkpoints: 2}, did)
		found, err = l.look(t.Context(), at, true, width)
		require.NoError(t, err)
		assert.Empty(t, found.entries)
		assert.True(t, found.ended)
		extend(t, l, at, time.Time{}, "7")
	})
}

// A poll does not read a large entry again, and sees all the same when it is another one.
func TestWatchOfLargeEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked()
		l.write(t, string(bytes.Repeat([]byte("x"), large)))
		rest := watch(t, l.watched)
		rest(5 * time.Second)
		before, lookups := l.store.Requests(watched, objectstest.Read, l.entryKey(1)), l.store.Requests(watched, objectstest.Stat, "")
		now := rest(20 * time.Second)
		require.NoError(t, now.failed)
		assert.Equal(t, before, l.store.Requests(watched, objectstest.Read, l.entryKey(1)))
		assert.InDelta(t, 20, l.store.Requests(watched, objectstest.Stat, "")-lookups, 3)
		assert.Less(t, time.Since(now.proof), 2*time.Second)
		data, _ := l.store.Data(l.entryKey(1))
		l.store.Put(l.entryKey(1), bytes.Replace(data, []byte("xx"), []byte("xy"), 1), time.Now())
		assert.ErrorIs(t, rest(5*time.Second).failed, ErrForked)
		l.store.Put(l.entryKey(1), data, time.Now())
		assert.NoError(t, rest(20*time.Second).failed)
	})
}

// In a folder the date and the size of a file tell.
func TestLargeEntryInAFolder(t *testing.T) {
	dir := t.TempDir()
	l := New(open(t, dir), Options{Prefix: "r"})
	data := bytes.Repeat([]byte("x"), large)
	at := extend(t, l, Position{}, time.Time{}, string(data))
	for range 3 {
		found, err := l.look(t.Context(), at, false, 1)
		require.NoError(t, err)
		require.True(t, found.ended)
	}
	require.True(t, l.seen.marked)
	data[0] = 'y'
	path := filepath.Join(dir, "r", "000000000001.json")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o644))
	require.NoError(t, os.Chtimes(path, time.Time{}, info.ModTime().Add(time.Second)))
	_, err = l.look(t.Context(), at, false, 1)
	assert.ErrorIs(t, err, ErrForked)
}

// Who appends tells where it stands, and is not handed what it knows.
func TestWatchOfOneWhoAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		l := New(store.Bucket(""), Options{Prefix: "r"})
		var mu sync.Mutex
		var at Position
		var applied []string
		proofs := 0
		where := func() Position {
			mu.Lock()
			defer mu.Unlock()
			return at
		}
		w := Watcher{
			At: where,
			Apply: func(e Entry) error {
				mu.Lock()
				defer mu.Unlock()
				applied, at = append(applied, string(e.Data)), l.Position(e)
				return nil
			},
			Proved: func(time.Time) { proofs++ },
			Failed: func(err error) { t.Error(err) },
		}
		ended := make(chan error)
		ctx := t.Context()
		stop := make(chan struct{})
		go func() {
			err := l.Watch(ctx, Position{}, Watcher{At: w.At, Proved: w.Proved, Failed: w.Failed, Apply: func(e Entry) error {
				_ = w.Apply(e)
				select {
				case <-stop:
					return errStopped
				default:
					return nil
				}
			}})
			ended <- err
		}()
		for i := range 5 {
			time.Sleep(3 * time.Second)
			next := extend(t, l, where(), time.Now(), fmt.Sprint(i))
			mu.Lock()
			at = next
			mu.Unlock()
		}
		time.Sleep(3 * time.Second)
		close(stop)
		require.NoError(t, l.Append(t.Context(), 6, []byte("other")))
		assert.ErrorIs(t, <-ended, errStopped)
		assert.Equal(t, []string{"other"}, applied)
		assert.Greater(t, proofs, 10)
	})
}

var errStopped = errors.New("stopped")

// However fast others write, who follows is not behind for long, and knows where the log
// ended a moment ago.
func TestWatchKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		o := Options{Prefix: "r", Poll: 300 * time.Millisecond, Links: linksOf}
		l := &linked{New(store.Bucket("writer"), o), New(store.Bucket(watched), o), store}
		l.write(t, "a")
		rest := watch(t, l.watched)
		rest(time.Second)
		store.Inject(objectstest.Rule{Client: watched, Fault: objectstest.Slow, Delay: 100 * time.Millisecond})
		store.Inject(objectstest.Rule{Client: "writer", Op: objectstest.Create, Fault: objectstest.Slow, Delay: 50 * time.Millisecond})
		at := l.Position(Entry{1, must(store.Data(l.entryKey(1)))})
		oldest := time.Duration(0)
		for i := range 200 {
			data, err := json.Marshal(record{Previous: at.Hash, Text: fmt.Sprint(i)})
			require.NoError(t, err)
			require.NoError(t, l.Extend(t.Context(), at, time.Now(), data, 0))
			at = l.after(at, Entry{at.Sequence + 1, data})
			now := rest(0)
			oldest = max(oldest, time.Since(now.proof))
			assert.Less(t, i-len(now.texts), 12)
		}
		assert.Less(t, oldest, 2*time.Second)
	})
}

func must(data []byte, ok bool) []byte {
	if !ok {
		panic("no such object")
	}
	return data
}

// An entry that follows ours, which is gone, is not followed: it was written to a store that
// was being replaced by an older copy. One whose predecessor went only then is found by a
// look at all of the log.
func TestWatchOfAnEntryBehindAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		o := Options{Prefix: "r", Poll: 300 * time.Millisecond, Links: linksOf, Whole: true}
		l := &linked{New(store.Bucket("writer"), o), New(store.Bucket(watched), o), store}
		l.write(t, "a", "b")
		rest := watch(t, l.watched)
		assert.Equal(t, []string{"a", "b"}, rest(time.Second).texts)
		two := must(store.Data(l.entryKey(2)))
		l.write(t, "c")
		three := must(store.Data(l.entryKey(3)))
		l.drop(2)
		before := rest(0)
		now := rest(10 * time.Second)
		assert.Equal(t, []string{"a", "b"}, now.texts)
		require.ErrorIs(t, now.failed, ErrGap)
		assert.Equal(t, before.proofs, now.proofs)
		store.Put(l.entryKey(2), two, time.Now())
		assert.Equal(t, []string{"a", "b", "c"}, rest(10*time.Second).texts)
		assert.Equal(t, three, must(store.Data(l.entryKey(3))))

		l.drop(2)
		require.ErrorIs(t, rest(time.Minute).failed, ErrGap)
		store.Put(l.entryKey(2), two, time.Now())
		require.NoError(t, rest(10*time.Second).failed)
		require.NoError(t, l.Sum(t.Context(), 2, []byte("a b")))
		l.drop(1, 2)
		require.NoError(t, rest(time.Minute).failed, "these are summed up")
	})
}
