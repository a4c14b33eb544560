package overlay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// Snapshot is what an [Applier] lays changes over.
type Snapshot struct {
	// Apps and Users are the towers, all parts of which are shards of this process.
	Apps, Users *shard.Tower
	// Model and ModelVersion are those of the snapshot: it takes the upserts of them.
	Model, ModelVersion string
	// Inputs is the position that the snapshot's inputs reflect. The zero position reflects
	// no event.
	Inputs shard.Position
}

// Applier lays what a [live.State] amounts to over one snapshot. [Applier.Apply] is for the
// goroutine that follows the log; the other methods are safe for any number of goroutines.
type Applier struct {
	applying
	shape Shape
	apps  *tower
	users *tower
	now   atomic.Pointer[Overlaid]
}

// Overlaid is a snapshot with what lies over it at one position. It is immutable and safe for
// any number of goroutines, for as long as the snapshot's shards are open. Its towers own
// nothing: they need not be closed.
type Overlaid struct {
	Apps, Users *shard.Tower
	Position    shard.Position
	Status      Status
}

// Tower returns one of the towers.
func (o *Overlaid) Tower(kind shard.Kind) *shard.Tower {
	if kind == shard.Users {
		return o.Users
	}
	return o.Apps
}

// Status is what lies over a snapshot.
type Status struct{ Apps, Users TowerStatus }

// TowerStatus is what lies over a tower.
type TowerStatus struct {
	Dead    int // rows of the snapshot that are not returned: taken down, removed, replaced
	Changed int // rows of the snapshot that have other attributes
	Fresh   int // rows that were upserted, and may be returned
	Windows int // rows that have a window
	// FreshBytes is what those that were upserted have: ids, vectors and attributes.
	FreshBytes int64
	// Misfits says of upserts and set attributes that do not fit the snapshot, and so do not
	// count in it, why; of the first ten, by their ids. MisfitCount is how many there are.
	Misfits     []string
	MisfitCount int
	// Runs is how many parts those that were upserted are in, and Layers how many tables
	// those that have other attributes.
	Runs, Layers int
}

// New lays a state over a snapshot. It takes longer the more the state has, but for apps that
// are taken down never longer than reading the ids of the snapshot; where users are forgotten
// it reads those of all users, and hashes them. The error is the context's, or an
// [*shard.UnreadableError].
func New(ctx context.Context, snapshot Snapshot, s *live.State) (*Applier, error) {
	a := &Applier{shape: Shape{
		Model: snapshot.Model, ModelVersion: snapshot.ModelVersion, Dim: snapshot.Apps.Dim(), Metric: snapshot.Apps.Metric(),
		Apps: snapshot.Apps.Schema(), Users: snapshot.Users.Schema(),
	}}
	var err error
	if a.apps, err = newTower(snapshot.Apps, share{}, snapshot.Inputs, &a.shape); err != nil {
		return nil, err
	}
	if a.users, err = newTower(snapshot.Users, share{}, snapshot.Inputs, &a.shape); err != nil {
		return nil, err
	}
	a.towers = []*tower{a.apps, a.users}
	return a, a.begin(ctx, s, a.publish)
}

// Apply makes what lies over the snapshot that of the state, from which it was different in
// the changes that are given. It takes a time that depends on how many they are, for the
// rest of what it does is shared among them: few changes in many pay for moving rows.
//
// If it fails, which it does where a page of the snapshot cannot be read, what was published
// stays, at its position, but for those that have been taken down or forgotten, which are
// refused. The next call begins with all of the state.
func (a *Applier) Apply(s *live.State, changes []live.Change) error {
	err := a.next(s, changes, a.publish)
	if err != nil {
		err = errors.Join(err, a.refuse(s))
	}
	return err
}

// refuse has what was published refuse whom the state does.
func (a *Applier) refuse(s *live.State) (err error) {
	next := *a.now.Load()
	if next.Apps, err = a.apps.refuse(next.Apps, s); err != nil {
		return err
	}
	if next.Users, err = a.users.refuse(next.Users, s); err != nil {
		return err
	}
	a.now.Store(&next)
	return nil
}

func (a *Applier) publish(s *live.State) {
	a.now.Store(&Overlaid{
		Apps: a.apps.current, Users: a.users.current, Position: s.Position().Shard(),
		Status: Status{Apps: a.apps.status(), Users: a.users.status()},
	})
}

// Now returns the snapshot with what lies over it.
func (a *Applier) Now() *Overlaid { return a.now.Load() }

// applying goes from one state to the next with some towers, that change together.
type applying struct {
	towers []*tower
	stale  bool   // what there is is not what the state was when it was applied last
	log    string // the id of its log then
}

// begin lays all of the state over the towers, whatever lies over them.
func (a *applying) begin(ctx context.Context, s *live.State, publish func(*live.State)) (err error) {
	defer a.named(&err)
	defer sections.Guard(&err)()
	a.stale = true // until all of it is done
	for _, t := range a.towers {
		b := t.begin(s)
		t.clear()
		if err := b.addAll(ctx); err != nil {
			return fmt.Errorf("lay over %s: %w", t.kind, err)
		}
		if err := b.commit(); err != nil {
			return fmt.Errorf("lay over %s: %w", t.kind, err)
		}
	}
	publish(s)
	a.stale, a.log = false, s.Position().Log
	return nil
}

// next goes on to a state that is different in some changes.
func (a *applying) next(s *live.State, changes []live.Change, publish func(*live.State)) (err error) {
	// What inputs of another log reflect depends on where that was left.
	if a.stale || a.log != s.Position().Log {
		return a.begin(context.Background(), s, publish)
	}
	a.stale = true // unless all of it is done
	defer a.named(&err)
	defer sections.Guard(&err)()
	for _, t := range a.towers {
		b := t.begin(s)
		for i := range changes {
			if (changes[i].Tower == shard.Users) == (t.kind == shard.Users) {
				b.addChange(&changes[i])
			}
		}
		if err := b.commit(); err != nil {
			return fmt.Errorf("lay over %s: %w", t.kind, err)
		}
	}
	publish(s)
	a.stale = false
	return nil
}

// named makes a fault in a file an error that names its shard.
func (a *applying) named(err *error) {
	fault, ok := errors.AsType[*sections.FaultError](*err)
	if _, named := errors.AsType[*shard.UnreadableError](*err); !ok || named {
		return
	}
	for _, t := range a.towers {
		for _, l := range t.locals {
			if fault.In(l.Shard().File()) {
				*err = fmt.Errorf("lay over %s: %w", t.kind, &shard.UnreadableError{Shard: l.Shard().Name(), Fault: fault})
			}
		}
	}
}
