package objects_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

func keys(t *testing.T, b *objects.Bucket, prefix string) (list []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), prefix) {
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%s %d", o.Key, o.Size))
	}
	return list
}

func TestBucket(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		ctx := t.Context()
		assert.Empty(t, keys(t, b, ""))
		_, err := b.Read(ctx, "a/1")
		assert.ErrorIs(t, err, objects.ErrNotFound)
		_, err = b.Reader(ctx, "a/1", 0)
		assert.ErrorIs(t, err, objects.ErrNotFound)
		_, err = b.Stat(ctx, "a/1")
		assert.ErrorIs(t, err, objects.ErrNotFound)
		assert.ErrorIs(t, b.Delete(ctx, "a/1"), objects.ErrNotFound)

		require.NoError(t, b.Create(ctx, "a/1", []byte("one")))
		err = b.Create(ctx, "a/1", []byte("other"))
		assert.ErrorIs(t, err, objects.ErrExists)
		assert.ErrorContains(t, err, "a/1: object exists")
		require.NoError(t, b.Write(ctx, "a/2", []byte("two")))
		require.NoError(t, b.Write(ctx, "a/2", []byte("more")))
		require.NoError(t, b.Upload(ctx, "a-b", strings.NewReader("uploaded")))
		data, err := b.Read(ctx, "a/1")
		require.NoError(t, err)
		assert.Equal(t, "one", string(data))
		r, err := b.Reader(ctx, "a/2", 2)
		require.NoError(t, err)
		data, err = io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		assert.Equal(t, "re", string(data))
		assert.Equal(t, []string{"a-b 8", "a/1 3", "a/2 4"}, keys(t, b, ""))
		assert.Equal(t, []string{"a/1 3", "a/2 4"}, keys(t, b, "a/"))
		assert.Equal(t, []string{"a/2 4"}, keys(t, b, "a/2"))
		o, err := b.Stat(ctx, "a/2")
		require.NoError(t, err)
		assert.EqualValues(t, 4, o.Size)
		assert.False(t, o.Time.IsZero())
		require.NoError(t, b.Delete(ctx, "a/1"))
		assert.Equal(t, []string{"a-b 8", "a/2 4"}, keys(t, b, ""))
	})
}

// broken fails after some bytes.
type broken struct{ left int }

var errBroken = errors.New("broken")

func (b *broken) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errBroken
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, nil
}

func TestNothingAppearsOfABrokenUpload(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		for _, bytes := range []int{0, 100, 9 << 20} {
			assert.ErrorIs(t, b.Upload(t.Context(), "x", &broken{bytes}), errBroken)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.Error(t, b.Upload(ctx, "x", strings.NewReader("x")))
		assert.Empty(t, keys(t, b, ""))
		if dir := b.Dir(); dir != "" {
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, entries)
		}
	})
}

func TestListWhileDeleting(t *testing.T) {
	b, err := objects.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	defer b.Close()
	var done sync.WaitGroup
	done.Go(func() {
		for i := range 300 {
			key := fmt.Sprintf("a/%d", i)
			assert.NoError(t, b.Create(t.Context(), key, nil))
			assert.NoError(t, b.Delete(t.Context(), key))
		}
	})
	for range 300 {
		keys(t, b, "a/")
	}
	done.Wait()
}

func TestOpenErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for location, want := range map[string]string{
		"":                       "the location is empty; accepted: a folder or a URL",
		"/no/such/folder":        "no such file or directory",
		file:                     "is not a folder",
		"file://host/x":          "accepted: file:///PATH without a host or a query",
		"ftp://bucket":           `no driver registered for "ftp"`,
		"file:///tmp?create_dir": "accepted: file:///PATH without a host or a query",
	} {
		_, err := objects.Open(t.Context(), location)
		assert.ErrorContains(t, err, want, location)
	}
	dir := t.TempDir()
	b, err := objects.Open(t.Context(), "file://"+dir)
	require.NoError(t, err)
	assert.Equal(t, dir, b.Dir())
	require.NoError(t, b.Close())
}
