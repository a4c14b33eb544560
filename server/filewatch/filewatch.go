// Package filewatch reads small files again when they change: secrets that are rotated while a
// server runs. What cannot be used leaves what was read before in use.
//
// Files are compared by what they have, which finds a change whatever was replaced: the file,
// a link to it, or the folder that it is in, as mounted secrets are swapped.
package filewatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Every is how often files are looked at.
const Every = 3 * time.Second

// settle is how long files that cannot be used have to become so: one may be replaced before
// another.
const settle = 200 * time.Millisecond

// Files are some files that are used together. Look is for one goroutine at a time.
type Files struct {
	name  string
	paths []string
	most  int64
	load  func(contents [][]byte) error
	seen  [sha256.Size]byte // of what was looked at last
	began bool
}

// New returns files that load uses, as long as none has more than so many bytes. The name is
// what is told of. Nothing is read yet.
func New(name string, most int64, load func(contents [][]byte) error, paths ...string) *Files {
	return &Files{name: name, paths: paths, most: most, load: load}
}

// Look reads the files and uses what they have, if that is not what was looked at before.
// An error names the files.
func (f *Files) Look() error {
	_, err := f.look()
	return err
}

// look also reports whether the files were others than before.
func (f *Files) look() (changed bool, err error) {
	contents, readErr := f.read()
	hash := sha256.New()
	for _, c := range contents {
		fmt.Fprintf(hash, "%d:", len(c))
		hash.Write(c)
	}
	if readErr != nil {
		fmt.Fprint(hash, readErr)
	}
	seen := [sha256.Size]byte(hash.Sum(nil))
	if f.began && seen == f.seen {
		return false, nil
	}
	f.began, f.seen = true, seen
	if readErr != nil {
		return true, fmt.Errorf("%s: %w", f.name, readErr)
	}
	if err := f.load(contents); err != nil {
		return true, fmt.Errorf("%s: %s: %w", f.name, f.paths[0], err)
	}
	return true, nil
}

func (f *Files) read() (contents [][]byte, err error) {
	for _, path := range f.paths {
		data, err := readSome(path, f.most)
		if err != nil {
			return contents, err
		}
		contents = append(contents, data)
	}
	return contents, nil
}

// readSome reads a file that has not more than so many bytes.
func readSome(path string, most int64) (_ []byte, err error) {
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
	changed, err := f.look()
	if !changed {
		return
	}
	if err != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		if other, again := f.look(); other {
			err = again
		}
	}
	told(f.name, err)
}
