package appendlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// trial is several writers, one that compacts and one that follows, on a store that
// fails.
type trial struct {
	faults *objectstest.Faults
	keep   uint64

	mu       sync.Mutex
	acked    map[uint64]string
	conflict map[string]bool // what was said not to be appended
	wrong    error           // the first thing that must not be
}

func (tr *trial) log(client string) *Log {
	return New(tr.faults.Bucket(client), Options{Prefix: "log", Keep: tr.keep})
}

func (tr *trial) fail(format string, arguments ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.wrong == nil {
		tr.wrong = fmt.Errorf(format, arguments...)
	}
}

// longest is what no call may take: the longest makes 6 requests, each is tried four
// times, for ten seconds and a little.
const longest = 6 * 45 * time.Second

func (tr *trial) bounded(what string, call func()) {
	start := time.Now()
	call()
	if took := time.Since(start); took > longest {
		tr.fail("%s took %s", what, took)
	}
}

// catchUp is how long a follower may take once the store works: a wait as long as they
// get, and all the polls after which it makes sure that it has missed nothing.
const catchUp = (slowest + unsure + 2) * time.Second * 11 / 10

// write appends some entries, each with a few attempts.
func (tr *trial) write(client string, entries int) {
	l := tr.log(client)
	for i := range entries {
		for attempt := range 3 {
			data := fmt.Sprintf("%s %d.%d", client, i, attempt)
			var head uint64
			var err error
			tr.bounded("head", func() { head, err = l.Head(context.Background()) })
			if err != nil {
				continue
			}
			tr.bounded("append", func() { err = l.Append(context.Background(), head+1, []byte(data)) })
			tr.mu.Lock()
			switch {
			case err == nil:
				if other, ok := tr.acked[head+1]; ok {
					tr.wrong = fmt.Errorf("entry %d is both %q and %q", head+1, other, data)
				}
				tr.acked[head+1] = data
			case errors.Is(err, ErrConflict):
				tr.conflict[data] = true
			}
			tr.mu.Unlock()
			if err == nil {
				break
			}
		}
	}
}

// history returns all entries, and where those begin that no checkpoint sums up.
func history(ctx context.Context, l *Log) (list []string, from uint64, err error) {
	for {
		c, err := l.Checkpoint(ctx)
		if err != nil {
			return nil, 0, err
		}
		list = nil
		if c.Sequence > 0 {
			if err := json.Unmarshal(c.Data, &list); err != nil {
				return nil, 0, err
			}
		}
		for e, readErr := range l.Read(ctx, c.Sequence+1) {
			if err = readErr; err != nil {
				break
			}
			list = append(list, string(e.Data))
		}
		if !errors.Is(err, ErrCompacted) {
			return list, c.Sequence + 1, err
		}
	}
}

func (tr *trial) compact(times int) {
	l := tr.log("compactor")
	for range times {
		list, _, err := history(context.Background(), l)
		if err != nil || len(list) == 0 {
			time.Sleep(time.Second)
			continue
		}
		state, _ := json.Marshal(list)
		_ = l.Compact(context.Background(), uint64(len(list)), state) // the next is in time too
		time.Sleep(5 * time.Second)
	}
}

// follow watches from the beginning until ctx ends, and returns what it has seen.
func (tr *trial) follow(ctx context.Context) (seen []string) {
	l := tr.log("follower")
	w := Watcher{
		Apply: func(e Entry) error {
			if e.Sequence != uint64(len(seen))+1 {
				tr.fail("entry %d follows %d", e.Sequence, len(seen))
			}
			seen = append(seen, string(e.Data))
			return nil
		},
		Proved: func(asked time.Time) {
			if age := time.Since(asked); age > longest {
				tr.fail("a proof took %s", age)
			}
		},
		Failed: func(err error) {
			if IsBroken(err) {
				tr.fail("the log is another one: %w", err)
			}
		},
	}
	for ctx.Err() == nil {
		at := Position{}
		if n := len(seen); n > 0 {
			at = Position{Sequence: uint64(n), Hash: HashOf([]byte(seen[n-1]))}
		}
		err := l.Watch(ctx, at, w)
		if errors.Is(err, ErrCompacted) {
			if list, _, err := history(ctx, l); err == nil {
				seen = list
			}
		}
	}
	return seen
}

// Whatever a store does to requests, no entry that was acknowledged is lost or another,
// none that was refused is in the log, all see one log, and nothing takes for ever.
func TestNothingIsLostWhateverFails(t *testing.T) {
	faults := []objectstest.Fault{
		objectstest.Fail, objectstest.Lose, objectstest.Hang, objectstest.LoseHanging,
		objectstest.Slow, objectstest.Cut, objectstest.Short, objectstest.Stall,
	}
	rapid.Check(t, func(rt *rapid.T) {
		seed, share := rapid.Uint64().Draw(rt, "seed"), rapid.Float64Range(0, 0.6).Draw(rt, "share")
		which := rapid.SliceOfNDistinct(rapid.SampledFrom(faults), 1, len(faults), rapid.ID).Draw(rt, "faults")
		writers, entries := rapid.IntRange(1, 4).Draw(rt, "writers"), rapid.IntRange(1, 6).Draw(rt, "entries")
		tr := &trial{faults: objectstest.NewFaults(), keep: 2, acked: map[uint64]string{}, conflict: map[string]bool{}}
		if rapid.Bool().Draw(rt, "late") {
			// What takes effect after it was given up must not do so after its entry was
			// compacted: that is what Keep is for.
			which, tr.keep = append(which, objectstest.Late), 1000
		}
		synctest.Test(t, func(*testing.T) {
			tr.faults.SetPageSize(2)
			tr.faults.Random(seed, share, which...)
			following, stop := context.WithCancel(context.Background())
			var working, follower sync.WaitGroup
			var seen []string
			follower.Go(func() { seen = tr.follow(following) })
			working.Go(func() { tr.compact(entries) })
			for w := range writers {
				working.Go(func() { tr.write(fmt.Sprint("writer ", w), entries) })
			}
			working.Wait()
			tr.faults.Heal()
			time.Sleep(catchUp)
			stop()
			follower.Wait()
			tr.check(seen)
		})
		if tr.wrong != nil {
			rt.Fatal(tr.wrong)
		}
	})
}

// check looks at what is left.
func (tr *trial) check(seen []string) {
	l := tr.log("reader")
	list, from, err := history(context.Background(), l)
	if err != nil {
		tr.fail("read: %w", err)
		return
	}
	if !assert.ObjectsAreEqual(list, seen) {
		tr.fail("the log is %q, and its follower has seen %q", list, seen)
	}
	for sequence, data := range tr.acked {
		if sequence > uint64(len(list)) || list[sequence-1] != data {
			tr.fail("entry %d, %q, was acknowledged, and the log is %q", sequence, data, list)
		}
	}
	there := map[string]bool{}
	for _, data := range list {
		if there[data] || tr.conflict[data] {
			tr.fail("%q is twice in the log, or was refused: %q", data, list)
		}
		there[data] = true
	}
	sequences, err := l.entries(context.Background())
	if err != nil {
		tr.fail("list: %w", err)
	}
	for _, sequence := range sequences {
		data, _ := tr.faults.Data(l.entryKey(sequence))
		if sequence > uint64(len(list)) || list[sequence-1] != string(data) {
			tr.fail("entry %d is %q, and the log from %d on is %q", sequence, data, from, list)
		}
	}
}

// The answer to the request that created an entry is lost, and the client makes it again.
func TestAppendWhoseAnswerIsLost(t *testing.T) {
	for _, fault := range []objectstest.Fault{objectstest.Lose, objectstest.LoseHanging, objectstest.Late} {
		synctest.Test(t, func(t *testing.T) {
			f := objectstest.NewFaults()
			l := New(f.Bucket(""), Options{Prefix: "r"})
			f.Inject(objectstest.Rule{Op: objectstest.Create, Times: 1, Fault: fault})
			require.NoError(t, l.Append(t.Context(), 1, []byte("mine")))
			assert.ErrorIs(t, l.Append(t.Context(), 1, []byte("yours")), ErrConflict)
			assert.Equal(t, []string{"1 mine"}, read(t, l, 1))
		})
	}
}

// All answers to the requests that create an entry are lost: reading tells that it is
// there. Where that fails too, it is not known.
func TestAppendWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		l := New(f.Bucket(""), Options{Prefix: "r"})
		f.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.LoseHanging})
		require.NoError(t, l.Append(t.Context(), 1, []byte("mine")))
		assert.ErrorIs(t, l.Append(t.Context(), 1, []byte("yours")), ErrConflict)
		f.Inject(objectstest.Rule{Op: objectstest.Read, Key: "r/000000000002", Fault: objectstest.Hang})
		assert.ErrorContains(t, l.Append(t.Context(), 2, []byte("mine")), "append entry 2 of log r")
	})
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		l := New(f.Bucket(""), Options{Prefix: "r"})
		f.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.Hang})
		assert.Error(t, l.Append(t.Context(), 1, []byte("mine")))
		assert.Empty(t, read(t, l, 1))
	})
}

// A list that fails is not a log without entries.
func TestHeadThatCannotBeFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		l := New(f.Bucket(""), Options{Prefix: "r"})
		require.NoError(t, l.Append(t.Context(), 1, []byte("one")))
		for _, fault := range []objectstest.Fault{objectstest.Fail, objectstest.Hang} {
			f.Heal()
			f.Inject(objectstest.Rule{Op: objectstest.List, Fault: fault})
			_, err := l.Head(t.Context())
			assert.ErrorContains(t, err, "find the head of log r: list faults://r/: given up at try 4")
			_, err = l.Get(t.Context(), 2)
			assert.Error(t, err)
			assert.NotErrorIs(t, err, objects.ErrNotFound, "it may be compacted")
		}
	})
}

// Who watches is told of a store that does not answer, and goes on when it does.
func TestWatchOfAStoreThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		l := New(f.Bucket(""), Options{Prefix: "r"})
		ctx, stop := context.WithCancel(t.Context())
		seen, failed, ended := make(chan Entry, 10), make(chan error, 1000), make(chan error, 1)
		go func() {
			ended <- l.Watch(ctx, Position{}, Watcher{
				Apply:  func(e Entry) error { seen <- e; return nil },
				Proved: func(time.Time) {}, Failed: func(err error) { failed <- err },
			})
		}()
		synctest.Wait()
		f.Inject(objectstest.Rule{Fault: objectstest.Hang})
		f.Put("r/000000000001.json", []byte("one"), time.Now())
		time.Sleep(time.Minute)
		assert.ErrorContains(t, <-failed, "no answer within 15s: ")
		time.Sleep(time.Hour)
		assert.Greater(t, len(failed), 50, "about once a minute")
		f.Heal()
		time.Sleep(30 * time.Second)
		require.Len(t, seen, 1)
		assert.True(t, bytes.Equal([]byte("one"), (<-seen).Data))
		stop()
		assert.ErrorIs(t, <-ended, context.Canceled)
	})
}
