package server

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index/parallel"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
)

// batchItem is one request of a batch.
type batchItem struct {
	request *tandemv1.RetrieveRequest
	name    string // its id, also where it has one that the rules reject
	start   time.Time
	now     *pinned // nil if the request is refused
	answer  *tandemv1.RetrieveResponse
	told    *events.Answer // of answer
	err     error
	failure *tandemv1.ItemError // err on the wire
	span    traces.Span         // of its answer
}

// shortBatch is how many queries a batch has that waits for no turn to be looked at.
const shortBatch = 8

// BatchRetrieve implements [tandemv1connect.RetrievalServiceHandler]. It answers
// on at most one goroutine for each processor. Where the deadline comes before all are
// answered, the others fail with it.
func (s *Service) BatchRetrieve(ctx context.Context, r *connect.Request[tandemv1.BatchRetrieveRequest]) (*connect.Response[tandemv1.BatchRetrieveResponse], error) {
	items := make([]batchItem, len(r.Msg.Requests))
	defer func() {
		for i := range items {
			if items[i].now != nil {
				items[i].now.release()
			}
		}
	}()
	arrived, b := s.clock(), boundsFrom(ctx)
	behind := s.reachEach(ctx, r.Msg.Requests)
	if c := callFrom(ctx); c != nil && len(items) > shortBatch {
		// To find what is wrong with a query may take longer than to answer one.
		if err := c.takeTurn(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.admitBatch(ctx, r.Msg.Requests, items, arrived, behind, b); err != nil {
		return nil, err
	}
	answering, cancel := beforeDeadline(ctx)
	defer cancel()
	parallel.Chunks(b.processors, len(items), 1, func(_, i int) {
		if item := &items[i]; item.now != nil {
			item.answer, item.told, item.err = s.answerSafely(answering, item, b)
		}
	})
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return nil, err // nobody is there to take what there is
	}
	answer := s.batchResponse(ctx, items, b.answer)
	for i := range items {
		if items[i].now != nil && items[i].failure == nil {
			if err := s.guard(ctx, items[i].now); err != nil {
				return nil, err
			}
		}
	}
	s.answeredAll(ctx, items)
	return connect.NewResponse(answer), nil
}

// batchReserve is how long before its deadline a batch ends at most, or a tenth of the time
// that is left if that is less, for its answers to come in time.
const batchReserve = 50 * time.Millisecond

// beforeDeadline returns a context that ends a little before ctx.
func beforeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, batchReserve)))
}

// admitBatch names the requests of a batch, finds what will answer each, and takes what
// all will cost. Those that break a rule fail, and those whose answers would not fit
// beside the ones before.
// behind has the errors of those that demand a position which was not reached, by place.
func (s *Service) admitBatch(ctx context.Context, requests []*tandemv1.RetrieveRequest, items []batchItem, arrived time.Time, behind map[int]error, b bounds) error {
	batch := idFrom(ctx)
	var total cost
	start := startFrom(ctx)
	for i, r := range requests {
		items[i] = batchItem{request: r, name: nameRequest(r, func() string { return itemID(batch, i) }), start: start}
	}
	failed := namesBytes(items)
	for i := range items {
		item := &items[i]
		if i%shortBatch == shortBatch-1 {
			if err := giveWay(ctx); err != nil {
				return err
			}
		}
		if item.err = s.prepare(item, &total, arrived, behind[i], b); item.err == nil {
			continue
		}
		if item.now != nil {
			item.now.release()
			item.now = nil
		}
		failed += s.fail(ctx, item, failed)
	}
	if c := callFrom(ctx); c != nil {
		return c.admit(ctx, total)
	}
	return nil
}

// prepare finds what will answer a request of a batch, and adds what it will cost to the
// total. A panic becomes an error, as it does for a single request.
func (s *Service) prepare(item *batchItem, total *cost, arrived time.Time, behind error, b bounds) (err error) {
	defer recovering(&err)()
	if err := validate(item.request); err != nil {
		return err
	}
	if behind != nil {
		return behind
	}
	item.now, err = s.acquireFor(item.request, arrived)
	if err != nil {
		return err
	}
	if err := s.begin(item.now); err != nil || b.answer == 0 {
		return err
	}
	k := item.now.estimate(item.request, b.processors)
	if total.answer+k.answer > b.answer {
		return estimatedTooLong(item.request, k.answer, total.answer, b.answer)
	}
	total.add(k)
	return nil
}

// recovering makes a panic, and a fault in a mapped file, the error of a function that
// defers what it returns.
func recovering(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = panicError(p)
		}
	}
}

// batchResponse puts answers on the wire. Answers that turn out to be longer than they
// were estimated to be are left out from where they do not fit.
func (s *Service) batchResponse(ctx context.Context, items []batchItem, most int) *tandemv1.BatchRetrieveResponse {
	results := make([]*tandemv1.BatchRetrieveResult, len(items))
	total, failed := 0, namesBytes(items)
	for i := range items {
		if item := &items[i]; item.failure != nil {
			failed += item.failedBytes()
		}
	}
	for i := range items {
		item := &items[i]
		if item.err == nil && most > 0 {
			if size := listedSize(proto.Size(item.answer)); total+size > most {
				item.err = answerTooLong(item.request, item.answer, size, total, most)
			} else {
				total += size
			}
		}
		if item.err != nil && item.failure == nil {
			failed += s.fail(ctx, item, failed)
		}
		if item.failure != nil {
			results[i] = &tandemv1.BatchRetrieveResult{Outcome: &tandemv1.BatchRetrieveResult_Error{Error: item.failure}}
			continue
		}
		results[i] = &tandemv1.BatchRetrieveResult{Outcome: &tandemv1.BatchRetrieveResult_Response{Response: item.answer}}
	}
	return &tandemv1.BatchRetrieveResponse{Results: results}
}

// What the errors of a batch may take, with the names of all its requests, before they are
// shortened; and what is left of the text of one that is. With 256 short ones that is less
// than the room that the default longest answer leaves.
const (
	failedBytes     = 39 << 10
	shortFailedText = 64
)

// namesBytes returns what the names of all items take in their errors.
func namesBytes(items []batchItem) int {
	n := 0
	for i := range items {
		n += listedSize(len(items[i].name))
	}
	return n
}

// failedBytes returns what the error of an item takes beside its name.
func (item *batchItem) failedBytes() int {
	return listedSize(proto.Size(item.failure)) - listedSize(len(item.name))
}

// fail puts the error of an item on the wire, where the names of all and the errors before
// it take failed bytes. It returns how many more it takes.
func (s *Service) fail(ctx context.Context, item *batchItem, failed int) (size int) {
	coded := s.itemFailed(ctx, tandemv1connect.RetrievalServiceBatchRetrieveProcedure, item.name, item.start, item.err)
	traceFailure(item.span, coded)
	item.failure = itemError(coded, item.name)
	if failed+item.failedBytes() > failedBytes {
		item.failure = &tandemv1.ItemError{
			Code: item.failure.Code, Message: shortened(item.failure.Message, shortFailedText), RequestId: item.name,
		}
	}
	return item.failedBytes()
}

// itemError is the error of one request of a batch, as Retrieve would give it.
func itemError(coded *connect.Error, name string) *tandemv1.ItemError {
	out := &tandemv1.ItemError{Code: coded.Code().String(), Message: coded.Message(), RequestId: name}
	for _, d := range coded.Details() {
		detail, err := d.Value()
		if err != nil {
			continue // it is of a type of our own making
		}
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			out.Info = detail
		case *errdetails.BadRequest:
			out.BadRequest = detail
		case *errdetails.RetryInfo:
			out.Retry = detail
		case *errdetails.ResourceInfo:
			out.Resource = detail
		}
	}
	return out
}

// answerSafely answers one request of a batch. A panic becomes an error, as it does for a
// single one.
func (s *Service) answerSafely(ctx context.Context, item *batchItem, b bounds) (answer *tandemv1.RetrieveResponse, told *events.Answer, err error) {
	defer recovering(&err)()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	item.span = spanFrom(ctx).Begin("query")
	if item.span.On() {
		item.span.Set(attribute.String("tandem.request.id", item.name))
	}
	defer item.span.End()
	return s.answer(ctx, item.now, item.request, b, item.span)
}
