package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
)

// RequestIDHeader is the header that has the request's id: of a response always, also when
// it is an error; of a request, if its message has none. Where a request has none at all,
// but a traceparent of W3C Trace Context, its trace-id is the request's id, and so is that of a
// trace that the server begins. An id that is
// not all visible ASCII is percent-encoded in the header of a response.
const RequestIDHeader = "X-Request-Id"

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
	parent, _ := traces.ParentOf(header)
	return parent.ID
}

// startFrom returns when the request that ctx belongs to began: its header had been read.
// Durations that are told are from then on, so they have the time in which its message arrived,
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

// observe has a request decoded, names it, gives its error a code, tells of it, and turns a
// panic, and a fault in a mapped file, into an error. It is the outermost interceptor.
func (s *Service) observe(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (response connect.AnyResponse, err error) {
		start, x := startFrom(ctx), exchangeFrom(ctx)
		fallback := newID
		if x != nil {
			fallback = x.name
		}
		decoding := x.span().Begin("decode")
		refused := received(ctx, r.Any())
		decoding.End()
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
			if err != nil {
				notAnswered(ctx)
			}
			if c := callFrom(ctx); err == nil && c != nil && len(c.views) > 0 {
				c.finisher = &finisher{s, ctx, r.Spec().Procedure, id, start}
				return
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

// finish tells of a request and returns its error as the caller sees it.
func (s *Service) finish(ctx context.Context, procedure, id string, start time.Time, err error) error {
	if err == nil {
		s.ended(ctx, procedure, id, start, nil, nil)
		return nil
	}
	return s.failed(ctx, procedure, id, start, err)
}

// failed tells of a request that failed, and returns its error as the caller sees it.
func (s *Service) failed(ctx context.Context, procedure, id string, start time.Time, err error) *connect.Error {
	coded, cause := s.coded(err, id)
	s.ended(ctx, procedure, id, start, coded, cause)
	return coded
}

// itemFailed is failed for an item of a batch, which does not end with it.
func (s *Service) itemFailed(ctx context.Context, procedure, id string, start time.Time, err error) *connect.Error {
	coded, cause := s.coded(err, id)
	s.tell(ctx, procedure, id, start, coded, cause)
	return coded
}

// coded returns an error as its caller sees it, and what more the log is told.
func (*Service) coded(err error, id string) (coded *connect.Error, cause error) {
	coded = callerError(err, id)
	if coded.Code() == connect.CodeInternal {
		cause = err
	}
	return coded, cause
}

// ended tells of a request that has ended, with an error that its caller is told, nil if it
// did not fail, and with the cause of one that is the server's fault.
func (s *Service) ended(ctx context.Context, procedure, id string, start time.Time, coded *connect.Error, cause error) {
	if x := exchangeFrom(ctx); x != nil {
		if x.code = 0; coded != nil {
			x.code, x.tooMuch = coded.Code(), shedOf(coded)
		}
		traceFailure(x.span(), coded)
	}
	s.tell(ctx, procedure, id, start, coded, cause)
}

// tell tells of a request, or an item of a batch, as ended does.
func (s *Service) tell(ctx context.Context, procedure, id string, start time.Time, coded *connect.Error, cause error) {
	e := events.Request{Procedure: excerpt(procedure), ID: id, Code: "ok", Duration: time.Since(start), Cause: cause}
	if coded != nil {
		e.Code, e.Err, e.Overload = coded.Code().String(), coded, coded.Code() == connect.CodeResourceExhausted
		e.Shed = shedOf(coded)
	}
	if x := exchangeFrom(ctx); x != nil {
		e.Caller, e.Trace = x.callerName(), x.traceID()
		if c := callFrom(ctx); c != nil {
			e.Arm = c.arm
		}
		e.Peer, e.Protocol, e.HTTP, e.Bytes = x.request.RemoteAddr, protocolOf(x.request), x.request.Proto, x.size()
		if length := x.request.ContentLength; length > x.arrived {
			e.Length = length // not all has arrived, or nothing was read
		}
	}
	s.events.RequestEnd(e)
}

// connectionLog is where net/http writes what is wrong with connections: a line for each
// frame that breaks the protocol, if a client likes.
type connectionLog struct{ events *events.Listener }

// Write implements [io.Writer]. It is given a line at a time.
func (c connectionLog) Write(line []byte) (int, error) {
	c.events.ConnectionFailed(shortened(strings.TrimSpace(string(line)), maxConnectionLine))
	return len(line), nil
}

// maxConnectionLine is how many bytes of such a line are told: that of a handler that
// panics has the stack.
const maxConnectionLine = 8 << 10

// tellOfLeftOut has the log tell of what it has left out every now and then, until ctx
// ends: after a flood there may be no failure for long that says it.
func (s *Service) tellOfLeftOut(ctx context.Context) {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.log.TellLeftOut()
		}
	}
}
