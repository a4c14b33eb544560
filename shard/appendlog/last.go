package appendlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/objects"
)

// Last returns the last entry; its Sequence is 0 if there is none, and its Data is nil if it
// is summed up in a checkpoint and gone. Unlike [Log.Head], which lists every entry, it takes
// a number of requests that grows with the logarithm of the entries behind the last
// checkpoint. In a log with a gap it may return an entry before the gap.
func (l *Log) Last(ctx context.Context) (Entry, error) {
	e, err := l.last(ctx)
	if err != nil {
		return Entry{}, fmt.Errorf("find the last entry of log %s: %w", l.o.Prefix, err)
	}
	return e, nil
}

func (l *Log) last(ctx context.Context) (Entry, error) {
	for before := uint64(0); ; {
		checkpoints, err := l.checkpoints(ctx)
		if err != nil {
			return Entry{}, err
		}
		again := last(checkpoints) == before
		before = last(checkpoints)
		at, err := l.lastBehind(ctx, before)
		if err != nil || at == 0 {
			return Entry{}, err
		}
		data, err := l.bucket.Read(ctx, l.entryKey(at))
		switch {
		case err == nil:
			return Entry{at, data}, nil
		case !errors.Is(err, objects.ErrNotFound):
			return Entry{}, err
		case again: // else a later checkpoint may have come, and what follows it was not seen
			return Entry{Sequence: before}, nil
		}
	}
}

// lastBehind returns the last of the entries that follow one without a gap, or that one if
// none does.
func (l *Log) lastBehind(ctx context.Context, before uint64) (uint64, error) {
	has := func(sequence uint64) (bool, error) {
		_, err := l.bucket.Stat(ctx, l.entryKey(sequence))
		if errors.Is(err, objects.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	there, missing := before, before+1
	for {
		found, err := has(missing)
		if err != nil {
			return 0, err
		}
		if !found {
			break
		}
		there, missing = missing, missing+2*(missing-before)
	}
	for missing-there > 1 {
		middle := there + (missing-there)/2
		found, err := has(middle)
		if err != nil {
			return 0, err
		}
		if found {
			there = middle
		} else {
			missing = middle
		}
	}
	return there, nil
}
