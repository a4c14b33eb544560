package release

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/appendlog"
)

// ErrTimeTravel is the class of every error that says that the log of releases in a store is
// not the one that was followed before, or an older copy of it.
var ErrTimeTravel = errors.New("the log of releases is not what it was")

// TimeTravelError says how a log of releases is not what it was. Its class is [ErrTimeTravel].
type TimeTravelError struct {
	Known uint64 // the generation that is remembered
	Moved bool   // it was served from a store at another address, of which this one is a copy
	Err   error  // of a class that [appendlog.IsBroken] knows: how
}

func (e *TimeTravelError) Error() string {
	from := "its own memory"
	if e.Moved {
		from += " of this store at another address"
	}
	return fmt.Sprintf("%v: %s knows of generation %d, and %v: restore a newer copy, or have a person accept this one", ErrTimeTravel, from, e.Known, e.Err)
}

// Unwrap returns the class, and how.
func (e *TimeTravelError) Unwrap() []error { return []error{ErrTimeTravel, e.Err} }

// Recall returns an error of class [ErrTimeTravel] unless the log goes on from what a memory
// has, or a person has accepted it since.
func (r *Releases) Recall(ctx context.Context, m appendlog.Memory) error {
	known, file, err := m.Recall()
	if err != nil || known.Sequence == 0 {
		return err
	}
	_, _, err = r.log.Look(ctx, known)
	switch {
	case errors.As(err, new(*appendlog.RestoredError)):
		return nil
	case appendlog.IsBroken(err):
		return &TimeTravelError{Known: known.Sequence, Moved: file > 0, Err: err}
	}
	return err
}

// Remember has a memory know of the release, durably, unless it knows of a later one. It
// fails if it knows another one of that generation.
func (r *Release) Remember(ctx context.Context, m appendlog.Memory) error {
	at := r.position()
	return m.Keep(ctx, at, func(known appendlog.Position) error {
		if known.Log == at.Log && known.Sequence == at.Sequence && known.Hash != at.Hash {
			return &TimeTravelError{Known: known.Sequence, Err: fmt.Errorf("%w: the store has another generation %d", appendlog.ErrForked, at.Sequence)}
		}
		return nil
	})
}

// Accept has a memory know of the release as the newest, whatever it knew: a person has
// accepted the log that it is in.
func (r *Release) Accept(ctx context.Context, m appendlog.Memory) error {
	return m.Accept(ctx, r.position())
}

func (r *Release) position() appendlog.Position {
	return appendlog.Position{Log: r.Log, Sequence: r.Generation, Hash: r.Hash}
}
