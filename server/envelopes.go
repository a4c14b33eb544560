package server

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// envelopes is the body of a request to health or reflection, or of a stream of events, which arrives while it is
// read. What is wrong with it is the caller's fault, and its error says what: Connect calls
// most of that an error of the server.
type envelopes struct {
	io.ReadCloser
	ctx      context.Context
	encoding string               // of messages that are said to be compressed
	most     int                  // bytes of a message
	one      bool                 // there is one message, and no more
	raw      bool                 // there is nothing around the message
	room     func(size int) error // takes what a message takes that is to arrive; may be nil

	prefix   [envelopeBytes]byte
	unread   []byte // of prefix
	size     int    // bytes of the message that is under way, or of all if raw
	left     int    // of them, that are to come
	messages int
}

// enveloped gives the error of a request to health or reflection, whose messages have up to
// so many bytes, what errors of methods have, whatever is wrong with it.
func enveloped(next http.Handler, most int, one bool, errors *connect.ErrorWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := checkMethodHeaders(r); err != nil {
			if x := exchangeFrom(r.Context()); x != nil {
				x.failure = callerError(err, x.name()) // the status may not tell
			}
			refuse(errors, w, r, err)
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			in := &envelopes{ReadCloser: r.Body, ctx: r.Context(), most: most, one: one}
			if c := callFrom(r.Context()); c != nil {
				in.room = c.room
			}
			switch {
			case isGRPC(r.Header):
				in.encoding = r.Header.Get("Grpc-Encoding")
			case isConnectStream(r.Header):
				in.encoding = r.Header.Get("Connect-Content-Encoding")
			default:
				in.raw = true
			}
			r.Body = in
		}
		next.ServeHTTP(w, r)
	})
}

// isConnectStream reports whether the body of a request to a method is of messages of
// Connect as streams have them.
func isConnectStream(header http.Header) bool {
	return strings.HasPrefix(header.Get("Content-Type"), "application/connect+")
}

// Read implements [io.Reader].
func (e *envelopes) Read(p []byte) (int, error) {
	if e.raw {
		n, err := e.ReadCloser.Read(p)
		if e.size += n; e.size > e.most {
			return 0, tooLarge(e.most)
		}
		return n, e.readError(err)
	}
	if len(e.unread) == 0 && e.left == 0 {
		if err := e.begin(); err != nil {
			return 0, err
		}
	}
	if len(e.unread) > 0 {
		n := copy(p, e.unread)
		e.unread = e.unread[n:]
		return n, nil
	}
	n, err := e.ReadCloser.Read(p[:min(len(p), e.left)])
	if e.left -= n; e.left == 0 {
		return n, nil // an error comes again
	}
	if errors.Is(err, io.EOF) {
		return n, invalidf(reasonMalformed, "", "the message is said to have %d bytes and has %d", e.size, e.size-e.left)
	}
	return n, e.readError(err)
}

// begin reads what is before a message.
func (e *envelopes) begin() error {
	n, err := io.ReadFull(e.ReadCloser, e.prefix[:])
	switch {
	case n > 0 && e.one && e.messages > 0:
		return invalidf(reasonMalformed, "", "there are bytes after the message; accepted: one message")
	case n > 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return invalidf(reasonMalformed, "", "the body ends after %d of the %d bytes before a message", n, envelopeBytes)
	case errors.Is(err, io.EOF) && e.one && e.messages == 0:
		return invalidf(reasonMalformed, "", "the body has no message; accepted: one")
	case err != nil:
		return e.readError(err)
	}
	if err := checkFlags(e.prefix[0], e.encoding); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(e.prefix[1:])
	if uint64(size) > uint64(e.most) {
		return tooLarge(e.most)
	}
	if e.room != nil {
		if err := e.room(int(size)); err != nil {
			return err
		}
	}
	e.messages++
	e.size, e.left, e.unread = int(size), int(size), e.prefix[:]
	return nil
}

// readError returns the error of reading the body as the caller sees it. What has a code,
// or is the end of the request, stays.
func (e *envelopes) readError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidf(reasonMalformed, "", "the body ends before its end")
	case err == nil, errors.Is(err, io.EOF), errors.As(err, new(*connect.Error)), e.ctx.Err() != nil:
		return err
	}
	return invalidf(reasonMalformed, "", "the body cannot be read: %w", err)
}

// checkFlags returns an error unless the flags of a message are right.
func checkFlags(flags byte, encoding string) error {
	switch {
	case flags > 1:
		return invalidf(reasonMalformed, "", "the message has the flags %#x; accepted: 0 and 1", flags)
	case flags == 1 && (encoding == "" || encoding == "identity"):
		return invalidf(reasonMalformed, "", "the message is said to be compressed and its encoding is %q; accepted with it: gzip, zstd", encoding)
	}
	return nil
}

// refusing has the methods of health and reflection refuse messages that cannot be decoded,
// and leaves the errors of streams for the log.
type refusing struct{}

// WrapUnary implements [connect.Interceptor].
func (refusing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return decoding(next) }

// WrapStreamingClient implements [connect.Interceptor].
func (refusing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements [connect.Interceptor].
func (refusing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, decodedStream{conn, ctx})
		if x := exchangeFrom(ctx); x != nil && err != nil {
			coded := callerError(err, x.name())
			x.failure, err = coded, coded
		}
		return err
	}
}

// decodedStream is a stream whose messages are decoded.
type decodedStream struct {
	connect.StreamingHandlerConn
	ctx context.Context
}

// Receive implements [connect.StreamingHandlerConn].
func (d decodedStream) Receive(m any) error {
	if err := d.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	if err := decode(d.ctx, m); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		return unset(m.ProtoReflect())
	}
	return nil
}

// unset returns an error if a message asks for none of what it may ask for, as one to
// reflection may.
func unset(m protoreflect.Message) error {
	choices := m.Descriptor().Oneofs()
	for i := range choices.Len() {
		choice := choices.Get(i)
		if m.WhichOneof(choice) != nil {
			continue
		}
		var names []string
		for j := range choice.Fields().Len() {
			names = append(names, string(choice.Fields().Get(j).Name()))
		}
		return invalidf(reasonRule, string(choice.Name()), "%s is not set; accepted: one of %s", choice.Name(), strings.Join(names, ", "))
	}
	return nil
}
