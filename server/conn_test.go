package server

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tandem-ann/tandem/server/events"
)

const (
	pingFrame   = 6
	windowFrame = 8
)

// arrives is a connection on which all has arrived; what is written goes nowhere.
type arrives struct {
	written
}

func (a *arrives) Write(p []byte) (int, error) { return len(p), nil }

// sendFrames has a server read frames, some bytes at a time, and returns how long it took,
// and why it ended.
func sendFrames(t *testing.T, l *listener, answer func(*conn), all ...frame) (time.Duration, error) {
	in := &arrives{}
	in.WriteString(prefaceText)
	for _, f := range all {
		in.Buffer.Write(f.append(nil))
	}
	c := newConn(in, l)
	start := time.Now()
	for p := make([]byte, frameHeader); ; {
		if _, err := c.Read(p); err != nil {
			require.Zero(t, l.spare.resting)
			return time.Since(start), err
		}
		if answer != nil {
			answer(c)
		}
	}
}

// repeated returns frames n times.
func repeated(n int, all ...frame) (out []frame) {
	for range n {
		out = append(out, all...)
	}
	return out
}

// TestFramesCost reads as many frames that do no work as an allowance lets it, closes a
// connection that sends far more, and reads those of requests that are answered as fast as
// they come.
func TestFramesCost(t *testing.T) {
	ping := frame{kind: pingFrame, payload: make([]byte, 8)}
	reset := []frame{{kind: headersFrame, payload: make([]byte, 20)}, {kind: resetFrame, payload: make([]byte, 4)}}
	for name, test := range map[string]struct {
		frames []frame
		err    error
		most   time.Duration
	}{
		"pings":          {repeated(10*spareFrames, ping), errFlooded, longestRest},
		"empty data":     {repeated(5*spareFrames, frame{kind: dataFrame}), errFlooded, longestRest},
		"rapid resets":   {repeated(4*spareFrames/(headersPrice+resetPrice), reset...), errFlooded, longestRest},
		"window updates": {repeated(3*spareFrames, frame{kind: windowFrame, payload: make([]byte, 4)}), errFlooded, longestRest},
		"some pings":     {repeated(spareFrames/2, ping), io.EOF, 0},
		"more pings":     {repeated(spareFrames+spareFrames/10, ping), io.EOF, longestRest},
		"some resets":    {repeated(spareFrames/2/(headersPrice+resetPrice), reset...), io.EOF, 0},
		"large uploads":  {repeated(1000, frame{kind: dataFrame, payload: make([]byte, 16<<10)}), io.EOF, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, err := sendFrames(t, newListener(nil, 1, 1, events.Tee()), nil, test.frames...)
				require.ErrorIs(t, err, test.err)
				require.LessOrEqual(t, took, test.most)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := newListener(nil, 1, 1, events.Tee())
		for range 3 { // others leave nothing
			_, _ = sendFrames(t, l, nil, repeated(spareFrames, ping)...)
		}
		question := []frame{
			{kind: headersFrame, payload: make([]byte, 200)}, {kind: dataFrame, payload: make([]byte, 100)},
			{kind: windowFrame, payload: make([]byte, 4)}, {kind: windowFrame, payload: make([]byte, 4)}, ping,
		}
		settings, reply := (frame{kind: settingsFrame}).append(nil), frame{kind: headersFrame, payload: make([]byte, 50)}.append(nil)
		length := 0
		for _, f := range question {
			length += len(f.append(nil))
		}
		reads := 0
		took, err := sendFrames(t, l, func(c *conn) {
			if reads == 0 {
				_, err := c.Write(settings)
				require.NoError(t, err)
			}
			if reads++; reads%(length/frameHeader/2) == 0 { // sooner than it has taken credit
				_, err := c.Write(reply)
				require.NoError(t, err)
			}
		}, repeated(20_000, question...)...)
		require.ErrorIs(t, err, io.EOF)
		require.Less(t, took, 10*time.Millisecond, "they have earned it, all but the first few")
	})
}

// TestCloseEndsRest closes a connection that waits to be read from, or that will not be.
func TestCloseEndsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(nil, 1, 1, events.Tee())
		in := &arrives{}
		in.Conn, _ = net.Pipe()
		in.WriteString(prefaceText)
		for range 10 * spareFrames {
			in.Buffer.Write(frame{kind: dataFrame}.append(nil))
		}
		c := newConn(in, l)
		for c.wait == 0 {
			_, err := c.Read(make([]byte, 1<<20))
			require.NoError(t, err)
		}
		require.Equal(t, 1, l.spare.resting)
		require.NoError(t, c.Close())
		require.Zero(t, l.spare.resting)
		start := time.Now()
		_, _ = c.Read(make([]byte, 1)) // of a connection that is closed
		require.Zero(t, time.Since(start))
		require.Zero(t, l.spare.resting)
	})
}

// TestCloseWrite half-closes a connection: its client reads the end, and is read from.
func TestCloseWrite(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := newListener(unreadListener{inner, NewService(slog.New(slog.DiscardHandler))}, 1, 1, events.Tee())
	defer func() { require.NoError(t, l.Close()) }()
	client, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	c, err := l.Accept()
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	half, ok := c.(interface{ CloseWrite() error }) // as net/http asks for it
	require.True(t, ok)
	require.NoError(t, half.CloseWrite())
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = io.WriteString(client, "more")
	require.NoError(t, err)
	got := make([]byte, 4)
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, "more", string(got))
}

// flow is what one side of a connection in memory has written and the other not read.
type flow struct {
	mu     sync.Mutex
	more   *sync.Cond
	bytes  bytes.Buffer
	closed bool
}

func newFlow() *flow {
	s := &flow{}
	s.more = sync.NewCond(&s.mu)
	return s
}

// buffered is a side of a connection in memory that takes all that is written, as
// [net.Pipe] does not.
type buffered struct {
	net.Conn
	in, out *flow
}

func (b *buffered) Read(p []byte) (int, error) {
	b.in.mu.Lock()
	defer b.in.mu.Unlock()
	for b.in.bytes.Len() == 0 && !b.in.closed {
		b.in.more.Wait()
	}
	return b.in.bytes.Read(p)
}

func (b *buffered) Write(p []byte) (int, error) {
	b.out.mu.Lock()
	defer b.out.mu.Unlock()
	if b.out.closed {
		return 0, net.ErrClosed
	}
	b.out.more.Broadcast()
	return b.out.bytes.Write(p)
}

func (b *buffered) Close() error {
	for _, s := range []*flow{b.in, b.out} {
		s.mu.Lock()
		s.closed = true
		s.more.Broadcast()
		s.mu.Unlock()
	}
	return nil
}

func (b *buffered) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (b *buffered) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (b *buffered) SetDeadline(time.Time) error      { return nil }
func (b *buffered) SetReadDeadline(time.Time) error  { return nil }
func (b *buffered) SetWriteDeadline(time.Time) error { return nil }

// pipes is a listener whose connections are in memory.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	up, down := newFlow(), newFlow()
	client, server := &buffered{in: down, out: up}, &buffered{in: up, out: down}
	select {
	case p.accept <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hasty is a client of HTTP/2 that takes a request back if it has no answer soon, and
// connects anew if its connection is closed.
type hasty struct {
	pipes  *pipes
	framer *http2.Framer // nil if it is to connect
	conn   net.Conn
	header []byte
	stream uint32
	since  map[uint32]time.Time // when the requests that wait were asked

	mu       sync.Mutex
	answered map[uint32]bool
	reading  sync.WaitGroup
}

// connect makes a connection, and marks what is answered on it.
func (h *hasty) connect(t *testing.T) {
	conn, err := h.pipes.dial(t.Context(), "", "")
	require.NoError(t, err)
	_, err = io.WriteString(conn, prefaceText)
	require.NoError(t, err)
	h.conn, h.framer, h.stream, h.since = conn, http2.NewFramer(conn, conn), 1, map[uint32]time.Time{}
	require.NoError(t, h.framer.WriteSettings())
	answered, framer := map[uint32]bool{}, h.framer
	h.mu.Lock()
	h.answered = answered
	h.mu.Unlock()
	h.reading.Go(func() {
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				_ = conn.Close()
				return
			}
			if f.Header().Type == http2.FrameHeaders {
				h.mu.Lock()
				answered[f.Header().StreamID] = true
				h.mu.Unlock()
			}
		}
	})
}

// ask sends requests for a second, one each millisecond, and returns how many of them had no
// answer within 30.
func (h *hasty) ask(t *testing.T) (failed int) {
	for range 1000 {
		if h.framer == nil {
			h.connect(t)
		}
		err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: h.stream, BlockFragment: h.header, EndStream: true, EndHeaders: true})
		h.since[h.stream] = time.Now()
		h.stream += 2
		time.Sleep(time.Millisecond)
		h.mu.Lock()
		for id, at := range h.since {
			switch {
			case h.answered[id]:
				delete(h.since, id)
			case time.Since(at) > 30*time.Millisecond && err == nil:
				err = h.framer.WriteRSTStream(id, http2.ErrCodeCancel)
				delete(h.since, id)
				failed++
			}
		}
		h.mu.Unlock()
		if err != nil {
			failed += len(h.since)
			h.framer = nil
		}
	}
	return failed
}

// TestFloodEnds has a server stand still for some seconds, while a client takes back all
// that it asks. Soon after the server goes on, so does the client: it is not read from
// later and later.
func TestFloodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stands atomic.Bool
		handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if stands.Load() {
				<-r.Context().Done()
			}
		})
		p := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
		server := newHTTPServer(handler, io.Discard)
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(newListener(p, 10, 1, events.Tee())) })

		var header bytes.Buffer
		encoder := hpack.NewEncoder(&header)
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "tandem"}, {":path", "/"}} {
			require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
		}
		client := &hasty{pipes: p, header: header.Bytes()}
		require.Zero(t, client.ask(t))
		stands.Store(true)
		for range 5 {
			require.Greater(t, client.ask(t), 900)
		}
		stands.Store(false)
		client.ask(t) // it may still wait, or connect
		require.Zero(t, client.ask(t))

		require.NoError(t, client.conn.Close())
		client.reading.Wait()
		require.NoError(t, server.Close())
		serving.Wait()
	})
}

// TestRead reads what comes in pieces of any size, whatever it is.
func TestRead(t *testing.T) {
	for _, text := range []string{"POST / HTTP/1.1\r\n\r\n", "PRI * HTTP/1.1\r\n\r\n", "P", "", prefaceText + "more"} {
		for _, size := range []int{1, 3, 10_000} {
			in := &written{}
			in.WriteString(text)
			c := newConn(in, newListener(nil, 1, 1, events.Tee()))
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{c}, make([]byte, size))
			require.NoError(t, err)
			require.Equal(t, text, got.String())
		}
	}
}
