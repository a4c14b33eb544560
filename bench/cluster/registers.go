package cluster

import (
	"sync"
	"time"
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

// registers are the apps that are taken down and restored, each by one write at a time. They
// are safe for any number of goroutines.
type registers struct {
	mu      sync.Mutex
	known   uint64 // highest position
	log     string
	writes  map[int32][]*write
	downs   int64
	ups     int64
	retries int64
}

// issue notes that a write is about to be sent.
func (r *registers) issue(app int32, down bool, now time.Time) *write {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &write{down: down, after: r.known, issued: now}
	r.writes[app] = append(r.writes[app], w)
	return w
}

// ack notes that a write was acknowledged.
func (r *registers) ack(w *write, log string, at uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.by, w.acked = at, now
	r.log, r.known = log, max(r.known, at)
	if w.down {
		r.downs++
	} else {
		r.ups++
	}
}

func (r *registers) retried() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retries++
}

// standing is what may be said of an app in an answer.
type standing struct {
	mayBeUp   bool // it may be in it
	mayBeDown bool // it may be missing
	late      bool // it must not be in it, however old the answer's position
}

// standings returns the standings of all apps that were ever written, of an answer at a
// position that came at a time, at most bound after the last acknowledgements that it need not
// know of.
func (r *registers) standings(at uint64, came time.Time, bound time.Duration) map[int32]standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[int32]standing, len(r.writes))
	for app, list := range r.writes {
		s := standing{mayBeUp: true}
		for _, w := range list {
			if w.issued.After(came) {
				break
			}
			done := w.by > 0
			switch {
			case done && w.by <= at: // it counts there
				s.mayBeUp, s.mayBeDown = !w.down, w.down
			case w.after < at: // it may
				s.mayBeUp, s.mayBeDown = s.mayBeUp || !w.down, s.mayBeDown || w.down
			default: // it does not, and yet a takedown is refused at once
				s.mayBeDown = s.mayBeDown || w.down
			}
			s.late = done && w.down && came.Sub(w.acked) > bound
		}
		out[app] = s
	}
	return out
}
