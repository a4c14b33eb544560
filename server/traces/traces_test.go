package traces_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/goleak"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/server/traces/tracetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told keeps what became of spans.
type told struct {
	mu      sync.Mutex
	list    []events.Traced
	changed chan struct{}
}

func newTold() *told { return &told{changed: make(chan struct{}, 1)} }

func (o *told) listener() *events.Listener {
	return &events.Listener{Traced: func(e events.Traced) {
		o.mu.Lock()
		o.list = append(o.list, e)
		o.mu.Unlock()
		select {
		case o.changed <- struct{}{}:
		default:
		}
	}}
}

func (o *told) sum(outcome events.TraceOutcome) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.list {
		if e.Outcome == outcome {
			n += e.N
		}
	}
	return n
}

// turns are the changes for the worse and the better.
func (o *told) turns() (list []events.Traced) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.list {
		if e.Turned {
			list = append(list, e)
		}
	}
	return list
}

// await waits until so many spans have had an outcome.
func (o *told) await(t *testing.T, outcome events.TraceOutcome, n int) {
	late := time.After(time.Minute)
	for o.sum(outcome) < n {
		select {
		case <-o.changed:
		case <-late:
			require.Failf(t, "not told", "outcome %d: %d of %d", outcome, o.sum(outcome), n)
		}
	}
}

func start(t *testing.T, o traces.Options, told *events.Listener) *traces.Tracer {
	tracer, err := traces.Start(o, told)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tracer.Stop()) })
	return tracer
}

// one makes a trace of a request and some stages, and reports whether it was traced.
func one(tracer *traces.Tracer, stages int) bool {
	trace := tracer.Begin(http.Header{}, time.Now())
	if trace == nil {
		return false
	}
	for i := range stages {
		trace.Span().Begin(fmt.Sprint("stage", i)).End()
	}
	trace.End("request")
	return true
}

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

func parent(flags string) http.Header {
	return http.Header{"Traceparent": {"00-" + traceID + "-" + spanID + "-" + flags}}
}

// TestParents tells well-formed headers from others.
func TestParents(t *testing.T) {
	for text, want := range map[string]string{
		"00-" + traceID + "-" + spanID + "-00":                    "no",
		"00-" + traceID + "-" + spanID + "-01":                    "yes",
		"00-" + traceID + "-" + spanID + "-02":                    "no",
		"00-" + traceID + "-" + spanID + "-ff":                    "yes",
		"cc-" + traceID + "-" + spanID + "-01":                    "yes",
		"cc-" + traceID + "-" + spanID + "-01-what-comes-later":   "yes",
		"00-" + traceID + "-" + spanID + "-01-what-comes-later":   "",
		"cc-" + traceID + "-" + spanID + "-01.":                   "",
		"ff-" + traceID + "-" + spanID + "-01":                    "",
		"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01":    "",
		"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01":   "",
		"00-" + strings.ToUpper(traceID) + "-" + spanID + "-01":   "",
		"00-" + traceID[1:] + "g-" + spanID + "-01":               "",
		"00-" + traceID + "-" + spanID + "-0":                     "",
		"00-" + traceID + "-" + spanID + "-0x":                    "",
		"00-" + traceID + "_" + spanID + "-01":                    "",
		" 00-" + traceID + "-" + spanID + "-01":                   "",
		"":                                                        "",
		"00-" + traceID:                                           "",
		strings.Repeat("00-"+traceID+"-"+spanID+"-01", 1000):      "",
		"00-" + strings.Repeat("\xff", 32) + "-" + spanID + "-01": "",
	} {
		p, ok := traces.ParentOf(http.Header{"Traceparent": {text}})
		require.Equal(t, want != "", ok, text)
		require.Equal(t, want == "yes", p.Sampled, text)
		if ok {
			require.Equal(t, traceID, p.ID)
		}
	}
	_, ok := traces.ParentOf(http.Header{"Traceparent": {"00-" + traceID + "-" + spanID + "-01", "00-" + traceID + "-" + spanID + "-01"}})
	require.False(t, ok, "two of them")
	_, ok = traces.ParentOf(http.Header{})
	require.False(t, ok)
}

// TestWhoIsTraced asks with each flag, before and after it is known that the caller may ask, where
// all and none of the others are traced.
func TestWhoIsTraced(t *testing.T) {
	c := tracetest.Start(t)
	for _, share := range []float64{0, 1} {
		tracer := start(t, traces.Options{Endpoint: c.URL, Share: share}, newTold().listener())
		for name, test := range map[string]struct {
			header            http.Header
			begins, continues bool
		}{
			"no parent":     {http.Header{}, share == 1, false},
			"malformed":     {http.Header{"Traceparent": {"00-" + traceID}}, share == 1, false},
			"sampled":       {parent("01"), false, true},
			"sampled later": {parent("03"), false, true},
			"not sampled":   {parent("00"), false, false},
		} {
			begun, continued := tracer.Begin(test.header, time.Now()), tracer.Continue(test.header, time.Now())
			require.Equal(t, test.begins, begun != nil, name)
			require.Equal(t, test.continues, continued != nil, name)
			if continued != nil {
				require.Equal(t, traceID, continued.ID())
				require.Regexp(t, "^00-"+traceID+"-[0-9a-f]{16}-0[13]$", continued.Response())
			}
		}
	}
	var none *traces.Tracer
	require.Nil(t, none.Begin(http.Header{}, time.Now()))
	require.Nil(t, none.Continue(parent("01"), time.Now()))
	require.NoError(t, none.Stop())
}

// TestSpans has a trace with stages within stages arrive as it was told, below the span of its
// caller.
func TestSpans(t *testing.T) {
	c := tracetest.Start(t)
	tracer, err := traces.Start(traces.Options{Endpoint: c.URL, Version: "tandem 1"}, newTold().listener())
	require.NoError(t, err)
	header := parent("01")
	header.Set("Tracestate", "vendor=value")
	begun := time.Now().Add(-time.Second)
	trace := tracer.Continue(header, begun)
	outer := trace.Span().BeginAt("outer", begun)
	inner := outer.Begin("inner")
	inner.Set(attribute.String("a", "b"))
	inner.Fail("why")
	inner.EndAt(begun.Add(time.Millisecond))
	inner.End()
	outer.EndAt(begun.Add(2 * time.Millisecond))
	trace.Span().Begin("never ends")
	trace.End("name")
	trace.End("twice")
	require.NoError(t, tracer.Stop())
	require.NoError(t, tracer.Stop())

	spans := map[string]tracetest.Span{}
	for _, s := range c.Await(t, 4) {
		require.Equal(t, traceID, s.Trace)
		require.Equal(t, "vendor=value", s.State)
		spans[s.Name] = s
	}
	require.Len(t, spans, 4)
	require.Equal(t, "tandem", c.Service())
	require.Equal(t, spanID, spans["name"].Parent)
	require.Equal(t, spans["name"].ID, spans["outer"].Parent)
	require.Equal(t, spans["outer"].ID, spans["inner"].Parent)
	require.Equal(t, begun.UnixNano(), spans["name"].Start.UnixNano())
	require.Equal(t, time.Millisecond, spans["inner"].End.Sub(begun).Round(time.Microsecond))
	require.Equal(t, spans["name"].End, spans["never ends"].End)
	require.Equal(t, map[string]any{"a": "b"}, spans["inner"].Attributes)
	require.True(t, spans["inner"].Failed)
	require.Equal(t, "why", spans["inner"].Status)
}

// TestLongStatesAreLeftOut: each span would have them.
func TestLongStatesAreLeftOut(t *testing.T) {
	c := tracetest.Start(t)
	tracer, err := traces.Start(traces.Options{Endpoint: c.URL}, newTold().listener())
	require.NoError(t, err)
	header := parent("01")
	header.Set("Tracestate", "vendor="+strings.Repeat("x", 200)+",b="+strings.Repeat("x", 200)+",c="+strings.Repeat("x", 200))
	tracer.Continue(header, time.Now()).End("name")
	require.NoError(t, tracer.Stop())
	require.Empty(t, c.Await(t, 1)[0].State)
}

// TestMostSpans has no trace grow beyond what one may have: what is left out is counted, and what
// is within that too.
func TestMostSpans(t *testing.T) {
	c := tracetest.Start(t)
	tracer, err := traces.Start(traces.Options{Endpoint: c.URL, Share: 1}, newTold().listener())
	require.NoError(t, err)
	trace := tracer.Begin(http.Header{}, time.Now())
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 100 {
				s := trace.Span().Begin("stage")
				s.Begin("within").End()
				s.End()
			}
		})
	}
	all.Wait()
	trace.End("name")
	require.NoError(t, tracer.Stop())
	spans := c.Await(t, traces.MostSpans)
	require.Len(t, spans, traces.MostSpans)
	require.Equal(t, 2000-traces.MostSpans+1, spans[len(spans)-1].Attributes["tandem.spans.left_out"])
}

// TestCallersCannotForceTraces has a caller flag every request: some are traced, and the server's
// own are still.
func TestCallersCannotForceTraces(t *testing.T) {
	c, told := tracetest.Start(t), newTold()
	tracer := start(t, traces.Options{Endpoint: c.URL, Share: 1, MaxSpans: 100}, told.listener())
	flagged := 0
	for range 10_000 {
		if trace := tracer.Continue(parent("01"), time.Now()); trace != nil {
			flagged++
			for range 15 {
				trace.Span().Begin("stage").End()
			}
			trace.End("name")
		}
	}
	require.Positive(t, flagged)
	require.Less(t, flagged, 100, "10,000 that were flagged, at 16 spans each, of 100 spans a second")
	require.Equal(t, 10_000-flagged, told.sum(events.TraceLimited))
	require.True(t, one(tracer, 1), "some are left for those that nobody has flagged")
	own := 0
	for range 10_000 {
		if one(tracer, 1) {
			own++
		}
	}
	require.Less(t, own, 1000)
}

// TestCollectorRefuses has a collector refuse, and take spans again: nothing waits for it, what is
// lost is counted, and both are told once.
func TestCollectorRefuses(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	c, told := tracetest.Start(t), newTold()
	c.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, strings.Repeat("no ", 10_000), http.StatusBadRequest)
		return true
	})
	tracer := start(t, traces.Options{Endpoint: c.URL, Share: 1}, told.listener())
	for i := range 5 {
		require.True(t, one(tracer, 3))
		told.await(t, events.SpansFailed, 4*(i+1))
	}
	c.Answer(nil)
	for i := range 5 {
		require.True(t, one(tracer, 3))
		told.await(t, events.SpansSent, 4*(i+1))
	}
	turns := told.turns()
	require.Len(t, turns, 2)
	require.Equal(t, events.SpansFailed, turns[0].Outcome)
	require.ErrorContains(t, turns[0].Err, "400 Bad Request")
	require.Less(t, len(turns[0].Err.Error()), 600)
	require.Equal(t, events.SpansSent, turns[1].Outcome)
	require.Equal(t, 20, turns[1].Lost)
	require.Len(t, c.Spans(), 20)
}

// TestCollectorTakesSome has a collector say how many of the spans it did not take: all stages,
// in however many requests the spans come.
func TestCollectorTakesSome(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	c, told := tracetest.Start(t), newTold()
	answer := func(rejects func(name string) bool, text string) {
		c.Answer(func(w http.ResponseWriter, r *http.Request) bool {
			_, m, err := tracetest.Decode(r)
			if err != nil {
				return false
			}
			var rejected int64
			for _, of := range m.ResourceSpans {
				for _, by := range of.ScopeSpans {
					for _, s := range by.Spans {
						if rejects(s.Name) {
							rejected++
						}
					}
				}
			}
			body, err := proto.Marshal(&collectorv1.ExportTraceServiceResponse{PartialSuccess: &collectorv1.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: text}})
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, writeErr := w.Write(body)
			return errors.Join(err, writeErr) == nil
		})
	}
	tracer := start(t, traces.Options{Endpoint: c.URL, Share: 1}, told.listener())
	answer(func(string) bool { return false }, "a warning")
	require.True(t, one(tracer, 3))
	told.await(t, events.SpansSent, 4)
	answer(func(name string) bool { return strings.HasPrefix(name, "stage") }, "too\nmany (5 spans rejected)")
	require.True(t, one(tracer, 3))
	told.await(t, events.SpansSent, 5)
	require.Equal(t, 3, told.sum(events.SpansFailed))
}

// TestCollectorHangs has a collector take requests and never answer: traces go on being made and
// dropped, whole ones, no request waits, and the end is bounded.
func TestCollectorHangs(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "600000") // only Stop gives up
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
	c, told := tracetest.Start(t), newTold()
	hanging, release := make(chan struct{}, 100), make(chan struct{})
	t.Cleanup(func() { close(release) })
	c.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		hanging <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-release:
		}
		return true
	})
	tracer, err := traces.Start(traces.Options{Endpoint: c.URL, Share: 1, MaxSpans: 1_000_000, Queue: 300, StopTimeout: 100 * time.Millisecond}, told.listener())
	require.NoError(t, err)
	require.True(t, one(tracer, 9))
	<-hanging
	began := time.Now()
	for range 1000 {
		require.True(t, one(tracer, 9))
	}
	require.Less(t, time.Since(began), time.Minute, "1,000 requests, while the collector hangs")
	require.Equal(t, (1001-30)*10, told.sum(events.SpansDropped))
	require.NoError(t, tracer.Stop())
	require.Equal(t, 300, told.sum(events.SpansFailed), "what waited at the end")
	require.Less(t, time.Since(began), 2*time.Minute)
	turns := told.turns()
	require.Len(t, turns, 1)
	require.Equal(t, events.SpansDropped, turns[0].Outcome)
}

// TestCollectorIsAway has nobody listen, from the beginning.
func TestCollectorIsAway(t *testing.T) {
	told := newTold()
	tracer, err := traces.Start(traces.Options{Endpoint: "http://127.0.0.1:1/v1/traces", Share: 1, StopTimeout: 5 * time.Second}, told.listener())
	require.NoError(t, err)
	require.True(t, one(tracer, 1))
	require.NoError(t, tracer.Stop())
	require.Equal(t, 2, told.sum(events.SpansFailed))
}

// TestCollectorIsSlow has a collector answer only now and then; all that it was sent arrives.
func TestCollectorIsSlow(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	c, told := tracetest.Start(t), newTold()
	answers := make(chan struct{})
	c.Answer(func(http.ResponseWriter, *http.Request) bool { <-answers; return false })
	tracer, err := traces.Start(traces.Options{Endpoint: c.URL, Share: 1, MaxSpans: 1_000_000}, told.listener())
	require.NoError(t, err)
	for range 50 {
		require.True(t, one(tracer, 3))
	}
	close(answers)
	require.NoError(t, tracer.Stop())
	require.Len(t, c.Await(t, 200), 200)
	require.Equal(t, 200, told.sum(events.SpansSent))
	require.Empty(t, told.turns())
}
