// Package appendlog is an append-only log of entries in an object store, which needs
// no broker: entry n is an object that is created if nothing has that name, so of two
// writers of one sequence number one wins, a crash leaves a whole entry or none, and
// whoever reads the store reads the truth. It is how a table's commits are ordered in
// Delta Lake (Armbrust et al., "Delta Lake: High-Performance ACID Table Storage over
// Cloud Object Stores", VLDB 2020, section 3.1).
//
//	PREFIX/000000000042.json              entry 42
//	PREFIX/checkpoints/000000000040.json  what entries 1 to 40 amount to
//
// Sequence numbers begin at 1 and have no gaps. A checkpoint lets readers begin after
// the entries that it sums up, most of which are then deleted.
package appendlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

var (
	// ErrConflict is the class of every error that says that another writer has
	// appended an entry of that sequence number.
	ErrConflict = errors.New("conflict: another writer was first")
	// ErrCompacted is the class of every error that says that an entry is gone: a
	// checkpoint has what it amounted to.
	ErrCompacted = errors.New("the entry is summed up in a checkpoint")
	// ErrForked is the class of every error that says that an entry is another one than
	// was read, or was appended to another one: the log of this reader and the one that is
	// there have parted.
	ErrForked = errors.New("the log has forked")
	// ErrBehind is the class of every error that says that the log ends before an entry
	// that was read.
	ErrBehind = errors.New("the log is behind what was read")
	// ErrGap is the class of every error that says that an entry is missing which later
	// ones follow.
	ErrGap = errors.New("the log has a gap")
)

// Options say where the entries are, what they carry, and how they are followed. A zero
// field means its default.
type Options struct {
	// Prefix is what the names of all objects of the log begin with, without the
	// last /. There is no default.
	Prefix string
	// Suffix is what the names of entries end with. Default: ".json".
	Suffix string
	// Poll is how long [Log.Watch] waits before it looks again. Default: a tenth of a
	// second in a folder, a second elsewhere.
	Poll time.Duration
	// Timeout is how long one look of [Log.Watch] may take. Default: 15 seconds, and at
	// least half as much again as the bucket lets a store be silent.
	Timeout time.Duration
	// Hedge is how long a look of [Log.Watch] is without an answer before another is made
	// beside it, of which the first answer counts. Default: a third of Timeout.
	Hedge time.Duration
	// Links returns what an entry carries of the log that it is in. Entries may be any
	// bytes: of what it cannot read it returns nothing. Default: entries carry nothing.
	Links func(data []byte) Links
	// Whole has those that watch look now and then whether all entries behind the last
	// checkpoint are there, and not only that the last one is. Default: they do not.
	Whole bool
	// Readable returns an error if a checkpoint cannot be read: then [Log.Trim] deletes nothing
	// that it sums up. Default: all can.
	Readable func(ctx context.Context, checkpoint Entry) error
	// Keep is how many entries that a checkpoint sums up stay. A writer or reader
	// that is not further behind is told that it is, rather than that the log has
	// another end. Default: 1000.
	Keep uint64
}

// Entry is one entry of a log.
type Entry struct {
	Sequence uint64
	Data     []byte
}

// Log is a log. It may be used by any number of goroutines and processes.
type Log struct {
	bucket *objects.Bucket
	o      Options

	mu    sync.Mutex
	hints map[chan struct{}]struct{} // of those that watch
	seen  seen
}

// digits is how many digits a sequence number has in a name, so that names sort as
// numbers do.
const digits = 12

// New returns the log in a bucket. It reads nothing.
func New(bucket *objects.Bucket, o Options) *Log {
	if o.Suffix == "" {
		o.Suffix = ".json"
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
		if bucket.Dir() != "" {
			o.Poll /= 10
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = max(15*time.Second, bucket.Timeout()*3/2)
	}
	if o.Hedge <= 0 {
		o.Hedge = o.Timeout / 3
	}
	if o.Links == nil {
		o.Links = func([]byte) Links { return Links{} }
	}
	if o.Readable == nil {
		o.Readable = func(context.Context, Entry) error { return nil }
	}
	if o.Keep == 0 {
		o.Keep = 1000
	}
	return &Log{bucket: bucket, o: o, hints: map[chan struct{}]struct{}{}}
}

// Poll returns how long [Log.Watch] waits before it looks again.
func (l *Log) Poll() time.Duration { return l.o.Poll }

// EntryKey returns the name of the object of an entry.
func (o *Options) EntryKey(sequence uint64) string {
	return fmt.Sprintf("%s/%0*d%s", o.Prefix, digits, sequence, o.Suffix)
}

// CheckpointKey returns the name of the object of a checkpoint.
func (o *Options) CheckpointKey(sequence uint64) string {
	return fmt.Sprintf("%s/checkpoints/%0*d%s", o.Prefix, digits, sequence, o.Suffix)
}

func (l *Log) entryKey(sequence uint64) string      { return l.o.EntryKey(sequence) }
func (l *Log) checkpointKey(sequence uint64) string { return l.o.CheckpointKey(sequence) }

// sequences lists the sequence numbers of the objects whose names begin with prefix.
func (l *Log) sequences(ctx context.Context, prefix string) ([]uint64, error) {
	var list []uint64
	for o, err := range l.bucket.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		name, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, prefix), l.o.Suffix)
		if !ok || len(name) < digits {
			continue
		}
		if n, err := strconv.ParseUint(name, 10, 64); err == nil && n > 0 {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (l *Log) entries(ctx context.Context) ([]uint64, error) {
	return l.sequences(ctx, l.o.Prefix+"/")
}

func (l *Log) checkpoints(ctx context.Context) ([]uint64, error) {
	return l.sequences(ctx, l.o.Prefix+"/checkpoints/")
}

// Head returns the sequence number of the last entry, 0 if there is none.
func (l *Log) Head(ctx context.Context) (uint64, error) {
	head, err := l.head(ctx)
	if err != nil {
		return 0, fmt.Errorf("find the head of log %s: %w", l.o.Prefix, err)
	}
	return head, nil
}

func (l *Log) head(ctx context.Context) (uint64, error) {
	entries, err := l.entries(ctx)
	if err != nil {
		return 0, err
	}
	checkpoints, err := l.checkpoints(ctx)
	if err != nil {
		return 0, err
	}
	// A list may lag behind, or lack what is there: the entries themselves decide.
	for head := max(last(entries), last(checkpoints)); ; head++ {
		switch _, err := l.bucket.Stat(ctx, l.entryKey(head+1)); {
		case errors.Is(err, objects.ErrNotFound):
			return head, nil
		case err != nil:
			return 0, err
		}
	}
}

func last(list []uint64) uint64 {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1]
}

// Before returns the largest sequence number below another whose entry is there, 0 if
// there is none.
func (l *Log) Before(ctx context.Context, sequence uint64) (uint64, error) {
	entries, err := l.entries(ctx)
	if err != nil {
		return 0, fmt.Errorf("list log %s: %w", l.o.Prefix, err)
	}
	i, _ := slices.BinarySearch(entries, sequence)
	return last(entries[:i]), nil
}

// After returns the smallest sequence number above another whose entry is there, 0 if there is
// none.
func (l *Log) After(ctx context.Context, sequence uint64) (uint64, error) {
	entries, err := l.entries(ctx)
	if err != nil {
		return 0, fmt.Errorf("list log %s: %w", l.o.Prefix, err)
	}
	i, _ := slices.BinarySearch(entries, sequence+1)
	if i == len(entries) {
		return 0, nil
	}
	return entries[i], nil
}

// Append appends an entry, which must be the next: sequence is that of the head and
// one. An error of class [ErrConflict] says that another writer was first, and nothing
// was appended. When Append returns nil the entry is durable. After another error it
// may have been appended; appending it again finds out. One of class
// [objects.ErrNotDurable] says that it was, that readers see it, and that a crash of the
// machine may undo it.
//
// Data must differ from what anyone else would append: that is how a writer whose
// answer was lost knows its own entry (see [objects.Bucket.Create]). Append wakes those
// that watch this Log.
func (l *Log) Append(ctx context.Context, sequence uint64, data []byte) error {
	if err := l.append(ctx, sequence, data); err != nil {
		return fmt.Errorf("append entry %d of log %s: %w", sequence, l.o.Prefix, err)
	}
	l.Hint()
	return nil
}

func (l *Log) append(ctx context.Context, sequence uint64, data []byte) error {
	if err := l.precedes(ctx, sequence); err != nil {
		return err
	}
	key := l.entryKey(sequence)
	err := l.bucket.Create(ctx, key, data)
	if errors.Is(err, objects.ErrExists) {
		return ErrConflict
	}
	if err != nil && !l.answered(ctx, key, data, err) {
		return err
	}
	// A writer that is far behind may have created an entry that was there once, was
	// summed up and deleted. Only entries that are Keep behind are.
	checkpoints, err := l.checkpoints(ctx)
	if err != nil {
		return err
	}
	if n := last(checkpoints); n >= sequence+l.o.Keep {
		err := fmt.Errorf("the log went on to %d meanwhile: whether this entry or another is in it is unknown", n)
		return errors.Join(err, l.delete(ctx, key))
	}
	return nil
}

// answered reports whether a creation that failed has created the entry all the same,
// durably: all answers of a store may be lost on the way. What a folder has not confirmed
// is not durable, though it can be read.
func (l *Log) answered(ctx context.Context, key string, data []byte, failed error) bool {
	if errors.Is(failed, objects.ErrNotDurable) || errors.Is(failed, objects.ErrGone) || l.bucket.Dir() != "" {
		return false
	}
	there, err := l.bucket.Read(ctx, key)
	return err == nil && bytes.Equal(there, data)
}

// precedes returns an error unless the log ends right before sequence, or later.
func (l *Log) precedes(ctx context.Context, sequence uint64) error {
	if sequence == 0 {
		return errors.New("the first entry is 1")
	}
	// Where that entry is, creating the object decides.
	_, err := l.bucket.Stat(ctx, l.entryKey(max(sequence-1, 1)))
	if !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	head, err := l.Head(ctx)
	switch {
	case err != nil:
		return err
	case head < sequence-1:
		return fmt.Errorf("the head is %d: there would be a gap", head)
	case head > sequence-1:
		return fmt.Errorf("the head is %d: %w", head, ErrConflict)
	}
	return nil // the checkpoint of all entries
}

// Get returns one entry. The error is of class [objects.ErrNotFound] if it has not been
// appended, and of class [ErrCompacted] if it is gone.
func (l *Log) Get(ctx context.Context, sequence uint64) (Entry, error) {
	data, err := l.bucket.Read(ctx, l.entryKey(sequence))
	if err == nil {
		return Entry{sequence, data}, nil
	}
	if errors.Is(err, objects.ErrNotFound) {
		checkpoints, listErr := l.checkpoints(ctx)
		if listErr != nil {
			return Entry{}, fmt.Errorf("read entry %d of log %s: %w", sequence, l.o.Prefix, listErr)
		}
		if last(checkpoints) >= sequence {
			err = ErrCompacted
		}
	}
	return Entry{}, fmt.Errorf("read entry %d of log %s: %w", sequence, l.o.Prefix, err)
}

// Read returns the entries from a sequence number on, up to the head. An error ends
// it; one of class [ErrCompacted] says that a checkpoint has to be read first.
func (l *Log) Read(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for sequence := max(from, 1); ; sequence++ {
			e, err := l.Get(ctx, sequence)
			if errors.Is(err, objects.ErrNotFound) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Checkpoint returns the last checkpoint; its Sequence is 0 if there is none.
func (l *Log) Checkpoint(ctx context.Context) (Entry, error) {
	return l.CheckpointBefore(ctx, math.MaxUint64)
}

// CheckpointBefore returns the last checkpoint that sums up less than the entries to a sequence
// number, as Checkpoint does: what is left where a later one is damaged.
func (l *Log) CheckpointBefore(ctx context.Context, sequence uint64) (Entry, error) {
	for {
		checkpoints, err := l.checkpoints(ctx)
		if err != nil {
			return Entry{}, fmt.Errorf("read checkpoint of log %s: %w", l.o.Prefix, err)
		}
		i, _ := slices.BinarySearch(checkpoints, sequence)
		at := last(checkpoints[:i])
		if at == 0 {
			return Entry{}, nil
		}
		data, err := l.bucket.Read(ctx, l.checkpointKey(at))
		if errors.Is(err, objects.ErrNotFound) {
			continue // a later one has replaced it
		}
		if err != nil {
			return Entry{}, fmt.Errorf("read checkpoint of log %s: %w", l.o.Prefix, err)
		}
		return Entry{at, data}, nil
	}
}

// Compact writes a checkpoint: state is what entries 1 to at amount to. Then it deletes
// the entries that are summed up, but for the last that Options.Keep says, and earlier
// checkpoints. Two that compact at the same number must have the same state. A crash
// leaves entries that the next Compact deletes.
func (l *Log) Compact(ctx context.Context, at uint64, state []byte) error {
	if err := l.compact(ctx, at, state); err != nil {
		return fmt.Errorf("compact log %s at entry %d: %w", l.o.Prefix, at, err)
	}
	return nil
}

func (l *Log) compact(ctx context.Context, at uint64, state []byte) error {
	head, err := l.Head(ctx)
	if err != nil {
		return err
	}
	if at < 1 || at > head {
		return fmt.Errorf("want 1 to the head, %d", head)
	}
	if err := l.bucket.Create(ctx, l.checkpointKey(at), state); err != nil && !errors.Is(err, objects.ErrExists) {
		return err
	}
	entries, err := l.entries(ctx)
	if err != nil {
		return err
	}
	for _, sequence := range entries { // ascending, so that what is left has no gap
		if sequence+l.o.Keep > at {
			break
		}
		if err := l.delete(ctx, l.entryKey(sequence)); err != nil {
			return err
		}
	}
	checkpoints, err := l.checkpoints(ctx)
	if err != nil {
		return err
	}
	for _, sequence := range checkpoints[:max(len(checkpoints)-1, 0)] {
		if err := l.delete(ctx, l.checkpointKey(sequence)); err != nil {
			return err
		}
	}
	return nil
}

// delete deletes an object that another compaction may have deleted.
func (l *Log) delete(ctx context.Context, key string) error {
	if err := l.bucket.Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	return nil
}
