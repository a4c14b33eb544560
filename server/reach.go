package server

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// reach waits until the server has read the live log up to a position that a request demands,
// if it demands one, until a little before its deadline.
func (s *Service) reach(ctx context.Context, want *tandemv1.LivePosition) error {
	if want == nil {
		return nil
	}
	waiting, cancel := beforeDeadline(ctx)
	defer cancel()
	return s.reachIn(ctx, waiting, want)
}

// reachEach does the same for the requests of a batch, and returns the errors of those whose
// positions were not reached, by their places. It takes half of the time that the batch has at
// most: the others are to be answered in the rest.
func (s *Service) reachEach(ctx context.Context, requests []*tandemv1.RetrieveRequest) (behind map[int]error) {
	waiting := ctx
	for i, r := range requests {
		if r.GetMinLive() == nil {
			continue
		}
		if deadline, ok := ctx.Deadline(); ok && waiting == ctx {
			var cancel context.CancelFunc
			waiting, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
			defer cancel() //nolint:gocritic // it is made once
		}
		if err := s.reachIn(ctx, waiting, r.MinLive); err != nil {
			if behind == nil {
				behind = map[int]error{}
			}
			behind[i] = err
		}
	}
	return behind
}

// reachIn waits until the server has read the live log up to a position of a request with the
// context ctx, or waiting ends.
func (s *Service) reachIn(ctx, waiting context.Context, want *tandemv1.LivePosition) error {
	position := wire.Position(want)
	if s.live == nil {
		return errorf(connect.CodeFailedPrecondition, reasonLogUnknown, "min_live is %s, and the server follows no live log", excerpt(position.String()))
	}
	if s.await(ended, position) == nil {
		return nil
	}
	if c := callFrom(ctx); c != nil {
		c.giveTurn() // that it was decoded in
	}
	x := exchangeFrom(ctx)
	x.leave()
	err := s.await(waiting, position)
	x.enter(ctx)
	at := s.live.Position()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, livelog.ErrUnread):
		return errUnread()
	case errors.Is(err, live.ErrOtherLog):
		return errorf(connect.CodeFailedPrecondition, reasonLogUnknown, "min_live is %s, of another live log than the server follows, which is at %s", excerpt(position.String()), at)
	case ctx.Err() != nil:
		return ctx.Err()
	case waiting.Err() == nil:
		return err
	}
	behind := errorf(connect.CodeUnavailable, reasonBehind, "min_live is %s, and the server had read the live log to %s when there was no more time to wait", excerpt(position.String()), at)
	retryLater(behind)
	return behind
}

// await waits until the live log was read up to a position, and what answers has it.
func (s *Service) await(ctx context.Context, p shard.Position) error {
	if err := s.live.Wait(ctx, p); err != nil || s.router == nil {
		return err
	}
	return s.router.Reach(ctx, p)
}

// errUnread is the error of what needs the live log before it was read.
func errUnread() error {
	return errorf(connect.CodeUnavailable, reasonNotReady, "the live log is not read yet")
}

// ended is a context that has ended: nothing waits in it.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
