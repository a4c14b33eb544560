package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// LogOptions say what is kept of a live log.
type LogOptions struct {
	// Keep is how long entries are kept that a checkpoint sums up, since that was written;
	// at least [appendlog.LeastAge].
	Keep time.Duration
	// PendingKeep is how long what was upserted for a model version is kept while there is no
	// snapshot of it, since the last was upserted.
	PendingKeep time.Duration
	// ForgetWithin is within which nothing of a user who is forgotten is left in the log.
	ForgetWithin time.Duration
	// Now is the time by the store's clock.
	Now time.Time
	// Author is who settles.
	Author string
	// AtLeast is a position that the log is known to have reached, as AtLeastFrom says: to one
	// that ends before nothing is appended.
	AtLeast     shard.Position
	AtLeastFrom string
	// DryRun says what would be done, and does nothing.
	DryRun bool
}

// LogKept is what [Log] has done, or would have.
type LogKept struct {
	Settled     []Settled `json:"settled"`
	Checkpoint  uint64    `json:"checkpoint,omitempty"` // the entry of the checkpoint that was written; 0 if none was
	Entries     int       `json:"entries"`              // that were deleted
	Checkpoints int       `json:"checkpoints"`
	// Forgetting is what is left of users who are forgotten.
	Forgetting Forgetting `json:"forgetting"`
}

// LateError says that a live log may have something of users who were forgotten for longer
// than it should.
type LateError struct {
	Forgetting
	Within time.Duration
	Keep   time.Duration
}

// Error implements [error].
func (e *LateError) Error() string {
	return fmt.Sprintf("forgetting is late: %d entries and %d checkpoints of the live log may have something of %d users who were forgotten, the first at %s, more than %s ago; "+
		"they are deleted by a collection that finds a checkpoint behind what forgets the user, older than %s: run it more often, or keep entries for less time",
		e.Entries, e.Checkpoints, e.Pending, e.Since.UTC().Format(time.RFC3339), e.Within, e.Keep)
}

// checkpointAge is how old the last checkpoint becomes before Log writes another, where
// entries follow it: a log that grows slowly has few, and is read whole by whoever starts.
const checkpointAge = 24 * time.Hour

// Log settles what nothing needs of the live log of a store, writes a checkpoint if the last
// is old, or was written before a user was forgotten, and deletes what one that is old enough
// sums up. State is what the log amounts to; it is read and not changed. The error is a
// [*LateError] where all was done, and it is not enough. LogKept is right beside an error.
func Log(ctx context.Context, store *snapshots.Store, log *live.State, o LogOptions) (*LogKept, error) {
	k := &LogKept{Settled: []Settled{}}
	late, err := k.run(ctx, store, log, o)
	switch {
	case err != nil:
		return k, fmt.Errorf("keep the live log short: %w", err)
	case late:
		return k, &LateError{k.Forgetting, o.ForgetWithin, o.Keep}
	}
	return k, nil
}

func (k *LogKept) run(ctx context.Context, store *snapshots.Store, log *live.State, o LogOptions) (late bool, err error) {
	bucket := store.Objects()
	inputs, err := readReflected(ctx, store, log)
	if err != nil {
		return false, err
	}
	settled := settle(log, inputs, o.Now.Add(-o.PendingKeep))
	before, err := readObjects(ctx, bucket)
	if err != nil {
		return false, err
	}
	due := before.due(log, o.Now)
	switch {
	case o.DryRun:
		k.Settled = append(k.Settled, settled...)
		if due {
			k.Checkpoint = log.Position().Sequence
		}
	case due || len(settled) > 0:
		if err := k.write(ctx, store, log, settled, due, o); err != nil {
			return false, err
		}
	}
	trimmed, err := live.Log(bucket, 0).Trim(ctx, o.Keep, o.DryRun)
	k.Entries, k.Checkpoints = trimmed.Entries, trimmed.Checkpoints
	if err != nil {
		return false, err
	}
	left, err := readObjects(ctx, bucket)
	if err != nil {
		return false, err
	}
	k.Forgetting = left.forgetting(log)
	return k.Forgetting.Pending > 0 && o.Now.Sub(k.Forgetting.Since) > o.ForgetWithin, nil
}

// due reports whether a checkpoint is to be written.
func (l *logObjects) due(log *live.State, now time.Time) bool {
	if len(l.checkpoints) == 0 {
		return log.Position().Sequence > 0
	}
	last := l.checkpoints[len(l.checkpoints)-1]
	if log.Position().Sequence <= last {
		return false
	}
	if now.Sub(l.dates[last]) >= checkpointAge {
		return true
	}
	users := log.Forgotten()
	for h := range users.All() {
		if gone, _ := users.Get(h); gone.Sequence > last {
			return true
		}
	}
	return false
}

// write appends what settles, and writes a checkpoint if one is due.
func (k *LogKept) write(ctx context.Context, store *snapshots.Store, log *live.State, settled []Settled, due bool, o LogOptions) (err error) {
	bucket := store.Objects()
	replica, err := live.Open(ctx, bucket, live.Options{
		Author: o.Author, AtLeast: live.Position{Log: o.AtLeast.Log, Sequence: o.AtLeast.Sequence}, AtLeastFrom: o.AtLeastFrom,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	var ended error
	following.Go(func() { ended = replica.Run(running) })
	defer func() {
		stop()
		following.Wait()
		if !errors.Is(ended, context.Canceled) {
			err = errors.Join(err, ended)
		}
	}()
	for some := range slices.Chunk(settled, live.MaxEvents) {
		var events []live.Event
		for i := range some {
			s := &some[i]
			// Before it is settled, so that no build begins that needs it.
			through := shard.Position{Log: log.Position().Log, Sequence: s.Through}
			if err := writeMark(ctx, bucket, mark{s.Model, s.ModelVersion, through}); err != nil {
				return err
			}
		}
		// A build that had looked for the marks before they were there has published by now, or
		// looks again once it has.
		inputs, err := readReflected(ctx, store, log)
		if err != nil {
			return err
		}
		some = slices.DeleteFunc(slices.Clone(some), func(s Settled) bool { return inputs.need(&s) })
		for i := range some {
			events = append(events, some[i].event())
		}
		if len(events) == 0 {
			continue
		}
		if _, err := replica.Append(ctx, events); err != nil {
			return err
		}
		k.Settled = append(k.Settled, some...)
	}
	if !due {
		return nil
	}
	at, err := replica.Checkpoint(ctx)
	k.Checkpoint = at.Sequence
	return err
}
