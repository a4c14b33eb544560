package sections

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// badBlock is a file of which one block cannot be read.
type badBlock struct {
	bytes.Reader
	from, to int64
	err      error
}

func (b *badBlock) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= b.to || offset+int64(len(p)) <= b.from {
		return b.Reader.ReadAt(p, offset)
	}
	n := 0
	if offset < b.from {
		n, _ = b.Reader.ReadAt(p[:b.from-offset], offset)
	}
	return n, b.err
}

// manyChunks writes a file with a section that is read in several parts.
func manyChunks(t *testing.T) (path string, data []byte) {
	path = filepath.Join(t.TempDir(), "shard")
	w, err := Create(path)
	require.NoError(t, err)
	for _, s := range []struct {
		name string
		size int
	}{{"one", 10}, {"large", 2*chunk + 5*PageSize}, {"last", PageSize}} {
		require.NoError(t, w.Section(s.name, bytes.Repeat([]byte(s.name), s.size/len(s.name))))
	}
	require.NoError(t, w.Commit())
	data, err = os.ReadFile(path)
	require.NoError(t, err)
	return path, data
}

// TestUnreadableBlocks has pages of every part of a file fail in turn.
func TestUnreadableBlocks(t *testing.T) {
	path, data := manyChunks(t)
	whole, err := Open(path)
	require.NoError(t, err)
	defer whole.Close()
	places := []int64{0, int64(whole.header.tocOffset)}
	for _, e := range whole.Entries() {
		places = append(places, int64(e.Offset), int64(e.Offset+e.Length-1)&^(PageSize-1), int64(e.Offset+e.Length/3)&^(PageSize-1))
	}
	for _, at := range places {
		r := &badBlock{Reader: *bytes.NewReader(data), from: at, to: at + PageSize, err: &fs.PathError{Op: "read", Path: path, Err: unix.EIO}}
		err := newFile(path, data).verify(r)
		require.ErrorIs(t, err, ErrUnreadable)
		require.ErrorIs(t, err, unix.EIO)
		require.NotErrorIs(t, err, ErrCorrupt)
		require.EqualError(t, err, fmt.Sprintf("%s: read at %d: input/output error: unreadable", whole.part(uint64(at)), at))
		r.err = io.EOF
		err = newFile(path, data).verify(r)
		require.ErrorIs(t, err, ErrCorrupt, "cut")
		require.ErrorContains(t, err, fmt.Sprintf("%s: file ends at %d, it was longer when it was opened: truncated", whole.part(uint64(at)), at))
	}
}

// TestCutBeforeItIsRead cuts a file between when it was mapped and when it is read.
func TestCutBeforeItIsRead(t *testing.T) {
	for _, to := range []int64{0, PageSize, 2*PageSize + 17, chunk} {
		path, data := manyChunks(t)
		f, err := os.Open(path)
		require.NoError(t, err)
		mapping, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
		require.NoError(t, err)
		file := newFile(path, mapping)
		file.mapping = mapping
		noteMapped(file)
		require.NoError(t, os.Truncate(path, to))
		err = file.verify(&mappedReader{file: f, mapping: mapping})
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "truncated")
		require.NoError(t, file.Close())
		require.NoError(t, f.Close())
	}
}
