package live

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// summed is a store with 40 entries, and checkpoints of 20 and 40.
func summed(t *testing.T) *objectstest.Faults {
	t.Helper()
	store := objectstest.NewFaults()
	w, s := &writer{}, NewState()
	for n := uint64(1); n <= 40; n++ {
		e := w.entry(t, noon, takedown(fmt.Sprint("app ", n)))
		apply(t, s, e)
		store.Put(names.EntryKey(n), e.Data, time.Now())
		if n%20 == 0 {
			data, err := s.Checkpoint()
			require.NoError(t, err)
			store.Put(names.CheckpointKey(n), data, time.Now())
		}
	}
	return store
}

// flip changes a byte in the middle of an object.
func flip(t *testing.T, store *objectstest.Faults, key string) {
	t.Helper()
	data, ok := store.Data(key)
	require.True(t, ok, key)
	data = slices.Clone(data)
	data[len(data)/2] ^= 4
	store.Remove(key)
	store.Put(key, data, time.Now())
}

// A checkpoint that is damaged is passed over, and named, as long as what it sums up is there;
// then nothing of that is deleted, and the next checkpoint takes its place.
func TestDamagedCheckpointIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := summed(t)
		bucket := store.Bucket("")
		sound, err := Read(t.Context(), bucket)
		require.NoError(t, err)
		require.NoError(t, sound.Passed())
		flip(t, store, names.CheckpointKey(40))

		s, err := Read(t.Context(), bucket)
		require.NoError(t, err)
		assert.Equal(t, sound.Digest(), s.Digest())
		assert.ErrorIs(t, s.Passed(), ErrDamaged)
		assert.ErrorContains(t, s.Passed(), "live/checkpoints/000000000040.log, of entry 40: checkpoint of the live log: it is damaged: its bytes do not have the SHA-256")
		assert.NotContains(t, s.Passed().Error(), "entry 20")

		store.Advance(time.Hour)
		_, err = Log(bucket, 0).Trim(t.Context(), appendlog.LeastAge, false)
		assert.ErrorContains(t, err, "live/checkpoints/000000000040.log")
		assert.Len(t, store.Keys("live/0"), 40)

		flip(t, store, names.CheckpointKey(20))
		s, err = Read(t.Context(), bucket)
		require.NoError(t, err)
		assert.Equal(t, sound.Digest(), s.Digest())
		assert.ErrorContains(t, s.Passed(), "live/checkpoints/000000000020.log, of entry 20: ")

		sums := make(chan Summed, 1)
		r, stop := start(t, bucket, Options{Summed: func(s Summed) { sums <- s }})
		defer stop()
		_, err = r.Checkpoint(t.Context())
		assert.ErrorContains(t, err, "live/checkpoints/000000000040.log, of entry 40: it is damaged: another can be written once an entry follows")
		_, err = r.Append(t.Context(), []Event{takedown("one more")})
		require.NoError(t, err)
		done := <-sums
		require.NoError(t, done.Err)
		assert.EqualValues(t, 41, done.Sequence)
		s, err = Read(t.Context(), bucket)
		require.NoError(t, err)
		assert.NoError(t, s.Passed())
		assert.Equal(t, 41, s.TakenDown().Len())
	})
}

// Where it cannot be passed over, the error names it, and what to do.
func TestDamagedCheckpointOfWhatIsGone(t *testing.T) {
	store := summed(t)
	for n := range uint64(15) {
		store.Remove(names.EntryKey(n + 1))
	}
	store.Remove(names.CheckpointKey(20))
	flip(t, store, names.CheckpointKey(40))
	_, err := Read(t.Context(), store.Bucket(""))
	assert.ErrorIs(t, err, ErrDamaged)
	assert.ErrorContains(t, err, "live/checkpoints/000000000040.log, of entry 40: ")
	assert.ErrorContains(t, err, "entry 1, which it sums up, is gone: bring the checkpoint back from a copy of the store, or that entry and all behind it")
}

// What is damaged is named, in words of the format, and follows what is there.
func TestDamagedEntryIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := summed(t)
		var failed error
		r, stop := start(t, store.Bucket(""), Options{Failed: func(err error) { failed = err }})
		defer stop()
		time.Sleep(time.Second)
		for _, c := range []struct{ data, text string }{
			{"garbage, and more than a header", "header: it is damaged: it does not begin as an entry does"},
			{"\xa1\x01\x60", "header: a UTF-8 text string is where something else belongs"},
		} {
			store.Put(names.EntryKey(41), []byte(c.data), time.Now())
			time.Sleep(30 * time.Second)
			synctest.Wait()
			assert.ErrorIs(t, failed, ErrDamaged)
			assert.ErrorContains(t, failed, "entry 41 of the live log: live/000000000041.log: ")
			assert.ErrorContains(t, failed, c.text)
			assert.ErrorContains(t, failed, "bring that object back from a copy of the store")
			assert.NotContains(t, failed.Error(), "Go value")
			store.Remove(names.EntryKey(41))
		}
		time.Sleep(30 * time.Second)
		_, err := r.Append(t.Context(), []Event{takedown("one more")})
		assert.NoError(t, err)
	})
}
