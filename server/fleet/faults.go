package fleet

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// OtherError says what a server serves instead of what is released.
type OtherError struct {
	Status *tandemv1.GetStatusResponse
	// Generation and Hash are those of the release that it does not serve; 0 if nothing is
	// released.
	Generation uint64
	Hash       appendlog.Hash
}

// Error implements [error].
func (e *OtherError) Error() string {
	s := e.Status
	switch {
	case s.Generation == 0 && len(s.Arms) == 0:
		return "it serves nothing yet"
	case s.Unreleased:
		which := "A SNAPSHOT"
		if len(s.Arms) > 0 {
			which = fmt.Sprintf("SNAPSHOT %.12s", s.Arms[0].Snapshot)
		}
		return fmt.Sprintf("IT SERVES %s WHATEVER IS RELEASED: nobody has asked what its gates have found, and no release takes its place", which)
	case s.Generation == 0:
		return "it serves a snapshot without a release"
	case e.Generation == 0:
		return fmt.Sprintf("it serves generation %d, and nothing is released", s.Generation)
	case s.Hash == "":
		return fmt.Sprintf("it serves generation %d and does not say which entry of the log that is: it is of an earlier version", s.Generation)
	case s.Generation == e.Generation:
		return fmt.Sprintf("it serves another generation %d (%.12s) than is released (%s)", e.Generation, s.Hash, e.Hash.Short())
	}
	return fmt.Sprintf("it serves generation %d", s.Generation)
}

// NotFollowingError says that the log of the store does not go on from the one that a
// server has followed, so that no release reaches it. Where the store was restored on
// purpose, a release that accepts the log as it is ends that.
type NotFollowingError struct {
	Log string // what the server says of the log
}

// Error implements [error].
func (e *NotFollowingError) Error() string {
	return "it does not follow the log of the store: " + e.Log
}

// StaleError says that a server has not seen for long what is released.
type StaleError struct {
	Age time.Duration // of what it knows
}

// Error implements [error].
func (e *StaleError) Error() string {
	if e.Age == unknown {
		return "it does not know how long ago it saw what is released"
	}
	return fmt.Sprintf("it has not seen for %s what is released", age(e.Age))
}

// unknown is the age of what has none that a server can tell.
const unknown = time.Duration(math.MaxInt64)

// Staleness returns an age that a server has told, and the longest duration for one that is no
// age: servers of before their clocks were doubted tell negative ones. It is 0 where none was
// told.
func Staleness(d *durationpb.Duration) time.Duration {
	age := d.AsDuration()
	if age < 0 {
		return unknown
	}
	return age
}

// age returns a duration as precisely as people want it.
func age(d time.Duration) time.Duration {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// Faults returns what is wrong with what a server serves, or with what it knows, where the
// entry of a generation and a hash was released last; nothing was if the generation is 0.
// What it knows may be of an age. An answer that is an error has no faults.
func (a *Answer) Faults(generation uint64, hash appendlog.Hash, maxStaleness time.Duration) (faults []error) {
	s := a.Status
	if s == nil {
		return nil
	}
	unreleased := s.Unreleased || s.Generation == 0 && len(s.Arms) > 0 // as earlier versions say it
	if unreleased || generation == 0 && s.Generation != 0 || generation != 0 && s.Hash != hash.String() {
		faults = append(faults, &OtherError{s, generation, hash})
	}
	if err := following(s); err != nil {
		faults = append(faults, err)
	} else if s.Error != "" {
		faults = append(faults, errors.New(s.Error))
	}
	if age := Staleness(s.GetStaleness()); age > maxStaleness {
		faults = append(faults, &StaleError{age})
	}
	return faults
}

// following returns a [*NotFollowingError] if a server does not follow the log.
func following(s *tandemv1.GetStatusResponse) error {
	switch s.LogState {
	case tandemv1.LogState_LOG_STATE_FORKED, tandemv1.LogState_LOG_STATE_BEHIND, tandemv1.LogState_LOG_STATE_GAP:
		return &NotFollowingError{s.LogError}
	}
	return nil
}

// Unread returns why a server could not read the log when it looked last, nil if it could.
// That alone is no fault: what it serves may still be what is released.
func (a *Answer) Unread() error {
	if a.Status.GetLogState() != tandemv1.LogState_LOG_STATE_UNREAD {
		return nil
	}
	return errors.New("its last look at the log failed: " + a.Status.GetLogError())
}

// Phase names what a server is doing: "loading", "serving"; empty if it has not said it.
func (a *Answer) Phase() string {
	if a.Status == nil {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(a.Status.Phase.String(), "PHASE_"))
}
