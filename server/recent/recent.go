// Package recent remembers what became of the queries of the last minute, and what a server
// has failed at last, for people who look at one server at this moment. What is for graphs and
// alerts is in the package metrics.
package recent

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/events"
)

// PartTime is how long a [Part] is.
const PartTime = 10 * time.Second

const (
	// slotTime is how long each part of the window is, of which there are slots: the last is
	// filled, so that the window is between 50 s and a minute long.
	slotTime = PartTime
	slots    = 6
	// The buckets of latencies begin at firstBucket, and each is a tenth wider than the one
	// before; the last, from about a minute on, has what is longer.
	firstBucket  = 50 * time.Microsecond
	bucketFactor = 1.1
	buckets      = 148
	// maxFailures is how many failures are remembered, and maxText the bytes of the text of
	// one.
	maxFailures = 8
	maxText     = 512
)

// Recent remembers what happened of late. Its methods may be called from any number of
// goroutines.
type Recent struct {
	now func() time.Time

	mu       sync.Mutex
	began    time.Time
	ring     [slots]slot
	failures []Failure // the oldest first
	stale    map[string]bool
}

// slot is what has happened in a part of the window.
type slot struct {
	number                    int64 // of the part, from the beginning
	answered, refused, failed uint64
	overQuota                 uint64 // of those that were refused
	took                      [buckets]uint64
	answers                   uint64  // items of batches count
	coverage, lowest          float64 // of the answers: the sum, and the least
}

// New returns one that nothing has happened to. It tells the time by now, or by [time.Now] if
// that is nil.
func New(now func() time.Time) *Recent {
	if now == nil {
		now = time.Now
	}
	return &Recent{now: now, began: now(), stale: map[string]bool{}}
}

// Listener is who is to be told of events.
func (r *Recent) Listener() *events.Listener {
	var load atomic.Pointer[error] // why a snapshot could not be opened at last
	return &events.Listener{
		RPCEnd:   r.ended,
		Answered: r.covered,
		LoadEnd: func(l events.Load) {
			if l.Err != nil {
				load.Store(&l.Err)
				r.fail(Release, fmt.Sprintf("snapshot %.12s of generation %d: %v", l.Snapshot, l.Generation, l.Err))
			}
		},
		NotServed: func(n events.NotServed) {
			// A snapshot that could not be opened was told of, with its name.
			if l := load.Load(); l == nil || !errors.Is(n.Err, *l) {
				r.fail(Release, fmt.Sprintf("generation %d: %v", n.Generation, n.Err))
			}
		},
		ShardLost: func(l events.ShardLost) { r.fail(Shard, fmt.Sprintf("snapshot %.12s: %v", l.Snapshot, l.Err)) },
		Live: func(l events.Live) {
			if l.Change == events.LivePast {
				r.fail(LiveLog, "its last proof of where the live log ends is older than the fence")
			}
		},
		Secrets: r.reread,
		Recording: func(c events.Recording) {
			switch c.Change {
			case events.Dropped:
				r.fail(Recording, "queries came faster than they could be recorded")
			case events.Lost:
				r.fail(Recording, fmt.Sprintf("queries could not be recorded: %v", c.Err))
			}
		},
	}
}

// ended counts a request, if it is a query.
func (r *Recent) ended(e events.RPC) {
	if e.Procedure != tandemv1connect.RetrievalServiceRetrieveProcedure && e.Procedure != tandemv1connect.RetrievalServiceBatchRetrieveProcedure {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slot()
	switch e.Code {
	case 0:
		s.answered++
		s.took[bucketOf(e.Duration)]++
	case connect.CodeResourceExhausted:
		s.refused++
		if e.Shed.IsQuota() {
			s.overQuota++
		}
	default:
		s.failed++
	}
}

// covered notes what an answer is based on.
func (r *Recent) covered(a *events.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slot()
	if s.answers == 0 || a.Coverage < s.lowest {
		s.lowest = a.Coverage
	}
	s.answers++
	s.coverage += a.Coverage
}

// slot returns that of this moment. The lock is held.
func (r *Recent) slot() *slot {
	number := int64(r.now().Sub(r.began) / slotTime)
	s := &r.ring[number%slots]
	if s.number != number {
		*s = slot{number: number}
	}
	return s
}

// bucketOf returns which bucket a latency is in.
func bucketOf(d time.Duration) int {
	if d <= firstBucket {
		return 0
	}
	return min(int(math.Ceil(math.Log(float64(d)/float64(firstBucket))/math.Log(bucketFactor))), buckets-1)
}

// Queries are what became of the queries of some time. A batch is one.
type Queries struct {
	Window time.Duration // in how long they have ended
	// Answered, Refused because there was too much to do or a quota was taken, and Failed
	// otherwise are how many of them there were.
	Answered, Refused, Failed uint64
	OverQuota                 uint64 // of those that were refused, for the quota of their caller
	// P50 and P99 are what half, and 99 of 100, of those that were answered took at most, up
	// to a tenth more than it was; 0 if none were.
	P50, P99 time.Duration
}

// Queries returns what became of those of the last minute.
func (r *Recent) Queries() Queries {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.slot().number
	since := r.now().Sub(r.began)
	out := Queries{Window: since - time.Duration(max(last-slots+1, 0))*slotTime}
	var took [buckets]uint64
	for i := range r.ring {
		s := &r.ring[i]
		if s.number <= last-slots {
			continue
		}
		out.Answered += s.answered
		out.Refused += s.refused
		out.OverQuota += s.overQuota
		out.Failed += s.failed
		for b, n := range s.took {
			took[b] += n
		}
	}
	out.P50, out.P99 = quantile(&took, out.Answered, 0.5), quantile(&took, out.Answered, 0.99)
	return out
}

// Part is what became of the queries of one step of [PartTime].
type Part struct {
	End time.Time
	Queries
	// Answers are how many there were, those to items of batches among them; Coverage is their
	// mean coverage, and LowestCoverage the least. Both are 0 without answers.
	Answers                  uint64
	Coverage, LowestCoverage float64
}

// Ended returns the parts that have ended since number after, the oldest first, and the number to
// go on from. Of those that ended more than 50 s ago nothing is known any more, and they are left
// out. After is -1 at first.
func (r *Recent) Ended(after int64) (list []Part, last int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := int64(r.now().Sub(r.began) / slotTime)
	for n := max(after+1, now-slots+1); n < now; n++ {
		p := Part{End: r.began.Add(time.Duration(n+1) * slotTime), Queries: Queries{Window: slotTime}}
		if s := &r.ring[n%slots]; s.number == n {
			p.Answered, p.Refused, p.Failed, p.OverQuota = s.answered, s.refused, s.failed, s.overQuota
			p.P50, p.P99 = quantile(&s.took, s.answered, 0.5), quantile(&s.took, s.answered, 0.99)
			if p.Answers, p.LowestCoverage = s.answers, s.lowest; s.answers > 0 {
				p.Coverage = s.coverage / float64(s.answers)
			}
		}
		list = append(list, p)
	}
	return list, max(after, now-1)
}

// quantile returns what a share of n latencies are at most, 0 if there are none.
func quantile(took *[buckets]uint64, n uint64, share float64) time.Duration {
	rank, seen := uint64(math.Ceil(share*float64(n))), uint64(0)
	for b, count := range took {
		if seen += count; n > 0 && seen >= rank {
			return time.Duration(float64(firstBucket) * math.Pow(bucketFactor, float64(b)))
		}
	}
	return 0
}

// reread notes whether files of secrets that have changed can be used.
func (r *Recent) reread(e events.Secrets) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale[e.Name] = e.Err != nil
}

// StaleSecrets returns the names of the files of secrets that have changed and cannot be used,
// as [events.Secrets] has them, in order.
func (r *Recent) StaleSecrets() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, stale := range r.stale {
		if stale {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Kind is what a server has failed at.
type Kind uint8

// The kinds.
const (
	Release   Kind = iota + 1 // to serve a release, or to open a snapshot of one
	Shard                     // to read a shard that answered
	LiveLog                   // to prove in time that it had read the live log to its end
	Recording                 // to keep queries that were to be recorded
)

// Failure is something that a server has failed at.
type Failure struct {
	Time  time.Time // the last
	Kind  Kind
	Text  string // why
	Times uint64 // in a row
}

// fail remembers a failure in place of the oldest. One that repeats another with none in
// between is that one again, so that what is tried again for hours hides nothing else.
func (r *Recent) fail(kind Kind, text string) {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if n := len(r.failures); n > 0 && r.failures[n-1].Kind == kind && r.failures[n-1].Text == text {
		r.failures[n-1].Time = now
		r.failures[n-1].Times++
		return
	}
	if len(r.failures) == maxFailures {
		r.failures = append(r.failures[:0], r.failures[1:]...)
	}
	r.failures = append(r.failures, Failure{now, kind, text, 1})
}

// Failures returns the last failures, the newest first.
func (r *Recent) Failures() []Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Failure, 0, len(r.failures))
	for i := len(r.failures) - 1; i >= 0; i-- {
		out = append(out, r.failures[i])
	}
	return out
}
