package livelog

import (
	"context"
	"fmt"
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

// layer is what a follower knows of one that it goes on with: a [Layer] or a [ShardLayer].
type layer interface {
	// apply goes on with what has changed in a state.
	apply(s *live.State, changes []live.Change)
	// publish has what was applied last answer, with the view of its position.
	publish(v *live.View)
	// failure returns why it did not go on; nil if it did.
	failure() error
}

// course is how a layer goes on. It is guarded by the follower's mu.
type course struct {
	follower *Follower
	digest   manifest.Digest // of the snapshot
	shard    string          // empty for all of the snapshot
	failed   error           // why it did not go on; nil if it did
	misfits  int             // that were told of
	told     time.Time       // when
}

func (c *course) failure() error { return c.failed }

// gone notes whether it went on, and tells when that begins or ceases to fail.
func (c *course) gone(err error) {
	was := c.failed
	c.failed = err
	told := events.Live{Change: events.LiveNotLaid, Snapshot: c.digest, Shard: c.shard, Err: err}
	if err == nil {
		told.Change = events.LiveLaid
	}
	if (err == nil) != (was == nil) {
		c.follower.o.Events.Live(told)
	}
}

// tell tells of what does not fit, where that has become more.
func (c *course) tell(over ...*overlay.TowerStatus) {
	n := 0
	for _, s := range over {
		n += s.MisfitCount
	}
	if n <= c.misfits {
		c.misfits = n
		return
	}
	if objects.Elapsed(c.told) < misfitsEvery {
		return
	}
	c.misfits, c.told = n, time.Now()
	told := events.Live{Change: events.LiveMisfits, Snapshot: c.digest, Shard: c.shard, Misfits: n}
	for _, s := range over {
		if told.Misfit == "" && len(s.Misfits) > 0 {
			told.Misfit = s.Misfits[0]
		}
	}
	c.follower.o.Events.Live(told)
}

// Layer is the log laid over one snapshot. It goes on with the log from when it was made
// ([Follower.Lay]) until End.
type Layer struct {
	course
	snapshot *snapshots.Snapshot
	applier  *overlay.Applier
	now      atomic.Pointer[Laid]
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
	m := s.Manifest()
	l := &Layer{course: course{follower: f, digest: s.Digest()}, snapshot: s}
	err := f.lay(l, func(state *live.State) (err error) {
		l.applier, err = overlay.New(ctx, overlay.Snapshot{
			Apps: s.Tower(shard.Apps), Users: s.Tower(shard.Users),
			Model: m.Model, ModelVersion: m.ModelVersion, Inputs: inputsOf(m),
		}, state)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// lay has a layer begin with what was read of the log, by begin, and go on from there.
func (f *Follower) lay(l layer, begin func(*live.State) error) (err error) {
	r := f.replica.Load()
	if r == nil {
		return ErrUnread
	}
	r.Read(func(state *live.State) {
		f.mu.Lock()
		defer f.mu.Unlock()
		view := r.View()
		if at := state.Position(); at != view.Position {
			err = fmt.Errorf("the live log was read to %s, which could not be remembered", at.Shard())
			return
		}
		if err = begin(state); err == nil {
			f.layers[l] = struct{}{}
			l.publish(view)
		}
	})
	return err
}

// end ends a layer.
func (f *Follower) end(l layer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.layers, l)
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
func (l *Layer) End() { l.follower.end(l) }

func (l *Layer) apply(s *live.State, changes []live.Change) { l.gone(l.applier.Apply(s, changes)) }

func (l *Layer) publish(v *live.View) {
	now := l.applier.Now()
	l.now.Store(&Laid{now, v})
	l.tell(&now.Status.Apps, &now.Status.Users)
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
	if f.o.Viewed != nil {
		f.o.Viewed(v)
	}
	for l := range f.layers {
		if l.failure() == nil {
			l.publish(v)
		}
	}
	f.o.Published()
}

// mend has those layers go on that could not.
func (f *Follower) mend() {
	r := f.replica.Load()
	r.Read(func(s *live.State) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for l := range f.layers {
			if l.failure() == nil {
				continue
			}
			if l.apply(s, nil); l.failure() == nil && s.Position() == r.View().Position {
				l.publish(r.View())
			}
		}
		f.o.Published()
	})
}

// broken reports whether there are layers that could not go on.
func (f *Follower) broken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.layers {
		if l.failure() != nil {
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
