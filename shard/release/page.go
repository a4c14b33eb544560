package release

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Entry is a place of the log of releases.
type Entry struct {
	Release *Release // nil where there is an error
	Data    []byte   // of the entry of the log; nil where there is none
	// Err is an [*UnreadableError] or a [*BrokenError] in place of a release. Any other one
	// says that no earlier entry could be read.
	Err error
}

// Place is an entry of the log that something of its history ends with, and what is known
// there of what is behind it. It may be kept, and handed to [Releases.Page] of another process.
type Place struct {
	Generation uint64
	Hash       appendlog.Hash
	// Log is the id of the log, and Accepted whether a person has accepted by a later release
	// what was before.
	Log      string
	Accepted bool
}

// Page is a part of the history.
type Page struct {
	Entries []Entry // newest first
	Head    uint64  // the generation that was released last by now, 0 if there is none
	// Next is where the next page begins; nil if this is the last.
	Next *Place
}

// ErrReplaced is the class of the error that says that what a page was to follow is not in the
// log any more: the store was restored from a copy.
var ErrReplaced = errors.New("the log of releases is not the one that it was")

// Page returns what [Releases.History] does, in pages: of about so many entries at most, and
// no more once they have so many bytes. It begins behind a place; the first page has none.
func (r *Releases) Page(ctx context.Context, after *Place, most, bytes int) (*Page, error) {
	page := &Page{}
	var err error
	if page.Head, err = r.head(ctx); err != nil {
		return nil, err
	}
	at := Place{Generation: page.Head}
	if after != nil {
		at = *after
	}
	size, first := 0, after != nil // the entry of the place is read again, to see that it is there
	for e := range r.entries(ctx, &at) {
		if first {
			first = false
			if err := sameEntry(&e, &at, after); err != nil {
				return nil, err
			}
			continue
		}
		if e.Err != nil && !isFault(e.Err) {
			return nil, e.Err
		}
		page.Entries = append(page.Entries, e)
		size += len(e.Data)
		if e.Data != nil && (len(page.Entries) >= most || size >= bytes) && !isFirst(&e, at.Generation) {
			page.Next = &at
			break
		}
	}
	return page, nil
}

// isFault reports whether an error stands for one place of the log.
func isFault(err error) bool {
	return errors.As(err, new(*UnreadableError)) || errors.As(err, new(*BrokenError))
}

// isFirst reports whether nothing is behind an entry.
func isFirst(e *Entry, generation uint64) bool {
	return generation == 1 && links(e.Data).Previous.IsZero()
}

// sameEntry returns an error unless an entry, at a place, is the one that a page ended with.
func sameEntry(e *Entry, at, after *Place) error {
	switch {
	case errors.Is(e.Err, objects.ErrNotFound), e.Data != nil && at.Hash != after.Hash:
		return fmt.Errorf("generation %d is not there any more: %w", after.Generation, ErrReplaced)
	case e.Err != nil && !isFault(e.Err):
		return e.Err
	}
	return nil
}

// entries returns the entries from that of a place on, back to the first, and keeps the place
// at the one that it has returned last.
func (r *Releases) entries(ctx context.Context, at *Place) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for e, err := range r.back(ctx, at.Generation) {
			one := Entry{Data: e.Data, Err: err}
			if err == nil {
				one.Release, one.Err = decode(e)
				at.Generation, at.Hash = e.Sequence, appendlog.HashOf(e.Data)
			}
			if b := (*BrokenError)(nil); errors.As(err, &b) {
				b.Accepted, one.Data = at.Accepted, nil
			}
			if one.Release != nil {
				// A log that begins anew was accepted as it was then, with all before.
				at.Accepted = at.Accepted || one.Release.Log < at.Log
				at.Log = one.Release.Log
			}
			if !yield(one) {
				return
			}
		}
	}
}
