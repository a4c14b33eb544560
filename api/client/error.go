package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// Domain is the domain of the reasons of Tandem's servers.
const Domain = "tandem"

// Error is why a call, or one query of a batch, has no answer. All errors of a [Client]'s calls
// are of this type:
//
//	if e, ok := errors.AsType[*client.Error](err); ok && e.Reason == client.FilterInvalid { ... }
//
// It also is its Reason to [errors.Is], and [context.DeadlineExceeded] or [context.Canceled] where
// the time was over or the context cancelled, whoever has noticed that first.
type Error struct {
	// Code is the code of the error in Connect and gRPC.
	Code connect.Code
	// Reason says to a program why; never empty.
	Reason Reason
	// Message says to a person what is wrong, and what is accepted. It may have ids of the request.
	Message string
	// Fields are those of the request that are wrong, if the code is invalid_argument.
	Fields []Field
	// Missing is what was not found, if the code is not_found.
	Missing *Missing
	// RetryAfter is after how long the server has asked to be tried again; 0 if it has not said.
	RetryAfter time.Duration
	// RequestID is what the server's log calls the request; empty if none has answered.
	RequestID string
	// Server is the address of the server that was asked last; empty if none was.
	Server string
	// Tries is how many times servers were asked.
	Tries int

	err error
}

// Field is a field of a request that is wrong.
type Field struct {
	// Path is where it is, such as "at_most[0].n"; empty for the request as a whole.
	Path string
	// Description is what is wrong with it, and what is accepted.
	Description string
}

// Missing is something that was not found.
type Missing struct {
	// Type is "user", "app", "snapshot" or "service".
	Type string
	// Name is its id.
	Name string
}

// maxMessage is how many bytes of a message are kept. Those of servers are shorter.
const maxMessage = 4 << 10

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code.String() + ": " + e.Message + " (" + string(e.Reason))
	if e.Server != "" {
		b.WriteString(", server " + e.Server)
	}
	if e.RequestID != "" {
		b.WriteString(", request " + strconv.Quote(e.RequestID))
	}
	if e.Tries > 1 {
		fmt.Fprintf(&b, ", %d tries", e.Tries)
	}
	b.WriteString(")")
	return b.String()
}

// Unwrap returns the error of the library below; nil for a query of a batch.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is the error's reason, or that of a context which this error is about.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == connect.CodeDeadlineExceeded
	case context.Canceled:
		return e.Code == connect.CodeCanceled
	}
	r, ok := target.(Reason)
	return ok && r == e.Reason
}

// Mistake reports whether the request is wrong, or is not allowed: it fails again until it, or
// what is served, is changed.
func (e *Error) Mistake() bool {
	switch e.Code {
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeUnauthenticated,
		connect.CodePermissionDenied, connect.CodeUnimplemented:
		return true
	}
	return false
}

// Temporary reports whether the same request may have an answer later.
func (e *Error) Temporary() bool {
	switch e.Code {
	case connect.CodeUnavailable, connect.CodeResourceExhausted, connect.CodeDeadlineExceeded:
		return true
	}
	return false
}

// shortened returns the beginning of a text, of at most maxMessage bytes and a mark.
func shortened(text string) string {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\ufffd")
	}
	if len(text) <= maxMessage {
		return text
	}
	n := maxMessage
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "..."
}

// detail takes what an error's detail says.
func (e *Error) detail(m any) {
	switch d := m.(type) {
	case *errdetails.ErrorInfo:
		if d.GetDomain() == Domain && d.GetReason() != "" {
			e.Reason = Reason(d.GetReason())
		}
	case *errdetails.BadRequest:
		for _, v := range d.GetFieldViolations() {
			e.Fields = append(e.Fields, Field{v.GetField(), v.GetDescription()})
		}
	case *errdetails.ResourceInfo:
		e.Missing = &Missing{d.GetResourceType(), d.GetResourceName()}
	case *errdetails.RetryInfo:
		e.RetryAfter = max(d.GetRetryDelay().AsDuration(), 0)
	}
}

// errorOf returns the error of one try, whose context is ctx.
func errorOf(ctx context.Context, err error, server string) *Error {
	e := &Error{Code: connect.CodeUnknown, Message: err.Error(), Server: server, err: err}
	of, ok := errors.AsType[*connect.Error](err)
	if ok {
		e.Code, e.Message = of.Code(), of.Message()
	}
	e.Message = shortened(e.Message)
	if ok && connect.IsWireError(err) {
		for _, d := range of.Details() {
			if m, valueErr := d.Value(); valueErr == nil { // others may send what is none of ours
				e.detail(m)
			}
		}
		e.RequestID = of.Meta().Get("X-Request-Id")
		if e.RetryAfter == 0 {
			e.RetryAfter = retryAfter(of.Meta())
		}
		if e.Reason == "" {
			e.Reason = Unexplained
		}
		return e
	}
	// What the client says of a server's answer must not be taken for what the server says of the
	// request: the library has codes such as invalid_argument for both.
	foreign, isForeign := errors.AsType[*foreignError](err)
	switch {
	case isForeign:
		e.Code, e.Reason, e.Message, e.RetryAfter = foreign.code(), Unexplained, foreign.Error(), foreign.retryAfter
	case errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, context.Canceled):
		e.Code, e.Reason, e.Message = connect.CodeCanceled, CallerGone, "the context was cancelled before there was an answer"
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Reason, e.Message = connect.CodeDeadlineExceeded, DeadlineExceeded, "the deadline passed before there was an answer"
	case isNetwork(err):
		e.Code, e.Reason = connect.CodeUnavailable, Unreachable
	default:
		e.Code, e.Reason = connect.CodeUnavailable, AnswerMalformed
	}
	return e
}

// retryAfter returns what the header Retry-After says in seconds, as proxies send it too.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil { // absent, or a date
		return 0
	}
	return time.Duration(n) * time.Second
}

// itemError returns the error of a query of a batch.
func itemError(item *tandemv1.ItemError) *Error {
	e := &Error{Message: shortened(item.GetMessage()), RequestID: item.GetRequestId(), Reason: Unexplained}
	if err := e.Code.UnmarshalText([]byte(item.GetCode())); err != nil {
		e.Code = connect.CodeUnknown
	}
	if d := item.GetInfo(); d != nil {
		e.detail(d)
	}
	if d := item.GetBadRequest(); d != nil {
		e.detail(d)
	}
	if d := item.GetResource(); d != nil {
		e.detail(d)
	}
	if d := item.GetRetry(); d != nil {
		e.detail(d)
	}
	return e
}
