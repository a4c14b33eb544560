package router

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/shard"
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
	at       time.Time
}

// add takes in what was read.
func (p *positions) add(v *live.View, now time.Time) {
	p.view = v
	at := v.Position.Shard()
	if at.Log != p.log || len(p.last) > 0 && at.Sequence < p.last[len(p.last)-1].sequence {
		p.log, p.last = at.Log, nil // a person has accepted another one
	}
	if n := len(p.last); n > 0 && p.last[n-1].sequence == at.Sequence {
		return
	}
	p.last = append(p.last, seen{at.Sequence, now})
	if len(p.last) > keptPositions {
		p.last = slices.Delete(p.last, 0, keptPositions/2)
	}
}

// since returns when the first position after another one was read, and the zero time if there
// is none. Of one that is too old to be remembered it is the oldest time that is.
func (p *positions) since(at shard.Position) time.Time {
	if len(p.last) == 0 {
		return time.Time{}
	}
	if at.Log != p.log {
		return p.last[0].at
	}
	i := sort.Search(len(p.last), func(i int) bool { return p.last[i].sequence > at.Sequence })
	if i == len(p.last) {
		return time.Time{}
	}
	return p.last[i].at
}

// choose returns the position that queries are to be asked at, and false if the shards have
// none in common. It is no earlier one than the last: a replica that has not got there yet is
// about to.
func (l *Layer) choose(view *live.View, last *livelog.Laid, now time.Time) (shard.Position, bool) {
	newest := view.Position.Shard()
	all, some := newest.Sequence, newest.Sequence
	for _, b := range l.towers {
		for _, s := range b.sets {
			least, most, any := uint64(0), uint64(0), false
			for _, r := range *s.now.Load() {
				if r.log != newest.Log || r.spare || r.isOut() {
					continue
				}
				if !any {
					least, most, any = r.newest, r.newest, true
				}
				least, most = min(least, r.newest), max(most, r.newest)
			}
			if any { // else it is lost, whatever is asked
				all, some = min(all, least), min(some, most)
			}
		}
	}
	at := shard.Position{Log: newest.Log, Sequence: all}
	if since := l.router.seen.since(at); !since.IsZero() && now.Sub(since) > patientLag || !l.covered(at) {
		at.Sequence = some
	}
	if last != nil && last.Position().Log == at.Log && last.Position().Sequence > at.Sequence {
		return last.Position(), true
	}
	return at, last != nil || l.covered(at)
}

// covered reports whether each shard that has a replica has one which can be asked at a
// position.
func (l *Layer) covered(at shard.Position) bool {
	for _, b := range l.towers {
		for _, s := range b.sets {
			list := *s.now.Load()
			if len(list) > 0 && !slices.ContainsFunc(list, func(r replica) bool { return r.has(at) }) {
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
			reached = reached && (now == nil || now.Position().Log == p.Log && now.Position().Sequence >= p.Sequence)
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
