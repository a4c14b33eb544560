package querylog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// SweepOptions say which recorded queries go.
type SweepOptions struct {
	// Now is the time by the store's clock.
	Now time.Time
	// Keep is how long a file is kept since it was written. 0: for ever.
	Keep time.Duration
	// Forgotten reports whether an id is that of a user who is forgotten. Nil: nobody is.
	Forgotten func(id string) bool
	// Set names who is forgotten: it is another text whenever they are others.
	Set string
	// Users returns every text of a request that can be the id of a user.
	Users func(request []byte) ([]string, error)
	// DryRun says what would go, and changes nothing.
	DryRun bool
}

// Swept is what [Log.Sweep] has done, or would have.
type Swept struct {
	Deleted   []string // files that were older than SweepOptions.Keep
	Rewritten []string // files that had queries of users who are forgotten
	Queries   int      // how many those were
	Read      int      // files that were looked into
	// Failed are the files that could not be looked into, or not be rewritten: what of
	// forgotten users is in them stays until they are deleted.
	Failed []error
}

// sweptKey names the object that says what was swept last.
const sweptKey = Prefix + "swept.json"

// swept is what was swept last: the files that the store dates before a time have no query of
// the users of a set.
type swept struct {
	Set    string    `json:"set"`
	Before time.Time `json:"before"`
}

// sweptSlack is how long before a sweep a file was dated that the sweep has seen: an upload
// may be dated when it began.
const sweptSlack = time.Hour

// ownName is the form of the names that [Key] returns: other files are nobody's to delete.
var ownName = regexp.MustCompile(`^` + Prefix + `[0-9-]{10}/([0-9]{8}T[0-9]{6}\.[0-9]{3}Z)-[0-9a-f]{16}\` + extension + `$`)

// Sweep deletes the files of a store that are too old, and takes the queries of users who are
// forgotten out of the others: those whose request names one of them, and those whose answer
// does. A file is replaced whole, under its name, or deleted if nothing is left of it,
// so readers see what there was or what there is. Files that a sweep has seen are not read
// again until others are forgotten. It may be interrupted, and run beside servers that record
// and other sweeps.
//
// An error is one of the store, or says how many files it could not do; Swept is right all
// the same.
func (l *Log) Sweep(ctx context.Context, o SweepOptions) (*Swept, error) {
	s := &sweep{Log: l, SweepOptions: o, done: &Swept{}, known: map[string]bool{}}
	if err := s.run(ctx); err != nil {
		return s.done, fmt.Errorf("sweep recorded queries: %w", err)
	}
	if n := len(s.done.Failed); n > 0 {
		return s.done, fmt.Errorf("sweep recorded queries: %d of them could not be looked into: %w", n, errors.Join(s.done.Failed...))
	}
	return s.done, nil
}

// sweep is a Sweep in progress.
type sweep struct {
	*Log
	SweepOptions
	done  *Swept
	known map[string]bool // whether a text is the id of a user who is forgotten
}

func (s *sweep) run(ctx context.Context) error {
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
		case s.Forgotten != nil && own && !o.Time.Before(before):
			err = s.file(ctx, o)
		}
		if err != nil {
			return err
		}
	}
	return s.note(ctx)
}

// writtenAt returns when a file was written, if it is one of a server.
func (s *sweep) writtenAt(key string) (time.Time, bool) {
	m := ownName.FindStringSubmatch(key)
	if m == nil {
		return time.Time{}, false
	}
	at, err := time.Parse(keyTime, m[1])
	return at, err == nil
}

// sweptBefore returns the date before which files have nothing of those who are forgotten.
func (s *sweep) sweptBefore(ctx context.Context) (time.Time, error) {
	if s.Forgotten == nil {
		return time.Time{}, nil
	}
	return s.SweptBefore(ctx, s.Set)
}

// SweptBefore returns the date before which the files of a store, as the store dates them, have
// nothing of the users of a set, as [SweepOptions] names it: a sweep has looked into them. It is
// zero if that is not known.
func (l *Log) SweptBefore(ctx context.Context, set string) (time.Time, error) {
	data, err := l.bucket.Read(ctx, sweptKey)
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

// note says what was swept, if all of it could be.
func (s *sweep) note(ctx context.Context) error {
	if s.Forgotten == nil || s.DryRun || len(s.done.Failed) > 0 || s.done.Read == 0 {
		return nil
	}
	data, err := json.Marshal(swept{s.Set, s.Now.Add(-sweptSlack).UTC()})
	if err != nil {
		return err
	}
	return s.bucket.Write(ctx, sweptKey, append(data, '\n'))
}

func (s *sweep) delete(ctx context.Context, key string) error {
	if s.DryRun {
		return nil
	}
	if err := s.bucket.Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	return nil
}

// file takes what is to go out of one file. What is wrong with the file it notes.
func (s *sweep) file(ctx context.Context, o objects.Object) error {
	s.done.Read++
	data, err := s.read(ctx, o)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		return nil // deleted meanwhile
	case errors.Is(err, ErrDamaged):
		s.done.Failed = append(s.done.Failed, err)
		return nil
	case err != nil:
		return err
	}
	rest, gone, err := s.without(data)
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
	s.done.Queries += gone
	return nil
}

// without returns a file without the queries that are to go, nil if none is left, and how
// many go.
func (s *sweep) without(data []byte) (rest []byte, gone int, err error) {
	var kept []Query
	for q, err := range Decode(data) {
		if err != nil {
			return nil, 0, err
		}
		names, err := q.Names(s.forgotten, s.Users)
		switch {
		case err != nil:
			return nil, 0, err
		case names:
			gone++
		default:
			kept = append(kept, *q)
		}
	}
	if gone == 0 || len(kept) == 0 {
		return nil, gone, nil
	}
	if unknown := unknownColumns(data); len(unknown) > 0 {
		return nil, 0, fmt.Errorf("it has %d queries of users who are forgotten, and columns that this program does not know and would lose: %.200s: a newer one can take them out", gone, strings.Join(unknown, ", "))
	}
	rest, err = Encode(kept)
	return rest, gone, err
}

// Names reports whether a query, or its answer, names a user who is forgotten, as forgotten
// says of a text. Users returns every text of a request that can be the id of a user; its
// errors are what is returned.
func (q *Query) Names(forgotten func(text string) bool, users func(request []byte) ([]string, error)) (bool, error) {
	if slices.ContainsFunc([]string{q.UserID, q.RequestKey, q.RequestID}, forgotten) {
		return true, nil
	}
	if q.Tower != shard.Apps && slices.ContainsFunc(q.Candidates, func(c Candidate) bool { return forgotten(c.ID) }) {
		return true, nil
	}
	texts, err := users(q.Request)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(texts, forgotten), nil
}

// maxKnown is how many texts are remembered: most come again and again.
const maxKnown = 1 << 16

func (s *sweep) forgotten(text string) bool {
	if shard.CheckID(text) != nil {
		return false
	}
	is, known := s.known[text]
	if !known {
		if len(s.known) == maxKnown {
			clear(s.known)
		}
		is = s.Forgotten(text)
		s.known[text] = is
	}
	return is
}

// unknownColumns lists the columns of a file that has been read which a later version has
// added.
func unknownColumns(data []byte) (list []string) {
	f, err := parquetfile.OpenWithin(bytes.NewReader(data), int64(len(data)), limits)
	if err != nil {
		return []string{err.Error()}
	}
	s := f.Schema()
	for i := range s.NumColumns() {
		path := s.Column(i).Path()
		if !slices.ContainsFunc(columns, func(c column) bool { return c.name == path }) {
			list = append(list, path)
		}
	}
	return list
}
