package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxTries is how often servers are asked for one call at most, beside a hedge and its own.
const maxTries = 4

// firstBackoff is how long a server is left before the same call asks it again, if it has not said;
// twice as long each time.
const firstBackoff = 5 * time.Millisecond

type requestIDKey struct{}

// WithRequestID returns a context whose calls have a name in the logs of servers: 1 to 128 bytes of
// printable UTF-8. A request_id of the request comes first. Without either the trace of the context
// names the call, if it has one, or else the server.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// call is one call, by one or several tries.
type call struct {
	client    *Client
	procedure int
	start     time.Time
	allowed   time.Duration // how long it may take
	send      func(context.Context, *try) (any, error)
	lanes     [2]lane                  // the second is the hedge
	won       int                      // which of them has the answer
	first     atomic.Pointer[endpoint] // that the first lane has begun with
}

// lane is a series of tries, one after the other.
type lane struct {
	before []asked
	store  [maxTries]asked
	tries  int
	server string
}

// try asks one server once.
type try struct {
	*endpoint
	call   *call
	ctx    context.Context // as the caller has it, for what is propagated
	number int
	start  time.Time
}

// do makes a call.
func (c *Client) do(ctx context.Context, procedure int, send func(context.Context, *try) (any, error)) (any, error) {
	k := &call{client: c, procedure: procedure, start: time.Now(), send: send}
	answer, err := k.run(ctx)
	if observe := c.options.observe; observe != nil {
		a, b := k.lanes[0].tries, k.lanes[1].tries
		told := Call{Procedure: procedures[procedure], Took: time.Since(k.start), Tries: a + b, Err: err,
			Retries: max(a-1, 0) + max(b-1, 0), Hedges: min(b, 1), Server: k.lanes[k.won].server}
		if err != nil {
			told.Server = err.Server
		}
		observe(told)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (k *call) run(ctx context.Context) (any, *Error) {
	c := k.client
	if !c.enter() {
		return nil, &Error{Code: connect.CodeCanceled, Reason: Closed, Message: "the client is closed"}
	}
	defer c.group.Done()
	var cancel context.CancelFunc
	if end, ok := ctx.Deadline(); ok {
		k.allowed = max(end.Sub(k.start), 0)
		ctx, cancel = context.WithCancel(ctx)
	} else {
		k.allowed = c.options.deadline
		ctx, cancel = context.WithTimeout(ctx, k.allowed)
	}
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := k.known(ctx); err != nil {
		return nil, err
	}
	c.retries.earn()
	answer, err := k.ask(ctx)
	if err != nil && c.ctx.Err() != nil && err.Reason == CallerGone {
		err.Reason, err.Message = Closed, "the client was closed before there was an answer"
	}
	return answer, err
}

// known waits until the source was asked once.
func (k *call) known(ctx context.Context) *Error {
	p := k.client.pool
	select {
	case <-p.first:
	default:
		select {
		case <-p.first:
		case <-ctx.Done():
			e := errorOf(ctx, ctx.Err(), "")
			e.Message += ": where servers are was not known yet"
			return e
		}
	}
	if len(p.list()) > 0 {
		return nil
	}
	e := &Error{Code: connect.CodeUnavailable, Reason: Unreachable, Message: "no server is known"}
	if failed := p.failed.Load(); failed != nil {
		e.err = *failed
		e.Message = shortened("no server is known: " + e.err.Error())
	}
	return e
}

// ask asks servers until one has answered: by one lane, or two if the first takes long.
func (k *call) ask(ctx context.Context) (any, *Error) {
	c := k.client
	if !c.options.hedgesOn || len(c.pool.list()) < 2 {
		return k.lane(ctx, 0)
	}
	c.hedges.earn()
	type outcome struct {
		answer any
		err    *Error
		lane   int
	}
	both, cancel := context.WithCancel(ctx)
	ended := make(chan outcome, 2)
	running := 1
	// Both lanes read the caller's request: none may go on when this returns.
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-ended
		}
	}()
	run := func(n int) {
		answer, err := k.lane(both, n)
		ended <- outcome{answer, err, n}
	}
	go run(0)
	timer := time.NewTimer(c.speed[k.procedure].Hedge())
	defer timer.Stop()
	var first *Error
	for {
		select {
		case <-timer.C:
			if c.hedges.spend() {
				running++
				go run(1)
			}
		case o := <-ended:
			running--
			switch {
			case o.err == nil:
				k.won = o.lane
				return o.answer, nil
			case first == nil:
				first = o.err
			}
			if running == 0 || !elsewhere[o.err.Reason] {
				return nil, first
			}
		}
	}
}

// lane asks one server after the other until one has answered. The hedge begins with one that the
// first lane has not begun with.
func (k *call) lane(ctx context.Context, n int) (any, *Error) {
	c, l := k.client, &k.lanes[n]
	l.before = l.store[:0]
	var skip []asked
	if n == 1 {
		skip = []asked{{endpoint: k.first.Load()}}
	}
	var last *Error
	for {
		if ctx.Err() != nil {
			return nil, errorOf(ctx, ctx.Err(), "")
		}
		e, wait := c.pool.pick(append(skip, l.before...))
		if n == 1 && len(l.before) == 0 && e == skip[0].endpoint { // there is no other any more
			return nil, &Error{Code: connect.CodeUnavailable, Reason: Unreachable, Message: "there is no server for a hedge"}
		}
		skip = nil
		if e == nil {
			return nil, errorOf(ctx, errors.New("no server is known"), "")
		}
		if last != nil {
			if end, ok := ctx.Deadline(); ok && wait > 0 && time.Until(end) <= wait || !c.retries.spend() {
				return nil, last
			}
			if wait > 0 && !sleep(ctx, wait) {
				return nil, last
			}
		}
		answer, err := k.one(ctx, e, l)
		if err == nil {
			return answer, nil
		}
		if last = err; !k.again(ctx, l, e, err) {
			return nil, last
		}
	}
}

// again reports whether a lane goes on after an error of a server, and notes when that may be asked
// again.
func (k *call) again(ctx context.Context, l *lane, e *endpoint, err *Error) bool {
	if ctx.Err() != nil || l.tries >= maxTries {
		return false
	}
	wait := firstBackoff << (l.tries - 1)
	wait = wait/2 + rand.N(wait)
	if err.RetryAfter > 0 { // all who were refused come back at different times
		wait = err.RetryAfter + rand.N(err.RetryAfter/10+1)
	}
	switch {
	case err.Reason == TokenInvalid || err.Reason == TokenExpired:
		if !k.client.token.lookBy(ctx) {
			return false
		}
		wait = 0
	case err.Reason == Unexplained:
		if err.Code != connect.CodeUnavailable && err.Code != connect.CodeResourceExhausted {
			return false
		}
	case !elsewhere[err.Reason]:
		return false
	}
	until := time.Now().Add(wait)
	for i := range l.before {
		if l.before[i].endpoint == e {
			l.before[i].again = until
			return true
		}
	}
	l.before = append(l.before, asked{e, until})
	return true
}

// one asks one server once, and notes how that went.
func (k *call) one(ctx context.Context, e *endpoint, l *lane) (any, *Error) {
	k.first.CompareAndSwap(nil, e)
	l.tries++
	l.server = e.name
	t := &try{endpoint: e, call: k, ctx: ctx, number: l.tries, start: time.Now()}
	e.begin()
	answer, err := k.send(ctx, t)
	took := time.Since(t.start)
	if err == nil {
		e.end(took, answered)
		k.client.speed[k.procedure].Add(took)
		return answer, nil
	}
	of, ok := err.(*Error) //nolint:errorlint // made by fresh or malformed, and not wrapped
	if !ok {
		of = errorOf(ctx, err, e.name)
	}
	of.Tries = l.tries
	e.end(took, outcomeOf(of))
	return nil, of
}

// outcomeOf returns what an error says of its server.
func outcomeOf(err *Error) outcome {
	switch {
	case err.Reason == CallerGone:
		return dropped
	case err.Reason == DeadlineExceeded && !connect.IsWireError(err.err):
		return silent
	case err.Reason == Overloaded || err.Reason == QuotaExceeded || err.Reason == Unexplained && err.RetryAfter > 0:
		return refused
	case faults[err.Reason] || err.Reason == Unexplained && err.Code == connect.CodeUnavailable:
		return failed
	}
	return answered
}

// fresh returns an error for an answer that is too old. Its proof was made by a server before the
// answer's first byte was written, so at the latest when all of it has arrived, and at the earliest
// when the try began: that is what counts.
func (t *try) fresh(staleness *durationpb.Duration, id string) error {
	fence := t.call.client.options.fence
	if staleness == nil || fence == 0 { // the server follows no log, or nobody asks
		return nil
	}
	age := staleness.AsDuration() + time.Since(t.start)
	if age <= fence+t.call.allowed {
		return nil
	}
	return &Error{Code: connect.CodeUnavailable, Reason: AnswerStale, RequestID: id, Server: t.name, Tries: t.number,
		Message: fmt.Sprintf("the answer may lack takedowns of the last %s; accepted: up to %s, the fence of %s and the %s that the call had",
			age.Round(time.Millisecond), fence+t.call.allowed, fence, t.call.allowed.Round(time.Millisecond))}
}

// malformed is the error of an answer that is none.
func (t *try) malformed(format string, args ...any) error {
	return &Error{Code: connect.CodeUnavailable, Reason: AnswerMalformed, Message: fmt.Sprintf(format, args...), Server: t.name}
}

// header sets what a request says beside its message.
func (t *try) header(h http.Header) {
	o := &t.call.client.options
	if token := t.call.client.token.now.Load(); token != nil {
		h.Set("Authorization", "Bearer "+*token)
	}
	if o.priority != "" {
		h.Set("Tandem-Priority", o.priority)
	}
	if id, ok := t.ctx.Value(requestIDKey{}).(string); ok {
		h.Set("X-Request-Id", id)
	}
	propagation.TraceContext{}.Inject(t.ctx, propagation.HeaderCarrier(h))
}

// isNetwork reports whether an error is of the connection.
func isNetwork(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*net.OpError)) || errors.As(err, new(*url.Error)) || errors.As(err, new(*net.DNSError))
}

// sleep waits, and reports whether the context has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
