package appendlog

import (
	"bytes"
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

// A file of the memory that is damaged is an error, whatever byte of it is: to pass as one that
// remembers less is to serve an older copy.
func TestMemoryThatIsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "live.json")
	m := Memory{path}
	at := Position{Log: "20261130", Sequence: 17, Hash: HashOf([]byte("17"))}
	require.NoError(t, m.Accept(t.Context(), at))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := func(name string, data []byte) {
		require.NoError(t, os.WriteFile(path, data, 0o644))
		at, _, err := m.Recall()
		require.Error(t, err, "%s: %q passes as %+v", name, data, at)
		require.ErrorContains(t, err, path)
		require.Less(t, len(err.Error()), 500)
		require.Error(t, m.Keep(t.Context(), Position{Log: "20261201", Sequence: 99}, goesOn), "it is not written over")
	}
	for i := range whole {
		for bit := range 8 {
			data := bytes.Clone(whole)
			data[i] ^= 1 << bit
			damaged("a bit", data)
		}
		damaged("cut off", whole[:i])
	}
	hash := at.Hash.String()
	for name, text := range map[string]string{
		"no key that is known":   `{"version":1,"Xlog":"","Xsequence":17}`,
		"nothing but a version":  `{"version":1}`,
		"sequence 0 with a hash": `{"version":1,"log":"","sequence":0,"hash":"` + hash + `"}`,
		"sequence 0 of a log":    `{"version":1,"log":"20261130","sequence":0,"hash":"` + Hash{}.String() + `"}`,
		"one more key":           `{"version":1,"log":"","sequence":17,"hash":"` + hash + `","more":1}`,
		"a key twice":            `{"version":1,"log":"","sequence":17,"sequence":1,"hash":"` + hash + `"}`,
		"two of them":            string(whole) + string(whole[:len(whole)-1]),
	} {
		damaged(name, []byte(text+"\n"))
	}

	require.NoError(t, os.WriteFile(path, []byte(`{"version":1,"log":"20261130","sequence":17,"hash":"`+hash+`"}`+"\n"), 0o644))
	found, _, err := m.Recall()
	require.NoError(t, err, "as servers wrote it before there was a checksum")
	assert.Equal(t, at, found)
}

// Folders that somebody has removed under a server are made again.
func TestMemoryWhoseFolderIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "tandem")
	m := Memory{filepath.Join(dir, "live.json")}
	require.NoError(t, m.Accept(t.Context(), Position{Sequence: 1}))
	require.NoError(t, os.RemoveAll(filepath.Dir(dir)))
	require.NoError(t, m.Keep(t.Context(), Position{Sequence: 2}, goesOn))
	at, _, err := m.Recall()
	require.NoError(t, err)
	assert.EqualValues(t, 2, at.Sequence)
}
