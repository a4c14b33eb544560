package audit

import (
	"context"
	"errors"
	"time"

	"github.com/tandem-ann/tandem/shard"
)

// Exact finds the exact answer to a query of a tower whose shards other processes have, and says
// how much time of a processor that took them. What it asks of them is bounded there as well. An
// error is of class [ErrBusy] or [ErrLate], or says why audits cannot be done.
type Exact func(ctx context.Context, t *shard.Tower, q *shard.Query) (exact *shard.Answer, used time.Duration, err error)

var (
	// ErrBusy is the class of errors that say that there is no room for an audit now.
	ErrBusy = errors.New("there is no room for an audit")
	// ErrLate is the class of errors that say that an audit comes too late, or takes too long.
	ErrLate = errors.New("the audit is too late")
)

const (
	// longestRest is how long it is at most from one audit to the next.
	longestRest = 10 * time.Minute
	// tellAgain is after how long it is told again that audits cannot be done.
	tellAgain = 10 * time.Minute
)

// elsewhere has other processes find the exact answer, and rests then for so long that they have
// taken no more than the budget since it began: what they take is counted once it is done.
func (w *worker) elsewhere(ctx, auditing context.Context, it *item) (rest func(), exact *shard.Answer, used time.Duration, err error) {
	begun := w.c.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		exact, used, err = w.c.Exact(auditing, it.tower, &it.query)
	}()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-ticker.C:
			w.tick(ctx)
		}
	}
	w.used += used
	return func() {
		all := min(time.Duration(float64(used)/w.c.CPU), longestRest)
		for ctx.Err() == nil {
			left := min(begun.Add(all).Sub(w.c.Now()), all) // which it is beyond where a clock was set back
			if left <= 0 {
				return
			}
			w.clock.Sleep(ctx, min(left, tickEvery))
			w.tick(ctx)
		}
	}, exact, used, err
}

// fail takes down why an audit could not be done. The auditor's mu is held.
func (w *worker) fail(arm *Arm, err error, now time.Time) {
	switch {
	case errors.Is(err, ErrBusy):
		w.counts.Busy++
		w.sampler.left++
		return
	case errors.Is(err, ErrLate):
		w.counts.Aged++
		w.sampler.left++
		return
	}
	w.counts.Failed++
	arm.failure = err
	if !arm.told.IsZero() && now.Sub(arm.told).Abs() < tellAgain {
		return
	}
	arm.told = now
	w.tellFailed(arm, err)
}

// Failure returns why the last query of an arm that was to be audited could not be; nil if it
// could, or there was none.
func (arm *Arm) Failure() error {
	if arm == nil {
		return nil
	}
	arm.auditor.mu.Lock()
	defer arm.auditor.mu.Unlock()
	return arm.failure
}
