package metrics

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
)

// other is the arm of what no arm that answers was asked for, as the later pages of an answer
// by a snapshot that does not answer any more; and the segment of those that have no series of
// their own.
const other = "other"

// maxPairs is how many segments of arms have series of their own, over all arms: each arm has
// as many as the others.
const maxPairs = 128

// The stages of a query that have a latency.
const (
	stageWait = iota
	stagePrepare
	stageSearch
	stageEncode
	stages
)

var stageNames = [stages]string{"wait", "prepare", "search", "encode"}

// queries are the metrics of queries that were answered, or nearly.
type queries struct {
	forms
	short, unknown, paired, explored *prometheus.Desc

	interleaving [events.MaxInterleaving + 1]atomic.Uint64
	explores     atomic.Uint64

	served atomic.Pointer[served]
	mu     sync.Mutex // held to change served, and to make cells
}

// served is what has series of its own. The maps do not change.
type served struct {
	arms  map[string]*armSeries
	other *armSeries
}

// armSeries are those of an arm.
type armSeries struct {
	name     string
	segments map[string]*pairSeries // by name; "" for queries without a segment
	other    *pairSeries
}

// pairSeries are those of a segment of an arm, each from when it is first needed. What a query
// tells them that was under way when they went is lost.
type pairSeries struct {
	arm, segment string
	cells        [plans]atomic.Pointer[cell]
	unknown      [2]atomic.Uint64 // queries by unknown ids that failed, and that got a fallback
}

// How many values the enums of the contract have, with those that say nothing.
const (
	plans        = 5
	shortReasons = 5
)

// outcomes are those of queries by ids that are unknown.
var outcomes = [2]string{"failed", "fallback"}

const (
	failed = iota
	fallback
)

func newQueries() *queries {
	q := &queries{
		forms: newForms(),
		short: prometheus.NewDesc("tandem_query_short_answers_total",
			"Queries that got fewer candidates than they asked for, by why.",
			[]string{"arm", "plan", "segment", "reason"}, nil),
		unknown: prometheus.NewDesc("tandem_query_not_found_total",
			"Queries by an id that its tower does not have: those that failed with not_found, and those that got the fallback they asked for.",
			[]string{"arm", "segment", "outcome"}, nil),
		paired: prometheus.NewDesc("tandem_query_interleaving_total",
			"Queries that were to be answered by two arms: those that were, as interleaved, and those that one arm has answered, by why.",
			[]string{"outcome"}, nil),
		explored: prometheus.NewDesc("tandem_query_explored_total",
			"Queries of whose answers the last places were drawn.", nil, nil),
	}
	q.served.Store(&served{other: newArmSeries(other, nil, 0, nil)})
	return q
}

// newArmSeries returns what an arm has, with what it had before, nil for nothing: at most so
// many segments.
func newArmSeries(name string, segments []string, most int, before *armSeries) *armSeries {
	a := &armSeries{name: name, segments: map[string]*pairSeries{}}
	if before != nil {
		a.other = before.other
	} else {
		a.other = &pairSeries{arm: name, segment: other}
	}
	for _, segment := range append([]string{""}, segments[:min(len(segments), most)]...) {
		switch {
		case segment == other: // one may be called so
			a.segments[segment] = a.other
		case before != nil && before.segments[segment] != nil:
			a.segments[segment] = before.segments[segment]
		default:
			a.segments[segment] = &pairSeries{arm: name, segment: segment}
		}
	}
	return a
}

// pairs are all of an arm.
func (a *armSeries) pairs() []*pairSeries {
	list := []*pairSeries{a.other}
	for _, p := range a.segments {
		if p != a.other {
			list = append(list, p)
		}
	}
	return list
}

func (a *armSeries) pair(segment string) *pairSeries {
	if p, ok := a.segments[segment]; ok {
		return p
	}
	return a.other
}

func (s *served) pair(arm, segment string) *pairSeries {
	if a, ok := s.arms[arm]; ok {
		return a.pair(segment)
	}
	return s.other.pair("")
}

// arms gives those arms series that are to answer, and takes away those of others once they
// do not.
func (q *queries) arms(e events.Arms) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := q.served.Load()
	next := &served{arms: map[string]*armSeries{}, other: before.other}
	for _, a := range e.List {
		next.arms[a.Name] = newArmSeries(a.Name, a.Segments, maxPairs/len(e.List), before.arms[a.Name])
	}
	if !e.Done {
		keep(before, next)
	}
	q.served.Store(next)
}

// keep has those series stay that something which still answers may need.
func keep(before, next *served) {
	for name, old := range before.arms {
		a := next.arms[name]
		if a == nil {
			next.arms[name] = old
			continue
		}
		for segment, p := range old.segments {
			if a.segments[segment] == nil {
				a.segments[segment] = p
			}
		}
	}
}

// answered tells of an answer.
func (q *queries) answered(e *events.Answer) {
	plan := int(e.Plan)
	if plan >= plans || plan < 0 {
		plan = 0
	}
	p := q.served.Load().pair(e.Arm, e.Segment)
	c := p.cells[plan].Load()
	if c == nil {
		c = q.newCell(p, plan)
	}
	q.tell(c, e)
	if e.Interleaving != events.NotToBe {
		q.interleaving[e.Interleaving].Add(1)
	}
	if e.Explored {
		q.explores.Add(1)
	}
	if e.Fallback {
		p.unknown[fallback].Add(1)
	}
}

func (q *queries) notFound(e events.NotFound) {
	q.served.Load().pair(e.Arm, e.Segment).unknown[failed].Add(1)
}

func (q *queries) newCell(p *pairSeries, plan int) *cell {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := p.cells[plan].Load()
	if c == nil {
		c = &cell{}
		p.cells[plan].Store(c)
	}
	return c
}

// Describe implements [prometheus.Collector].
func (q *queries) Describe(ch chan<- *prometheus.Desc) {
	q.describe(ch)
	ch <- q.short
	ch <- q.unknown
	ch <- q.paired
	ch <- q.explored
}

// Collect implements [prometheus.Collector].
func (q *queries) Collect(ch chan<- prometheus.Metric) {
	for _, i := range events.Interleavings() {
		if n := q.interleaving[i].Load(); n > 0 {
			ch <- prometheus.MustNewConstMetric(q.paired, prometheus.CounterValue, float64(n), i.String())
		}
	}
	if n := q.explores.Load(); n > 0 {
		ch <- prometheus.MustNewConstMetric(q.explored, prometheus.CounterValue, float64(n))
	}
	now := q.served.Load()
	q.collectPair(ch, now.other.pair(""))
	for _, a := range now.arms {
		for _, p := range a.pairs() {
			q.collectPair(ch, p)
		}
	}
}

func (q *queries) collectPair(ch chan<- prometheus.Metric, p *pairSeries) {
	for i := range p.unknown {
		if n := p.unknown[i].Load(); n > 0 {
			ch <- prometheus.MustNewConstMetric(q.unknown, prometheus.CounterValue, float64(n), p.arm, p.segment, outcomes[i])
		}
	}
	for plan := range p.cells {
		c := p.cells[plan].Load()
		if c == nil {
			continue
		}
		label := events.PlanName(tandemv1.Plan(plan))
		q.collect(ch, c, p.arm, label, p.segment)
		for reason := 1; reason < shortReasons; reason++ {
			ch <- prometheus.MustNewConstMetric(q.short, prometheus.CounterValue, float64(c.short[reason].Load()),
				p.arm, label, p.segment, reasonLabel(tandemv1.ShortReason(reason)))
		}
	}
}
