package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
)

// create writes a whole file that must not be there yet. Linking the synced temporary
// file to the name decides between writers, in one process or in several.
func (f *folder) create(ctx context.Context, key string, data []byte) error {
	err := f.place(ctx, key, bytes.NewReader(data), func(temporary, path string) error {
		err := f.link(temporary, path)
		if noLinks(err) {
			return fmt.Errorf("the file system has no hard links, without which nothing can be created only if it is not there: %w", err)
		}
		if err == nil {
			_ = os.Remove(temporary) // a name too many harms nothing, and Collect removes it
		}
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		err = ErrExists
		if settleErr := f.settle(key); settleErr != nil {
			err = settleErr
		}
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", f.path(key), err)
	}
	return nil
}

// noLinks reports whether an error of linking a file that was just made, in the folder
// where it was made, says that the file system cannot.
func noLinks(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EMLINK)
}

// settle makes the name of a file durable whose writer may have died before it did.
func (f *folder) settle(key string) error {
	path := f.path(key)
	file, err := os.Open(path)
	if err != nil {
		if err = f.absent(key, err); errors.Is(err, ErrNotFound) {
			return nil // whoever reads it finds that out
		}
		return err
	}
	err = errors.Join(file.Sync(), file.Close(), f.syncDir(filepath.Dir(path)))
	return notDurable("an object is there", f.explain(err))
}

// settleNames makes the names in a folder durable, and that others are gone.
func (f *folder) settleNames(prefix string) error {
	dir := f.path(prefix)
	err := f.syncDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.absent(prefix, err); errors.Is(err, ErrNotFound) {
			return nil // it has no names
		}
	}
	return notDurable("what was done in "+dir+" can be seen", f.explain(err))
}

// notDurable gives the error of a sync the class [ErrNotDurable], and says what was done.
func notDurable(done string, err error) error {
	if err == nil || errors.Is(err, ErrGone) {
		return err
	}
	return fmt.Errorf("%s, but %w: %w", done, ErrNotDurable, err)
}

// write writes a whole file.
func (f *folder) write(ctx context.Context, key string, data []byte) error {
	if err := f.place(ctx, key, bytes.NewReader(data), os.Rename); err != nil {
		return fmt.Errorf("write %s: %w", f.path(key), err)
	}
	return nil
}

// upload writes a whole file from r.
func (f *folder) upload(ctx context.Context, key string, r io.Reader) error {
	if err := f.place(ctx, key, r, os.Rename); err != nil {
		return fmt.Errorf("upload %s: %w", f.path(key), err)
	}
	return nil
}

// place writes and syncs a temporary file beside an object's, has it placed, and syncs
// the folder. The file is locked until it is placed: see [RemoveTemporary].
func (f *folder) place(ctx context.Context, key string, r io.Reader, place func(temporary, path string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.here(); err != nil {
		return err
	}
	path := f.path(key)
	dir := filepath.Dir(path)
	if err := f.makeDir(parent(key)); err != nil {
		return f.explain(err)
	}
	t, err := createLocked(dir, "."+filepath.Base(path)+".*"+temporarySuffix)
	if err != nil {
		return f.explain(err)
	}
	defer t.Close() // and unlock it: what was written is synced before, or given up
	_, err = io.Copy(t, &cancelled{ctx, r})
	if err == nil {
		err = t.Chmod(0o644) // a server may run as another user
	}
	if err == nil {
		err = t.Sync()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = place(t.Name(), path)
	}
	if err != nil {
		return f.explain(errors.Join(err, removeIfThere(t.Name())))
	}
	return notDurable("it is written", f.explain(f.syncDir(dir)))
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// parent returns the name of the folder that an object is in, empty for the bucket's.
func parent(key string) string {
	return key[:max(strings.LastIndexByte(key, '/'), 0)]
}

// makeDir makes a folder and those above it, but for the bucket's own, durably. Another
// process may have made one and not synced it yet, so that the first use of each syncs
// it.
func (f *folder) makeDir(name string) error {
	if name == "" {
		return nil
	}
	if err := f.makeDir(parent(name)); err != nil {
		return err
	}
	dir := f.path(name)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(dir, 0o755); err == nil || errors.Is(err, fs.ErrExist) {
			info, err = os.Stat(dir)
		}
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	f.mu.Lock()
	known := f.durable[name]
	f.mu.Unlock()
	if known != nil && os.SameFile(known, info) {
		return nil
	}
	if err := f.syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.durable[name] = info
	return nil
}

// MakeDir makes a folder, and those above it that are missing, durably.
func MakeDir(dir string) error {
	dir = filepath.Clean(dir)
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		if above := filepath.Dir(dir); above != dir {
			if err := MakeDir(above); err != nil {
				return err
			}
		}
		err = os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			_, err = os.Stat(dir) // a link to nothing is there too
		}
	}
	if err != nil {
		return err
	}
	// One that was there may have been made by a process that has not synced it.
	err = sections.SyncDir(filepath.Dir(dir))
	if !made && errors.Is(err, fs.ErrPermission) {
		return nil // it is in a folder of someone else's, who made it
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f *folder) delete(ctx context.Context, key string) error {
	if err := f.remove(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", f.path(key), err)
	}
	return nil
}

func (f *folder) remove(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.here(); err != nil {
		return err
	}
	path := f.path(key)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return f.absent(key, err)
	case info.IsDir():
		return ErrNotFound // the files in it are objects
	}
	if err := os.Remove(path); err != nil {
		return f.absent(key, err)
	}
	return notDurable("it is deleted", f.explain(f.syncDir(filepath.Dir(path))))
}
