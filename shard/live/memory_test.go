package live

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// memories are a store, a copy of it that is behind, and what servers of both remember in one
// file. Nobody but the test changes the copy.
type memories struct {
	store, copy *objectstest.Faults
	o           Options
}

// newMemories returns a store of one entry, and its copy.
func newMemories(t *testing.T, o Options) *memories {
	m := &memories{objectstest.NewFaults(), objectstest.NewFaults(), o}
	m.write(t, m.store, takedown("a"))
	m.bring(1)
	return m
}

func (m *memories) write(t *testing.T, store *objectstest.Faults, events ...Event) {
	w, stop := start(t, store.Bucket("writer"), Options{})
	defer stop()
	for _, e := range events {
		appendTo(t, w, e)
	}
}

// bring puts an entry of the store into the copy.
func (m *memories) bring(sequence int) {
	key := fmt.Sprintf("live/%012d.log", sequence)
	data, _ := m.store.Data(key)
	m.copy.Put(key, data, time.Now())
}

// A server that is behind takes nothing back of what another remembers in the same file: the
// copy that it follows is refused once it is started anew.
func TestMemoryGoesNotBack(t *testing.T) {
	memory := filepath.Join(t.TempDir(), "live.json")
	synctest.Test(t, func(t *testing.T) {
		m := newMemories(t, Options{Memory: appendlog.Memory{memory}})
		behind, stop := start(t, m.copy.Bucket("behind"), m.o)
		m.write(t, m.store, takedown("b"), takedown("c"), takedown("d"))
		_, err := Open(t.Context(), m.store.Bucket("ahead"), m.o)
		require.NoError(t, err)
		m.bring(2)
		require.NoError(t, behind.Wait(t.Context(), position(2)), "what it follows it goes on with")
		stop()
		_, err = Open(t.Context(), m.copy.Bucket("behind"), m.o)
		require.ErrorIs(t, err, ErrTimeTravel)
		require.ErrorIs(t, err, appendlog.ErrBehind)
		assert.ErrorContains(t, err, "its own memory knows of entry 4, and ")

		// A person may have it go back, and from there it goes forward again.
		at := position(2)
		m.o.Accept = &at
		_, err = Open(t.Context(), m.copy.Bucket("behind"), m.o)
		require.NoError(t, err)
		m.o.Accept = nil
		m.bring(3)
		for range 2 {
			r, err := Open(t.Context(), m.copy.Bucket("behind"), m.o)
			require.NoError(t, err)
			assert.Equal(t, position(3), r.View().Position.Shard())
		}
	})
}

// A server that follows a log which has parted from the one that another has followed farther
// stops where it finds that out, and is heard again once a person has accepted it.
func TestMemoryOfAnotherLog(t *testing.T) {
	memory := filepath.Join(t.TempDir(), "live.json")
	synctest.Test(t, func(t *testing.T) {
		var failed atomic.Value
		m := newMemories(t, Options{Memory: appendlog.Memory{memory}, Failed: func(err error) { failed.Store(err) }})
		behind, stop := start(t, m.copy.Bucket("behind"), m.o)
		defer stop()
		m.write(t, m.store, takedown("b"), takedown("c"))
		_, err := Open(t.Context(), m.store.Bucket("ahead"), m.o)
		require.NoError(t, err)
		m.write(t, m.copy, takedown("x"))
		require.NoError(t, behind.Wait(t.Context(), position(2)), "no more is remembered of the other log than that it went on")
		m.write(t, m.copy, takedown("y"))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, position(2), behind.View().Position.Shard())
		assert.Greater(t, behind.View().Proof.Age(), 50*time.Second)
		assert.ErrorIs(t, failed.Load().(error), ErrTimeTravel)
		assert.ErrorIs(t, failed.Load().(error), appendlog.ErrForked)

		accept(t, m.copy)
		time.Sleep(time.Minute)
		assert.EqualValues(t, 4, behind.View().Position.Sequence)
		assert.Less(t, behind.View().Proof.Age(), 5*time.Second)
	})
}

// A log that a person has accepted is remembered though it is empty.
func TestMemoryOfNothing(t *testing.T) {
	store := objectstest.NewFaults()
	m := &memories{store: store, o: Options{Memory: appendlog.Memory{filepath.Join(t.TempDir(), "live.json")}}}
	m.write(t, store, takedown("a"), takedown("b"))
	_, err := Open(t.Context(), store.Bucket(""), m.o)
	require.NoError(t, err)
	for _, key := range store.Keys("") {
		store.Remove(key)
	}
	_, err = Open(t.Context(), store.Bucket(""), m.o)
	require.ErrorIs(t, err, ErrTimeTravel)
	accepting := m.o
	accepting.Accept = &shard.Position{}
	_, err = Open(t.Context(), store.Bucket(""), accepting)
	require.NoError(t, err)
	_, err = Open(t.Context(), store.Bucket(""), m.o)
	require.NoError(t, err)
	m.write(t, store, takedown("c"))
	r, err := Open(t.Context(), store.Bucket(""), m.o)
	require.NoError(t, err)
	assert.Equal(t, position(1), r.View().Position.Shard())
}
