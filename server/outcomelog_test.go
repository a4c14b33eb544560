package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/outcomes"
)

// fakeCreator is a store whose objects are how many outcomes they have.
type fakeCreator struct {
	create func(ctx context.Context) error
	sizes  list[int]
}

func (f *fakeCreator) Create(ctx context.Context, _ string, data []byte) error {
	if f.create != nil {
		if err := f.create(ctx); err != nil {
			return err
		}
	}
	f.sizes.add(len(data))
	return nil
}

// someOutcomes returns n outcomes, whose ids begin with a name.
func someOutcomes(name string, n int) (list []outcomes.Outcome) {
	for i := range n {
		list = append(list, outcomes.Outcome{ID: fmt.Sprintf("%s-%d", name, i), UserID: "u", AppID: "a", Kind: "open"})
	}
	return list
}

// outcomesInBubble runs a test with a log whose time passes only when all wait. Its objects have a
// byte for each outcome.
func outcomesInBubble(t *testing.T, f *fakeCreator, o outcomeOptions, test func(t *testing.T, l *outcomeLog)) {
	synctest.Test(t, func(t *testing.T) {
		o.encode = func(rows []outcomes.Outcome) ([]byte, error) { return make([]byte, len(rows)), nil }
		l := startOutcomeLog(f, events.Tee(), o)
		defer l.close()
		test(t, l)
		l.close()
		assert.Zero(t, l.held.Load(), "nothing is held any more")
	})
}

// Calls that come within the interval are one object, and wait for it.
func TestOutcomesAreGathered(t *testing.T) {
	f := &fakeCreator{}
	o := defaultOutcomeOptions()
	o.rows = 50
	outcomesInBubble(t, f, o, func(t *testing.T, l *outcomeLog) {
		began := time.Now()
		var calls sync.WaitGroup
		call := func(n int, after, took time.Duration) {
			calls.Go(func() {
				time.Sleep(after)
				called := time.Now()
				forgotten, err := l.keep(t.Context(), someOutcomes("o", n))
				assert.NoError(t, err)
				assert.Zero(t, forgotten)
				assert.Equal(t, took, time.Since(called))
			})
		}
		call(3, 0, o.interval)
		call(4, o.interval/4, 3*o.interval/4)
		call(5, 2*o.interval, o.interval)
		calls.Wait()
		assert.Equal(t, []int{7, 5}, f.sizes.since(0))
		assert.Equal(t, 3*o.interval, time.Since(began))
		call(50, 0, 0) // enough for an object
		calls.Wait()
		call(2, 0, 0) // it ends
		synctest.Wait()
		l.close()
		calls.Wait()
		assert.Equal(t, []int{7, 5, 50, 2}, f.sizes.since(0))
		_, err := l.keep(t.Context(), someOutcomes("late", 1))
		assert.ErrorIs(t, err, endedError{})
	})
}

// A store that hangs holds what may be held, and no more: then calls are refused at once, and those
// that wait are told that nothing is known.
func TestOutcomesAreBounded(t *testing.T) {
	f := &fakeCreator{create: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	o := defaultOutcomeOptions()
	one := someOutcomes("o", 10)
	size := int64(0)
	for i := range one {
		size += int64(one[i].Size())
	}
	o.rows, o.held = 10, 6*size
	outcomesInBubble(t, f, o, func(t *testing.T, l *outcomeLog) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var full, unconfirmed, nothing list[error]
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				_, err := l.keep(ctx, slices.Clone(one))
				switch {
				case errors.As(err, new(*outcomesFullError)):
					full.add(err)
				case errors.As(err, new(*unconfirmedError)):
					unconfirmed.add(err)
				default:
					nothing.add(err)
				}
			})
			synctest.Wait()
		}
		assert.Len(t, full.since(0), 14, "at once")
		assert.LessOrEqual(t, l.held.Load(), o.held)
		calls.Wait()
		// Two objects are written, one is gathered, and three calls have not got so far.
		assert.GreaterOrEqual(t, len(unconfirmed.since(0)), 3)
		assert.Len(t, slices.Concat(unconfirmed.since(0), nothing.since(0)), 6)
		for _, err := range nothing.since(0) {
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
	assert.Empty(t, f.sizes.since(0))
}

// One object that takes long keeps no other one from being written.
func TestOutcomesGoOnBesideASlowObject(t *testing.T) {
	var first atomic.Bool
	f := &fakeCreator{create: func(ctx context.Context) error {
		if first.CompareAndSwap(false, true) {
			time.Sleep(4 * time.Second)
		}
		return nil
	}}
	outcomesInBubble(t, f, defaultOutcomeOptions(), func(t *testing.T, l *outcomeLog) {
		var calls sync.WaitGroup
		calls.Go(func() {
			_, err := l.keep(t.Context(), someOutcomes("slow", 1))
			assert.NoError(t, err)
		})
		after(time.Second)
		began := time.Now()
		_, err := l.keep(t.Context(), someOutcomes("next", 2))
		assert.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(began))
		calls.Wait()
		assert.Equal(t, []int{2, 1}, f.sizes.since(0))
	})
}

// keptIDs returns how often each outcome is in a store.
func keptIDs(t *testing.T, b *objects.Bucket) map[string]int {
	t.Helper()
	got := map[string]int{}
	for o, err := range outcomes.Of(b).Outcomes(t.Context(), time.Time{}, time.Time{}) {
		require.NoError(t, err)
		got[o.ID]++
	}
	return got
}

// What was acknowledged is there, whatever the store has done with requests, and from wherever on
// the process is not there any more; all of a message, or nothing.
func TestNoAcknowledgedOutcomeIsLost(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { loseNoOutcome(t, seed) })
	}
}

func loseNoOutcome(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 22))
	faults := objectstest.NewFaults()
	bucket := faults.Bucket("server", objects.WithTimeout(50*time.Millisecond))
	faults.Random(seed, 0.4, objectstest.Fail, objectstest.Lose, objectstest.LoseHanging, objectstest.Cut)
	// From some request on nothing arrives: the process was killed.
	faults.Inject(objectstest.Rule{Client: "server", Skip: random.IntN(12), Fault: objectstest.Hang})
	o := defaultOutcomeOptions()
	o.interval, o.rows = 20*time.Millisecond, 20
	o.encode = func(rows []outcomes.Outcome) ([]byte, error) { return json.Marshal(rows) } // see inBubble
	l := startOutcomeLog(bucket, events.Tee(), o)
	var acknowledged, sent list[[]outcomes.Outcome]
	var calls sync.WaitGroup
	for caller := range 4 {
		sizes := []int{1 + random.IntN(8), 1 + random.IntN(8), 1 + random.IntN(8)}
		calls.Go(func() {
			for n, size := range sizes {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				message := someOutcomes(fmt.Sprintf("%d-%d", caller, n), size)
				sent.add(message)
				if _, err := l.keep(ctx, slices.Clone(message)); err == nil {
					acknowledged.add(message)
				}
				cancel()
			}
		})
	}
	calls.Wait()
	l.close()
	got := map[string]int{}
	for _, key := range faults.Keys(outcomes.Prefix) {
		data, _ := faults.Data(key)
		var rows []outcomes.Outcome
		require.NoError(t, json.Unmarshal(data, &rows))
		for _, o := range rows {
			got[o.ID]++
		}
	}
	for _, message := range acknowledged.since(0) {
		for _, o := range message {
			require.Equal(t, 1, got[o.ID], "seed %d: outcome %s", seed, o.ID)
		}
	}
	for _, message := range sent.since(0) {
		for _, o := range message {
			require.Equal(t, got[message[0].ID], got[o.ID], "seed %d: a message is whole or absent", seed)
		}
	}
	require.NoError(t, bucket.Close())
}
