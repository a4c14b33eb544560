package audit

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
)

// Run audits what is offered until ctx ends, and lets go of what is left then. It takes a
// thread for itself, which ends with it.
func (a *Auditor) Run(ctx context.Context) {
	if a == nil {
		return
	}
	onThread(func() {
		_ = lower() // it is the budget that counts
		w := &worker{Auditor: a, clock: a.c.clock()}
		w.budget = newBudget(w.clock, a.c.Now, a.c.CPU)
		w.run(ctx)
	})
	a.close()
}

// clock returns the clock of the calling thread.
func (c *Config) clock() Clock {
	if c.Clock != nil {
		return c.Clock()
	}
	return &threadClock{start: time.Now()}
}

// onThread calls f on a thread of its own, which nobody else gets, since its goroutine never
// lets it go. It is not the first of the process, whose priority tools show as that of all.
func onThread(f func()) {
	var group sync.WaitGroup
	group.Go(func() {
		runtime.LockOSThread()
		if isFirstThread() {
			onThread(f) // while this goroutine keeps that one
		} else {
			f()
		}
	})
	group.Wait()
}

// close lets go of what is left.
func (a *Auditor) close() {
	a.mu.Lock()
	a.closed = true
	left := a.queue
	a.queue, a.bytes = nil, 0
	a.mu.Unlock()
	letGo(left)
}

// worker is what audits.
type worker struct {
	*Auditor
	clock  Clock
	budget *budget
	used   time.Duration  // by other processes
	aside  sync.WaitGroup // a rollback
}

func (w *worker) run(ctx context.Context) {
	defer w.aside.Wait()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		if it := w.next(w.c.Now()); it != nil {
			w.budget.resume()
			w.audit(ctx, it)
			w.tick(ctx)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-w.news:
		case <-ticker.C:
			w.tick(ctx)
		}
	}
}

// tick does what is due now and then.
func (w *worker) tick(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.c.Now()
	w.sampler.tick(now, w.arms)
	w.counts.Used = w.used
	if w.c.Exact == nil {
		w.counts.Used, w.counts.Longest = w.budget.spent(), w.budget.longest
	}
	w.forget(now)
	w.rollBack(ctx, now)
}

// audit answers a query again.
func (w *worker) audit(ctx context.Context, it *item) {
	defer it.hold.Release()
	auditing, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	if it.arm.gone.Load() {
		w.counts.Gone++
		w.mu.Unlock()
		return
	}
	w.current, w.auditing = cancel, it.arm
	w.mu.Unlock()

	find := w.here
	if w.c.Exact != nil {
		find = w.elsewhere
	}
	rest, exact, used, err := find(ctx, auditing, it)
	if ended := auditing.Err(); ended != nil {
		err = ended
	}
	w.record(it, exact, err, used)
	rest()
}

// here finds the exact answer in this process, within the budget.
func (w *worker) here(ctx, auditing context.Context, it *item) (rest func(), exact *shard.Answer, used time.Duration, err error) {
	before := w.budget.spent()
	lastTick := w.c.Now()
	it.query.Pause = func() {
		w.budget.pause(auditing)
		if now := w.c.Now(); now.Sub(lastTick) >= tickEvery {
			lastTick = now
			w.tick(ctx)
		}
	}
	exact, err = it.tower.Search(pausing{auditing, it.query.Pause}, &it.query)
	return func() { w.budget.pause(ctx) }, exact, w.budget.spent() - before, err
}

// pausing is a context that pauses where long work looks whether it has ended: in filters and
// merges, which take no [shard.Query].Pause, that is as often.
type pausing struct {
	context.Context
	pause func()
}

// Err implements [context.Context].
func (p pausing) Err() error {
	p.pause()
	return p.Context.Err()
}

// record takes down what an audit has found.
func (w *worker) record(it *item, exact *shard.Answer, err error, used time.Duration) {
	recall := 0.0
	var nodes map[string]share
	if err == nil {
		recall = recallOf(exact.Candidates, it.found)
		nodes = sharesOf(exact.Candidates, it.found, it.from)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current, w.auditing = nil, nil
	now := w.c.Now()
	switch {
	case it.arm.gone.Load(), errors.Is(err, context.Canceled): // it was ended
		w.counts.Gone++
		return
	case err != nil:
		w.fail(it.arm, err, now)
		return
	}
	it.arm.failure = nil
	w.counts.Audits++
	w.sampler.done(used)
	w.addNodes(it, nodes, now)
	var kinds []Kind
	for _, s := range it.strata() {
		kinds = append(kinds, s.kind)
		w.changed(it.arm, s, s.add(now, recall, it.reference), now)
	}
	if w.c.Recorded != nil {
		w.c.Recorded(Audit{
			Arm: it.arm.Name, Plan: planNames[it.plan], Segment: it.query.Segment, Strata: kinds,
			K: it.query.K, Recall: recall, Reference: it.reference, Used: used, Counts: w.counts,
		})
	}
}

// changed tells of what an audit has changed.
func (w *worker) changed(arm *Arm, s *stratum, c change, now time.Time) {
	if c == nothing {
		return
	}
	l := s.look(now)
	l.order()
	e := events.Recall{
		Change: events.RecallCleared, Generation: arm.Generation, Arm: arm.Name, Snapshot: arm.Snapshot,
		Stratum: s.kind.String(), Name: s.name,
	}
	if c == raised {
		e.Change = events.RecallAlarm
		e.Recall, e.High, e.WorstDecile, e.Floor = l.Alarm.Recall, l.Alarm.High, l.WorstDecile, l.Alarm.Floor
		e.Audits, e.Onset = l.Alarm.Audits, l.Alarm.Onset
	}
	w.c.Events.Recall(e)
}
