package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/live"
)

// liveEvents returns the events of a message as the log has them. An error names the event
// and the field that is wrong, whether in itself or for a snapshot that answers.
func (s *Service) liveEvents(ctx context.Context, r *tandemv1.WriteRequest, peer string) ([]live.Event, error) {
	author := cmp.Or(r.Author, peer)
	if x := exchangeFrom(ctx); x != nil && x.callerName() != "" {
		author = cut(authorOf(ctx, r.Author, peer), live.MaxAuthor) // what it says is no proof
	}
	out := make([]live.Event, len(r.Events))
	for i, in := range r.Events {
		e, err := wire.Event(in)
		if err == nil && e.Kind == live.Upsert && e.Model == "" {
			if e.Model, err = s.servedModel(eventPlace(i) + ".upsert.model"); err != nil {
				return nil, err
			}
		}
		e.Author = author
		if err == nil {
			err = e.Check()
		}
		if err == nil {
			err = s.fits(&e)
		}
		if err != nil {
			return nil, eventError(in, i, err)
		}
		out[i] = e
	}
	return out, nil
}

// eventPlace is the path of an event of a message.
func eventPlace(i int) string { return fmt.Sprintf("events[%d]", i) }

// eventError is the error of one event of a message.
func eventError(in *tandemv1.LiveEvent, i int, err error) error {
	place := eventPlace(i)
	wrong, ok := errors.AsType[*live.EventError](err)
	if !ok {
		return invalidf(reasonEvent, place, "%s: %w", place, err)
	}
	switch wrong.Field {
	case "event": // the whole of it
	case "author": // of all events
		place = wrong.Field
	default:
		place += "." + wire.Path(in, wrong.Field)
	}
	return invalidf(reasonEvent, place, "%s: %w", place, wrong.Err)
}

// servedModel returns the model that answers, for a field that was left out.
func (s *Service) servedModel(field string) (string, error) {
	now := s.current.Load()
	if now == nil {
		return "", errorf(connect.CodeUnavailable, reasonNotReady, "no snapshot is loaded yet, and %s is left out", field)
	}
	model := now.arms[0].snapshot.Manifest().Model
	for i := range now.arms {
		if other := now.arms[i].snapshot.Manifest().Model; other != model {
			return "", invalidf(reasonEvent, field, "%s is left out, and several models answer: %q, %q; accepted: one of them", field, model, other)
		}
	}
	return model, nil
}
