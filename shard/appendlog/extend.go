package appendlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// LeastAge is how old a checkpoint is at least before [Log.Trim] deletes an entry that it
// sums up.
const LeastAge = 10 * time.Minute

// sure is how long a writer may rely on a proof of the log's end.
const sure = 10 * time.Second

// ConflictError says that another writer has appended an entry of that sequence number, and
// which. Its class is [ErrConflict].
type ConflictError struct {
	// Entries has that entry, and those of the next numbers that were read with it. Whether
	// they follow one another has not been looked at.
	Entries []Entry
}

func (e *ConflictError) Error() string { return ErrConflict.Error() }

// Unwrap returns [ErrConflict].
func (e *ConflictError) Unwrap() error { return ErrConflict }

// Extend appends an entry as [Log.Append] does, for a reader of the log who stands at its
// end: the entry is the next behind at. It takes the time of one request where the reader has
// proved a moment ago that the log ends there: proved is when the first request of that proof
// was sent, see [Watcher], and the zero time if there was none. Otherwise Extend proves it
// first, and its errors are those of a look, too. When it returns nil, the log ended with
// the new entry at a moment after it was called.
//
// A store that was replaced by an older copy since that proof has no entry that the new one
// could follow: then the error is one of [IsBroken], and the entry is taken back.
//
// An error of class [ErrConflict] is a [*ConflictError], and nothing was appended. So that
// one who has fallen behind others that write catches up at once, a few of the next entries
// are looked for meanwhile. After any other the entry may be in the log, then or later:
// reading behind at finds out.
//
// The log must be one whose entries [Log.Trim] alone deletes. Those that watch this Log are
// not woken.
func (l *Log) Extend(ctx context.Context, at Position, proved time.Time, data []byte, few int) error {
	if err := l.extend(ctx, at, proved, data, few); err != nil {
		return fmt.Errorf("append entry %d of log %s: %w", at.Sequence+1, l.o.Prefix, err)
	}
	return nil
}

func (l *Log) extend(ctx context.Context, at Position, proved time.Time, data []byte, few int) error {
	if proved.IsZero() || objects.Elapsed(proved) > sure {
		proved = time.Now()
		found, err := l.look(ctx, at, false, 1)
		if err != nil {
			return err
		}
		if len(found.entries) > 0 {
			return &ConflictError{found.entries}
		}
	}
	looking, stop := context.WithCancel(ctx)
	var later []result
	var reading sync.WaitGroup
	reading.Go(func() { later = l.read(looking, at.Sequence+2, few) })
	key := l.entryKey(at.Sequence + 1)
	var still error // why ours is not what the new entry follows
	if at.Sequence > 0 {
		reading.Go(func() { still = l.unchanged(ctx, at, false) })
	}
	there, err := l.bucket.Contend(ctx, key, data)
	conflict := errors.Is(err, objects.ErrExists)
	if !conflict {
		stop()
	}
	reading.Wait()
	stop()
	if gone := errors.Is(still, objects.ErrNotFound); gone || IsBroken(still) {
		if err == nil {
			err = l.delete(context.WithoutCancel(ctx), key)
		} else if conflict {
			err = nil
		}
		if gone && err == nil {
			still = l.lost(ctx, at)
		}
		return errors.Join(still, err)
	}
	if conflict {
		list := []Entry{{at.Sequence + 1, there}}
		for i, r := range later {
			if r.err != nil {
				break
			}
			list = append(list, Entry{at.Sequence + 2 + uint64(i), r.data})
		}
		return &ConflictError{list}
	}
	if err != nil && !l.answered(ctx, key, data, err) {
		return err
	}
	if still != nil {
		return still
	}
	// An entry of this number that was there, was summed up and deleted meanwhile would have
	// been another one. It takes [LeastAge] until it is deleted.
	if took := objects.Elapsed(proved); took > LeastAge/2 {
		return fmt.Errorf("the store took %s, in which the log may have gone on: whether this entry or another is in it is unknown", took.Round(time.Second))
	}
	return nil
}

// Sum writes a checkpoint: state is what entries 1 to at amount to. It deletes nothing,
// which is left to [Log.Trim]. Two that write one at the same number must have the same
// state.
func (l *Log) Sum(ctx context.Context, at uint64, state []byte) error {
	if err := l.sum(ctx, at, state); err != nil {
		return fmt.Errorf("write the checkpoint at entry %d of log %s: %w", at, l.o.Prefix, err)
	}
	return nil
}

func (l *Log) sum(ctx context.Context, at uint64, state []byte) error {
	if at == 0 {
		return errors.New("the first entry is 1")
	}
	// Where there is one already, creating it would read it all to compare.
	_, err := l.bucket.Stat(ctx, l.checkpointKey(at))
	if !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	if err := l.bucket.Create(ctx, l.checkpointKey(at), state); err != nil && !errors.Is(err, objects.ErrExists) {
		return err
	}
	return nil
}

// Checkpoints lists the checkpoints that there are, by ascending sequence: how large they
// are, and when they were written by the store's clock.
func (l *Log) Checkpoints(ctx context.Context) ([]Summary, error) {
	sequences, err := l.checkpoints(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the checkpoints of log %s: %w", l.o.Prefix, err)
	}
	var list []Summary
	for _, n := range sequences {
		o, err := l.bucket.Stat(ctx, l.checkpointKey(n))
		switch {
		case errors.Is(err, objects.ErrNotFound): // it was deleted meanwhile
		case err != nil:
			return nil, fmt.Errorf("list the checkpoints of log %s: %w", l.o.Prefix, err)
		default:
			list = append(list, Summary{n, o.Size, o.Time})
		}
	}
	return list, nil
}

// Summary describes a checkpoint.
type Summary struct {
	Sequence uint64 // of the last entry that it sums up
	Size     int64  // bytes
	Time     time.Time
}

// Trimmed says what a [Log.Trim] has deleted, or would.
type Trimmed struct {
	// Through is the entry of the checkpoint that readers begin with from then on, at the
	// earliest; 0 if none is old enough.
	Through     uint64
	Entries     int
	Checkpoints int
}

// Trim deletes the entries before that of the last checkpoint that is older than a duration,
// by the store's clock, and earlier checkpoints. That last entry itself stays, for readers
// that stand there. A duration below [LeastAge] is an error, and so is what Options.Readable
// returns of that checkpoint: then nothing is deleted. A dry run deletes nothing. A crash leaves
// entries that the next Trim deletes.
func (l *Log) Trim(ctx context.Context, older time.Duration, dryRun bool) (Trimmed, error) {
	t, err := l.trim(ctx, older, dryRun)
	if err != nil {
		return t, fmt.Errorf("trim log %s: %w", l.o.Prefix, err)
	}
	return t, nil
}

func (l *Log) trim(ctx context.Context, older time.Duration, dryRun bool) (Trimmed, error) {
	if older < LeastAge {
		return Trimmed{}, fmt.Errorf("checkpoints older than %s; accepted: %s and more", older, LeastAge)
	}
	list, err := l.Checkpoints(ctx)
	if err != nil || len(list) == 0 {
		return Trimmed{}, err
	}
	now, err := l.clock(ctx)
	if err != nil {
		return Trimmed{}, err
	}
	var t Trimmed
	for _, c := range list {
		if now.Sub(c.Time) > older {
			t.Through = c.Sequence
		}
	}
	if t.Through == 0 {
		return t, nil
	}
	data, err := l.bucket.Read(ctx, l.checkpointKey(t.Through))
	if err == nil {
		err = l.o.Readable(ctx, Entry{t.Through, data})
	}
	if err != nil {
		return Trimmed{}, err
	}
	entries, err := l.entries(ctx)
	if err != nil {
		return t, err
	}
	for _, sequence := range entries { // ascending, so that what is left has no gap
		if sequence >= t.Through {
			break
		}
		if !dryRun {
			if err := l.delete(ctx, l.entryKey(sequence)); err != nil {
				return t, err
			}
		}
		t.Entries++
	}
	for _, c := range list {
		if c.Sequence >= t.Through {
			break
		}
		if !dryRun {
			if err := l.delete(ctx, l.checkpointKey(c.Sequence)); err != nil {
				return t, err
			}
		}
		t.Checkpoints++
	}
	return t, nil
}

// clock reads the store's clock off the date of an object that it writes and deletes.
func (l *Log) clock(ctx context.Context) (time.Time, error) {
	key := fmt.Sprintf("%s/clock-%016x", l.o.Prefix, rand.Uint64())
	if err := l.bucket.Create(ctx, key, nil); err != nil {
		return time.Time{}, err
	}
	o, err := l.bucket.Stat(ctx, key)
	return o.Time, errors.Join(err, l.delete(ctx, key))
}
