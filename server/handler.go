package server

import (
	"net/http"
	"runtime"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// DefaultMaxMessageBytes is the largest request that is accepted by default.
const DefaultMaxMessageBytes = 8 << 20

// Options bound what callers may ask of a handler. A zero field means its default.
type Options struct {
	// MaxMessageBytes is the largest request that is accepted, decompressed or
	// not; a larger one is an invalid_argument. Default: DefaultMaxMessageBytes.
	MaxMessageBytes int
	// MaxInFlight is how many retrieval requests are worked on at a time; a batch
	// is one. One more is a resource_exhausted, at once. Default: 64 for each
	// processor, which queues for milliseconds and holds little memory.
	MaxInFlight int
}

func (o Options) withDefaults() Options {
	if o.MaxMessageBytes <= 0 {
		o.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 64 * runtime.GOMAXPROCS(0)
	}
	return o
}

// NewHandler returns the service's HTTP handler:
//
//   - the RPCs of RetrievalService and AdminService by Connect, gRPC and gRPC-Web, in protobuf and
//     JSON, compressed with gzip or zstd if the caller wants, by GET too
//   - gRPC health checks and reflection, v1 and v1alpha
//   - GET /healthz, which is 200, and GET /readyz, which is 503 until there is a
//     snapshot and again once the service drains
//
// gRPC needs HTTP/2. Health, reflection and AdminService do not count as requests in flight.
func NewHandler(s *Service, options Options) http.Handler {
	options = options.withDefaults()
	prepareRules()
	rpc := []connect.HandlerOption{
		compression(options.MaxMessageBytes),
		connect.WithCodec(jsonCodec{"json"}),
		connect.WithCodec(jsonCodec{"json; charset=utf-8"}),
		connect.WithInterceptors(connect.UnaryInterceptorFunc(s.observe), connect.UnaryInterceptorFunc(validation)),
	}
	l := &limiter{
		inFlight: make(chan struct{}, options.MaxInFlight),
		maxBytes: options.MaxMessageBytes,
		errors:   connect.NewErrorWriter(rpc...),
		read:     readTimeout,
		write:    writeTimeout,
	}
	mux := http.NewServeMux()
	path, h := tandemv1connect.NewRetrievalServiceHandler(s, rpc...)
	mux.Handle(path, l.limit(h))
	path, h = tandemv1connect.NewAdminServiceHandler(s, rpc...)
	mux.Handle(path, untimed(h))
	path, h = grpchealth.NewHandler(s.health, connect.WithReadMaxBytes(4<<10))
	mux.Handle(path, untimed(watched(h)))
	reflector := grpcreflect.NewStaticReflector(tandemv1connect.RetrievalServiceName, tandemv1connect.AdminServiceName, grpchealth.HealthV1ServiceName)
	path, h = grpcreflect.NewHandlerV1(reflector, connect.WithReadMaxBytes(64<<10))
	mux.Handle(path, untimed(until(s.health.draining, h)))
	path, h = grpcreflect.NewHandlerV1Alpha(reflector, connect.WithReadMaxBytes(64<<10))
	mux.Handle(path, untimed(until(s.health.draining, h)))
	mux.Handle("GET /healthz", untimed(http.HandlerFunc(live)))
	mux.Handle("GET /readyz", untimed(http.HandlerFunc(s.health.readiness)))
	return s.recovered(mux, l.errors)
}

// recovered answers with an internal error if a handler panics outside of a
// method, and logs why.
func (s *Service) recovered(next http.Handler, errors *connect.ErrorWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			id, err := newID(), panicError(p)
			s.logger.ErrorContext(r.Context(), "request failed", "procedure", r.URL.Path, "request_id", id, "error", err)
			w.Header().Set(RequestIDHeader, id)
			_ = errors.Write(w, r, callerError(err, id)) // the caller may be gone
		}()
		next.ServeHTTP(w, r)
	})
}
