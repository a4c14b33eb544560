package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// outcomeLog writes outcomes into a store as package outcomes has them.
//
// # Goals
//
// Whoever is told that outcomes are kept can rely on it, whatever becomes of this process and its
// machine. A store that takes long for an object takes as many of them as come all the same, and
// one that fails, or callers that send more than it takes, do not fill the memory.
//
// # Design
//
// One goroutine, which run is, gathers what calls bring, for an interval from the first of them on
// or until there is enough for an object. Another one for each object encodes and creates it, under
// a name of its own, a few of them at a time, and then tells the calls. So an object has all of a
// message or nothing. It is tried for as long as any of the calls waits: then they are told that
// nothing is known, and send the outcomes again. That there may be both is why outcomes have ids.
//
// What is held, by whichever object, is bounded by the estimated bytes of it.
//
// Of a user who is forgotten when an object is made nothing is in it. The call is told so.
type outcomeLog struct {
	store  creator
	events *events.Listener
	o      outcomeOptions

	queue   chan *outcomeCall
	held    atomic.Int64 // bytes of what was not told to its calls yet
	stop    chan struct{}
	done    chan struct{} // closed when run has ended
	ctx     context.Context
	cancel  context.CancelFunc
	closing sync.Once
}

// creator is what an outcomeLog needs of a store: see [objects.Bucket.Create].
type creator interface {
	Create(ctx context.Context, key string, data []byte) error
}

// outcomeOptions say when and how outcomes are written.
type outcomeOptions struct {
	interval time.Duration    // the longest that outcomes are gathered for an object
	rows     int              // outcomes of an object, beyond which it is written
	bytes    int              // about the same in bytes
	held     int64            // the most bytes of all that is held
	uploads  int              // objects that are written at a time
	hash     *rowlog.UserHash // of ids of users; nil if they are written as they are
	encode   func([]outcomes.Outcome) ([]byte, error)
	// forgotten returns the users who are forgotten by now.
	forgotten func() live.Forgotten
}

// DefaultOutcomeInterval is how long outcomes are gathered by default until they are written.
const DefaultOutcomeInterval = time.Second

// The least and the longest time for which outcomes may be gathered: calls wait for it.
const (
	LeastOutcomeInterval   = 10 * time.Millisecond
	LongestOutcomeInterval = 5 * time.Second
)

func defaultOutcomeOptions() outcomeOptions {
	return outcomeOptions{
		interval: DefaultOutcomeInterval, rows: 20_000, bytes: 4 << 20, held: 32 << 20, uploads: 2,
		encode: outcomes.Encode, forgotten: func() live.Forgotten { return live.Forgotten{} },
	}
}

// outcomeCall is what a call brings. What follows done is right once it is closed.
type outcomeCall struct {
	list     []outcomes.Outcome
	bytes    int
	deadline time.Time

	done      chan struct{}
	forgotten int
	err       error
}

// startOutcomeLog starts to write outcomes. The caller closes it.
func startOutcomeLog(store creator, told *events.Listener, o outcomeOptions) *outcomeLog {
	l := &outcomeLog{store: store, events: told, o: o, queue: make(chan *outcomeCall), stop: make(chan struct{}), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.run()
	return l
}

// Why outcomes were not kept, or are not known to be.
type (
	outcomesFullError struct{ held int64 }
	// unconfirmedError says that the store may have them.
	unconfirmedError struct{ error }
	// endedError says that nothing is written any more.
	endedError struct{}
)

func (e *outcomesFullError) Error() string {
	return fmt.Sprintf("outcomes of about %d bytes wait to be written, as many as may", e.held)
}
func (e *unconfirmedError) Unwrap() error { return e.error }
func (endedError) Error() string          { return "nothing is written any more" }

// keep has outcomes written, and returns when they are durable, with how many are not there since
// they are of users who are forgotten. An error is an [*outcomesFullError], an [endedError] or that
// of ctx, and nothing was kept, or an [*unconfirmedError]. The list is the log's.
func (l *outcomeLog) keep(ctx context.Context, list []outcomes.Outcome) (forgotten int, err error) {
	c := &outcomeCall{list: list, done: make(chan struct{})}
	for i := range list {
		c.bytes += list[i].Size()
	}
	var bounded bool
	if c.deadline, bounded = ctx.Deadline(); !bounded {
		c.deadline = time.Now().Add(DefaultMaxDeadline)
	}
	if held := l.held.Add(int64(c.bytes)); held > l.o.held {
		l.held.Add(-int64(c.bytes))
		return 0, &outcomesFullError{held - int64(c.bytes)}
	}
	select {
	case l.queue <- c:
	case <-l.stop:
		l.held.Add(-int64(c.bytes))
		return 0, endedError{}
	case <-ctx.Done():
		l.held.Add(-int64(c.bytes))
		return 0, ctx.Err()
	}
	select {
	case <-c.done:
		return c.forgotten, c.err
	case <-ctx.Done():
		return 0, &unconfirmedError{ctx.Err()}
	}
}

// close writes what was gathered and ends the log, which takes no longer than the calls' own
// deadlines. What is kept later is not.
func (l *outcomeLog) close() {
	if l == nil {
		return
	}
	l.closing.Do(func() {
		close(l.stop)
		<-l.done
		l.cancel()
	})
}

// outcomeBatch is what becomes one object.
type outcomeBatch struct {
	calls       []*outcomeCall
	rows, bytes int
}

// run gathers what calls bring, until the log is closed.
func (l *outcomeLog) run() {
	defer close(l.done)
	var uploads sync.WaitGroup
	defer uploads.Wait()
	slots := make(chan struct{}, l.o.uploads)
	timer := time.NewTimer(l.o.interval)
	timer.Stop()
	var b outcomeBatch
	due := false // there is something to write, and it is time
	write := func() {
		of := b
		b, due = outcomeBatch{}, false
		timer.Stop()
		uploads.Go(func() {
			defer func() { <-slots }()
			l.write(of.calls)
		})
	}
	for {
		queue, free := l.queue, chan<- struct{}(nil)
		if b.rows >= l.o.rows || b.bytes >= l.o.bytes {
			queue = nil // the next ones wait for the next object
			due = true
		}
		if due {
			free = slots
		}
		select {
		case c := <-queue:
			if b.rows == 0 {
				timer.Reset(l.o.interval)
			}
			b.calls = append(b.calls, c)
			b.rows += len(c.list)
			b.bytes += c.bytes
		case <-timer.C:
			due = b.rows > 0
		case free <- struct{}{}:
			write()
		case <-l.stop:
			if b.rows > 0 {
				slots <- struct{}{}
				write()
			}
			return
		}
	}
}

// write makes an object of what calls have brought, and tells them.
func (l *outcomeLog) write(calls []*outcomeCall) {
	start := time.Now()
	e := l.create(start, calls)
	e.Took = time.Since(start)
	l.events.Outcomes(e)
	for _, c := range calls {
		l.held.Add(-int64(c.bytes))
		close(c.done)
	}
}

// create makes an object of what calls have brought, and notes in each what became of it.
func (l *outcomeLog) create(start time.Time, calls []*outcomeCall) (e events.Outcomes) {
	without := l.o.forgotten()
	forgotten := rowlog.Remembering(without.Has)
	var rows []outcomes.Outcome
	var deadline time.Time
	for _, c := range calls {
		list := c.list
		if without.Len() > 0 {
			list = slices.DeleteFunc(list, func(o outcomes.Outcome) bool { return o.Names(forgotten) })
			c.forgotten = len(c.list) - len(list)
			e.Forgotten += c.forgotten
		}
		rows = append(rows, list...)
		if c.deadline.After(deadline) {
			deadline = c.deadline
		}
	}
	if e.Outcomes = len(rows); len(rows) == 0 {
		return e
	}
	for i := range rows {
		rows[i].UserID = l.o.hash.Of(rows[i].UserID)
	}
	e.Object = outcomes.Key(start)
	ctx, cancel := context.WithDeadline(l.ctx, deadline)
	defer cancel()
	data, err := l.o.encode(rows)
	if e.Bytes = len(data); err == nil {
		err = l.store.Create(ctx, e.Object, data)
	}
	if e.Err = err; err != nil {
		for _, c := range calls {
			c.err = &unconfirmedError{err}
		}
	}
	return e
}
