package live

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

// The polls of a log by default.
const (
	DefaultPoll       = 300 * time.Millisecond // in a bucket
	DefaultFolderPoll = 20 * time.Millisecond  // in a folder
)

// names has the names of the objects of the log.
var names = appendlog.Options{Prefix: "live", Suffix: ".log"}

// Log returns the live log in a bucket, for those who look at its entries; poll is how long
// one who watches it waits between two looks, 0 the default.
func Log(bucket *objects.Bucket, poll time.Duration) *appendlog.Log { return logOf(bucket, poll, 0) }

// logOf is Log with how long one look is waited for before another is made beside it.
func logOf(bucket *objects.Bucket, poll, hedge time.Duration) *appendlog.Log {
	if poll <= 0 {
		poll = DefaultPoll
		if bucket.Dir() != "" {
			poll = DefaultFolderPoll
		}
	}
	o := names
	o.Poll, o.Hedge, o.Links, o.Whole = poll, hedge, links, true
	o.Readable = func(ctx context.Context, c appendlog.Entry) error {
		_, err := readNamed(ctx, bucket, c, false)
		return err
	}
	return appendlog.New(bucket, o)
}

// Read returns what all entries of the live log in a bucket amount to, and nothing if there
// are none.
func Read(ctx context.Context, bucket *objects.Bucket) (*State, error) {
	return read(ctx, bucket, loading{})
}

// ReadWithoutKey is Read where the error of that is of class [ErrNoKey]. The state says of
// takedowns and apps what there is. Of users it has the hashes of those who were forgotten, and
// records that may be of these: who knows no key can neither look up whether a user is forgotten,
// which panics, nor take the state's digest for that of others, nor write a checkpoint of it.
func ReadWithoutKey(ctx context.Context, bucket *objects.Bucket) (*State, error) {
	return read(ctx, bucket, loading{keyless: true})
}

func read(ctx context.Context, bucket *objects.Bucket, how loading) (*State, error) {
	l, err := load(ctx, Log(bucket, 0), bucket, how)
	if err != nil {
		return nil, err
	}
	return l.state, nil
}

// loading says how a log is read.
type loading struct {
	pass    bool // gaps are passed over
	keyless bool // without the key of users who are forgotten
}

// loaded is a state that was read from a store.
type loaded struct {
	state *State
	tail  tail
	lost  []Gap
}

// tail is what there is of a log behind its last checkpoint.
type tail struct {
	checkpoint int64 // bytes
	entries    int
	bytes      int64
	damaged    uint64 // the last checkpoint that cannot be read; 0 if none is there
}

// readAtOnce is how many entries are read at a time.
const readAtOnce = 16

// load reads the last checkpoint and the entries behind it. One that is missing is an error, a
// [*GapError], unless gaps are passed over.
func load(ctx context.Context, log *appendlog.Log, bucket *objects.Bucket, how loading) (*loaded, error) {
	for {
		l, err := loadOnce(ctx, log, bucket, how)
		if !errors.Is(err, appendlog.ErrCompacted) {
			return l, err
		}
		if ctx.Err() != nil { // a later checkpoint is there
			return nil, ctx.Err()
		}
	}
}

func loadOnce(ctx context.Context, log *appendlog.Log, bucket *objects.Bucket, how loading) (*loaded, error) {
	l, err := begin(ctx, log, bucket, how.keyless)
	if err != nil {
		return nil, err
	}
	for listed := uint64(0); ; {
		entries, err := readSome(ctx, log, l.state.position.Sequence+1)
		if errors.Is(err, appendlog.ErrCompacted) && l.tail.damaged > l.state.position.Sequence {
			return nil, l.unreadable(ctx, log, err)
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if _, err := applyFrom(ctx, bucket, l.state, e); err != nil {
				return nil, err
			}
			l.tail.entries++
			l.tail.bytes += int64(len(e.Data))
		}
		if len(entries) == readAtOnce {
			continue
		}
		// An entry that is missing is the end of the log, or a gap in it. Once what was there
		// when it was listed is read there is no gap: what has come since is for those who
		// follow, or reading would not end while others write as fast as a list takes.
		at := l.state.position.Sequence
		if at >= listed && listed > 0 {
			return l, nil
		}
		head, err := log.Head(ctx)
		if err != nil || head <= at {
			return l, err
		}
		listed = head
		if _, err := log.Get(ctx, at+1); errors.Is(err, objects.ErrNotFound) {
			if err = l.pass(ctx, log, head, how.pass); err != nil {
				return nil, fmt.Errorf("read the live log: %w", err)
			}
		}
	}
}

// begin reads the last checkpoint that is not damaged, of those that are there.
func begin(ctx context.Context, log *appendlog.Log, bucket *objects.Bucket, keyless bool) (*loaded, error) {
	var passed []error
	damaged := uint64(0)
	for before := uint64(math.MaxUint64); ; {
		c, err := log.CheckpointBefore(ctx, before)
		if err != nil {
			return nil, err
		}
		s := NewState()
		s.keyless = keyless
		if c.Sequence > 0 {
			s, err = readNamed(ctx, bucket, c, keyless)
		}
		if errors.Is(err, ErrDamaged) {
			passed, damaged, before = append(passed, err), max(damaged, c.Sequence), c.Sequence
			continue
		}
		if err != nil {
			return nil, err
		}
		s.passed = errors.Join(passed...)
		return &loaded{state: s, tail: tail{checkpoint: int64(len(c.Data)), damaged: damaged}}, nil
	}
}

// unreadable says that a checkpoint is damaged and an entry that it sums up is gone, or has the
// log read again if a later checkpoint has come since.
func (l *loaded) unreadable(ctx context.Context, log *appendlog.Log, gone error) error {
	c, err := log.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if c.Sequence > l.tail.damaged {
		return gone
	}
	return fmt.Errorf("%w; entry %d, which it sums up, is gone: bring the checkpoint back from a copy of the store, or that entry and all behind it",
		l.state.passed, l.state.position.Sequence+1)
}

// readNamed reads the checkpoint of an entry, and names it in errors.
func readNamed(ctx context.Context, bucket *objects.Bucket, c appendlog.Entry, keyless bool) (*State, error) {
	s, err := readState(ctx, bucket, c.Data, keyless)
	if err == nil && s.position.Sequence != c.Sequence {
		err = fmt.Errorf("%w: it is of entry %d", ErrDamaged, s.position.Sequence)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, of entry %d: %w", names.CheckpointKey(c.Sequence), c.Sequence, err)
	}
	return s, nil
}

// readState reads a checkpoint, with the store's key if that takes it.
func readState(ctx context.Context, bucket *objects.Bucket, data []byte, keyless bool) (*State, error) {
	s, err := readCheckpointOf(data, NewState(), keyless)
	if !errors.Is(err, ErrKey) {
		return s, err
	}
	key, err := existingKey(ctx, bucket)
	if err != nil {
		return nil, err
	}
	return ReadCheckpoint(data, key)
}

// readSome reads the entries from a number on, up to as many as are read at a time: less at
// the end of the log.
func readSome(ctx context.Context, log *appendlog.Log, from uint64) ([]appendlog.Entry, error) {
	var list [readAtOnce]appendlog.Entry
	var errs [readAtOnce]error
	// The first alone shows whether there is any, which costs one request where there is none.
	list[0], errs[0] = log.Get(ctx, from)
	if errs[0] == nil {
		var reading sync.WaitGroup
		for i := 1; i < readAtOnce; i++ {
			reading.Go(func() { list[i], errs[i] = log.Get(ctx, from+uint64(i)) })
		}
		reading.Wait()
	}
	for i, err := range errs {
		if errors.Is(err, objects.ErrNotFound) {
			return list[:i], nil
		}
		if err != nil {
			return nil, err
		}
	}
	return list[:], nil
}

// applyFrom applies an entry, with the store's key if that takes it.
func applyFrom(ctx context.Context, bucket *objects.Bucket, s *State, e appendlog.Entry) ([]Change, error) {
	changes, err := s.Apply(e)
	if !errors.Is(err, ErrKey) {
		return changes, err
	}
	key, err := existingKey(ctx, bucket)
	if err == nil {
		err = s.SetKey(key)
	}
	if err != nil {
		return nil, err
	}
	return s.Apply(e)
}

// difference returns what differs between two states, as Apply returns what an entry has
// changed.
func difference(old, next *State) []Change {
	a := &applying{State: next, changed: map[Change]UserHash{}}
	for _, two := range [][2]*State{{old, next}, {next, old}} {
		if two[0].down.Len() > 0 {
			for i := range two[0].down.set.all() {
				d := two[0].down.decode(i.value)
				if other, ok := two[1].down.Get(i.key); !ok || other != d {
					a.note(Change{Tower: towers[1], Entity: i.key})
				}
			}
		}
		for _, tower := range towers[1:] {
			for id, r := range two[0].records(tower) {
				if !r.equal(two[1].records(tower)[id]) {
					a.note(Change{Tower: tower, Entity: id})
				}
			}
		}
		if two[0].gone.Len() > 0 {
			for i := range two[0].gone.set.all() {
				h := UserHash([]byte(i.key))
				g, _ := two[0].gone.Get(h)
				if other, ok := two[1].gone.Get(h); !ok || other != g {
					id := next.ids[h]
					if id == "" {
						id = old.ids[h]
					}
					a.note(Change{Tower: towers[2], Entity: id, User: h})
				}
			}
		}
	}
	return a.list()
}
