package objects

import (
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
	"sync"

	"github.com/tandem-ann/tandem/index/sections"
)

// folder is a bucket whose objects are the files of a folder.
type folder struct {
	dir string
	// The system calls that decide between writers and that make names durable.
	link    func(from, to string) error
	syncDir func(dir string) error

	mu      sync.Mutex
	root    fs.FileInfo            // which folder it is
	pin     *os.File               // keeps its inode from being another's; nil if it may not be read
	durable map[string]fs.FileInfo // the folders in it whose names are known to be
}

func openFolder(dir string) (*folder, error) {
	f := &folder{dir: filepath.Clean(dir), link: os.Link, syncDir: sections.SyncDir, durable: map[string]fs.FileInfo{}}
	if err := f.take(); err != nil {
		return nil, err
	}
	return f, nil
}

// take takes the folder that is at the path now.
func (f *folder) take() error {
	info, err := os.Stat(f.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", f.dir)
	}
	pin, err := os.Open(f.dir)
	if err == nil {
		info, err = pin.Stat()
	} else if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.root, f.pin, pin = info, pin, f.pin
		clear(f.durable)
	}
	if pin != nil {
		err = errors.Join(err, pin.Close())
	}
	return err
}

func (f *folder) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	pin := f.pin
	f.pin = nil
	if pin == nil {
		return nil
	}
	return pin.Close()
}

// path returns the file of an object.
func (f *folder) path(key string) string { return filepath.Join(f.dir, filepath.FromSlash(key)) }

// here returns an error of class [ErrGone] unless the folder is the one that was
// opened. It is asked after whatever was found, or not found, in the folder, and before
// anything is written.
func (f *folder) here() error {
	info, err := os.Stat(f.dir)
	if err != nil {
		// Whoever asks about a file in it must not take this for the file's absence.
		return fmt.Errorf("folder %s: %w: %s", f.dir, ErrGone, err.Error())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !os.SameFile(info, f.root) {
		return fmt.Errorf("folder %s: %w: another folder is there than when it was opened", f.dir, ErrGone)
	}
	return nil
}

func (f *folder) reopen() error {
	if f.here() == nil {
		return nil
	}
	entries, err := os.ReadDir(f.dir)
	if err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !hidden(e.Name()) }) {
		err = errors.New("it is empty")
	}
	if err == nil {
		err = f.take()
	}
	if err != nil {
		return fmt.Errorf("reopen %s: %w: %s", f.dir, ErrGone, err.Error())
	}
	return nil
}

// hidden reports whether a name in a folder is none of an object's.
func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// explain returns the error of what was done to a file: that the bucket is gone, if it
// is.
func (f *folder) explain(err error) error {
	if gone := f.here(); gone != nil {
		return gone
	}
	return err
}

// absent explains that a file cannot be looked at: an error of class [ErrNotFound] if
// there is no such name, and another one if a symbolic link leads to nothing.
func (f *folder) absent(key string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return f.explain(err)
	}
	path := f.dir
	for part := range strings.SplitSeq(key, "/") {
		path = filepath.Join(path, part)
		if err := leads(path); err != nil {
			return f.explain(err)
		}
	}
	return f.explain(ErrNotFound)
}

// leads returns an error if a name is a symbolic link to nothing, or what it is cannot be
// found out. The error is not of the class of a file that does not exist.
func leads(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("symbolic link %s leads to nothing", path)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// look describes a file, which must be one.
func (f *folder) look(key string) (fs.FileInfo, error) {
	path := f.path(key)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, f.absent(key, err)
	case info.IsDir():
		return nil, f.explain(ErrNotFound) // the files in it are objects
	}
	return info, f.explain(regular(path, info))
}

// regular returns an error for what is neither a file nor a folder: reading it might
// not end.
func regular(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a folder, but %s", path, info.Mode().Type())
	}
	return nil
}

func (f *folder) open(ctx context.Context, key string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := f.look(key); err != nil {
		return nil, err
	}
	file, err := os.Open(f.path(key))
	if err != nil {
		return nil, f.absent(key, err)
	}
	return file, nil
}

func (f *folder) read(ctx context.Context, key string) ([]byte, error) {
	file, err := f.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(key), err)
	}
	defer file.Close() // nothing was written
	data, err := io.ReadAll(file)
	if err = f.explain(err); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(key), err)
	}
	return data, nil
}

func (f *folder) reader(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	file, err := f.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(key), err)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", f.path(key), err), file.Close())
	}
	return file, nil
}

func (f *folder) stat(ctx context.Context, key string) (Object, error) {
	if err := ctx.Err(); err != nil {
		return Object{}, fmt.Errorf("look up %s: %w", f.path(key), err)
	}
	info, err := f.look(key)
	if err != nil {
		return Object{}, fmt.Errorf("look up %s: %w", f.path(key), err)
	}
	return Object{Key: key, Size: info.Size(), Time: info.ModTime()}, nil
}

// list lists the files below the folder whose names, relative to it, begin with prefix.
func (f *folder) list(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		list, err := f.listAll(ctx, prefix)
		if err != nil {
			yield(Object{}, fmt.Errorf("list %s: %w", f.path(prefix), err))
			return
		}
		for _, o := range list {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (f *folder) listAll(ctx context.Context, prefix string) ([]Object, error) {
	within := strings.Trim(prefix[:strings.LastIndexByte(prefix, '/')+1], "/")
	base := f.path(within)
	info, err := os.Stat(base)
	if err != nil {
		if err = f.absent(within, err); errors.Is(err, ErrNotFound) {
			return nil, nil // no object has such a name
		}
		return nil, err
	}
	if !info.IsDir() {
		return nil, f.explain(fmt.Errorf("%s is not a folder", base))
	}
	key := func(path string) string {
		name, _ := filepath.Rel(f.dir, path) // it is below it
		return filepath.ToSlash(name)
	}
	var list []Object
	err = Walk(ctx, base, func(path string) bool {
		return !hidden(filepath.Base(path)) && strings.HasPrefix(key(path), prefix)
	}, func(path string, info fs.FileInfo) error {
		list = append(list, Object{Key: key(path), Size: info.Size(), Time: info.ModTime()})
		return regular(path, info)
	})
	if err = f.explain(err); err != nil {
		return nil, err
	}
	// A walk is in the order of folders, not of whole names.
	slices.SortFunc(list, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return list, nil
}

// Walk calls visit for what is in a folder and below it, other than folders, in no order
// to rely on, and follows symbolic links, as reads and writes do. What it does not want
// it leaves out, and does not look at. What goes meanwhile is left out. A link to
// nothing, links in a ring, and a folder that cannot be read are errors.
func Walk(ctx context.Context, dir string, want func(path string) bool, visit func(path string, info fs.FileInfo) error) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return (&walk{want, visit}).folder(ctx, dir, []fs.FileInfo{info})
}

type walk struct {
	want  func(string) bool
	visit func(string, fs.FileInfo) error
}

// folder walks a folder; within are it and those that it is in.
func (w *walk) folder(ctx context.Context, dir string, within []fs.FileInfo) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return unlessGone(dir, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, e.Name())
		if !w.want(path) {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			if err := unlessGone(path, err); err != nil {
				return err
			}
			continue
		}
		if !info.IsDir() {
			if err := w.visit(path, info); err != nil {
				return err
			}
			continue
		}
		if slices.ContainsFunc(within, func(above fs.FileInfo) bool { return os.SameFile(above, info) }) {
			return fmt.Errorf("symbolic link %s leads back to a folder that it is in", path)
		}
		if err := w.folder(ctx, path, append(within[:len(within):len(within)], info)); err != nil {
			return err
		}
	}
	return nil
}

// unlessGone returns nil if err says that a file does not exist, and there is no link of
// its name either.
func unlessGone(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return leads(path)
}
