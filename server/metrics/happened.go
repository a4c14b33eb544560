package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-ann/tandem/server/events"
)

// happened counts what happens but queries and RPCs.
type happened struct {
	shed    map[events.Shed]prometheus.Counter
	records map[events.RecordingChange]prometheus.Counter
	// feedback are outcomes by what became of them, and writes how long writing some took.
	feedback [3]prometheus.Counter
	writes   prometheus.Histogram
	recall   map[events.RecallChange]prometheus.Counter
	spans    map[events.TraceOutcome]prometheus.Counter
	refused  prometheus.Counter
	lost     prometheus.Counter
	loads    [2]prometheus.Observer // that failed, and that did not
	secrets  map[string]secretsCounts
	admin    map[string]prometheus.Counter // refusals, by code

	all []prometheus.Collector
}

// secretsCounts are those of some files of secrets.
type secretsCounts struct {
	used, failed prometheus.Counter
	stale        prometheus.Gauge
}

// newSecrets returns what counts of files of secrets, and what collects it.
func newSecrets() (map[string]secretsCounts, []prometheus.Collector) {
	rereads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_secrets_rereads_total",
		Help: "Times that files of tokens or certificates had changed and were read again, by whether they are used or cannot be.",
	}, []string{"files", "outcome"})
	stale := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tandem_secrets_stale",
		Help: "Whether files of tokens or certificates have changed and cannot be used, 0 or 1; what was read before stays in use.",
	}, []string{"files"})
	out := map[string]secretsCounts{}
	for _, name := range []string{"tokens", "certificates"} {
		out[name] = secretsCounts{rereads.WithLabelValues(name, "used"), rereads.WithLabelValues(name, "failed"), stale.WithLabelValues(name)}
	}
	return out, []prometheus.Collector{rereads, stale}
}

// newAdminRefusals returns what counts refusals by code, and what collects it.
func newAdminRefusals() (map[string]prometheus.Counter, prometheus.Collector) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_admin_refused_total",
		Help: "Requests that the listener for those who operate the server has refused, by code: unauthenticated, or permission_denied, which those by the name of another host are too.",
	}, []string{"code"})
	out := map[string]prometheus.Counter{}
	for _, code := range []string{"unauthenticated", "permission_denied"} {
		out[code] = refused.WithLabelValues(code)
	}
	return out, refused
}

func newHappened() *happened {
	shed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_shed_requests_total",
		Help: "Requests that were refused before they were worked on, by what there was too much of.",
	}, []string{"reason"})
	records := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_records_total",
		Help: "Queries that were to be recorded, by what became of them: written, dropped because they came faster than they could be written, or lost because they could not be.",
	}, []string{"outcome"})
	recall := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_recall_changes_total",
		Help: "What has become of the recall of live queries: alarms that were raised and cleared, snapshots that were rolled back because of one, rollbacks that could not be done, and times that queries could not be audited.",
	}, []string{"change"})
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_trace_spans_total",
		Help: "Spans of traces, by what became of them: sent to the collector, dropped because as many waited to be sent as may wait, or failed because they could not be sent.",
	}, []string{"outcome"})
	limited := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tandem_traces_limited_total",
		Help: "Requests that were to be traced and were not, since as many spans were made of late as may be made.",
	})
	loads := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "tandem_snapshot_load_seconds",
		Help:    "Time that it took to open a snapshot, warm it and lay the live log over it, in seconds, and whether that was done.",
		Buckets: []float64{0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800},
	}, []string{"outcome"})
	h := &happened{
		shed: map[events.Shed]prometheus.Counter{}, records: map[events.RecordingChange]prometheus.Counter{},
		recall: map[events.RecallChange]prometheus.Counter{},
		spans: map[events.TraceOutcome]prometheus.Counter{
			events.SpansSent: spans.WithLabelValues("sent"), events.SpansDropped: spans.WithLabelValues("dropped"),
			events.SpansFailed: spans.WithLabelValues("failed"), events.TraceLimited: limited,
		},
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_refused_loads_total",
			Help: "Times that a release could not be served, such as for want of memory or because a snapshot of it cannot be opened; what answered went on. It is tried again.",
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tandem_lost_shards_total",
			Help: "Shards that could no longer be read while they answered, each once.",
		}),
		loads: [2]prometheus.Observer{loads.WithLabelValues("failed"), loads.WithLabelValues("done")},
	}
	feedback := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_outcomes_total",
		Help: "Outcomes that were to be kept, by what became of them: written, unconfirmed because the store did not confirm them, or forgotten because they were of users who are forgotten.",
	}, []string{"result"})
	h.feedback = [...]prometheus.Counter{feedback.WithLabelValues("written"), feedback.WithLabelValues("unconfirmed"), feedback.WithLabelValues("forgotten")}
	h.writes = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "tandem_outcome_write_seconds",
		Help:    "Time that it took to write an object of outcomes, or to give it up, in seconds.",
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
	})
	for _, of := range events.Sheds() {
		h.shed[of] = shed.WithLabelValues(string(of))
	}
	for change, outcome := range map[events.RecordingChange]string{events.Written: "written", events.Dropped: "dropped", events.Lost: "lost"} {
		h.records[change] = records.WithLabelValues(outcome)
	}
	for change, name := range map[events.RecallChange]string{events.RecallAlarm: "alarm", events.RecallCleared: "cleared", events.RecallRolledBack: "rolled_back", events.RecallKept: "kept", events.RecallUnaudited: "unaudited"} {
		h.recall[change] = recall.WithLabelValues(name)
	}
	h.all = []prometheus.Collector{shed, records, recall, spans, limited, loads, h.refused, h.lost, feedback, h.writes}
	var secrets []prometheus.Collector
	h.secrets, secrets = newSecrets()
	var admin prometheus.Collector
	h.admin, admin = newAdminRefusals()
	h.all = append(append(h.all, secrets...), admin)
	return h
}

func (h *happened) requestEnd(e events.Request) {
	if e.Shed == "" {
		return
	}
	if count, ok := h.shed[e.Shed]; ok {
		count.Inc()
	}
}

func (h *happened) recording(e events.Recording) {
	if count, ok := h.records[e.Change]; ok {
		count.Add(float64(e.Queries))
	}
}

func (h *happened) outcomes(e events.Outcomes) {
	h.feedback[outcomesForgotten].Add(float64(e.Forgotten))
	if e.Outcomes == 0 {
		return
	}
	if h.writes.Observe(e.Took.Seconds()); e.Err != nil {
		h.feedback[outcomesUnconfirmed].Add(float64(e.Outcomes))
		return
	}
	h.feedback[outcomesWritten].Add(float64(e.Outcomes))
}

// What becomes of outcomes.
const (
	outcomesWritten = iota
	outcomesUnconfirmed
	outcomesForgotten
)

func (h *happened) recallChanged(e events.Recall) {
	if count, ok := h.recall[e.Change]; ok {
		count.Inc()
	}
}

func (h *happened) traced(e events.Traced) {
	if count, ok := h.spans[e.Outcome]; ok {
		count.Add(float64(e.N))
	}
}

func (h *happened) secretsReread(e events.Secrets) {
	counts, ok := h.secrets[e.Name]
	switch {
	case !ok:
	case e.Err != nil:
		counts.failed.Inc()
		counts.stale.Set(1)
	default:
		counts.used.Inc()
		counts.stale.Set(0)
	}
}

func (h *happened) adminRefused(e events.Request) {
	if count, ok := h.admin[e.Code]; ok {
		count.Inc()
	}
}

func (h *happened) loadEnd(e events.Load) {
	outcome := 1
	if e.Err != nil {
		outcome = 0
	}
	h.loads[outcome].Observe(e.Took.Seconds())
}

func (h *happened) notServed(events.NotServed) { h.refused.Inc() }

func (h *happened) shardLost(events.ShardLost) { h.lost.Inc() }

// Describe implements [prometheus.Collector].
func (h *happened) Describe(ch chan<- *prometheus.Desc) { describe(ch, h.all...) }

// Collect implements [prometheus.Collector].
func (h *happened) Collect(ch chan<- prometheus.Metric) { collect(ch, h.all...) }
