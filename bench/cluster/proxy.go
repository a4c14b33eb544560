package cluster

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Mode is what a [Proxy] does to connections.
type Mode int

// The modes.
const (
	Pass   Mode = iota // nothing
	Freeze             // no byte arrives, and nobody is told
	Cut                // all are reset, and so is each new one
)

// proxyBuffer is how much is sent on at a time, and dialTimeout how long it may take to connect.
const (
	proxyBuffer = 64 << 10
	dialTimeout = time.Second
)

// Proxy is a TCP proxy on loopback whose connections can be made to fail. It is safe for any
// number of goroutines.
type Proxy struct {
	listener net.Listener
	target   atomic.Pointer[string]
	group    sync.WaitGroup

	mu      sync.Mutex
	mode    Mode
	delay   time.Duration // of all that is sent on
	changed chan struct{} // closed when the mode changes
	open    map[net.Conn]struct{}
	closed  bool
}

// NewProxy returns a proxy that sends to nobody yet. It must be closed.
func NewProxy() (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, changed: make(chan struct{}), open: map[net.Conn]struct{}{}}
	p.group.Go(p.accept)
	return p, nil
}

// Address is HOST:PORT where it listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// To has new connections go to an address.
func (p *Proxy) To(address string) { p.target.Store(&address) }

// Set changes what becomes of connections, those that there are too.
func (p *Proxy) Set(mode Mode, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode, p.delay = mode, delay
	close(p.changed)
	p.changed = make(chan struct{})
	if mode == Cut {
		p.reset()
	}
}

// reset closes all connections. The caller holds mu.
func (p *Proxy) reset() {
	for c := range p.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what remains unsent is thrown away
		}
		_ = c.Close() // its pipe finds out
	}
}

// Close closes all connections, and waits until nothing is sent on.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.changed)
		p.changed = make(chan struct{})
		p.reset()
	}
	p.mu.Unlock()
	p.group.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // it is closed
		}
		p.group.Go(func() { p.connect(c) })
	}
}

// keep notes a connection, and reports whether it may go on.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.mode == Cut {
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	_ = c.Close() // it may be closed
}

// connect connects one connection to the target.
func (p *Proxy) connect(near net.Conn) {
	defer p.drop(near)
	to := p.target.Load()
	if to == nil || !p.keep(near) {
		return
	}
	far, err := net.DialTimeout("tcp", *to, dialTimeout)
	if err != nil {
		return
	}
	defer p.drop(far)
	if !p.keep(far) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [2][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			p.pipe(way[0], way[1])
			_ = way[0].Close() // one way that has ended ends the other
			_ = way[1].Close()
		})
	}
	both.Wait()
}

// pipe sends on what comes, until either side ends.
func (p *Proxy) pipe(from, to net.Conn) {
	buffer := make([]byte, proxyBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.hold() {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold waits until something may be sent on, and reports whether it may at all.
func (p *Proxy) hold() bool {
	for {
		p.mu.Lock()
		mode, delay, changed, closed := p.mode, p.delay, p.changed, p.closed
		p.mu.Unlock()
		if closed || mode == Cut {
			return false
		}
		if mode == Pass {
			if delay > 0 {
				time.Sleep(delay)
			}
			return true
		}
		<-changed
	}
}
