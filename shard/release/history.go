package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

// UnreadableError says that the entry of a generation is in the log, and is no release
// that this build reads.
type UnreadableError struct {
	Generation uint64
	Hash       appendlog.Hash
	Err        error

	log string // the id of the log, if the entry says so
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("read release %d: %v", e.Generation, e.Err)
}

// Unwrap returns what is wrong with the entry.
func (e *UnreadableError) Unwrap() error { return e.Err }

// BrokenError says that the log of releases does not hang together: generations are
// missing, or one was appended to another than is before it. The store was restored in
// part, or mixed with another.
type BrokenError struct {
	Generation uint64 // the one that is missing, the last of several, or that does not follow
	// Accepted says that a person has accepted the log with this, by a later release.
	Accepted bool
	Err      error // of class [appendlog.ErrGap] or [appendlog.ErrForked]
}

func (e *BrokenError) Error() string { return fmt.Sprintf("log of releases: %v", e.Err) }

// Unwrap returns what is wrong with the log.
func (e *BrokenError) Unwrap() error { return e.Err }

func decode(e appendlog.Entry) (*Release, error) {
	release, err := Decode(e.Data)
	if err == nil && release.Generation != e.Sequence {
		err = fmt.Errorf("its generation is %d", release.Generation)
	}
	if err != nil {
		return nil, &UnreadableError{Generation: e.Sequence, Hash: appendlog.HashOf(e.Data), Err: err, log: links(e.Data).Log}
	}
	return release, nil
}

// Newest returns the newest release that can be read, and what says of the last entry of
// the log that it cannot, nil if it can. The error is of class [ErrNone] if there is no
// release that can be read.
func (r *Releases) Newest(ctx context.Context) (newest *Release, unreadable *UnreadableError, _ error) {
	for release, err := range r.History(ctx) {
		u, b := (*UnreadableError)(nil), (*BrokenError)(nil)
		switch {
		case errors.As(err, &u):
			unreadable = cmp.Or(unreadable, u)
		case errors.As(err, &b):
		case err != nil:
			return nil, unreadable, err
		default:
			return release, unreadable, nil
		}
	}
	return nil, unreadable, ErrNone
}

// logOf returns the id of the log that an entry is in which cannot be read: the one that
// it carries, or else that of the newest release that can be read.
func (r *Releases) logOf(ctx context.Context, u *UnreadableError) (string, error) {
	if u.log != "" {
		return u.log, nil
	}
	newest, _, err := r.Newest(ctx)
	if err != nil {
		return "", err
	}
	return newest.Log, nil
}

// History returns releases, newest first. In place of one that cannot be read there is
// an [*UnreadableError], and where the log does not hang together a [*BrokenError];
// earlier ones follow. Any other error ends it.
func (r *Releases) History(ctx context.Context) iter.Seq2[*Release, error] {
	return func(yield func(*Release, error) bool) {
		head, err := r.head(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		for e := range r.entries(ctx, &Place{Generation: head}) {
			if !yield(e.Release, e.Err) {
				return
			}
		}
	}
}

// back returns the entries from a generation on, back to the first. Where they do not hang
// together there is a [*BrokenError], and earlier ones follow; any other error ends it.
func (r *Releases) back(ctx context.Context, from uint64) iter.Seq2[appendlog.Entry, error] {
	return func(yield func(appendlog.Entry, error) bool) {
		var previous appendlog.Hash // that the entry behind carries
		for n := from; n > 0; n-- {
			e, err := r.log.Get(ctx, n)
			if errors.Is(err, objects.ErrNotFound) && n < from {
				before, err := r.log.Before(ctx, n)
				if err != nil {
					yield(e, err)
					return
				}
				if !yield(e, &BrokenError{Generation: n, Err: missing(before+1, n)}) {
					return
				}
				n, previous = before+1, appendlog.Hash{}
				continue
			}
			if err != nil {
				yield(e, err)
				return
			}
			if h := appendlog.HashOf(e.Data); !previous.IsZero() && h != previous {
				err := fmt.Errorf("%w: generation %d was appended to another generation %d (%s) than is there (%s)",
					appendlog.ErrForked, n+1, n, previous.Short(), h.Short())
				if !yield(appendlog.Entry{}, &BrokenError{Generation: n + 1, Err: err}) {
					return
				}
			}
			if !yield(e, nil) {
				return
			}
			previous = links(e.Data).Previous
		}
		if !previous.IsZero() {
			yield(appendlog.Entry{}, &BrokenError{Generation: 1, Err: fmt.Errorf("%w: generation 1 was appended to another one (%s)", appendlog.ErrForked, previous.Short())})
		}
	}
}

// missing says which generations are.
func missing(from, to uint64) error {
	if from == to {
		return fmt.Errorf("%w: generation %d is missing", appendlog.ErrGap, to)
	}
	return fmt.Errorf("%w: generations %d to %d are missing", appendlog.ErrGap, from, to)
}

// Includes returns an error unless the log has a release, and behind it, or as it, the
// entry of another generation and hash: whoever serves that one serves the release or what
// followed it.
func (r *Releases) Includes(ctx context.Context, release *Release, generation uint64, hash appendlog.Hash) error {
	for e, err := range r.back(ctx, generation) {
		if err != nil {
			return err
		}
		h := appendlog.HashOf(e.Data)
		if e.Sequence == generation && h != hash {
			return fmt.Errorf("the log has another generation %d (%s) than %s: %w", generation, h.Short(), hash.Short(), appendlog.ErrForked)
		}
		if e.Sequence == release.Generation && h != release.Hash {
			return fmt.Errorf("the log has another generation %d (%s) than %s: %w", release.Generation, h.Short(), release.Hash.Short(), appendlog.ErrForked)
		}
		if e.Sequence == release.Generation {
			return nil
		}
		if e.Sequence < release.Generation {
			break
		}
	}
	return fmt.Errorf("generation %d is before %d: %w", generation, release.Generation, appendlog.ErrBehind)
}
