package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// TestStalledCallers sends half a request, and takes half an answer: neither may
// hold its place in flight.
func TestStalledCallers(t *testing.T) {
	ended := make(chan error, 1)
	l := &limiter{inFlight: make(chan struct{}, 1), maxBytes: 1000, read: time.Millisecond, write: time.Minute, errors: connect.NewErrorWriter()}
	s := httptest.NewServer(l.limit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	})))
	defer s.Close()
	conn := hold(t, s.Listener.Addr(), heldRequest)
	_, _ = io.WriteString(conn, heldRequest[:3]) // the server may have given up
	requireError(t, <-ended, connect.CodeDeadlineExceeded, "the request did not arrive within 1ms")

	l = &limiter{inFlight: make(chan struct{}, 1), maxBytes: 1000, read: time.Minute, write: time.Millisecond, errors: connect.NewErrorWriter()}
	s2 := httptest.NewServer(l.limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for data := make([]byte, 1<<20); ; {
			if _, err := w.Write(data); err != nil {
				ended <- err
				return
			}
		}
	})))
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

// deadlines is a response writer that remembers its write deadline.
type deadlines struct {
	*httptest.ResponseRecorder
	write time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.write = t
	return nil
}

// TestTimeLimitsEnd makes sure that the limit of one request does not reach a
// stream that follows on the connection.
func TestTimeLimitsEnd(t *testing.T) {
	h := NewHandler(smallTowers(index.Dot).loaded(t), Options{})
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(d, httptest.NewRequest(http.MethodGet, "/tandem.v1.RetrievalService/Retrieve?encoding=json&message={}", nil))
	require.Equal(t, http.StatusBadRequest, d.Code)
	require.True(t, d.write.After(time.Now()))
	h.ServeHTTP(d, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	require.Zero(t, d.write)
}

// TestStalledCallerHTTP2 opens a stream and sends no message on it.
func TestStalledCallerHTTP2(t *testing.T) {
	ended := make(chan error, 1)
	l := &limiter{inFlight: make(chan struct{}, 1), maxBytes: 1000, read: time.Millisecond, write: time.Minute, errors: connect.NewErrorWriter()}
	s := httptest.NewUnstartedServer(l.limit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	})))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	client := newSite(t, s.Listener.Addr()).http2
	body, stalled := io.Pipe()
	defer stalled.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
	require.NoError(t, err)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if response, err := client.Do(r); err == nil {
			_ = response.Body.Close()
		}
	}()
	requireError(t, <-ended, connect.CodeDeadlineExceeded, "the request did not arrive within 1ms")
	_ = stalled.Close()
	<-sent
}
