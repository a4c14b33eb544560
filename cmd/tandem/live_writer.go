package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// liveWriter writes events: all that it is handed at a time, durably, or none and an error.
// It is for one goroutine.
type liveWriter interface {
	io.Closer
	// vet returns an event as it would be written, as far as that is known beforehand, or an
	// error if it would not be: a [*live.EventError] if it is the event's.
	vet(ctx context.Context, event *tandemv1.LiveEvent) (live.Event, error)
	write(ctx context.Context, events []*tandemv1.LiveEvent) (written, error)
	// lost returns those of some events that count once, having been written before, and do
	// not hold at a position: takedowns of apps that are not taken down, and, where there is a
	// store, upserts of what was removed or forgotten since.
	lost(ctx context.Context, at shard.Position, events []*tandemv1.LiveEvent) ([]*tandemv1.LiveEvent, error)
	// store returns the store that is written to, nil if only a server knows it.
	store() *snapshots.Store
}

// open returns what writes where the flags say.
func (f *liveWriteFlags) open(e *environment) (liveWriter, error) {
	if f.Store == "" {
		url, err := f.url(f.Server[0])
		if err != nil {
			return nil, err
		}
		client, err := f.client(0)
		if err != nil {
			return nil, err
		}
		return &serverWriter{tandemv1connect.NewLiveServiceClient(client, url, fleet.Bounded()), f.author(), f.Timeout}, nil
	}
	return openStoreWriter(e, f)
}

// serverWriter has a server write.
type serverWriter struct {
	client tandemv1connect.LiveServiceClient
	author string
	within time.Duration // of each write
}

func (w *serverWriter) vet(_ context.Context, m *tandemv1.LiveEvent) (live.Event, error) {
	e, err := wire.Event(m)
	if err != nil {
		return e, err
	}
	if e.Kind != live.Upsert {
		return e, e.Check()
	}
	const released = "released" // the server knows it
	e.Model = cmp.Or(e.Model, released)
	err = e.Check()
	e.Model = released // whether it is the one that another event names is not known
	return e, err
}

func (w *serverWriter) write(ctx context.Context, events []*tandemv1.LiveEvent) (written, error) {
	writing, cancel := context.WithTimeout(ctx, w.within) // the server is told of it
	defer cancel()
	answer, err := w.client.Write(writing, connect.NewRequest(&tandemv1.WriteRequest{Events: events, Author: w.author}))
	if err != nil && writing.Err() != nil && ctx.Err() == nil && unconfirmedWrite(err) {
		err = connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("the server has not answered within %s: whether it has written what it was sent is not known", w.within))
	}
	if r := refusalOf(err); r != nil {
		return partlyWritten(r.err, len(events)), r
	}
	if err != nil {
		return written{}, err
	}
	return written{position: wire.Position(answer.Msg.Position), repeated: int(answer.Msg.RepeatedEvents)}, nil
}

// partlyWritten returns what a server has written of so many events that it refuses for want
// of room: nothing if it does not say so.
func partlyWritten(err *connect.Error, events int) written {
	said := errorInfo(err).GetMetadata()
	n, convErr := strconv.Atoi(said["events_written"])
	at, parseErr := shard.ParsePosition(said["position"])
	if convErr != nil || parseErr != nil || n < 1 || n >= events {
		return written{}
	}
	return written{position: at, missing: events - n}
}

// fullWrite reports whether an error says that there was no room for what was upserted or set.
func fullWrite(err error) bool {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded.Code() == connect.CodeResourceExhausted && errorInfo(coded).GetReason() == "FRESH_FULL"
	}
	return errors.Is(err, live.ErrFull)
}

// errorInfo returns what a server says of the reason of an error; nil if it says nothing.
func errorInfo(err *connect.Error) *errdetails.ErrorInfo {
	for _, d := range err.Details() {
		if m, valueErr := d.Value(); valueErr == nil {
			if info, ok := m.(*errdetails.ErrorInfo); ok {
				return info
			}
		}
	}
	return nil
}

func (w *serverWriter) store() *snapshots.Store { return nil }

// Close implements [io.Closer].
func (w *serverWriter) Close() error { return nil }

// unconfirmedWrite reports whether an error leaves open whether events were written.
func unconfirmedWrite(err error) bool {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return errors.Is(err, live.ErrUnconfirmed)
	}
	switch coded.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown, connect.CodeInternal:
	default:
		return false
	}
	// One that has none is not the server's: its answer was lost, or it never had the request.
	return slices.Contains([]string{"", "LIVE_UNCONFIRMED", "DEADLINE_EXCEEDED", "INTERNAL"}, errorInfo(coded).GetReason())
}

// storeWriter writes to the log of a store itself.
type storeWriter struct {
	log  *storeLog
	stop context.CancelFunc
	ran  sync.WaitGroup
}

// openStoreWriter begins to follow the live log of a store, to append to it.
func openStoreWriter(e *environment, f *liveWriteFlags) (_ *storeWriter, err error) {
	log, err := openStoreLog(e, f, f.author())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(e.ctx)
	w := &storeWriter{log: log, stop: stop}
	w.ran.Go(func() { _ = log.replica.Run(ctx) }) // it ends with ctx; what an append meets, that says
	return w, nil
}

func (w *storeWriter) vet(ctx context.Context, m *tandemv1.LiveEvent) (live.Event, error) {
	e, err := w.log.served.event(ctx, m)
	if err != nil {
		return e, err
	}
	return e, pathed(m, w.log.served.check(&e))
}

func (w *storeWriter) write(ctx context.Context, events []*tandemv1.LiveEvent) (written, error) {
	list := make([]live.Event, len(events))
	for i, m := range events {
		var err error
		if list[i], err = w.log.served.event(ctx, m); err != nil {
			return written{}, numbered(err, i, len(events))
		}
	}
	gone := w.forgotten(upsertedUsers(list))
	receipt, err := w.log.replica.Append(ctx, list)
	if wrong, ok := errors.AsType[*live.EventError](err); ok && wrong.Index < len(events) {
		err = numbered(pathed(events[wrong.Index], err), wrong.Index, len(events))
	}
	if conflict, ok := errors.AsType[*live.EventConflictError](err); ok {
		err = numbered(err, conflict.Index, len(events))
	}
	done := written{position: receipt.Position, repeated: receipt.Repeated}
	if partial, ok := errors.AsType[*live.PartialError](err); ok {
		done = written{position: partial.Receipt.Position, repeated: partial.Receipt.Repeated, missing: len(partial.Missing)}
	}
	done.back = len(gone) - len(w.forgotten(gone))
	return done, err
}

func (w *storeWriter) store() *snapshots.Store { return w.log.store }

// numbered says of which of several events an error is.
func numbered(err error, i, all int) error {
	if all == 1 {
		return err
	}
	return fmt.Errorf("events[%d]: %w", i, err)
}

// Close implements [io.Closer].
func (w *storeWriter) Close() error {
	w.stop()
	w.ran.Wait()
	return w.log.Close()
}
