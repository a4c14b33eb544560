package input

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// A File is one file of an input, open for reading: what it yields does not change, or
// [Set.Unchanged] says so. Any number of goroutines may read it. Who opened the input
// closes its files; readers do not.
type File interface {
	io.ReaderAt
	// Size is the number of bytes.
	Size() int64
	// Name names the file for people: its path or URL.
	Name() string
}

// file is a [File] that is a descriptor, or an object that is read where it is.
type file struct {
	io.ReaderAt
	os       *os.File // nil for an object that is read where it is
	object   *object  // nil for a descriptor
	size     int64
	path     string          // for people
	location string          // that opens it again; empty for what cannot be
	recorded string          // in a manifest
	written  time.Time       // when it was last written, as it was opened
	spooled  bool            // it is a copy that nobody else can write
	digest   manifest.Digest // empty until it is known
}

func (f *file) Size() int64  { return f.size }
func (f *file) Name() string { return f.path }

// Close closes it.
func (f *file) Close() error {
	if f.object != nil {
		return f.object.Close()
	}
	return f.os.Close()
}

// pipeName is what is recorded as the name of what has none: a pipe, or a descriptor that
// the shell has opened.
const pipeName = "pipe"

// RecordedName returns the name under which a manifest records the file of a path: without
// its folder, and without a number that a shell chose.
func RecordedName(path string) string {
	if isDescriptor(path) {
		return pipeName
	}
	return filepath.Base(path)
}

// isDescriptor reports whether a path names what a process has open, such as a shell's
// <(...), and not a file.
func isDescriptor(path string) bool {
	path = filepath.Clean(path)
	if dir, base := filepath.Split(path); dir == "/dev/" && (base == "stdin" || base == "stdout" || base == "stderr") {
		return true
	}
	dir := filepath.Dir(path)
	return dir == "/dev/fd" || strings.HasPrefix(dir, "/proc/") && filepath.Base(dir) == "fd"
}

// openFile opens a file of this machine. What is not a regular one it copies into a spool.
func (s *spool) openFile(path, recorded string) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		if s.InPlace {
			return nil, errInPlace
		}
		return s.copyPipe(path)
	}
	f, err := os.Open(path)
	if errors.Is(err, syscall.EMFILE) {
		err = fmt.Errorf("%w: all files of an input are open at a time: raise the limit of this process (ulimit -n)", err)
	}
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	location := path
	if isDescriptor(path) {
		recorded, location = pipeName, ""
	}
	return &file{ReaderAt: f, os: f, size: info.Size(), path: path, location: location, recorded: recorded, written: info.ModTime()}, nil
}

// unchanged returns an error if the file was written to since it was opened.
func (f *file) unchanged() error {
	if f.spooled {
		return nil
	}
	if f.object != nil {
		return f.object.unchanged(f.path)
	}
	info, err := f.os.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("look at %s again: %w", f.path, err)
	case info.Size() != f.size:
		return fmt.Errorf("%s %w: it had %d bytes and has %d", f.path, ErrChanged, f.size, info.Size())
	case !info.ModTime().Equal(f.written):
		return fmt.Errorf("%s %w: it was last written %s, when it was opened, and %s now",
			f.path, ErrChanged, f.written.UTC().Format(time.RFC3339Nano), info.ModTime().UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// is reports whether two files, which look alike, are one.
func (f *file) is(other *file) (bool, error) {
	if f.spooled || f.object != nil {
		return true, nil // of one URL
	}
	a, err1 := f.os.Stat()
	b, err2 := other.os.Stat()
	if err := errors.Join(err1, err2); err != nil {
		return false, fmt.Errorf("open %s: %w", f.path, err)
	}
	return os.SameFile(a, b), nil
}
