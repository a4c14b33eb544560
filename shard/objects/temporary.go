package objects

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const temporarySuffix = ".tmp"

// IsTemporary reports whether a file of a folder is one that is being written, or was
// when its writer died.
func IsTemporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, temporarySuffix)
}

// createLocked makes a temporary file that [RemoveTemporary] leaves alone until it is
// closed.
func createLocked(dir, pattern string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, pattern)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		_, statErr := os.Stat(f.Name())
		if err == nil && statErr == nil {
			return f, nil
		}
		err = errors.Join(err, f.Close())
		if err != nil || !errors.Is(statErr, fs.ErrNotExist) {
			return nil, errors.Join(err, statErr, removeIfThere(f.Name()))
		}
		// A RemoveTemporary was quicker than the lock.
	}
}

// RemoveTemporary removes a temporary file that nobody is writing, and reports whether
// nobody is. A dry run removes nothing.
func RemoveTemporary(path string, dryRun bool) (dead bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait for a writer
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil // it has been placed, or is another user's, who may be writing it
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // and unlock it
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was placed before the lock
	}
	if dryRun {
		return true, nil
	}
	return true, removeIfThere(path)
}
