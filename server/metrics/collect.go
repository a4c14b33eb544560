package metrics

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxMapped is how many snapshots that are mapped are told of: all arms, and then some that
// are kept.
const maxMapped = 64

// stateCollector shows what a server is when it is scraped.
type stateCollector struct {
	of      atomic.Pointer[func() State]
	metrics []stateMetric
	list    []*prometheus.Desc
}

// stateMetric is a metric whose values follow from a state. Its values are of so many labels.
type stateMetric struct {
	name, help string
	labels     []string
	counter    bool
	values     func(s *State, set setter)
}

// setter sets the value of a metric.
type setter func(value float64, labels ...string)

func newStateCollector() *stateCollector {
	c := &stateCollector{metrics: stateMetrics()}
	for _, m := range c.metrics {
		c.list = append(c.list, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.list {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	of := c.of.Load()
	if of == nil {
		return
	}
	s := (*of)()
	for i, m := range c.metrics {
		kind := prometheus.GaugeValue
		if m.counter {
			kind = prometheus.CounterValue
		}
		m.values(&s, func(value float64, labels ...string) {
			for i := range labels {
				labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD") // else it would not be shown
			}
			made, err := prometheus.NewConstMetric(c.list[i], kind, value, labels...)
			if err != nil {
				made = prometheus.NewInvalidMetric(c.list[i], err)
			}
			ch <- made
		})
	}
}

func stateMetrics() []stateMetric {
	list := append(releaseMetrics(), armMetrics()...)
	list = append(list, recallMetrics()...)
	list = append(list, liveMetrics()...)
	list = append(list, certificateMetrics()...)
	list = append(list, cpuMetrics()...)
	list = append(list, clusterMetrics()...)
	return append(list, loadMetrics()...)
}

func certificateMetrics() []stateMetric {
	certificate := func(name, help string, value func(*Certificate) time.Time) stateMetric {
		return gauge(name, help, func(s *State) bool { return s.Certificate != nil }, func(s *State) float64 { return since(value(s.Certificate)) })
	}
	return []stateMetric{
		certificate("tandem_certificate_expiry_timestamp_seconds", "When the certificate of the server expires, in seconds since the Unix epoch; left out without TLS.",
			func(c *Certificate) time.Time { return c.Until }),
		certificate("tandem_certificate_issued_timestamp_seconds", "From when on the certificate of the server counts, in seconds since the Unix epoch; left out without TLS.",
			func(c *Certificate) time.Time { return c.From }),
	}
}

func cpuMetrics() []stateMetric {
	set := func(set setter, told *time.Duration, labels ...string) {
		if told != nil {
			set(told.Seconds(), labels...)
		}
	}
	return []stateMetric{
		{
			name: "tandem_cpu_wait_seconds_total", labels: []string{"scope"}, counter: true,
			help: "Time in which threads waited for a processor, one or several at once, in seconds: of the control group of the process, or of the machine. Left out where the kernel does not tell.",
			values: func(s *State, to setter) {
				set(to, s.CPU.GroupWait, "group")
				set(to, s.CPU.MachineWait, "machine")
			},
		},
		{
			name: "tandem_cpu_throttled_seconds_total", counter: true,
			help:   "Time for which the limit of a control group, or of one that it is in, held processors back from the process, summed over processors, in seconds. Left out where the kernel does not tell.",
			values: func(s *State, to setter) { set(to, s.CPU.Throttled) },
		},
	}
}

// gauge is a metric of one value, shown if has says so.
func gauge(name, help string, has func(*State) bool, value func(*State) float64) stateMetric {
	return stateMetric{name: name, help: help, values: func(s *State, set setter) {
		if has(s) {
			set(value(s))
		}
	}}
}

func always(*State) bool { return true }

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// since is a moment in seconds since the Unix epoch.
func since(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func releaseMetrics() []stateMetric {
	followed := func(s *State) bool { return s.Releases.Followed }
	return []stateMetric{
		gauge("tandem_ready", "Whether requests should be sent here, 0 or 1: what GET /readyz says.", always, func(s *State) float64 { return number(s.Ready) }),
		gauge("tandem_phase", "Where the server is in its life: 0 loading, 1 serving, 2 draining.", always, func(s *State) float64 { return float64(s.Phase) }),
		gauge("tandem_generation", "Generation of the release that answers; 0 without one.", always, func(s *State) float64 { return float64(s.Generation) }),
		gauge("tandem_target_generation", "Generation of the newest entry of the log of releases that was read, which is the position in that log; 0 where none is followed.", always, func(s *State) float64 { return float64(s.Target) }),
		gauge("tandem_serving_since_timestamp_seconds", "When what answers began to, in seconds since the Unix epoch.",
			func(s *State) bool { return !s.Since.IsZero() }, func(s *State) float64 { return since(s.Since) }),
		gauge("tandem_releases_staleness_seconds", "Age of the last proof that the log of releases ends where it was read to, in seconds.", followed,
			func(s *State) float64 { return s.Releases.Staleness.Seconds() }),
		gauge("tandem_releases_broken", "Whether the log of releases does not go on from what was read, 0 or 1; what answers goes on.", followed,
			func(s *State) float64 { return number(s.Releases.Broken) }),
		{
			name: "tandem_snapshot_info", labels: []string{"snapshot", "model", "model_version", "arm"},
			help: "Snapshots that are mapped, each 1: with the arm that it is, or none if it is kept for a rollback.",
			values: func(s *State, set setter) {
				for _, m := range s.Mapped[:min(len(s.Mapped), maxMapped)] {
					set(1, string(m.Snapshot), m.Model, m.ModelVersion, m.Arm)
				}
			},
		},
		{
			name: "tandem_mapped_snapshots", help: "Snapshots that are mapped: those that answer, and those that are kept for a rollback.",
			values: func(s *State, set setter) { set(float64(len(s.Mapped))) },
		},
	}
}

// ofArms is a metric of one value for each arm.
func ofArms(name, help string, value func(*Arm) (float64, bool)) stateMetric {
	return stateMetric{name: name, help: help, labels: []string{"arm"}, values: func(s *State, set setter) {
		for i := range s.Arms {
			if v, ok := value(&s.Arms[i]); ok {
				set(v, s.Arms[i].Name)
			}
		}
	}}
}

// ofTowers is a metric of one value for each tower of each arm.
func ofTowers(name, help string, value func(*Tower) float64) stateMetric {
	return stateMetric{name: name, help: help, labels: []string{"arm", "tower"}, values: func(s *State, set setter) {
		for i := range s.Arms {
			set(value(&s.Arms[i].Apps), s.Arms[i].Name, "apps")
			set(value(&s.Arms[i].Users), s.Arms[i].Name, "users")
		}
	}}
}

func armMetrics() []stateMetric {
	return []stateMetric{
		ofArms("tandem_arm_weight_ratio", "Share of the traffic that an arm answers, 0 to 1.", func(a *Arm) (float64, bool) { return float64(a.Weight) / 1000, true }),
		ofArms("tandem_snapshot_published_timestamp_seconds", "When the snapshot of an arm was published by its build, by the store's clock, in seconds since the Unix epoch; left out if that is not known.",
			func(a *Arm) (float64, bool) { return since(a.Published), !a.Published.IsZero() }),
		ofArms("tandem_snapshot_inputs_position", "Position in the live log that the inputs of an arm's snapshot reflect; 0 if they reflect none of it.",
			func(a *Arm) (float64, bool) { return float64(a.Inputs), true }),
		ofArms("tandem_unreadable_shards", "Shards of an arm that can no longer be read.", func(a *Arm) (float64, bool) { return float64(a.Lost), true }),
		ofTowers("tandem_rows", "Rows of a tower of an arm's snapshot.", func(t *Tower) float64 { return float64(t.Rows) }),
		ofTowers("tandem_dead_rows", "Rows of the snapshot that are not returned, because they were taken down, removed or replaced.", func(t *Tower) float64 { return float64(t.Dead) }),
		ofTowers("tandem_changed_rows", "Rows of the snapshot that have other attributes.", func(t *Tower) float64 { return float64(t.Changed) }),
		ofTowers("tandem_fresh_rows", "Rows of the fresh tier: those that were upserted since the snapshot was built.", func(t *Tower) float64 { return float64(t.Fresh) }),
		ofTowers("tandem_fresh_bytes", "Size of the fresh tier, in bytes: ids, vectors and attributes.", func(t *Tower) float64 { return float64(t.FreshBytes) }),
		ofTowers("tandem_window_rows", "Rows that may be returned at some times only.", func(t *Tower) float64 { return float64(t.Windows) }),
		ofTowers("tandem_misfits", "Upserts and attributes of the live log that do not fit the snapshot, and do not count in it.", func(t *Tower) float64 { return float64(t.Misfits) }),
	}
}

func liveMetrics() []stateMetric {
	live := func(name, help string, value func(*Live) float64) stateMetric {
		return gauge(name, help, func(s *State) bool { return s.Live != nil }, func(s *State) float64 { return value(s.Live) })
	}
	return []stateMetric{
		live("tandem_live_position", "Position in the live log that it was read to.", func(l *Live) float64 { return float64(l.Position) }),
		live("tandem_live_staleness_seconds", "Age of the last proof that the live log ends where it was read to, in seconds.", func(l *Live) float64 { return l.Staleness.Seconds() }),
		live("tandem_live_fence_seconds", "Staleness of the live log beyond which queries are refused, or flagged, in seconds.", func(l *Live) float64 { return l.Fence.Seconds() }),
		live("tandem_live_refuses", "Whether queries are refused because the live log is staler than the fence, 0 or 1.", func(l *Live) float64 { return number(l.Refuses) }),
		live("tandem_live_broken", "Whether the live log does not go on from what was read, 0 or 1.", func(l *Live) float64 { return number(l.Broken) }),
		live("tandem_takedowns", "Apps that are taken down.", func(l *Live) float64 { return float64(l.Takedowns) }),
		live("tandem_forgotten_users", "Users that are forgotten.", func(l *Live) float64 { return float64(l.Forgotten) }),
		live("tandem_live_fresh_bytes", "Size of all that was upserted and is in the live log, for whichever model versions, in bytes.", func(l *Live) float64 { return float64(l.FreshBytes) }),
		live("tandem_live_fresh_limit_bytes", "Size of what may be upserted, in bytes; more is refused.", func(l *Live) float64 { return float64(l.FreshLimit) }),
	}
}

func loadMetrics() []stateMetric {
	load := func(name, help string, value func(*Load) float64) stateMetric {
		return gauge(name, help, func(s *State) bool { return s.Load != nil }, func(s *State) float64 { return value(s.Load) })
	}
	work := func(name, help string, short, long func(*Load) time.Duration) stateMetric {
		return stateMetric{name: name, help: help, labels: []string{"kind"}, values: func(s *State, set setter) {
			if s.Load != nil {
				set(short(s.Load).Seconds(), "short")
				set(long(s.Load).Seconds(), "long")
			}
		}}
	}
	connections := func(name, help string, counter bool, value func(*Connections) float64) stateMetric {
		m := gauge(name, help, func(s *State) bool { return s.Connections != nil }, func(s *State) float64 { return value(s.Connections) })
		m.counter = counter
		return m
	}
	return []stateMetric{
		load("tandem_admitted_requests", "Requests that are admitted and worked on.", func(l *Load) float64 { return float64(l.Requests) }),
		load("tandem_admitted_requests_limit", "Requests that are admitted at a time.", func(l *Load) float64 { return float64(l.MaxRequests) }),
		work("tandem_admitted_work_seconds", "Admission units in flight: work, in estimated seconds of one processor; short work is up to a millisecond.",
			func(l *Load) time.Duration { return l.ShortWork }, func(l *Load) time.Duration { return l.LongWork }),
		work("tandem_admitted_work_limit_seconds", "Admission units that are let in at a time, in estimated seconds of one processor.",
			func(l *Load) time.Duration { return l.MaxShortWork }, func(l *Load) time.Duration { return l.MaxLongWork }),
		load("tandem_admission_correction_ratio", "What work took of the processors over what it was estimated to take, by which estimates are corrected. Time in which it waited for a processor is not in it.", func(l *Load) float64 { return l.Correction }),
		load("tandem_request_memory_bytes", "Memory that requests and their answers take, as estimated, in bytes.", func(l *Load) float64 { return float64(l.Bytes) }),
		load("tandem_request_memory_limit_bytes", "Memory that requests and their answers may take, in bytes.", func(l *Load) float64 { return float64(l.MaxBytes) }),
		load("tandem_long_requests", "Requests whose long work is done.", func(l *Load) float64 { return float64(l.Turns) }),
		load("tandem_long_requests_limit", "Requests whose long work is done at a time.", func(l *Load) float64 { return float64(l.MaxTurns) }),
		load("tandem_queued_requests", "Large requests that wait to be looked at.", func(l *Load) float64 { return float64(l.Queue) }),
		load("tandem_queued_requests_limit", "Large requests that may wait to be looked at.", func(l *Load) float64 { return float64(l.MaxQueue) }),
		connections("tandem_connections", "Connections that are open.", false, func(c *Connections) float64 { return float64(c.Open) }),
		connections("tandem_connections_limit", "Connections that may be open.", false, func(c *Connections) float64 { return float64(c.Max) }),
		connections("tandem_connections_refused_total", "Connections that were refused: as many as are accepted were open, and none was idle.", true, func(c *Connections) float64 { return float64(c.Refused) }),
		connections("tandem_connections_flooded_total", "Connections that were closed for floods of frames.", true, func(c *Connections) float64 { return float64(c.Flooded) }),
		gauge("tandem_mapped_bytes", "Size of the shards that are mapped, in bytes; one that several snapshots have counts once.", always, func(s *State) float64 { return float64(s.Memory.Mapped) }),
		gauge("tandem_mapped_limit_bytes", "Size of the shards that may be mapped, in bytes; left out if nothing limits it.",
			func(s *State) bool { return s.Memory.Limit > 0 }, func(s *State) float64 { return float64(s.Memory.Limit) }),
	}
}
