package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// A stream of messages to a method is one call, which holds what is bounded for one message
// at a time: while it waits for the next it holds no more than a request that has begun.
// What bounds it beside that is how many streams there are, how long each may last, and how
// long each of its messages may take to arrive.

const (
	// maxImports is how many streams of events may be open at a time.
	maxImports = 8
	// importTimeout is how long one may last.
	importTimeout = 10 * time.Minute
)

// stream serves streams of messages, until the server is to end those.
func (l *limiter) stream(ending context.Context, next http.Handler) http.Handler {
	next = enveloped(next, l.maxBytes, false, l.errors)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), importTimeout)
		defer cancel()
		c := &call{Context: ctx, limits: l, exchange: exchangeFrom(r.Context()), http1: r.ProtoMajor == 1}
		if out, ok := w.(*writer); ok { // of timed
			c.control = out.control
			out.quiet = true
			out.setDeadline(time.Time{}) // the answer comes when it comes
		} else {
			c.control = http.NewResponseController(w)
		}
		defer c.end()
		if !l.bytes.take(c, requestBytes+headerBytes(r)) {
			refuse(l.errors, w, r, l.bytes.full())
			return
		}
		r = r.WithContext(c)
		if r.Body != nil && r.Body != http.NoBody {
			_ = c.control.SetReadDeadline(time.Time{}) // each message has its own time
			defer context.AfterFunc(ending, c.stopReading)()
			c.stream = &importBody{ReadCloser: r.Body, call: c, ending: ending}
			r.Body = c.stream
		}
		next.ServeHTTP(w, r)
	})
}

// importBody is the body of a stream.
type importBody struct {
	io.ReadCloser
	call   *call
	ending context.Context
	late   atomic.Bool // the next message did not arrive in time
}

// isLate ends the reading: the next message did not arrive in time.
func (b *importBody) isLate() {
	b.late.Store(true)
	b.call.stopReading()
}

// Read implements [io.Reader].
func (b *importBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	switch {
	case b.call.limits.bytes.isCut(b.call):
		err = errCutOff()
	case b.ending.Err() != nil:
		err = errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	case b.late.Load():
		err = errorf(connect.CodeDeadlineExceeded, reasonDeadline, "no whole message arrived within %s", b.call.limits.idle)
	case b.call.Err() != nil:
		err = b.call.Err() // which may be because of a deadline of ours
	}
	return n, err
}

// streamed does for methods that take streams what observe, decoding and validation do for
// others.
type streamed struct{ service *Service }

// WrapUnary implements [connect.Interceptor].
func (streamed) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingClient implements [connect.Interceptor].
func (streamed) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements [connect.Interceptor].
func (i streamed) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		start, x := startFrom(ctx), exchangeFrom(ctx)
		id := newID()
		if x != nil {
			id = x.name()
		}
		ctx = context.WithValue(ctx, idKey{}, id)
		before := debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(before)
			if p := recover(); p != nil {
				err = panicError(p)
			}
			if x != nil {
				x.told = true
			}
			err = i.service.finish(ctx, conn.Spec().Procedure, id, start, err)
		}()
		return next(ctx, &streamConn{conn, ctx})
	}
}

// streamConn is a stream whose messages arrive in time, are decoded and keep the rules of the
// contract.
type streamConn struct {
	connect.StreamingHandlerConn
	ctx context.Context
}

// Receive implements [connect.StreamingHandlerConn].
func (s *streamConn) Receive(m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", m)
	}
	c := callFrom(s.ctx)
	if c != nil {
		if err := c.nextMessage(); err != nil {
			return err
		}
	}
	if c != nil && c.stream != nil {
		late := time.AfterFunc(c.limits.idle, c.stream.isLate)
		defer late.Stop()
		defer context.AfterFunc(s.ctx, c.stopReading)()
	}
	if err := s.StreamingHandlerConn.Receive(m); err != nil {
		if ended := s.ctx.Err(); errors.Is(ended, context.DeadlineExceeded) {
			return ended // and so does the reading
		}
		return err
	}
	if c != nil {
		if err := c.arrived(s.ctx, p); err != nil {
			return err
		}
	}
	if err := decode(s.ctx, p); err != nil {
		return err
	}
	return validate(p)
}

// nextMessage gives back what the message before the next one of a stream took.
func (c *call) nextMessage() error {
	c.worked()
	c.limits.bytes.release(c)
	if !c.limits.bytes.take(c, requestBytes) {
		return c.limits.bytes.full()
	}
	c.limits.bytes.wait(c)
	return nil
}

// room takes what a message of a stream takes that is to arrive, in so many bytes.
func (c *call) room(size int) error {
	if !c.limits.bytes.take(c, int64(2*size)) {
		return c.limits.bytes.full()
	}
	return nil
}

// arrived takes what a message of a stream takes that has arrived, and is not decoded.
func (c *call) arrived(ctx context.Context, m proto.Message) error {
	size := len(m.ProtoReflect().GetUnknown())
	if !c.limits.bytes.resume(c) {
		return errCutOff()
	}
	if !c.limits.bytes.take(c, int64(2*size)) {
		return c.limits.bytes.full()
	}
	c.exchange.enter(ctx)
	if size > largeMessage {
		return c.takeTurn(ctx)
	}
	return nil
}
