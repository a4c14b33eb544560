package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

// ErrTimeTravel is the class of every error that says that the live log in a store is not
// the one that was followed before, or an older copy of it.
var ErrTimeTravel = errors.New("the live log is not what it was")

// TimeTravelError says how a log is not what it was. Its class is [ErrTimeTravel].
type TimeTravelError struct {
	Known Position // what is known to have been there; its hash may be zero
	From  string   // by what that is known
	Found Position // where the log in the store ends
	Err   error    // the class [appendlog.ErrBehind] or [appendlog.ErrForked], and how
}

func (e *TimeTravelError) Error() string {
	return fmt.Sprintf("%v: %s knows of %s, and %v. What was taken down since may be back: "+
		"restore a newer copy, or have a person accept this one, which ends at %s",
		ErrTimeTravel, e.From, describe(e.Known.Shard()), e.Err, describe(e.Found.Shard()))
}

// Unwrap returns the class, and how.
func (e *TimeTravelError) Unwrap() []error { return []error{ErrTimeTravel, e.Err} }

// describe names a position for people.
func describe(p shard.Position) string {
	if p.Log == "" {
		return fmt.Sprintf("entry %d", p.Sequence)
	}
	return fmt.Sprintf("entry %d of log %s", p.Sequence, p.Log)
}

// reaches returns an error unless a state goes on from a position, or from one of a log that
// a person has accepted it in place of. Sure is false where the position came so long before
// that no more can be told of it than that the log is longer.
func (s *State) reaches(p Position) (sure bool, err error) {
	switch {
	case s.position.Log > p.Log:
		return true, nil
	case s.position.Log < p.Log:
		return true, fmt.Errorf("%w: the store has log %.80q, from before that one was begun", appendlog.ErrBehind, s.position.Log)
	case s.position.Sequence < p.Sequence:
		return true, fmt.Errorf("%w: the store's log ends with entry %d", appendlog.ErrBehind, s.position.Sequence)
	case p.Sequence == 0 || p.Hash.IsZero():
		return true, nil
	}
	e, ok := s.past.entry(p.Sequence)
	if !ok {
		return false, nil
	}
	if e.hash != [16]byte(p.Hash[:16]) {
		return true, fmt.Errorf("%w: the store has another entry %d", appendlog.ErrForked, p.Sequence)
	}
	return true, nil
}

// memory is a file that remembers the highest position that was published. Processes may
// share it, of which some are behind others: it goes back only where a person accepts that.
type memory struct{ path string }

type remembered struct {
	Version  int            `json:"version"`
	Log      string         `json:"log"`
	Sequence uint64         `json:"sequence"`
	Hash     appendlog.Hash `json:"hash"`
}

const (
	memoryVersion = 1
	ownMemory     = "its own memory" // as errors name it
	// memoryLock ends the name of the file that is locked while the memory is compared and
	// replaced, which takes no longer than that: a process that was stopped meanwhile is
	// waited for as long as memoryPatience.
	memoryLock     = ".lock"
	memoryPatience = 2 * time.Second
	memoryPoll     = 5 * time.Millisecond
)

// recall returns what is remembered; the zero Position if nothing is. It makes the folder.
func (m memory) recall() (Position, error) {
	if m.path == "" {
		return Position{}, nil
	}
	if err := objects.MakeDir(filepath.Dir(m.path)); err != nil {
		return Position{}, fmt.Errorf("make the folder of the memory of the live log: %w", err)
	}
	p, err := m.read()
	if err != nil {
		return Position{}, fmt.Errorf("read the memory of the live log: %w", err)
	}
	return p, nil
}

func (m memory) read() (Position, error) {
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, err
	}
	var r remembered
	if err := json.Unmarshal(data, &r); err != nil {
		return Position{}, fmt.Errorf("%s is damaged: %w: remove it, and say by --live-at-least how far the log had come", m.path, err)
	}
	if r.Version != memoryVersion || len(r.Log) > maxLogID {
		return Position{}, fmt.Errorf("%s has version %d; accepted: %d", m.path, r.Version, memoryVersion)
	}
	return Position{r.Log, r.Sequence, r.Hash}, nil
}

// keep remembers the position of a state, durably, unless a later one is remembered. The
// error is a [*TimeTravelError] if what is remembered is of a log that the state does not go
// on from.
func (m memory) keep(ctx context.Context, s *State) error {
	err := m.place(ctx, s.position, func() (bool, error) { return m.has(s) })
	if err != nil {
		return fmt.Errorf("remember the position in the live log: %w", err)
	}
	return nil
}

// accept remembers a position, durably, whatever was remembered.
func (m memory) accept(ctx context.Context, p Position) error {
	if err := m.place(ctx, p, func() (bool, error) { return false, nil }); err != nil {
		return fmt.Errorf("remember the position in the live log: %w", err)
	}
	return nil
}

// has reports whether the position of a state is remembered, or a later one.
func (m memory) has(s *State) (bool, error) {
	known, err := m.read()
	if err != nil {
		return false, err
	}
	if known.Shard().Compare(s.position.Shard()) > 0 {
		return true, nil
	}
	if _, err := s.reaches(known); err != nil {
		return false, &TimeTravelError{Known: known, From: ownMemory, Found: s.position, Err: err}
	}
	return known == s.position, nil
}

// place has the file hold a position unless done says that there is nothing to do. What the
// file holds is durable then, whoever wrote it.
func (m memory) place(ctx context.Context, p Position, done func() (bool, error)) error {
	ok, err := done()
	if err == nil && !ok {
		err = m.replace(ctx, p, done)
	}
	if err != nil {
		return err
	}
	return sections.SyncDir(filepath.Dir(m.path))
}

// replace has a file that is written and synced take the place of the memory unless that is
// done by then.
func (m memory) replace(ctx context.Context, p Position, done func() (bool, error)) error {
	data, err := json.Marshal(remembered{memoryVersion, p.Log, p.Sequence, p.Hash})
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(m.path), "."+filepath.Base(m.path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next.Name()) }() // in vain once it was placed
	_, err = next.Write(append(data, '\n'))
	if err = errors.Join(err, next.Chmod(0o644), next.Sync(), next.Close()); err != nil { // a server may run as another user
		return err
	}
	lock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close() // and unlock it
	if ok, err := done(); err != nil || ok {
		return err
	}
	return os.Rename(next.Name(), m.path)
}

// lock waits until no other process replaces the memory. Who closes the file lets others.
func (m memory) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(m.path+memoryLock, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, err
	}
	for begun := time.Now(); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			err = fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Since(begun) >= memoryPatience:
			err = fmt.Errorf("another process has kept %s locked for %s", f.Name(), memoryPatience)
		case !rest(ctx, memoryPoll):
			err = fmt.Errorf("lock %s: %w", f.Name(), ctx.Err())
		default:
			continue
		}
		return nil, errors.Join(err, f.Close())
	}
}
