package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

func testLimiter(o Options) *limiter { return newLimiter(o.withDefaults(), connect.NewErrorWriter()) }

// arriving is a method that does nothing but wait for its request.
func arriving(ended chan<- error) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = receive(r.Context(), connect.Spec{}, connect.Peer{}, r.Header)
		ended <- callFrom(r.Context()).err
	})
}

// begin begins a request of so many bytes over HTTP/1.1 and sends none of them.
func begin(t *testing.T, addr net.Addr, path string, length int) net.Conn {
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, length)
	require.NoError(t, err)
	return conn
}

// TestStalledCallers sends half a request, and takes half an answer: neither lasts.
func TestStalledCallers(t *testing.T) {
	ended := make(chan error, 1)
	l := testLimiter(Options{})
	l.read = time.Millisecond
	s := httptest.NewServer(timed(t.Context(), l.limit(arriving(ended)), l.read, time.Minute))
	defer s.Close()
	conn := begin(t, s.Listener.Addr(), "/", len(heldRequest))
	_, _ = io.WriteString(conn, heldRequest[:3]) // the server may have given up
	requireError(t, <-ended, connect.CodeDeadlineExceeded, "the request did not arrive within 1ms")

	l = testLimiter(Options{})
	s2 := httptest.NewServer(timed(t.Context(), l.limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for data := make([]byte, 1<<20); ; {
			if _, err := w.Write(data); err != nil {
				ended <- err
				return
			}
		}
	})), time.Minute, time.Millisecond))
	defer s2.Close()
	conn, err := net.Dial("tcp", s2.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	_, err = bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
}

// TestStalledCallerHTTP2 opens a stream and sends no message on it.
func TestStalledCallerHTTP2(t *testing.T) {
	ended := make(chan error, 1)
	l := testLimiter(Options{})
	l.read = time.Millisecond
	s := httptest.NewUnstartedServer(timed(t.Context(), l.limit(arriving(ended)), l.read, time.Minute))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	stop := stall(t, newSite(t, s.Listener.Addr()), "/", "")
	defer stop()
	requireError(t, <-ended, connect.CodeDeadlineExceeded, "the request did not arrive within 1ms")
}

// stall begins a request over HTTP/2 and sends only some of it.
func stall(t *testing.T, s *site, path, some string) (stop func()) {
	body, stalled := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, body)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if response, err := s.http2.Do(r); err == nil {
			_ = response.Body.Close()
		}
	}()
	_, _ = io.WriteString(stalled, some) // the request may have been refused
	return func() {
		_ = stalled.CloseWithError(io.ErrUnexpectedEOF)
		<-sent
	}
}

// each calls functions.
func each(all []func()) {
	for _, f := range all {
		f()
	}
}

// TestHeadersHoldNoPlace begins many requests that do not arrive, on many connections and
// on one: others are answered meanwhile, although two are worked on at a time.
func TestHeadersHoldNoPlace(t *testing.T) {
	s, l := serveLimited(t, smallTowers(index.Dot).loaded(t), Options{MaxInFlight: 2})
	addr, err := net.ResolveTCPAddr("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	const path = "/tandem.v1.RetrievalService/Retrieve"
	for range 128 {
		begin(t, addr, path, 100)
	}
	var stops []func()
	for range 100 {
		stops = append(stops, stall(t, s, path, "{"))
	}
	defer each(stops)
	wait(t, func() bool { return l.bytes.inUse() > 228*requestBytes })
	for range 10 {
		require.Equal(t, http.StatusOK, s.post(t, "Retrieve", heldRequest).status)
		_, err := s.client(connect.WithGRPC()).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
		require.NoError(t, err)
	}
}

// TestSlowTakersHoldNoPlace does not take an answer that is ready: it is no work any more.
func TestSlowTakersHoldNoPlace(t *testing.T) {
	l := testLimiter(Options{MaxInFlight: 1})
	admitted := make(chan error, 1)
	h := l.limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = receive(r.Context(), connect.Spec{}, connect.Peer{}, r.Header)
		admitted <- callFrom(r.Context()).admit(r.Context(), cost{work: time.Hour, memory: 1 << 20})
		for data := make([]byte, 1<<20); ; {
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	}))
	s := httptest.NewServer(h)
	defer s.Close()
	var conns []net.Conn
	for range 5 {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		require.NoError(t, <-admitted)
		line, err := readLine(conn)
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 200 OK", line)
		conns = append(conns, conn)
	}
	require.GreaterOrEqual(t, l.bytes.inUse(), int64(5<<20), "but it is memory")
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	wait(t, func() bool { return l.bytes.inUse() == 0 })
}

// TestTurns does one long work at a time where there is one processor, while short work
// waits for nothing; and a caller that goes away gives up its turn.
func TestTurns(t *testing.T) {
	l := testLimiter(Options{MaxWorkInFlight: time.Second, MaxInFlight: 10})
	l.turns = make(chan struct{}, 1)
	calls := make([]*call, 4)
	for i := range calls {
		calls[i] = &call{Context: t.Context(), limits: l, control: http.NewResponseController(httptest.NewRecorder())}
	}
	long, short := cost{work: 10 * time.Millisecond}, cost{work: 10 * time.Microsecond}
	require.NoError(t, calls[0].admit(t.Context(), long))
	waited := make(chan error, 1)
	go func() { waited <- calls[1].admit(t.Context(), long) }()
	require.NoError(t, calls[2].admit(t.Context(), short))
	calls[2].end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, calls[3].admit(ctx, long), context.Canceled)
	calls[3].end()
	require.Empty(t, waited)
	calls[0].worked()
	require.NoError(t, <-waited)
	calls[1].end()
	calls[0].end()
	require.Zero(t, l.work.requests)
	require.Zero(t, l.work.long)
	require.Zero(t, l.work.short)
	require.Empty(t, l.turns)
}

// deadlines is a response writer that remembers its deadlines.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = t
	return nil
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.write = t
	return nil
}

// TestQueue has large requests wait to be looked at, up to a bound; one that is admitted
// waits however many they are.
func TestQueue(t *testing.T) {
	l := testLimiter(Options{Processors: 1})
	l.turns <- struct{}{} // others do long work
	var waiting sync.WaitGroup
	for range queuedForEach {
		waiting.Go(func() {
			c := &call{Context: t.Context(), limits: l}
			assert.NoError(t, c.takeTurn(t.Context()))
			c.giveTurn()
		})
	}
	wait(t, func() bool { return len(l.queue) == queuedForEach })
	refused := &call{Context: t.Context(), limits: l}
	requireError(t, refused.takeTurn(t.Context()), connect.CodeResourceExhausted, "16 large requests wait to be looked at, as many as are accepted; retry in 1s")
	require.False(t, refused.turn)
	waiting.Go(func() {
		c := &call{Context: t.Context(), limits: l}
		assert.NoError(t, c.admit(t.Context(), cost{work: 100 * time.Millisecond}))
		c.end()
	})
	<-l.turns
	waiting.Wait()
	require.Empty(t, l.queue)
	require.Empty(t, l.turns)
}

// TestEveryRequestHasItsTime looks at the deadlines that handlers begin with, whatever
// they are.
func TestEveryRequestHasItsTime(t *testing.T) {
	h := NewHandler(smallTowers(index.Dot).loaded(t), Options{})
	for _, path := range []string{
		"/tandem.v1.RetrievalService/Retrieve", "/tandem.v1.AdminService/GetStatus", "/grpc.health.v1.Health/Check",
		"/readyz", "/healthz", "/nothing",
	} {
		read := false
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		body := iotest(func() {
			read = true
			require.Positive(t, time.Until(d.read), path)
			require.LessOrEqual(t, time.Until(d.read), readTimeout, path)
		})
		r := httptest.NewRequest(http.MethodPost, path, body)
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(d, r)
		if strings.Contains(path, ".v1.") {
			require.True(t, read, path)
			require.Zero(t, d.read, path)
		} else {
			require.Positive(t, time.Until(d.read), path)
			require.LessOrEqual(t, time.Until(d.read), readTimeout, path)
		}
		if !strings.Contains(path, "Health") {
			require.True(t, d.write.After(time.Now()), path)
		}
	}
}

// iotest is a body of an empty message that says when it is read.
type iotest func()

func (i iotest) Read(p []byte) (int, error) {
	i()
	return copy(p, "{}"), io.EOF
}
