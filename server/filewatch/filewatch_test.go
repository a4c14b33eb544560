package filewatch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/server/filewatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRunTellsOnce changes files as mounted secrets are changed: each content is told of once,
// and what cannot be used leaves what was before.
func TestRunTellsOnce(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1": "one", "2": "bad", "3": "three"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "file"), []byte(text), 0o600))
	}
	swap := func(to string) {
		next := filepath.Join(dir, "next")
		require.NoError(t, os.Symlink(to, next))
		require.NoError(t, os.Rename(next, filepath.Join(dir, "data")))
	}
	swap("1")
	used := ""
	var good atomic.Bool // what is bad counts by now
	files := filewatch.New("names", 10, func(contents [][]byte) error {
		if string(contents[0]) == "bad" && !good.Load() {
			return errors.New("it is bad")
		}
		used = string(contents[0])
		return nil
	}, filepath.Join(dir, "data", "file"))
	require.NoError(t, files.Look())
	require.Equal(t, "one", used)

	ctx, cancel := context.WithCancel(t.Context())
	now, told := make(chan os.Signal), make(chan error, 10)
	var running sync.WaitGroup
	running.Go(func() {
		filewatch.Run(ctx, now, func(name string, err error) {
			require.Equal(t, "names", name)
			told <- err
		}, files)
	})
	look := func() { now <- syscall.SIGHUP }
	look()
	swap("2")
	look()
	require.ErrorContains(t, <-told, "it is bad")
	look()
	look()
	good.Store(true)
	look()
	require.NoError(t, <-told)
	look()
	swap("3")
	look()
	require.NoError(t, <-told)
	require.NoError(t, os.Remove(filepath.Join(dir, "data")))
	look()
	require.ErrorIs(t, <-told, os.ErrNotExist)
	look()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "3", "file"), []byte("far too long"), 0o600))
	swap("3")
	look()
	require.ErrorContains(t, <-told, "has more than 10 bytes")
	look()
	cancel()
	running.Wait()
	require.Empty(t, told)
	require.Equal(t, "three", used)
}
