package objects

import (
	"context"
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

// RemoveDead removes what lies in a folder of the bucket, and in those in it, of objects whose
// writers died before they were whole. In a bucket that is no folder there is nothing such: what
// was not uploaded to its end is no object.
func (b *Bucket) RemoveDead(ctx context.Context, folder string) error {
	if b.folder == nil {
		return nil
	}
	dir := b.folder.path(strings.TrimSuffix(folder, "/"))
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return Walk(ctx, dir, func(string) bool { return true }, func(path string, info fs.FileInfo) error {
		if !IsTemporary(info.Name()) {
			return nil
		}
		_, err := RemoveTemporary(path, false)
		return err
	})
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
