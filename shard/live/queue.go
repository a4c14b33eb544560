package live

import (
	"fmt"
	"slices"
	"sync"

	"github.com/tandem-ann/tandem/shard"
)

// queue is what is to be appended.
type queue struct {
	mu     sync.Mutex
	urgent []*unit
	rest   []*unit
	ended  bool
	news   chan struct{} // has an element when something was added
}

func (q *queue) add(u *unit) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return ErrEnded
	}
	if u.urgent {
		q.hurry(u)
		q.urgent = append(q.urgent, u)
	} else {
		q.rest = append(q.rest, u)
	}
	select {
	case q.news <- struct{}{}:
	default:
	}
	return nil
}

// hurry has what waits and is about a user whom u forgets stay before it.
func (q *queue) hurry(u *unit) {
	forgotten := map[string]bool{}
	for _, e := range u.events {
		if e.Kind == Forget && e.Entity != "" {
			forgotten[e.Entity] = true
		}
	}
	if len(forgotten) == 0 {
		return
	}
	about := func(e Event) bool { return e.Tower == shard.Users && forgotten[e.Entity] }
	q.rest = slices.DeleteFunc(q.rest, func(w *unit) bool {
		before := slices.ContainsFunc(w.events, about)
		if before {
			q.urgent = append(q.urgent, w)
		}
		return before
	})
}

// take takes what the next entry is to have: what is urgent first.
func (q *queue) take() []*unit {
	q.mu.Lock()
	defer q.mu.Unlock()
	var list []*unit
	events, size := 0, 0
	for _, from := range []*[]*unit{&q.urgent, &q.rest} {
		for len(*from) > 0 {
			u := (*from)[0]
			events, size = events+len(u.events), size+u.size
			if len(list) > 0 && (events > MaxEvents || size > maxEntry) {
				return list
			}
			u.writing = true
			list = append(list, u)
			*from = (*from)[1:]
		}
	}
	return list
}

// again puts back what was taken, and is not in the log, before what came later.
func (q *queue) again(list []*unit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var urgent, others []*unit
	for _, u := range list {
		u.writing = false
		switch {
		case u.left: // who has left was told that it may be written
		case q.ended:
			u.done <- outcome{err: ErrEnded}
		case u.urgent:
			urgent = append(urgent, u)
		default:
			others = append(others, u)
		}
	}
	q.urgent, q.rest = append(urgent, q.urgent...), append(others, q.rest...)
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// leave takes out a unit whose context has ended.
func (q *queue) leave(u *unit) outcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case o := <-u.done:
		return o
	default:
	}
	if u.writing {
		u.left = true
		return outcome{err: fmt.Errorf("%w: %w", ErrUnconfirmed, u.ctx.Err())}
	}
	for _, list := range []*[]*unit{&q.urgent, &q.rest} {
		*list = slices.DeleteFunc(*list, func(other *unit) bool { return other == u })
	}
	return outcome{err: fmt.Errorf("nothing was written: %w", u.ctx.Err())}
}

// end ends all that waits, and refuses what comes.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for _, u := range append(q.urgent, q.rest...) {
		u.done <- outcome{err: fmt.Errorf("nothing was written: %w", ErrEnded)}
	}
	q.urgent, q.rest = nil, nil
}
