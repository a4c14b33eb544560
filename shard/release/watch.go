package release

import (
	"context"
	"errors"
	"time"

	"github.com/tandem-ann/tandem/shard/appendlog"
)

// Watcher is told what [Releases.Watch] sees, by one goroutine. Every field must be set.
type Watcher struct {
	// Apply is handed each release, in the order of the log.
	Apply func(*Release)
	// Unreadable is handed each entry that is no release that this build reads, in its
	// place.
	Unreadable func(*UnreadableError)
	// Restored is told that the log which was followed has ended and a person has accepted
	// another, whose last entry comes next.
	Restored func(*appendlog.RestoredError)
	// Proved and Failed are those of [appendlog.Watcher].
	Proved func(asked time.Time)
	Failed func(error)
}

// Watch follows the log behind a release, or from its beginning if after is nil, until
// ctx ends or a checkpoint has to be read first, and returns why, as [appendlog.Log.Watch]
// does. What does not follow from what it has handed on is never handed on, unless a
// person has accepted it.
func (r *Releases) Watch(ctx context.Context, after *Release, w Watcher) error {
	at := appendlog.Position{}
	if after != nil {
		at = after.position()
	}
	apply := func(e appendlog.Entry) error {
		release, err := decode(e)
		if u := (*UnreadableError)(nil); errors.As(err, &u) {
			w.Unreadable(u) // a newer one may be right
		} else {
			w.Apply(release)
		}
		return nil
	}
	for {
		err := r.log.Watch(ctx, at, appendlog.Watcher{Apply: apply, Proved: w.Proved, Failed: w.Failed})
		restored := (*appendlog.RestoredError)(nil)
		if !errors.As(err, &restored) {
			return err
		}
		w.Restored(restored)
		if err := apply(restored.Entry); err != nil {
			return err
		}
		at = r.log.Position(restored.Entry)
	}
}
