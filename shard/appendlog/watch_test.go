package appendlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// record is an entry of the logs of these tests.
type record struct {
	Previous Hash   `json:"previous,omitzero"`
	Log      string `json:"log,omitempty"`
	Text     string `json:"text"`
}

func linksOf(data []byte) Links {
	var r record
	if json.Unmarshal(data, &r) != nil {
		return Links{}
	}
	return Links{r.Previous, r.Log}
}

// linked is a log, as another process than the one that watches sees it, in a store that
// fails; its entries carry what they follow.
type linked struct {
	*Log
	watched *Log
	store   *objectstest.Faults
}

// watched is the client of the store that watches.
const watched = "watched"

func newLinked() *linked {
	store, o := objectstest.NewFaults(), Options{Prefix: "r", Links: linksOf}
	return &linked{New(store.Bucket("writer"), o), New(store.Bucket(watched), o), store}
}

// write appends an entry for each text. One that begins with a ! accepts a restored log.
func (l *linked) write(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		head, err := l.Head(t.Context())
		require.NoError(t, err)
		var before Entry
		if head > 0 {
			before, err = l.Get(t.Context(), head)
			require.NoError(t, err)
		}
		r := record{Text: text}
		if head > 0 {
			at := l.Position(before)
			r.Previous, r.Log = at.Hash, at.Log
		}
		if text[0] == '!' {
			r.Log = "log " + text
		}
		data, err := json.Marshal(r)
		require.NoError(t, err)
		require.NoError(t, l.Append(t.Context(), head+1, data))
	}
}

// drop deletes entries.
func (l *linked) drop(sequences ...uint64) {
	for _, n := range sequences {
		l.store.Remove(l.entryKey(n))
	}
}

// sight is what a Watch has told so far.
type sight struct {
	texts    []string // that were applied
	failed   error    // of the last look; nil after one that proved
	failures int
	proofs   int
	proof    time.Time
	ended    error
}

// watch watches a log from its beginning, and goes on behind what a person accepts; the
// returned function waits for a time and for what goes on to come to rest.
func watch(t *testing.T, l *Log) (rest func(time.Duration) sight) {
	var mu sync.Mutex
	var s sight
	do := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	apply := func(e Entry) error {
		var r record
		if json.Unmarshal(e.Data, &r) != nil {
			r.Text = string(e.Data)
		}
		do(func() { s.texts = append(s.texts, r.Text) })
		return nil
	}
	w := Watcher{
		Apply:  apply,
		Proved: func(asked time.Time) { do(func() { s.proof, s.failed, s.proofs = asked, nil, s.proofs+1 }) },
		Failed: func(err error) { do(func() { s.failed, s.failures = err, s.failures+1 }) },
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for at := (Position{}); ; {
			err := l.Watch(ctx, at, w)
			restored := (*RestoredError)(nil)
			if !errors.As(err, &restored) {
				do(func() { s.ended = err })
				return
			}
			_ = apply(restored.Entry) // never fails
			at = l.Position(restored.Entry)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return func(d time.Duration) (now sight) {
		time.Sleep(d)
		synctest.Wait()
		do(func() { now = s; now.texts = slices.Clone(s.texts) })
		return now
	}
}

func TestWatch(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		l := New(bucket, Options{Prefix: "r", Poll: time.Hour})
		require.NoError(t, l.Append(ctx, 1, []byte("1")))
		applied := make(chan uint64)
		ended := make(chan error, 1)
		w := Watcher{
			Apply:  func(e Entry) error { applied <- e.Sequence; return nil },
			Proved: func(time.Time) {}, Failed: func(err error) { t.Error(err) },
		}
		go func() { ended <- l.Watch(ctx, Position{}, w) }()
		assert.EqualValues(t, 1, <-applied)
		for sequence := uint64(2); sequence < 6; sequence++ {
			require.NoError(t, l.Append(ctx, sequence, fmt.Append(nil, sequence)))
			assert.Equal(t, sequence, <-applied, "appending hints")
		}
		stop()
		assert.ErrorIs(t, <-ended, context.Canceled)

		wrong := errors.New("wrong")
		w.Apply = func(Entry) error { return wrong }
		assert.ErrorIs(t, l.Watch(t.Context(), Position{Sequence: 3, Hash: HashOf([]byte("3"))}, w), wrong)
	})
}

func TestWatchPolls(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		bucket, err := objects.Open(t.Context(), dir)
		require.NoError(t, err)
		defer bucket.Close()
		ours, theirs := New(bucket, Options{Prefix: "r", Poll: time.Minute}), New(bucket, Options{Prefix: "r"})
		rest := watch(t, ours)
		rest(0)
		require.NoError(t, theirs.Append(t.Context(), 1, []byte("1")))
		assert.Empty(t, rest(0).texts, "it has not looked again")
		assert.Equal(t, []string{"1"}, rest(67*time.Second).texts)
	})
}

// While nothing happens a proof costs two reads, and is a poll old at most.
func TestWatchProves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked()
		l.write(t, "a", "b")
		rest := watch(t, l.watched)
		proofs := rest(10 * time.Second).proofs
		before := map[objectstest.Op]int{}
		for _, op := range []objectstest.Op{objectstest.Stat, objectstest.Read, objectstest.List} {
			before[op] = l.store.Requests(watched, op, "")
		}
		now := rest(40 * time.Second)
		assert.Equal(t, []string{"a", "b"}, now.texts)
		assert.NoError(t, now.failed)
		looks := now.proofs - proofs
		assert.InDelta(t, 38, looks, 3)
		assert.Zero(t, l.store.Requests(watched, objectstest.Stat, "")-before[objectstest.Stat])
		assert.Equal(t, 2*looks, l.store.Requests(watched, objectstest.Read, "")-before[objectstest.Read])
		assert.Zero(t, l.store.Requests(watched, objectstest.List, "")-before[objectstest.List])
		assert.Less(t, time.Since(now.proof), 1200*time.Millisecond)

		l.store.Inject(objectstest.Rule{Client: watched, Op: objectstest.Read, Fault: objectstest.Slow, Delay: 5 * time.Second})
		assert.Greater(t, time.Since(rest(11*time.Second).proof), 9*time.Second, "it counts from when its first request was sent")
	})
}

// A request that is never answered, whatever asks it, costs one look. So does one of a
// store that heeds no context.
func TestWatchOutlivesHangs(t *testing.T) {
	for _, op := range []objectstest.Op{objectstest.Stat, objectstest.Read, objectstest.List} {
		for _, deaf := range []bool{false, true} {
			t.Run(fmt.Sprint(op, deaf), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLinked()
					l.write(t, "a")
					rule := objectstest.Rule{Client: watched, Op: op, Times: 1, Fault: objectstest.Hang}
					answer := make(chan struct{})
					defer close(answer)
					if deaf {
						rule.Fault, rule.Do = "", func(objectstest.Request) { <-answer }
					}
					l.store.Inject(rule)
					rest := watch(t, l.watched)
					now := rest(20 * time.Second)
					assert.NoError(t, now.failed, "it has looked again")
					assert.LessOrEqual(t, now.failures, 1)
					assert.Less(t, time.Since(now.proof), 5*time.Second)
					l.write(t, "b")
					assert.Equal(t, []string{"a", "b"}, rest(2*time.Second).texts)
				})
			})
		}
	}
}

// Requests that are never answered, a few of them one after the other, do not keep a proof from
// being young: others are made beside them, and the first answer counts.
func TestWatchHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked()
		l.write(t, "a")
		l.watched.o.Hedge = time.Second
		rest := watch(t, l.watched)
		rest(5 * time.Second)
		for hanging := range 4 {
			l.store.Inject(objectstest.Rule{Client: watched, Times: hanging, Fault: objectstest.Hang})
			if hanging == 0 {
				l.store.Heal()
			}
			for range 300 {
				now := rest(100 * time.Millisecond)
				assert.Less(t, time.Since(now.proof), time.Duration(hanging)*time.Second+2500*time.Millisecond)
				assert.NoError(t, now.failed)
			}
			l.write(t, "b")
			assert.Len(t, rest(2*time.Second).texts, hanging+2)
		}
		// What one look cannot read another may.
		l.store.Inject(objectstest.Rule{Client: watched, Times: 1, Fault: objectstest.Hang})
		l.store.Inject(objectstest.Rule{Client: watched, Times: 4, Fault: objectstest.Fail})
		assert.Less(t, time.Since(rest(8*time.Second).proof), 2*time.Second)
	})
}

// A store that never answers again holds up few goroutines, and Watch ends when it is
// told to.
func TestWatchOfDeafStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked()
		answer := make(chan struct{})
		defer close(answer)
		var asked atomic.Int64
		l.store.Inject(objectstest.Rule{Client: watched, Do: func(objectstest.Request) { asked.Add(1); <-answer }})
		rest := watch(t, l.watched)
		now := rest(10 * time.Minute)
		assert.ErrorContains(t, now.failed, "8 looks have no answer yet, the last for 15s")
		assert.EqualValues(t, unanswered, asked.Load())
		assert.Greater(t, now.failures, 20)
	})
}

// While looks fail they come less often, and soon after the end of it there is a proof.
func TestWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked()
		l.write(t, "a")
		rest := watch(t, l.watched)
		rest(time.Second)
		l.store.Inject(objectstest.Rule{Client: watched, Err: objectstest.ErrBusy})
		now := rest(10 * time.Minute)
		assert.ErrorContains(t, now.failed, "look at log r behind entry 1: ")
		assert.False(t, IsBroken(now.failed))
		assert.Less(t, now.failures, 90)
		l.store.Heal()
		l.write(t, "b")
		now = rest(20 * time.Second)
		assert.Equal(t, []string{"a", "b"}, now.texts)
		assert.NoError(t, now.failed)
	})
}

// Whatever becomes of the store, nothing is applied that does not follow what was.
func TestWatchOfAnotherLog(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, l *linked) // after a, b, c were applied
		class  error
		text   string
		mend   func(t *testing.T, l *linked)
		then   []string // what is applied when it is mended
	}{
		"restored":             {change: func(_ *testing.T, l *linked) { l.drop(3) }, class: ErrBehind, text: "entry 3 is gone, and the log ends with entry 2"},
		"emptied":              {change: func(_ *testing.T, l *linked) { l.drop(1, 2, 3) }, class: ErrBehind, text: "entry 3 is gone, and the log ends with entry 0"},
		"went on shorter":      {change: func(t *testing.T, l *linked) { l.drop(2, 3); l.write(t, "x") }, class: ErrBehind, text: "the log ends with entry 2"},
		"went on as long":      {change: func(t *testing.T, l *linked) { l.drop(2, 3); l.write(t, "x", "y") }, class: ErrForked, text: "entry 3 is another one ("},
		"went on longer":       {change: func(t *testing.T, l *linked) { l.drop(2, 3); l.write(t, "x", "y", "z", "w") }, class: ErrForked, text: "entry 4 was appended to another entry 3 ("},
		"went on, silent":      {change: func(t *testing.T, l *linked) { l.drop(3); l.write(t, "x"); silent(t, l, 4) }, class: ErrForked, text: "entry 3 is another one ("},
		"lost ours, silent":    {change: func(t *testing.T, l *linked) { silent(t, l, 4); l.drop(3) }, class: ErrGap, text: "entry 3 is missing, and the log goes on to entry 4"},
		"a gap":                {change: func(t *testing.T, l *linked) { l.write(t, "d", "e"); l.drop(4) }, class: ErrGap, text: "entry 4 is missing, and the log goes on to entry 5"},
		"a gap over ours":      {change: func(t *testing.T, l *linked) { l.write(t, "d", "e"); l.drop(3, 4) }, class: ErrGap, text: "entry 3 is missing, and the log goes on to entry 5"},
		"garbage in our place": {change: func(_ *testing.T, l *linked) { l.drop(3); l.store.Put(l.entryKey(3), []byte("{"), time.Now()) }, class: ErrForked, text: "entry 3 is another one ("},

		"accepted, shorter": {
			change: func(t *testing.T, l *linked) { l.drop(2, 3); l.write(t, "x") }, class: ErrBehind,
			mend: func(t *testing.T, l *linked) { l.drop(2); l.write(t, "!") }, then: []string{"!"},
		},
		"accepted, longer": {
			change: func(t *testing.T, l *linked) { l.drop(2, 3); l.write(t, "x", "y", "z") }, class: ErrForked,
			mend: func(t *testing.T, l *linked) { l.write(t, "!1", "then") }, then: []string{"then"},
		},
		"accepted, emptied": {
			change: func(_ *testing.T, l *linked) { l.drop(1, 2, 3) }, class: ErrBehind,
			mend: func(t *testing.T, l *linked) { l.write(t, "!") }, then: []string{"!"},
		},
		"accepted, with a gap": {
			change: func(t *testing.T, l *linked) { l.write(t, "d", "e"); l.drop(4) }, class: ErrGap,
			mend: func(t *testing.T, l *linked) { l.write(t, "!") }, then: []string{"!"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLinked()
				l.write(t, "a", "b", "c")
				rest := watch(t, l.watched)
				now := rest(70 * time.Second)
				require.NoError(t, now.failed)
				require.Equal(t, []string{"a", "b", "c"}, now.texts)

				saved := map[string][]byte{}
				for _, key := range l.store.Keys("") {
					saved[key], _ = l.store.Data(key)
				}
				c.change(t, l)
				now = rest(90 * time.Second)
				require.ErrorIs(t, now.failed, c.class)
				require.True(t, IsBroken(now.failed))
				require.ErrorContains(t, now.failed, c.text)
				later := rest(30 * time.Minute)
				require.ErrorIs(t, later.failed, c.class, "it stays so")
				require.Equal(t, now.proofs, later.proofs)
				require.Equal(t, []string{"a", "b", "c"}, later.texts)

				if c.mend != nil {
					c.mend(t, l)
				} else { // what was there comes back
					for _, key := range l.store.Keys("") {
						l.store.Remove(key)
					}
					for key, data := range saved {
						l.store.Put(key, data, time.Now())
					}
					l.write(t, "d")
					c.then = []string{"d"}
				}
				now = rest(20 * time.Second)
				require.NoError(t, now.failed)
				require.Equal(t, append([]string{"a", "b", "c"}, c.then...), now.texts)
			})
		})
	}
}

// silent writes an entry that does not say what it follows.
func silent(t *testing.T, l *linked, sequence uint64) {
	t.Helper()
	require.NoError(t, l.Append(t.Context(), sequence, []byte(`{"text": "silent"}`)))
}

// A copy from before an acceptance is not taken for one, nor is what does not say its log.
func TestWatchOfOlderCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinked()
		l.write(t, "a", "b", "!", "c")
		silent(t, l, 5)
		rest := watch(t, l.watched)
		rest(time.Second)
		l.drop(4, 5)
		require.ErrorIs(t, rest(10*time.Second).failed, ErrBehind)
		l.drop(3)
		require.ErrorIs(t, rest(10*time.Second).failed, ErrBehind)
		l.write(t, "x", "y", "z")
		now := rest(20 * time.Second)
		require.ErrorIs(t, now.failed, ErrForked)
		require.Equal(t, []string{"a", "b", "!", "c", "silent"}, now.texts)
	})
}

// Who finds the next entry missing, and ours deleted when it reads that, has been
// overtaken by a compaction.
func TestWatchMeetsCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		ours := New(store.Bucket("ours"), Options{Prefix: "r", Keep: 1})
		theirs := New(store.Bucket("theirs"), Options{Prefix: "r", Keep: 1})
		require.NoError(t, theirs.Append(t.Context(), 1, []byte("1")))
		rest := watch(t, ours)
		require.Positive(t, rest(time.Second).proofs)
		store.Inject(objectstest.Rule{Client: "ours", Op: objectstest.Read, Key: "r/000000000001", Times: 1, Do: func(objectstest.Request) {
			for i := range uint64(5) {
				assert.NoError(t, theirs.Append(context.Background(), i+2, fmt.Append(nil, i+2)))
			}
			assert.NoError(t, theirs.Compact(context.Background(), 5, nil))
		}})
		now := rest(2 * time.Second)
		assert.ErrorIs(t, now.ended, ErrCompacted)
		assert.Equal(t, []string{"1"}, now.texts)
	})
}
