package remote

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
)

// Reason is why a node did not answer.
type Reason string

// The reasons of the contract.
const (
	WrongProtocol Reason = "WRONG_PROTOCOL" // it does not take the protocol
	NotHeld       Reason = "NOT_HELD"       // it does not hold the shard of that snapshot
	Behind        Reason = "BEHIND"         // it has not read the live log to the position
	PositionGone  Reason = "POSITION_GONE"  // it no longer has what was there
	Unreadable    Reason = "UNREADABLE"     // a page of the shard's file cannot be read
	BadQuery      Reason = "BAD_QUERY"      // what is asked is wrong, and so on every node
	Overloaded    Reason = "OVERLOADED"     // it is answering as many requests as it may
	Stopping      Reason = "STOPPING"       // it is told to stop
	NotAudited    Reason = "NOT_AUDITED"    // it does no scans for audits
	Panicked      Reason = "PANICKED"       // a bug
)

// domain is that of the reasons.
const domain = "tandem.shard"

// maxText is how many bytes of an error's text are sent.
const maxText = 4 << 10

var codes = map[Reason]connect.Code{
	WrongProtocol: connect.CodeFailedPrecondition, NotHeld: connect.CodeNotFound, Behind: connect.CodeUnavailable,
	PositionGone: connect.CodeOutOfRange, Unreadable: connect.CodeDataLoss, BadQuery: connect.CodeInvalidArgument,
	Overloaded: connect.CodeResourceExhausted, Stopping: connect.CodeUnavailable, NotAudited: connect.CodeUnimplemented, Panicked: connect.CodeInternal,
}

// Refusal is the error of a node that did not answer. That of BadQuery is of class
// [index.ErrQuery].
type Refusal struct {
	Reason Reason
	Text   string
	// Protocol and OldestProtocol are those that the node takes, of WrongProtocol.
	Protocol, OldestProtocol uint32
	// InFlight is how many requests it has, of Overloaded.
	InFlight int
}

// Error implements error. What is wrong with a query is told as a part of this process does.
func (r *Refusal) Error() string {
	if r.Reason == BadQuery {
		return r.Text
	}
	return string(r.Reason) + ": " + r.Text
}

// Unwrap returns [index.ErrQuery] for a query that is wrong.
func (r *Refusal) Unwrap() error {
	if r.Reason == BadQuery {
		return index.ErrQuery
	}
	return nil
}

// refusef returns a refusal.
func refusef(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// badQuery returns the refusal of a query because of an error of reading it, or that of a
// context that has ended.
func badQuery(err error) error {
	if isEnd(err) {
		return err
	}
	return refusef(BadQuery, "%v: %v", err, index.ErrQuery)
}

// isEnd reports whether an error is that of a context that has ended.
func isEnd(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// refusal returns the refusal that an error of a part amounts to, or nil.
func refusal(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if _, ok := errors.AsType[*shard.PositionError](err); ok {
		return refusef(PositionGone, "%v", err)
	}
	if p, ok := errors.AsType[*shard.PanicError](err); ok {
		return refusef(Panicked, "search shard %s: panic", p.Shard)
	}
	switch {
	case errors.Is(err, sections.ErrUnreadable):
		return refusef(Unreadable, "%v", err)
	case errors.Is(err, index.ErrQuery):
		return refusef(BadQuery, "%v", err)
	}
	return nil
}

// wireError returns an error of a node as it is sent.
func wireError(err error) error {
	r := refusal(err)
	switch {
	case r != nil:
		return r.wire()
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, context.Canceled)
	}
	return connect.NewError(connect.CodeUnknown, errors.New(cut(err.Error())))
}

// wire returns the refusal as it is sent.
func (r *Refusal) wire() *connect.Error {
	code, ok := codes[r.Reason]
	if !ok {
		code = connect.CodeUnknown
	}
	out := connect.NewError(code, errors.New(cut(r.Text)))
	info := &errdetails.ErrorInfo{Domain: domain, Reason: string(r.Reason)}
	switch r.Reason {
	case WrongProtocol:
		info.Metadata = map[string]string{"protocol": fmt.Sprint(r.Protocol), "oldest_protocol": fmt.Sprint(r.OldestProtocol)}
	case Overloaded:
		info.Metadata = map[string]string{"in_flight": fmt.Sprint(r.InFlight)}
	}
	if detail, err := connect.NewErrorDetail(info); err == nil { // it is a message of this build
		out.AddDetail(detail)
	}
	return out
}

// cut returns the beginning of a text that is too long for an error.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return text[:maxText] + "..."
}

// readError returns an error of a call for something as the classes of [shard.Part] have it: the context's,
// a [*Refusal], a [*shard.PanicError], or one that says that the node did not answer.
func (n *Node) readError(ctx context.Context, what string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) { // a connection was first to know
		return context.DeadlineExceeded
	}
	told, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return fmt.Errorf("ask node %s for %s: %w", n.o.Address, what, err)
	}
	if r := readRefusal(told); r != nil {
		if r.Reason == Panicked {
			return &shard.PanicError{Shard: what, Value: "on node " + n.o.Address + ": " + r.Text}
		}
		return r
	}
	switch told.Code() {
	case connect.CodeDeadlineExceeded:
		return context.DeadlineExceeded // the node's clock was first
	case connect.CodeResourceExhausted: // a message is too large, whichever
		return refusef(BadQuery, "ask node %s for %s: %s: %v", n.o.Address, what, cut(told.Message()), index.ErrQuery)
	}
	return fmt.Errorf("ask node %s for %s: %s: %s", n.o.Address, what, told.Code(), cut(told.Message()))
}

// readRefusal returns the refusal that an error is, or nil.
func readRefusal(told *connect.Error) *Refusal {
	for _, d := range told.Details() {
		value, err := d.Value()
		if err != nil {
			continue
		}
		info, ok := value.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != domain {
			continue
		}
		r := &Refusal{Reason: Reason(cut(info.GetReason())), Text: cut(told.Message())}
		r.Protocol, r.OldestProtocol = number(info, "protocol"), number(info, "oldest_protocol")
		r.InFlight = int(number(info, "in_flight"))
		return r
	}
	return nil
}

// number returns a number of a refusal, 0 where there is none.
func number(info *errdetails.ErrorInfo, key string) uint32 {
	n, err := strconv.ParseUint(info.GetMetadata()[key], 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
