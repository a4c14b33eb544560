package server

import (
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/events"
)

// byteBudget bounds the bytes that all requests together hold: their headers, what has
// arrived of their bodies, their messages, and their answers.
//
// # Goals
//
// The process does not run out of memory whatever callers send, and however slowly they
// send it and take what they asked for. Those that are slow do not keep others out.
//
// # Design
//
// A request takes bytes as it needs them, and gives all back at its end. One that waits
// for its caller, to send or to take something, is in a list, in the order of since when.
// Where there are no bytes for another request, those that have waited for longer than
// cutOffAfter are cut off, longest first.
type byteBudget struct {
	most int64

	mu             sync.Mutex
	used           int64
	oldest, newest *call // that wait for their callers
}

// cutOffAfter is how long a request may wait for its caller where others need its bytes.
const cutOffAfter = time.Second

// holding is what one request holds of a budget, which guards it.
type holding struct {
	bytes          int64
	since          time.Time // it has waited for its caller
	waits          bool
	cut            bool // it is cut off, and holds nothing any more
	previous, next *call
}

// take takes bytes for a request, and reports whether there were as many. One counts for
// half of all at most.
func (b *byteBudget) take(c *call, bytes int64) bool {
	var cut []*call
	defer func() {
		for _, other := range cut { // not while others wait for the budget
			other.cutOff()
		}
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.held.cut {
		return false
	}
	bytes = min(bytes, b.most/2-c.held.bytes) // or the largest would never get through
	if bytes <= 0 {
		return true
	}
	for b.used+bytes > b.most {
		other := b.oldest
		if other == c && other != nil {
			other = other.held.next
		}
		if other == nil || time.Since(other.held.since) < cutOffAfter {
			return false
		}
		b.unlist(other)
		b.used -= other.held.bytes
		other.held.bytes, other.held.cut = 0, true
		cut = append(cut, other)
	}
	b.used += bytes
	c.held.bytes += bytes
	return true
}

// wait notes that a request waits for its caller from now on.
func (b *byteBudget) wait(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.held.waits || c.held.cut {
		return
	}
	c.held.waits, c.held.since = true, time.Now()
	c.held.previous = b.newest
	if b.newest != nil {
		b.newest.held.next = c
	} else {
		b.oldest = c
	}
	b.newest = c
}

// resume notes that a request does not wait any more, and reports whether it goes on: it
// may have been cut off.
func (b *byteBudget) resume(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unlist(c)
	return !c.held.cut
}

func (b *byteBudget) isCut(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.held.cut
}

// release gives back all that a request holds, at its end.
func (b *byteBudget) release(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unlist(c)
	b.used -= c.held.bytes
	c.held.bytes = 0
}

func (b *byteBudget) unlist(c *call) {
	h := &c.held
	if !h.waits {
		return
	}
	if h.previous != nil {
		h.previous.held.next = h.next
	} else {
		b.oldest = h.next
	}
	if h.next != nil {
		h.next.held.previous = h.previous
	} else {
		b.newest = h.previous
	}
	h.waits, h.previous, h.next = false, nil, nil
}

// full is the error of a request that gets no bytes.
func (b *byteBudget) full() *connect.Error {
	return overloaded(events.ShedBytes, "%d bytes of requests and answers are in flight, as many as are accepted", b.most)
}

// inUse returns how many bytes requests hold now.
func (b *byteBudget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
