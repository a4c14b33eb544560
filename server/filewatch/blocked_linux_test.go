package filewatch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/server/filewatch"
)

// block has whoever opens a regular file wait, as on a mount that does not answer, until
// answer is called: a lease does.
func block(t *testing.T, path string) (answer func()) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("the file system has no leases")
	}
	require.NoError(t, err)
	answer = sync.OnceFunc(func() { require.NoError(t, f.Close()) })
	t.Cleanup(answer)
	return answer
}

func numbers(t *testing.T) (files *filewatch.Files, path string, used *string) {
	path, used = filepath.Join(t.TempDir(), "file"), new(string)
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
	return filewatch.New("numbers", 10, func(contents [][]byte) error {
		*used = string(contents[0])
		return nil
	}, path), path, used
}

// TestFilesThatDoNotAnswer has a file whose mount hangs: that is told of once, what was read
// stays in use, and the file is read again once the mount answers.
func TestFilesThatDoNotAnswer(t *testing.T) {
	files, path, used := numbers(t)
	require.NoError(t, files.Look())
	files.SetPatience(10 * time.Millisecond)
	answer := block(t, path)
	require.EqualError(t, files.Look(), "numbers: "+path+" could not be read within 10ms: what it is on does not answer")
	for range 100 {
		require.NoError(t, files.Look(), "it is told once")
	}
	require.Equal(t, "one", *used)
	files.SetPatience(time.Minute)
	*used = ""
	answer()
	require.Eventually(t, func() bool { return files.Look() == nil && *used == "one" }, time.Minute, time.Millisecond)
}

// TestRunEndsWhileAFileIsRead ends what looks at a file whose mount hangs.
func TestRunEndsWhileAFileIsRead(t *testing.T) {
	files, path, _ := numbers(t)
	require.NoError(t, files.Look())
	block(t, path)
	files.SetPatience(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	now := make(chan os.Signal)
	var running sync.WaitGroup
	running.Go(func() {
		filewatch.Run(ctx, now, func(_ string, err error) { t.Error("told", err) }, files)
	})
	now <- syscall.SIGHUP
	cancel()
	running.Wait()
}

// TestOnlyRegularFiles does not open a pipe to which nobody writes, nor a folder.
func TestOnlyRegularFiles(t *testing.T) {
	files, path, used := numbers(t)
	require.NoError(t, files.Look())
	require.NoError(t, os.Remove(path))
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	require.NoError(t, os.Symlink(pipe, path))
	files.SetPatience(time.Minute)
	require.EqualError(t, files.Look(), "numbers: "+path+" is of mode prw-------, want a regular file")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.EqualError(t, files.Look(), "numbers: "+path+" is of mode drwx------, want a regular file")
	require.Equal(t, "one", *used)
}
