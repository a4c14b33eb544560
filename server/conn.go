package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection that is counted. It reads some KB at a time: net/http reads a frame
// of HTTP/2 by two system calls. On a connection of HTTP/2 it follows where frames end.
//
// # Frames that do no work
//
// A client can send very many frames that cost it nothing and the server some
// microseconds each, or those of a request that it takes back at once, which costs some
// ten times as much. So frames cost credit, which a connection earns with what it is
// answered. One that has none left is read from as slowly as an allowance for all of them
// lets it, and closed if that is too slow: what has queued on it would only be read when
// nobody waits for it any more, and be taken back in turn, for ever. Its client connects
// anew, and begins with what it asks then.
//
// # Going away
//
// net/http tells a client to go only once it takes no more requests, and loses those that
// are on their way then. So a client is told twice, as RFC 9113 (section 6.8) has it:
// first, between two frames of net/http, that it is to go, with the largest number of a
// stream; and a while later, by net/http, which stream was the last.
type conn struct {
	net.Conn
	listener           *listener
	idle               atomic.Int64 // since when it is, in nanoseconds since the Unix epoch; 0 if it is not
	beginning, closing sync.Once
	closed             chan struct{}
	credit             atomic.Int64
	use                usage
	watches            atomic.Int32 // of health that are open
	longs              atomic.Int32 // requests in a row that were long work, up to longRun
	expected           atomic.Int32 // requests that were taken for it

	// What one goroutine at a time reads with.
	pass    pass   // from a read to the next one
	buffer  []byte // what was read and not taken yet
	room    []byte // its memory
	preface int    // bytes of the preface of HTTP/2 that have come, -1 if others have
	in      frames
	wait    time.Duration // before it is read from again
	waited  time.Duration // since it last had credit, or needed none
	flooded bool          // it is closed after the wait
	rests   atomic.Int64  // since when it waits, as idle has it

	leaving  atomic.Bool
	mu       sync.Mutex // held to write
	begun    bool       // something was written
	http2    bool
	deadline time.Time // of writing, over HTTP/2: net/http sets it for each write, or not at all
	told     bool
	out      frames
}

const (
	// readSize is how many bytes are read at a time at least.
	readSize = 4 << 10
	// longestRest is how long one without credit waits, all in all, to be read from: one
	// that would have to wait longer is closed. Callers give up after about as long.
	longestRest = 250 * time.Millisecond
	// cautiousRead is how many there are of a connection with little credit.
	cautiousRead = 128
	// prefaceText is what a client of HTTP/2 begins with.
	prefaceText = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

type connKey struct{}

// withConn makes a connection known to the handlers of its requests, for
// [http.Server.ConnContext].
func withConn(ctx context.Context, c net.Conn) context.Context {
	if counted, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, counted)
	}
	return ctx
}

// connFrom returns the connection that ctx belongs to, nil if that is not known.
func connFrom(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

func newConn(c net.Conn, l *listener) *conn {
	out := &conn{Conn: c, listener: l, closed: make(chan struct{})}
	out.idle.Store(time.Now().UnixNano())
	out.credit.Store(firstCredit)
	out.use.took, out.use.at = firstUse, time.Now()
	return out
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	if len(c.buffer) == 0 {
		c.begin()
		c.listener.readers.leave(&c.pass)
		c.rest()
		if c.flooded {
			c.calm()
			return 0, errFlooded
		}
		into := p
		if len(p) < readSize {
			if c.room == nil {
				c.room = make([]byte, readSize)
			}
			into = c.room
			if c.preface >= 0 && c.credit.Load() <= firstCredit {
				into = c.room[:cautiousRead] // it is charged once it is read
			}
		}
		if len(p) > readSize {
			// More of what has begun to come is likely to be there, and to read it is work.
			c.listener.readers.enter(c.closed, &c.pass, &c.use)
		}
		n, err := c.Conn.Read(into)
		if n > 0 && len(p) <= readSize {
			c.listener.readers.enter(c.closed, &c.pass, &c.use)
		}
		c.arrived(into[:n])
		if len(p) >= readSize || n == 0 {
			return n, err
		}
		c.buffer = into[:n] // an error comes again
	}
	n := copy(p, c.buffer)
	c.buffer = c.buffer[n:]
	return n, nil
}

// begin lets the next connection be accepted, once its goroutine does what is next.
func (c *conn) begin() {
	c.beginning.Do(func() {
		select {
		case <-c.listener.fresh:
		default: // it was not accepted
		}
	})
}

// arrived takes credit for what was read of frames.
func (c *conn) arrived(p []byte) {
	for c.preface >= 0 && c.preface < len(prefaceText) && len(p) > 0 {
		if p[0] != prefaceText[c.preface] {
			c.preface = -1
			return
		}
		c.preface++
		p = p[1:]
	}
	if c.preface < 0 || len(p) == 0 {
		return
	}
	var price int64
	c.in.follow(p, func(kind byte, size int) { price += priceOf(kind, size) })
	lacks := -c.credit.Add(-price)
	if lacks <= 0 {
		c.waited = 0
		return
	}
	c.credit.Add(lacks)
	if c.wait = c.listener.spare.spend(lacks); c.wait == 0 {
		c.waited = 0
		return
	}
	c.rests.Store(time.Now().UnixNano())
	select {
	case <-c.closed: // before it was to wait
		c.rested()
	default:
	}
	if c.waited+c.wait > longestRest {
		c.wait, c.flooded = longestRest-c.waited, true
	}
	c.waited += c.wait
}

// rest waits until the connection may be read from again.
func (c *conn) rest() {
	if c.wait == 0 {
		return
	}
	timer := time.NewTimer(c.wait)
	defer timer.Stop()
	c.wait = 0
	select {
	case <-timer.C:
	case <-c.closed:
	}
	c.rested()
}

// errFlooded is why a connection is not read from any more.
var errFlooded = errors.New("requests were taken back, or frames came that do nothing, faster than is accepted")

// calm tells the client why its connection is closed, unless another writes.
func (c *conn) calm() {
	c.listener.calmed()
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if c.http2 && c.out.between() {
		_, _ = c.Conn.Write(beCalm[:]) // it is closed anyway
	}
}

// rested ends a wait, if there is one.
func (c *conn) rested() {
	if c.rests.Swap(0) > 0 {
		c.listener.spare.rested()
	}
}

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
	var earned int64
	c.out.follow(p[:n], func(kind byte, size int) { earned += creditOf(kind, size) })
	if earned > 0 && c.credit.Load() < mostCredit {
		c.credit.Add(earned)
	}
	if err == nil {
		err = c.tell()
	}
	return n, err
}

// tell tells the client to go, once, if it is to and no frame is under way.
func (c *conn) tell() error {
	if !c.http2 || c.told || !c.out.between() || !c.leaving.Load() {
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

// CloseWrite ends what is written: net/http does it before it closes a connection whose
// client may still be sending, which would lose the answer otherwise.
func (c *conn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite ends what is written to a connection, if that can be done.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.begin()
	c.closing.Do(func() {
		close(c.closed)
		c.rested() // it may not be read from again
		c.listener.mu.Lock()
		defer c.listener.mu.Unlock()
		delete(c.listener.open, c)
	})
	return c.Conn.Close()
}
