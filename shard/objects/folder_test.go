package objects_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// openDir opens a folder as a bucket.
func openDir(t *testing.T, dir string) *objects.Bucket {
	t.Helper()
	b, err := objects.Open(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func listErr(t *testing.T, b *objects.Bucket, prefix string) error {
	t.Helper()
	for _, err := range b.List(t.Context(), prefix) {
		if err != nil {
			return err
		}
	}
	return nil
}

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

func touch(t *testing.T, path ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(path...), []byte("x"), 0o600))
}

// What reads and writes find, lists find.
func TestListsFollowLinks(t *testing.T) {
	for name, link := range map[string]func(t *testing.T, store, elsewhere string){
		"the store": nil,
		"a prefix": func(t *testing.T, store, elsewhere string) {
			require.NoError(t, os.Symlink(elsewhere, filepath.Join(store, "a")))
		},
		"a link to a link": func(t *testing.T, store, elsewhere string) {
			other := filepath.Join(t.TempDir(), "other")
			require.NoError(t, os.Symlink(elsewhere, other))
			require.NoError(t, os.Symlink(other, filepath.Join(store, "a")))
		},
		"a folder below": func(t *testing.T, store, elsewhere string) {
			require.NoError(t, os.Symlink(elsewhere, filepath.Join(mkdir(t, store, "a"), "deep")))
		},
		"a file": func(t *testing.T, store, elsewhere string) {
			touch(t, elsewhere, "kept")
			require.NoError(t, os.Symlink(filepath.Join(elsewhere, "kept"), filepath.Join(mkdir(t, store, "a"), "linked")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, elsewhere := filepath.Join(t.TempDir(), "store [*?]"), t.TempDir()
			if link == nil {
				require.NoError(t, os.Symlink(elsewhere, dir))
			} else {
				link(t, mkdir(t, dir), elsewhere)
			}
			b := openDir(t, dir)
			var want []string
			if name == "a file" {
				want = append(want, "a/linked 1")
			}
			for _, key := range []string{"a/1", "a/2", "a/deep/1", "a/deep/er/1"} {
				require.NoError(t, b.Create(t.Context(), key, []byte("one")))
				require.ErrorIs(t, b.Create(t.Context(), key, []byte("two")), objects.ErrExists)
				want = append(want, key+" 3")
			}
			assert.ElementsMatch(t, want, keys(t, b, ""))
			assert.ElementsMatch(t, want, keys(t, b, "a/"))
			assert.Equal(t, []string{"a/deep/1 3", "a/deep/er/1 3"}, keys(t, b, "a/d"))
			assert.Equal(t, []string{"a/deep/er/1 3"}, keys(t, b, "a/deep/er/"))
			if name == "a file" {
				require.NoError(t, b.Delete(t.Context(), "a/linked"))
				_, err := os.Stat(filepath.Join(elsewhere, "kept"))
				require.NoError(t, err)
			}
			require.NoError(t, b.Delete(t.Context(), "a/deep/1"))
			_, err := b.Stat(t.Context(), "a/deep/1")
			assert.ErrorIs(t, err, objects.ErrNotFound)
		})
	}
}

// A location may be written in any way that means the folder.
func TestListsOfRelativeFolders(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, location := range []string{".", "./", "x/..", "./x/"} {
		mkdir(t, "x")
		b := openDir(t, location)
		require.NoError(t, b.Create(t.Context(), "a/b/1", nil))
		assert.Equal(t, []string{"a/b/1 0"}, keys(t, b, "a/"), location)
		require.NoError(t, os.RemoveAll("a"))
	}
}

// What cannot be looked at is not empty, nor absent.
func TestWhatCannotBeListedIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, store string)
		want  string
	}{
		"a prefix that leads to nothing": {func(t *testing.T, store string) {
			require.NoError(t, os.Symlink(filepath.Join(store, "nothing"), filepath.Join(store, "a")))
		}, "leads to nothing"},
		"a prefix in a ring": {func(t *testing.T, store string) {
			require.NoError(t, os.Symlink("b", filepath.Join(store, "a")))
			require.NoError(t, os.Symlink("a", filepath.Join(store, "b")))
		}, "too many levels of symbolic links"},
		"a prefix that is a file": {func(t *testing.T, store string) { touch(t, store, "a") }, "not a "},
		"a file that leads to nothing": {func(t *testing.T, store string) {
			require.NoError(t, os.Symlink("nothing", filepath.Join(mkdir(t, store, "a"), "1")))
		}, "leads to nothing"},
		"a folder in itself": {func(t *testing.T, store string) {
			require.NoError(t, os.Symlink("..", filepath.Join(mkdir(t, store, "a", "deep"), "1")))
		}, "leads back to a folder that it is in"},
		"a pipe": {func(t *testing.T, store string) {
			require.NoError(t, unix.Mkfifo(filepath.Join(mkdir(t, store, "a"), "1"), 0o600))
		}, "neither a file nor a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.spoil(t, dir)
			b := openDir(t, dir)
			assert.ErrorContains(t, listErr(t, b, "a/"), c.want)
			_, readErr := b.Read(t.Context(), "a/1")
			_, statErr := b.Stat(t.Context(), "a/1")
			_, streamErr := b.Reader(t.Context(), "a/1", 0)
			for _, err := range []error{listErr(t, b, "a/"), readErr, statErr, streamErr} {
				assert.NotErrorIs(t, err, objects.ErrGone)
				assert.NotErrorIs(t, err, os.ErrNotExist)
				if name == "a folder in itself" {
					continue // reads find what is there, or is not
				}
				assert.Error(t, err)
				assert.NotErrorIs(t, err, objects.ErrNotFound)
			}
		})
	}
}

// What has no part in the store is not looked at.
func TestHiddenFiles(t *testing.T) {
	dir := t.TempDir()
	b := openDir(t, dir)
	touch(t, mkdir(t, dir, "a", ".snapshot"), "1")
	require.NoError(t, os.Symlink("nothing", filepath.Join(dir, "a", ".#1")))
	require.NoError(t, b.Create(t.Context(), "a/1", nil))
	assert.Equal(t, []string{"a/1 0"}, keys(t, b, ""))
	require.NoError(t, os.Symlink("nothing", filepath.Join(dir, "b")))
	assert.Equal(t, []string{"a/1 0"}, keys(t, b, "a/"), "another prefix")
}

// A folder of objects is no object, and stays.
func TestFoldersAreNoObjects(t *testing.T) {
	dir := t.TempDir()
	b := openDir(t, dir)
	mkdir(t, dir, "a", "empty")
	_, err := b.Read(t.Context(), "a/empty")
	assert.ErrorIs(t, err, objects.ErrNotFound)
	_, err = b.Stat(t.Context(), "a/empty")
	assert.ErrorIs(t, err, objects.ErrNotFound)
	assert.ErrorIs(t, b.Delete(t.Context(), "a/empty"), objects.ErrNotFound)
	_, err = os.Stat(filepath.Join(dir, "a", "empty"))
	assert.NoError(t, err)
}

// everything makes every request of a bucket, and those that only a folder has.
func everything(t *testing.T, b *objects.Bucket) map[string]error {
	t.Helper()
	errs := map[string]error{
		"upload": b.Upload(t.Context(), "a/3", strings.NewReader("three")),
		"new":    b.Create(t.Context(), "new/folder/1", nil),
	}
	_, errs["make"] = b.MakeDir("made")
	for name, request := range requests {
		errs[name] = request(t.Context(), b)
	}
	return errs
}

func TestFoldersThatVanish(t *testing.T) {
	for name, c := range map[string]struct {
		vanish func(t *testing.T, dir string)
		there  bool // another folder is
	}{
		"removed": {func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) }, false},
		"moved":   {func(t *testing.T, dir string) { require.NoError(t, os.Rename(dir, dir+"-moved")) }, false},
		"a file":  {func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)); touch(t, dir) }, false},
		"a link to nothing": {func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.Symlink("nothing", dir))
		}, false},
		"not mounted": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir, dir+"-moved"))
			mkdir(t, dir)
		}, true},
		"another one": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir, dir+"-moved"))
			require.NoError(t, os.CopyFS(dir, os.DirFS(dir+"-moved")))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			b := openDir(t, mkdir(t, dir))
			require.NoError(t, b.Create(t.Context(), "a/1", []byte("one")))
			c.vanish(t, dir)
			for what, err := range everything(t, b) {
				assert.ErrorIs(t, err, objects.ErrGone, what)
				assert.NotErrorIs(t, err, objects.ErrNotFound, what)
				assert.NotErrorIs(t, err, os.ErrNotExist, what)
			}
			if !c.there {
				info, err := os.Stat(dir)
				assert.False(t, err == nil && info.IsDir(), "writing does not make it again")
			} else {
				for _, name := range []string{"new", "made", "a/2", "a/3"} {
					_, err := os.Stat(filepath.Join(dir, name))
					assert.ErrorIs(t, err, os.ErrNotExist, "nothing is written into it")
				}
			}
			if name == "another one" {
				require.NoError(t, b.Reopen())
			} else {
				assert.ErrorIs(t, b.Reopen(), objects.ErrGone)
				require.NoError(t, os.RemoveAll(dir))
				mkdir(t, dir+"-moved", "a")
				require.NoError(t, os.WriteFile(filepath.Join(dir+"-moved", "a", "1"), []byte("one"), 0o600))
				require.NoError(t, os.Rename(dir+"-moved", dir))
				require.NoError(t, b.Reopen())
			}
			data, err := b.Read(t.Context(), "a/1")
			require.NoError(t, err)
			assert.Equal(t, "one", string(data))
			require.NoError(t, b.Create(t.Context(), "new/folder/1", nil))
		})
	}
}

// A bucket of a cloud has nothing to reopen, nor folders.
func TestOnlyFoldersAreReopened(t *testing.T) {
	inTrouble(t, func(t *testing.T, _ *objectstest.Faults, b *objects.Bucket) {
		assert.NoError(t, b.Reopen())
		_, err := b.MakeDir("a")
		assert.ErrorContains(t, err, "is no folder")
	})
}

func TestMakeDir(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		require.NoError(t, objects.MakeDir(filepath.Join(dir, "a", "b", "..", "c")+"/"))
	}
	assert.DirExists(t, filepath.Join(dir, "a", "c"))
	touch(t, dir, "file")
	assert.ErrorContains(t, objects.MakeDir(filepath.Join(dir, "file")), "is not a folder")
	assert.Error(t, objects.MakeDir(filepath.Join(dir, "file", "a")))
	require.NoError(t, os.Symlink("nothing", filepath.Join(dir, "link")))
	assert.Error(t, objects.MakeDir(filepath.Join(dir, "link")))
}

// What a file system fails to do is neither taken for nothing nor for done.
func TestFoldersThatFail(t *testing.T) {
	dir := t.TempDir()
	b := openDir(t, dir)
	require.NoError(t, b.Create(t.Context(), "a/b/1", nil))
	try := func(dir string) []string {
		b, err := objects.Open(context.Background(), dir)
		if err != nil {
			return []string{err.Error()}
		}
		defer b.Close()
		lines := []string{"nothing is listed"}
		for _, err := range b.List(context.Background(), "a/") {
			if lines[0] = "listed"; err != nil {
				lines[0] = err.Error()
			}
		}
		_, err = b.Stat(context.Background(), "a/b/1")
		return append(lines, fmt.Sprint(err), fmt.Sprint(objects.MakeDir(filepath.Join(dir, "new", "folder"))))
	}
	run := func(arguments ...string) []string {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "new")))
		return objectstest.UnderStrace(t, dir, try, arguments...)
	}
	assert.Equal(t, []string{"listed", "<nil>", "<nil>"}, run("-e", "trace=fsync"))
	for _, unreadable := range []string{"a", "a/b"} {
		lines := run("-P", filepath.Join(dir, unreadable), "-e", "inject=getdents64:error=EACCES")
		require.Len(t, lines, 3)
		assert.Contains(t, lines[0], unreadable+": permission denied")
	}
	lines := run("-P", dir, "-e", "inject=newfstatat:error=EIO:when=1+")
	assert.Contains(t, lines[0], "input/output error")
	lines = run("-P", filepath.Join(dir, "a/b/1"), "-e", "inject=newfstatat:error=EIO")
	assert.Contains(t, lines[1], "input/output error")
	for _, parent := range []string{"", "new"} {
		lines = run("-P", filepath.Join(dir, parent), "-e", "inject=fsync:error=EIO")
		assert.Contains(t, lines[2], "input/output error", "the folder in %q", parent)
	}
}
