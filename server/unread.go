package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/events"
)

// net/http refuses some requests before a handler sees them: those that cannot be read,
// have a header that is too long, or want what it does not have. Its answers have no name
// and no details, and its log nothing. An unreadListener gives both to those of HTTP/1.1;
// those of HTTP/2 are reset, as the protocol has it.

// unreadListener makes every connection an unreadConn.
type unreadListener struct {
	net.Listener
	service *Service
}

// Accept implements [net.Listener].
func (l unreadListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &unreadConn{Conn: c, service: l.service}, nil
}

// unreadConn is a connection that replaces the answers to requests that no handler has
// seen.
type unreadConn struct {
	net.Conn
	service *Service
	seen    atomic.Bool  // a handler has the request that is under way
	arrived atomic.Int64 // bytes since a handler was given a request last
	since   atomic.Int64 // when the first of them arrived, in nanoseconds since the Unix epoch
}

type unreadKey struct{}

// withUnread makes the connection known to the handlers of its requests, for
// [http.Server.ConnContext].
func withUnread(ctx context.Context, c net.Conn) context.Context {
	if c := unreadOf(c); c != nil {
		return context.WithValue(ctx, unreadKey{}, c)
	}
	return ctx
}

// unreadOf returns the unreadConn below a connection, nil if there is none.
func unreadOf(c net.Conn) *unreadConn {
	if counted, ok := c.(*conn); ok {
		c = counted.Conn
	}
	unread, _ := c.(*unreadConn)
	return unread
}

// see notes that a handler has the request.
func see(ctx context.Context) {
	if c, ok := ctx.Value(unreadKey{}).(*unreadConn); ok {
		c.seen.Store(true)
		c.arrived.Store(0) // not once it is idle: the next request may have begun to arrive then
	}
}

// forget notes that the connection is idle.
func (c *unreadConn) forget() { c.seen.Store(false) }

// Read implements [net.Conn].
func (c *unreadConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.arrived.Add(int64(n)) == int64(n) {
		c.since.Store(time.Now().UnixNano())
	}
	return n, err
}

// CloseWrite is for net/http, as that of conn is.
func (c *unreadConn) CloseWrite() error { return closeWrite(c.Conn) }

// Write implements [net.Conn].
func (c *unreadConn) Write(p []byte) (int, error) {
	if c.seen.Load() || c.arrived.Load() == 0 || !bytes.HasPrefix(p, []byte("HTTP/1.")) {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(c.refuse(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// refuse returns the answer instead of that of net/http, and tells of it.
func (c *unreadConn) refuse(theirs []byte) []byte {
	head, text, _ := bytes.Cut(theirs, []byte("\r\n\r\n"))
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	status := http.StatusBadRequest
	if words := bytes.SplitN(line, []byte(" "), 3); len(words) > 1 {
		if n, err := strconv.Atoi(string(words[1])); err == nil {
			status = n
		}
	}
	id, err := newID(), unreadError(status, string(text))
	took := time.Since(time.Unix(0, c.since.Load()))
	c.service.events.RPCBegin("")
	c.service.events.RPCEnd(events.RPC{Code: err.Code(), Duration: took})
	c.service.events.RequestEnd(events.Request{
		ID: id, Code: err.Code().String(), Duration: took, Err: err,
		Peer: c.RemoteAddr().String(), Protocol: "connect", HTTP: "HTTP/1.1", Bytes: c.arrived.Load(),
	})
	out := &unreadAnswer{header: http.Header{}}
	out.header.Set(RequestIDHeader, id)
	out.header.Set("Cache-Control", "no-store")
	_ = connect.NewErrorWriter().Write(out, &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}}, err) // it writes to memory
	var answer bytes.Buffer
	_ = (&http.Response{
		ProtoMajor: 1, ProtoMinor: 1, StatusCode: status, Header: out.header, Close: true,
		Body: io.NopCloser(&out.Buffer), ContentLength: int64(out.Len()),
	}).Write(&answer) // to memory, too
	return answer.Bytes()
}

// unreadError returns the error of a request that net/http refuses with a status and a
// text.
func unreadError(status int, text string) *connect.Error {
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		return invalidf(reasonMessage, "", "the header has more than %d bytes; accepted: up to %d, the URL included", maxHeaderBytes, maxHeaderBytes)
	case http.StatusExpectationFailed:
		return invalidf(reasonHeader, "", "header expect is not accepted; accepted: 100-continue")
	case http.StatusNotImplemented:
		return errorf(connect.CodeUnimplemented, reasonEncoding, "header transfer-encoding is not accepted; accepted: chunked")
	case http.StatusHTTPVersionNotSupported:
		return errorf(connect.CodeUnimplemented, reasonMethod, "the version of HTTP is not accepted; accepted: HTTP/1.0, HTTP/1.1, HTTP/2")
	}
	if _, why, ok := strings.Cut(text, ": "); ok { // after the status
		return invalidf(reasonMalformed, "", "the HTTP request cannot be read: %s", excerpt(why))
	}
	return invalidf(reasonMalformed, "", "the HTTP request cannot be read; accepted: HTTP/1.1, and HTTP/2 in clear text")
}

// unreadAnswer is an answer that is kept.
type unreadAnswer struct {
	bytes.Buffer
	header http.Header
}

// Header implements [http.ResponseWriter].
func (a *unreadAnswer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter]. The status is known.
func (a *unreadAnswer) WriteHeader(int) {}
