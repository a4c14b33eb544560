package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// start opens a replica that runs until the returned function is called, or the test ends.
func start(t *testing.T, bucket *objects.Bucket, o Options) (r *Replica, stop func()) {
	t.Helper()
	r, err := Open(t.Context(), bucket, o)
	require.NoError(t, err)
	return r, run(t, r)
}

func run(t *testing.T, r *Replica) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			assert.ErrorIs(t, <-ended, context.Canceled)
		})
	}
	t.Cleanup(stop)
	return stop
}

func appendTo(t *testing.T, r *Replica, events ...Event) Receipt {
	t.Helper()
	receipt, err := r.Append(t.Context(), events)
	require.NoError(t, err)
	return receipt
}

func position(n uint64) shard.Position { return shard.Position{Sequence: n} }

func folder(t *testing.T, dir string) *objects.Bucket {
	t.Helper()
	bucket, err := objects.Open(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	return bucket
}

func TestAppendAndFollow(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		var told [][]Change
		o := Options{Author: "me", Poll: 10 * time.Millisecond}
		ours, _ := start(t, bucket, o)
		o.Apply = func(s *State, changes []Change) { told = append(told, changes) }
		theirs, stop := start(t, bucket, o)
		assert.Equal(t, Receipt{position(1), 0}, appendTo(t, ours, takedown("a"), upsert(shard.Users, "u", "1", 1, 2)))
		assert.True(t, ours.View().Down.Has("a"), "the view has what was appended")
		assert.Equal(t, Receipt{position(2), 0}, appendTo(t, ours, restore("a"), takedown("b")))
		require.NoError(t, theirs.Wait(t.Context(), position(2)))
		assert.False(t, theirs.View().Down.Has("a"))
		assert.Equal(t, Receipt{position(3), 0}, appendTo(t, theirs, forget("u")))
		require.NoError(t, ours.Wait(t.Context(), position(3)))
		assert.Equal(t, ours.View().Digest, theirs.View().Digest)
		assert.Equal(t, ours.View().Position, theirs.View().Position)
		for _, r := range []*Replica{ours, theirs} {
			down, ok := r.View().Down.Get("b")
			require.True(t, ok)
			assert.Equal(t, "me", down.Author)
			assert.EqualValues(t, 2, down.Sequence)
			assert.WithinDuration(t, time.Now(), down.Time, time.Minute)
			assert.True(t, r.View().Forgotten.Has("u"))
			r.Read(func(s *State) { assert.Nil(t, s.Record(shard.Users, "u")) })
		}
		stop()
		hash := ours.View().Forgotten
		for h := range hash.All() {
			assert.Equal(t, [][]Change{
				{{Tower: shard.Apps, Entity: "a"}, {Tower: shard.Users, Entity: "u"}},
				{{Tower: shard.Apps, Entity: "a"}, {Tower: shard.Apps, Entity: "b"}},
				{{Tower: shard.Users, Entity: "u", User: h}},
			}, told)
		}
		_, err := theirs.Append(t.Context(), []Event{takedown("c")})
		assert.ErrorIs(t, err, ErrEnded)
		assert.Error(t, theirs.Run(t.Context()))

		// One who comes later has it all, from entries and from a checkpoint.
		for range 2 {
			s, err := Read(t.Context(), bucket)
			require.NoError(t, err)
			assert.Equal(t, ours.View().Digest, s.Digest())
			at, err := ours.Checkpoint(t.Context())
			require.NoError(t, err)
			assert.Equal(t, position(3), at)
		}
	})
}

// An event that is appended again counts once, and one of its id that is another is refused,
// with all that it was appended with.
func TestAppendAgain(t *testing.T) {
	r, _ := start(t, folder(t, t.TempDir()), Options{})
	one, two := takedown("a"), takedown("b")
	first := appendTo(t, r, one)
	appendTo(t, r, restore("a"))
	assert.Equal(t, Receipt{first.Position, 1}, appendTo(t, r, one))
	assert.False(t, r.View().Down.Has("a"))
	assert.Equal(t, Receipt{position(3), 2}, appendTo(t, r, one, two, two))
	assert.Equal(t, Receipt{position(3), 2}, appendTo(t, r, one, two))
	other := takedown("c")
	other.ID = two.ID
	_, err := r.Append(t.Context(), []Event{takedown("d"), other})
	require.ErrorIs(t, err, ErrEventConflict)
	var conflict *EventConflictError
	require.ErrorAs(t, err, &conflict)
	assert.Equal(t, EventConflictError{Index: 1, ID: two.ID, Position: position(3)}, *conflict)
	assert.False(t, r.View().Down.Has("d"))
	same := takedown("e")
	differs := same
	differs.Reason = "spam"
	_, err = r.Append(t.Context(), []Event{takedown("f"), same, differs})
	require.ErrorAs(t, err, &conflict)
	assert.Equal(t, EventConflictError{Index: 2, ID: same.ID, Within: true, Other: 1}, *conflict)
	assert.ErrorContains(t, err, fmt.Sprintf("event_id %q: the event id is that of another event, events[1]", same.ID))
	assert.EqualValues(t, 3, r.View().Position.Sequence)
	author := one
	author.Author = "another address"
	assert.Equal(t, 1, appendTo(t, r, author).Repeated, "who sends it again may be another")
}

func TestAppendRefuses(t *testing.T) {
	misfit := errors.New("it does not fit")
	var asked atomic.Int64
	r, _ := start(t, folder(t, t.TempDir()), Options{
		Room: Room{Rows: 2, Bytes: 100_000},
		Check: func(e *Event) error {
			asked.Add(1)
			if e.Entity == "misfit" {
				return wrong("vector", "%w", misfit)
			}
			return nil
		},
	})
	refused := func(class error, text string, events ...Event) {
		t.Helper()
		_, err := r.Append(t.Context(), events)
		require.ErrorIs(t, err, class)
		assert.ErrorContains(t, err, "append to the live log: "+text)
	}
	refused(ErrEvent, "events: there are 0; accepted: 1 to 1000")
	refused(ErrEvent, "events: there are 1001; accepted: 1 to 1000", slices.Repeat([]Event{takedown("a")}, 1001)...)
	refused(ErrEvent, "app: id is empty", takedown("a"), takedown(""))
	refused(misfit, "vector: it does not fit", takedown("a"), upsert(shard.Apps, "misfit", "1", 1))
	var e *EventError
	_, err := r.Append(t.Context(), []Event{takedown("a"), upsert(shard.Apps, "misfit", "1", 1)})
	require.ErrorAs(t, err, &e)
	assert.Equal(t, 1, e.Index)
	assert.Zero(t, r.View().Position.Sequence)

	up := upsert(shard.Apps, "a", "1", 1)
	appendTo(t, r, up, upsert(shard.Apps, "b", "1", 1), upsert(shard.Users, "a", "1", 1))
	refused(ErrFull, "there is no room, and a rebuild is due: with it there would be 3 apps of model \"feed\", version \"1\"; accepted: up to 2", upsert(shard.Apps, "c", "1", 1))
	appendTo(t, r, upsert(shard.Apps, "a", "1", 2), upsert(shard.Apps, "c", "2", 1), upsert(shard.Users, "b", "1", 1))
	before := asked.Load()
	assert.Equal(t, 1, appendTo(t, r, up).Repeated, "what was written is there, room or not")
	assert.Equal(t, before, asked.Load(), "nor is it asked whether it fits")
	long := setTo(shard.Apps, "d", "x", attribute.OfKeyword(fmt.Sprint(make([]byte, 50_000))))
	refused(ErrFull, "there is no room, and a rebuild is due: with it there would be 1", long)
	appendTo(t, r, takedown("x"), remove(shard.Apps, "y"), forget("b"), restore("z"))
	var full *FullError
	_, err = r.Append(t.Context(), []Event{takedown("x"), upsert(shard.Apps, "e", "1", 1)})
	require.ErrorAs(t, err, &full)
	assert.Equal(t, FullError{Index: 1, What: "apps", Model: "feed", ModelVersion: "1", Have: 3, Room: 2}, *full)
}

// Room that another writer has freed is there, though the replica has not read of it yet; and
// what is refused for want of room is so where the log ends.
func TestRoomThatIsFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		o := Options{Room: Room{Rows: 2}, Poll: time.Hour}
		r, stop := start(t, store.Bucket(""), o)
		defer stop()
		appendTo(t, r, upsert(shard.Apps, "a", "1", 1), upsert(shard.Apps, "b", "1", 1))
		other, stopOther := start(t, store.Bucket(""), o)
		defer stopOther()
		synctest.Wait()
		appendTo(t, other, remove(shard.Apps, "a"))
		require.EqualValues(t, 1, r.View().Position.Sequence)
		assert.EqualValues(t, 3, appendTo(t, r, upsert(shard.Apps, "c", "1", 1)).Position.Sequence)

		appendTo(t, other, takedown("x"))
		appendTo(t, other, takedown("y"))
		_, err := r.Append(t.Context(), []Event{upsert(shard.Apps, "d", "1", 1)})
		require.ErrorIs(t, err, ErrFull)
		assert.EqualValues(t, 5, r.View().Position.Sequence)

		// What has room does not wait for what has none.
		appendTo(t, other, remove(shard.Apps, "c"))
		var both sync.WaitGroup
		for _, events := range [][]Event{{upsert(shard.Apps, "e", "1", 1), upsert(shard.Apps, "f", "1", 1)}, {upsert(shard.Apps, "g", "1", 1)}} {
			both.Go(func() {
				_, err := r.Append(t.Context(), events)
				assert.Equal(t, len(events) == 2, errors.Is(err, ErrFull), "%v", err)
			})
		}
		both.Wait()

		store.Inject(objectstest.Rule{Key: "live/", Fault: objectstest.Fail})
		time.Sleep(time.Second) // the last proof is older than what is asked
		_, err = r.Append(t.Context(), []Event{upsert(shard.Apps, "h", "1", 1)})
		require.ErrorIs(t, err, ErrUnconfirmed, "where it ends is not known")
	})
}

// An append that there is no room for takes none from those that share an entry with what came
// before it.
func TestRefusedAppendTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket(""), Options{Room: Room{Rows: 2}})
		defer stop()
		store.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.Slow, Delay: time.Second})
		var appending sync.WaitGroup
		errs := make([]error, 3)
		for i, apps := range [][]string{{"a"}, {"b", "c"}, {"d"}} { // two wait while the first is written
			var events []Event
			for _, app := range apps {
				events = append(events, upsert(shard.Apps, app, "1", 1))
			}
			appending.Go(func() { _, errs[i] = r.Append(t.Context(), events) })
			synctest.Wait()
		}
		appending.Wait()
		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], ErrFull)
		require.NoError(t, errs[2])
	})
}

// Appends that come while one is under way share an entry, those that must not wait first.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket(""), Options{})
		defer stop()
		appendTo(t, r, forget("somebody")) // who forgets first makes the key
		store.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.Slow, Delay: time.Second})
		var appending sync.WaitGroup
		results := make([]Receipt, 8)
		do := func(i int, events ...Event) {
			appending.Go(func() { results[i] = appendTo(t, r, events...) })
			synctest.Wait()
		}
		fill := func(tower shard.Kind, name string) (list []Event) {
			for i := range 600 {
				list = append(list, upsert(tower, fmt.Sprint(name, i), "1", 1))
			}
			return list
		}
		do(0, upsert(shard.Apps, "first", "1", 1))
		do(1, fill(shard.Apps, "x")...)
		do(2, fill(shard.Apps, "y")...)
		do(3, fill(shard.Users, "z")...)
		do(4, takedown("a"))
		do(5, restore("b"))
		do(6, forget("z3"))
		do(7, takedown("c"), upsert(shard.Apps, "c", "1", 1))
		appending.Wait()
		var at []uint64
		for _, result := range results {
			at = append(at, result.Position.Sequence)
		}
		assert.Equal(t, []uint64{2, 4, 5, 3, 3, 3, 3, 3}, at, "what is about a user stays before what forgets the user")
		r.Read(func(s *State) {
			assert.Nil(t, s.Record(shard.Users, "z3"))
			assert.NotNil(t, s.Record(shard.Users, "z4"))
			assert.True(t, s.Forgotten().Has("z3"))
		})
	})
}

// Several processes append at once. What each was told is so, in one log that all see, and
// every state is the same.
func TestManyWriters(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		const processes, clients, appends = 3, 4, 8
		var replicas []*Replica
		for i := range processes {
			r, _ := start(t, bucket, Options{Author: fmt.Sprint("process ", i), Poll: 20 * time.Millisecond})
			replicas = append(replicas, r)
		}
		var appending sync.WaitGroup
		var mu sync.Mutex
		wrote := map[string]shard.Position{}
		for i, r := range replicas {
			for c := range clients {
				appending.Go(func() {
					for n := range appends {
						e := Event{ID: fmt.Sprint(i, c, n), Kind: Takedown, Tower: shard.Apps, Entity: fmt.Sprint(i, "/", c, "/", n), Reason: "r"}
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						receipt, err := r.Append(ctx, []Event{e})
						cancel()
						if assert.NoError(t, err) {
							mu.Lock()
							wrote[e.Entity] = receipt.Position
							mu.Unlock()
						}
						other := replicas[rand.IntN(len(replicas))]
						if again, err := other.Append(t.Context(), []Event{e}); assert.NoError(t, err) {
							assert.Equal(t, Receipt{receipt.Position, 1}, again)
						}
					}
				})
			}
		}
		appending.Wait()
		head := uint64(0)
		for _, p := range wrote {
			head = max(head, p.Sequence)
		}
		for _, r := range replicas {
			require.NoError(t, r.Wait(t.Context(), position(head)))
			assert.Equal(t, replicas[0].View().Digest, r.View().Digest)
			assert.Equal(t, processes*clients*appends, r.View().Down.Len())
		}
		for id, p := range wrote {
			down, ok := replicas[0].View().Down.Get(id)
			require.True(t, ok)
			assert.Equal(t, p.Sequence, down.Sequence)
		}
		s, err := Read(t.Context(), bucket)
		require.NoError(t, err)
		assert.Equal(t, replicas[0].View().Digest, s.Digest())
	})
}

// A proof is of a position: the view that another follows gets older, and the one that
// follows knows what that knew.
func TestProofs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		ours, stop := start(t, store.Bucket("ours"), Options{Poll: time.Second})
		defer stop()
		theirs, stopTheirs := start(t, store.Bucket("theirs"), Options{Poll: time.Second})
		defer stopTheirs()
		time.Sleep(10 * time.Second)
		first := ours.View()
		assert.Less(t, first.Proof.Age(), 1200*time.Millisecond)
		appendTo(t, theirs, takedown("a"))
		time.Sleep(10 * time.Second)
		assert.Greater(t, first.Proof.Age(), 8*time.Second)
		assert.True(t, ours.View().Down.Has("a"))
		assert.False(t, first.Down.Has("a"))
		assert.Less(t, ours.View().Proof.Age(), 1200*time.Millisecond)
		store.Inject(objectstest.Rule{Client: "ours", Fault: objectstest.Hang})
		appendTo(t, theirs, takedown("b"))
		time.Sleep(10 * time.Second)
		assert.Greater(t, ours.View().Proof.Age(), 9*time.Second)
		store.Heal()
		time.Sleep(30 * time.Second)
		assert.True(t, ours.View().Down.Has("b"))
		assert.Less(t, ours.View().Proof.Age(), 1200*time.Millisecond)
		fresh, err := Open(t.Context(), store.Bucket("fresh"), Options{})
		require.NoError(t, err)
		assert.Greater(t, fresh.View().Proof.Age(), 1000*time.Hour, "nothing was proved yet")
	})
	assert.Greater(t, NewProof(time.Time{}).Age(), time.Hour)
	assert.Less(t, NewProof(time.Now()).Age(), time.Hour)
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket("ours"), Options{Poll: time.Hour})
		defer stop()
		theirs, stopTheirs := start(t, store.Bucket("theirs"), Options{})
		defer stopTheirs()
		synctest.Wait()
		p := appendTo(t, theirs, takedown("a")).Position
		begun := time.Now()
		require.NoError(t, r.Wait(t.Context(), p))
		assert.Zero(t, time.Since(begun), "it looks at once")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := r.Wait(ctx, position(2))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "wait for entry 2, and the log is at entry 1")
		assert.ErrorIs(t, r.Wait(t.Context(), shard.Position{Log: "2026", Sequence: 1}), ErrOtherLog)
		require.NoError(t, r.Wait(t.Context(), shard.Position{Log: "2026"}), "before all events")

		p, err = theirs.Accept(t.Context(), "a test", 1)
		require.NoError(t, err)
		assert.ErrorIs(t, r.Wait(t.Context(), p), ErrOtherLog, "not known yet")
		r.Hint()
		synctest.Wait()
		require.NoError(t, r.Wait(t.Context(), p))
		require.NoError(t, r.Wait(t.Context(), position(1)), "it is in this log")
		assert.ErrorIs(t, r.Wait(t.Context(), position(2)), ErrOtherLog, "the log has gone on without it")
	})
}

// A store that is away for a minute: appends fail in time, nothing is lost or doubled when
// it is sent again, and nobody has to help.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		var failed atomic.Int64
		r, stop := start(t, store.Bucket(""), Options{Failed: func(error) { failed.Add(1) }})
		defer stop()
		appendTo(t, r, takedown("a"))
		store.Inject(objectstest.Rule{Fault: objectstest.LoseHanging})
		time.AfterFunc(time.Minute, store.Heal)
		pending := []Event{takedown("b"), takedown("c"), upsert(shard.Apps, "d", "1", 1)}
		begun := time.Now()
		for len(pending) > 0 {
			asked := time.Now()
			_, err := r.Append(t.Context(), pending[:1])
			assert.LessOrEqual(t, time.Since(asked), 16*time.Second)
			if err == nil {
				pending = pending[1:]
				continue
			}
			require.ErrorIs(t, err, ErrUnconfirmed)
			require.Less(t, time.Since(begun), 2*time.Minute)
			time.Sleep(time.Second)
		}
		assert.Less(t, time.Since(begun), 90*time.Second)
		assert.Positive(t, failed.Load())
		time.Sleep(20 * time.Second)
		assert.Less(t, r.View().Proof.Age(), 5*time.Second)
		s, err := Read(t.Context(), store.Bucket("reader"))
		require.NoError(t, err)
		assert.Equal(t, r.View().Digest, s.Digest())
		assert.Equal(t, 3, s.TakenDown().Len())
		counts := map[string]int{}
		for _, key := range store.Keys("live/0") {
			data, _ := store.Data(key)
			c, err := Decode(data)
			require.NoError(t, err)
			for _, e := range c.Events {
				counts[e.Entity]++
			}
		}
		for id, n := range counts {
			assert.Equal(t, 1, n, id)
		}
	})
}

// Whose context ends is told whether the events may be written.
func TestAppendThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket(""), Options{})
		defer stop()
		store.Inject(objectstest.Rule{Op: objectstest.Create, Fault: objectstest.Slow, Delay: 5 * time.Second, Times: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var first, second error
		var appending sync.WaitGroup
		appending.Go(func() { _, first = r.Append(ctx, []Event{takedown("a")}) })
		synctest.Wait()
		appending.Go(func() { _, second = r.Append(ctx, []Event{takedown("b")}) })
		appending.Wait()
		assert.ErrorIs(t, first, ErrUnconfirmed)
		assert.ErrorIs(t, first, context.DeadlineExceeded)
		assert.NotErrorIs(t, second, ErrUnconfirmed)
		assert.ErrorContains(t, second, "nothing was written: ")
		time.Sleep(10 * time.Second)
		assert.True(t, r.View().Down.Has("a"))
		assert.False(t, r.View().Down.Has("b"))
	})
}

// Four processes append at once to a store that takes a tenth of a second for each request.
// Each takedown is acknowledged within two seconds.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const processes, clients, seconds = 4, 3, 60
		store := objectstest.NewFaults()
		var replicas []*Replica
		for i := range processes {
			r, stop := start(t, store.Bucket(fmt.Sprint(i)), Options{Author: fmt.Sprint(i)})
			t.Cleanup(stop)
			replicas = append(replicas, r)
		}
		store.Inject(objectstest.Rule{Fault: objectstest.Slow, Delay: 100 * time.Millisecond})
		var appending sync.WaitGroup
		var mu sync.Mutex
		var took []time.Duration
		begun := time.Now()
		for _, r := range replicas {
			for c := range clients {
				appending.Go(func() {
					for n := 0; time.Since(begun) < seconds*time.Second; n++ {
						asked := time.Now()
						_, err := r.Append(t.Context(), []Event{takedown(fmt.Sprint(c, n))})
						assert.NoError(t, err)
						mu.Lock()
						took = append(took, time.Since(asked))
						mu.Unlock()
					}
				})
			}
		}
		appending.Wait()
		slices.Sort(took)
		t.Logf("%d takedowns: median %s, p99 %s, longest %s", len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
		assert.Less(t, took[len(took)*99/100], 2*time.Second)
	})
}

// A process that was cut off past a compaction reads on from the checkpoint, is told exactly
// what has changed, and takes no other log for its own.
func TestCutOffPastCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		theirs, stopTheirs := start(t, store.Bucket("theirs"), Options{})
		defer stopTheirs()
		changed := map[Change]bool{}
		ours, stop := start(t, store.Bucket("ours"), Options{Apply: func(_ *State, list []Change) {
			for _, c := range list {
				changed[c] = true
			}
		}})
		defer stop()
		appendTo(t, theirs, takedown("a"), takedown("b"), upsert(shard.Apps, "x", "1", 1), upsert(shard.Users, "u", "1", 1))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		clear(changed)
		store.Inject(objectstest.Rule{Client: "ours", Fault: objectstest.Fail})
		appendTo(t, theirs, restore("a"), takedown("c"), forget("u"))
		appendTo(t, theirs, setTo(shard.Apps, "x", "y", attribute.OfInt(1)))
		at, err := theirs.Checkpoint(t.Context())
		require.NoError(t, err)
		assert.Equal(t, position(3), at)
		store.Advance(time.Hour)
		would, err := theirs.Trimmable(t.Context(), 30*time.Minute)
		require.NoError(t, err)
		trimmed, err := theirs.Trim(t.Context(), 30*time.Minute)
		require.NoError(t, err)
		assert.Equal(t, appendlog.Trimmed{Through: 3, Entries: 2}, trimmed)
		assert.Equal(t, would, trimmed)
		appendTo(t, theirs, takedown("d"))
		store.Heal()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, theirs.View().Digest, ours.View().Digest)
		assert.Equal(t, map[Change]bool{
			{Tower: shard.Apps, Entity: "a"}: true, {Tower: shard.Apps, Entity: "c"}: true, {Tower: shard.Apps, Entity: "d"}: true,
			{Tower: shard.Apps, Entity: "x"}: true, {Tower: shard.Users, Entity: "u"}: true,
			{Tower: shard.Users, Entity: "u", User: HashUser(keyOf(t, store), "u")}: true,
		}, with(changed, Change{Tower: shard.Users, Entity: "u"}))
		assert.Less(t, ours.View().Proof.Age(), 5*time.Second)
	})
}

func with(m map[Change]bool, c Change) map[Change]bool {
	m[c] = true
	return m
}

func keyOf(t *testing.T, store *objectstest.Faults) []byte {
	key, ok := store.Data(keyName)
	require.True(t, ok)
	return key[:KeySize]
}

// A checkpoint is written when the log behind the last is long, by who appends.
func TestCheckpointsAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		var summed []Summed
		r, stop := start(t, store.Bucket(""), Options{Summed: func(s Summed) { summed = append(summed, s) }})
		defer stop()
		other, stopOther := start(t, store.Bucket("other"), Options{Summed: func(s Summed) { t.Errorf("%v", s) }})
		defer stopOther()
		for i := range tailEntries + 100 {
			appendTo(t, r, takedown(fmt.Sprint(i%10)))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Len(t, summed, 1)
		assert.NoError(t, summed[0].Err)
		assert.GreaterOrEqual(t, summed[0].Sequence, uint64(tailEntries))
		assert.Len(t, store.Keys("live/checkpoints/"), 1)
		// Another, which has all of it behind it, finds that there is one.
		require.NoError(t, other.Wait(t.Context(), position(tailEntries+100)))
		appendTo(t, other, takedown("x"))
		time.Sleep(10 * time.Second)
		assert.Len(t, store.Keys("live/checkpoints/"), 1)
		s, err := Read(t.Context(), store.Bucket("reader"))
		require.NoError(t, err)
		assert.Equal(t, other.View().Digest, s.Digest())
	})
}

// copyOf returns what is in a store, and a function that puts it back.
func copyOf(store *objectstest.Faults) (restore func()) {
	saved := map[string][]byte{}
	for _, key := range store.Keys("") {
		saved[key], _ = store.Data(key)
	}
	return func() {
		for _, key := range store.Keys("") {
			store.Remove(key)
		}
		for key, data := range saved {
			store.Put(key, data, time.Now())
		}
	}
}

// A process that has seen a position follows no older copy of the log, nor one that went on
// from an older copy, until a person accepts it.
func TestTimeTravel(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(t *testing.T, store *objectstest.Faults, yesterday func(), write func(...Event))
		class    error
		text     string
		accepted bool // it was
	}{
		"nothing happened": {change: func(*testing.T, *objectstest.Faults, func(), func(...Event)) {}},
		"it went on":       {change: func(_ *testing.T, _ *objectstest.Faults, _ func(), write func(...Event)) { write(takedown("x")) }},
		"restored to yesterday": {
			change: func(_ *testing.T, _ *objectstest.Faults, yesterday func(), _ func(...Event)) { yesterday() },
			class:  appendlog.ErrBehind, text: "the store's log ends with entry 2",
		},
		"restored, and written again": {
			change: func(_ *testing.T, _ *objectstest.Faults, yesterday func(), write func(...Event)) {
				yesterday()
				for i := range 5 {
					write(takedown(fmt.Sprint("x", i)))
				}
			},
			class: appendlog.ErrForked, text: "the store has another entry 4",
		},
		"restored, written again, and compacted": {
			change: func(t *testing.T, store *objectstest.Faults, yesterday func(), write func(...Event)) {
				yesterday()
				for i := range 5 {
					write(takedown(fmt.Sprint("x", i)))
				}
				r, err := Open(t.Context(), store.Bucket("compactor"), Options{})
				require.NoError(t, err)
				_, err = r.Checkpoint(t.Context())
				require.NoError(t, err)
				store.Advance(time.Hour)
				_, err = r.Trim(t.Context(), 30*time.Minute)
				require.NoError(t, err)
				require.Len(t, store.Keys("live/0"), 1)
			},
			class: appendlog.ErrForked, text: "the store has another entry 4",
		},
		"emptied": {
			change: func(_ *testing.T, store *objectstest.Faults, _ func(), _ func(...Event)) {
				for _, key := range store.Keys("") {
					store.Remove(key)
				}
			},
			class: appendlog.ErrBehind, text: "the store's log ends with entry 0",
		},
		"restored, and accepted": {
			change: func(t *testing.T, store *objectstest.Faults, yesterday func(), _ func(...Event)) {
				yesterday()
				accept(t, store)
			},
			accepted: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			memory := filepath.Join(t.TempDir(), "state", "live.json")
			synctest.Test(t, func(t *testing.T) {
				store := objectstest.NewFaults()
				write := func(events ...Event) {
					r, stop := start(t, store.Bucket("writer"), Options{})
					defer stop()
					appendTo(t, r, events...)
				}
				write(takedown("a"))
				write(takedown("b"))
				yesterday := copyOf(store)
				write(takedown("c"))
				o := Options{Memory: appendlog.Memory{memory}}
				first, stop := start(t, store.Bucket("ours"), o)
				assert.Empty(t, first.Vouched(), "nothing was remembered")
				write(takedown("d"))
				require.NoError(t, first.Wait(t.Context(), position(4)))
				last := first.View()
				stop()
				c.change(t, store, yesterday, write)
				r, err := Open(t.Context(), store.Bucket("ours"), o)
				if c.class == nil {
					require.NoError(t, err)
					assert.Equal(t, "its own memory of entry 4", r.Vouched())
					assert.Equal(t, c.accepted, r.View().Position.Log != "")
					return
				}
				require.ErrorIs(t, err, ErrTimeTravel)
				require.ErrorIs(t, err, c.class)
				var travel *TimeTravelError
				require.ErrorAs(t, err, &travel)
				assert.Equal(t, last.Position, travel.Known)
				assert.ErrorContains(t, err, "open the live log: the live log is not what it was: its own memory knows of entry 4, and ")
				assert.ErrorContains(t, err, c.text)
				assert.ErrorContains(t, err, "restore a newer copy, or have a person accept this one")
				_, err = Open(t.Context(), store.Bucket("ours"), o)
				require.ErrorIs(t, err, ErrTimeTravel, "it stays so")

				// Without memory, it is known by what it is told, or not at all.
				told := Options{AtLeast: Position{Sequence: last.Position.Sequence}, AtLeastFrom: "the newest release"}
				if errors.Is(c.class, appendlog.ErrBehind) {
					_, err = Open(t.Context(), store.Bucket("ours"), told)
					require.ErrorIs(t, err, ErrTimeTravel)
					assert.ErrorContains(t, err, "the newest release knows of entry 4")
				}
				stranger, err := Open(t.Context(), store.Bucket("stranger"), Options{})
				require.NoError(t, err)
				assert.Empty(t, stranger.Vouched())

				// A person accepts it for one process, as it is now and no other.
				at := stranger.View().Position.Shard()
				o.Accept = &shard.Position{Log: at.Log, Sequence: at.Sequence + 1}
				_, err = Open(t.Context(), store.Bucket("ours"), o)
				require.ErrorIs(t, err, ErrTimeTravel)
				o.Accept = &at
				r, err = Open(t.Context(), store.Bucket("ours"), o)
				require.NoError(t, err)
				assert.Contains(t, r.Vouched(), "a person, who has accepted entry ")
				if at.Sequence > 0 {
					r, err = Open(t.Context(), store.Bucket("ours"), Options{Memory: appendlog.Memory{memory}})
					require.NoError(t, err, "it is remembered")
					assert.Contains(t, r.Vouched(), "its own memory of entry ")
				}
			})
		})
	}
}

// accept has a person accept what is in a store.
func accept(t *testing.T, store *objectstest.Faults) shard.Position {
	r, err := Open(t.Context(), store.Bucket("person"), Options{Author: "a person"})
	require.NoError(t, err)
	p, err := r.Accept(t.Context(), "restored from a copy", ^uint64(0))
	require.NoError(t, err)
	return p
}

// One who follows while the store is restored keeps what it has, whose proof gets older, and
// goes on with what a person has accepted.
func TestRestoredWhileFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		var mu sync.Mutex
		var failed error
		changed := map[Change]bool{}
		r, stop := start(t, store.Bucket("ours"), Options{
			Memory: appendlog.Memory{filepath.Join(t.TempDir(), "live.json")},
			Failed: func(err error) {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			},
			Apply: func(_ *State, list []Change) {
				for _, c := range list {
					changed[c] = true
				}
			},
		})
		defer stop()
		write := func(events ...Event) {
			w, stop := start(t, store.Bucket("writer"), Options{})
			defer stop()
			appendTo(t, w, events...)
		}
		write(takedown("a"))
		yesterday := copyOf(store)
		write(takedown("b"))
		time.Sleep(5 * time.Second)
		yesterday()
		write(takedown("c"))
		write(takedown("d"))
		time.Sleep(time.Minute)
		view := r.View()
		assert.EqualValues(t, 2, view.Position.Sequence)
		assert.Greater(t, view.Proof.Age(), 50*time.Second)
		mu.Lock()
		assert.ErrorIs(t, failed, appendlog.ErrForked)
		mu.Unlock()
		_, err := r.Append(t.Context(), []Event{takedown("e")})
		assert.ErrorIs(t, err, appendlog.ErrForked)
		assert.ErrorContains(t, err, "nothing was written: ")
		synctest.Wait()
		clear(changed)
		p := accept(t, store)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, r.Wait(t.Context(), p))
		assert.Less(t, r.View().Proof.Age(), 5*time.Second)
		assert.Equal(t, map[Change]bool{{Tower: shard.Apps, Entity: "b"}: true, {Tower: shard.Apps, Entity: "c"}: true, {Tower: shard.Apps, Entity: "d"}: true}, changed)
		assert.Equal(t, Receipt{shard.Position{Log: p.Log, Sequence: 5}, 0}, appendTo(t, r, takedown("e")))
		assert.False(t, r.View().Lineage.Covers(position(99), 5))
	})
}

// A position without the id of a log says nothing once a log was accepted, which comes after all
// of the first: it is refused, and not taken for one that was reached.
func TestReachedNamesItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		bucket := store.Bucket("")
		w, stop := start(t, bucket, Options{})
		appendTo(t, w, takedown("a"))
		stop()
		open := func(p shard.Position) (*Replica, error) {
			return Open(t.Context(), bucket, Options{Reached: p, ReachedFrom: "--live-at-least"})
		}
		_, err := open(position(99))
		require.ErrorIs(t, err, ErrTimeTravel)
		r, err := open(position(1))
		require.NoError(t, err)
		assert.Equal(t, "--live-at-least of entry 1", r.Vouched())

		p := accept(t, store)
		for _, sequence := range []uint64{1, 99} {
			_, err = open(position(sequence))
			var unnamed *UnnamedLogError
			require.ErrorAs(t, err, &unnamed)
			assert.EqualError(t, err, fmt.Sprintf("open the live log: --live-at-least %d names no log, and says nothing of the store's, which has an id and ends at %s: "+
				"accepted are positions with the id, such as %s:%d", sequence, p, p.Log, sequence))
		}
		_, err = open(shard.Position{Log: p.Log, Sequence: 99})
		require.ErrorIs(t, err, ErrTimeTravel)
		r, err = open(p)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("--live-at-least of entry %d of log %s", p.Sequence, p.Log), r.Vouched())
	})
}

// What cannot be remembered is not published, and is once it can.
func TestMemoryThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	memory := filepath.Join(dir, "state", "live.json")
	var failed atomic.Int64
	bucket := folder(t, t.TempDir())
	r, _ := start(t, bucket, Options{Memory: appendlog.Memory{memory}, Poll: 5 * time.Millisecond, Failed: func(error) { failed.Add(1) }})
	require.NoError(t, os.RemoveAll(filepath.Dir(memory)))
	require.NoError(t, os.WriteFile(filepath.Dir(memory), nil, 0o644))
	w, _ := start(t, bucket, Options{})
	appendTo(t, w, takedown("a"))
	require.Eventually(t, func() bool { return failed.Load() > 3 }, time.Minute, time.Millisecond)
	assert.Zero(t, r.View().Position.Sequence)
	require.NoError(t, os.Remove(filepath.Dir(memory)))
	require.NoError(t, os.Mkdir(filepath.Dir(memory), 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, r.Wait(ctx, position(1)))
	again, err := Open(t.Context(), bucket, Options{Memory: appendlog.Memory{memory}})
	require.NoError(t, err)
	assert.Equal(t, "its own memory of entry 1", again.Vouched())
	require.NoError(t, os.WriteFile(memory, []byte("{"), 0o644))
	_, err = Open(t.Context(), bucket, Options{Memory: appendlog.Memory{memory}})
	assert.ErrorContains(t, err, "open the live log: read the memory of the log: "+memory)
}

// A log with an entry that a newer build has written is not read past it.
func TestNewerEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		var failed atomic.Value
		r, stop := start(t, store.Bucket(""), Options{Failed: func(err error) { failed.Store(err) }})
		defer stop()
		appendTo(t, r, takedown("a"))
		data, err := encoder.Marshal(map[int]any{1: 2, 2: r.View().Position.Hash[:], 3: "", 99: "new"})
		require.NoError(t, err)
		store.Put("live/000000000002.log", data, time.Now())
		time.Sleep(time.Minute)
		assert.ErrorIs(t, failed.Load().(error), ErrVersion)
		assert.Greater(t, r.View().Proof.Age(), 50*time.Second)
		_, err = Read(t.Context(), store.Bucket(""))
		assert.ErrorIs(t, err, ErrVersion)
		_, err = r.Append(t.Context(), []Event{takedown("b")})
		assert.ErrorIs(t, err, ErrVersion)
	})
}

func TestKeyIsOne(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		keys := make([]string, 8)
		var making sync.WaitGroup
		for i := range keys {
			making.Go(func() {
				key, err := Key(t.Context(), bucket)
				assert.NoError(t, err)
				keys[i] = string(key)
			})
		}
		making.Wait()
		for _, key := range keys {
			assert.Len(t, key, KeySize)
			assert.Equal(t, keys[0], key)
		}
	})
}
