package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"golang.org/x/net/http/httpguts"

	"github.com/tandem-ann/tandem/server/traces"
)

// traceFlags are those of serve that say which requests are traced, and where traces go. What
// they leave out may be in the variables of OpenTelemetry, which platforms set for each process.
type traceFlags struct {
	TraceEndpoint string   `placeholder:"URL" help:"Collector to send traces to by OTLP over HTTP, such as http://127.0.0.1:4318 (default none, or as OTEL_EXPORTER_OTLP_ENDPOINT says; other variables of OpenTelemetry's SDK count too)."`
	TraceShare    *float64 `placeholder:"X" help:"Share of requests to trace of those whose caller does not say: 0.01 is one in a hundred (default 0.01, or as OTEL_TRACES_SAMPLER says)."`
	TraceMaxSpans int      `default:"1000" placeholder:"N" help:"Spans a second to make at most, whatever callers ask for; requests beyond are not traced (default ${default})."`
}

// The variables of OpenTelemetry that are looked at here; its SDK knows others.
const (
	otelDisabled    = "OTEL_SDK_DISABLED"
	otelExporter    = "OTEL_TRACES_EXPORTER"
	otelEndpoint    = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otelTraces      = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	otelHeaders     = "OTEL_EXPORTER_OTLP_HEADERS"
	otelTracesWith  = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
	otelProtocol    = "OTEL_EXPORTER_OTLP_PROTOCOL"
	otelTracesBy    = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	otelSampler     = "OTEL_TRACES_SAMPLER"
	otelSamplerArg  = "OTEL_TRACES_SAMPLER_ARG"
	otelQueue       = "OTEL_BSP_MAX_QUEUE_SIZE"
	otelTracesPath  = "/v1/traces"
	endpointForm    = "http:// or https://, a host, and a path if it is not /v1/traces"
	largestQueue    = 1 << 20
	largestMaxSpans = 1_000_000
)

// options returns what the flags and the variables say, nil if nothing is to be traced.
func (f *traceFlags) options() (*traces.Options, error) {
	o := &traces.Options{Share: traces.DefaultShare, MaxSpans: f.TraceMaxSpans, Version: toolRelease}
	if f.TraceMaxSpans < 1 || f.TraceMaxSpans > largestMaxSpans {
		return nil, usagef("--trace-max-spans is %d, want 1 to %d", f.TraceMaxSpans, largestMaxSpans)
	}
	if f.TraceShare != nil && !(*f.TraceShare >= 0 && *f.TraceShare <= 1) {
		return nil, usagef("--trace-share is %v, want 0 to 1", *f.TraceShare)
	}
	on, err := f.endpoint(o)
	if err != nil {
		return nil, err
	}
	if !on {
		if f.TraceShare != nil {
			return nil, usagef("--trace-share goes with --trace-endpoint, or with %s", otelEndpoint)
		}
		return nil, nil
	}
	for _, name := range []string{otelHeaders, otelTracesWith} {
		if err := checkHeaders(name); err != nil {
			return nil, err
		}
	}
	if f.TraceShare != nil {
		o.Share = *f.TraceShare
	} else if err := sampler(o); err != nil {
		return nil, err
	}
	if text := os.Getenv(otelQueue); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < traces.MostSpans || n > largestQueue {
			return nil, usagef("%s is %.100q, want %d to %d", otelQueue, text, traces.MostSpans, largestQueue)
		}
		o.Queue = n
	}
	return o, nil
}

// endpoint sets where traces go, and reports whether they go anywhere. Where the variables say
// it, the SDK reads them.
func (f *traceFlags) endpoint(o *traces.Options) (on bool, err error) {
	if f.TraceEndpoint != "" {
		u, err := collector("--trace-endpoint", f.TraceEndpoint)
		if err != nil {
			return false, err
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = otelTracesPath
		}
		o.Endpoint = u.String()
		return true, nil
	}
	name, text := otelTraces, os.Getenv(otelTraces)
	if text == "" {
		name, text = otelEndpoint, os.Getenv(otelEndpoint)
	}
	exporter := os.Getenv(otelExporter)
	if text == "" || exporter == "none" || strings.EqualFold(os.Getenv(otelDisabled), "true") {
		return false, nil
	}
	if exporter != "" && exporter != "otlp" {
		return false, usagef("%s is %.100q, want otlp or none", otelExporter, exporter)
	}
	if _, err := collector(name, text); err != nil {
		return false, err
	}
	if by := cmp.Or(os.Getenv(otelTracesBy), os.Getenv(otelProtocol)); by != "" && by != "http/protobuf" && by != "http/json" {
		return false, usagef("%s or %s is %.100q, want http/protobuf or http/json; --trace-endpoint names a collector that takes them", otelTracesBy, otelProtocol, by)
	}
	return true, nil
}

// collector returns the URL of a collector, which a flag or a variable names.
func collector(name, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case strings.ContainsAny(text, "@?#"): // what may be a secret would be in logs
		return nil, usagef("%s has a user or a password, or a query; want secrets in %s", name, otelHeaders)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, usagef("%s is %.100q, want %s", name, text, endpointForm)
	}
	return u, nil
}

// checkHeaders returns an error if headers that a variable names are none that the SDK reads, which
// would leave them out, and log them. The error has nothing of them, since they are secrets.
func checkHeaders(name string) error {
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	parts := strings.Split(text, ",")
	for i, part := range parts {
		header, value, found := strings.Cut(part, "=")
		_, err := url.PathUnescape(value)
		if strings.TrimSpace(part) == "" {
			continue
		}
		if !found || err != nil || !httpguts.ValidHeaderFieldName(strings.TrimSpace(header)) {
			return usagef("%s: part %d of %d is no header; want name=value, with commas between them, and %%25 for %% in a value", name, i+1, len(parts))
		}
	}
	return nil
}

// sampler sets the share that is traced, if the variable says it. Callers' own choice is followed
// whatever it says.
func sampler(o *traces.Options) error {
	name := os.Getenv(otelSampler)
	accepted := []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	switch {
	case name == "":
		return nil
	case !slices.Contains(accepted, name):
		return usagef("%s is %.100q, want one of %s, or --trace-share", otelSampler, name, strings.Join(accepted, ", "))
	}
	switch strings.TrimPrefix(name, "parentbased_") {
	case "always_on":
		o.Share = 1
	case "always_off":
		o.Share = 0
	default:
		text := cmp.Or(os.Getenv(otelSamplerArg), "1") // as the SDK has it
		share, err := strconv.ParseFloat(text, 64)
		if err != nil || !(share >= 0 && share <= 1) {
			return usagef("%s is %.100q, want 0 to 1", otelSamplerArg, text)
		}
		o.Share = share
	}
	return nil
}

// logOpenTelemetry has what OpenTelemetry's SDK says of itself, such as of variables that it
// cannot read, go to the log.
func logOpenTelemetry(log *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(log.Handler()))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("OpenTelemetry", "error", fmt.Sprintf("%.512s", err.Error())) }))
}
