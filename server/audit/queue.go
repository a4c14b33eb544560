package audit

import (
	"slices"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// The bounds of the queue.
const (
	maxQueued = 32
	maxBytes  = 4 << 20
	maxAge    = 30 * time.Second
)

// item is a query that waits to be audited.
type item struct {
	arm   *Arm
	tower *shard.Tower
	query shard.Query // for the exact answer
	found []shard.Candidate
	from  []string // who has answered for each shard; nil if that was this process
	plan  int
	why   purpose
	hold  Holder
	at    time.Time
	bytes int

	reference float64
}

// take puts a query into the queue, if it has room.
func (arm *Arm) take(o Answered, plan int, why purpose) {
	a := arm.auditor
	size := sizeOf(o)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed || arm.gone.Load():
		return
	case size > maxBytes/8:
		a.counts.Large++
		return
	case len(a.queue) >= maxQueued || a.bytes+size > maxBytes:
		a.counts.Full++
		a.sampler.left++
		return
	case !o.Hold():
		return
	}
	now := a.c.Now()
	if why&uniform == 0 {
		a.sampler.taken++
	}
	it := &item{arm: arm, tower: o.Tower, plan: plan, why: why, hold: o.Holder, at: now, bytes: size}
	it.query, it.found, it.from = exactOf(o.Query), copyOf(o.Found.Candidates), fromOf(o.Found)
	it.reference = arm.references.of(o.Tower.Kind(), o.Query)
	for _, s := range it.strata() {
		s.taken.Store(now.UnixNano())
	}
	a.queue = append(a.queue, it)
	a.bytes += size
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// strata are those that an audit counts in.
func (it *item) strata() (list []*stratum) {
	if it.why&byEf != 0 {
		return []*stratum{it.arm.ef}
	}
	if it.why&uniform != 0 {
		list = append(list, it.arm.all)
	}
	if it.why&(uniform|byPlan) != 0 {
		list = append(list, it.arm.plans[it.plan])
	}
	if s := it.arm.segment(it.query.Segment); s != nil && it.why&(uniform|bySegment) != 0 {
		list = append(list, s)
	}
	return list
}

// sizeOf returns about how many bytes it takes to keep a query and its answer.
func sizeOf(o Answered) int {
	size := 1024
	for _, v := range o.Query.Vectors {
		size += 4 * len(v)
	}
	for _, list := range [][]string{o.Query.Include, o.Query.Exclude} {
		for _, id := range list {
			size += 16 + len(id)
		}
	}
	for i := range o.Found.Candidates {
		size += 64 + len(o.Found.Candidates[i].ID)
	}
	return size
}

// exactOf returns the query for the exact answer to another, of which it keeps nothing but
// what does not change.
func exactOf(q *shard.Query) shard.Query {
	exact := shard.Query{
		Moment: q.Moment, K: q.K, Filter: q.Filter, Segment: q.Segment, Self: q.Self,
		Include: slices.Clone(q.Include), Exclude: slices.Clone(q.Exclude), AtMost: slices.Clone(q.AtMost),
		Target: 1, Plan: index.ExactScan, MinCoverage: 1, Workers: 1,
	}
	if q.After != nil {
		after := *q.After
		exact.After = &after
	}
	for _, v := range q.Vectors {
		exact.Vectors = append(exact.Vectors, slices.Clone(v))
	}
	return exact
}

// copyOf returns candidates without their attributes.
func copyOf(found []shard.Candidate) []shard.Candidate {
	out := make([]shard.Candidate, len(found))
	for i := range found {
		out[i] = shard.Candidate{ID: found[i].ID, Score: found[i].Score}
	}
	return out
}

// next takes the oldest item from the queue; nil if there is none. What has waited for too
// long is let go.
func (a *Auditor) next(now time.Time) *item {
	var aged []*item
	defer func() { letGo(aged) }()
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.queue) > 0 {
		it := a.queue[0]
		a.queue[0] = nil
		a.queue = a.queue[1:]
		a.bytes -= it.bytes
		if now.Sub(it.at) <= maxAge {
			return it
		}
		a.counts.Aged++
		a.sampler.left++
		aged = append(aged, it)
	}
	return nil
}

// letGo lets the snapshots of items go. Nothing is locked: the last one closes its files.
func letGo(list []*item) {
	for _, it := range list {
		it.hold.Release()
	}
}
