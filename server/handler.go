package server

import (
	"context"
	"net/http"
	"os"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/shard/stack"
)

// DefaultMaxMessageBytes is the largest request that is accepted by default.
const DefaultMaxMessageBytes = 8 << 20

// DefaultMaxResponseBytes is the longest answer by default: the limit of a gRPC client that
// sets none, less room for what goes around a message.
const DefaultMaxResponseBytes = 4<<20 - 64<<10

// DefaultMaxDeadline is how long a request may take by default.
const DefaultMaxDeadline = 10 * time.Second

// Options bound what callers may ask of a handler. A zero field means its default.
type Options struct {
	// MaxMessageBytes is the largest request that is accepted, decompressed or
	// not; a larger one is an invalid_argument. Default: DefaultMaxMessageBytes.
	MaxMessageBytes int
	// MaxResponseBytes is the longest answer, to a batch as to one query, in protobuf,
	// whatever it is encoded in. A query that asks for more is an invalid_argument before
	// any work is done. Default: DefaultMaxResponseBytes.
	MaxResponseBytes int
	// MaxDeadline is the deadline of requests that have none or a later one. Default:
	// DefaultMaxDeadline.
	MaxDeadline time.Duration
	// MaxInFlight is how many requests are worked on at a time; a batch is one. One more
	// is a resource_exhausted, at once, as is one that takes more work or more bytes than
	// the next two let in. Default: 64 for each processor.
	MaxInFlight int
	// MaxWorkInFlight is how much work is let in at a time, in estimated time of one
	// processor; a batch counts as its queries. An eighth is for short work. Default: 250
	// ms for each processor, which is about how long the last one let in waits.
	MaxWorkInFlight time.Duration
	// Processors is how many processors do long work at a time. Go is to have more (see
	// [Threads]), or short work waits for them. Default: as many as Go has.
	Processors int
	// MaxBytesInFlight is how many bytes requests and their answers take at a time, as
	// estimated. Default: a sixteenth of the memory, from 64 to 256 MiB.
	MaxBytesInFlight int64
	// CORSOrigins are the origins of the pages whose scripts may read answers, such as
	// https://shop.example, by Connect and gRPC-Web; "*" is any. Default: none.
	CORSOrigins []string
	// Guard says who callers are and what they may do. Default: whoever reaches the handler
	// may do everything.
	Guard *auth.Guard
}

func (o Options) withDefaults() Options {
	if o.Processors <= 0 {
		o.Processors = runtime.GOMAXPROCS(0)
	}
	if o.MaxMessageBytes <= 0 {
		o.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if o.MaxResponseBytes <= 0 {
		o.MaxResponseBytes = DefaultMaxResponseBytes
	}
	if o.MaxDeadline <= 0 {
		o.MaxDeadline = DefaultMaxDeadline
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 64 * o.Processors
	}
	if o.MaxWorkInFlight <= 0 {
		o.MaxWorkInFlight = time.Duration(o.Processors) * 250 * time.Millisecond
	}
	if o.MaxBytesInFlight <= 0 {
		memory, _ := memoryOf(os.DirFS("/")) // what cannot be read bounds nothing
		o.MaxBytesInFlight = min(max(memory.bytes/16, 64<<20), 256<<20)
	}
	return o
}

// queuedForEach is how many large requests may wait to be looked at, for each processor.
const queuedForEach = 16

func newLimiter(o Options, errors *connect.ErrorWriter) *limiter {
	return &limiter{
		maxBytes: o.MaxMessageBytes, maxAnswer: o.MaxResponseBytes, maxDeadline: o.MaxDeadline, read: min(readTimeout, o.MaxDeadline), idle: readTimeout,
		inflaters: newInflaters(o.MaxMessageBytes),
		buffers:   &buffers{most: int(o.MaxBytesInFlight / 8)},
		bytes:     byteBudget{most: o.MaxBytesInFlight},
		work: admission{
			maxRequests: o.MaxInFlight, maxWork: o.MaxWorkInFlight, processors: o.Processors,
			ratio: 1, since: time.Now(), used: processorTime(),
		},
		turns:  make(chan struct{}, o.Processors),
		queue:  make(chan struct{}, queuedForEach*o.Processors),
		errors: errors,
	}
}

// The largest messages to health and to reflection.
const (
	healthBytes     = 4 << 10
	reflectionBytes = 64 << 10
)

// NewHandler returns the service's HTTP handler:
//
//   - the RPCs of RetrievalService, LiveService, FeedbackService, ReleaseService and AdminService by
//     Connect, gRPC and gRPC-Web, in protobuf and JSON, compressed with gzip or zstd if the caller wants, by
//     GET too where they have no side effects
//   - gRPC health checks and reflection, v1 and v1alpha
//   - GET /healthz, which is 200, and GET /readyz, which is 503 until there is a
//     snapshot and again once the service drains
//
// gRPC needs HTTP/2. Health, reflection and AdminService do no work that counts as in
// flight. Where there is a guard, all but health, /healthz and /readyz needs what
// [auth.Procedures] says, and those say no more than ready or not. Whatever a request is to, it has 30 s to arrive, and each part of its answer 15 s at
// least to be taken; the streams of health watches and reflection may be quiet between
// messages, and each message of a stream of events has 30 s to arrive. A connection that [Run] has accepted may have four health watches at a time.
func NewHandler(s *Service, options Options) http.Handler {
	h, _ := newHandler(s, options)
	return h
}

// grown has requests that are admitted go on with the stack that they take: HTTP/2 has a new
// goroutine for each.
func grown(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stack.Grow()
		next.ServeHTTP(w, r)
	})
}

// newHandler returns the handler and what bounds its requests.
func newHandler(s *Service, options Options) (http.Handler, *limiter) {
	options = options.withDefaults()
	contractRules() // compiled, so that the first request need not
	codecs := connect.WithHandlerOptions(
		connect.WithCodec(protoCodec{}),
		connect.WithCodec(jsonCodec{"json"}),
		connect.WithCodec(jsonCodec{"json; charset=utf-8"}),
	)
	rpc := []connect.HandlerOption{
		compression(options.MaxMessageBytes),
		codecs,
		connect.WithRequestGate(receive),
		connect.WithInterceptors(connect.UnaryInterceptorFunc(s.observe), connect.UnaryInterceptorFunc(encoding), connect.UnaryInterceptorFunc(validation), streamed{s}),
	}
	l := newLimiter(options, connect.NewErrorWriter(rpc...))
	mux := http.NewServeMux()
	path, h := tandemv1connect.NewRetrievalServiceHandler(s, rpc...)
	mux.Handle(path, l.limit(h))
	path, h = tandemv1connect.NewAdminServiceHandler(s, rpc...)
	mux.Handle(path, l.limit(h))
	path, h = tandemv1connect.NewLiveServiceHandler(s, rpc...)
	mux.Handle(path, l.limit(h))
	mux.Handle(tandemv1connect.LiveServiceImportProcedure, few(make(chan struct{}, maxImports), l.errors, l.stream(s.health.streaming, h)))
	path, h = tandemv1connect.NewFeedbackServiceHandler(s, rpc...)
	mux.Handle(path, l.limit(h))
	path, h = tandemv1connect.NewReleaseServiceHandler(&s.desk, rpc...)
	mux.Handle(path, few(make(chan struct{}, maxReleaseCalls), l.errors, l.limit(h)))
	mux.Handle(tandemv1connect.ReleaseServiceDiffSnapshotsProcedure, few(make(chan struct{}, 1), l.errors, l.limit(h)))
	others := func(most int) connect.HandlerOption {
		return connect.WithHandlerOptions(compression(most), codecs, connect.WithInterceptors(refusing{}))
	}
	path, h = grpchealth.NewHandler(s.health, others(healthBytes))
	h = streams(context.Background(), enveloped(watched(h), healthBytes, true, l.errors))
	mux.Handle(path, h)
	mux.Handle(path+"Watch", fewEach(watchesEach, l.errors, few(make(chan struct{}, maxWatches), l.errors, h)))
	reflections := make(chan struct{}, maxReflections)
	reflector := grpcreflect.NewStaticReflector(tandemv1connect.RetrievalServiceName, tandemv1connect.AdminServiceName, tandemv1connect.LiveServiceName, tandemv1connect.FeedbackServiceName, tandemv1connect.ReleaseServiceName, grpchealth.HealthV1ServiceName)
	path, h = grpcreflect.NewHandlerV1(reflector, others(reflectionBytes))
	mux.Handle(path, few(reflections, l.errors, streams(s.health.streaming, enveloped(h, reflectionBytes, false, l.errors))))
	path, h = grpcreflect.NewHandlerV1Alpha(reflector, others(reflectionBytes))
	mux.Handle(path, few(reflections, l.errors, streams(s.health.streaming, enveloped(h, reflectionBytes, false, l.errors))))
	mux.HandleFunc("GET "+healthPath, alive)
	mux.HandleFunc("GET "+readyPath, s.health.readiness)
	shed, refused := &shedder{}, &refusals{errors: l.errors}
	allowed := guarded(options.Guard, refused, continued(gated(shed, &l.work, refused, grown(mux))))
	return s.exchanged(shared(timed(s.health.draining, allowed, l.read, writeTimeout), options.CORSOrigins), l.errors, newGate(placesFor(options.Processors)), shed), l
}
