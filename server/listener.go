package server

import (
	"encoding/binary"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
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
	logger *slog.Logger

	mu      sync.Mutex
	open    map[*conn]struct{}
	refused int       // connections since the log told of them
	told    time.Time // when it did
	leaving bool
	leaves  sync.WaitGroup // goroutines that tell connections
}

func newListener(l net.Listener, most int, logger *slog.Logger) *listener {
	return &listener{Listener: l, most: most, logger: logger, open: map[*conn]struct{}{}}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, listener: l}
		c.idle.Store(time.Now().UnixNano())
		if l.add(c) {
			return c, nil
		}
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
		if idle := other.idle.Load(); idle > 0 && idle < since {
			longest, since = other, idle
		}
	}
	if longest == c {
		l.refused++
		if now := time.Now(); now.Sub(l.told) >= tellEvery {
			l.logger.Warn("connections were refused: as many as are accepted are open, and none is idle", "accepted", l.most, "refused", l.refused)
			l.refused, l.told = 0, now
		}
	}
	return longest
}

// tellEvery is how often the log tells of connections that were refused.
const tellEvery = 10 * time.Second

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

// conn is a connection that is counted. On one of HTTP/2 it follows where the frames that
// are written end, to put one between them: net/http tells a client to go only once it
// takes no more requests, and loses those that are on their way then. So it is told
// twice, as RFC 9113 (section 6.8) has it: first that it is to go, with the largest
// number of a stream, and a while later, by net/http, which stream was the last.
type conn struct {
	net.Conn
	listener *listener
	idle     atomic.Int64 // since when it is, in nanoseconds since the Unix epoch; 0 if it is not
	closed   sync.Once

	leaving  atomic.Bool
	mu       sync.Mutex // held to write
	begun    bool       // something was written
	http2    bool
	deadline time.Time // of writing, over HTTP/2: net/http sets it for each write, or not at all
	told     bool
	header   [frameHeader]byte // the beginning of the frame that is written now
	held     int               // bytes in header
	left     int               // bytes of the frame's payload
}

// frameHeader is the length of the header of a frame of HTTP/2.
const frameHeader = 9

// goAway is the frame that tells a client to go, with the largest number of a stream, and
// without an error.
var goAway = [...]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun && len(p) > 0 {
		c.begun = true
		c.http2 = p[0] != 'H' // "HTTP/1.1 ..." or the length of a SETTINGS frame, which is short
	}
	if !c.http2 {
		return c.Conn.Write(p)
	}
	if time.Until(c.deadline) < writeTimeout {
		c.deadline = time.Now().Add(2 * writeTimeout)
		_ = c.Conn.SetWriteDeadline(c.deadline) // a broken connection will not be written to
	}
	n, err := c.Conn.Write(p)
	c.follow(p[:n])
	if err == nil {
		err = c.tell()
	}
	return n, err
}

// follow notes what was written of frames.
func (c *conn) follow(p []byte) {
	for len(p) > 0 {
		if c.held < frameHeader {
			n := copy(c.header[c.held:], p)
			c.held += n
			p = p[n:]
			if c.held == frameHeader {
				c.left = int(binary.BigEndian.Uint32(c.header[:4]) >> 8)
			}
		}
		n := min(c.left, len(p))
		c.left -= n
		p = p[n:]
		if c.held == frameHeader && c.left == 0 {
			c.held = 0
		}
	}
}

// tell tells the client to go, once, if it is to and no frame is under way.
func (c *conn) tell() error {
	if !c.http2 || c.told || c.held > 0 || !c.leaving.Load() {
		return nil
	}
	c.told = true
	_, err := c.Conn.Write(goAway[:])
	return err
}

// leave has the client told to go: now, or with what is written next. The listener is
// locked.
func (c *conn) leave() {
	c.leaving.Store(true)
	c.listener.leaves.Go(func() { // which waits while another writes
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = c.tell() // net/http finds the connection broken
	})
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.closed.Do(func() {
		c.listener.mu.Lock()
		defer c.listener.mu.Unlock()
		delete(c.listener.open, c)
	})
	return c.Conn.Close()
}
