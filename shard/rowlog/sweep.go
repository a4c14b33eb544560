package rowlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
)

// SweepOptions say which rows go.
type SweepOptions[R any] struct {
	// Now is the time by the store's clock.
	Now time.Time
	// Keep is how long a file is kept since it was written. 0: for ever.
	Keep time.Duration
	// Gone reports whether a row is of a user who is forgotten. Nil: nobody is.
	Gone func(*R) (bool, error)
	// Set names who is forgotten: it is another text whenever they are others.
	Set string
	// DryRun says what would go, and changes nothing.
	DryRun bool
}

// Swept is what [Log.Sweep] has done, or would have.
type Swept struct {
	Deleted   []string // files that were older than SweepOptions.Keep
	Rewritten []string // files that had rows of users who are forgotten
	Rows      int      // how many those were
	Read      int      // files that were looked into
	// Failed are the files that could not be looked into, or not be rewritten: what of
	// forgotten users is in them stays until they are deleted.
	Failed []error
}

// sweptKey names the object that says what was swept last.
func (f *Format[R]) sweptKey() string { return f.Prefix + "swept.json" }

// swept is what was swept last: the files that the store dates before a time have no row of the
// users of a set.
type swept struct {
	Set    string    `json:"set"`
	Before time.Time `json:"before"`
}

// sweptSlack is how long before a sweep a file was dated that the sweep has seen: an upload may
// be dated when it began.
const sweptSlack = time.Hour

// ownName is the form of what follows the prefix in the names that Key returns: other files are
// nobody's to delete.
var ownName = regexp.MustCompile(`^[0-9-]{10}/([0-9]{8}T[0-9]{6}\.[0-9]{3}Z)-[0-9a-f]{16}\` + Extension + `$`)

// Sweep deletes the files of a store that are too old, and takes the rows of users who are
// forgotten out of the others. A file is replaced whole, under its name, or deleted if nothing is
// left of it, so readers see what there was or what there is. Files that a sweep has seen are not
// read again until others are forgotten. It may be interrupted, and run beside servers that write
// and other sweeps.
//
// An error is one of the store, or says how many files it could not do; Swept is right all the
// same.
func (l *Log[R]) Sweep(ctx context.Context, o SweepOptions[R]) (*Swept, error) {
	s := &sweep[R]{Log: l, SweepOptions: o, done: &Swept{}}
	if err := s.run(ctx); err != nil {
		return s.done, err
	}
	if n := len(s.done.Failed); n > 0 {
		return s.done, fmt.Errorf("%d of them could not be looked into: %w", n, errors.Join(s.done.Failed...))
	}
	return s.done, nil
}

// sweep is a Sweep in progress.
type sweep[R any] struct {
	*Log[R]
	SweepOptions[R]
	done *Swept
}

func (s *sweep[R]) run(ctx context.Context) error {
	var list []objects.Object
	for o, err := range s.objects(ctx) {
		if err != nil {
			return err
		}
		list = append(list, o)
	}
	before, err := s.sweptBefore(ctx)
	if err != nil {
		return err
	}
	for _, o := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch at, own := s.writtenAt(o.Key); {
		case own && s.Keep > 0 && s.Now.Sub(at) >= s.Keep:
			err = s.delete(ctx, o.Key)
			if err == nil {
				s.done.Deleted = append(s.done.Deleted, o.Key)
			}
		case s.Gone != nil && own && !o.Time.Before(before):
			err = s.file(ctx, o)
		}
		if err != nil {
			return err
		}
	}
	return s.note(ctx)
}

// writtenAt returns when a file was written, if it is one of a server.
func (s *sweep[R]) writtenAt(key string) (time.Time, bool) {
	name, of := strings.CutPrefix(key, s.format.Prefix)
	m := ownName.FindStringSubmatch(name)
	if !of || m == nil {
		return time.Time{}, false
	}
	at, err := time.Parse(keyTime, m[1])
	return at, err == nil
}

// sweptBefore returns the date before which files have nothing of those who are forgotten.
func (s *sweep[R]) sweptBefore(ctx context.Context) (time.Time, error) {
	if s.Gone == nil {
		return time.Time{}, nil
	}
	return s.SweptBefore(ctx, s.Set)
}

// SweptBefore returns the date before which the files of a store, as the store dates them, have
// nothing of the users of a set, as [SweepOptions] names it: a sweep has looked into them. It is
// zero if that is not known.
func (l *Log[R]) SweptBefore(ctx context.Context, set string) (time.Time, error) {
	data, err := l.bucket.Read(ctx, l.format.sweptKey())
	if errors.Is(err, objects.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	var last swept
	if json.Unmarshal(data, &last) == nil && last.Set == set {
		return last.Before, nil
	}
	return time.Time{}, nil // what cannot be read says nothing, and all is looked into
}

// Unswept returns how many files of a store may have something of the users of a set.
func (l *Log[R]) Unswept(ctx context.Context, set string) (n int, err error) {
	before, err := l.SweptBefore(ctx, set)
	if err != nil {
		return 0, err
	}
	for o, err := range l.objects(ctx) {
		if err != nil {
			return 0, err
		}
		if !o.Time.Before(before) {
			n++
		}
	}
	return n, nil
}

// note says what was swept, if all of it could be.
func (s *sweep[R]) note(ctx context.Context) error {
	if s.Gone == nil || s.DryRun || len(s.done.Failed) > 0 || s.done.Read == 0 {
		return nil
	}
	return s.NoteSwept(ctx, s.Set, s.Now)
}

// NoteSwept notes that at a time, by the store's clock, all files of a store were looked into for the
// users of a set, as [SweepOptions] names it.
func (l *Log[R]) NoteSwept(ctx context.Context, set string, now time.Time) error {
	data, err := json.Marshal(swept{set, now.Add(-sweptSlack).UTC()})
	if err != nil {
		return err
	}
	return l.bucket.Write(ctx, l.format.sweptKey(), append(data, '\n'))
}

func (s *sweep[R]) delete(ctx context.Context, key string) error {
	if s.DryRun {
		return nil
	}
	if err := s.bucket.Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	return nil
}

// file takes what is to go out of one file. What is wrong with the file it notes.
func (s *sweep[R]) file(ctx context.Context, o objects.Object) error {
	s.done.Read++
	data, err := s.read(ctx, o)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		return nil // deleted meanwhile
	case errors.Is(err, s.format.Damaged):
		s.done.Failed = append(s.done.Failed, err)
		return nil
	case err != nil:
		return err
	}
	rest, gone, err := s.format.Without(data, s.Gone)
	if err != nil {
		s.done.Failed = append(s.done.Failed, fmt.Errorf("%s: %w", s.name(o.Key), err))
		return nil
	}
	if gone == 0 {
		return nil
	}
	if !s.DryRun {
		if rest == nil {
			err = s.delete(ctx, o.Key)
		} else {
			err = s.bucket.Write(ctx, o.Key, rest)
		}
	}
	if err != nil {
		return err
	}
	s.done.Rewritten = append(s.done.Rewritten, o.Key)
	s.done.Rows += gone
	return nil
}

// Without returns a file without the rows that are to go, as gone says, nil if none is left, and how
// many go.
func (f *Format[R]) Without(data []byte, gone func(*R) (bool, error)) (rest []byte, n int, err error) {
	var kept []R
	for row, err := range f.Decode(data) {
		if err != nil {
			return nil, 0, err
		}
		goes, err := gone(row)
		switch {
		case err != nil:
			return nil, 0, err
		case goes:
			n++
		default:
			kept = append(kept, *row)
		}
	}
	if n == 0 || len(kept) == 0 {
		return nil, n, nil
	}
	if unknown := f.unknownColumns(data); len(unknown) > 0 {
		return nil, 0, fmt.Errorf("it has %d %s of users who are forgotten, and columns that this program does not know and would lose: %.200s: a newer one can take them out", n, f.Rows, strings.Join(unknown, ", "))
	}
	rest, err = f.Encode(kept)
	return rest, n, err
}

// maxKnown is how many texts are remembered: most come again and again.
const maxKnown = 1 << 16

// Remembering returns a function that reports whether a text is the id of a user, as is says of
// ids, and remembers what it has said. It is for one goroutine.
func Remembering(is func(id string) bool) func(text string) bool {
	known := map[string]bool{}
	return func(text string) bool {
		if shard.CheckID(text) != nil {
			return false
		}
		one, said := known[text]
		if !said {
			if len(known) == maxKnown {
				clear(known)
			}
			one = is(text)
			known[text] = one
		}
		return one
	}
}
