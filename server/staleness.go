package server

import (
	"context"
	"math"
	"sync"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/shard/objects"
)

const (
	// staleAfter is the staleness that is told first; then twice as much each time.
	staleAfter = 30 * time.Second
	// staleTick is how often staleness is compared with what is to be told, and with
	// the limit of readiness for those who watch health.
	staleTick = time.Second
)

// staleness is how old a service's knowledge of the releases is: the age of the last proof
// that the log ends where it was read to. It grows as [objects.Elapsed] has it, whatever becomes
// of a look, and is worked out when it is asked for. Its methods may be called from any
// number of goroutines.
type staleness struct {
	events *events.Listener

	mu     sync.Mutex
	limit  time.Duration // beyond which the service is not ready; 0 is none
	proof  time.Time     // when the last proof was begun; zero while no log is followed
	state  tandemv1.LogState
	failed error     // why the last look proved nothing
	told   time.Time // when it was told last that the store cannot be read
	unread bool      // whether that was told of the time since the last proof
}

// begin says that a log is followed from now on whose head was read after asked.
func (s *staleness) begin(asked time.Time, limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit, s.proof, s.state = limit, asked, tandemv1.LogState_LOG_STATE_FOLLOWED
}

// age returns the staleness; ok is false while no log is followed.
func (s *staleness) age() (age time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proof.IsZero() {
		return 0, false
	}
	return objects.Elapsed(s.proof), true
}

// exceeded reports whether the staleness is beyond the limit of readiness.
func (s *staleness) exceeded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit > 0 && !s.proof.IsZero() && objects.Elapsed(s.proof) > s.limit
}

// look returns what the last look has found, and why if that is not the log that is
// followed.
func (s *staleness) look() (tandemv1.LogState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.failed
}

// proved notes a proof.
func (s *staleness) proved(asked time.Time) {
	s.mu.Lock()
	was, unread := s.state, s.unread
	s.proof, s.state, s.failed, s.unread = asked, tandemv1.LogState_LOG_STATE_FOLLOWED, nil, false
	s.mu.Unlock()
	switch {
	case livelog.Broken(was):
		s.events.Releases(events.Releases{Change: events.Mended})
	case unread:
		s.events.Releases(events.Releases{Change: events.Readable})
	}
}

// accepted notes that a person has accepted the log that is there.
func (s *staleness) accepted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.failed = tandemv1.LogState_LOG_STATE_FOLLOWED, nil
}

// fail notes why a look proved nothing. One that could not be made takes back nothing of
// what an earlier one has found.
func (s *staleness) fail(err error) {
	s.mu.Lock()
	was, now := s.state, livelog.StateOf(err)
	if now == tandemv1.LogState_LOG_STATE_UNREAD && livelog.Broken(was) {
		s.mu.Unlock()
		return
	}
	s.state, s.failed = now, err
	unread := now != was && !livelog.Broken(now) && objects.Elapsed(s.told) >= staleAfter
	if unread {
		s.told, s.unread = time.Now(), true
	}
	s.mu.Unlock()
	switch {
	case unread:
		s.events.Releases(events.Releases{Change: events.Unreadable, Err: err})
	case livelog.Broken(now) && now != was:
		s.events.Releases(events.Releases{Change: events.Broken, Err: err})
	}
}

// watch tells that the staleness grows, and that it ends, and calls changed when it crosses
// the limit of readiness, until ctx ends.
func (s *staleness) watch(ctx context.Context, changed func()) {
	ticker := time.NewTicker(staleTick)
	defer ticker.Stop()
	next, longest, exceeded := staleAfter, time.Duration(0), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		age, _ := s.age()
		_, failed := s.look()
		switch {
		case age >= next && next < math.MaxInt64:
			s.events.Releases(events.Releases{Change: events.Stale, Staleness: age, Err: failed})
			for next <= age && next < math.MaxInt64 { // an age that is not known is more than any
				if next > math.MaxInt64/2 {
					next = math.MaxInt64
				} else {
					next *= 2
				}
			}
		case age < staleAfter && next > staleAfter:
			s.events.Releases(events.Releases{Change: events.Seen, Staleness: longest})
			next, longest = staleAfter, 0
		}
		longest = max(longest, age)
		if now := s.exceeded(); now != exceeded {
			exceeded = now
			changed()
		}
	}
}
