package appendlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/objects"
)

// RestoredError says that a reader's log has ended and a person has accepted another one
// in its place, such as a restored copy that has gone on: the id of the log is a later
// one.
type RestoredError struct {
	// Entry is the last entry of the log that was accepted.
	Entry Entry
	// Err says what the log is to the reader; its class is [ErrForked], [ErrBehind] or
	// [ErrGap].
	Err error
}

func (e *RestoredError) Error() string { return fmt.Sprintf("the log was restored: %v", e.Err) }

// Unwrap returns what the log is to the reader.
func (e *RestoredError) Unwrap() error { return e.Err }

// A look finds the entry that follows a position, or proves that there is none: that the
// log ends there.
//
// Goals. A look costs a lookup of one object and a read of one more, both small, however
// long the log is. It is right in a store that was restored from a copy, wholly or in
// part, that is not there for a moment, or whose log is compacted meanwhile: a key that is
// missing proves nothing.
//
// Design. The next key is looked up first. If it is there, the entry must say that it
// follows ours, or ours must still be there. If it is missing, ours must still be there,
// the same to the byte. In this order, since compaction deletes entries in theirs: who
// finds ours after the next was missing knows that the next was not deleted. What remains
// is a store that was restored in part, whose list has later entries or a checkpoint that
// is ahead of us; that is for a thorough look, which lists the log.

// look returns the entry that follows a position; found is false if there is none, and
// then the log ended there at some moment after look was called.
func (l *Log) look(ctx context.Context, at Position, thorough bool) (next Entry, found bool, err error) {
	next, found, err = l.next(ctx, at, thorough)
	switch {
	case IsBroken(err):
		err = l.restored(ctx, at, err)
	case errors.Is(err, objects.ErrGone):
		_ = l.bucket.Reopen() // while it fails, so does the next look
	}
	if err != nil {
		return Entry{}, false, fmt.Errorf("look at log %s behind entry %d: %w", l.o.Prefix, at.Sequence, err)
	}
	return next, found, nil
}

// IsBroken reports whether an error says that the log that is there does not go on from
// the one that was read.
func IsBroken(err error) bool {
	return errors.Is(err, ErrForked) || errors.Is(err, ErrBehind) || errors.Is(err, ErrGap)
}

func (l *Log) next(ctx context.Context, at Position, thorough bool) (Entry, bool, error) {
	_, err := l.bucket.Stat(ctx, l.entryKey(at.Sequence+1))
	if err == nil {
		e, err := l.follower(ctx, at)
		return e, err == nil, err
	}
	if !errors.Is(err, objects.ErrNotFound) {
		return Entry{}, false, err
	}
	if at.Sequence > 0 {
		switch err := l.unchanged(ctx, at); {
		case errors.Is(err, objects.ErrNotFound):
			return Entry{}, false, l.lost(ctx, at)
		case err != nil:
			return Entry{}, false, err
		}
	}
	if at.Sequence > 0 && !thorough {
		return Entry{}, false, nil
	}
	head, err := l.head(ctx)
	if err != nil || head <= at.Sequence {
		return Entry{}, false, err
	}
	e, err := l.follower(ctx, at) // it may have come meanwhile
	if errors.Is(err, objects.ErrNotFound) {
		err = l.gap(ctx, at.Sequence+1, head)
	}
	return e, err == nil, err
}

// follower reads the entry of the next number, which must follow a position.
func (l *Log) follower(ctx context.Context, at Position) (Entry, error) {
	sequence := at.Sequence + 1
	data, err := l.bucket.Read(ctx, l.entryKey(sequence))
	if err != nil {
		return Entry{}, err
	}
	switch previous := l.o.Links(data).Previous; {
	case previous.IsZero() && at.Sequence > 0:
		err = l.unchanged(ctx, at)
		if errors.Is(err, objects.ErrNotFound) {
			err = l.gap(ctx, at.Sequence, sequence)
		}
	case previous != at.Hash:
		err = fmt.Errorf("%w: entry %d was appended to another entry %d (%s) than the one that was read (%s)",
			ErrForked, sequence, at.Sequence, previous.Short(), at.Hash.Short())
	}
	return Entry{sequence, data}, err
}

// unchanged returns an error unless the entry of a position is there as it was read: one
// of class [objects.ErrNotFound] if none is there.
func (l *Log) unchanged(ctx context.Context, at Position) error {
	data, err := l.bucket.Read(ctx, l.entryKey(at.Sequence))
	if err != nil {
		return err
	}
	if h := HashOf(data); h != at.Hash {
		return fmt.Errorf("%w: entry %d is another one (%s) than was read (%s)", ErrForked, at.Sequence, h.Short(), at.Hash.Short())
	}
	return nil
}

// lost says why neither the entry of a position nor the next is there.
func (l *Log) lost(ctx context.Context, at Position) error {
	head, err := l.head(ctx)
	switch {
	case err != nil:
		return err
	case head >= at.Sequence:
		return l.gap(ctx, at.Sequence, head)
	}
	return fmt.Errorf("%w: entry %d is gone, and the log ends with entry %d", ErrBehind, at.Sequence, head)
}

// gap says why an entry is missing although the log goes on to head.
func (l *Log) gap(ctx context.Context, missing, head uint64) error {
	checkpoints, err := l.checkpoints(ctx)
	if err != nil {
		return err
	}
	if last(checkpoints) >= missing {
		return fmt.Errorf("entry %d: %w", missing, ErrCompacted)
	}
	return fmt.Errorf("%w: entry %d is missing, and the log goes on to entry %d", ErrGap, missing, head)
}

// restored returns a [*RestoredError] if a person has accepted the log that broken
// complains of, else broken.
func (l *Log) restored(ctx context.Context, at Position, broken error) error {
	head, err := l.head(ctx)
	if err != nil {
		return errors.Join(broken, err)
	}
	data, err := l.bucket.Read(ctx, l.entryKey(head))
	switch {
	case errors.Is(err, objects.ErrNotFound): // there is no entry, or a checkpoint of all
		return broken
	case err != nil:
		return errors.Join(broken, err)
	case l.o.Links(data).Log > at.Log:
		return &RestoredError{Entry: Entry{head, data}, Err: broken}
	}
	return broken
}
