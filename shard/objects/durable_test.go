package objects

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func openTestFolder(t *testing.T, dir string) (*Bucket, *folder) {
	t.Helper()
	b, err := Open(t.Context(), dir)
	require.NoError(t, err)
	return b, b.folder
}

// names returns what is in a folder, temporary files too.
func names(t *testing.T, dir ...string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir...))
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestNoHardLinks(t *testing.T) {
	for _, no := range []error{unix.EPERM, unix.EOPNOTSUPP, unix.ENOSYS} {
		dir := t.TempDir()
		b, f := openTestFolder(t, dir)
		f.link = func(from, to string) error { return &os.LinkError{Op: "link", Old: from, New: to, Err: no} }
		for _, err := range []error{
			b.Create(t.Context(), "a/1", nil),
			b.CheckWritable(t.Context(), "a/try.json"),
		} {
			assert.ErrorContains(t, err, "the file system has no hard links")
			assert.ErrorIs(t, err, no)
		}
		require.NoError(t, b.Write(t.Context(), "a/2", nil))
		assert.Equal(t, []string{"2"}, names(t, dir, "a"), "nothing is left")
	}
}

// A change that can be seen but that the disk has not confirmed is neither done nor
// undone, and whoever finds it settles it or is told so too.
func TestChangesThatAreNotDurable(t *testing.T) {
	dir := t.TempDir()
	b, f := openTestFolder(t, dir)
	require.NoError(t, b.Create(t.Context(), "a/0", nil))
	working := f.syncDir
	broken := errors.New("input/output error")
	f.syncDir = func(string) error { return broken }
	one, two := []byte("one"), []byte("two")
	for what, err := range map[string]error{
		"create": b.Create(t.Context(), "a/1", one),
		"again":  b.Create(t.Context(), "a/1", one),
		"other":  b.Create(t.Context(), "a/1", two),
		"write":  b.Write(t.Context(), "a/2", two),
		"upload": b.Upload(t.Context(), "a/3", bytes.NewReader(one)),
		"delete": b.Delete(t.Context(), "a/0"),
		"settle": b.Settle("a/"),
	} {
		assert.ErrorIs(t, err, ErrNotDurable, what)
		assert.ErrorIs(t, err, broken, what)
		assert.NotErrorIs(t, err, ErrExists, what)
	}
	assert.Equal(t, []string{"1", "2", "3"}, names(t, dir, "a"), "all of it is seen, and nothing else")
	err := b.Create(t.Context(), "b/c/1", one)
	assert.ErrorIs(t, err, broken)
	assert.NotErrorIs(t, err, ErrNotDurable, "its folder is not, so it is not written")
	f.syncDir = working
	require.NoError(t, b.Settle("a/"))
	require.NoError(t, b.Settle("none/"))
	require.NoError(t, b.Create(t.Context(), "a/1", one), "tried again")
	assert.ErrorIs(t, b.Create(t.Context(), "a/1", two), ErrExists)
	require.NoError(t, b.Create(t.Context(), "b/c/1", one))
}

// The names of folders are durable before anything in them is, whoever made them.
func TestFoldersAreDurable(t *testing.T) {
	dir := t.TempDir()
	create := func(f *folder, key string) (synced []string) {
		t.Helper()
		working := f.syncDir
		defer func() { f.syncDir = working }()
		f.syncDir = func(dir string) error {
			name, err := filepath.Rel(f.dir, dir)
			require.NoError(t, err)
			synced = append(synced, name)
			return working(dir)
		}
		require.NoError(t, f.create(t.Context(), key, nil))
		return synced
	}
	_, f := openTestFolder(t, dir)
	assert.Equal(t, []string{".", "a", "a/b"}, create(f, "a/b/1"))
	assert.Equal(t, []string{"a/b"}, create(f, "a/b/2"))
	_, other := openTestFolder(t, dir)
	assert.Equal(t, []string{".", "a", "a/b"}, create(other, "a/b/3"), "another process may have died before it did")
	require.NoError(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "moved")))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	assert.Equal(t, []string{".", "a", "a/b"}, create(other, "a/b/1"), "it is another folder")
}
