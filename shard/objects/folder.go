package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
)

// createDurably writes a whole file that must not be there yet. Linking the synced
// temporary file to the name decides between writers, in one process or in several.
func createDurably(path string, data []byte) error {
	return placeDurably(context.Background(), path, bytes.NewReader(data), func(temporary string) error {
		err := os.Link(temporary, path)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create %s: %w", path, ErrExists)
		}
		return errors.Join(err, os.Remove(temporary))
	})
}

// writeDurably writes a whole file.
func writeDurably(path string, data []byte) error {
	return copyDurably(context.Background(), path, bytes.NewReader(data))
}

// copyDurably writes a whole file from r.
func copyDurably(ctx context.Context, path string, r io.Reader) error {
	return placeDurably(ctx, path, r, func(temporary string) error { return os.Rename(temporary, path) })
}

// placeDurably writes and syncs a temporary file beside path, has it placed, and syncs
// the folder. The file is locked until it is placed: see [RemoveTemporary].
func placeDurably(ctx context.Context, path string, r io.Reader, place func(temporary string) error) error {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	f, err := createLocked(dir, "."+filepath.Base(path)+".*"+temporarySuffix)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, ctx.Err())
	if err == nil {
		err = f.Chmod(0o644) // a server may run as another user
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = place(f.Name())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, removeIfThere(f.Name()))
	}
	return sections.SyncDir(dir)
}

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
	f, err := os.Open(path)
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

// makeDir makes a folder and what is above it, durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return sections.SyncDir(filepath.Dir(dir))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func removeDurably(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", path, ErrNotFound)
	}
	if err != nil {
		return err
	}
	return sections.SyncDir(filepath.Dir(path))
}

// listFolder lists the files below a folder whose names, relative to it, begin with
// prefix. A file that goes while it lists is left out; gocloud.dev's driver fails then.
func listFolder(ctx context.Context, dir, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		root := filepath.Join(dir, filepath.FromSlash(prefix[:strings.LastIndexByte(prefix, '/')+1]))
		var list []Object
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil {
				err = ctx.Err()
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.IsDir() || e.Name()[0] == '.' { // a dot: being written
				return err
			}
			name, err := filepath.Rel(dir, path)
			if key := filepath.ToSlash(name); err == nil && strings.HasPrefix(key, prefix) {
				info, infoErr := e.Info()
				if infoErr == nil {
					list = append(list, Object{Key: key, Size: info.Size(), Time: info.ModTime()})
				} else if !errors.Is(infoErr, fs.ErrNotExist) {
					return infoErr
				}
			}
			return err
		})
		if err != nil {
			yield(Object{}, fmt.Errorf("list %s: %w", root, err))
			return
		}
		// A walk is in the order of folders, not of whole names.
		slices.SortFunc(list, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
		for _, o := range list {
			if !yield(o, nil) {
				return
			}
		}
	}
}
