package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/shard/outcomes"
)

// Outcomes says whether a server takes outcomes, and how it writes them.
type Outcomes struct {
	// Take has FeedbackService take outcomes, into the store. Where there is no guard they are not
	// authenticated: it is for listeners that only those reach who may send them.
	Take bool
	// Interval is how long they are gathered until they are written together, from
	// LeastOutcomeInterval to LongestOutcomeInterval: calls wait for it. Default:
	// DefaultOutcomeInterval.
	Interval time.Duration
}

// startOutcomes starts to take outcomes, if the server is to. End is to be called once the
// requests have ended.
func (s *Service) startOutcomes(c *Config) (end func()) {
	if !c.Outcomes.Take {
		return func() {}
	}
	o := defaultOutcomeOptions()
	if c.Outcomes.Interval > 0 {
		o.interval = c.Outcomes.Interval
	}
	if s.live != nil {
		o.forgotten = s.live.Forgotten
	}
	o.hash = c.HashUsers
	s.outcomes = startOutcomeLog(c.Store.Objects(), s.events, o)
	return s.outcomes.close
}

// What a processor takes for an outcome, from the message to the object, and about the memory
// beside its texts, twice: the message, and what is made of it.
const (
	outcomeTime = 8 * time.Microsecond
	outcomeHeap = 512
)

// LogOutcomes implements [tandemv1connect.FeedbackServiceHandler].
func (s *Service) LogOutcomes(ctx context.Context, r *connect.Request[tandemv1.LogOutcomesRequest]) (*connect.Response[tandemv1.LogOutcomesResponse], error) {
	if err := s.takesOutcomes(ctx); err != nil {
		return nil, err
	}
	c := callFrom(ctx)
	n := len(r.Msg.Outcomes)
	if c != nil {
		k := cost{work: time.Duration(n) * outcomeTime, answer: answerOverhead, memory: 2 * n * outcomeHeap}
		if err := c.admit(ctx, k); err != nil {
			return nil, err
		}
	}
	list, err := s.outcomesOf(ctx, r.Msg)
	if err != nil {
		return nil, err
	}
	if c != nil {
		c.worked() // the rest is waiting
	}
	limit := DefaultMaxDeadline
	if c != nil {
		limit = c.limits.maxDeadline
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	keeping, stop := beforeDeadline(bounded)
	defer stop()
	span := spanFrom(ctx).Begin("append")
	forgotten, err := s.outcomes.keep(keeping, list)
	span.End()
	if err != nil {
		return nil, s.outcomesError(ctx, err)
	}
	return connect.NewResponse(&tandemv1.LogOutcomesResponse{Accepted: uint32(n - forgotten), Forgotten: uint32(forgotten)}), nil
}

// takesOutcomes returns an error unless the server takes the outcomes of a request.
func (s *Service) takesOutcomes(ctx context.Context) error {
	if err := meant(ctx); err != nil {
		return err
	}
	switch {
	case s.outcomes == nil:
		return errorf(connect.CodePermissionDenied, reasonOutcomes, "the server takes no outcomes, as it was not told to; accepted: by one that was")
	case s.live != nil && !s.live.IsRead():
		return errUnread() // who is forgotten is not known
	case s.health.current() == phaseDraining:
		return errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	}
	if s.live != nil {
		if state, err := s.live.State(); livelog.Broken(state) {
			return errLogBroken(err)
		}
	}
	return nil
}

// outcomesError gives the error of outcomes that are not known to be kept its code.
func (s *Service) outcomesError(ctx context.Context, err error) error {
	full, isFull := errors.AsType[*outcomesFullError](err)
	unconfirmed, sent := errors.AsType[*unconfirmedError](err)
	switch {
	case isFull:
		return overloaded(events.ShedOutcomes, "%w", full)
	case errors.As(err, new(endedError)):
		return errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	case sent && ctx.Err() == nil:
		text := shortened(unconfirmed.Error(), maxDescription)
		if errors.Is(err, context.DeadlineExceeded) {
			text = "the store did not answer in time"
		}
		unsent := errorf(connect.CodeUnavailable, reasonOutcomesUnconfirmed, "whether the outcomes are kept is not known: send them again under the same ids; %s", text)
		retryLater(unsent)
		return unsent
	}
	return err
}

// outcomesOf returns the outcomes of a message. An error names the outcome and the field that is
// wrong.
func (s *Service) outcomesOf(ctx context.Context, r *tandemv1.LogOutcomesRequest) ([]outcomes.Outcome, error) {
	received := time.Now().UTC().Truncate(time.Microsecond)
	caller := ""
	if x := exchangeFrom(ctx); x != nil {
		caller = cut(x.callerName(), outcomes.MaxCaller)
	}
	out := make([]outcomes.Outcome, len(r.Outcomes))
	for i, in := range r.Outcomes {
		out[i] = keptOutcome(in, received)
		out[i].Caller = caller
		if field, err := checkOutcome(in, &out[i]); err != nil {
			place := fmt.Sprintf("outcomes[%d]", i)
			if field != "" {
				place += "." + field
			}
			return nil, invalidf(reasonOutcome, place, "%s: %w", place, err)
		}
	}
	return out, nil
}

// keptOutcome returns an outcome that was received at a time, as it is kept.
func keptOutcome(in *tandemv1.Outcome, received time.Time) outcomes.Outcome {
	o := outcomes.Outcome{
		ID: in.GetId(), RequestID: in.GetRequestId(), UserID: in.GetUserId(), AppID: in.GetAppId(), Kind: in.GetKind(),
		Time: received, Received: received, Value: in.GetValue(), HasValue: in != nil && in.Value != nil,
	}
	if in.GetTime() != nil {
		o.Time = in.Time.AsTime().Truncate(time.Microsecond)
	}
	return o
}

// CheckOutcome returns what is wrong with an outcome that is sent at a time, as a server would.
func CheckOutcome(in *tandemv1.Outcome, at time.Time) error {
	o := keptOutcome(in, at)
	field, err := checkOutcome(in, &o)
	if err == nil || field == "" {
		return err
	}
	return fmt.Errorf("%s: %w", field, err)
}

// checkOutcome returns what is wrong with an outcome, and with which field of it; of the whole of
// it, with none.
func checkOutcome(in *tandemv1.Outcome, o *outcomes.Outcome) (field string, err error) {
	for _, text := range []struct {
		field, value string
		least, most  int
	}{
		{"id", o.ID, 1, outcomes.MaxID}, {"request_id", o.RequestID, 0, outcomes.MaxRequestID},
		{"user_id", o.UserID, 0, outcomes.MaxUserID}, {"app_id", o.AppID, 1, outcomes.MaxAppID},
	} {
		switch n := len(text.value); {
		case n < text.least || n > text.most:
			return text.field, fmt.Errorf("it has %d bytes; accepted: %d to %d", n, text.least, text.most)
		case !utf8.ValidString(text.value):
			return text.field, fmt.Errorf("it is %.80q; accepted: UTF-8", text.value)
		}
	}
	if o.RequestID == "" && o.UserID == "" {
		return "", errors.New("neither request_id nor user_id is set; accepted: at least one of them")
	}
	if err := outcomes.CheckKind(o.Kind); err != nil {
		return "kind", err
	}
	if math.IsNaN(o.Value) || math.IsInf(o.Value, 0) {
		return "value", fmt.Errorf("it is %v; accepted: a finite number", o.Value)
	}
	if in.GetTime() == nil {
		return "", nil
	}
	if err := in.Time.CheckValid(); err != nil {
		return "time", err
	}
	if o.Time.Before(time.Unix(0, 0)) || o.Time.After(o.Received.Add(outcomes.MaxAhead)) {
		return "time", fmt.Errorf("it is %s, and %s when it arrived; accepted: from 1970 to a day after that", o.Time.Format(time.RFC3339), o.Received.Format(time.RFC3339))
	}
	return "", nil
}
