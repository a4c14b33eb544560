package metrics

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
)

// cell is all that is told of the queries of an arm, a plan and a segment. It lies together in
// memory, since a query finds little of it in the caches of its processor. With histograms of
// the library, which are several pieces each, a query and its RPC took 470 ns of a processor to
// tell of, and with these 270.
type cell struct {
	stages     [stages]histogram
	candidates histogram
	eligible   histogram
	distances  histogram
	coverage   histogram
	short      [shortReasons]atomic.Uint64
}

// maxBuckets is how many buckets a histogram of queries has at most, with the last.
const maxBuckets = 16

// histogram counts what is observed, by the buckets of a form. The zero value is ready.
type histogram struct {
	sum    atomic.Int64 // in units of its form
	counts [maxBuckets]atomic.Uint64
}

// form is what histograms of one metric have in common. It does not change.
type form struct {
	name, help string
	labels     []string // beside those of all queries
	bounds     []float64
	scaled     [maxBuckets - 1]int64 // bounds, in units
	unit       float64               // that observations are whole numbers of
	desc       *prometheus.Desc
}

func newForm(name, help string, unit float64, bounds []float64, labels ...string) *form {
	f := &form{name: name, help: help, labels: labels, bounds: bounds, unit: unit}
	for i, bound := range bounds {
		f.scaled[i] = int64(bound/unit + 0.5)
	}
	f.desc = prometheus.NewDesc(name, help, append([]string{"arm", "plan", "segment"}, labels...), nil)
	return f
}

// observe counts a value, which is in units.
func (f *form) observe(h *histogram, value int64) {
	bounds := f.scaled[:len(f.bounds)]
	i := 0
	for i < len(bounds) && value > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(value)
}

// metric returns what is shown of a histogram.
func (f *form) metric(h *histogram, labels ...string) prometheus.Metric {
	buckets, count := make(map[float64]uint64, len(f.bounds)), uint64(0)
	for i, bound := range f.bounds {
		count += h.counts[i].Load()
		buckets[bound] = count
	}
	count += h.counts[len(f.bounds)].Load()
	return prometheus.MustNewConstHistogram(f.desc, count, float64(h.sum.Load())*f.unit, buckets, labels...)
}

// forms are those of the histograms of a cell.
type forms struct{ stage, candidates, eligible, distances, coverage *form }

// coverageUnit is what coverage is counted in.
const coverageUnit = 1e-6

func newForms() forms {
	return forms{
		stage: newForm("tandem_query_stage_seconds",
			"Time that each stage of an answered query took, in seconds: wait for a turn once it was admitted, prepare it, search, encode the answer. What a batch does for all of its queries together is shared equally among them, but that each waits as long as all.",
			time.Nanosecond.Seconds(), LatencyBuckets(), "stage"),
		candidates: newForm("tandem_query_candidates",
			"Candidates that an answered query got. The count is that of the answered queries.",
			1, []float64{0, 1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000}),
		eligible: newForm("tandem_query_eligible",
			"Rows that were eligible for an answered query, in the shards that answered.",
			1, []float64{0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8}),
		distances: newForm("tandem_query_distances",
			"Distances that were computed for an answered query, of vectors or of their codes.",
			1, []float64{0, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 1e7, 1e8}),
		coverage: newForm("tandem_query_coverage_ratio",
			"Share of the eligible rows that the answer to a query is based on, 0 to 1; less than 1 if shards did not answer.",
			coverageUnit, []float64{0.5, 0.75, 0.9, 0.95, 0.99, 0.999}),
	}
}

func (f *forms) describe(ch chan<- *prometheus.Desc) {
	for _, one := range []*form{f.stage, f.candidates, f.eligible, f.distances, f.coverage} {
		ch <- one.desc
	}
}

// tell counts an answer.
func (f *forms) tell(c *cell, e *events.Answer) {
	for i, took := range [stages]time.Duration{e.Wait, e.Prepare, e.Search, e.Encode} {
		f.stage.observe(&c.stages[i], int64(took))
	}
	f.candidates.observe(&c.candidates, int64(e.Candidates))
	f.eligible.observe(&c.eligible, int64(e.Eligible))
	f.distances.observe(&c.distances, int64(e.Distances))
	f.coverage.observe(&c.coverage, int64(e.Coverage/coverageUnit))
	if e.Short > 0 && e.Short < shortReasons {
		c.short[e.Short].Add(1)
	}
}

// collect shows a cell.
func (f *forms) collect(ch chan<- prometheus.Metric, c *cell, labels ...string) {
	for i := range c.stages {
		ch <- f.stage.metric(&c.stages[i], append(labels[:len(labels):len(labels)], stageNames[i])...)
	}
	ch <- f.candidates.metric(&c.candidates, labels...)
	ch <- f.eligible.metric(&c.eligible, labels...)
	ch <- f.distances.metric(&c.distances, labels...)
	ch <- f.coverage.metric(&c.coverage, labels...)
}

func reasonLabel(r tandemv1.ShortReason) string { return lower(r.String(), "SHORT_REASON_") }

// lower is what labels call a value of an enum of the contract, whose names begin with
// prefix.
func lower(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
