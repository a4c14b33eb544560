package sections_test

import (
	"errors"
	"os"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
)

// sum reads all of a section.
func sum(f *sections.File, name string) (n int, err error) {
	defer sections.Guard(&err)()
	data, err := f.Section(name)
	for _, b := range data {
		n += int(b)
	}
	return n, err
}

func TestFileCutWhileMapped(t *testing.T) {
	path, other := write(t, small), write(t, small)
	f, err := sections.Open(path)
	require.NoError(t, err)
	defer f.Close()
	g, err := sections.Open(other)
	require.NoError(t, err)
	defer g.Close()
	want, err := sum(f, "longer-than_a.page")
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 4*page)) // amid longer-than_a.page

	_, err = sum(f, "longer-than_a.page")
	fault, ok := errors.AsType[*sections.FaultError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, path, fault.Path)
	assert.Equal(t, "section longer-than_a.page", fault.Part)
	assert.Equal(t, int64(4*page), fault.Offset)
	assert.True(t, fault.In(f))
	assert.False(t, fault.In(g))
	require.ErrorIs(t, err, sections.ErrUnreadable)
	require.NotErrorIs(t, err, sections.ErrCorrupt)
	require.True(t, sections.IsDamaged(err))
	require.ErrorContains(t, err, "shard file "+path+": section longer-than_a.page: the page at 16384 cannot be read")

	// What is there is still read, and so is what is of other files.
	_, err = sum(f, "a.page")
	require.NoError(t, err)
	got, err := sum(g, "longer-than_a.page")
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// A fault that a goroutine has met is raised again by the one that waits for it.
func TestFaultIsRaisedAgain(t *testing.T) {
	path := write(t, small)
	f, err := sections.Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, page))
	met := make(chan error)
	go func() {
		_, err := sum(f, "a.page")
		met <- err
	}()
	outer := func() (err error) {
		defer sections.Guard(&err)()
		panic(<-met)
	}
	fault, ok := errors.AsType[*sections.FaultError](outer())
	require.True(t, ok)
	require.True(t, fault.In(f))
}

// Bugs stay panics: those of reading what is not mapped, too.
func TestGuardLetsOtherPanicsGoOn(t *testing.T) {
	f, err := sections.Open(write(t, small))
	require.NoError(t, err)
	defer f.Close()
	guarded := func(do func()) (err error) {
		defer sections.Guard(&err)()
		do()
		return nil
	}
	require.PanicsWithValue(t, "bug", func() { _ = guarded(func() { panic("bug") }) })
	require.PanicsWithError(t, "runtime error: invalid memory address or nil pointer dereference", func() {
		var nothing *int
		_ = guarded(func() { *nothing = 1 })
	})
	closed, err := unix.Mmap(-1, 0, page, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(closed)) }()
	require.Panics(t, func() { _ = guarded(func() { closed[0]++ }) })
	require.Nil(t, sections.FaultOf(errors.New("bug")))
	require.Nil(t, sections.FaultOf(nil))
}

func TestGuardEndsWithItsFunction(t *testing.T) {
	for _, before := range []bool{false, true} {
		was := debug.SetPanicOnFault(before)
		func() {
			var err error
			defer sections.Guard(&err)()
			require.True(t, debug.SetPanicOnFault(true), "a guard is set")
		}()
		require.Equal(t, before, debug.SetPanicOnFault(was))
	}
}

func TestIsDamaged(t *testing.T) {
	require.False(t, sections.IsDamaged(nil))
	require.False(t, sections.IsDamaged(os.ErrNotExist))
	require.False(t, sections.IsDamaged(sections.ErrVersion))
	require.True(t, sections.IsDamaged(sections.Corruptf("a", "bad")))
	require.True(t, sections.IsDamaged(sections.ErrUnreadable))
}
