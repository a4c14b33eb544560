package remote_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// counting counts the connections that are accepted.
type counting struct {
	net.Listener
	accepted atomic.Int32
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

// start serves a handler at an address until stop is called, which ends all connections.
func start(t *testing.T, address, path string, h http.Handler) (l *counting, stop func()) {
	inner, err := net.Listen("tcp", address)
	require.NoError(t, err)
	l = &counting{Listener: inner}
	mux := http.NewServeMux()
	mux.Handle(path, h)
	s := &http.Server{Handler: mux, HTTP2: remote.HTTP2(100), Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	return l, sync.OnceFunc(func() {
		if h, ok := h.(*remote.Handler); ok {
			require.NoError(t, h.Shutdown(context.Background()))
		}
		require.NoError(t, s.Close())
		serving.Wait()
	})
}

// Calls go over a connection that is there, and one more is made for each that is under way.
func TestLines(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	l, stop := start(t, "127.0.0.1:0", path, h)
	n := ask(t, l.Addr().String())
	for range 20 {
		require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	}
	require.EqualValues(t, 1, l.accepted.Load())

	const together = 4
	slow := make(chan struct{})
	var arrived sync.WaitGroup
	arrived.Add(together)
	w.acquire = func(context.Context, remote.ShardID, shard.Position) error {
		arrived.Done()
		<-slow
		return nil
	}
	var asking sync.WaitGroup
	for range together {
		asking.Go(func() { require.NoError(t, w.search(t.Context(), n, w.id(0), w.request())) })
	}
	arrived.Wait()
	close(slow)
	asking.Wait()
	require.EqualValues(t, together, l.accepted.Load())

	// Another process takes the node's place: none of what was is asked.
	w.acquire = nil
	stop()
	require.Error(t, w.search(t.Context(), n, w.id(0), w.request()), "nobody is there")
	path, h = remote.NewHandler(w, remote.Options{})
	l, stop = start(t, l.Addr().String(), path, h)
	defer stop()
	for range 20 {
		require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	}
	require.LessOrEqual(t, l.accepted.Load(), int32(2), "at most one beside the line, of the call that failed")
}

// A node is replaced between two calls: the second finds that out, and is answered.
func TestStaleLines(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	l, stop := start(t, "127.0.0.1:0", path, h)
	n := ask(t, l.Addr().String())
	for range 5 {
		require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
		stop()
		path, h = remote.NewHandler(w, remote.Options{})
		_, stop = start(t, l.Addr().String(), path, h)
	}
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	stop()
}

// What a caller has given up is never read by the next one.
func TestLinesKeepAnswersApart(t *testing.T) {
	w, n := served(t, remote.Options{MaxInFlight: 1000})
	var asking sync.WaitGroup
	for worker := range 8 {
		asking.Go(func() {
			d := drawer{rand.New(rand.NewPCG(uint64(worker), 1))}
			for range 150 {
				r := w.request()
				r.K = 1 + d.IntN(20)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(d.IntN(400))*time.Microsecond)
				if d.chance(50) {
					ctx, cancel = context.WithCancel(t.Context())
				}
				var reply shard.Reply
				err := n.Search(ctx, w.id(worker%2), r, remote.NewNames(w.metric), &reply)
				cancel()
				if err != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					continue
				}
				require.Len(t, reply.Hits, r.K)
			}
		})
	}
	asking.Wait()
}

// A node of before has no lines, and one behind a proxy may speak HTTP/2 alone: they are asked by
// Connect.
func TestWithoutLines(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"not found":  http.NotFound,
		"no upgrade": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"cut off":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		w := newWorld(t, 3, 200, 2)
		path, h := remote.NewHandler(w, remote.Options{})
		asked := 0
		n := ask(t, serve(t, path, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/Line") {
				asked++
				answer(rw, r)
				return
			}
			h.ServeHTTP(rw, r)
		})))
		for range 3 {
			require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()), name)
		}
		require.Equal(t, 1, asked, name)
	}
}

// A connection is answered for as long as it may be.
func TestLinesThatMayNotAsk(t *testing.T) {
	var no atomic.Bool
	w, n := served(t, remote.Options{Allowed: func(r *http.Request) error {
		require.NotEmpty(t, r.Header.Get("Upgrade"))
		if no.Load() {
			return errors.New("not any more")
		}
		return nil
	}})
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	no.Store(true)
	require.ErrorContains(t, w.search(t.Context(), n, w.id(0), w.request()), "not any more")
	no.Store(false)
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
}

// What is under way when a node ends is answered, and no more is.
func TestShutdownOfLines(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	l, stop := start(t, "127.0.0.1:0", path, h)
	n := ask(t, l.Addr().String())
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	begun, end := make(chan struct{}), make(chan struct{})
	w.acquire = func(context.Context, remote.ShardID, shard.Position) error {
		close(begun)
		<-end
		return nil
	}
	var asking sync.WaitGroup
	asking.Go(func() { require.NoError(t, w.search(t.Context(), n, w.id(0), w.request())) })
	<-begun
	asking.Go(stop)
	close(end)
	asking.Wait()
	require.Error(t, w.search(t.Context(), n, w.id(0), w.request()))

	// One that does not end in time is cut off.
	path, h = remote.NewHandler(w, remote.Options{})
	l, stop = start(t, "127.0.0.1:0", path, h)
	begun, end = make(chan struct{}), make(chan struct{})
	n = ask(t, l.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- w.search(t.Context(), n, w.id(0), w.request()) }()
	<-begun
	ending, cancel := context.WithCancel(t.Context())
	cancel()
	asking.Go(func() { require.ErrorIs(t, h.Shutdown(ending), context.Canceled) })
	require.Error(t, <-failed)
	close(end)
	asking.Wait()
	stop()
}

// A node that is given up is not waited for.
func TestCut(t *testing.T) {
	w, n := served(t, remote.Options{})
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	slow := &odd{begun: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	w.wrap = func(p shard.Part) shard.Part { slow.Local = p.(*shard.Local); return slow }
	var asking sync.WaitGroup
	asking.Go(func() { require.ErrorContains(t, w.search(t.Context(), n, w.id(0), w.request()), "was given up") })
	<-slow.begun
	n.Cut()
	asking.Wait()
	<-slow.ended
	w.wrap = nil
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
}

// A node that is given up while it does not answer who connects costs no more time than that.
func TestCutOfConnecting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := newWorld(t, 3, 20, 1)
	n := remote.NewNode(remote.NodeOptions{Address: l.Addr().String(), Silence: time.Hour})
	t.Cleanup(n.Close)
	var asking sync.WaitGroup
	asking.Go(func() { require.ErrorContains(t, w.search(t.Context(), n, w.id(0), w.request()), "was given up") })
	conn, err := l.Accept()
	require.NoError(t, err)
	_, err = http.ReadRequest(bufio.NewReader(conn)) // it waits for the answer
	require.NoError(t, err)
	n.Cut()
	asking.Wait()
	require.NoError(t, errors.Join(conn.Close(), l.Close()))
}

// piped is the answer to a request over a pipe, which may be hijacked.
type piped struct {
	header http.Header
	conn   net.Conn
}

func (p *piped) Header() http.Header         { return p.header }
func (p *piped) Write(b []byte) (int, error) { return p.conn.Write(b) }
func (p *piped) WriteHeader(int)             {}

func (p *piped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return p.conn, bufio.NewReadWriter(bufio.NewReader(p.conn), bufio.NewWriter(p.conn)), nil
}

// pipe has a handler go on in frames over a pipe, of which it returns the side of a router, and
// what is closed when the handler has returned.
func pipe(t testing.TB, h *remote.Handler) (router net.Conn, ended <-chan struct{}) {
	router, node := net.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node"+remote.LinePath, http.NoBody)
	require.NoError(t, err)
	r.Header.Set("Upgrade", remote.LineName)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(&piped{http.Header{}, node}, r)
	}()
	answer, err := http.ReadResponse(bufio.NewReaderSize(router, 16), r)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
	return router, done
}

// frame returns a frame of a router.
func frame(method byte, left time.Duration, message []byte) []byte {
	head := make([]byte, 16, 16+len(message))
	binary.LittleEndian.PutUint32(head, uint32(len(message)))
	head[4] = method
	binary.LittleEndian.PutUint64(head[8:], uint64(left))
	return append(head, message...)
}

// A node looks after its lines by the clock.
func TestLinesByTheClock(t *testing.T) {
	w := newWorld(t, 3, 200, 1)
	r := w.request()
	message, err := proto.Marshal(&shardv1.SearchRequest{
		State: &shardv1.ShardState{
			Protocol: remote.Protocol, Snapshot: string(w.digest), Tower: tandemv1.Tower_TOWER_APPS, Of: 1,
			Position: &tandemv1.LivePosition{Log: r.Position.Log, Sequence: r.Position.Sequence}, UnixNanos: clock.UnixNano(),
		},
		Vectors: r.Vectors[0], VectorCount: 1, K: 5, Target: 1,
	})
	require.NoError(t, err)
	read := func(conn net.Conn) (kind byte, body []byte) {
		var head [8]byte
		_, err := io.ReadFull(conn, head[:])
		require.NoError(t, err)
		body = make([]byte, binary.LittleEndian.Uint32(head[:]))
		_, err = io.ReadFull(conn, body)
		require.NoError(t, err)
		return head[4], body
	}
	for name, do := range map[string]func(conn net.Conn, ended <-chan struct{}){
		"idle": func(_ net.Conn, ended <-chan struct{}) {
			<-ended // in three minutes
		},
		"half a head": func(conn net.Conn, ended <-chan struct{}) {
			_, err := conn.Write(frame(0, 0, message)[:9])
			require.NoError(t, err)
			<-ended
		},
		"half a message": func(conn net.Conn, ended <-chan struct{}) {
			f := frame(0, 0, message)
			_, err := conn.Write(f[:len(f)-1])
			require.NoError(t, err)
			began := time.Now()
			<-ended
			require.Less(t, time.Since(began), 30*time.Second)
		},
		"an answer that nobody reads": func(conn net.Conn, ended <-chan struct{}) {
			_, err := conn.Write(frame(0, 0, message))
			require.NoError(t, err)
			began := time.Now()
			<-ended
			require.Less(t, time.Since(began), 30*time.Second)
		},
		"signs of life": func(conn net.Conn, _ <-chan struct{}) {
			w.wrap = func(p shard.Part) shard.Part { return &sleeper{Local: p.(*shard.Local), sleep: 3 * time.Second} }
			defer func() { w.wrap = nil }()
			began := time.Now()
			_, err := conn.Write(frame(0, 0, message))
			require.NoError(t, err)
			for signs := 0; ; signs++ {
				kind, body := read(conn)
				if kind == 2 {
					require.Empty(t, body)
					continue
				}
				require.Zero(t, kind)
				require.Equal(t, 3*time.Second, time.Since(began).Round(time.Second))
				require.InDelta(t, 12, signs, 1)
				break
			}
		},
		"no time": func(conn net.Conn, _ <-chan struct{}) {
			w.wrap = func(p shard.Part) shard.Part { return &sleeper{Local: p.(*shard.Local), sleep: time.Hour} }
			defer func() { w.wrap = nil }()
			_, err := conn.Write(frame(0, 100*time.Millisecond, message))
			require.NoError(t, err)
			kind, body := read(conn)
			require.EqualValues(t, 1, kind)
			var told rpcstatus.Status
			require.NoError(t, proto.Unmarshal(body, &told))
			require.EqualValues(t, 4, told.GetCode(), "deadline_exceeded")
			_, err = conn.Write(frame(4, 0, nil))
			require.NoError(t, err)
			kind, _ = read(conn)
			require.EqualValues(t, 1, kind, "the next call is answered")
		},
		"a router that goes": func(conn net.Conn, ended <-chan struct{}) {
			w.wrap = func(p shard.Part) shard.Part { return &sleeper{Local: p.(*shard.Local), sleep: time.Hour} }
			defer func() { w.wrap = nil }()
			_, err := conn.Write(frame(0, 0, message))
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
			began := time.Now()
			require.NoError(t, conn.Close())
			<-ended
			require.Less(t, time.Since(began), 10*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, h := remote.NewHandler(w, remote.Options{MaxTime: 2 * time.Hour})
				conn, ended := pipe(t, h)
				do(conn, ended)
				require.NoError(t, conn.Close())
				<-ended
				require.NoError(t, h.Shutdown(t.Context()))
			})
		})
	}
}

// sleeper is a part whose Search takes long.
type sleeper struct {
	*shard.Local
	sleep time.Duration
}

func (s *sleeper) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	timer := time.NewTimer(s.sleep)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	return s.Local.Search(ctx, r, reply)
}

// FuzzLine has a node read whatever arrives on a line: it answers in whole frames, and ends.
func FuzzLine(f *testing.F) {
	w := newWorld(f, 3, 40, 1)
	state := &shardv1.ShardState{
		Protocol: remote.Protocol, Snapshot: string(w.digest), Tower: tandemv1.Tower_TOWER_APPS, Of: 1,
		Position: &tandemv1.LivePosition{Log: w.positions[2].Log, Sequence: w.positions[2].Sequence}, UnixNanos: clock.UnixNano(),
	}
	data, err := proto.Marshal(&shardv1.GetShardRequest{State: state})
	require.NoError(f, err)
	f.Add(frame(4, 0, data))
	f.Add(append(frame(4, time.Second, data), frame(0, 1, data)...))
	f.Add(frame(9, 0, data))
	f.Add(frame(0, -1, data))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, h := remote.NewHandler(w, remote.Options{MaxRequestBytes: 1 << 16})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node"+remote.LinePath, http.NoBody)
		require.NoError(t, err)
		r.Header.Set("Upgrade", remote.LineName)
		conn := &recorded{in: bytes.NewReader(data)}
		h.ServeHTTP(&piped{http.Header{}, conn}, r)
		_, answers, ok := bytes.Cut(conn.out.Bytes(), []byte("\r\n\r\n"))
		require.True(t, ok)
		for len(answers) > 0 {
			require.GreaterOrEqual(t, len(answers), 8)
			length := int(binary.LittleEndian.Uint32(answers))
			require.LessOrEqual(t, answers[4], byte(2))
			require.LessOrEqual(t, 8+length, len(answers))
			answers = answers[8+length:]
		}
		require.NoError(t, h.Shutdown(t.Context()))
	})
}

// recorded is a connection on which all has arrived.
type recorded struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (r *recorded) Read(b []byte) (int, error)       { return r.in.Read(b) }
func (r *recorded) Write(b []byte) (int, error)      { return r.out.Write(b) }
func (r *recorded) Close() error                     { return nil }
func (r *recorded) SetDeadline(time.Time) error      { return nil }
func (r *recorded) SetReadDeadline(time.Time) error  { return nil }
func (r *recorded) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswers has a router read whatever a node answers on a line: it is an answer or an error,
// and ends.
func FuzzAnswers(f *testing.F) {
	good, err := proto.Marshal(goodReply())
	require.NoError(f, err)
	answer := func(kind byte, body []byte) []byte {
		head := make([]byte, 8)
		binary.LittleEndian.PutUint32(head, uint32(len(body)))
		head[4] = kind
		return append(head, body...)
	}
	refused, err := proto.Marshal(&rpcstatus.Status{Code: 5, Message: "not held"})
	require.NoError(f, err)
	f.Add(answer(0, good))
	f.Add(append(answer(2, nil), answer(0, good)...))
	f.Add(answer(1, refused))
	f.Add(answer(1, nil))
	f.Add(answer(3, nil))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var in bytes.Buffer
		kind, err := remote.CallLine(t.Context(), &recorded{in: bytes.NewReader(data)}, []byte{1}, &in, 1<<16)
		if err != nil {
			require.Less(t, len(err.Error()), 8<<10)
			return
		}
		require.LessOrEqual(t, kind, byte(1))
		require.LessOrEqual(t, in.Len(), 1<<16)
		if kind == 1 {
			require.Less(t, len(remote.FrameError(in.Bytes()).Error()), 80<<10)
		} else {
			_ = remote.ReadReply(in.Bytes(), goodRequest(), index.Dot, new(shard.Reply))
		}
	})
}
