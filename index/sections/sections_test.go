package sections_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index/sections"
)

// named is one section of a test file.
type named struct {
	name string
	data []byte
}

// small has an empty section, one that ends on a page and two that do not.
var small = []named{
	{"index.params", []byte("metric=dot")},
	{"empty", nil},
	{"a.page", bytes.Repeat([]byte("0123456789abcdef"), sections.PageSize/16)},
	{"longer-than_a.page", bytes.Repeat([]byte("abc"), sections.PageSize/2)},
}

// write commits a file and returns its path.
func write(t testing.TB, content []named) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shard")
	w, err := sections.Create(path)
	require.NoError(t, err)
	for _, s := range content {
		require.NoError(t, w.Section(s.name, s.data))
	}
	require.NoError(t, w.Commit())
	return path
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// names lists a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	path := write(t, small)
	f, err := sections.Open(path)
	require.NoError(t, err)
	defer f.Close()

	assert.Equal(t, path, f.Path())
	assert.Equal(t, int64(len(read(t, path))), f.Size())
	require.Len(t, f.Entries(), len(small))
	next := uint64(sections.PageSize)
	for i, want := range small {
		e := f.Entries()[i]
		assert.Equal(t, want.name, e.Name)
		assert.True(t, f.Has(want.name))
		assert.Equal(t, next, e.Offset, want.name)
		assert.Equal(t, uint64(len(want.data)), e.Length, want.name)
		next += (e.Length + sections.PageSize - 1) / sections.PageSize * sections.PageSize
		got, err := f.Section(want.name)
		require.NoError(t, err)
		assert.Equal(t, string(want.data), string(got), want.name)
		assert.Len(t, got, cap(got), "the capacity ends with the length")
	}
	assert.NoError(t, f.CheckClaimed())

	assert.False(t, f.Has("other"))
	_, err = f.Section("other")
	require.ErrorIs(t, err, sections.ErrCorrupt)
	assert.EqualError(t, err, "section other: missing: corrupt")
}

func TestRoundTripAny(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shard")
	name := rapid.StringMatching(`[a-z0-9._-]{1,40}`)
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.SliceOfNDistinct(name, 0, 70, rapid.ID).Draw(t, "names")
		w, err := sections.Create(path)
		require.NoError(t, err)
		defer func() { require.NoError(t, w.Abort()) }()
		content := map[string][]byte{}
		for _, name := range order {
			require.NoError(t, w.Begin(name))
			var data []byte
			for range rapid.IntRange(0, 3).Draw(t, "writes") {
				part := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, 5000).Draw(t, "length"))
				n, err := w.Write(part)
				require.NoError(t, err)
				require.Len(t, part, n)
				data = append(data, part...)
			}
			content[name] = data
		}
		require.NoError(t, w.Commit())
		f, err := sections.Open(path)
		require.NoError(t, err)
		defer f.Close()
		require.Len(t, f.Entries(), len(order))
		for i, e := range f.Entries() {
			require.Equal(t, order[i], e.Name)
			got, err := f.Section(e.Name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content[e.Name], got), e.Name)
		}
	})
}

func TestNoSections(t *testing.T) {
	path := write(t, nil)
	f, err := sections.Open(path)
	require.NoError(t, err)
	defer f.Close()
	assert.Empty(t, f.Entries())
	assert.NoError(t, f.CheckClaimed())
}

func TestSameContentSameBytes(t *testing.T) {
	a, b := write(t, small), write(t, small)
	assert.True(t, bytes.Equal(read(t, a), read(t, b)))

	changed := append([]named{}, small...)
	changed[0].data = []byte("metric=l2_")
	c := write(t, changed)
	fa, err := sections.Open(a)
	require.NoError(t, err)
	defer fa.Close()
	fc, err := sections.Open(c)
	require.NoError(t, err)
	defer fc.Close()
	assert.NotEqual(t, fa.Checksum(), fc.Checksum(), "the checksum covers every section")
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ name, err string }{
		{"a", ""},
		{"a-z_0.9", ""},
		{strings.Repeat("x", sections.MaxNameLen), ""},
		{strings.Repeat("x", sections.MaxNameLen+1), "want 1 to 40 bytes of a-z 0-9 . _ -"},
		{"", `section name ""`},
		{"A", `section name "A"`},
		{"a b", `section name "a b"`},
		{"a/b", `section name "a/b"`},
		{"a\x00", `section name "a\x00"`},
		{"é", `section name "é"`},
		{"taken", `section name "taken": already written`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			w, err := sections.Create(filepath.Join(dir, "shard"))
			require.NoError(t, err)
			require.NoError(t, w.Section("taken", []byte("x")))
			err = w.Begin(tt.name)
			if tt.err == "" {
				require.NoError(t, err)
				require.NoError(t, w.Abort())
				return
			}
			require.ErrorContains(t, err, tt.err)
			// The error stays, and nothing is published.
			_, werr := w.Write([]byte("more"))
			assert.Equal(t, err, werr)
			assert.Equal(t, err, w.Begin("good"))
			require.ErrorIs(t, w.Commit(), err)
			assert.Empty(t, names(t, dir))
		})
	}
}

func TestWriteOutsideSection(t *testing.T) {
	w, err := sections.Create(filepath.Join(t.TempDir(), "shard"))
	require.NoError(t, err)
	_, err = w.Write([]byte("x"))
	require.EqualError(t, err, "write outside a section")
	require.Error(t, w.Commit())
}

func TestCommitLeavesOnlyTheFile(t *testing.T) {
	path := write(t, small)
	assert.Equal(t, []string{"shard"}, names(t, filepath.Dir(path)))
}

func TestCommitReplaces(t *testing.T) {
	path := write(t, small)
	old, err := sections.Open(path)
	require.NoError(t, err)
	defer old.Close()

	w, err := sections.Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Section("new", []byte("content")))
	f, err := sections.Open(path)
	require.NoError(t, err, "until Commit, the old file is there")
	require.NoError(t, f.Close())

	require.NoError(t, w.Commit())
	f, err = sections.Open(path)
	require.NoError(t, err)
	defer f.Close()
	got, err := old.Section("index.params")
	require.NoError(t, err)
	assert.Equal(t, "metric=dot", string(got), "a mapped file outlives its name")
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	w, err := sections.Create(filepath.Join(dir, "shard"))
	require.NoError(t, err)
	require.NoError(t, w.Section("a", bytes.Repeat([]byte("x"), 3<<20))) // more than the buffer
	require.Len(t, names(t, dir), 1)
	require.NoError(t, w.Abort())
	assert.Empty(t, names(t, dir))
	require.NoError(t, w.Abort())
	require.ErrorContains(t, w.Begin("b"), "aborted")
	require.ErrorContains(t, w.Commit(), "aborted")
	assert.Empty(t, names(t, dir))
}

func TestAbortAfterCommit(t *testing.T) {
	dir := t.TempDir()
	w, err := sections.Create(filepath.Join(dir, "shard"))
	require.NoError(t, err)
	require.NoError(t, w.Commit())
	require.NoError(t, w.Abort())
	require.Error(t, w.Commit(), "a writer commits once")
	assert.Equal(t, []string{"shard"}, names(t, dir))
	_, err = sections.Open(filepath.Join(dir, "shard"))
	require.NoError(t, err)
}

// A crash is a Writer that is neither committed nor aborted.
func TestCrashBeforeCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "shard")
	w, err := sections.Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Section("a", bytes.Repeat([]byte("x"), 3<<20)))
	require.NoFileExists(t, path)
	left := names(t, dir)
	require.Len(t, left, 1)
	assert.True(t, strings.HasPrefix(left[0], ".shard.") && strings.HasSuffix(left[0], ".tmp"), left[0])
	_, err = sections.Open(filepath.Join(dir, left[0]))
	require.ErrorIs(t, err, sections.ErrCorrupt, "what a crash leaves is no shard file")
	require.NoError(t, w.Abort())
}

func TestCommitFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "shard")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "occupied"), 0o755))
	w, err := sections.Create(path)
	require.NoError(t, err)
	require.ErrorContains(t, w.Commit(), "write shard file "+path)
	assert.Equal(t, []string{"shard"}, names(t, dir))
}

func TestCreateInMissingFolder(t *testing.T) {
	_, err := sections.Create(filepath.Join(t.TempDir(), "missing", "shard"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOpenWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	_, err := sections.Open(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = sections.Open(dir)
	require.ErrorContains(t, err, "not a regular file")
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	_, err = sections.Open(empty)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, "open shard file "+empty+": header: file has 0 bytes")
}

func TestCloseIsIdempotent(t *testing.T) {
	f, err := sections.Open(write(t, small))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())

	f, err = sections.FromBytes(read(t, write(t, small)))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
}

func TestCheckClaimed(t *testing.T) {
	f, err := sections.Open(write(t, small))
	require.NoError(t, err)
	defer f.Close()
	for _, s := range small {
		err := f.CheckClaimed()
		require.ErrorIs(t, err, sections.ErrVersion)
		require.EqualError(t, err, "section "+s.name+": unknown to this build: unsupported format version")
		_, err = f.Section(s.name)
		require.NoError(t, err)
	}
	require.NoError(t, f.CheckClaimed())
}

func TestConcurrentSections(t *testing.T) {
	f, err := sections.Open(write(t, small))
	require.NoError(t, err)
	defer f.Close()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				for _, s := range small {
					got, err := f.Section(s.name)
					assert.NoError(t, err)
					assert.True(t, bytes.Equal(s.data, got))
				}
				_ = f.CheckClaimed()
			}
		})
	}
	group.Wait()
}

func TestArray(t *testing.T) {
	words := []uint32{1, 2, 3, 0xffffffff}
	f, err := sections.Open(write(t, []named{
		{"words", sections.Bytes(words)},
		{"floats", sections.Bytes([]float32{1.5, -2})},
		{"none", sections.Bytes([]uint64(nil))},
		{"odd", []byte("12345")},
	}))
	require.NoError(t, err)
	defer f.Close()

	got, err := sections.Array[uint32](f, "words", 4)
	require.NoError(t, err)
	assert.Equal(t, words, got)
	wide, err := sections.Array[uint64](f, "words", 2)
	require.NoError(t, err)
	assert.Equal(t, []uint64{1 | 2<<32, 3 | 0xffffffff<<32}, wide)
	floats, err := sections.Array[float32](f, "floats", 2)
	require.NoError(t, err)
	assert.Equal(t, []float32{1.5, -2}, floats)
	none, err := sections.Array[uint64](f, "none", 0)
	require.NoError(t, err)
	assert.Empty(t, none)

	for _, n := range []int{-1, 0, 3, 5, 1 << 60, 1 << 62} {
		_, err := sections.Array[uint32](f, "words", n)
		require.ErrorIs(t, err, sections.ErrCorrupt, n)
		require.EqualError(t, err, fmt.Sprintf("section words: length 16 is not %d values of 4 bytes: corrupt", n))
	}
	_, err = sections.Array[uint32](f, "odd", 1)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	_, err = sections.Array[uint32](f, "none", 1)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	_, err = sections.Array[uint32](f, "absent", 0)
	require.ErrorIs(t, err, sections.ErrCorrupt)
}

func TestFeatures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shard")
	w, err := sections.Create(path)
	require.NoError(t, err)
	w.Require(sections.CompactVectors)
	require.NoError(t, w.Commit())
	f, err := sections.Open(path)
	require.NoError(t, err)
	assert.Equal(t, uint32(sections.CompactVectors), f.Features())
	require.NoError(t, f.Close())

	f, err = sections.Open(write(t, small))
	require.NoError(t, err)
	assert.Zero(t, f.Features())
	require.NoError(t, f.Close())
}
