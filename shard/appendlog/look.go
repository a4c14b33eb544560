package appendlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

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

// A look finds the entries that follow a position, or proves that there is none: that the
// log ends there.
//
// Goals. A look costs two small reads, however long the log is and however large its
// entries. It is right in a store that was restored from a copy, wholly or in part, that is
// not there for a moment, or whose log is compacted meanwhile: a key that is missing proves
// nothing. Who follows keeps up with those who write, and knows where the log ended a few
// requests ago, though they write as fast as they can.
//
// Design. The next key is read first. If it is there, the entry must say that it follows
// ours, and ours must still be there, or be summed up: in a store that was replaced by an
// older copy, while somebody wrote to it, entries may be left that follow what is not there.
// If it is missing, ours must still be there, the same to the byte. In this order, since
// compaction deletes entries in theirs: who finds ours after the next was missing knows that
// the next was not deleted. An entry that is large is not read each time: it is the same while
// what the store says of the object is. What remains is a store that was restored in part,
// whose list has later entries or a checkpoint that is ahead of us; that is for a thorough
// look, which lists the log. It is made beside others, now and then, and a little after
// entries: they prove meanwhile.
//
// Once there was an entry, several of the next keys are read at a time, and more while all of
// them are there. Entries are written one after the other, so of as many one is missing unless
// the reader is far behind, and that proves, with the entry before it, where the log ended.
// Where an entry is missing, and there after all, it has come since the look began, and there
// was none then: who has applied it knows all that there was.

// width is how many entries a look reads at a time, once there was one, and widest how many
// where there are as many again and again.
const (
	width  = 4
	widest = 64
)

// finding is what a look has found.
type finding struct {
	entries []Entry // that follow the position, in order
	ended   bool    // nothing followed them, or the position, at some moment after look was called
	checked bool    // the log was listed, and agrees
}

// Look returns the entries that follow a position, a few at most, and whether the log ended with
// them, or there if there is none, at some moment after Look was called. Its errors are those
// of the looks of [Log.Watch].
func (l *Log) Look(ctx context.Context, at Position) (entries []Entry, ended bool, err error) {
	found, err := l.look(ctx, at, false, width)
	return found.entries, found.ended, err
}

// look returns the entries that follow a position, of the next few: at least the first of
// them if there is any. Unless there is one, or an error, the log ended there.
func (l *Log) look(ctx context.Context, at Position, thorough bool, few int) (finding, error) {
	s, err := l.next(ctx, at, thorough, few)
	switch {
	case IsBroken(err):
		err = l.restored(ctx, at, err)
	case errors.Is(err, objects.ErrGone):
		_ = l.bucket.Reopen() // while it fails, so does the next look
	}
	if err != nil {
		return finding{}, fmt.Errorf("look at log %s behind entry %d: %w", l.o.Prefix, at.Sequence, err)
	}
	return s, nil
}

// IsBroken reports whether an error says that the log that is there does not go on from
// the one that was read.
func IsBroken(err error) bool {
	return errors.Is(err, ErrForked) || errors.Is(err, ErrBehind) || errors.Is(err, ErrGap)
}

func (l *Log) next(ctx context.Context, at Position, thorough bool, few int) (finding, error) {
	var found finding
	last := at
	// Who expects an entry looks for ours at the same time, which takes less.
	still := make(chan error, 1)
	expected := few > 1 && at.Sequence > 0
	if expected {
		go func() { still <- l.unchanged(ctx, at, false) }()
	}
	list := l.read(ctx, at.Sequence+1, few)
	ours := func() error { return l.unchanged(ctx, at, false) }
	if expected {
		err := <-still
		ours = func() error { return err }
	}
	for i, r := range list {
		e := Entry{at.Sequence + 1 + uint64(i), r.data}
		err := r.err
		if err == nil {
			err = l.follows(ctx, last, e)
		}
		if err == nil && i == 0 {
			err = l.remains(ctx, at, e, ours)
		}
		switch {
		case err == nil:
			found.entries, last = append(found.entries, e), l.after(last, e)
			continue
		case i > 0: // what was found counts; the next look tells of the error
			found.ended = errors.Is(err, objects.ErrNotFound) && l.unchanged(ctx, last, false) == nil
			return found, nil
		case r.err == nil || !errors.Is(err, objects.ErrNotFound):
			return finding{}, err
		}
		return l.end(ctx, at, thorough)
	}
	return found, nil
}

// end proves that the log ends at a position whose next key was missing, unless that is
// not so.
func (l *Log) end(ctx context.Context, at Position, thorough bool) (finding, error) {
	if at.Sequence > 0 {
		switch err := l.unchanged(ctx, at, thorough); {
		case errors.Is(err, objects.ErrNotFound):
			return finding{}, l.lost(ctx, at)
		case err != nil:
			return finding{}, err
		}
	}
	if at.Sequence > 0 && !thorough {
		return finding{ended: true}, nil
	}
	head, err := l.head(ctx)
	if err == nil && l.o.Whole {
		err = l.whole(ctx, at)
	}
	found := finding{ended: true, checked: true}
	if err != nil || head <= at.Sequence {
		return found, err
	}
	// It may have come meanwhile.
	data, err := l.bucket.Read(ctx, l.entryKey(at.Sequence+1))
	if errors.Is(err, objects.ErrNotFound) {
		err = l.gap(ctx, at.Sequence+1, head)
	}
	e := Entry{at.Sequence + 1, data}
	if err == nil {
		err = l.follows(ctx, at, e)
	}
	if err == nil {
		err = l.remains(ctx, at, e, func() error { return l.unchanged(ctx, at, false) })
	}
	found.entries = []Entry{e}
	return found, err
}

// whole returns an error if an entry is missing between the last checkpoint and a position.
func (l *Log) whole(ctx context.Context, at Position) error {
	checkpoints, err := l.checkpoints(ctx)
	if err != nil {
		return err
	}
	entries, err := l.entries(ctx) // after it: what is summed up later may be deleted meanwhile
	if err != nil {
		return err
	}
	next := last(checkpoints) + 1
	i, _ := slices.BinarySearch(entries, next)
	for ; next <= at.Sequence; next++ {
		if i < len(entries) && entries[i] == next {
			i++
			continue
		}
		// A list may lack what is there.
		if _, err := l.bucket.Stat(ctx, l.entryKey(next)); err == nil {
			continue
		} else if !errors.Is(err, objects.ErrNotFound) {
			return err
		}
		if err := l.gap(ctx, next, at.Sequence); !errors.Is(err, ErrCompacted) {
			return err
		}
		return nil
	}
	return nil
}

// result is what became of a read.
type result struct {
	data []byte
	err  error
}

// read reads a few entries at a time, from a number on.
func (l *Log) read(ctx context.Context, from uint64, few int) []result {
	list := make([]result, few)
	var reading sync.WaitGroup
	for i := range list {
		read := func() { list[i].data, list[i].err = l.bucket.Read(ctx, l.entryKey(from+uint64(i))) }
		if i < few-1 {
			reading.Go(read)
		} else {
			read()
		}
	}
	reading.Wait()
	return list
}

// follows returns an error unless an entry was appended behind a position.
func (l *Log) follows(ctx context.Context, at Position, e Entry) error {
	switch previous := l.o.Links(e.Data).Previous; {
	case previous.IsZero() && at.Sequence > 0:
		err := l.unchanged(ctx, at, true)
		if errors.Is(err, objects.ErrNotFound) {
			err = l.gap(ctx, at.Sequence, e.Sequence)
		}
		return err
	case previous != at.Hash:
		return fmt.Errorf("%w: entry %d was appended to another entry %d (%s) than the one that was read (%s)",
			ErrForked, e.Sequence, at.Sequence, previous.Short(), at.Hash.Short())
	}
	return nil
}

// remains returns an error unless the entry of a position, which the entry e says that it
// follows, is still there, as ours tells, or summed up.
func (l *Log) remains(ctx context.Context, at Position, e Entry, ours func() error) error {
	if at.Sequence == 0 {
		return nil
	}
	err := ours()
	if errors.Is(err, objects.ErrNotFound) {
		err = l.gap(ctx, at.Sequence, e.Sequence)
		if errors.Is(err, ErrCompacted) {
			return nil
		}
	}
	return err
}

// large is from how many bytes on an entry is not read again to see whether it is the same.
const large = 16 << 10

// seen is what a log knows of the last large entry that was found unchanged.
type seen struct {
	at     Position
	object objects.Object // as it was before the entry was last read
	marked bool           // whether the object tells the entry from another
}

// unchanged returns an error unless the entry of a position is there as it was read: one
// of class [objects.ErrNotFound] if none is there. A thorough one reads it, however large
// it is.
func (l *Log) unchanged(ctx context.Context, at Position, thorough bool) error {
	l.mu.Lock()
	last := l.seen
	l.mu.Unlock()
	now := seen{at: at}
	if last.at == at {
		var err error
		if now.object, err = l.bucket.Stat(ctx, l.entryKey(at.Sequence)); err != nil {
			return err
		}
		if last.marked && !thorough && same(now.object, last.object) {
			return nil
		}
		now.marked = now.object.Version != "" || l.bucket.Dir() != ""
	}
	data, err := l.bucket.Read(ctx, l.entryKey(at.Sequence))
	if err != nil {
		return err
	}
	if h := HashOf(data); h != at.Hash {
		return fmt.Errorf("%w: entry %d is another one (%s) than was read (%s)", ErrForked, at.Sequence, h.Short(), at.Hash.Short())
	}
	if len(data) >= large {
		l.mu.Lock()
		l.seen = now
		l.mu.Unlock()
	}
	return nil
}

// same reports whether a store says the same of an object as before.
func same(a, b objects.Object) bool {
	return a.Size == b.Size && a.Time.Equal(b.Time) && a.Version == b.Version
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
