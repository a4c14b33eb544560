package appendlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Hint has those that watch this Log look at once. What another process appends they
// find when they poll, unless someone passes the hint on.
func (l *Log) Hint() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for hint := range l.hints {
		select {
		case hint <- struct{}{}:
		default: // it has one already
		}
	}
}

// Watcher is told what [Log.Watch] sees, by one goroutine. Every field must be set.
type Watcher struct {
	// Apply is handed each entry, in order. An error of it ends Watch.
	Apply func(Entry) error
	// Proved is told that the log ended with the entry that was applied last, or before
	// the first: at a moment after asked, when the first request of the proof was sent.
	// Asked has a reading of the monotonic clock, so its age is what the clock of the
	// machine cannot change. Entries that were appended later may be known to nobody.
	Proved func(asked time.Time)
	// Failed is told why a look proved nothing. [IsBroken] tells a log that does not go on
	// from what was read from one that cannot be read.
	Failed func(error)
}

const (
	// slowest is how many polls lie between two looks while they fail.
	slowest = 8
	// unsure is how many looks in vain come before a thorough one.
	unsure = 64
	// unanswered is how many looks may be without an answer at a time.
	unanswered = 4
	// lateness is how long a look may take to end once its time is up.
	lateness = time.Second
)

// Watch hands every entry behind a position on, in order, as they appear, and tells how
// recent what it knows is, until ctx ends. Each look is bounded by Options.Timeout: what
// is never answered costs one look. While looks fail Watch waits longer between them, and
// hands on nothing that does not follow what it has handed on before. That is so in another
// folder too, which it goes on in once one with something in it is at the store's location
// (see [objects.Bucket.Reopen]).
//
// It returns the error of ctx or of Apply; one of class [ErrCompacted] if a checkpoint has
// to be read first; and a [*RestoredError] if the log has ended and a person has accepted
// another.
func (l *Log) Watch(ctx context.Context, at Position, w Watcher) error {
	hint := make(chan struct{}, 1)
	l.mu.Lock()
	l.hints[hint] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.hints, hint)
	}()
	looks := make(chan struct{}, unanswered)
	wait, doubt := l.o.Poll, false // whether the log was another one when it was seen last
	for vain := 0; ; vain++ {
		asked := time.Now()
		next, found, err := l.bounded(ctx, looks, at, doubt || vain%unsure == 0)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		doubt = IsBroken(err) || doubt && err != nil
		switch restored := (*RestoredError)(nil); {
		case errors.Is(err, ErrCompacted), errors.As(err, &restored):
			return err
		case err != nil:
			w.Failed(err)
			wait = min(2*wait, slowest*l.o.Poll)
		case found:
			if err := w.Apply(next); err != nil {
				return err
			}
			at, wait = l.after(at, next), l.o.Poll
			vain = -1
			continue
		default:
			w.Proved(asked)
			wait = l.o.Poll
		}
		pause := wait
		if err != nil { // what it took counts
			pause = max(l.o.Poll, wait-time.Since(asked))
		}
		if err := l.rest(ctx, hint, pause); err != nil {
			return err
		}
	}
}

// bounded looks, for no longer than Options.Timeout. A store that does not heed the end of
// a context, such as a folder of a file system that hangs, keeps the goroutine of the
// look, which has a place in looks, and nothing else.
func (l *Log) bounded(ctx context.Context, looks chan struct{}, at Position, thorough bool) (Entry, bool, error) {
	type sight struct {
		next  Entry
		found bool
		err   error
	}
	looking, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	select {
	case looks <- struct{}{}:
	case <-looking.Done():
		return Entry{}, false, fmt.Errorf("look at log %s: %d looks have no answer yet, the last for %s", l.o.Prefix, unanswered, l.o.Timeout)
	}
	done := make(chan sight, 1)
	go func() {
		defer func() { <-looks }()
		next, found, err := l.look(looking, at, thorough)
		done <- sight{next, found, err}
	}()
	select {
	case s := <-done:
		return s.next, s.found, s.err
	case <-looking.Done():
	}
	timer := time.NewTimer(lateness)
	defer timer.Stop()
	select {
	case s := <-done:
		if s.err != nil {
			s.err = fmt.Errorf("no answer within %s: %w", l.o.Timeout, s.err)
		}
		return s.next, s.found, s.err
	case <-timer.C:
		return Entry{}, false, fmt.Errorf("look at log %s: no answer within %s", l.o.Prefix, l.o.Timeout)
	}
}

// rest waits for a hint or for some time, spread over a tenth so that many who watch do
// not look all at once.
func (l *Log) rest(ctx context.Context, hint <-chan struct{}, wait time.Duration) error {
	timer := time.NewTimer(wait + rand.N(wait/10+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-hint:
	case <-timer.C:
	}
	return nil
}
