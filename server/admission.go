package server

import (
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
)

// admission bounds the work that is in flight, in the time that processors take for it.
//
// # Goals
//
// A request that is let in is answered soon, and one that cannot be is told so at once,
// before any work is done for it. Requests count by what they cost, whatever they are: a
// batch as much as its queries. Short ones are answered whatever the long ones do.
//
// # Design
//
// What a request costs is estimated from the cost model of its snapshot, and corrected by
// what all requests of late took of the processors over what they were estimated to take.
// An eighth of what may be in flight is for short work. Long work may take the rest, and
// one request may take more if it is alone. It is done in turns (see call), as many at a
// time as there are processors, and gives way to others while it is done (see [index]).
type admission struct {
	maxRequests int
	maxWork     time.Duration
	processors  int

	mu          sync.Mutex
	requests    int
	short, long time.Duration // work in flight
	ratio       float64       // of what was measured to what was estimated

	// Since the last measurement.
	since time.Time
	used  time.Duration // what the process had used of processors then
	ended time.Duration // estimated work of requests that have ended
}

// cost is what a request is estimated to take.
type cost struct {
	work   time.Duration // of one processor
	answer int           // bytes of the answer in protobuf
	memory int           // bytes of the message, the search and the answer

	priority auth.Priority

	counted time.Duration // corrected work, as it was admitted; 0 if it was not
	start   time.Time
}

func (k *cost) add(o cost) {
	k.work += o.work
	k.answer += o.answer
	k.memory += o.memory
}

// shortWork is what work may take that waits for no turn.
const shortWork = time.Millisecond

// isLong reports whether admitted work waits for its turn.
func (k *cost) isLong() bool { return k.counted > shortWork }

// shortShare is the part of the work in flight that is for short work alone.
const shortShare = 8

// priorityShares is how much of what may be in flight, of allShares, there may be for a request
// of a priority to be admitted: what is less urgent is refused first.
var priorityShares = [...]int{auth.LivePriority: allShares, auth.BatchPriority: 2, auth.AuditPriority: 1}

const allShares = 4

// ofPriority says of which requests a bound is, if it is not that of all.
func ofPriority(p auth.Priority) string {
	if p == auth.LivePriority {
		return ""
	}
	return " of priority " + p.String()
}

// isFull reports whether no long work of a priority would be admitted, and how much is.
func (a *admission) isFull(p auth.Priority) (most time.Duration, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	most = (a.maxWork - a.maxWork/shortShare) * time.Duration(priorityShares[p]) / allShares
	return most, a.long > 0 && a.long+shortWork > most
}

// isCrowded reports whether no request of a priority would be admitted, whatever it costs, and how
// many are.
func (a *admission) isCrowded(p auth.Priority) (most int, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.crowded(p)
}

// crowded is isCrowded of who holds mu.
func (a *admission) crowded(p auth.Priority) (most int, full bool) {
	most = a.maxRequests * priorityShares[p] / allShares
	return most, a.requests > 0 && a.requests >= most
}

// crowdedError is the error of a request that is refused for those in flight.
func crowdedError(most int, p auth.Priority) *connect.Error {
	return overloaded(events.ShedRequests, "%d requests are in flight, as many as are accepted%s", most, ofPriority(p))
}

// workError is the error of work that is refused for what is in flight.
func workError(shed events.Shed, most time.Duration, p auth.Priority) *connect.Error {
	return overloaded(shed, "work of %s is in flight, as much as is accepted%s", most.Round(time.Microsecond), ofPriority(p))
}

// corrected returns what work is estimated to take by what all took of late.
func (a *admission) corrected(work time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(time.Duration(float64(work)*a.ratio), 1)
}

// enter admits work and notes that in k, or returns an error.
func (a *admission) enter(k *cost) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	share := priorityShares[k.priority]
	if most, full := a.crowded(k.priority); full {
		return crowdedError(most, k.priority)
	}
	k.counted = max(time.Duration(float64(k.work)*a.ratio), 1)
	kind, most, shed := &a.short, a.maxWork/shortShare, events.ShedShortWork
	if k.isLong() {
		kind, most, shed = &a.long, a.maxWork-most, events.ShedLongWork
	}
	most = most * time.Duration(share) / allShares
	if *kind > 0 && *kind+k.counted > most {
		k.counted = 0
		return workError(shed, most, k.priority)
	}
	*kind += k.counted
	a.requests++
	k.start = time.Now()
	return nil
}

// leave ends admitted work.
func (a *admission) leave(k *cost) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests--
	if k.isLong() {
		a.long -= k.counted
	} else {
		a.short -= k.counted
	}
	now := time.Now()
	// One that ended early, as at its deadline, did no more than there was time for.
	a.ended += min(k.work, now.Sub(k.start)*time.Duration(a.processors))
	switch window := now.Sub(a.since); {
	case window >= measureEvery:
		a.measure(now, window)
	case window < 0: // the clock was set back
		a.since = now
	}
}

const (
	// measureEvery is how often the estimates are corrected.
	measureEvery = time.Second
	// busyShare is the part of the processors' time that requests must have been
	// estimated to take, for what else the process did not to matter.
	busyShare = 0.1
	// maxRatio is how much estimates are corrected by at most.
	maxRatio = 4
)

// measure corrects the estimates by what the process used of the processors.
func (a *admission) measure(now time.Time, window time.Duration) {
	used := processorTime()
	took, ended := used-a.used, a.ended
	a.since, a.used, a.ended = now, used, 0
	if float64(ended)*a.ratio < busyShare*float64(window)*float64(a.processors) {
		return
	}
	ratio := 0.7*a.ratio + 0.3*float64(took)/float64(ended)
	a.ratio = min(max(ratio, 1.0/maxRatio), maxRatio)
}

// processorTime returns what the process has used of processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // it fails for wrong arguments only
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
