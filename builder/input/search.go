package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/wording"
)

// search looks for the files that one path means.
type search struct {
	path   string // as it was given
	accept Accept
	spool  *spool

	pattern pattern // nil for all that is in a folder
	found   []found
	open    []io.Closer // what files are read from
	hidden  []string    // names that were left out, relative to the folder
	foreign []string
}

// found is a file that was found, and not opened yet.
type found struct {
	place    string // its path or key
	recorded string
	size     int64 // of an object
}

// run returns the files of the path, open; those that are open when it fails, too.
func (s *search) run(ctx context.Context) ([]*file, error) {
	dir, local, err := objects.Folder(s.path)
	switch {
	case err != nil:
		return nil, err
	case local:
		return s.local(ctx, dir)
	}
	return s.bucket(ctx)
}

// local finds and opens files of this machine.
func (s *search) local(ctx context.Context, name string) ([]*file, error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && !info.IsDir():
		f, err := s.openLocal(found{place: name, recorded: RecordedName(name)})
		if f == nil {
			return nil, err
		}
		return []*file{f}, err
	case err == nil:
	case errors.Is(err, os.ErrNotExist) && hasMeta(name):
		if name, s.pattern, err = splitPattern(filepath.ToSlash(name)); err != nil {
			return nil, err
		}
		if name = filepath.FromSlash(name); name == "" {
			name = "."
		}
		if info, err = os.Stat(name); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if err := s.refuseLocalTables(name); err != nil {
		return nil, err
	}
	if err := s.walk(ctx, name, "", []os.FileInfo{info}); err != nil {
		return nil, err
	}
	s.sort()
	var files []*file
	for _, f := range s.found {
		opened, err := s.openLocal(f)
		if opened != nil {
			files = append(files, opened)
		}
		if err = s.leaveOut(f, err); err != nil {
			return files, err
		}
	}
	return files, s.checkAny(len(files))
}

// sort puts what was found in order.
func (s *search) sort() {
	slices.SortFunc(s.found, func(a, b found) int { return strings.Compare(a.recorded, b.recorded) })
	slices.Sort(s.hidden)
}

// leaveOut returns nil if a file is of another sort, and notes that.
func (s *search) leaveOut(f found, err error) error {
	if errors.Is(err, ErrForeign) {
		s.foreign = append(s.foreign, f.recorded)
		return nil
	}
	return err
}

// checkAny returns an error if there is no file at all.
func (s *search) checkAny(files int) error {
	if files > 0 {
		return nil
	}
	text := "no file is there"
	if s.pattern != nil {
		text = "no file matches"
	}
	for _, note := range s.notes() {
		text += "; " + note
	}
	return errors.New(text)
}

// openLocal opens a file of this machine, unless it is of another sort.
func (s *search) openLocal(f found) (*file, error) {
	if s.spool.Partitions {
		f.recorded = withPartitions(f.place, f.recorded)
	}
	opened, err := s.spool.openFile(f.place, f.recorded)
	if err != nil {
		return nil, err
	}
	head := make([]byte, min(headSize, opened.size))
	if _, err = opened.ReadAt(head, 0); err == nil || opened.size == 0 {
		err = s.judge(f.place, head)
	}
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// errInPlace refuses what can be read once only.
var errInPlace = errors.New("it is a pipe, or another thing that can be read once only; accepted here: files and objects, which several processes read")

func (s *search) judge(name string, head []byte) error {
	if s.accept == nil {
		return nil
	}
	return s.accept(name, head)
}

// walk finds the files in a folder and below it. within are the folder and those that it
// is in; relative is its name below the first of them.
func (s *search) walk(ctx context.Context, dir, relative string, within []os.FileInfo) error {
	if relative != "" {
		if table, err := localTable(dir); table != "" || err != nil {
			return tableError(dir, table, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, below := filepath.Join(dir, e.Name()), path.Join(relative, e.Name())
		parts := strings.Split(below, "/")
		if !s.asksFor(parts, true) {
			s.hide(parts, e.IsDir())
			continue
		}
		info, err := os.Stat(name) // follows links
		if err != nil {
			return err
		}
		switch {
		case s.hide(parts, info.IsDir()):
		case info.IsDir():
			if slices.ContainsFunc(within, func(above os.FileInfo) bool { return os.SameFile(above, info) }) {
				return fmt.Errorf("symbolic link %s leads back to a folder that it is in", name)
			}
			if e.Type()&os.ModeSymlink != 0 {
				if err := s.refuseLocalTables(name); err != nil {
					return err
				}
			}
			if err := s.walk(ctx, name, below, append(within[:len(within):len(within)], info)); err != nil {
				return err
			}
		case !s.pattern.matches(parts):
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", name)
		default:
			s.found = append(s.found, found{place: name, recorded: below})
		}
	}
	return nil
}

// hide notes a name that is left out since it is hidden, and reports whether it is. Of a
// pattern it is those that the pattern matches but for that.
func (s *search) hide(parts []string, folder bool) bool {
	last := len(parts) - 1
	if !hidden(parts[last]) {
		return false
	}
	if s.pattern != nil {
		if s.asksFor(parts, folder) {
			return false
		}
		seen := slices.Clone(parts)
		seen[last] = strings.TrimLeft(strings.TrimSuffix(seen[last], copying), "._") // as if it were not
		if !s.asksFor(seen, folder) {
			return true
		}
	}
	name := path.Join(parts...)
	if folder {
		name += "/"
	}
	s.hidden = append(s.hidden, name)
	return true
}

// asksFor reports whether the pattern matches a name, or may match something below it.
func (s *search) asksFor(parts []string, folder bool) bool {
	return s.pattern.matches(parts) || folder && s.pattern.reaches(parts)
}

// notes says what was left out.
func (s *search) notes() []string {
	var notes []string
	if len(s.hidden) > 0 {
		notes = append(notes, fmt.Sprintf("%s: left out %s beginning with _ or a dot: %s", s.path, wording.Plural(len(s.hidden), "name"), some(s.hidden)))
	}
	if len(s.foreign) > 0 {
		notes = append(notes, fmt.Sprintf("%s: left out %s of another sort: %s", s.path, wording.Plural(len(s.foreign), "file"), some(s.foreign)))
	}
	return notes
}

// some lists the first of names.
func some(names []string) string {
	const most = 5
	text := fmt.Sprintf("%.500s", strings.Join(names[:min(len(names), most)], ", "))
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
