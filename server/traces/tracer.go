package traces

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/tandem-ann/tandem/server/events"
)

// Options say which requests are traced, and where traces go.
type Options struct {
	// Endpoint is the URL that spans are posted to, such as
	// http://127.0.0.1:4318/v1/traces. Empty: as the variables of OpenTelemetry's SDK have it,
	// which also say how: headers, certificates, timeouts, compression, batches.
	Endpoint string
	// Share is the share of requests that are traced of those whose caller does not say, 0 to 1.
	Share float64
	// MaxSpans is how many spans a second are made at most, bursts aside. Default:
	// DefaultMaxSpans.
	MaxSpans int
	// Queue is how many spans may wait for the collector; the spans of a request that do not
	// fit are dropped. Default: DefaultQueue.
	Queue int
	// Version is that of the server, for the collector.
	Version string
	// IDs has spans tell the texts of errors, which name what callers have sent. Default: their
	// codes and reasons only.
	IDs bool
	// StopTimeout is how long what waits may take to be sent at the end. Default:
	// DefaultStopTimeout.
	StopTimeout time.Duration
}

// What is left out of [Options].
const (
	DefaultShare       = 0.01
	DefaultMaxSpans    = 1000
	DefaultQueue       = sdktrace.DefaultMaxQueueSize
	DefaultStopTimeout = 5 * time.Second
)

func (o Options) withDefaults() Options {
	if o.MaxSpans <= 0 {
		o.MaxSpans = DefaultMaxSpans
	}
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = DefaultStopTimeout
	}
	return o
}

// scope is what spans are made by, as OpenTelemetry calls it.
const scope = "github.com/tandem-ann/tandem/server"

// Tracer traces requests. A nil Tracer traces none. Its methods may be called from any number
// of goroutines.
type Tracer struct {
	options  Options
	events   *events.Listener
	budget   *budget
	sender   *sender
	provider *sdktrace.TracerProvider
	spans    trace.Tracer
}

// Start returns a tracer, and tells of what becomes of spans. No collector needs to answer
// yet. The caller stops it.
func Start(o Options, told *events.Listener) (*Tracer, error) {
	o = o.withDefaults()
	var to []otlptracehttp.Option
	if o.Endpoint != "" {
		to = append(to, otlptracehttp.WithEndpointURL(o.Endpoint))
	}
	exporter, err := otlptracehttp.New(context.Background(), to...)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	of, err := resource.New(context.Background(),
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "tandem"), attribute.String("service.version", o.Version)),
		resource.WithFromEnv(), // it has the last word
	)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	t := &Tracer{options: o, events: told, budget: newBudget(o.MaxSpans), sender: newSender(exporter, o.Queue, told)}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(of),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // Begin and Continue decide
		sdktrace.WithBatcher(t.sender, sdktrace.WithMaxQueueSize(o.Queue), sdktrace.WithMaxExportBatchSize(min(o.Queue, sdktrace.DefaultMaxExportBatchSize))),
	)
	t.spans = t.provider.Tracer(scope)
	return t, nil
}

// Stop sends what waits, for as long as the options say, and ends the tracer. What was not sent
// by then is counted as failed. Requests must have ended.
func (t *Tracer) Stop() error {
	if t == nil {
		return nil
	}
	defer time.AfterFunc(t.options.StopTimeout, t.sender.end).Stop()
	err := t.provider.Shutdown(context.Background()) // it ends once the sender does
	t.sender.end()
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

// Begin returns the trace of a request that has begun, nil if it is not traced: a share of those
// whose caller says nothing of traces.
func (t *Tracer) Begin(header http.Header, start time.Time) *Trace {
	if t == nil {
		return nil
	}
	if _, ok := ParentOf(header); ok || rand.Float64() >= t.options.Share {
		return nil
	}
	return t.begin(context.Background(), start, false)
}

// Continue returns the trace of a request whose caller has it traced, nil for any other. It is
// called once it is known that the caller is one that may ask.
func (t *Tracer) Continue(header http.Header, start time.Time) *Trace {
	if t == nil {
		return nil
	}
	if parent, ok := ParentOf(header); !ok || !parent.Sampled {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), bounded(header))
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	return t.begin(ctx, start, true)
}

func (t *Tracer) begin(ctx context.Context, start time.Time, asked bool) *Trace {
	if !t.budget.begin(time.Now(), asked) {
		t.events.Traced(events.Traced{Outcome: events.TraceLimited, N: 1})
		return nil
	}
	ctx, root := t.spans.Start(ctx, "request", trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindServer))
	return &Trace{tracer: t, ctx: ctx, root: root}
}
