package server

import (
	"context"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/shard"
)

// Stages of a request begin and end where they do their work; here is what their spans say. That
// is of bounded size, and nothing that a caller has sent but names: of the request, of a segment
// that there is, of the path.

// continued has requests traced whose callers do, once it is known that they may ask.
func continued(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x := exchangeFrom(r.Context()); x.trace == nil && isTraced(r) {
			x.trace = x.service.traces.Continue(r.Header, x.start)
		}
		next.ServeHTTP(w, r)
	})
}

// isTraced reports whether a request may be traced: any but probes.
func isTraced(r *http.Request) bool { return isRPC(r) && auth.Needed(r.URL.Path) != 0 }

// reflections are the methods that are not of the contract.
var reflections = map[string]bool{
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      true,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": true,
}

// span returns the span of the request.
func (x *exchange) span() traces.Span {
	if x == nil || x.trace == nil {
		return traces.Span{}
	}
	return x.trace.Span()
}

// span returns the span of the request.
func (c *call) span() traces.Span {
	if c == nil {
		return traces.Span{}
	}
	return c.exchange.span()
}

// traceID returns the id of the trace that the request belongs to, whether or not that is told;
// empty for none.
func (x *exchange) traceID() string {
	if x.trace != nil {
		return x.trace.ID()
	}
	parent, _ := traces.ParentOf(x.request.Header)
	return parent.ID
}

// endTrace ends the trace of a request, whose spans are made now.
func (x *exchange) endTrace(path string) {
	if x.trace == nil {
		return
	}
	system, protocol := semconv.RPCSystemNameConnectrpc, "connect"
	if x.request != nil { // else it was taken back at once
		protocol = protocolOf(x.request)
		x.span().Set(attribute.String("network.protocol.version", strconv.Itoa(x.request.ProtoMajor)), attribute.Int64("tandem.request.bytes", x.size()))
		if caller := x.callerName(); caller != "" {
			x.span().Set(attribute.String("tandem.caller", caller))
		}
	}
	if protocol != "connect" {
		system = semconv.RPCSystemNameGRPC
	}
	name := "_OTHER" // as the conventions have it
	if _, ok := auth.Procedures[path]; ok || reflections[path] {
		name = path[1:]
	} else {
		x.span().Set(semconv.RPCMethodOriginal(excerpt(path)))
	}
	x.span().Set(system, semconv.RPCMethod(name), attribute.String("tandem.protocol", protocol), attribute.String("tandem.request.id", x.id))
	x.traceCode(system)
	x.trace.End(name)
}

// traceCode has the span of a request say the code that it ended with. Of a server's span only
// what may be its own fault is an error, as the conventions have it.
func (x *exchange) traceCode(system attribute.KeyValue) {
	text := "OK"
	switch {
	case system == semconv.RPCSystemNameGRPC && x.code != 0:
		text = rpccode.Code(x.code).String() // INVALID_ARGUMENT
	case system != semconv.RPCSystemNameGRPC && x.code == 0:
		return // Connect has no code for what did not fail
	case x.code != 0:
		text = x.code.String()
	}
	x.span().Set(semconv.RPCResponseStatusCode(text))
	switch x.code {
	case connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeUnimplemented, connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
		x.span().Set(semconv.ErrorTypeKey.String(text))
		x.span().Fail("")
	}
}

// traceFailure has a span say why what it is of failed.
func traceFailure(span traces.Span, err *connect.Error) {
	if err == nil || !span.On() {
		return
	}
	for _, d := range err.Details() {
		if m, valueErr := d.Value(); valueErr == nil {
			if info, ok := m.(*errdetails.ErrorInfo); ok {
				span.Set(attribute.String("tandem.reason", info.Reason))
			}
		}
	}
	if span.IDs() {
		span.Set(attribute.String("tandem.error", shortened(err.Message(), maxDescription)))
	}
}

// traceArm has the span of a query say what answers it.
func traceArm(span traces.Span, now *pinned) {
	if span.On() {
		span.Set(attribute.String("tandem.arm", now.name), attribute.Int64("tandem.generation", int64(now.generation)),
			attribute.String("tandem.snapshot", now.snapshot.Digest().Short()), attribute.String("tandem.position", now.at.Position.String()))
	}
}

// traceAnswer has the span of a query say what it was answered with.
func traceAnswer(span traces.Span, told *events.Answer) {
	if !span.On() {
		return
	}
	span.Set(attribute.String("tandem.plan", events.PlanName(told.Plan)), attribute.Int("tandem.k", told.K), attribute.Int("tandem.candidates", told.Candidates),
		attribute.Int("tandem.eligible", told.Eligible), attribute.Int("tandem.distances", told.Distances), attribute.Float64("tandem.coverage", told.Coverage))
	if told.Segment != "" {
		span.Set(attribute.String("tandem.segment", told.Segment))
	}
	if told.Interleaving != events.NotToBe {
		span.Set(attribute.String("tandem.interleaving", told.Interleaving.String()))
	}
	if told.Explored {
		span.Set(attribute.Bool("tandem.explored", true))
	}
	if told.Candidates < told.K {
		span.Set(attribute.String("tandem.short_reason", told.Short.String()))
	}
}

// traceSearch has each step of a search become a span within that of the search.
func traceSearch(q *query, span traces.Span) {
	if !span.On() {
		return
	}
	q.Observe = func(step shard.Step) {
		within, end := span.BeginAt(stepNames[step.Kind], step.Begin), step.Begin.Add(step.Took)
		switch step.Kind {
		case shard.Asked:
			traceShard(within, step.Shard)
		case shard.Merged:
			within.Set(attribute.Int("tandem.limits", len(q.AtMost)))
		}
		within.EndAt(end)
	}
}

var stepNames = map[shard.StepKind]string{
	shard.Asked: "shard", shard.Merged: "merge", shard.Attributed: "attributes", shard.Justified: "explain",
}

// traceShard has a span say how a shard took part so far.
func traceShard(span traces.Span, s *shard.ShardAnswer) {
	span.Set(attribute.String("tandem.shard", s.Shard), attribute.Int("tandem.rows", s.Rows))
	if s.Err != nil {
		span.Fail("")
		return
	}
	span.Set(attribute.String("tandem.plan", events.PlanName(shardPlan(s))), attribute.Int("tandem.eligible", s.Eligible), attribute.Int("tandem.asked", s.Asked),
		attribute.Int("tandem.ef", s.Ef), attribute.Int("tandem.distances", s.Scored), attribute.Int("tandem.expanded", s.Expanded),
		attribute.Float64("tandem.filter_seconds", s.Filter.Seconds()), attribute.Float64("tandem.search_seconds", s.Search.Seconds()))
}

// spanFrom returns the span of the request that ctx belongs to.
func spanFrom(ctx context.Context) traces.Span { return exchangeFrom(ctx).span() }
