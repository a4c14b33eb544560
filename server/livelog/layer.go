package livelog

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Over is what lies over one snapshot: a [Layer], or what stands for those of other processes.
// Its methods are safe for any number of goroutines.
type Over interface {
	// Now returns the snapshot with what is laid over it now.
	Now() *Laid
	// Inputs returns the position that the snapshot's inputs reflect.
	Inputs() shard.Position
	// Shape returns what must be known of the snapshot to tell whether events fit it.
	Shape() *overlay.Shape
	// End ends it: nothing reads the snapshot for it any more.
	End()
}

// Layer is the log laid over one snapshot. It goes on with the log from when it was made
// ([Follower.Lay]) until End.
type Layer struct {
	follower *Follower
	snapshot *snapshots.Snapshot
	applier  *overlay.Applier
	now      atomic.Pointer[Laid]

	// What follows is guarded by the follower's mu.
	failed  error     // why it did not go on; nil if it did
	misfits int       // that were told of
	told    time.Time // when
}

// Laid is a snapshot with what is laid over it at one position. It does not change, and reads
// the files of the snapshot.
type Laid struct {
	*overlay.Overlaid
	View *live.View // of the log at that position
}

// Position returns the position.
func (l *Laid) Position() shard.Position { return l.Overlaid.Position }

// Lay lays the log over a snapshot, as far as it was read, and goes on with it until the layer
// is ended, before the snapshot is closed. The error is that of ctx, or says what of the
// snapshot cannot be read.
func (f *Follower) Lay(ctx context.Context, s *snapshots.Snapshot) (*Layer, error) {
	r := f.replica.Load()
	if r == nil {
		return nil, ErrUnread
	}
	m := s.Manifest()
	l := &Layer{follower: f, snapshot: s}
	var err error
	r.Read(func(state *live.State) {
		f.mu.Lock()
		defer f.mu.Unlock()
		view := r.View()
		if at := state.Position(); at != view.Position {
			err = fmt.Errorf("the live log was read to %s, which could not be remembered", at.Shard())
			return
		}
		l.applier, err = overlay.New(ctx, overlay.Snapshot{
			Apps: s.Tower(shard.Apps), Users: s.Tower(shard.Users),
			Model: m.Model, ModelVersion: m.ModelVersion, Inputs: inputsOf(m),
		}, state)
		if err == nil {
			f.layers[l] = struct{}{}
			l.publish(view)
		}
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// inputsOf returns the position that a snapshot's inputs reflect: of earlier events only
// takedowns, windows and forgotten users count. The zero position is that of a snapshot
// which says none: all events count.
func inputsOf(m *manifest.Manifest) shard.Position {
	if m.Live == nil {
		return shard.Position{}
	}
	return *m.Live
}

// Now returns the snapshot with what is laid over it now.
func (l *Layer) Now() *Laid { return l.now.Load() }

// Inputs returns the position that the snapshot's inputs reflect.
func (l *Layer) Inputs() shard.Position { return inputsOf(l.snapshot.Manifest()) }

// Shape returns what must be known of the snapshot to tell whether events fit it.
func (l *Layer) Shape() *overlay.Shape { return l.applier.Shape() }

// End ends the layer: nothing reads the files of the snapshot for it any more.
func (l *Layer) End() {
	l.follower.mu.Lock()
	defer l.follower.mu.Unlock()
	delete(l.follower.layers, l)
}

// apply goes on with what has changed in a state, and tells when that begins or ceases to
// fail.
func (l *Layer) apply(s *live.State, changes []live.Change) {
	was := l.failed
	l.failed = l.applier.Apply(s, changes)
	told := events.Live{Change: events.LiveNotLaid, Snapshot: l.snapshot.Digest(), Err: l.failed}
	if l.failed == nil {
		told.Change = events.LiveLaid
	}
	if (l.failed == nil) != (was == nil) {
		l.follower.o.Events.Live(told)
	}
}

// publish has what was applied last answer, with the view of its position.
func (l *Layer) publish(v *live.View) {
	now := l.applier.Now()
	l.now.Store(&Laid{now, v})
	apps, users := &now.Status.Apps, &now.Status.Users
	n := apps.MisfitCount + users.MisfitCount
	if n <= l.misfits {
		l.misfits = n
		return
	}
	if objects.Elapsed(l.told) < misfitsEvery {
		return
	}
	l.misfits, l.told = n, time.Now()
	first := slices.Concat(apps.Misfits, users.Misfits)[0]
	l.follower.o.Events.Live(events.Live{Change: events.LiveMisfits, Snapshot: l.snapshot.Digest(), Misfits: n, Misfit: first})
}

// applied is told of each entry before it is published.
func (f *Follower) applied(s *live.State, changes []live.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.layers {
		l.apply(s, changes)
	}
}

// published is told of each view before anybody else has it.
func (f *Follower) published(v *live.View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.log != v.Position.Log && f.IsRead() {
		f.o.Events.Live(events.Live{Change: events.LiveAccepted, Log: v.Position.Log, Sequence: v.Position.Sequence})
	}
	f.log = v.Position.Log
	if f.o.Published != nil {
		f.o.Published(v)
	}
	for l := range f.layers {
		if l.failed == nil {
			l.publish(v)
		}
	}
}

// mend has those layers go on that could not.
func (f *Follower) mend() {
	r := f.replica.Load()
	r.Read(func(s *live.State) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for l := range f.layers {
			if l.failed == nil {
				continue
			}
			if l.apply(s, nil); l.failed == nil && s.Position() == r.View().Position {
				l.publish(r.View())
			}
		}
	})
}

// broken reports whether there are layers that could not go on.
func (f *Follower) broken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.layers {
		if l.failed != nil {
			return true
		}
	}
	return false
}

// Look returns the view of the log, and what each of some layers is, all of one position but
// for those that could not go on. The view is nil before the log was read.
func (f *Follower) Look(layers []Over) (*live.View, []*Laid) {
	r := f.replica.Load()
	if r == nil {
		return nil, nil
	}
	var view *live.View
	laid := make([]*Laid, len(layers))
	r.Read(func(*live.State) {
		view = r.View()
		for i, l := range layers {
			laid[i] = l.Now()
		}
	})
	return view, laid
}
