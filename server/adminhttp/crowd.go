package adminhttp

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// crowd bounds the connections that are open, and accepts each all the same: whoever opens many
// and says nothing must not keep a probe out. Beyond the bound the one makes room that has waited
// for longest without the whole header of a request; where all work on one, the one that has for
// longest. None makes room before it has had shortest, in which a header comes.
type crowd struct {
	net.Listener
	most     int
	shortest time.Duration

	mu   sync.Mutex
	open map[*member]struct{}
}

// member is a connection that is counted.
type member struct {
	net.Conn
	of    *crowd
	works bool      // on a request whose header is whole; of.mu is held, as for since
	since time.Time // when it began to, or to wait for one
}

func newCrowd(l net.Listener, most int, shortest time.Duration) *crowd {
	return &crowd{Listener: l, most: most, shortest: shortest, open: map[*member]struct{}{}}
}

// Accept implements [net.Listener].
func (c *crowd) Accept() (net.Conn, error) {
	accepted, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m := &member{Conn: accepted, of: c}
	for {
		leaves, wait := c.add(m)
		switch {
		case leaves != nil:
			_ = leaves.Close() // it is made to leave, whatever becomes of it
		case wait > 0:
			time.Sleep(wait)
		default:
			return m, nil
		}
	}
}

// add counts a connection, or returns which one makes room for it, or in how long one may.
func (c *crowd) add(m *member) (leaves *member, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.since = time.Now()
	if len(c.open) < c.most {
		c.open[m] = struct{}{}
		return nil, 0
	}
	wait = c.shortest
	for other := range c.open {
		rest := c.shortest - m.since.Sub(other.since)
		wait = min(wait, rest)
		if rest <= 0 && (leaves == nil || other.before(leaves)) {
			leaves = other
		}
	}
	return leaves, wait
}

// before reports whether it makes room before another does.
func (m *member) before(other *member) bool {
	if m.works != other.works {
		return other.works
	}
	return m.since.Before(other.since)
}

// changed notes the state of a connection, for [http.Server.ConnState]: net/http says that one
// is active once it has a whole header.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	m, ok := conn.(*member)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.works, m.since = state == http.StateActive, time.Now()
}

// Close implements [net.Conn].
func (m *member) Close() error {
	m.of.mu.Lock()
	delete(m.of.open, m)
	m.of.mu.Unlock()
	return m.Conn.Close()
}
