package server

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// netGate is the network before a node: it passes bytes on, holds them back, or breaks.
type netGate struct {
	listener net.Listener
	target   string
	group    sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while bytes pass
	conns []net.Conn
	dead  bool
}

func newNetGate(t testing.TB, target string) *netGate {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &netGate{listener: l, target: target, open: make(chan struct{})}
	close(g.open)
	g.group.Go(g.accept)
	t.Cleanup(func() {
		g.kill()
		g.group.Wait()
	})
	return g
}

func (g *netGate) address() string { return g.listener.Addr().String() }

func (g *netGate) accept() {
	for {
		from, err := g.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = from.Close()
			continue
		}
		g.mu.Lock()
		g.conns = append(g.conns, from, to)
		if g.dead {
			_, _ = from.Close(), to.Close()
		}
		g.mu.Unlock()
		g.group.Go(func() { g.pass(to, from) })
		g.group.Go(func() { g.pass(from, to) })
	}
}

// pass passes bytes on until an end breaks, and then breaks the other.
func (g *netGate) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		<-open
		if n > 0 && err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			_, _ = from.Close(), to.Close()
			return
		}
	}
}

// stop holds all bytes back until resume, as a node that stands still does.
func (g *netGate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *netGate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.release()
}

func (g *netGate) release() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// kill breaks all connections, for good.
func (g *netGate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	for _, c := range g.conns {
		_ = c.Close()
	}
	_ = g.listener.Close()
	g.release()
}
