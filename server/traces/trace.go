package traces

import (
	"context"
	"encoding/hex"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// MostSpans is how many spans a trace has at most, that of its request included. Those of a
// batch of many queries are more: the request's says how many were left out.
const MostSpans = 256

// Trace is what is known of a request that is traced. A nil Trace is that of one that is not.
// Its methods, and those of its spans, may be called from any number of goroutines.
type Trace struct {
	tracer *Tracer
	ctx    context.Context // has root
	root   trace.Span

	mu      sync.Mutex
	of      part   // the request itself
	parts   []part // the others; the parent of each is before it
	leftOut int
	ended   bool
}

// part is a span to be.
type part struct {
	name       string
	parent     int // its place, or ofRequest
	start, end time.Time
	attributes []attribute.KeyValue
	failed     bool
	failure    string
}

// ID returns the id of the trace, 32 hexadecimal digits.
func (t *Trace) ID() string { return t.root.SpanContext().TraceID().String() }

// Response returns what an answer says of its trace, in [ResponseHeader].
func (t *Trace) Response() string {
	of := t.root.SpanContext()
	id, span := of.TraceID(), of.SpanID()
	return "00-" + hex.EncodeToString(id[:]) + "-" + hex.EncodeToString(span[:]) + "-" + of.TraceFlags().String()
}

// Span returns the span of the request; of a nil Trace one that nothing is kept of.
func (t *Trace) Span() Span { return Span{t, ofRequest} }

// End makes spans of what is known, and hands them over to be sent. It has the name of the
// request, which ends now.
func (t *Trace) End(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	spans := 1 + len(t.parts)
	t.tracer.budget.end(spans)
	if !t.tracer.sender.room(spans) {
		return
	}
	now := time.Now()
	contexts := make([]context.Context, len(t.parts))
	for i := range t.parts {
		p, parent := &t.parts[i], t.ctx
		if p.parent >= 0 {
			parent = contexts[p.parent]
		}
		if p.end.IsZero() {
			p.end = now // it ends with the request
		}
		var s trace.Span
		contexts[i], s = t.tracer.spans.Start(parent, p.name, trace.WithTimestamp(p.start))
		p.finish(s)
	}
	if t.leftOut > 0 {
		t.of.attributes = append(t.of.attributes, attribute.Int("tandem.spans.left_out", t.leftOut))
	}
	t.root.SetName(name)
	t.of.end = now
	t.of.finish(t.root)
}

// finish ends a span with what is known of it.
func (p *part) finish(s trace.Span) {
	s.SetAttributes(p.attributes...)
	if p.failed {
		s.SetStatus(codes.Error, p.failure)
	}
	s.End(trace.WithTimestamp(p.end))
}

// Span is a stage of a request that is traced. The zero Span is of one that is not, and keeps
// nothing.
type Span struct {
	of *Trace
	at int // place
}

// The places of spans that are none of the parts.
const (
	ofRequest = -1
	nowhere   = -2 // it is left out, and so is what is within it
)

// On reports whether anything is kept of the span. Who makes attributes asks first.
func (s Span) On() bool { return s.of != nil }

// Begin returns a span within another one, which begins now.
func (s Span) Begin(name string) Span {
	if s.of == nil {
		return Span{}
	}
	return s.BeginAt(name, time.Now())
}

// BeginAt is Begin at a time.
func (s Span) BeginAt(name string, start time.Time) Span {
	if s.of == nil {
		return Span{}
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.at == nowhere || len(s.of.parts) >= MostSpans-1 {
		s.of.leftOut++
		return Span{s.of, nowhere}
	}
	s.of.parts = append(s.of.parts, part{name: name, parent: s.at, start: start})
	return Span{s.of, len(s.of.parts) - 1}
}

// End ends the span now, unless it has ended. One that does not end does with the request.
func (s Span) End() {
	if s.of != nil {
		s.EndAt(time.Now())
	}
}

// EndAt is End at a time.
func (s Span) EndAt(end time.Time) {
	s.change(func(p *part) {
		if p.end.IsZero() {
			p.end = end
		}
	})
}

// Set adds attributes.
func (s Span) Set(attributes ...attribute.KeyValue) {
	s.change(func(p *part) { p.attributes = append(p.attributes, attributes...) })
}

// Fail makes the span one that has failed.
func (s Span) Fail(text string) {
	s.change(func(p *part) { p.failed, p.failure = true, text })
}

// IDs reports whether the texts of errors are told that name what callers have sent.
func (s Span) IDs() bool { return s.of != nil && s.of.tracer.options.IDs }

func (s Span) change(f func(p *part)) {
	if s.of == nil {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	switch s.at {
	case ofRequest:
		f(&s.of.of)
	case nowhere:
	default:
		f(&s.of.parts[s.at])
	}
}
