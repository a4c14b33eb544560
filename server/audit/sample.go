package audit

import (
	"math/rand/v2"
	"time"
)

// purpose is what a query is audited for. Each stratum only has audits whose choice depends on
// nothing but that they are of it: what was taken for a plan that is rare says nothing of the
// arm.
type purpose uint8

const (
	uniform purpose = 1 << iota // taken at random of all of the arm
	byPlan
	bySegment
	byEf
)

func random() uint64 { return rand.Uint64() }

// due returns the purpose if the next query of the stratum is to be audited.
func (s *stratum) due(why purpose) purpose {
	if !s.asked.Load() {
		s.asked.Store(true)
	}
	if s.wanted.Load() && s.wanted.CompareAndSwap(true, false) {
		return why
	}
	return 0
}

// sampler decides how many queries are taken.
//
// As many can be audited in a second as what an audit costs goes into the budget. Arms share
// that evenly, whatever their traffic: one of a hundredth of it is to be known as well. Up to
// half goes to plans and segments that were not audited for a while, and to queries with an
// ef; each of those that are asked is audited every few seconds, or as often as half of the
// budget allows.
type sampler struct {
	share   float64 // of a processor
	cost    float64 // seconds of processor time that an audit takes
	measure bool    // whether the cost was measured
	backoff float64 // below 1 where audits were left out
	rare    float64 // audits a second that were not taken at random
	taken   uint64  // likewise, since the last tick
	left    uint64  // out, since the last tick
	last    time.Time
}

const (
	// tickEvery is how often the sampler adapts.
	tickEvery = time.Second
	// rareEvery is the least time between two audits for a stratum that is rare.
	rareEvery = 2 * time.Second
	// mostAudits bounds how many audits there are in a second.
	mostAudits = 50.0
	// firstRate is what queries a second are taken to be until they were counted.
	firstRate = 100.0
	// smoothing is how much of what was measured a new measure makes up.
	smoothing = 0.2
	// spare is the part of the budget that is planned with.
	spare = 0.9
)

func newSampler(share float64) sampler { return sampler{share: share, cost: 0.005, backoff: 1} }

// begin begins with other arms.
func (s *sampler) begin(arms []*Arm) {
	rows, dim := 0, 0
	for _, arm := range arms {
		arm.rate = firstRate
		rows, dim = max(rows, arm.Manifest.Apps.Rows), arm.Manifest.Dim
	}
	if !s.measure && rows > 0 {
		s.cost = 200e-6 + float64(rows)*float64(dim)*0.2e-9
	}
	s.set(arms)
}

// done is told what an audit cost.
func (s *sampler) done(used time.Duration) {
	if s.measure {
		s.cost += smoothing * (used.Seconds() - s.cost)
	} else {
		s.cost, s.measure = used.Seconds(), true
	}
}

// capacity is how many audits a second there is room for.
func (s *sampler) capacity() float64 {
	return min(spare*s.share/max(s.cost, 1e-6), mostAudits) * s.backoff
}

// tick adapts, once in a while.
func (s *sampler) tick(now time.Time, arms []*Arm) {
	if s.last.IsZero() {
		s.last = now
	}
	passed := now.Sub(s.last)
	if passed < 0 { // a clock was set back
		s.last = now
	}
	if passed < tickEvery {
		return
	}
	s.last = now
	for _, arm := range arms {
		n := arm.offered.Load()
		rate := float64(n-arm.seen) / passed.Seconds()
		arm.rate += smoothing * (rate - arm.rate)
		arm.seen = n
	}
	s.rare += smoothing * (float64(s.taken)/passed.Seconds() - s.rare)
	if s.left > 0 {
		s.backoff = max(0.8*s.backoff, 0.05)
	} else {
		s.backoff = min(1.02*s.backoff, 1)
	}
	s.taken, s.left = 0, 0
	s.set(arms)
	s.want(now, arms)
}

// set sets the probability with which queries of each arm are taken.
func (s *sampler) set(arms []*Arm) {
	if len(arms) == 0 {
		return
	}
	capacity := s.capacity()
	room := max(capacity-s.rare, capacity/2) / float64(len(arms))
	for _, arm := range arms {
		arm.threshold.Store(thresholdOf(room / max(arm.rate, 1e-3)))
	}
}

// want has the next query taken of each stratum that was asked, and not audited for long.
func (s *sampler) want(now time.Time, arms []*Arm) {
	n := 0
	each(arms, func(*stratum) { n++ })
	every := max(rareEvery, time.Duration(float64(n)/max(s.capacity()/2, 1e-3)*float64(time.Second)))
	each(arms, func(st *stratum) {
		if now.Sub(time.Unix(0, st.taken.Load())).Abs() >= every { // or a clock was set back
			st.wanted.Store(true)
		}
	})
}

// each calls f with the strata that were asked and may be rare.
func each(arms []*Arm, f func(*stratum)) {
	for _, arm := range arms {
		for _, s := range arm.strata {
			if s.kind != All && s.asked.Load() {
				f(s)
			}
		}
	}
}
