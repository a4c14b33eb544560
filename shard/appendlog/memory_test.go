package appendlog

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func goesOn(Position) error { return nil }

// Whoever remembers at the same time, the farthest position is what is remembered.
func TestMemoryOfMany(t *testing.T) {
	dir := t.TempDir()
	m := Memory{filepath.Join(dir, "address", "log.json"), filepath.Join(dir, "id", "log.json")}
	at, _, err := m.Recall()
	require.NoError(t, err)
	require.Zero(t, at)
	const processes = 6
	for range 25 {
		require.NoError(t, m.Accept(t.Context(), Position{}))
		var working sync.WaitGroup
		for i := range processes {
			working.Go(func() { assert.NoError(t, m.Keep(context.Background(), Position{Sequence: uint64(i + 1)}, goesOn)) })
		}
		working.Wait()
		for _, path := range m {
			at, _, err := Memory{path}.Recall()
			require.NoError(t, err)
			require.EqualValues(t, processes, at.Sequence)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", ".*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// What a copy shares is farther than what its address has; what a person has accepted is
// farther than all that came before.
func TestMemoryIsTheFarthest(t *testing.T) {
	dir := t.TempDir()
	old, moved, shared := filepath.Join(dir, "old"), filepath.Join(dir, "moved"), filepath.Join(dir, "shared")
	first := Position{Sequence: 7, Hash: HashOf([]byte("7"))}
	require.NoError(t, Memory{old, shared}.Keep(t.Context(), first, goesOn))
	at, file, err := Memory{moved, shared}.Recall()
	require.NoError(t, err)
	assert.Equal(t, first, at)
	assert.Equal(t, 1, file)
	at, file, err = Memory{old, shared}.Recall()
	require.NoError(t, err)
	assert.Equal(t, first, at)
	assert.Zero(t, file)

	accepted := Position{Log: "20261130", Sequence: 3}
	require.NoError(t, Memory{old, shared}.Keep(t.Context(), accepted, func(known Position) error {
		assert.Equal(t, first, known)
		return nil
	}))
	require.NoError(t, Memory{old, shared}.Keep(t.Context(), Position{Sequence: 99}, goesOn))
	at, _, err = Memory{old, shared}.Recall()
	require.NoError(t, err)
	assert.Equal(t, accepted, at)
	assert.ErrorIs(t, Memory{old, shared}.Keep(t.Context(), Position{Log: "20261201", Sequence: 1}, func(Position) error { return ErrForked }), ErrForked)
	at, _, err = Memory{old, shared}.Recall()
	require.NoError(t, err)
	assert.Equal(t, accepted, at)
}

// A process that stands still while it holds the lock of the memory is not waited for without
// end.
func TestMemoryThatIsLocked(t *testing.T) {
	m := Memory{filepath.Join(t.TempDir(), "live.json")}
	lock, err := os.Create(m[0] + memoryLock)
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	synctest.Test(t, func(t *testing.T) {
		err := m.Accept(t.Context(), Position{Sequence: 1})
		assert.ErrorContains(t, err, "remember the position in the log: another process has kept "+m[0]+memoryLock+" locked for 2s")
	})
	require.NoError(t, lock.Close())
	require.NoError(t, m.Accept(t.Context(), Position{Sequence: 1}))
	at, _, err := m.Recall()
	require.NoError(t, err)
	assert.EqualValues(t, 1, at.Sequence)
}
