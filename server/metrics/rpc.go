package metrics

import (
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
)

// LatencyBuckets are those of Baseplate.go, in seconds.
func LatencyBuckets() []float64 {
	return []float64{100e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 5, 15, 30}
}

// The resolution of native histograms, as Baseplate.go has it: each bucket is up to a tenth
// wider than the one before; where that takes more buckets than these, they begin anew, or if
// that was less than an hour ago become wider.
const (
	nativeFactor  = 1.1
	nativeBuckets = 160
	nativeReset   = time.Hour
)

// The labels of RPCs, as Baseplate.go has them.
const (
	labelService = "grpc_service"
	labelMethod  = "grpc_method"
	labelType    = "grpc_type"
	labelSuccess = "grpc_success"
	labelCode    = "grpc_code"
)

// unknown is the service and the method of what is none of the contract.
const unknown = "unknown"

// grpcCodes is how many codes gRPC has, with OK.
const grpcCodes = 17

// rpcs are the metrics of RPCs, with the names, labels and buckets of Baseplate.go.
type rpcs struct {
	latency  *prometheus.HistogramVec
	requests *prometheus.CounterVec
	active   *prometheus.GaugeVec

	methods map[string]*method // by path
	unknown *method
}

// method has the series of one, each from when it is first needed.
type method struct {
	labels  [3]string // service, name, type
	active  prometheus.Gauge
	latency [2]atomic.Pointer[prometheus.Observer] // of failures and of successes
	counts  [grpcCodes]atomic.Pointer[prometheus.Counter]
}

func newRPCs() *rpcs {
	labels := []string{labelService, labelMethod, labelType}
	r := &rpcs{methods: map[string]*method{}}
	r.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "grpc_server_latency_seconds",
		Help:    "Time from when the header of a request had been read to the last byte of its answer, in seconds. A batch is one request.",
		Buckets: LatencyBuckets(), NativeHistogramBucketFactor: nativeFactor,
		NativeHistogramMaxBucketNumber: nativeBuckets, NativeHistogramMinResetDuration: nativeReset,
	}, append(labels, labelSuccess))
	r.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "grpc_server_requests_total",
		Help: "Requests for methods that have ended, by Connect, gRPC and gRPC-Web, also those that were refused before a method had them.",
	}, append(labels, labelSuccess, labelCode))
	r.active = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "grpc_server_active_requests",
		Help: "Requests for methods that are under way.",
	}, labels)
	for _, p := range procedures() {
		m := r.newMethod(p.service, p.method, p.kind)
		r.methods["/"+p.service+"/"+p.method] = m
	}
	r.unknown = r.newMethod(unknown, unknown, "unary")
	return r
}

func (r *rpcs) newMethod(labels ...string) *method {
	return &method{labels: [3]string(labels), active: r.active.WithLabelValues(labels...)}
}

// procedure is a method of the contract, or of those of gRPC that are served beside it.
type procedure struct{ service, method, kind string }

// procedures are all methods that are served: those of every service of the contract.
func procedures() []procedure {
	list := []procedure{
		{grpchealth.HealthV1ServiceName, "Check", "unary"},
		{grpchealth.HealthV1ServiceName, "Watch", "server_stream"},
		{"grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", "bidi_stream"},
		{"grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", "bidi_stream"},
	}
	contract := tandemv1.File_tandem_v1_retrieval_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(contract, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				list = append(list, procedure{string(s.FullName()), string(m.Name()), kindOf(m)})
			}
		}
		return true
	})
	return list
}

// kindOf is what grpc_type calls a method.
func kindOf(m protoreflect.MethodDescriptor) string {
	switch {
	case m.IsStreamingClient() && m.IsStreamingServer():
		return "bidi_stream"
	case m.IsStreamingClient():
		return "client_stream"
	case m.IsStreamingServer():
		return "server_stream"
	}
	return "unary"
}

func (r *rpcs) method(path string) *method {
	if m, ok := r.methods[path]; ok {
		return m
	}
	return r.unknown
}

func (r *rpcs) begin(path string) { r.method(path).active.Inc() }

func (r *rpcs) end(e events.RPC) {
	m := r.method(e.Procedure)
	m.active.Dec()
	code, success, number := e.Code, "false", 0
	if int(code) >= grpcCodes {
		code = connect.CodeUnknown
	}
	if code == 0 {
		success, number = "true", 1
	}
	latency := m.latency[number].Load()
	if latency == nil {
		made := r.latency.WithLabelValues(append(m.labels[:], success)...)
		latency = &made
		m.latency[number].Store(latency)
	}
	(*latency).Observe(e.Duration.Seconds())
	count := m.counts[code].Load()
	if count == nil {
		made := r.requests.WithLabelValues(append(m.labels[:], success, codes.Code(code).String())...)
		count = &made
		m.counts[code].Store(count)
	}
	(*count).Inc()
}

// Describe implements [prometheus.Collector].
func (r *rpcs) Describe(ch chan<- *prometheus.Desc) { describe(ch, r.latency, r.requests, r.active) }

// Collect implements [prometheus.Collector].
func (r *rpcs) Collect(ch chan<- prometheus.Metric) { collect(ch, r.latency, r.requests, r.active) }

func describe(ch chan<- *prometheus.Desc, list ...prometheus.Collector) {
	for _, c := range list {
		c.Describe(ch)
	}
}

func collect(ch chan<- prometheus.Metric, list ...prometheus.Collector) {
	for _, c := range list {
		c.Collect(ch)
	}
}
