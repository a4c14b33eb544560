package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tandem-ann/tandem/server/events"
)

// Metrics are those of one server. Its methods may be called from any number of goroutines.
type Metrics struct {
	registry *prometheus.Registry
	rpcs     *rpcs
	queries  *queries
	happened *happened
	state    *stateCollector
}

// New returns metrics that nothing has happened to yet.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), rpcs: newRPCs(), queries: newQueries(), happened: newHappened(), state: newStateCollector()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.rpcs, m.queries, m.happened, m.state, newResidentMemory(),
	)
	return m
}

// Follow has what is scraped show the state that a function returns, which is called for
// each scrape. It is called once, before the first.
func (m *Metrics) Follow(state func() State) { m.state.of.Store(&state) }

// Registry is where other parts of a server register what they show. What they add counts
// beside [MostSeries].
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Listener is who is to be told of events.
func (m *Metrics) Listener() *events.Listener {
	return &events.Listener{
		RPCBegin: m.rpcs.begin, RPCEnd: m.rpcs.end,
		Arms: m.queries.arms, Answered: m.queries.answered, NotFound: m.queries.notFound,
		LoadEnd: m.happened.loadEnd, NotServed: m.happened.notServed, ShardLost: m.happened.shardLost,
		RequestEnd: m.happened.requestEnd, Recording: m.happened.recording, Outcomes: m.happened.outcomes, Recall: m.happened.recallChanged, Traced: m.happened.traced,
		Secrets: m.happened.secretsReread, AdminRefused: m.happened.adminRefused,
	}
}

const (
	// maxScrapes is how many scrapes are answered at a time; one more is a 503.
	maxScrapes = 4
	// scrapeTimeout is how long one may take.
	scrapeTimeout = 10 * time.Second
)

// Handler answers scrapes, in the form that they accept: native histograms need that of
// protobuf. What could not be gathered is left out.
func (m *Metrics) Handler() http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout, ErrorHandling: promhttp.ContinueOnError,
		EnableOpenMetrics: true, Registry: m.registry,
	}))
}
