package server

import (
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/objects"
)

// listener bounds the connections that are open. Where there are as many as may be, the
// one that has been idle for longest makes room for a new one, which a client that keeps
// connections in a pool expects; and where none is idle, the new one is closed.
//
// When the server is to stop, it tells the connections of HTTP/2 that they are to take no
// new requests (see leave), while they still do.
type listener struct {
	net.Listener
	most   int
	events *events.Listener

	mu      sync.Mutex
	open    map[*conn]struct{}
	refused rare // connections that found no room
	flooded rare // connections that were closed, see [conn]
	leaving bool

	refusedAll, floodedAll uint64 // since it began

	leaves sync.WaitGroup // goroutines that tell connections

	fresh   chan struct{} // has room for as many connections as are accepted and not read from yet
	readers *gate         // of those that have read from connections
	spare   allowance     // of frames that connections have no credit for
}

func newListener(l net.Listener, most, processors int, told *events.Listener) *listener {
	return &listener{
		Listener: l, most: most, events: told, open: map[*conn]struct{}{},
		fresh: make(chan struct{}, placesFor(processors)), readers: newGate(placesFor(processors)),
		spare: allowance{left: spareFrames, at: time.Now()},
	}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.fresh <- struct{}{}
		accepted, err := l.Listener.Accept()
		if err != nil {
			<-l.fresh
			return nil, err
		}
		c := newConn(accepted, l)
		if l.add(c) {
			return c, nil
		}
		c.begin()
		_ = accepted.Close() // nobody will use it
	}
}

// add counts a connection, if there is room or can be made.
func (l *listener) add(c *conn) bool {
	longest := l.addOrFind(c)
	if longest == nil {
		return true
	}
	if longest == c {
		return false
	}
	_ = longest.Close() // as if it had been idle for too long
	return l.addOrFind(c) == nil
}

// addOrFind adds a connection and returns nil, or returns the one that has been idle for
// longest, or c if none is.
func (l *listener) addOrFind(c *conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) < l.most {
		l.open[c] = struct{}{}
		if l.leaving {
			c.leave()
		}
		return nil
	}
	longest, since := c, int64(math.MaxInt64)
	for other := range l.open {
		idle := other.idle.Load()
		if idle == 0 {
			idle = other.rests.Load() // its client has hardly done anything but floods
		}
		if idle > 0 && idle < since {
			longest, since = other, idle
		}
	}
	if longest == c {
		l.refusedAll++
		if n := l.refused.happened(); n > 0 {
			l.events.Connections(events.Connections{Change: events.Refused, N: n, Most: l.most})
		}
	}
	return longest
}

// calmed tells that a connection is closed for its frames.
func (l *listener) calmed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floodedAll++
	if n := l.flooded.happened(); n > 0 {
		l.events.Connections(events.Connections{Change: events.Flooded, N: n, Err: errFlooded})
	}
}

// tellEvery is how often is told of what happens to connections.
const tellEvery = 10 * time.Second

// rare counts what callers can make happen very often, and which is told together.
type rare struct {
	n    int       // since they were told of
	told time.Time // when that was
}

// happened counts one, and returns how many are to be told of, 0 if none yet.
func (r *rare) happened() int {
	r.n++
	if objects.Elapsed(r.told) < tellEvery {
		return 0
	}
	n := r.n
	r.n, r.told = 0, time.Now()
	return n
}

// changed notes the state of a connection, for [http.Server.ConnState].
func (l *listener) changed(c net.Conn, state http.ConnState) {
	counted, ok := c.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		counted.idle.Store(time.Now().UnixNano())
	default:
		counted.idle.Store(0)
	}
}

// leave tells all connections of HTTP/2, and those that are accepted from now on, that
// they are to take no new requests.
func (l *listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = true
	for c := range l.open {
		c.leave()
	}
}
