// Package tracetest has a collector of traces for tests: it takes OTLP over HTTP, keeps what it
// got, and may be made to refuse, to hang and to answer late.
package tracetest

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector is a server that takes traces. Its methods may be called from any number of
// goroutines.
type Collector struct {
	URL string // that spans are posted to

	mu      sync.Mutex
	bodies  [][]byte
	spans   []Span
	service string
	answer  func(http.ResponseWriter, *http.Request) bool
	changed chan struct{} // closed when there are more
}

// Span is one that came.
type Span struct {
	Trace, ID, Parent string // in hexadecimal digits; Parent is "" for none
	State             string
	Name              string
	Kind              tracev1.Span_SpanKind
	Start, End        time.Time
	Attributes        map[string]any
	Failed            bool
	Status            string // its text
}

// Start starts a collector, which ends with the test.
func Start(t testing.TB) *Collector {
	c := &Collector{changed: make(chan struct{})}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.take(t, w, r) }))
	c.URL = s.URL + "/v1/traces"
	t.Cleanup(s.Close)
	return c
}

// Answer has requests answered by a function, which reports whether it has answered; if not,
// the spans are taken. Nil takes all.
func (c *Collector) Answer(by func(w http.ResponseWriter, r *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = by
}

func (c *Collector) take(t testing.TB, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	body, m, err := Decode(r)
	if !assert.Equal(t, "/v1/traces", r.URL.Path) || !assert.NoError(t, err) {
		return
	}
	c.keep(body, m)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Decode returns the message of a request, and its bytes.
func Decode(r *http.Request) ([]byte, *collectorv1.ExportTraceServiceRequest, error) {
	body, err := read(r)
	if err != nil {
		return nil, nil, err
	}
	m := new(collectorv1.ExportTraceServiceRequest)
	return body, m, proto.Unmarshal(body, m)
}

func read(r *http.Request) ([]byte, error) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		body = unzipped
	}
	return io.ReadAll(body)
}

func (c *Collector) keep(body []byte, m *collectorv1.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies = append(c.bodies, body)
	for _, of := range m.ResourceSpans {
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.name" {
				c.service = a.Value.GetStringValue()
			}
		}
		for _, by := range of.ScopeSpans {
			for _, s := range by.Spans {
				c.spans = append(c.spans, newSpan(s))
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func newSpan(s *tracev1.Span) Span {
	out := Span{
		Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId), State: s.TraceState,
		Name: s.Name, Kind: s.Kind, Start: time.Unix(0, int64(s.StartTimeUnixNano)), End: time.Unix(0, int64(s.EndTimeUnixNano)),
		Attributes: map[string]any{}, Failed: s.Status.GetCode() == tracev1.Status_STATUS_CODE_ERROR, Status: s.Status.GetMessage(),
	}
	for _, a := range s.Attributes {
		switch {
		case a.Value.GetStringValue() != "":
			out.Attributes[a.Key] = a.Value.GetStringValue()
		case a.Value.GetDoubleValue() != 0:
			out.Attributes[a.Key] = a.Value.GetDoubleValue()
		default:
			out.Attributes[a.Key] = int(a.Value.GetIntValue())
		}
	}
	return out
}

// Spans returns what has come.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Service is what the last that came calls the service that it is of.
func (c *Collector) Service() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.service
}

// Await waits until at least so many spans have come, and returns all.
func (c *Collector) Await(t testing.TB, n int) []Span {
	late := time.After(time.Minute)
	for {
		c.mu.Lock()
		spans, changed := slices.Clone(c.spans), c.changed
		c.mu.Unlock()
		if len(spans) >= n {
			return spans
		}
		select {
		case <-changed:
		case <-late:
			require.Failf(t, "spans did not come", "%d of %d", len(spans), n)
		}
	}
}

// Bytes returns all that has come, as it came.
func (c *Collector) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Join(c.bodies, nil)
}
