package cluster

import (
	"slices"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard"
)

// write is one takedown or restore of an app. It counts from a position between what was known
// when it was sent and what it was acknowledged with.
type write struct {
	down   bool
	after  uint64 // the highest position that was known before
	by     uint64 // that of the acknowledgement; 0 before it
	issued time.Time
	acked  time.Time
}

// history is what was written to one log, of each app in order.
type history struct {
	log    string
	known  uint64 // highest position
	writes map[int32][]*write
}

// registers are the apps that are taken down and restored, each by one write at a time. They
// are safe for any number of goroutines.
type registers struct {
	mu      sync.Mutex
	left    []*history // of logs that a person has accepted another one in place of
	now     *history
	downs   int64
	ups     int64
	retries int64
}

// newRegisters returns registers that nobody has written to, of a store whose log has an id.
func newRegisters(log string) *registers {
	return &registers{now: &history{log: log, writes: map[int32][]*write{}}}
}

// issue notes that a write is about to be sent.
func (r *registers) issue(app int32, down bool, now time.Time) *write {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &write{down: down, after: r.now.known, issued: now}
	r.now.writes[app] = append(r.now.writes[app], w)
	return w
}

// ack notes that a write was acknowledged.
func (r *registers) ack(w *write, at uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.by, w.acked = at, now
	r.now.known = max(r.now.known, at)
	if w.down {
		r.downs++
	} else {
		r.ups++
	}
}

// position returns the highest position that was acknowledged.
func (r *registers) position() shard.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return shard.Position{Log: r.now.log, Sequence: r.now.known}
}

func (r *registers) retried() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retries++
}

// accept has a person write again what was acknowledged, of a store that lacks some of it, and
// accept its log, and returns the error of that. Nobody else may write meanwhile, and answers are
// judged behind it: they may be of the new log before its id is known here.
func (r *registers) accept(do func(down, up []int32) (shard.Position, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var down, up []int32
	for app, list := range r.now.writes {
		switch w := lastAcked(list); {
		case w == nil:
		case w.down:
			down = append(down, app)
		default:
			up = append(up, app)
		}
	}
	at, err := do(down, up)
	if err != nil {
		return err
	}
	next := &history{log: at.Log, known: at.Sequence, writes: map[int32][]*write{}}
	for app, list := range r.now.writes {
		if w := lastAcked(list); w != nil {
			next.writes[app] = []*write{{down: w.down, by: 1, issued: w.issued, acked: w.acked}}
		}
		for i, w := range list {
			if w.by == 0 { // it goes on, and may be in either log
				left := *w
				list[i], w.after = &left, 0
				next.writes[app] = append(next.writes[app], w)
			}
		}
	}
	r.left, r.now = append(r.left, r.now), next
	return nil
}

// lastAcked returns the last write that was acknowledged, nil if none was.
func lastAcked(list []*write) *write {
	for _, w := range slices.Backward(list) {
		if w.by > 0 {
			return w
		}
	}
	return nil
}

// of returns the history of a log, nil if there is none. The caller holds mu.
func (r *registers) of(log string) *history {
	if r.now.log == log {
		return r.now
	}
	for _, h := range r.left {
		if h.log == log {
			return h
		}
	}
	return nil
}

// standing is what may be said of an app in an answer.
type standing struct {
	mayBeUp   bool // it may be in it
	mayBeDown bool // it may be missing
	late      bool // it must not be in it, however old the answer's position
}

// standings returns the standings of all apps that were ever written, of an answer at a
// position that came at a time, at most bound after the last acknowledgements that it need not
// know of; and whether the position's log is one that there was.
func (r *registers) standings(at shard.Position, came time.Time, bound time.Duration) (all map[int32]standing, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of(at.Log)
	if h == nil {
		return nil, false
	}
	out := make(map[int32]standing, len(h.writes))
	for app, list := range h.writes {
		s := standing{mayBeUp: true}
		for _, w := range list {
			if w.issued.After(came) {
				break
			}
			done := w.by > 0
			switch {
			case done && w.by <= at.Sequence: // it counts there
				s.mayBeUp, s.mayBeDown = !w.down, w.down
			case w.after < at.Sequence: // it may
				s.mayBeUp, s.mayBeDown = s.mayBeUp || !w.down, s.mayBeDown || w.down
			default: // it does not, and yet a takedown is refused at once
				s.mayBeDown = s.mayBeDown || w.down
			}
		}
		out[app] = s
	}
	for app, list := range r.now.writes { // whichever log the answer is of
		s, written := out[app]
		for _, w := range list {
			if !w.issued.After(came) {
				s.late = w.by > 0 && w.down && came.Sub(w.acked) > bound
			}
		}
		if written || s.late {
			out[app] = s
		}
	}
	return out, true
}
