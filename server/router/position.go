package router

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
)

const (
	// keptPositions is how many of the last positions it is remembered of when they were read.
	keptPositions = 4096
	// patientLag is for how long queries are asked at an older position, for all replicas of a
	// shard to have it, once some have a newer one.
	patientLag = time.Second
)

// positions are the last ones that were read of the live log.
type positions struct {
	view *live.View // the newest; nil before the log was read
	log  string
	last []seen // ascending
}

// seen is when a position was read.
type seen struct {
	sequence uint64
	entry    appendlog.Hash // of the entry there; zero if there is none
	at       time.Time
	proof    time.Time // the last one of the position before it; long ago if there was none
}

// add takes in what was read.
func (p *positions) add(v *live.View, now time.Time) {
	before := p.view
	p.view = v
	at := v.Position.Shard()
	if at.Log != p.log || len(p.last) > 0 && at.Sequence < p.last[len(p.last)-1].sequence {
		p.log, p.last = at.Log, nil // a person has accepted another one
	}
	if n := len(p.last); n > 0 && p.last[n-1].sequence == at.Sequence {
		return
	}
	next := seen{at.Sequence, v.Position.Hash, now, now}
	if before != nil {
		next.proof = now.Add(-before.Proof.Age())
	}
	if p.last = append(p.last, next); len(p.last) > keptPositions {
		p.thin()
	}
}

// thin forgets every other position of the older half: what is asked of it later gets the
// earlier time.
func (p *positions) thin() {
	const half = keptPositions / 2
	thinned := p.last[:0]
	for i := 0; i < half; i += 2 {
		thinned = append(thinned, seen{p.last[i+1].sequence, p.last[i+1].entry, p.last[i].at, p.last[i].proof})
	}
	p.last = append(thinned, p.last[half:]...)
}

// after returns the first position after another one that was read, nil if there is none.
func (p *positions) after(at shard.Position) *seen {
	if len(p.last) == 0 {
		return nil
	}
	if at.Log != p.log {
		return &p.last[0]
	}
	i := sort.Search(len(p.last), func(i int) bool { return p.last[i].sequence > at.Sequence })
	if i == len(p.last) {
		return nil
	}
	return &p.last[i]
}

// entryAt returns the hash of the entry at a position, and false if that is not known.
func (p *positions) entryAt(at shard.Position) (appendlog.Hash, bool) {
	if at.Log != p.log {
		return appendlog.Hash{}, false
	}
	i := sort.Search(len(p.last), func(i int) bool { return p.last[i].sequence >= at.Sequence })
	if i == len(p.last) || p.last[i].sequence != at.Sequence || p.last[i].entry.IsZero() {
		return appendlog.Hash{}, false
	}
	return p.last[i].entry, true
}

// otherLogError says that a node has read another log than the router, under the same id and
// to the same position: its store is another copy of this one, and both were written to.
type otherLogError struct {
	at          shard.Position
	its, router appendlog.Hash
}

func (e *otherLogError) Error() string {
	return fmt.Sprintf("its store is another one, or another copy: entry %s of its live log is %s, and the router's is %s", e.at, e.its.Short(), e.router.Short())
}

// otherStoreError says that a node follows another store than the router.
type otherStoreError struct{ its, router string }

func (e *otherStoreError) Error() string {
	return fmt.Sprintf("its store is another one: that has the id %.40q, and the router's %.40q", e.its, e.router)
}

// parted returns an error if the log that a node has read has parted from that of the router. Where
// the two cannot be compared, what was found before holds.
func (p *positions) parted(s *shardv1.NodeStatus, before error) error {
	if s.GetRead() == nil || len(s.GetEntry()) != len(appendlog.Hash{}) {
		return before
	}
	at := shard.Position{Log: s.Read.GetLog(), Sequence: s.Read.GetSequence()}
	its := appendlog.Hash(s.Entry)
	switch entry, known := p.entryAt(at); {
	case !known:
		return before
	case entry != its:
		return &otherLogError{at, its, entry}
	}
	return nil
}

// lag returns for how long a later position than this one has been known, 0 if none is.
func (p *positions) lag(at shard.Position, now time.Time) time.Duration {
	if next := p.after(at); next != nil {
		return now.Sub(next.at)
	}
	return 0
}

// proved returns when it was last proved that a position is not followed by another one, and
// whether it is by now.
func (p *positions) proved(at shard.Position) (proof time.Time, lags bool) {
	if next := p.after(at); next != nil {
		return next.proof, true
	}
	return time.Time{}, false
}

// beyondFence reports whether answers at a position would be refused: a router that was away from
// the log reads several entries at once, none of which it has seen the log end with but the last.
func (r *Router) beyondFence(at shard.Position, now time.Time) bool {
	proof, lags := r.seen.proved(at)
	return lags && r.o.Fence > 0 && now.Sub(proof) > r.o.Fence
}

// choose returns the position that queries are to be asked at, and false if the shards have
// none in common. It is no earlier one than the last: a replica that has not got there yet is
// about to. Snapshots go on together, as far as they can: who was answered from one, and then is
// from another, since a release has switched or has two arms, finds nothing undone.
func (l *Layer) choose(view *live.View, last *livelog.Laid, now time.Time) (shard.Position, bool) {
	newest := view.Position.Shard()
	have := l.extent(newest, false)
	if !have.any {
		have = l.extent(newest, true)
	}
	all, asked := l.router.others(l, newest)
	at := shard.Position{Log: newest.Log, Sequence: min(have.all, all)}
	next := now.Add(updateEvery) // when it is looked at again
	if l.router.seen.lag(at, now) > patientLag || l.router.beyondFence(at, next) || !l.covered(at) {
		at.Sequence = have.some
	}
	if l.router.beyondFence(at, next) {
		at.Sequence = have.furthest // nodes wait for it, and some can read it
	}
	if last != nil && last.Position().Log != at.Log && !l.covered(at) {
		return last.Position(), true // a person has accepted another log, which nodes are about to read
	}
	if last != nil && last.Position().Log == at.Log && last.Position().Sequence > at.Sequence {
		at = last.Position()
	}
	if asked > at.Sequence {
		if further := (shard.Position{Log: at.Log, Sequence: asked}); last == nil || l.covered(further) {
			at = further
		}
	}
	return at, last != nil || l.covered(at)
}

// others returns how far all replicas of the other snapshots that are asked have read the log that
// is followed, and the furthest position of it that one of these is asked at.
func (r *Router) others(l *Layer, newest shard.Position) (all, asked uint64) {
	all = newest.Sequence
	for other := range r.layers {
		now := other.now.Load()
		if other == l || now == nil {
			continue
		}
		if have := other.extent(newest, false); have.any {
			all = min(all, have.all)
		}
		if at := now.Position(); at.Log == newest.Log {
			asked = max(asked, at.Sequence)
		}
	}
	return all, asked
}

// extent is how far the replicas of all shards have read the log that is followed.
type extent struct {
	any      bool   // whether any has
	all      uint64 // to where all replicas have
	some     uint64 // to where one of each shard that has replicas has
	furthest uint64 // to where one has
}

// extent returns how far replicas have read, of those that are asked, with or without those that
// are behind for too long. A shard without any is lost, whatever is asked.
func (l *Layer) extent(newest shard.Position, late bool) extent {
	e := extent{all: newest.Sequence, some: newest.Sequence}
	for _, b := range l.towers {
		for _, s := range b.sets {
			least, most, any := uint64(0), uint64(0), false
			for _, r := range *s.now.Load() {
				if r.log != newest.Log || r.spare || r.late && !late || r.isOut() {
					continue
				}
				read := min(r.newest, newest.Sequence)
				if !any {
					least, most, any = read, read, true
				}
				least, most = min(least, read), max(most, read)
			}
			if any {
				e.any, e.all, e.some, e.furthest = true, min(e.all, least), min(e.some, most), max(e.furthest, most)
			}
		}
	}
	if !e.any {
		e.furthest = newest.Sequence
	}
	return e
}

// covered reports whether each shard that has a replica has one which can be asked at a
// position, but for those that are behind for too long.
func (l *Layer) covered(at shard.Position) bool {
	for _, b := range l.towers {
		for _, s := range b.sets {
			list := *s.now.Load()
			may := func(r replica) bool { return !r.late }
			if slices.ContainsFunc(list, may) && !slices.ContainsFunc(list, func(r replica) bool { return r.has(at) }) {
				return false
			}
		}
	}
	return true
}

// Reach waits until all that is open is asked at a position of the log that is followed, or a
// later one. The error is that of ctx.
func (r *Router) Reach(ctx context.Context, p shard.Position) error {
	for {
		r.mu.Lock()
		updated, reached := r.updated, true
		for l := range r.layers {
			now := l.now.Load()
			reached = reached && (now == nil || reaches(now, p))
		}
		r.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-updated:
		}
	}
}

// reaches reports whether what is asked has all up to a position, of its log or of one that it
// has gone on from.
func reaches(now *livelog.Laid, p shard.Position) bool {
	at := now.Position()
	if p.Sequence == 0 || at.Log == p.Log {
		return at.Sequence >= p.Sequence
	}
	common, known := now.View.Lineage.Common(p.Log)
	return known && at.Log == now.View.Position.Log && p.Sequence <= min(common, at.Sequence)
}
