package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// The time a caller has to send a request, and to take each part of the response:
// one that stalls must not hold a place in flight.
const (
	readTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second
)

// retryAfter is the hint of an overloaded server. In the Retry-After header, which
// knows no less, it is a second.
const retryAfter = 100 * time.Millisecond

// limiter bounds what requests may take before a method sees them.
type limiter struct {
	inFlight chan struct{} // has room for as many as are accepted
	maxBytes int
	errors   *connect.ErrorWriter
	read     time.Duration // readTimeout
	write    time.Duration // writeTimeout
}

func (l *limiter) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case l.inFlight <- struct{}{}:
			defer func() { <-l.inFlight }()
		default:
			l.reject(w, r)
			return
		}
		control := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody {
			_ = control.SetReadDeadline(time.Now().Add(l.read)) // not all writers know deadlines
			// gRPC puts five bytes before a message.
			r.Body = &body{ReadCloser: r.Body, control: control, limit: l.maxBytes, timeout: l.read, left: int64(l.maxBytes) + 5}
		}
		out := &writer{ResponseWriter: w, control: control, timeout: l.write}
		out.extend()
		next.ServeHTTP(out, r)
	})
}

// reject answers that there is too much load, without reading the request.
func (l *limiter) reject(w http.ResponseWriter, r *http.Request) {
	err := connect.NewError(connect.CodeResourceExhausted,
		errors.New(strconv.Itoa(cap(l.inFlight))+" requests are in flight, as many as are accepted; retry in "+retryAfter.String()))
	if detail, detailErr := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: duration(retryAfter)}); detailErr == nil {
		err.AddDetail(detail)
	}
	w.Header().Set("Retry-After", "1")
	_ = l.errors.Write(w, r, err) // the caller may be gone
}

// tooLarge is the error of a message of more than limit bytes.
func tooLarge(limit int) error {
	return invalidf("the message has more than %d bytes; accepted: up to %d", limit, limit)
}

// body is a request's body of limited size and time.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration
	limit   int
	left    int64
	err     error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case int64(n) > b.left:
		n, err = int(b.left), tooLarge(b.limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errorf(connect.CodeDeadlineExceeded, "the request did not arrive within %s", b.timeout)
	}
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		// All has arrived. After another error the limit stays, for net/http,
		// which reads what is left.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.err = err
	return n, err
}

// writer gives each write of a response its time, or up to twice of it. Over
// HTTP/2 a deadline is a message to the goroutine of the connection: when a request
// begins, that is awake; later it would be woken for it.
type writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	timeout  time.Duration
	deadline time.Time
}

func (w *writer) Write(p []byte) (int, error) {
	if time.Until(w.deadline) < w.timeout {
		w.extend()
	}
	return w.ResponseWriter.Write(p)
}

func (w *writer) extend() {
	w.deadline = time.Now().Add(2 * w.timeout)
	_ = w.control.SetWriteDeadline(w.deadline) // not all writers know deadlines
}

// Flush implements [http.Flusher].
func (w *writer) Flush() { _ = w.control.Flush() }

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// untimed lifts the time limit that an earlier request on the connection has left:
// streams are quiet for long.
func untimed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		next.ServeHTTP(w, r)
	})
}

// until ends the requests, which are streams, when ctx ends: they get no more from
// the caller.
func until(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		var mu sync.Mutex // w must not be used after the handler has returned
		returned := false
		stop := context.AfterFunc(ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if !returned {
				_ = control.SetReadDeadline(time.Unix(1, 0))
			}
		})
		defer func() {
			stop()
			mu.Lock()
			defer mu.Unlock()
			returned = true
		}()
		next.ServeHTTP(w, r)
	})
}
