package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/server/traces/tracetest"
)

// traced is a server that traces what it is asked, and its collector.
type traced struct {
	*process
	*tracetest.Collector
	log *lockedBuffer
}

// newTraced starts one that traces a share of the requests.
func newTraced(t *testing.T, share float64, more ...func(*Config)) *traced {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	x := &traced{Collector: tracetest.Start(t), log: &lockedBuffer{}}
	c := smallTowers(index.Dot).named(t, Config{
		Live: writes(), Traces: &traces.Options{Endpoint: x.URL, Share: share, MaxSpans: 1_000_000},
		Logger: slog.New(slog.NewJSONHandler(x.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	for _, change := range more {
		change(&c)
	}
	x.process = start(t, c)
	return x
}

// trace waits for the trace of an answer, whose root ends last, and returns its spans.
func (x *traced) trace(t *testing.T, header http.Header) spanTree {
	t.Helper()
	response := header.Get(traces.ResponseHeader)
	require.Regexp(t, "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]$", response)
	for n := 1; ; {
		all := x.Await(t, n)
		of := slices.DeleteFunc(slices.Clone(all), func(s tracetest.Span) bool { return s.Trace != response[3:35] })
		if slices.ContainsFunc(of, func(s tracetest.Span) bool { return s.ID == response[36:52] }) {
			return spanTree{of, response[36:52]}
		}
		n = len(all) + 1
	}
}

// spanTree is a trace.
type spanTree struct {
	spans []tracetest.Span
	root  string
}

// named returns the spans of a name.
func (s spanTree) named(name string) (list []tracetest.Span) {
	for _, span := range s.spans {
		if span.Name == name {
			list = append(list, span)
		}
	}
	return list
}

// top returns the span of the request.
func (s spanTree) top() tracetest.Span {
	return s.spans[slices.IndexFunc(s.spans, func(span tracetest.Span) bool { return span.ID == s.root })]
}

// String draws the names of the spans below one another, in the order in which they began, with
// how many there are of those that may be side by side.
func (s spanTree) String() string { return s.below(s.root, "") }

func (s spanTree) below(parent, indent string) (text string) {
	var within []tracetest.Span
	for _, span := range s.spans {
		if span.Parent == parent {
			within = append(within, span)
		}
	}
	slices.SortStableFunc(within, func(a, b tracetest.Span) int { return a.Start.Compare(b.Start) })
	for i, span := range within {
		if i > 0 && span.Name == within[i-1].Name {
			continue
		}
		n := len(slices.DeleteFunc(slices.Clone(within), func(o tracetest.Span) bool { return o.Name != span.Name }))
		text += indent + span.Name
		if n > 1 {
			text += fmt.Sprintf(" x%d", n)
		}
		text += "\n" + s.below(span.ID, indent+"  ")
	}
	return text
}

// requireNested checks that each span is within its parent, in time too.
func (s spanTree) requireNested(t *testing.T) {
	ids := map[string]tracetest.Span{}
	for _, span := range s.spans {
		ids[span.ID] = span
	}
	require.Len(t, ids, len(s.spans))
	for _, span := range s.spans {
		require.False(t, span.End.Before(span.Start), span.Name)
		require.WithinDuration(t, time.Now(), span.Start, 5*time.Minute)
		if span.ID == s.root {
			continue
		}
		parent, ok := ids[span.Parent]
		require.True(t, ok, "%s has no parent", span.Name)
		require.False(t, span.Start.Before(parent.Start), "%s begins before %s", span.Name, parent.Name)
		require.False(t, span.End.After(parent.End), "%s ends after %s", span.Name, parent.Name)
	}
}

// richRequest is a query that goes through all stages.
func richRequest() *tandemv1.RetrieveRequest {
	return &tandemv1.RetrieveRequest{
		UserId: "u1", K: 3, Filter: "min_age <= user.age", Bindings: map[string]*structpb.Value{"age": structpb.NewNumberValue(18)}, Segment: "cheap",
		AtMost: []*tandemv1.AtMost{{Attribute: "developer", N: 1}}, Attributes: []string{"*"}, ExplainIds: []string{"a1"},
	}
}

// TestQueriesAreTraced asks by each protocol, and looks at what the collector got.
func TestQueriesAreTraced(t *testing.T) {
	x := newTraced(t, 1)
	for name, test := range map[string]struct {
		options  []connect.ClientOption
		system   string
		protocol string
		code     any
	}{
		"connect":      {nil, "connectrpc", "connect", nil},
		"connect JSON": {[]connect.ClientOption{connect.WithProtoJSON()}, "connectrpc", "connect", nil},
		"connect GET":  {[]connect.ClientOption{connect.WithHTTPGet()}, "connectrpc", "connect", nil},
		"gRPC":         {[]connect.ClientOption{connect.WithGRPC()}, "grpc", "grpc", "OK"},
		"gRPC-Web":     {[]connect.ClientOption{connect.WithGRPCWeb()}, "grpc", "grpc-web", "OK"},
	} {
		r := richRequest()
		r.RequestId = strings.ReplaceAll(name, " ", "-")
		answer, err := x.client(test.options...).Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err, name)
		trace := x.trace(t, answer.Header())
		trace.requireNested(t)
		rounds := len(trace.named("merge"))
		require.Regexp(t, `^receive
decode
admit
prepare
  filter
search
  shard x\d+
  merge( x\d+)?
(?:  shard x\d+
|  merge( x\d+)?
)*  attributes
  explain
answer
encode
send
$`, trace.String(), name)
		require.GreaterOrEqual(t, len(trace.named("shard")), 3)
		require.Positive(t, rounds)

		top := trace.top()
		require.Equal(t, "tandem.v1.RetrievalService/Retrieve", top.Name)
		require.Equal(t, tracev1.Span_SPAN_KIND_SERVER, top.Kind)
		require.False(t, top.Failed)
		require.Empty(t, top.Parent)
		m := answer.Msg
		for key, want := range map[string]any{
			"rpc.system.name": test.system, "rpc.method": top.Name, "tandem.protocol": test.protocol, "rpc.response.status_code": test.code,
			"network.protocol.version": "2", "tandem.request.id": r.RequestId, "tandem.arm": "control", "tandem.generation": 0,
			"tandem.snapshot": m.Snapshot[:12], "tandem.position": fmt.Sprint(m.Live.Sequence), "tandem.k": 3, "tandem.candidates": len(m.Candidates),
			"tandem.segment": "cheap", "tandem.eligible": int(m.Eligible), "tandem.coverage": 1.0, "tandem.plan": "exact_scan", "error.type": nil,
		} {
			require.Equal(t, want, top.Attributes[key], "%s: %s", name, key)
		}
		shards := map[any]bool{}
		for _, s := range trace.named("shard") {
			if plan := s.Attributes["tandem.plan"]; s.Attributes["tandem.eligible"] == 0 {
				require.Equal(t, "none", plan)
			} else {
				require.Equal(t, "exact_scan", plan)
			}
			shards[s.Attributes["tandem.shard"]] = true
		}
		require.Len(t, shards, 3)
		require.Equal(t, 1, trace.named("merge")[0].Attributes["tandem.limits"])
	}
}

// TestBatchesAreTraced: each query of a batch has a span, with its stages within it; one that
// fails says why.
func TestBatchesAreTraced(t *testing.T) {
	x := newTraced(t, 1)
	nobody := richRequest()
	nobody.UserId = "nobody"
	answer, err := x.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{
		Requests: []*tandemv1.RetrieveRequest{{UserId: "u1", K: 2, RequestId: "first"}, nobody},
	}))
	require.NoError(t, err)
	trace := x.trace(t, answer.Header())
	trace.requireNested(t)
	queries := trace.named("query")
	require.Len(t, queries, 2)
	for _, q := range queries {
		require.Equal(t, "control", q.Attributes["tandem.arm"])
		switch q.Attributes["tandem.request.id"] {
		case "first":
			require.Equal(t, "prepare\n  filter\nsearch\n  shard x3\n  merge\nanswer\n", trace.below(q.ID, ""))
			require.Equal(t, 2, q.Attributes["tandem.k"])
		default:
			require.Equal(t, "ENTITY_UNKNOWN", q.Attributes["tandem.reason"])
			require.Equal(t, "prepare\n", trace.below(q.ID, ""))
		}
	}
	for _, name := range []string{"receive", "decode", "admit", "encode", "send"} {
		require.Len(t, trace.named(name), 1, name)
	}
	require.Equal(t, "tandem.v1.RetrievalService/BatchRetrieve", trace.top().Name)

	many := &tandemv1.BatchRetrieveRequest{}
	for range 100 {
		many.Requests = append(many.Requests, &tandemv1.RetrieveRequest{UserId: "u1", K: 2})
	}
	answer, err = x.client().BatchRetrieve(t.Context(), connect.NewRequest(many))
	require.NoError(t, err)
	trace = x.trace(t, answer.Header())
	require.Len(t, trace.spans, traces.MostSpans)
	require.Greater(t, trace.top().Attributes["tandem.spans.left_out"], 100)
}

// TestOthersAreTraced: embeddings, writes, a stream of messages, and what there is not; probes are
// not.
func TestOthersAreTraced(t *testing.T) {
	x := newTraced(t, 1)
	embeddings, err := x.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a1"}}))
	require.NoError(t, err)
	trace := x.trace(t, embeddings.Header())
	require.Equal(t, "receive\ndecode\nadmit\nsearch\nsend\n", trace.String())
	require.Equal(t, "control", trace.top().Attributes["tandem.arm"])

	down := &tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{takedown("a2")}}
	lives := tandemv1connect.NewLiveServiceClient(x.http2, x.url)
	written, err := lives.Write(t.Context(), connect.NewRequest(down))
	require.NoError(t, err)
	trace = x.trace(t, written.Header())
	require.Equal(t, "receive\ndecode\nadmit\nappend\nsend\n", trace.String())

	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()} {
		stream := tandemv1connect.NewLiveServiceClient(x.http2, x.url, option).Import(t.Context())
		for range 3 {
			require.NoError(t, stream.Send(&tandemv1.ImportRequest{Events: down.Events}))
		}
		imported, err := stream.CloseAndReceive()
		require.NoError(t, err)
		trace = x.trace(t, imported.Header())
		trace.requireNested(t)
		require.Equal(t, "tandem.v1.LiveService/Import", trace.top().Name)
		require.Len(t, trace.named("append"), 3)
	}

	got := x.get(t, "/tandem.v1.RetrievalService/Nothing")
	require.Equal(t, http.StatusNotFound, got.status)
	top := x.trace(t, got.header).top()
	require.Equal(t, "_OTHER", top.Name)
	require.Equal(t, "/tandem.v1.RetrievalService/Nothing", top.Attributes["rpc.method_original"])
	require.Equal(t, "unimplemented", top.Attributes["error.type"])
	require.True(t, top.Failed)

	for _, path := range []string{healthPath, readyPath} {
		require.Empty(t, x.get(t, path).header.Get(traces.ResponseHeader), path)
	}
	r, err := http.NewRequest(http.MethodPost, x.url+checkPath, strings.NewReader("{}"))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	require.Empty(t, x.do(t, r).header.Get(traces.ResponseHeader))
}

const flagged = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestCallersTraces: a caller's flag is followed, and its trace goes on; what is wrong with it, or
// not flagged, is not, and the log has its id all the same.
func TestCallersTraces(t *testing.T) {
	x := newTraced(t, 0)
	got := x.post(t, "Retrieve", alive1, "Traceparent", flagged, "Tracestate", "vendor=value")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, flagged[3:35], got.header.Get(RequestIDHeader))
	top := x.trace(t, got.header).top()
	require.Equal(t, flagged[3:35], top.Trace)
	require.Equal(t, flagged[36:52], top.Parent)
	require.Equal(t, "vendor=value", top.State)
	for name, parent := range map[string]string{
		"not flagged": flagged[:53] + "00", "malformed": "00-0af7651916cd43dd8448eb211c80319c-01", "zero": "00-" + strings.Repeat("0", 32) + flagged[35:], "version": "ff" + flagged[2:],
		"long": flagged + strings.Repeat("-x", 10_000),
	} {
		got := x.post(t, "Retrieve", `{"userId": "nobody", "k": 1}`, "Traceparent", parent)
		require.Equal(t, http.StatusNotFound, got.status, name)
		require.Empty(t, got.header.Get(traces.ResponseHeader), name)
		require.Equal(t, name == "not flagged", strings.Contains(x.line(t, got.header.Get(RequestIDHeader)), `"trace_id":"`+flagged[3:35]+`"`), name)
	}
	require.Len(t, x.Spans(), len(x.trace(t, got.header).spans), "of one trace")
}

// line returns the last line of the log that names a request.
func (x *traced) line(t *testing.T, id string) (line string) {
	for l := range strings.Lines(x.log.String()) {
		if strings.Contains(l, `"request_id":"`+id+`"`) {
			line = l
		}
	}
	require.NotEmpty(t, line)
	return line
}

// TestFailuresAreTraced: what fails says so, by its code and its reason, in the log too, and which
// arm it was for.
func TestFailuresAreTraced(t *testing.T) {
	x := newTraced(t, 1)
	for name, test := range map[string]struct {
		body, code, reason string
		status             int
		failed             bool
	}{
		"malformed": {"{", "invalid_argument", "MESSAGE_MALFORMED", http.StatusBadRequest, false},
		"invalid":   {`{"userId": "u1"}`, "invalid_argument", "FIELD_INVALID", http.StatusBadRequest, false},
		"unknown":   {`{"userId": "nobody", "k": 1}`, "not_found", "ENTITY_UNKNOWN", http.StatusNotFound, false},
		"behind":    {`{"userId": "u1", "k": 1, "minLive": {"sequence": 1000}}`, "deadline_exceeded", "DEADLINE_EXCEEDED", http.StatusGatewayTimeout, true},
	} {
		timeout := "" // none
		if name == "behind" {
			timeout = "300"
		}
		got := x.post(t, "Retrieve", test.body, "Connect-Timeout-Ms", timeout)
		trace := x.trace(t, got.header)
		trace.requireNested(t)
		top := trace.top()
		if name == "behind" {
			require.NotEqual(t, http.StatusOK, got.status)
			require.True(t, top.Failed, "%s", got.body)
			continue
		}
		require.Equal(t, test.status, got.status, "%s: %s", name, got.body)
		require.Equal(t, test.code, top.Attributes["rpc.response.status_code"], name)
		require.Contains(t, string(got.body), top.Attributes["tandem.reason"], name)
		require.Equal(t, test.failed, top.Failed, name)
		require.Nil(t, top.Attributes["tandem.error"], "which has what the caller sent")
		require.Contains(t, x.line(t, got.header.Get(RequestIDHeader)), `"trace_id":"`+top.Trace+`"`)
	}
	require.Contains(t, x.log.String(), `"arm":"control"`)
}

// TestTextsAreTracedIfAsked: of errors, which name what was sent.
func TestTextsAreTracedIfAsked(t *testing.T) {
	x := newTraced(t, 1, func(c *Config) { c.LogIDs = true })
	got := x.post(t, "Retrieve", `{"userId": "nobody", "k": 1}`)
	require.Contains(t, x.trace(t, got.header).top().Attributes["tandem.error"], `user_id "nobody" is not in the user tower`)
}

// TestLostSpansAreCounted where a person looks for them.
func TestLostSpansAreCounted(t *testing.T) {
	m := metrics.New()
	x := newTraced(t, 1, func(c *Config) { c.Metrics = m })
	x.Answer(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
	require.Equal(t, http.StatusOK, x.post(t, "Retrieve", alive1).status)
	require.Eventually(t, func() bool { return scrape(t, m).sum("tandem_trace_spans_total", `outcome="failed"`) > 5 }, time.Minute, time.Millisecond)
	x.Answer(nil)
	require.Equal(t, http.StatusOK, x.post(t, "Retrieve", alive1).status)
	require.Eventually(t, func() bool { return strings.Contains(x.log.String(), "traces are sent again") }, time.Minute, time.Millisecond)
	require.Equal(t, 1, strings.Count(x.log.String(), "traces cannot be sent"))
	x.stop()
	require.NoError(t, <-x.done)
	require.Len(t, x.Spans(), int(scrape(t, m).sum("tandem_trace_spans_total", `outcome="sent"`)))
	require.Zero(t, scrape(t, m).sum("tandem_trace_spans_total", `outcome="dropped"`)+scrape(t, m).sum("tandem_traces_limited_total"))
}

// TestSlowQueriesAreTold: how a query was answered that took longer than it may, and not of others.
func TestSlowQueriesAreTold(t *testing.T) {
	for name, slow := range map[string]time.Duration{"all": 1, "none": 0, "few": time.Hour} {
		log := &lockedBuffer{}
		c := smallTowers(index.Dot).named(t, Config{LogSlow: slow, Logger: slog.New(slog.NewJSONHandler(log, nil))})
		p := start(t, c)
		r := richRequest()
		r.RequestId = "one"
		_, err := p.client().Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
		_, err = p.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{r, r}}))
		require.NoError(t, err)
		got := p.post(t, "Retrieve", alive1, "Traceparent", flagged)
		require.Equal(t, http.StatusOK, got.status)
		p.stop()
		require.NoError(t, <-p.done)
		var lines []map[string]any
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "slow query") {
				var m map[string]any
				require.NoError(t, json.Unmarshal([]byte(line), &m))
				lines = append(lines, m)
			}
		}
		if name != "all" {
			require.Empty(t, lines, name)
			continue
		}
		require.Len(t, lines, 4)
		for key, want := range map[string]any{
			"level": "WARN", "request_id": "one", "arm": "control", "plan": "exact_scan", "segment": "cheap", "k": 3.0, "coverage": 1.0,
		} {
			require.Equal(t, want, lines[0][key], key)
		}
		require.Len(t, lines[0]["shards"], 3)
		require.Contains(t, lines[0]["shards"].([]any)[0], " eligible, ")
		require.Equal(t, flagged[3:35], lines[3]["trace_id"])
		require.NotContains(t, fmt.Sprint(lines), "u1")
	}
}

// TestTracesAreSentAtTheEnd: what was answered just before the server stops arrives, and a
// collector that hangs does not keep it.
func TestTracesAreSentAtTheEnd(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		c, release := tracetest.Start(t), make(chan struct{})
		t.Cleanup(func() { close(release) })
		limit := time.Minute
		if hangs {
			limit = 200 * time.Millisecond
			c.Answer(func(http.ResponseWriter, *http.Request) bool { <-release; return true })
		}
		p := start(t, smallTowers(index.Dot).named(t, Config{Traces: &traces.Options{Endpoint: c.URL, Share: 1, StopTimeout: limit}}))
		require.Equal(t, http.StatusOK, p.post(t, "Retrieve", alive1).status)
		began := time.Now()
		p.stop()
		require.NoError(t, <-p.done)
		require.Less(t, time.Since(began), 30*time.Second)
		require.Equal(t, hangs, len(c.Spans()) == 0)
	}
}

// TestUntracedRequestsPayNothing: where nothing is traced, or not this request, as much memory is
// taken for it as where there is no tracer.
func TestUntracedRequestsPayNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := smallTowers(index.Dot).loaded(t)
	h := NewHandler(s, Options{})
	body := []byte(alive1)
	ask := func(header ...string) float64 {
		least := math.Inf(1) // what runs beside, and collections, add to some
		for range 5 {
			least = min(least, testing.AllocsPerRun(200, func() {
				r, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, retrievePath, bytes.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				for i := 0; i < len(header); i += 2 {
					r.Header.Set(header[i], header[i+1])
				}
				h.ServeHTTP(discard{http.Header{}}, r)
			}))
		}
		return least
	}
	without, unflagged := ask(), ask("Traceparent", flagged[:53]+"00")
	tracer, err := traces.Start(traces.Options{Endpoint: tracetest.Start(t).URL}, s.events)
	require.NoError(t, err)
	defer func() { require.NoError(t, tracer.Stop()) }()
	s.traces = tracer
	require.InDelta(t, without, ask(), 0.5)
	require.InDelta(t, unflagged, ask("Traceparent", flagged[:53]+"00"), 0.5)
}

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
