package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path"
	"runtime"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/wording"
)

// The time a caller has to send a request, and to take each part of the response: one
// that stalls must not hold a place. quietTimeout is how long a stream may wait for its
// next message.
//
// Over HTTP/2 the timer of a request that was taken back at once stays until it ends, with
// all that its stream holds: a write's time is as long as memory may be held for nothing.
const (
	readTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second
	quietTimeout = 2 * time.Minute
)

// retryAfter is the hint of an overloaded server, in the error's text, its details and the
// Retry-After header, which knows no less than a second.
const retryAfter = time.Second

// tooLarge is the error of a message of more than limit bytes.
func tooLarge(limit int) error {
	return invalidf(reasonMessage, "", "the message has more than %d bytes; accepted: up to %d", limit, limit)
}

// limiter bounds what the requests to methods take.
type limiter struct {
	maxBytes    int // of a message
	maxAnswer   int // bytes of an answer in protobuf
	maxDeadline time.Duration
	read        time.Duration // that a message has to arrive
	idle        time.Duration // the same, of a stream: from the message before on
	inflaters   *inflaters
	buffers     *buffers
	rows        sync.Pool // of *candidateRows that are empty
	bytes       byteBudget
	work        admission
	turns       chan struct{} // has room for as many as do long work at a time
	queue       chan struct{} // and this for those that wait to be looked at
	errors      *connect.ErrorWriter
}

// bounds is what one request may take.
type bounds struct {
	answer     int // bytes of the answer in protobuf, 0 for any
	processors int
	rows       *candidateRows // for its candidates, nil to make them
}

// boundsFrom returns the bounds of the request that ctx belongs to.
func boundsFrom(ctx context.Context) bounds {
	if c := callFrom(ctx); c != nil {
		return bounds{answer: c.limits.maxAnswer, processors: c.limits.work.processors}
	}
	return bounds{processors: runtime.GOMAXPROCS(0)}
}

// buffersFrom returns the buffers for the answer to the request that ctx belongs to.
func buffersFrom(ctx context.Context) *buffers {
	if c := callFrom(ctx); c != nil {
		return c.limits.buffers
	}
	return &buffers{}
}

// requestBytes is about what a request takes that has only begun, beside its headers.
const requestBytes = 16 << 10

func (l *limiter) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := checkHeaders(r); err != nil {
			refuse(l.errors, w, r, err)
			return
		}
		exchange := exchangeFrom(r.Context())
		priority, err := exchange.priorityOf(r.Header)
		if err != nil {
			refuse(l.errors, w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), l.maxDeadline)
		defer cancel()
		c := &call{Context: ctx, limits: l, exchange: exchange, priority: priority, http1: r.ProtoMajor == 1}
		c.get, c.query = r.Method == http.MethodGet, r.URL.RawQuery
		c.answering.ResponseWriter, c.answering.call = w, c
		if out, ok := w.(*writer); ok { // of timed
			c.control = out.control
		} else {
			c.control = http.NewResponseController(w)
		}
		defer c.end()
		l.bytes.wait(c)
		if !l.bytes.take(c, requestBytes+headerBytes(r)) {
			c.err = l.bytes.full()
		}
		r = r.WithContext(c)
		if r.Body != nil && r.Body != http.NoBody {
			c.body, c.length, c.packed = r.Body, r.ContentLength, takeEncoding(r)
			r.Body = c
		}
		if c.get && c.err == nil {
			c.takeQuery(r)
		}
		c.answering.request = r
		next.ServeHTTP(&c.answering, r)
	})
}

// headerBytes returns how many bytes the header and the URL of a request take.
func headerBytes(r *http.Request) int64 {
	n := len(r.RequestURI)
	for name, values := range r.Header {
		for _, value := range values {
			n += len(name) + len(value)
		}
	}
	return int64(n)
}

// answering is the response of a call. It begins when all work is done: what is encoded
// is only to be taken, if the fence lets it.
type answering struct {
	http.ResponseWriter
	call    *call
	request *http.Request
	begun   bool
	refused bool        // an error is written instead: nothing more is
	unsent  http.Header // what Connect says of the answer then
}

// Header implements [http.ResponseWriter].
func (a *answering) Header() http.Header {
	if a.refused {
		return a.unsent
	}
	return a.ResponseWriter.Header()
}

// WriteHeader implements [http.ResponseWriter].
func (a *answering) WriteHeader(status int) {
	if !a.refused {
		a.ResponseWriter.WriteHeader(status)
	}
}

// Write implements [http.ResponseWriter].
func (a *answering) Write(p []byte) (int, error) {
	if !a.begun {
		a.begun = true
		in := a.call.span()
		if in.On() && !a.call.answered.IsZero() {
			in.BeginAt("encode", a.call.answered).End()
		}
		a.call.worked()
		a.call.limits.bytes.wait(a.call)
		if f := a.call.finisher; f != nil {
			a.call.finisher = nil
			if err := f.pass(a.call.views, a.ResponseWriter.Header()); err != nil {
				a.refuse(err)
				notAnswered(a.call)
			}
		}
		a.call.tellAnswers()
		in.Begin("send")
	}
	if a.refused {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// refuse writes an error instead of the answer, of which nothing is written yet.
func (a *answering) refuse(err *connect.Error) {
	for _, name := range [...]string{"Content-Encoding", "Grpc-Encoding", "Content-Length"} {
		a.ResponseWriter.Header().Del(name) // they are of the answer
	}
	_ = a.call.limits.errors.Write(a.ResponseWriter, a.request, err) // the caller may be gone
	a.refused, a.unsent = true, http.Header{}
}

// Flush implements [http.Flusher].
func (a *answering) Flush() { _ = a.call.control.Flush() }

// Unwrap is for [http.ResponseController].
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// timed gives every request of HTTP/1.1 its time to be sent, and each write of a response
// its own; requests of HTTP/2 have theirs where they are read.
// Once draining has ended, connections of HTTP/1.1 end with the response.
func timed(draining context.Context, next http.Handler, read, write time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
			// Over HTTP/2 nobody waits for a body that a handler does not read.
			_ = control.SetReadDeadline(time.Now().Add(read)) // not all writers know deadlines
		}
		out := &writer{ResponseWriter: w, control: control, timeout: write}
		if r.ProtoMajor == 1 {
			out.draining = draining
		}
		out.extend()
		next.ServeHTTP(out, r)
	})
}

// writer gives each write of a response its time, or half of it at least. Over
// HTTP/2 a deadline is a message to the goroutine of the connection: when a request
// begins, that is awake; later it would be woken for it.
type writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	timeout  time.Duration
	deadline time.Time
	quiet    bool            // it has no deadline from a flush to the next write
	draining context.Context // nil once the response has begun, and over HTTP/2
}

// WriteHeader implements [http.ResponseWriter].
func (w *writer) WriteHeader(status int) {
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

// begin is called before the header is written.
func (w *writer) begin() {
	if w.draining != nil {
		if w.draining.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		w.draining = nil
	}
}

func (w *writer) Write(p []byte) (int, error) {
	w.begin()
	if time.Until(w.deadline) < w.timeout/2 {
		w.extend()
	}
	return w.ResponseWriter.Write(p)
}

func (w *writer) extend() { w.setDeadline(time.Now().Add(w.timeout)) }

func (w *writer) setDeadline(t time.Time) {
	w.deadline = t
	_ = w.control.SetWriteDeadline(t) // not all writers know deadlines
}

// Flush implements [http.Flusher].
func (w *writer) Flush() {
	w.begin()
	_ = w.control.Flush()
	if w.quiet {
		w.setDeadline(time.Time{})
	}
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

const (
	// maxWatches is how many streams of health may be open: callers have one for each
	// connection at most.
	maxWatches = DefaultMaxConnections
	// watchesEach is how many of them one connection may have: each takes goroutines, whose
	// descriptors Go keeps for ever.
	watchesEach = 4
	// maxReflections is how many streams of reflection may be open: people have them.
	maxReflections = 16
)

// few serves as many calls at a time as places has room for, and refuses others.
func few(places chan struct{}, errors *connect.ErrorWriter, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
		default:
			refuse(errors, w, r, overloaded(events.ShedStreams, "%s of %s under way, as many as are accepted", wording.Plural(cap(places), "call"), path.Dir(r.URL.Path)[1:]))
			return
		}
		defer func() { <-places }()
		next.ServeHTTP(w, r)
	})
}

// fewEach serves as many health watches of each connection at a time, and refuses others.
func fewEach(most int32, errors *connect.ErrorWriter, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := connFrom(r.Context()); c != nil {
			defer c.watches.Add(-1)
			if c.watches.Add(1) > most {
				refuse(errors, w, r, overloaded(events.ShedStreams, "%d health watches are open on the connection, as many as are accepted on one", most))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// streams serves requests that may be quiet for long once they have begun, each message
// of which has to arrive and to be taken in time. When ctx ends the caller sends no more.
func streams(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if out, ok := w.(*writer); ok { // of timed
			out.quiet = true
			out.setDeadline(time.Time{})
		}
		if r.Body != nil && r.Body != http.NoBody {
			in := &stream{ReadCloser: r.Body, control: http.NewResponseController(w), timeout: readTimeout}
			stop := context.AfterFunc(ctx, in.end)
			defer func() {
				stop()
				in.leave()
			}()
			r.Body = in
		}
		next.ServeHTTP(w, r)
	})
}

// stream is the body of a stream.
type stream struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration // of the next message

	mu    sync.Mutex
	ended bool // nothing more is read
	left  bool // the handler has returned: control must not be used
}

// Read implements [io.Reader].
func (s *stream) Read(p []byte) (int, error) {
	if !s.setDeadline(time.Now().Add(s.timeout)) {
		return 0, errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	}
	n, err := s.ReadCloser.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if s.setDeadline(time.Time{}) {
			err = errorf(connect.CodeDeadlineExceeded, reasonDeadline, "no message arrived within %s", s.timeout)
		} else {
			err = errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
		}
		return n, err
	}
	s.setDeadline(time.Time{})
	s.timeout = quietTimeout
	return n, err
}

// setDeadline sets the deadline of reading, and reports whether more is read.
func (s *stream) setDeadline(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	_ = s.control.SetReadDeadline(t)
	return true
}

// end ends the reading.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if !s.left {
		_ = s.control.SetReadDeadline(longAgo())
	}
}

// leave notes that the handler returns.
func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}
