package appendlog

import (
	"bytes"
	"cmp"
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
	"github.com/tandem-ann/tandem/shard/objects"
)

// Memory is where it is remembered how far a log was read, so that an older copy of it is
// known as one: in files, such as one for the address of its store and one for the id that the
// store's copies have too. Each has the farthest position that was kept in it. Processes may
// share a file, of which some are behind others: it goes back only where a person accepts that.
// An empty Memory remembers nothing. Its methods may be called by any number of goroutines.
type Memory []string

// remembered is what a file has. Servers of before there was a checksum read one that has it,
// and write none.
type remembered struct {
	Version  int    `json:"version"`
	Log      string `json:"log"`
	Sequence uint64 `json:"sequence"`
	Hash     Hash   `json:"hash"`
	Checksum *Hash  `json:"checksum,omitempty"` // of the line without it
}

// line returns the line that a file consists of.
func (r remembered) line() ([]byte, error) {
	data, err := json.Marshal(r)
	return append(data, '\n'), err
}

// encodeMemory returns what a file has that remembers a position.
func encodeMemory(at Position) ([]byte, error) {
	r := remembered{Version: memoryVersion, Log: at.Log, Sequence: at.Sequence, Hash: at.Hash}
	data, err := r.line()
	if err != nil {
		return nil, err
	}
	sum := HashOf(data)
	r.Checksum = &sum
	return r.line()
}

// decodeMemory is the opposite. It takes no byte that is not written: what is passed over here
// is an older copy of a log that is served.
func decodeMemory(data []byte) (Position, error) {
	var r remembered
	if err := json.Unmarshal(data, &r); err != nil {
		return Position{}, err
	}
	if r.Version != memoryVersion {
		return Position{}, errMemoryVersion{r.Version}
	}
	sum := r.Checksum
	written, err := r.line()
	if err != nil {
		return Position{}, err
	}
	r.Checksum = nil
	summed, err := r.line()
	switch {
	case err != nil:
		return Position{}, err
	case sum != nil && *sum != HashOf(summed):
		return Position{}, errors.New("what it says does not have its checksum")
	case !bytes.Equal(written, data):
		return Position{}, errors.New("it is not as a server writes it: version, log, sequence, hash and checksum in one line")
	case len(r.Log) > maxLogID:
		return Position{}, fmt.Errorf("its log has an id of %d bytes; accepted: up to %d", len(r.Log), maxLogID)
	case r.Sequence == 0 && (r.Log != "" || r.Hash != (Hash{})):
		return Position{}, errors.New("it has a log or a hash, and sequence 0")
	}
	return Position{r.Log, r.Sequence, r.Hash}, nil
}

// errMemoryVersion is a version that this build does not know.
type errMemoryVersion struct{ version int }

func (e errMemoryVersion) Error() string {
	return fmt.Sprintf("has version %d; accepted: %d", e.version, memoryVersion)
}

const (
	memoryVersion = 1
	maxLogID      = 256
	// memoryLock ends the name of the file that is locked while a file of a memory is compared
	// and replaced, which takes no longer than that: a process that was stopped meanwhile is
	// waited for as long as memoryPatience.
	memoryLock     = ".lock"
	memoryPatience = 2 * time.Second
	memoryPoll     = 5 * time.Millisecond
)

// Recall returns the farthest position that is remembered, and which of the files has it, the
// first of those that do; the zero Position if nothing is. It makes the folders.
func (m Memory) Recall() (at Position, file int, err error) {
	for i, path := range m {
		if err := objects.MakeDir(filepath.Dir(path)); err != nil {
			return Position{}, 0, fmt.Errorf("make the folder of the memory of the log: %w", err)
		}
		p, err := recall(path)
		if err != nil {
			return Position{}, 0, fmt.Errorf("read the memory of the log: %w", err)
		}
		if p.Compare(at) > 0 {
			at, file = p, i
		}
	}
	return at, file, nil
}

func recall(path string) (Position, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, err
	}
	at, err := decodeMemory(data)
	switch {
	case errors.As(err, new(errMemoryVersion)):
		return Position{}, fmt.Errorf("%s %w", path, err)
	case err != nil:
		return Position{}, fmt.Errorf("%s is damaged: %w: put it back, or remove it: an older copy of the log is not known as one then", path, err)
	}
	return at, nil
}

// Keep remembers a position, durably, in each file that has no farther one. The log at the
// position has to go on from what the file has, which check says; its error is returned.
func (m Memory) Keep(ctx context.Context, at Position, check func(known Position) error) error {
	return m.each(ctx, at, func(path string) (bool, error) {
		known, err := recall(path)
		if err != nil || known.Compare(at) > 0 {
			return true, err
		}
		if err := check(known); err != nil {
			return false, err
		}
		return known == at, nil
	})
}

// Accept remembers a position, durably, whatever was remembered.
func (m Memory) Accept(ctx context.Context, at Position) error {
	return m.each(ctx, at, func(string) (bool, error) { return false, nil })
}

// each has every file hold a position unless done says that there is nothing to do. What they
// hold is durable then, whoever wrote it.
func (m Memory) each(ctx context.Context, at Position, done func(path string) (bool, error)) error {
	for _, path := range m {
		ok, err := done(path)
		if err == nil && !ok {
			err = place(ctx, path, at, done)
		}
		if err == nil {
			err = sections.SyncDir(filepath.Dir(path))
		}
		if err != nil {
			return fmt.Errorf("remember the position in the log: %w", err)
		}
	}
	return nil
}

// place has a file that is written and synced take the place of one of the memory unless that
// is done by then.
func place(ctx context.Context, path string, at Position, done func(path string) (bool, error)) error {
	data, err := encodeMemory(at)
	if err != nil {
		return err
	}
	if err := objects.MakeDir(filepath.Dir(path)); err != nil { // it may be gone since Recall
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next.Name()) }() // in vain once it was placed
	_, err = next.Write(data)
	if err = errors.Join(err, next.Chmod(0o644), next.Sync(), next.Close()); err != nil { // a server may run as another user
		return err
	}
	lock, err := lockMemory(ctx, path)
	if err != nil {
		return err
	}
	defer lock.Close() // and unlock it
	if ok, err := done(path); err != nil || ok {
		return err
	}
	return os.Rename(next.Name(), path)
}

// lockMemory waits until no other process replaces a file. Who closes the lock lets others.
func lockMemory(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path+memoryLock, os.O_CREATE|os.O_RDONLY, 0o644)
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
		case objects.Elapsed(begun) >= memoryPatience:
			err = fmt.Errorf("another process has kept %s locked for %s", f.Name(), memoryPatience)
		case ctx.Err() != nil:
			err = fmt.Errorf("lock %s: %w", f.Name(), ctx.Err())
		default:
			pause := time.NewTimer(memoryPoll)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
			}
			continue
		}
		return nil, errors.Join(err, f.Close())
	}
}

// Compare returns which of two positions is farther: what a person has accepted is farther than
// all that came before.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Log, o.Log), cmp.Compare(p.Sequence, o.Sequence))
}
