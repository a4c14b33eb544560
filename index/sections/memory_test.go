package sections_test

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index/sections"
)

// A file in memory has what was written, aligned, and nothing of a disk.
func TestInMemory(t *testing.T) {
	w := sections.InMemory()
	w.Require(sections.Float32Attributes)
	for _, s := range small {
		require.NoError(t, w.Section(s.name, s.data))
	}
	require.NoError(t, w.Begin("words"))
	_, err := w.Write(sections.Bytes([]uint64{1, 2}))
	require.NoError(t, err)
	_, err = w.Write(sections.Bytes([]uint64{3}))
	require.NoError(t, err)
	f, err := w.File()
	require.NoError(t, err)
	require.Equal(t, "(memory)", f.Path())
	require.Equal(t, uint32(sections.Float32Attributes), f.Features())
	require.Len(t, f.Entries(), len(small)+1)
	for i, want := range small {
		require.Equal(t, want.name, f.Entries()[i].Name)
		require.True(t, f.Has(want.name))
		data, err := f.Section(want.name)
		require.NoError(t, err)
		require.Equal(t, string(want.data), string(data))
		require.Equal(t, len(data), cap(data))
		require.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(data)))%8)
	}
	require.ErrorIs(t, f.CheckClaimed(), sections.ErrVersion)
	words, err := sections.Array[uint64](f, "words", 3)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, words)
	require.NoError(t, f.CheckClaimed())
	require.False(t, f.Has("nothing"))
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())

	require.Error(t, w.Begin("more"))
	_, err = w.File()
	require.Error(t, err, "it is written once")

	empty, err := sections.InMemory().File()
	require.NoError(t, err)
	require.Empty(t, empty.Entries())
}

// One kind of writer does not end as the other does, and what was wrong stays wrong.
func TestInMemoryMisuse(t *testing.T) {
	w := sections.InMemory()
	require.Error(t, w.Commit())
	require.NoError(t, w.Abort())

	require.NoError(t, w.Section("twice", nil))
	require.Error(t, w.Section("twice", nil))
	_, err := w.File()
	require.ErrorContains(t, err, `section name "twice": already written`)

	w, err = sections.Create(t.TempDir() + "/a.shard")
	require.NoError(t, err)
	_, err = w.File()
	require.ErrorContains(t, err, "it is on a disk")
	require.NoError(t, w.Abort())
}
