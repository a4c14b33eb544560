package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index/sections"
)

// RequestIDHeader is the header that has the request's id: of a response always, also when
// it is an error; of a request, if its message has none. Where a request has none at all,
// but a traceparent of W3C Trace Context, its trace-id is the request's id. An id that is
// not all visible ASCII is percent-encoded in the header of a response.
const RequestIDHeader = "X-Request-Id"

const traceHeader = "Traceparent"

// maxRequestID is how many bytes a request's id may have.
const maxRequestID = 128

// newID returns a request id: 32 random hexadecimal digits.
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// incomingID returns the id that the headers of a request give it, "" for none. Headers
// that are not as they should be give none.
func incomingID(header http.Header) string {
	if id := header.Get(RequestIDHeader); isID(id) && isPrintable(id) {
		return id
	}
	parts := strings.Split(header.Get(traceHeader), "-")
	if len(parts) < 4 || len(parts) > 4 && parts[0] == "00" || parts[0] == "ff" {
		return ""
	}
	for i, digits := range [...]int{2, 32, 16, 2} {
		if len(parts[i]) != digits || strings.Trim(parts[i], "0123456789abcdef") != "" {
			return ""
		}
	}
	if strings.Trim(parts[1], "0") == "" {
		return ""
	}
	return parts[1]
}

// startFrom returns when the request that ctx belongs to began: its header had been read.
// The log's durations are from then on, so they have the time in which its message arrived,
// waited to be looked at and was decoded.
func startFrom(ctx context.Context) time.Time {
	if x := exchangeFrom(ctx); x != nil {
		return x.start
	}
	return time.Now()
}

type idKey struct{}

// idFrom returns the id of the request that ctx belongs to, or a new one.
func idFrom(ctx context.Context) string {
	if id, ok := ctx.Value(idKey{}).(string); ok {
		return id
	}
	return newID()
}

// itemID returns the id of a request of a batch that has none of its own: NAME-INDEX, where
// the batch's name is cut if that is too long.
func itemID(batch string, i int) string {
	suffix := fmt.Sprintf("-%d", i)
	return cut(batch, maxRequestID-len(suffix)) + suffix
}

// nameRequest returns the request's id: that of its message, or fallback, which the message
// gets if it has none.
func nameRequest(m any, fallback func() string) string {
	var field *string
	switch r := m.(type) {
	case *tandemv1.RetrieveRequest:
		field = &r.RequestId
	case *tandemv1.GetEmbeddingsRequest:
		field = &r.RequestId
	default:
		return fallback()
	}
	if *field == "" {
		*field = fallback()
	}
	if !isID(*field) {
		return fallback() // the rules reject it
	}
	return *field
}

// isID reports whether a text may be a request's id.
func isID(s string) bool { return s != "" && len(s) <= maxRequestID }

// isPrintable reports whether a text is UTF-8 of characters that are seen, and spaces.
func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// headerOf returns an id as a response's header has it: as it is if it is all visible ASCII,
// else percent-encoded.
func headerOf(id string) string {
	visible := func(c byte) bool { return c > ' ' && c <= '~' }
	plain := true
	for _, c := range []byte(id) {
		plain = plain && visible(c)
	}
	if plain {
		return id
	}
	var out strings.Builder
	for _, c := range []byte(id) {
		if visible(c) && c != '%' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// observe has a request decoded, names it, gives its error a code, logs it, and turns a
// panic, and a fault in a mapped file, into an error. It is the outermost interceptor.
func (s *Service) observe(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (response connect.AnyResponse, err error) {
		start, x := startFrom(ctx), exchangeFrom(ctx)
		fallback := newID
		if x != nil {
			fallback = x.name
		}
		refused := received(ctx, r.Any())
		id := nameRequest(r.Any(), fallback)
		if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
			info.ResponseHeader().Set(RequestIDHeader, headerOf(id))
		}
		if x != nil {
			x.id = id
		}
		ctx = context.WithValue(ctx, idKey{}, id)
		before := debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(before)
			if p := recover(); p != nil {
				response, err = nil, panicError(p)
			}
			if x != nil {
				x.told = true
			}
			err = s.finish(ctx, r.Spec().Procedure, id, start, err)
		}()
		if refused != nil {
			return nil, refused
		}
		return next(ctx, r)
	}
}

// panicError returns a panic as an error that has the stack, or that names the mapped
// file that could not be read. It goes on with one that asks net/http to abort the
// request.
func panicError(p any) error {
	if fault := sections.FaultOf(p); fault != nil {
		return fault
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}

// finish logs a request and returns its error as the caller sees it.
func (s *Service) finish(ctx context.Context, procedure, id string, start time.Time, err error) error {
	if err == nil {
		if s.logger.Enabled(ctx, slog.LevelDebug) {
			s.logger.Log(ctx, slog.LevelDebug, "request", requestAttributes(ctx, procedure, id, "ok", start)...)
		}
		return nil
	}
	coded := callerError(err, id)
	s.logFailure(ctx, levelOf(coded), procedure, id, start, coded, err)
	return coded
}

// levelOf is the level of an error of a method.
func levelOf(coded *connect.Error) slog.Level {
	switch coded.Code() {
	case connect.CodeInternal:
		return slog.LevelError
	case connect.CodeResourceExhausted:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// requestAttributes are what the log tells of a request.
func requestAttributes(ctx context.Context, procedure, id, code string, start time.Time) []any {
	args := []any{"procedure", excerpt(procedure), "request_id", id, "code", code, "duration", time.Since(start)}
	if x := exchangeFrom(ctx); x != nil {
		args = append(args, "peer", x.request.RemoteAddr, "protocol", protocolOf(x.request), "http", x.request.Proto, "bytes", x.size())
		if length := x.request.ContentLength; length > x.arrived {
			args = append(args, "content_length", length) // not all has arrived, or nothing was read
		}
	}
	return args
}

// mayTell reports whether the log is to tell of one more failed request, and how many it
// has left out before. What is the server's fault is told always, else only as much as does
// not flood the log, unless every request is to be told.
func (s *Service) mayTell(ctx context.Context, level slog.Level) (leftOut int, ok bool) {
	switch {
	case !s.logger.Enabled(ctx, level):
		return 0, false
	case level == slog.LevelError || s.logger.Enabled(ctx, slog.LevelDebug):
		return 0, true
	}
	return s.failures.take(time.Now())
}

// withLeftOut adds how many lines were left out to the attributes of one.
func withLeftOut(args []any, leftOut int) []any {
	if leftOut > 0 {
		return append(args, "left_out", leftOut)
	}
	return args
}

// logFailure logs a request that failed with err, of which the caller sees coded. What is
// the server's fault is told whole.
func (s *Service) logFailure(ctx context.Context, level slog.Level, procedure, id string, start time.Time, coded *connect.Error, err error) {
	leftOut, ok := s.mayTell(ctx, level)
	if !ok {
		return
	}
	var text error = coded
	if level == slog.LevelError {
		text = err
	}
	args := append(requestAttributes(ctx, procedure, id, coded.Code().String(), start), "error", text)
	s.logger.Log(ctx, level, "request failed", withLeftOut(args, leftOut)...)
}

// How many failures of one kind the log tells of at once, and each second from then on.
const (
	failuresAtOnce    = 100
	failuresPerSecond = 10
)

// failureLog decides which failures of a kind the log tells of, and counts the others: the
// next that it tells of says how many were left out before it. The zero value is ready.
type failureLog struct {
	mu      sync.Mutex
	used    float64 // of failuresAtOnce
	last    time.Time
	leftOut int
}

// take reports whether the log tells of one more, and how many were left out before it.
func (l *failureLog) take(now time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = max(l.used-now.Sub(l.last).Seconds()*failuresPerSecond, 0)
	l.last = now
	if l.used > failuresAtOnce-1 {
		l.leftOut++
		return 0, false
	}
	l.used++
	leftOut, l.leftOut = l.leftOut, 0
	return leftOut, true
}

// connectionLog is where net/http writes what is wrong with connections: a line for each
// frame that breaks the protocol, if a client likes.
type connectionLog struct {
	logger *slog.Logger
	lines  failureLog
}

// Write implements [io.Writer]. It is given a line at a time.
func (c *connectionLog) Write(line []byte) (int, error) {
	if leftOut, ok := c.lines.take(time.Now()); ok {
		text := shortened(strings.TrimSpace(string(line)), maxConnectionLine)
		c.logger.Warn("connection failed", withLeftOut([]any{"error", text}, leftOut)...)
	}
	return len(line), nil
}

// maxConnectionLine is how many bytes of such a line the log has: that of a handler that
// panics has the stack.
const maxConnectionLine = 8 << 10

// tellLeftOut tells of what the log has left out since it has told of a failure last.
func (s *Service) tellLeftOut() {
	if n := s.failures.rest(); n > 0 {
		s.logger.Info("requests failed that the log left out", "left_out", n)
	}
	if n := s.connections.lines.rest(); n > 0 {
		s.logger.Warn("connections failed that the log left out", "left_out", n)
	}
}

// tellOfLeftOut does so every now and then until ctx ends: after a flood there may be no
// failure for long that says it.
func (s *Service) tellOfLeftOut(ctx context.Context) {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.tellLeftOut()
		}
	}
}

// rest returns how many were left out since the last that the log told of.
func (l *failureLog) rest() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.leftOut
	l.leftOut = 0
	return n
}
