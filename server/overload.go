package server

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/tandem-ann/tandem/server/events"
)

// shedError is why a request is refused before it is worked on.
type shedError struct {
	error
	shed events.Shed
}

func (e *shedError) Unwrap() error { return e.error }

// overloaded is an error that says when to retry.
func overloaded(of events.Shed, format string, args ...any) *connect.Error {
	why := fmt.Errorf(format+"; retry in %s", append(args, retryAfter)...)
	err := connect.NewError(connect.CodeResourceExhausted, &shedError{why, of})
	addDetail(err, &errdetails.RetryInfo{RetryDelay: duration(retryAfter)})
	addDetail(err, &errdetails.ErrorInfo{Reason: string(reasonOverloaded), Domain: ErrorDomain})
	err.Meta().Set("Retry-After", fmt.Sprint(int(retryAfter.Seconds())))
	return err
}

// shedOf returns what there was too much of for an error, empty if it is for another reason.
func shedOf(err error) events.Shed {
	if e, ok := errors.AsType[*shedError](err); ok {
		return e.shed
	}
	return ""
}
