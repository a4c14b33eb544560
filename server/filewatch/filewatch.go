// Package filewatch reads small files again when they change: secrets that are rotated while a
// server runs. What cannot be used leaves what was read before in use.
//
// Files are compared by what they have, which finds a change whatever was replaced: the file,
// a link to it, or the folder that it is in, as mounted secrets are swapped. What could not be
// used is tried again, since it may be good from some time on, as certificates are.
//
// Only regular files are opened: a pipe would have nobody to write to it. What is on a mount
// that does not answer cannot be read, and reading it cannot be ended. So it is waited for no
// longer than [Patience], by a goroutine that belongs to the files and ends once the mount
// answers; until then there is no other one, and what was read before stays in use.
package filewatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// Every is how often files are looked at.
const Every = 3 * time.Second

// Patience is for how long files may be read.
const Patience = 5 * time.Second

// settle is how long files that cannot be used have to become so: one may be replaced before
// another.
const settle = 200 * time.Millisecond

// Files are some files that are used together. Look is for one goroutine at a time.
type Files struct {
	name   string
	paths  []string
	most   int64
	load   func(contents [][]byte) error
	seen   [sha256.Size]byte // of what was looked at last
	began  bool
	failed bool // what was looked at last could not be used

	patience time.Duration
	late     *reading // that has not ended in time; nil without one
}

// reading is one that may be under way.
type reading struct {
	at   atomic.Int64  // the place of the path that is read
	done chan struct{} // closed at its end, when what follows is there
	read [][]byte
	err  error
}

// New returns files that load uses, as long as none has more than so many bytes. The name is
// what is told of. Nothing is read yet.
func New(name string, most int64, load func(contents [][]byte) error, paths ...string) *Files {
	return &Files{name: name, paths: paths, most: most, load: load, patience: Patience}
}

// Look reads the files and uses what they have, if that is not what was looked at before.
// An error names the files. It waits for no longer than [Patience].
func (f *Files) Look() error { return f.LookContext(context.Background()) }

// LookContext is [Files.Look] for no longer than ctx, whose error it returns if that ends first.
func (f *Files) LookContext(ctx context.Context) error {
	_, err := f.look(ctx)
	return err
}

// look also reports whether the files were others than before, or can be used by now. They were
// not if ctx ends first.
func (f *Files) look(ctx context.Context) (changed bool, err error) {
	contents, readErr := f.read(ctx)
	if ctx.Err() != nil {
		return false, readErr
	}
	hash := sha256.New()
	for _, c := range contents {
		fmt.Fprintf(hash, "%d:", len(c))
		hash.Write(c)
	}
	if readErr != nil {
		fmt.Fprint(hash, readErr)
	}
	seen := [sha256.Size]byte(hash.Sum(nil))
	same := f.began && seen == f.seen
	if same && (!f.failed || readErr != nil) {
		return false, nil //nolint:nilerr // it was told of
	}
	f.began, f.seen = true, seen
	err = f.use(contents, readErr)
	if f.failed = err != nil; same && f.failed {
		return false, nil // likewise
	}
	return true, err
}

// use uses what was read.
func (f *Files) use(contents [][]byte, readErr error) error {
	if readErr != nil {
		return fmt.Errorf("%s: %w", f.name, readErr)
	}
	if err := f.load(contents); err != nil {
		return fmt.Errorf("%s: %s: %w", f.name, f.paths[0], err)
	}
	return nil
}

// read returns what the files have, or an error if that is not known in time.
func (f *Files) read(ctx context.Context) ([][]byte, error) {
	if f.late != nil {
		select {
		case <-f.late.done: // what it has read may be old
			f.late = nil
		default:
			return nil, f.tooLate()
		}
	}
	r := &reading{done: make(chan struct{})}
	go f.readAll(r)
	timer := time.NewTimer(f.patience)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.read, r.err
	case <-ctx.Done():
		f.late = r
		return nil, ctx.Err()
	case <-timer.C:
		f.late = r
		return nil, f.tooLate()
	}
}

// tooLate is the error of what has not ended in time.
func (f *Files) tooLate() error {
	return fmt.Errorf("%s could not be read within %s: what it is on does not answer", f.paths[f.late.at.Load()], f.patience)
}

func (f *Files) readAll(r *reading) {
	defer close(r.done)
	for i, path := range f.paths {
		r.at.Store(int64(i))
		data, err := readSome(path, f.most)
		if err != nil {
			r.err = err
			return
		}
		r.read = append(r.read, data)
	}
}

// readSome reads a regular file that has not more than so many bytes.
func readSome(path string, most int64) (_ []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is of mode %s, want a regular file", path, info.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return data, err
}

// Run looks at files until ctx ends: every few seconds, and whenever something comes from now.
// It calls told for all that have changed, with an error for those that cannot be used, once
// for each content.
func Run(ctx context.Context, now <-chan os.Signal, told func(name string, err error), list ...*Files) {
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-now:
		}
		for _, f := range list {
			f.again(ctx, told)
		}
	}
}

// again looks at files once more, and a while later if they cannot be used.
func (f *Files) again(ctx context.Context, told func(string, error)) {
	changed, err := f.look(ctx)
	if !changed {
		return
	}
	if err != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		if other, again := f.look(ctx); other {
			err = again
		}
	}
	told(f.name, err)
}
