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
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index/sections"
)

// RequestIDHeader is the response header that has the request's id, also when
// the response is an error.
const RequestIDHeader = "X-Request-Id"

// newID returns a request id: 32 random hexadecimal digits.
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

type idKey struct{}

// idFrom returns the id of the request that ctx belongs to, or a new one.
func idFrom(ctx context.Context) string {
	if id, ok := ctx.Value(idKey{}).(string); ok {
		return id
	}
	return newID()
}

// nameRequest returns the request's id. A request without one gets one.
func nameRequest(m any) string {
	var field *string
	switch r := m.(type) {
	case *tandemv1.RetrieveRequest:
		field = &r.RequestId
	case *tandemv1.GetEmbeddingsRequest:
		field = &r.RequestId
	default:
		return newID()
	}
	if *field == "" {
		*field = newID()
	}
	return *field
}

// asHeader reports whether an id may be a header's value as it is. One that the
// rules will reject is not.
func asHeader(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(id) <= 128
}

// observe names a request, gives its error a code, logs it, and turns a panic, and a
// fault in a mapped file, into an error. It is the outermost interceptor.
func (s *Service) observe(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (response connect.AnyResponse, err error) {
		start := time.Now()
		id := nameRequest(r.Any())
		if info, ok := connect.CallInfoForHandlerContext(ctx); ok && asHeader(id) {
			info.ResponseHeader().Set(RequestIDHeader, id)
		}
		ctx = context.WithValue(ctx, idKey{}, id)
		before := debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(before)
			if p := recover(); p != nil {
				response, err = nil, panicError(p)
			}
			err = s.finish(ctx, r.Spec().Procedure, id, start, err)
		}()
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
	level, code := slog.LevelDebug, "ok"
	var seen error
	if err != nil {
		coded := callerError(err, id)
		code, seen = coded.Code().String(), coded
		if coded.Code() == connect.CodeInternal {
			level = slog.LevelError
		}
	}
	if !s.logger.Enabled(ctx, level) {
		return seen
	}
	args := []any{"procedure", procedure, "request_id", id, "code", code, "duration", time.Since(start)}
	text := "request"
	if err != nil {
		args = append(args, "error", err)
		text = "request failed"
	}
	s.logger.Log(ctx, level, text, args...)
	return seen
}
