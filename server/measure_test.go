package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/metrics"
)

// measured is loaded with metrics.
func (t *towers) measured(tb testing.TB) (*Service, *metrics.Metrics) {
	m := metrics.New()
	s := NewService(slog.New(slog.DiscardHandler), m.Listener())
	s.Serve(open(tb, t.publish(tb)))
	tb.Cleanup(s.Close)
	m.Follow(func() metrics.State { return s.measure(nil, nil) })
	return s, m
}

// families is what a scrape has.
type families map[string]*dto.MetricFamily

func scraped(tb testing.TB, text io.Reader) families {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(text)
	require.NoError(tb, err)
	return all
}

// scrape asks for metrics as Prometheus does.
func scrape(tb testing.TB, m *metrics.Metrics) families {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(tb, http.StatusOK, w.Code, w.Body)
	return scraped(tb, w.Body)
}

// sum adds what a metric has with labels, given as `name="value"`: values of counters and
// gauges, counts of histograms.
func (f families) sum(name string, labels ...string) (sum float64) {
	for _, one := range f[name].GetMetric() {
		has := map[string]bool{}
		for _, l := range one.Label {
			has[fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())] = true
		}
		all := true
		for _, l := range labels {
			all = all && has[l]
		}
		if all {
			sum += one.GetCounter().GetValue() + one.GetGauge().GetValue() + float64(one.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// series counts them as Prometheus does.
func (f families) series() (n int) {
	for _, family := range f {
		for _, one := range family.Metric {
			if h := one.GetHistogram(); h != nil {
				n += len(h.Bucket) + 1
			}
			n += 1 + len(one.GetSummary().GetQuantile())
		}
	}
	return n
}

const (
	requestsTotal = "grpc_server_requests_total"
	active        = "grpc_server_active_requests"
	ofRetrieve    = `grpc_method="Retrieve"`
)

// TestRPCsAreCounted asks by each protocol, well and badly. Each request counts once, as the
// method that it was for and with the code that its caller got.
func TestRPCsAreCounted(t *testing.T) {
	service, m := smallTowers(index.Dot).measured(t)
	s := serve(t, service, Options{})
	protocols := [][]connect.ClientOption{nil, {connect.WithProtoJSON()}, {connect.WithHTTPGet()}, {connect.WithGRPC()}, {connect.WithGRPCWeb()}}
	for _, options := range protocols {
		for _, r := range []*tandemv1.RetrieveRequest{{UserId: "u1", K: 3}, {UserId: "u1"}, {UserId: "nobody", K: 3}, {UserId: "u1", K: 3, ModelVersion: "v9"}} {
			_, _ = s.client(options...).Retrieve(t.Context(), connect.NewRequest(r)) // what they get is counted
		}
	}
	_, err := s.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{
		Requests: []*tandemv1.RetrieveRequest{{UserId: "u1", K: 3}, {UserId: "u2", K: 3, Segment: "free"}, {UserId: "nobody", K: 1}},
	}))
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, s.post(t, "Retrieve", "{").status)
	require.Equal(t, http.StatusNotFound, s.post(t, "Delete", "{}").status)
	require.Equal(t, http.StatusUnsupportedMediaType, s.post(t, "Retrieve", "{}", "Content-Type", "text/csv").status)
	require.Equal(t, http.StatusBadRequest, s.post(t, "Retrieve", "{}", "Content-Encoding", "gzip").status)
	require.Equal(t, http.StatusOK, s.get(t, "/readyz").status, "a probe is no RPC")
	require.Equal(t, http.StatusOK, s.get(t, "/healthz").status)
	require.NoError(t, eventually(func() error {
		if n := scrape(t, m).sum(active); n != 0 {
			return fmt.Errorf("%g are active", n)
		}
		return nil
	}))

	all := scrape(t, m)
	n := float64(len(protocols))
	for _, c := range []struct {
		want   float64
		labels string
	}{
		{n, ofRetrieve + ` grpc_success="true" grpc_code="OK"`},
		{n + 3, ofRetrieve + ` grpc_success="false" grpc_code="InvalidArgument"`},
		{n, ofRetrieve + ` grpc_success="false" grpc_code="NotFound"`},
		{n, ofRetrieve + ` grpc_success="false" grpc_code="FailedPrecondition"`},
		{4*n + 3, ofRetrieve},
		{1, `grpc_method="BatchRetrieve" grpc_code="OK"`},
		{1, `grpc_method="BatchRetrieve"`},
		{1, `grpc_service="unknown" grpc_method="unknown" grpc_code="Unimplemented"`},
		{4*n + 5, ``},
	} {
		labels := strings.Fields(c.labels)
		require.Equal(t, c.want, all.sum(requestsTotal, labels...), "%s\n%v", c.labels, all[requestsTotal])
		if !strings.Contains(c.labels, "grpc_code") {
			require.Equal(t, c.want, all.sum("grpc_server_latency_seconds", labels...), c.labels)
		}
	}
	control, free := `arm="control"`, `segment="free"`
	require.Equal(t, n+2, all.sum("tandem_query_candidates", control), "items of a batch are queries")
	require.Equal(t, 1.0, all.sum("tandem_query_candidates", control, free))
	for _, stage := range []string{"wait", "prepare", "search", "encode"} {
		require.Equal(t, n+2, all.sum("tandem_query_stage_seconds", control, fmt.Sprintf("stage=%q", stage)))
	}
	require.Equal(t, n+1, all.sum("tandem_query_not_found_total", control, `outcome="failed"`))
}

// eventually calls what will not fail any more before long: what a server does once its caller
// has the answer.
func eventually(f func() error) (err error) {
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return err
}

// TestActiveRequestsEnd holds that what panics, is aborted, or is taken back before it begins
// is no longer under way.
func TestActiveRequestsEnd(t *testing.T) {
	service, m := smallTowers(index.Dot).measured(t)
	writer := connect.NewErrorWriter()
	ask := func(ctx context.Context, next http.HandlerFunc) (panicked any) {
		defer func() { panicked = recover() }()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/tandem.v1.RetrievalService/Retrieve", strings.NewReader("{}"))
		service.exchanged(next, writer, newGate(2), &shedder{}).ServeHTTP(httptest.NewRecorder(), r)
		return nil
	}
	require.Nil(t, ask(t.Context(), func(http.ResponseWriter, *http.Request) { panic("no") }))
	require.Equal(t, http.ErrAbortHandler, ask(t.Context(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, http.ErrAbortHandler, ask(gone, nil))
	all := scrape(t, m)
	require.Zero(t, all.sum(active))
	require.Equal(t, 1.0, all.sum(requestsTotal, ofRetrieve, `grpc_code="Internal"`))
	require.Equal(t, 2.0, all.sum(requestsTotal, ofRetrieve, `grpc_code="Canceled"`))
}

// TestSheds looks at what is told of requests that are refused for what there is too much of.
func TestSheds(t *testing.T) {
	service, m := smallTowers(index.Dot).measured(t)
	s, l := serveLimited(t, service, Options{MaxInFlight: 1})
	k := cost{work: time.Microsecond}
	require.NoError(t, l.work.enter(&k))
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithHTTPGet()} {
		_, err := s.client(option).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
		require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
	}
	l.work.leave(&k)
	w := httptest.NewRecorder()
	full := few(make(chan struct{}), connect.NewErrorWriter(), nil)
	service.exchanged(full, connect.NewErrorWriter(), newGate(2), &shedder{}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/grpc.health.v1.Health/Watch", nil))
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	waits := gated(&shedder{waiting: 1000, each: time.Second}, testAdmission(), &refusals{errors: connect.NewErrorWriter()}, nil)
	w = httptest.NewRecorder()
	service.exchanged(waits, connect.NewErrorWriter(), newGate(2), &shedder{}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, retrievePath, nil))
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, events.ShedQuotaCPU, shedOf(quotaError(&auth.ExceededError{InTime: true})))
	require.Equal(t, events.ShedQuotaInFlight, shedOf(quotaError(&auth.ExceededError{})))
	all := scrape(t, m)
	require.Equal(t, 3.0, all.sum("tandem_shed_requests_total", `reason="requests"`))
	require.Equal(t, 1.0, all.sum("tandem_shed_requests_total", `reason="streams"`))
	require.Equal(t, 1.0, all.sum("tandem_shed_requests_total", `reason="wait"`))
	require.Equal(t, 5.0, all.sum("tandem_shed_requests_total"))
}

// TestStaleAnswersAreNotTold holds that an answer which does not pass the fence is none.
func TestStaleAnswersAreNotTold(t *testing.T) {
	told := 0
	c := &call{told: []*events.Answer{{}}, exchange: &exchange{service: NewService(slog.New(slog.DiscardHandler), &events.Listener{
		Answered: func(*events.Answer) { told++ },
	})}}
	c.Context = t.Context()
	notAnswered(c)
	c.tellAnswers()
	require.Zero(t, told)
}

// TestSeriesAreBounded has 100,000 callers that are all different: users, filters, segments,
// ids, user agents and paths. What they make up is in no label.
func TestSeriesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks 100,000 times")
	}
	data := smallTowers(index.Dot)
	data.mean = make([]float32, data.dim)
	data.mean[0] = 1
	service, m := data.measured(t)
	h := NewHandler(service, Options{})
	ask := func(path, body, agent string) {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User-Agent", agent)
		r.RemoteAddr = net.JoinHostPort("10.0.0.1", agent[1:min(len(agent), 5)])
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	callers := 100_000
	if isRace() {
		callers /= 50
	}
	for i := range callers {
		agent, path := fmt.Sprintf("agent%d", i), "/tandem.v1.RetrievalService/Retrieve"
		body := fmt.Sprintf(`{"userId": "user%d", "k": 1, "requestId": "r%d"`, i, i)
		switch i % 5 {
		case 0:
			body += fmt.Sprintf(`, "filter": "min_age < %d", "fallback": "FALLBACK_MEAN_USER"}`, i)
		case 1:
			body += fmt.Sprintf(`, "segment": "segment%d", "fallback": "FALLBACK_MEAN_USER"}`, i)
		case 2:
			body += fmt.Sprintf(`, "segment": "segment%d"}`, i)
		case 3:
			body += fmt.Sprintf(`, "modelVersion": "v%d"`, i) // it cannot be decoded
		case 4:
			path += fmt.Sprint(i)
		}
		ask(path, body, agent)
		if i == callers/10 || i == callers-1 {
			t.Logf("after %d callers: %d series", i+1, scrape(t, m).series())
		}
	}
	all := scrape(t, m)
	require.Equal(t, float64(callers), all.sum(requestsTotal))
	require.Equal(t, float64(callers/5), all.sum("tandem_query_candidates"))
	require.LessOrEqual(t, all.series(), metrics.Series(1, len(segments), 13))
	require.Less(t, all.series(), 1000, "one arm, of which two segments were asked for")
}

// isRace reports whether the race detector is on, with which all takes ten times as long.
func isRace() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestAdmin looks at a server as those who operate it do, from before it has anything to
// serve.
func TestAdmin(t *testing.T) {
	var admin net.Addr
	c := smallTowers(index.Dot).named(t, Config{Admin: &adminhttp.Options{Listen: "127.0.0.1:0", Listening: func(a net.Addr) { admin = a }}})
	p := start(t, c)
	p.await("listening for admin")
	a := newSite(t, admin)
	for path, text := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n", "/startupz": "started\n"} {
		got := a.get(t, path)
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, text, string(got.body))
	}
	require.Equal(t, http.StatusOK, p.post(t, "Retrieve", heldRequest).status)
	got := a.get(t, "/metrics")
	require.Equal(t, http.StatusOK, got.status)
	all := scraped(t, bytes.NewReader(got.body))
	require.Equal(t, 1.0, all.sum(requestsTotal))
	require.Equal(t, 1.0, all.sum("tandem_ready"))
	require.Equal(t, 60.0, all.sum("tandem_rows", `arm="control"`, `tower="apps"`))
	require.Positive(t, all.sum("tandem_mapped_bytes"))
	require.Positive(t, all.sum("tandem_live_fence_seconds"))
	require.Positive(t, all.sum("tandem_connections"))
	require.Positive(t, all.sum("tandem_admitted_requests_limit"))
	require.Equal(t, 1.0, all.sum("tandem_snapshot_info", `arm="control"`, `model_version="v1"`, fmt.Sprintf("snapshot=%q", c.Snapshot)))
	require.InDelta(t, time.Now().Unix(), all.sum("tandem_snapshot_published_timestamp_seconds"), 600)
	require.Positive(t, all.sum("tandem_resident_memory_bytes", `kind="file"`))
	require.Contains(t, all, "go_goroutines")
	require.Contains(t, all, "process_open_fds")
	p.stop()
	require.NoError(t, <-p.done)
	_, err := net.Dial("tcp", admin.String())
	require.Error(t, err, "it ends with the server")
}

// TestAdminLastsLongest holds that a server can be looked at while it has nothing to serve yet,
// and while it drains.
func TestAdminLastsLongest(t *testing.T) {
	service := NewService(slog.New(slog.DiscardHandler))
	c := &Config{Metrics: metrics.New()}
	var addr net.Addr
	c.Admin = &adminhttp.Options{Listen: "127.0.0.1:0", Listening: func(a net.Addr) { addr = a }}
	end, err := service.startAdmin(c, nil)
	require.NoError(t, err)
	a := newSite(t, addr)
	probe := func(path string, status int, text string) {
		t.Helper()
		got := a.get(t, path)
		require.Equal(t, status, got.status)
		require.Equal(t, text+"\n", string(got.body))
	}
	probe("/healthz", http.StatusOK, "ok")
	probe("/readyz", http.StatusServiceUnavailable, "loading")
	probe("/startupz", http.StatusServiceUnavailable, "loading")
	service.Serve(open(t, smallTowers(index.Dot).publish(t)))
	probe("/readyz", http.StatusOK, "ready")
	probe("/startupz", http.StatusOK, "started")
	service.Drain()
	probe("/healthz", http.StatusOK, "ok")
	probe("/readyz", http.StatusServiceUnavailable, "draining")
	probe("/startupz", http.StatusOK, "started")
	service.Close()
	probe("/readyz", http.StatusServiceUnavailable, "draining")
	require.NoError(t, end())
}

// TestAdminIsRefused holds that a server does not begin without the listener that it is to
// have.
func TestAdminIsRefused(t *testing.T) {
	c := Config{Listen: "127.0.0.1:0", Admin: &adminhttp.Options{Listen: ":6060"}, Logger: slog.New(slog.DiscardHandler)}
	require.ErrorContains(t, Run(t.Context(), c), `admin address ":6060" is reached by other machines`)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	c.Admin.Listen = taken.Addr().String()
	require.ErrorContains(t, Run(t.Context(), c), "address already in use")
}

// benchmarkMetrics asks the whole handler of a server with and without metrics in turns, and
// reports what both use of the processors in the median turn: on a machine that does something
// else meanwhile, time and means say little.
func benchmarkMetrics(b *testing.B) {
	m, counts := metrics.New(), false
	l := m.Listener()
	s := NewService(slog.New(slog.DiscardHandler), &events.Listener{
		Arms:       l.Arms,
		RPCBegin:   switched(&counts, l.RPCBegin),
		RPCEnd:     switched(&counts, l.RPCEnd),
		Answered:   switched(&counts, l.Answered),
		RequestEnd: switched(&counts, l.RequestEnd),
	})
	s.Serve(open(b, newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 64, 20_000, 100, 2).publish(b)))
	b.Cleanup(s.Close)
	h := NewHandler(s, Options{})
	body, err := proto.Marshal(&tandemv1.RetrieveRequest{UserId: "u1", K: 100, Ef: new(uint32(100))})
	require.NoError(b, err)
	w := newRecorder()
	ask := func() error {
		r, err := http.NewRequest(http.MethodPost, "/tandem.v1.RetrievalService/Retrieve", bytes.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/proto")
		w.Body.Reset()
		if h.ServeHTTP(w, r); w.Code != http.StatusOK {
			return errors.New(w.Body.String())
		}
		return nil
	}
	const turn = 20
	var used [2][]float64 // of each turn
	for asked := 0; b.Loop(); asked++ {
		for i := range used {
			i = (i + asked) % 2 // each goes first every other time
			counts = i == 1
			before := processorTime()
			for range turn {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
			used[i] = append(used[i], float64((processorTime()-before).Nanoseconds())/turn)
		}
	}
	off, on := median(used[0]), median(used[1])
	b.ReportMetric(off, "off-cpu-ns/query")
	b.ReportMetric(on, "on-cpu-ns/query")
	b.ReportMetric(100*(on/off-1), "%more")
	require.Positive(b, scrape(b, m).sum("tandem_query_candidates"))
}

// switched calls f while on is set.
func switched[T any](on *bool, f func(T)) func(T) {
	return func(event T) {
		if *on {
			f(event)
		}
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
