package server

import (
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
)

// shedder refuses requests before any work is done for them where they would wait too long for
// a place to work in.
//
// # Goals
//
// A server that is asked more than it can answer answers as much as it can, soon, and says so
// at once to the others. What waits where nobody counts it is answered when its caller has
// gone, and [admission] does not see it: it knows requests that have passed the gate.
//
// # Design
//
// How long one more would wait is how many wait, times how long it took of late from one that
// passed the gate to the next. That is known at once, and needs no estimate of what anything
// costs. A burst may make it long for a moment: it is let in. Where it stays beyond the target
// for an interval the server sheds, and takes no more than what waits for as long as the
// target, until there was less for an interval. What is less urgent has less of the target.
//
// As many requests as may be are soon in flight where most of them wait for others, as those of a
// router for nodes. One more query would wait for the gate, be read, and be refused by [admission]: it
// is refused by its headers.
//
// Long work waits for turns, not for the gate, and [admission] knows what it costs once it is
// read. To refuse it then costs a tenth of it, or more. So a connection whose last requests
// were all long is taken to send more of it, and is refused by its headers where none would be
// admitted; one of 64 is looked at all the same.
//
// A connection that took hardly anything of late is let in all the same: the gate lets it pass
// first, and it takes hardly anything.
type shedder struct {
	mu       sync.Mutex
	waiting  int
	each     time.Duration // from one that passes to the next while others wait, of late
	passed   time.Time     // when the last one did; zero if nobody waited then
	shedding bool
	turned   time.Time // since when it is as it would be to begin shedding, or to end; zero if it is not
}

const (
	shedTarget   = 25 * time.Millisecond
	shedInterval = 100 * time.Millisecond
	// shedAnyway is the wait beyond which nobody is let in, burst or not.
	shedAnyway = 250 * time.Millisecond
	// lightUse is what a connection may have taken of late to be let in all the same.
	lightUse = 20 * time.Millisecond
	// refusedUse is what a refused request counts as in the use of its connection. It takes a
	// tenth of that, but whoever asks on, however often refused, comes after the others.
	refusedUse = time.Millisecond
)

// refuses reports whether a request is to be refused, and how long it would wait.
func (s *shedder) refuses(priority auth.Priority, now time.Time) (wait time.Duration, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = time.Duration(s.waiting) * s.each
	turns := wait > shedTarget
	if s.shedding {
		turns = wait < shedTarget/2
	}
	switch {
	case !turns:
		s.turned = time.Time{}
	case s.turned.IsZero():
		s.turned = now
	case now.Sub(s.turned) >= shedInterval:
		s.shedding, s.turned = !s.shedding, time.Time{}
	}
	share := time.Duration(priorityShares[priority])
	return wait, wait > shedAnyway || s.shedding && wait > shedTarget*share/allShares
}

// wait notes that one more waits.
func (s *shedder) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
}

// pass notes that one waits no longer.
func (s *shedder) pass(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.passed.IsZero() {
		s.each += (min(max(now.Sub(s.passed), 0), longestPass) - s.each) / 16
	}
	s.waiting--
	s.passed = time.Time{}
	if s.waiting > 0 {
		s.passed = now
	}
}

// gated has requests pass the gate of those that work, or refuses them. Probes pass always.
func gated(s *shedder, work *admission, refused *refusals, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeFrom(r.Context())
		if auth.Needed(r.URL.Path) != 0 {
			now := time.Now()
			priority, _ := x.priorityOf(r.Header) // who says none that there is is told later
			if wait, tooLong := s.refuses(priority, now); tooLong && !isLight(r, now) {
				wait = coarse(wait)
				refused.refuse(w, r, refusalKey{shed: events.ShedWait, said: wait}, func() *connect.Error {
					return overloaded(events.ShedWait, "requests wait for %s to begin, longer than is accepted", wait)
				})
				return
			}
			if most, full := work.isCrowded(priority); full && auth.Needed(r.URL.Path) == auth.Query {
				refused.refuse(w, r, refusalKey{shed: events.ShedRequests, said: time.Duration(most), priority: priority}, func() *connect.Error {
					return crowdedError(most, priority)
				})
				return
			}
			if c := connFrom(r.Context()); c != nil && c.expectsLong() {
				if most, full := work.isFull(priority); full {
					refused.refuse(w, r, refusalKey{shed: events.ShedLongWork, said: most, priority: priority}, func() *connect.Error {
						return workError(events.ShedLongWork, most, priority)
					})
					return
				}
			}
		}
		x.enter(r.Context())
		next.ServeHTTP(w, r)
	})
}

// isLight reports whether the connection of a request took hardly anything of late.
func isLight(r *http.Request, now time.Time) bool {
	c := connFrom(r.Context())
	return c != nil && c.use.ofLate(now) < lightUse
}

// refuseCheaply refuses a request that has not passed the gate.
func refuseCheaply(errors *connect.ErrorWriter, w http.ResponseWriter, r *http.Request, err *connect.Error) {
	chargeRefused(r)
	refuse(errors, w, r, err)
}

// chargeRefused has a refused request count in the use of its connection.
func chargeRefused(r *http.Request) {
	if c := connFrom(r.Context()); c != nil {
		c.use.add(refusedUse, time.Now())
	}
}

const (
	// longRun is after how many requests in a row with long work a connection is taken to send
	// more of it.
	longRun = 8
	// looksEach is how many of those that are taken for long are looked at, one of so many,
	// whatever there is to do: its next requests may be others.
	looksEach = 64
)

// sent notes whether admitted or refused work of the connection was long.
func (c *conn) sent(long bool) {
	switch {
	case !long:
		c.longs.Store(0)
	case c.longs.Load() < longRun:
		c.longs.Add(1)
	}
}

// expectsLong reports whether the next request is taken for long work before it is read.
func (c *conn) expectsLong() bool {
	return c.longs.Load() >= longRun && c.expected.Add(1)%looksEach != 0
}
