package livelog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/overlay"
)

const (
	// pastTime is for how long a [ShardLayer] has a position after the next one took its place:
	// longer than most queries are allowed to take, all of which are asked at one position.
	pastTime = 10 * time.Second
	// pastMost is how many positions it has. Each costs up to a bit for each row of the shard, if
	// any of them has changed, and entries come by the poll: 128 of them are those of 10 s of
	// about one writer that never rests.
	pastMost = 128
)

var (
	// ErrBehind is the class of every error that says that the log was not read to a position,
	// or is not laid over the shard as far.
	ErrBehind = errors.New("the live log is not laid over the shard as far")
	// ErrGone is the class of every error that says that what there was at a position is not
	// known any more, or was before the shard was opened.
	ErrGone = errors.New("what there was at the position is not kept")
)

// ShardLayer is the log laid over one shard of a snapshot, at its last positions: a query asks
// shards that are elsewhere at one position for as long as it lasts, while the log goes on. It
// has positions of the last 10 s, at most 128. It goes on with the log from when it was made
// ([Follower.LayShard]) until End. Its methods may be called from any number of goroutines.
type ShardLayer struct {
	course
	applier *overlay.ShardApplier
	past    atomic.Pointer[past]
}

// past is what a layer has at its last positions. It does not change.
type past struct {
	list   []pastShard // the last one at the end; there is one
	failed error       // why there is no newer one; nil if there is none to come
}

// pastShard is a shard at one position.
type pastShard struct {
	*overlay.OverlaidShard
	since time.Time // when it took the place of the one before
}

// OneShard is a shard to lay the log over.
type OneShard struct {
	// Tower is of this shard alone. Its files stay open until the layer has ended.
	Tower *shard.Tower
	// Snapshot is what the shard is of, and Number which one it is there.
	Snapshot *manifest.Manifest
	Digest   manifest.Digest
	Number   int
}

// LayShard lays the log over one shard of a snapshot, as far as it was read: over its rows, and
// beside them what was upserted of the ids that belong to it. It goes on with it until the layer
// is ended, before the shard is closed. The error is that of ctx, or says what of the shard
// cannot be read.
func (f *Follower) LayShard(ctx context.Context, s OneShard) (*ShardLayer, error) {
	kind := s.Tower.Kind()
	l := &ShardLayer{course: course{follower: f, digest: s.Digest, shard: s.Tower.Parts()[0].Info().Name}}
	err := f.lay(l, func(state *live.State) (err error) {
		l.applier, err = overlay.NewShard(ctx, overlay.Shard{
			Tower: s.Tower, Number: s.Number, Of: len(s.Snapshot.Tower(kind).Shards),
			Model: s.Snapshot.Model, ModelVersion: s.Snapshot.ModelVersion, Inputs: inputsOf(s.Snapshot),
		}, state)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// End ends the layer: nothing reads the file of the shard for it any more.
func (l *ShardLayer) End() { l.follower.end(l) }

func (l *ShardLayer) apply(s *live.State, changes []live.Change) {
	err := l.applier.Apply(s, changes)
	if l.gone(err); err != nil {
		next := *l.past.Load()
		next.failed = err
		l.past.Store(&next)
	}
}

func (l *ShardLayer) publish(*live.View) {
	now := pastShard{l.applier.Now(), time.Now()}
	next := &past{}
	if before := l.past.Load(); before != nil {
		next.list = before.since(now.since.Add(-pastTime))
		if n := len(next.list); n > 0 && next.list[n-1].Position == now.Position {
			next.list = next.list[:n-1]
		}
		next.list = next.list[max(len(next.list)-(pastMost-1), 0):]
	}
	next.list = append(slices.Clip(next.list), now)
	l.past.Store(next)
	l.tell(&now.Status)
}

// since returns those positions that were not replaced before a time.
func (p *past) since(t time.Time) []pastShard {
	n := 0
	for n < len(p.list)-1 && p.list[n+1].since.Before(t) {
		n++
	}
	return p.list[n:]
}

// trim lets go of positions that were replaced long ago. It is for the time when no entry comes.
func (l *ShardLayer) trim(now time.Time) {
	p := l.past.Load()
	if list := p.since(now.Add(-pastTime)); len(list) < len(p.list) {
		l.past.Store(&past{slices.Clone(list), p.failed}) // without what the rest of the list refers to
	}
}

// trim has layers let go of positions that were replaced long ago.
func (f *Follower) trim() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.layers {
		if l, ok := l.(*ShardLayer); ok {
			l.trim(time.Now())
		}
	}
}

// Now returns the shard with what is laid over it now.
func (l *ShardLayer) Now() *overlay.OverlaidShard {
	list := l.past.Load().list
	return list[len(list)-1].OverlaidShard
}

// Failed returns why the layer cannot go on; nil if it does.
func (l *ShardLayer) Failed() error { return l.past.Load().failed }

// Range returns the first and the last position that the layer has, between which it has all
// that the log had.
func (l *ShardLayer) Range() (oldest, newest shard.Position) {
	list := l.past.Load().list
	at := len(list) - 1
	newest = list[at].Position
	for ; at > 0; at-- {
		// A log that was read anew has no entries of which a checkpoint was the sum.
		before, after := list[at-1].Position, list[at].Position
		if before.Log != after.Log || before.Sequence+1 != after.Sequence {
			break
		}
	}
	return list[at].Position, newest
}

// Have returns the shard at a position, nil if it has it not or not yet.
func (l *ShardLayer) Have(p shard.Position) *overlay.OverlaidShard { return l.past.Load().at(p) }

// At returns the shard at a position. One that is to come it waits for until ctx ends. The error
// is of class [ErrGone] or [ErrBehind], or why the layer cannot go on.
func (l *ShardLayer) At(ctx context.Context, p shard.Position) (*overlay.OverlaidShard, error) {
	if s := l.Have(p); s != nil {
		return s, nil
	}
	// A later log is one that a person has accepted, and was not read yet.
	now := l.Now().Position
	if p.Compare(now) <= 0 {
		return nil, fmt.Errorf("position %s, of %s on: %w", p, l.first(), ErrGone)
	}
	err := l.follower.Wait(ctx, p)
	last := l.past.Load()
	switch s := last.at(p); {
	case s != nil:
		return s, nil
	case last.failed != nil:
		return nil, last.failed
	case err != nil:
		return nil, fmt.Errorf("position %s, at %s: %w", p, l.Now().Position, errors.Join(ErrBehind, err))
	}
	return nil, fmt.Errorf("position %s, of %s on: %w", p, l.first(), ErrGone)
}

// first is the first position that there is.
func (l *ShardLayer) first() shard.Position { return l.past.Load().list[0].Position }

// at returns the shard at a position, nil if it is not there. Positions ascend.
func (p *past) at(at shard.Position) *overlay.OverlaidShard {
	if last := p.list[len(p.list)-1]; last.Position == at {
		return last.OverlaidShard
	}
	i, ok := slices.BinarySearchFunc(p.list, at, func(s pastShard, at shard.Position) int { return s.Position.Compare(at) })
	if !ok {
		return nil
	}
	return p.list[i].OverlaidShard
}
