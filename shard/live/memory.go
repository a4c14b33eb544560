package live

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// ErrTimeTravel is the class of every error that says that the live log in a store is not
// the one that was followed before, or an older copy of it.
var ErrTimeTravel = errors.New("the live log is not what it was")

// TimeTravelError says how a log is not what it was. Its class is [ErrTimeTravel].
type TimeTravelError struct {
	Known Position // what is known to have been there; its hash may be zero
	From  string   // by what that is known
	Moved bool     // that is what is remembered of the store at another address, of which this one is a copy
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

// UnnamedLogError says that a position which the log is said to have reached names no log,
// although the one in the store has an id: a person has accepted it since the log began, and
// every position of the first log comes before all of it.
type UnnamedLogError struct {
	Reached shard.Position
	From    string // who says so
	Found   shard.Position
}

func (e *UnnamedLogError) Error() string {
	return fmt.Sprintf("%s %d names no log, and says nothing of the store's, which has an id and ends at %s: accepted are positions with the id, such as %s:%d",
		e.From, e.Reached.Sequence, e.Found, e.Found.Log, e.Reached.Sequence)
}

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

// keep remembers the position of a state, durably, unless a later one is remembered. The
// error is a [*TimeTravelError] if what is remembered is of a log that the state does not go
// on from.
func (r *Replica) keep(ctx context.Context, s *State) error {
	return r.o.Memory.Keep(ctx, appendlog.Position(s.position), func(known appendlog.Position) error {
		if _, err := s.reaches(Position(known)); err != nil {
			return &TimeTravelError{Known: Position(known), From: ownMemory, Found: s.position, Err: err}
		}
		return nil
	})
}

// As errors name what has remembered a position: the file for the address of the store, and
// those for what its copies at other addresses share.
const (
	ownMemory  = "its own memory"
	copyMemory = "its own memory of this store at another address"
)

// recall returns what is remembered, and what errors name that.
func (r *Replica) recall() (Position, string, error) {
	known, file, err := r.o.Memory.Recall()
	if file > 0 {
		return Position(known), copyMemory, err
	}
	return Position(known), ownMemory, err
}
