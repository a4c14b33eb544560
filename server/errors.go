package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// errorf returns an error that the caller sees, with its code.
func errorf(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// invalidf returns an error about a request: it names the field, the value and
// what is accepted.
func invalidf(format string, args ...any) error {
	return errorf(connect.CodeInvalidArgument, format, args...)
}

// searchError gives the error of a search its code. ctx is the caller's.
func searchError(ctx context.Context, err error) error {
	short, ok := errors.AsType[*shard.CoverageError](err)
	if !ok {
		if errors.Is(err, index.ErrQuery) {
			return invalidf("%w", err)
		}
		return err
	}
	based := fmt.Sprintf("%d of %d shards had answered; coverage is %.3g, min_coverage is %g",
		short.Answered, short.Shards, short.Coverage, short.MinCoverage)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return errorf(connect.CodeCanceled, "the caller went away when %s", based)
	case errors.Is(short.Err, context.DeadlineExceeded):
		return errorf(connect.CodeDeadlineExceeded, "the deadline passed when %s", based)
	}
	return errorf(connect.CodeUnavailable, "%d of %d shards answered; coverage is %.3g, min_coverage is %g: %w",
		short.Answered, short.Shards, short.Coverage, short.MinCoverage, short.Err)
}

// callerError returns err as the caller sees it. An error without a code is ours
// to mend: its text goes to the log, the caller gets the request's id.
func callerError(err error, id string) *connect.Error {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded
	}
	if lost, ok := errors.AsType[*shard.UnreadableError](err); ok {
		return connect.NewError(connect.CodeDataLoss, lost)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, errors.New("the caller went away"))
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errors.New("the deadline passed before the request was begun"))
	}
	return connect.NewError(connect.CodeInternal, fmt.Errorf("internal error; the server's log tells more about request %s", id))
}
