package appendlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
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

// Watcher is told what [Log.Watch] sees, by one goroutine. Every field must be set, but for
// At.
type Watcher struct {
	// At, if it is not nil, returns where the reader stands, and is asked before each look:
	// one who appends knows the entry, and need not be handed it. What is not further than
	// what was handed on is passed over.
	At func() Position
	// Apply is handed each entry, in order. An error of it ends Watch.
	Apply func(Entry) error
	// Proved is told that nothing followed the entry that was applied last, or none if none
	// was: at a moment after asked, when the first request of the proof was sent.
	// Asked is what [time.Now] has returned, so its age is what [objects.Elapsed] says, which
	// is right though the machine sleeps. Entries that were appended later may be known to
	// nobody.
	Proved func(asked time.Time)
	// Failed is told why a look proved nothing. [IsBroken] tells a log that does not go on
	// from what was read from one that cannot be read.
	Failed func(error)
}

const (
	// slowest is how many polls lie between two looks while they fail.
	slowest = 8
	// unsure is how many proofs come before the log is checked again, and soon how many where
	// entries have come since the last check.
	unsure = 64
	soon   = 4
	// patience is how many times as long as a look a check may take, which lists the log.
	patience = 4
	// unanswered is how many looks may be without an answer at a time. One of them is not for
	// those that are made beside another.
	unanswered = 8
	// lateness is how long a look may take to end once its time is up.
	lateness = time.Second
)

// Watch hands every entry behind a position on, in order, as they appear, and tells how
// recent what it knows is, until ctx ends. Each look is bounded by Options.Timeout: what
// is never answered costs one look, and what is not answered soon has another look made beside
// it. While looks fail Watch waits longer between them, and
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
	ctx, stop := context.WithCancel(ctx)
	check := newChecker(l, hint)
	defer check.running.Wait()
	defer stop()
	looks := l.looker(1)
	wait, few := l.o.Poll, 1
	doubt := false // whether the log was another one when it was seen last
	for first := true; ; first = false {
		if w.At != nil {
			if now := w.At(); now.Sequence > at.Sequence {
				at = now
			}
		}
		switch err := check.failed(); {
		case IsBroken(err), errors.Is(err, ErrCompacted): // a look at where the reader is by now tells
			doubt = true
		case err != nil:
			w.Failed(err)
		}
		begun := time.Now()
		a := looks.look(ctx, at, first || doubt, few)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		found, err := a.found, a.err
		doubt = IsBroken(err) || doubt && err != nil
		restored := (*RestoredError)(nil)
		if errors.Is(err, ErrCompacted) || errors.As(err, &restored) {
			return err
		}
		if err != nil {
			w.Failed(err)
			wait = min(2*wait, slowest*l.o.Poll)
			if err := l.rest(ctx, hint, max(l.o.Poll, wait-objects.Elapsed(begun))); err != nil { // what it took counts
				return err
			}
			continue
		}
		for _, e := range found.entries {
			if err := w.Apply(e); err != nil {
				return err
			}
			at = l.after(at, e)
		}
		if found.ended {
			w.Proved(a.asked)
		}
		check.note(ctx, at, found)
		wait = l.o.Poll
		if n := len(found.entries); n > 0 {
			few = wider(n)
			continue
		}
		few = 1
		if err := l.rest(ctx, hint, wait); err != nil {
			return err
		}
	}
}

// wider returns how many entries to read next where there were so many: twice as many, so
// that one is missing however fast they come.
func wider(there int) int { return min(max(2*there, width), widest) }

// answer is what one look has found.
type answer struct {
	found finding
	asked time.Time // before its first request was sent
	err   error
}

// counts reports whether other looks need not be waited for.
func (a answer) counts() bool {
	return a.err == nil || IsBroken(a.err) || errors.Is(a.err, ErrCompacted)
}

// looker makes looks one after the other, and some beside others that have no answer.
type looker struct {
	log            *Log
	places         chan struct{} // has an element for each look that has no answer
	timeout, hedge time.Duration
}

// looker returns what makes looks, which may take so many times as long as Options say.
func (l *Log) looker(times time.Duration) *looker {
	return &looker{l, make(chan struct{}, unanswered), times * l.o.Timeout, times * l.o.Hedge}
}

// look looks, for no longer than the timeout. Whenever there is no answer for as long as the
// hedge it looks once more meanwhile, and takes the first answer that there is: a
// connection that hangs costs no more than that. A store that does not heed the end of a
// context, such as a folder of a file system that hangs, keeps the goroutines of the looks,
// which have places, and nothing else.
func (k *looker) look(ctx context.Context, at Position, thorough bool, few int) answer {
	looking, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	prefix, most := k.log.o.Prefix, cap(k.places)
	select {
	case k.places <- struct{}{}:
	case <-looking.Done():
		return answer{err: fmt.Errorf("look at log %s: %d looks have no answer yet, the last for %s", prefix, most, k.timeout)}
	}
	answers := make(chan answer, most) // as many as there are at a time
	look := func() {
		a := answer{asked: time.Now()}
		a.found, a.err = k.log.look(looking, at, thorough, few)
		answers <- a
		<-k.places
	}
	go look()
	hedge := time.NewTicker(k.hedge)
	defer hedge.Stop()
	over, late := looking.Done(), (<-chan time.Time)(nil)
	for waiting := 1; ; {
		select {
		case a := <-answers:
			if waiting--; waiting > 0 && !a.counts() {
				continue
			}
			if a.err != nil && looking.Err() != nil {
				a.err = fmt.Errorf("no answer within %s: %w", k.timeout, a.err)
			}
			return a
		case <-hedge.C:
			// Nobody else takes places: there is one if there was.
			if looking.Err() == nil && len(k.places) < most-1 && waiting < most-1 {
				k.places <- struct{}{}
				waiting++
				go look()
			}
		case <-over:
			over, late = nil, time.After(lateness)
		case <-late:
			return answer{err: fmt.Errorf("look at log %s: no answer within %s", prefix, k.timeout)}
		}
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
