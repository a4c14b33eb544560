package metrics_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/shard/manifest"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const retrieve = "/tandem.v1.RetrievalService/Retrieve"

// state is one in which every metric has a value.
func state() metrics.State {
	tower := metrics.Tower{Rows: 10, Dead: 1, Changed: 2, Fresh: 3, FreshBytes: 4, Windows: 5, Misfits: 6}
	return metrics.State{
		Phase: metrics.Serving, Ready: true, Generation: 7, Target: 8, Since: time.Unix(1e9, 0),
		Arms:     []metrics.Arm{{Name: "control", Weight: 900, Published: time.Unix(1e9, 0), Inputs: 3, Apps: tower, Users: tower, Recall: strata("control", 1)}},
		Mapped:   []metrics.Mapped{{Snapshot: "ab", Model: "feed", ModelVersion: "v1", Arm: "control"}},
		Releases: metrics.Log{Followed: true, Staleness: time.Second},
		Live:     &metrics.Live{Log: metrics.Log{Followed: true}, Position: 9, Fence: 5 * time.Second},
		Memory:   metrics.Memory{Mapped: 1 << 20, Limit: 1 << 30},
		CPU:      metrics.CPU{GroupWait: told(3 * time.Second), MachineWait: told(4 * time.Second), Throttled: told(1500 * time.Millisecond)},
		Load:     &metrics.Load{Requests: 1, MaxRequests: 2}, Connections: &metrics.Connections{Open: 1, Max: 2},
		Audits:      &audit.Counts{Audits: 5, Used: time.Second, Longest: time.Millisecond},
		Certificate: &metrics.Certificate{From: time.Unix(1, 0), Until: time.Unix(2, 0)},
		Cluster:     &metrics.Cluster{Ready: 3, Out: 1, Shards: 8, Short: 2, Lag: time.Second, Hedges: 5},
	}
}

// told is a time that the kernel tells.
func told(d time.Duration) *time.Duration { return &d }

// TestCPU holds what is shown of processors, and that what the kernel does not tell is left out.
func TestCPU(t *testing.T) {
	m := metrics.New()
	s := state()
	m.Follow(func() metrics.State { return s })
	all := scrape(t, m)
	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{3, "tandem_cpu_wait_seconds_total", []string{"scope", "group"}},
		{4, "tandem_cpu_wait_seconds_total", []string{"scope", "machine"}},
		{1.5, "tandem_cpu_throttled_seconds_total", nil},
	} {
		got, ok := value(all, c.name, c.labels...)
		require.True(t, ok, c.name)
		require.Equal(t, c.want, got, c.name)
	}
	s.CPU = metrics.CPU{MachineWait: told(0)}
	all = scrape(t, m)
	require.Len(t, all["tandem_cpu_wait_seconds_total"].Metric, 1)
	require.NotContains(t, all, "tandem_cpu_throttled_seconds_total")
}

// strata are all that an arm of so many segments may have.
func strata(arm string, segments int) (list []audit.Stratum) {
	add := func(kind audit.Kind, name string) {
		list = append(list, audit.Stratum{
			Arm: arm, Kind: kind, Name: name, Audits: 40, Total: 50, Enough: true,
			Recall: 0.95, WorstDecile: 0.8, Reference: 0.97, Low: 0.9, High: 0.949, Floor: 0.95,
		})
	}
	add(audit.All, "")
	for _, plan := range []string{"exact_scan", "filtered_walk", "graph_walk", "mixed"} {
		add(audit.Plan, plan)
	}
	for i := range segments {
		add(audit.Segment, fmt.Sprint("segment", i))
	}
	add(audit.Segment, audit.OtherSegments)
	add(audit.Ef, "")
	for i := range 64 {
		add(audit.Node, fmt.Sprint("node", i))
	}
	return list
}

// answer is one of an arm.
func answer(arm, segment string, plan tandemv1.Plan) *events.Answer {
	return &events.Answer{
		Arm: arm, Segment: segment, Plan: plan, K: 10, Candidates: 3, Short: tandemv1.ShortReason_SHORT_REASON_ELIGIBLE,
		Eligible: 3, Distances: 300, Coverage: 1, Fallback: true, Interleaving: events.Interleaved, Explored: true, Prepare: time.Millisecond, Search: 3 * time.Millisecond,
	}
}

// everything has each metric count something.
func everything(m *metrics.Metrics) {
	m.Follow(state)
	l := m.Listener()
	serve(l, events.ServedArm{Name: "control", Segments: []string{"kids"}})
	l.Answered(answer("control", "kids", tandemv1.Plan_PLAN_GRAPH_WALK))
	l.NotFound(events.NotFound{Arm: "control"})
	l.RPCBegin(retrieve)
	l.RPCEnd(events.RPC{Procedure: retrieve, Duration: time.Millisecond})
}

func serve(l *events.Listener, arms ...events.ServedArm) {
	l.Arms(events.Arms{List: arms})
	l.Arms(events.Arms{List: arms, Done: true})
}

// scrape asks for the metrics as Prometheus does, and reads them as it does.
func scrape(tb testing.TB, m *metrics.Metrics) map[string]*dto.MetricFamily {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(tb, 200, w.Code, w.Body)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(w.Body)
	require.NoError(tb, err)
	return all
}

// series counts what a scrape has as Prometheus does.
func series(all map[string]*dto.MetricFamily) (n int) {
	for _, f := range all {
		for _, one := range f.Metric {
			switch f.GetType() {
			case dto.MetricType_HISTOGRAM:
				n += len(one.GetHistogram().GetBucket()) + 2
			case dto.MetricType_SUMMARY:
				n += len(one.GetSummary().GetQuantile()) + 2
			default:
				n++
			}
		}
	}
	return n
}

// value returns the value of a counter, a gauge, or the count of a histogram with labels, such
// as "arm", "control", and whether it is there.
func value(all map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
	sum, found := 0.0, false
	for _, one := range all[name].GetMetric() {
		if !hasLabels(one, labels) {
			continue
		}
		found = true
		sum += one.GetCounter().GetValue() + one.GetGauge().GetValue() + float64(one.GetHistogram().GetSampleCount())
	}
	return sum, found
}

func hasLabels(one *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if !slices.ContainsFunc(one.Label, func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
			return false
		}
	}
	return true
}

// isOurs reports whether a metric is none of the Go runtime, the process and the handler,
// which their packages describe.
func isOurs(name string) bool {
	return strings.HasPrefix(name, "tandem_") || strings.HasPrefix(name, "grpc_")
}

// TestNames holds names, types, labels and helps: dashboards and alerts rely on them.
func TestNames(t *testing.T) {
	m := metrics.New()
	everything(m)
	all := scrape(t, m)
	var text strings.Builder
	for _, name := range names(all) {
		f := all[name]
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		fmt.Fprintf(&text, "%s %s {%s}\n    %s\n", name, strings.ToLower(f.GetType().String()), strings.Join(labels, ","), f.GetHelp())
	}
	const golden = "testdata/names.txt"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), text.String())
}

// names are those of our metrics, ascending.
func names(all map[string]*dto.MetricFamily) (list []string) {
	for name := range all {
		if isOurs(name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// TestLint has Prometheus' own linter look at what is scraped.
func TestLint(t *testing.T) {
	m := metrics.New()
	everything(m)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	problems, err := promlint.New(bytes.NewReader(w.Body.Bytes())).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestPage holds that the page for people names each metric, each of its labels and no other
// metric.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	rows := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			if isOurs(name) {
				rows[name] = rest
			}
		}
	}
	m := metrics.New()
	everything(m)
	all := scrape(t, m)
	for _, name := range names(all) {
		require.Contains(t, rows, name, "metrics of docs/metrics.md")
		for _, l := range all[name].Metric[0].Label {
			require.Contains(t, rows[name], "`"+l.GetName()+"`", "labels of %s", name)
		}
		delete(rows, name)
	}
	require.Empty(t, rows, "metrics of docs/metrics.md that there are not")
	// They change with the number of methods and of metrics.
	for _, n := range []string{
		fmt.Sprintf("at most %d series", metrics.MostSeries()),
		fmt.Sprintf("(%d, and `unknown`)", len(paths(served))),
		fmt.Sprintf("%d for one arm of 4 segments", metrics.Series(1, 4, len(paths(served))+1)),
		fmt.Sprintf("%d for two arms of 16 segments each", metrics.Series(2, 32, len(paths(served))+1)),
	} {
		require.Contains(t, strings.Join(strings.Fields(string(data)), " "), n)
	}
}

// TestRPCs holds the conventions of Baseplate.go: names, labels and how they are written, and
// buckets.
func TestRPCs(t *testing.T) {
	m := metrics.New()
	l := m.Listener()
	end := func(procedure string, code connect.Code) {
		l.RPCBegin(procedure)
		l.RPCEnd(events.RPC{Procedure: procedure, Code: code, Duration: 3 * time.Millisecond})
	}
	end(retrieve, 0)
	end(retrieve, connect.CodeInvalidArgument)
	end("/tandem.v1.LiveService/Import", connect.CodeDeadlineExceeded)
	end("/grpc.health.v1.Health/Check", 0)
	end("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", connect.CodeCanceled)
	end("/tandem.v1.RetrievalService/Delete", connect.CodeUnimplemented)
	end("", connect.CodeInvalidArgument)
	l.RPCBegin("/tandem.v1.RetrievalService/BatchRetrieve")

	all := scrape(t, m)
	count := func(want float64, name string, labels ...string) {
		t.Helper()
		got, ok := value(all, name, labels...)
		require.True(t, ok, "%s %v", name, labels)
		require.Equal(t, want, got, "%s %v", name, labels)
	}
	const total = "grpc_server_requests_total"
	count(1, total, "grpc_service", "tandem.v1.RetrievalService", "grpc_method", "Retrieve", "grpc_type", "unary", "grpc_success", "true", "grpc_code", "OK")
	count(1, total, "grpc_service", "tandem.v1.RetrievalService", "grpc_method", "Retrieve", "grpc_type", "unary", "grpc_success", "false", "grpc_code", "InvalidArgument")
	count(1, total, "grpc_service", "tandem.v1.LiveService", "grpc_method", "Import", "grpc_type", "client_stream", "grpc_success", "false", "grpc_code", "DeadlineExceeded")
	count(1, total, "grpc_service", "grpc.health.v1.Health", "grpc_method", "Check", "grpc_type", "unary", "grpc_success", "true", "grpc_code", "OK")
	count(1, total, "grpc_service", "grpc.reflection.v1.ServerReflection", "grpc_method", "ServerReflectionInfo", "grpc_type", "bidi_stream", "grpc_success", "false", "grpc_code", "Canceled")
	count(1, total, "grpc_service", "unknown", "grpc_method", "unknown", "grpc_type", "unary", "grpc_success", "false", "grpc_code", "Unimplemented")
	count(1, total, "grpc_service", "unknown", "grpc_code", "InvalidArgument")
	count(1, "grpc_server_active_requests", "grpc_service", "tandem.v1.RetrievalService", "grpc_method", "BatchRetrieve", "grpc_type", "unary")
	count(1, "grpc_server_active_requests")
	count(1, "grpc_server_latency_seconds", "grpc_service", "tandem.v1.RetrievalService", "grpc_method", "Retrieve", "grpc_type", "unary", "grpc_success", "true")

	var bounds []float64
	for _, b := range all["grpc_server_latency_seconds"].Metric[0].GetHistogram().Bucket {
		bounds = append(bounds, b.GetUpperBound())
	}
	require.Equal(t, []float64{0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 30}, bounds[:15])
}

// TestNativeHistograms are beside the classic buckets, for who asks in protobuf.
func TestNativeHistograms(t *testing.T) {
	m := metrics.New()
	everything(m)
	families, err := m.Registry().Gather()
	require.NoError(t, err)
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "grpc_server_latency_seconds" })
	h := families[i].Metric[0].GetHistogram()
	require.Equal(t, int32(3), h.GetSchema(), "2^(1/8) is the widest step of at most 1.1")
	require.NotEmpty(t, h.PositiveSpan)
	require.Len(t, h.Bucket, 15)
}

// TestQueries looks at what queries are told of as.
func TestQueries(t *testing.T) {
	m := metrics.New()
	l := m.Listener()
	serve(l, events.ServedArm{Name: "control", Segments: []string{"kids"}})
	l.Answered(answer("control", "kids", tandemv1.Plan_PLAN_GRAPH_WALK))
	l.Answered(answer("control", "", tandemv1.Plan_PLAN_EXACT_SCAN))
	l.Answered(answer("control", "made up", tandemv1.Plan_PLAN_MIXED))
	l.Answered(answer("made up", "kids", tandemv1.Plan_PLAN_UNSPECIFIED))
	l.NotFound(events.NotFound{Arm: "control", Segment: "made up"})
	all := scrape(t, m)
	for _, labels := range [][]string{
		{"arm", "control", "plan", "graph_walk", "segment", "kids"},
		{"arm", "control", "plan", "exact_scan", "segment", ""},
		{"arm", "control", "plan", "mixed", "segment", "other"},
		{"arm", "other", "plan", "none", "segment", ""},
	} {
		for _, name := range []string{"candidates", "eligible", "distances", "coverage_ratio"} {
			got, _ := value(all, "tandem_query_"+name, labels...)
			require.Equal(t, 1.0, got, "%s %v", name, labels)
		}
		got, _ := value(all, "tandem_query_stage_seconds", append(labels, "stage", "search")...)
		require.Equal(t, 1.0, got)
		got, _ = value(all, "tandem_query_short_answers_total", append(labels, "reason", "eligible")...)
		require.Equal(t, 1.0, got)
	}
	got, _ := value(all, "tandem_query_not_found_total", "arm", "control", "segment", "other", "outcome", "failed")
	require.Equal(t, 1.0, got)
	got, _ = value(all, "tandem_query_not_found_total", "outcome", "fallback")
	require.Equal(t, 4.0, got)
}

// TestArmsGo holds that an arm's series go with it, and stay otherwise.
func TestArmsGo(t *testing.T) {
	m := metrics.New()
	l := m.Listener()
	control, test := events.ServedArm{Name: "control", Segments: []string{"kids", "old"}}, events.ServedArm{Name: "test"}
	serve(l, control, test)
	for _, arm := range []string{"control", "test"} {
		for _, segment := range []string{"", "kids", "old"} {
			l.Answered(answer(arm, segment, tandemv1.Plan_PLAN_GRAPH_WALK))
		}
	}
	control.Segments = []string{"kids", "new"}
	l.Arms(events.Arms{List: []events.ServedArm{control}})
	l.Answered(answer("test", "", tandemv1.Plan_PLAN_GRAPH_WALK)) // it still answers
	got, _ := value(scrape(t, m), "tandem_query_candidates", "arm", "test", "segment", "")
	require.Equal(t, 2.0, got)
	l.Arms(events.Arms{List: []events.ServedArm{control}, Done: true})
	l.Answered(answer("test", "", tandemv1.Plan_PLAN_GRAPH_WALK)) // a later page of it

	all := scrape(t, m)
	for name := range all {
		_, ok := value(all, name, "arm", "test")
		require.False(t, ok, "%s of an arm that is gone", name)
		_, ok = value(all, name, "segment", "old")
		require.False(t, ok, "%s of a segment that is gone", name)
	}
	got, _ = value(all, "tandem_query_candidates", "arm", "control", "segment", "kids")
	require.Equal(t, 1.0, got, "what stays goes on")
	got, _ = value(all, "tandem_query_candidates", "arm", "other")
	require.Equal(t, 1.0, got)

	serve(l)
	_, ok := value(scrape(t, m), "tandem_query_candidates", "arm", "control")
	require.False(t, ok)
}

// TestRecall holds what is shown of audits where there are few, and of those that raise no alarm.
func TestRecall(t *testing.T) {
	m := metrics.New()
	s := state()
	s.Arms[0].Recall = []audit.Stratum{
		{Kind: audit.All, Audits: 3, Total: 3, Recall: 1, High: 1, Floor: 0.95},
		{Kind: audit.Plan, Name: "graph_walk", Audits: 40, Enough: true, Recall: 0.9, Low: 0.5, High: 0.94, Floor: 0.95, Alarm: &audit.Alarm{}},
		{Kind: audit.Ef, Audits: 40, Enough: true, Recall: 0.5, High: 0.6},
	}
	m.Follow(func() metrics.State { return s })
	m.Listener().Recall(events.Recall{Change: events.RecallAlarm})
	all := scrape(t, m)
	for _, c := range []struct {
		name, stratum string
		want          float64 // below 0 for none
	}{
		{"tandem_recall_ratio", "all", -1}, {"tandem_recall_worst_decile_ratio", "all", -1}, {"tandem_recall_enough_data", "all", 0},
		{"tandem_recall_high_ratio", "all", 1}, {"tandem_recall_alarm", "all", 0}, {"tandem_recall_window_audits", "all", 3},
		{"tandem_recall_ratio", "plan", 0.9}, {"tandem_recall_low_ratio", "plan", 0.5}, {"tandem_recall_floor_ratio", "plan", 0.95}, {"tandem_recall_alarm", "plan", 1},
		{"tandem_recall_ratio", "ef", 0.5}, {"tandem_recall_alarm", "ef", -1}, {"tandem_recall_floor_ratio", "ef", -1},
	} {
		got, ok := value(all, c.name, "arm", "control", "stratum", c.stratum)
		require.Equal(t, c.want >= 0, ok, "%s of %s", c.name, c.stratum)
		if ok {
			require.Equal(t, c.want, got, "%s of %s", c.name, c.stratum)
		}
	}
	got, _ := value(all, "tandem_recall_changes_total", "change", "alarm")
	require.Equal(t, 1.0, got)
	got, _ = value(all, "tandem_audits_total", "outcome", "done")
	require.Equal(t, 5.0, got)
}

// TestBound has as much as can be, and looks whether that is within the bound; a stated bound
// that is far above what can be would say nothing.
func TestBound(t *testing.T) {
	m := metrics.New()
	l := m.Listener()
	full := state()
	full.Arms, full.Mapped = nil, nil
	var arms []events.ServedArm
	for i := range 16 {
		arm := events.ServedArm{Name: fmt.Sprint("arm", i)}
		for j := range 256 {
			arm.Segments = append(arm.Segments, fmt.Sprintf("segment%03d", j))
		}
		arms = append(arms, arm)
		full.Arms = append(full.Arms, metrics.Arm{Name: arm.Name, Published: time.Unix(1e9, 0), Recall: strata(arm.Name, 64)})
	}
	for i := range 1000 {
		full.Mapped = append(full.Mapped, metrics.Mapped{Snapshot: manifest.Digest(fmt.Sprint("d", i)), Model: "feed", ModelVersion: fmt.Sprint(i)})
	}
	m.Follow(func() metrics.State { return full })
	serve(l, arms...)
	for _, arm := range append(arms, events.ServedArm{Name: "gone", Segments: arms[0].Segments}) {
		for _, segment := range append([]string{"", "none"}, arm.Segments...) {
			for plan := range tandemv1.Plan(9) {
				l.Answered(answer(arm.Name, segment, plan))
			}
			for _, i := range events.Interleavings() {
				one := answer(arm.Name, segment, tandemv1.Plan_PLAN_EXACT_SCAN)
				one.Interleaving = i
				l.Answered(one)
			}
			l.NotFound(events.NotFound{Arm: arm.Name, Segment: segment})
		}
	}
	for i := range 100 {
		for code := range connect.Code(30) {
			for _, path := range append(paths(served), fmt.Sprint("/made/up", i)) {
				l.RPCBegin(path)
				l.RPCEnd(events.RPC{Procedure: path, Code: code, Duration: time.Millisecond})
			}
		}
	}
	got := series(scrape(t, m))
	require.LessOrEqual(t, got, metrics.MostSeries())
	require.Greater(t, got, metrics.MostSeries()*9/10)
}

// served are the methods that are, as service and method.
const served = `
tandem.v1.RetrievalService/Retrieve tandem.v1.RetrievalService/BatchRetrieve tandem.v1.RetrievalService/GetEmbeddings
tandem.v1.AdminService/GetStatus
tandem.v1.LiveService/Write tandem.v1.LiveService/Import tandem.v1.LiveService/GetLiveStatus tandem.v1.LiveService/Prove tandem.v1.FeedbackService/LogOutcomes
tandem.v1.ReleaseService/ListReleases tandem.v1.ReleaseService/ListSnapshots tandem.v1.ReleaseService/GetSnapshot
tandem.v1.ReleaseService/ListGateRuns tandem.v1.ReleaseService/DiffSnapshots tandem.v1.ReleaseService/Start
tandem.v1.ReleaseService/Split tandem.v1.ReleaseService/Promote tandem.v1.ReleaseService/Stop tandem.v1.ReleaseService/Rollback
grpc.health.v1.Health/Check grpc.health.v1.Health/Watch
grpc.reflection.v1.ServerReflection/ServerReflectionInfo grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo`

func paths(list string) (out []string) {
	for _, name := range strings.Fields(list) {
		out = append(out, "/"+name)
	}
	return out
}

// TestCounts looks at what happens but queries and RPCs.
func TestCounts(t *testing.T) {
	m := metrics.New()
	l := m.Listener()
	l.RequestEnd(events.Request{Shed: events.ShedLongWork})
	l.RequestEnd(events.Request{Err: errors.New("no")})
	l.Recording(events.Recording{Change: events.Dropped, Queries: 7})
	l.Recording(events.Recording{Change: events.Late, Queries: 3})
	l.NotServed(events.NotServed{})
	l.LoadEnd(events.Load{Took: time.Second, Err: errors.New("no")})
	l.ShardLost(events.ShardLost{})
	l.Secrets(events.Secrets{Name: "tokens"})
	l.Secrets(events.Secrets{Name: "certificates", Err: errors.New("no")})
	l.AdminRefused(events.Request{Code: "unauthenticated"})
	all := scrape(t, m)
	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{1, "tandem_shed_requests_total", []string{"reason", "long_work"}},
		{1, "tandem_shed_requests_total", nil},
		{1, "tandem_secrets_rereads_total", []string{"files", "tokens", "outcome", "used"}},
		{1, "tandem_secrets_rereads_total", []string{"files", "certificates", "outcome", "failed"}},
		{2, "tandem_secrets_rereads_total", nil},
		{1, "tandem_secrets_stale", []string{"files", "certificates"}},
		{1, "tandem_secrets_stale", nil},
		{1, "tandem_admin_refused_total", []string{"code", "unauthenticated"}},
		{1, "tandem_admin_refused_total", nil},
		{7, "tandem_records_total", []string{"outcome", "dropped"}},
		{7, "tandem_records_total", nil},
		{1, "tandem_refused_loads_total", nil},
		{1, "tandem_snapshot_load_seconds", []string{"outcome", "failed"}},
		{1, "tandem_lost_shards_total", nil},
	} {
		got, ok := value(all, c.name, c.labels...)
		require.True(t, ok, c.name)
		require.Equal(t, c.want, got, "%s %v", c.name, c.labels)
	}
}

// TestNothingIsAllocated holds that a query is told of without garbage.
func TestNothingIsAllocated(t *testing.T) {
	m := metrics.New()
	everything(m)
	l, a := m.Listener(), answer("control", "kids", tandemv1.Plan_PLAN_GRAPH_WALK)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		l.RPCBegin(retrieve)
		l.Answered(a)
		l.RPCEnd(events.RPC{Procedure: retrieve, Duration: time.Millisecond})
	}))
}

// BenchmarkQuery is all that one query by RPC is told of.
func BenchmarkQuery(b *testing.B) {
	m := metrics.New()
	everything(m)
	l, a := m.Listener(), answer("control", "kids", tandemv1.Plan_PLAN_GRAPH_WALK)
	b.ReportAllocs()
	for b.Loop() {
		l.RPCBegin(retrieve)
		l.Answered(a)
		l.RPCEnd(events.RPC{Procedure: retrieve, Duration: time.Millisecond})
	}
}

// BenchmarkScrape is one scrape of a server with two arms of eight segments.
func BenchmarkScrape(b *testing.B) {
	m := metrics.New()
	everything(m)
	l := m.Listener()
	arms := []events.ServedArm{{Name: "control"}, {Name: "test"}}
	for i := range arms {
		for j := range 8 {
			arms[i].Segments = append(arms[i].Segments, fmt.Sprint("s", j))
		}
	}
	serve(l, arms...)
	for _, arm := range arms {
		for _, segment := range append([]string{""}, arm.Segments...) {
			for plan := range tandemv1.Plan(5) {
				l.Answered(answer(arm.Name, segment, plan))
			}
		}
	}
	h := m.Handler()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
	b.ReportMetric(float64(series(scrape(b, m))), "series")
}
