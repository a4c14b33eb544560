package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
)

// written is a connection that keeps what is written.
type written struct {
	net.Conn
	bytes.Buffer
}

func (w *written) Read(p []byte) (int, error)       { return w.Buffer.Read(p) }
func (w *written) Write(p []byte) (int, error)      { return w.Buffer.Write(p) }
func (w *written) SetWriteDeadline(time.Time) error { return nil }

// frame is one of HTTP/2.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func (f frame) append(dst []byte) []byte {
	n := len(f.payload)
	dst = append(dst, byte(n>>16), byte(n>>8), byte(n), f.kind, f.flags)
	return append(binary.BigEndian.AppendUint32(dst, f.stream), f.payload...)
}

func readFrame(r io.Reader) (f frame, err error) {
	var header [frameHeader]byte
	if _, err = io.ReadFull(r, header[:]); err != nil {
		return f, err
	}
	f = frame{header[3], header[4], binary.BigEndian.Uint32(header[5:]), make([]byte, int(header[0])<<16|int(header[1])<<8|int(header[2]))}
	_, err = io.ReadFull(r, f.payload)
	return f, err
}

const (
	settingsFrame = 4
	goAwayFrame   = 7
)

// TestLeavePutsAFrameBetweenOthers writes frames in pieces of any size and tells the
// client to go at any time: all frames arrive as they are, and one more.
func TestLeavePutsAFrameBetweenOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		out := &written{}
		l := newListener(nil, 1, 1, events.Tee())
		c := newConn(out, l)
		want := []frame{{kind: settingsFrame, payload: []byte{0, 3, 0, 0, 0, 128}}}
		for range rapid.IntRange(0, 10).Draw(t, "frames") {
			want = append(want, frame{byte(rapid.IntRange(0, 6).Draw(t, "kind")), 0, 1, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")})
		}
		var data []byte
		for _, f := range want {
			data = f.append(data)
		}
		leaves, total := rapid.IntRange(0, len(data)).Draw(t, "leaves"), len(data)
		for len(data) > 0 {
			if total-len(data) >= leaves {
				c.leave()
				l.leaves.Wait()
			}
			n := rapid.IntRange(1, len(data)).Draw(t, "bytes")
			_, err := c.Write(data[:n])
			require.NoError(t, err)
			data = data[n:]
		}
		c.leave()
		l.leaves.Wait()
		told := 0
		for {
			f, err := readFrame(out)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if f.kind == goAwayFrame {
				require.Equal(t, frame{kind: goAwayFrame, payload: []byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}}, f)
				told++
				continue
			}
			require.NotEmpty(t, want)
			require.Equal(t, want[0].payload, f.payload)
			want = want[1:]
		}
		require.Empty(t, want)
		require.Equal(t, 1, told)
	})
	out := &written{}
	c := newConn(out, newListener(nil, 1, 1, nil))
	c.leave()
	c.listener.leaves.Wait()
	_, err := c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 200 OK\r\n\r\n", out.String(), "HTTP/1.1 has no such frame")
}

// longDelay is how long a server waits that stops, where what callers do meanwhile must come
// before its end, however busy the machine is.
const longDelay = 8 * time.Second

// TestTwoGoAways speaks HTTP/2 to a server that stops: a request that is sent after the
// first sign to go is answered, and the second sign says that it was.
func TestTwoGoAways(t *testing.T) {
	t.Parallel()                                       // it waits
	for tries := 0; !answeredAfterGoAway(t); tries++ { // a busy machine may need longer than is between the signs
		require.Less(t, tries, 10)
	}
}

// answeredAfterGoAway reports whether a request is answered that is sent between the two signs.
func answeredAfterGoAway(t *testing.T) bool {
	p := start(t, smallTowers(index.Dot).named(t, Config{DrainDelay: 2 * leaveTime}))
	conn, err := net.Dial("tcp", p.addr.String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(frame{kind: settingsFrame}.append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
	require.NoError(t, err)
	next := func(kinds ...byte) frame {
		for {
			f, err := readFrame(conn)
			require.NoError(t, err)
			if slices.Contains(kinds, f.kind) {
				return f
			}
		}
	}
	next(settingsFrame)
	p.stop()
	require.Equal(t, []byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}, next(goAwayFrame).payload)
	fields := append([]byte{0x82, 0x86, 0x04, 8}, "/healthz\x01\x01x"...) // GET, http, :path, :authority
	_, err = conn.Write(frame{kind: headersFrame, flags: 1 | 4, stream: 1, payload: fields}.append(nil))
	require.NoError(t, err)
	first := next(headersFrame, goAwayFrame)
	answered := first.kind == headersFrame
	if answered {
		require.EqualValues(t, 1, first.stream)
		require.Equal(t, []byte{0, 0, 0, 1, 0, 0, 0, 0}, next(goAwayFrame).payload)
	}
	_, err = io.Copy(io.Discard, conn)
	require.True(t, err == nil || !answered, "%v", err)
	require.NoError(t, <-p.done)
	return answered
}

// TestDrainLosesNoRequest has many clients ask, each in a loop until readiness fails, and
// tells the server to stop meanwhile.
func TestDrainLosesNoRequest(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{DrainDelay: longDelay}))
	anew := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var ready atomic.Bool
	ready.Store(true)
	var asked atomic.Int64
	var clients sync.WaitGroup
	for i := range 12 {
		var options []connect.ClientOption
		transport := []*http.Client{p.http1, p.http2, anew}[i%3]
		if i%6 == 1 {
			options = append(options, connect.WithGRPC())
		}
		client := tandemv1connect.NewRetrievalServiceClient(transport, p.url, options...)
		clients.Go(func() {
			for ready.Load() {
				_, err := client.Retrieve(context.Background(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 3}))
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for asked.Load() < 200 {
		time.Sleep(time.Millisecond)
	}
	p.stop()
	for ready.Load() { // as one who polls
		time.Sleep(50 * time.Millisecond)
		got := p.get(t, "/readyz")
		ready.Store(got.status == http.StatusOK)
		if !ready.Load() {
			require.Equal(t, "draining\n", string(got.body))
		}
	}
	clients.Wait()
	require.NoError(t, <-p.done)
}

// TestDrainingEndsConnections of HTTP/1.1 with the next answer, for which there is no other
// sign.
func TestDrainingEndsConnections(t *testing.T) {
	service := smallTowers(index.Dot).loaded(t)
	h := NewHandler(service, Options{})
	for _, draining := range []bool{false, true} {
		for _, version := range []int{1, 2} {
			for _, path := range []string{"/healthz", "/readyz", "/tandem.v1.RetrievalService/Retrieve?encoding=json&message={}"} {
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r.ProtoMajor = version
				w := newRecorder()
				h.ServeHTTP(w, r)
				require.Equal(t, draining && version == 1, w.Header().Get("Connection") == "close")
			}
		}
		service.Drain()
	}
}

// TestMaxConnections opens more connections than are accepted: those that are idle make
// room, and those that are not stay.
func TestMaxConnections(t *testing.T) {
	var log messages = make(chan string, 100)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := newListener(inner, 3, 1, &events.NewLog(slog.New(log)).Listener)
	busy, release := make(chan struct{}), make(chan struct{})
	h := newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			busy <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	}), io.Discard)
	h.ConnState = l.changed
	served := make(chan error)
	go func() { served <- h.Serve(l) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	get := func(c net.Conn, path string) {
		_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		require.NoError(t, err)
	}
	answered := func(c net.Conn) bool {
		line, err := readLine(c)
		return err == nil && line == "HTTP/1.1 200 OK"
	}
	first := dial()
	get(first, "/")
	require.True(t, answered(first))
	wait(t, func() bool { // a moment after its answer
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.open {
			return c.idle.Load() > 0
		}
		return false
	})
	var held []net.Conn
	for range 2 {
		c := dial()
		get(c, "/hold")
		<-busy
		held = append(held, c)
	}
	another := dial() // in the place of the first
	get(another, "/hold")
	<-busy
	_, err = io.Copy(io.Discard, first)
	require.NoError(t, err, "it is closed")
	refused := dial()
	_, err = io.Copy(io.Discard, refused)
	require.NoError(t, err, "it is closed")
	require.Equal(t, "connections were refused: as many as are accepted are open, and none is idle", <-log)
	close(release)
	for _, c := range append(held, another) {
		require.True(t, answered(c))
	}
	require.NoError(t, h.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
	wait(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.open) == 0
	})
}
