package input

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// A Set is the files of one input, open. It is for one goroutine at a time; its files are
// for any number.
type Set struct {
	files []*file
	notes []string
	open  []io.Closer // what files are read from
}

// Open opens the files that paths mean, in the order of the paths, and of each in the
// order of whole paths. It copies pipes and objects, which may take long, and fails if ctx
// ends. A path that means no file, and a file that is there twice, are errors.
func Open(ctx context.Context, paths []string, accept Accept, o Options) (_ *Set, err error) {
	set := &Set{}
	defer func() {
		if err != nil {
			err = errors.Join(err, set.Close())
		}
	}()
	for _, path := range paths {
		if path == "" {
			return nil, errors.New("open input: a path is empty; accepted: a file, a folder, a glob, or a URL of one")
		}
		s := &search{path: path, accept: accept, spool: &spool{Options: o, ctx: ctx}}
		files, err := s.run(ctx)
		set.files = append(set.files, files...) // to be closed
		set.open = append(set.open, s.open...)
		if err != nil {
			if of := (*fs.PathError)(nil); errors.As(err, &of) && of.Path == path {
				err = of.Err // the path is named here
			}
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		set.notes = append(set.notes, s.notes()...)
	}
	if err := set.checkTwice(); err != nil {
		return nil, err
	}
	return set, nil
}

// checkTwice returns an error if two paths lead to one file.
func (s *Set) checkTwice() error {
	type looks struct {
		size, written int64
		url           string
	}
	alike := map[looks][]*file{}
	for _, f := range s.files {
		if f.recorded == pipeName {
			continue
		}
		key := looks{size: f.size, url: f.path}
		if !f.spooled && f.object == nil {
			key = looks{size: f.size, written: f.written.UnixNano()}
		}
		for _, other := range alike[key] {
			same, err := f.is(other)
			if err != nil {
				return err
			}
			if same {
				return fmt.Errorf("open %s: it is the same file as %s, and each is read once", f.path, other.path)
			}
		}
		alike[key] = append(alike[key], f)
	}
	return nil
}

// Files returns the files.
func (s *Set) Files() []File {
	list := make([]File, len(s.files))
	for i, f := range s.files {
		list[i] = f
	}
	return list
}

// Places returns of each file the path or URL that opens it again, wherever that means the
// same; empty for a pipe, and for an object whose name no URL can have.
func (s *Set) Places() []string {
	list := make([]string, len(s.files))
	for i, f := range s.files {
		list[i] = f.location
	}
	return list
}

// Recorded returns the names that a manifest records of the files.
func (s *Set) Recorded() []string {
	list := make([]string, len(s.files))
	for i, f := range s.files {
		list[i] = f.recorded
	}
	return list
}

// Size returns the number of bytes of all files.
func (s *Set) Size() int64 {
	var n int64
	for _, f := range s.files {
		n += f.size
	}
	return n
}

// Notes returns what was left out, as sentences for people.
func (s *Set) Notes() []string { return s.notes }

// Partition returns the value that the path of a file has for a key of Hive partitions, as
// dt=2026-11-20 has one for dt. The last one counts.
func (s *Set) Partition(file int, key string) (value string, ok bool) {
	parts := strings.Split(s.files[file].recorded, "/")
	for _, part := range slices.Backward(parts[:len(parts)-1]) {
		if k, v, found := strings.Cut(part, "="); found && unescape(k) == key {
			return unescape(v), true
		}
	}
	return "", false
}

// Describe returns what a manifest records of the files, under a role. It hashes what
// readers read, and calls step, unless it is nil, with the number of bytes that it has
// hashed.
func (s *Set) Describe(ctx context.Context, role string, step func(done int64)) ([]manifest.Input, error) {
	var list []manifest.Input
	var done int64
	for _, f := range s.files {
		if f.digest == "" {
			hash := sha256.New()
			buffer := make([]byte, copyBuffer)
			for at := int64(0); at < f.size; {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				n, err := f.ReadAt(buffer[:min(int64(len(buffer)), f.size-at)], at)
				hash.Write(buffer[:n])
				at += int64(n)
				if errors.Is(err, io.EOF) && at < f.size {
					err = io.ErrUnexpectedEOF
				}
				if err != nil && !errors.Is(err, io.EOF) {
					return nil, errors.Join(f.unchanged(), fmt.Errorf("digest %s: %w", f.path, err))
				}
				if step != nil {
					step(done + at)
				}
			}
			f.digest = manifest.Digest(hex.EncodeToString(hash.Sum(nil)))
		}
		done += f.size
		list = append(list, manifest.Input{Role: role, Name: f.recorded, Size: f.size, Digest: f.digest})
	}
	return list, nil
}

// Unchanged returns an error if a file was written to since it was opened, so that what
// was read of it is not what was hashed.
func (s *Set) Unchanged() error {
	for _, f := range s.files {
		if err := f.unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files. It may be called twice.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	for _, c := range s.open {
		errs = append(errs, c.Close())
	}
	s.files, s.open = nil, nil
	return errors.Join(errs...)
}
