package audit

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// DefaultCPU is the share of a processor that audits take by default.
const DefaultCPU = 0.02

// FalseAlarms is how often any stratum of an arm raises an alarm for nothing, in times an
// hour, at most: once in 20,000 hours. Half of it is for the arm as a whole, a quarter for
// plans and a quarter for segments. Nodes have another quarter.
const FalseAlarms = 1.0 / 20_000

// Config says how to audit.
type Config struct {
	// CPU is the share of one processor that audits may take, above 0 and at most 1: of this
	// process, or, where there is an Exact, of all processes that it asks together.
	CPU float64
	// Exact, if set, finds the exact answers. Default: this process does.
	Exact Exact
	// Events is told when alarms are raised and cleared, and of rollbacks. It is not nil.
	Events *events.Listener
	// Releases are what is rolled back; nil if nothing is.
	Releases *release.Releases
	// Author is who rolls back, as releases have it.
	Author string
	// Clock is made on the thread that audits. Default: that of the thread.
	Clock func() Clock
	// Now is the time. Default: time.Now.
	Now func() time.Time
	// Recorded, if set, is called with each audit, on the thread that audits. It must not wait,
	// nor call the auditor.
	Recorded func(Audit)
}

// RateOf returns how often strata of a kind may raise an alarm for nothing, in times an hour
// each, where the snapshot has so many segments.
func RateOf(kind Kind, segments int) float64 {
	switch kind {
	case All:
		return FalseAlarms / 2
	case Plan:
		return FalseAlarms / 4 / float64(len(planNames))
	case Segment:
		return FalseAlarms / 4 / float64(min(max(segments, 1), maxSegments+1))
	case Node:
		return FalseAlarms / 4 / maxNodes
	}
	return 0
}

// Audit is one query that was audited.
type Audit struct {
	Arm     string
	Plan    string
	Segment string
	// Strata are those that it counts in.
	Strata    []Kind
	K         int
	Recall    float64
	Reference float64
	Used      time.Duration // processor time
	Counts    Counts        // so far
}

// Served is an arm that answers from now on.
type Served struct {
	Generation uint64 // of the release; 0 without one
	Name       string
	Snapshot   manifest.Digest
	Manifest   *manifest.Manifest
	// Idle is whether no share of the traffic is its own: then hardly anything is asked of it.
	Idle bool
	// Floor is the mean recall that there is an alarm below; 0: as the manifest says.
	Floor float64
}

// Counts is what has become of what was offered, since the beginning.
type Counts struct {
	Audits  uint64 // that were done
	Full    uint64 // that were left out: the queue was full
	Aged    uint64 // likewise: they had waited for too long
	Gone    uint64 // likewise: the arm answered no more
	Large   uint64 // likewise: they had too many bytes
	Busy    uint64 // likewise: other processes had no room for them
	Failed  uint64 // likewise: the exact scan failed
	Used    time.Duration
	Longest time.Duration // of all slices of this process
}

// Auditor audits. Its methods may be called from any number of goroutines, but for Run. A nil
// one audits nothing.
type Auditor struct {
	c Config

	mu       sync.Mutex
	arms     []*Arm
	auto     bool // roll back, as the release says
	queue    []*item
	bytes    int
	closed   bool
	current  context.CancelFunc // ends what is audited now; nil if nothing is
	auditing *Arm
	counts   Counts
	sampler  sampler
	rollback rollback
	news     chan struct{} // has an element when there is something in the queue
}

// New returns an auditor, which audits once it runs.
func New(c Config) *Auditor {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Auditor{c: c, news: make(chan struct{}, 1), sampler: newSampler(c.CPU)}
}

// Arm is one that answers, as audits know it. A nil one is audited never.
type Arm struct {
	Served
	auditor    *Auditor
	references references

	gone      atomic.Bool
	offered   atomic.Uint64 // that may be taken at random
	threshold atomic.Uint64 // the largest of 64 random bits with which one is

	all, ef  *stratum
	plans    [len(planNames)]*stratum
	segments map[string]*stratum // does not change
	others   *stratum            // of segments that are not among them; nil if there are none

	strata  []*stratum          // all of them; guarded by the auditor's mu, as is what follows
	nodes   map[string]*stratum // those of nodes, which come last in strata, by their names
	failure error               // why the last one could not be audited; nil if it could
	told    time.Time           // when that was told last
	rate    float64             // of offers, a second
	seen    uint64              // offers at the last tick
}

// planNames are the plans of answers: those of package index, in their order, and mixed, where
// shards have several.
var planNames = [...]string{"exact_scan", "filtered_walk", "graph_walk", "mixed"}

// maxSegments is how many segments of an arm have a stratum each. Others share one.
const maxSegments = 64

// OtherSegments is the name of the stratum that they share. No segment is called so.
const OtherSegments = "(others)"

// Serve says which arms answer from now on, in place of those before, whose queries are let
// go, and whether a release says that they roll back. It returns what [Auditor.Offer] takes,
// in the same order. Everything begins anew.
func (a *Auditor) Serve(served []Served, autoRollback bool) []*Arm {
	if a == nil {
		return make([]*Arm, len(served))
	}
	var left []*item
	defer func() { letGo(left) }()
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.c.Now()
	a.rollback.remember(a.arms)
	for _, arm := range a.arms {
		arm.gone.Store(true)
	}
	a.arms, a.auto = nil, autoRollback
	for i := range served {
		a.arms = append(a.arms, a.newArm(&served[i], now))
	}
	left = a.queue
	a.counts.Gone += uint64(len(left))
	a.queue, a.bytes = nil, 0
	if a.current != nil && a.auditing.gone.Load() {
		a.current()
	}
	a.sampler.begin(a.arms)
	a.rollback.begin()
	return slices.Clone(a.arms)
}

func (a *Auditor) newArm(served *Served, now time.Time) *Arm {
	arm := &Arm{Served: *served, auditor: a, references: newReferences(served.Manifest, served.Floor), segments: map[string]*stratum{}}
	all := served.Manifest.Apps.Segments
	add := func(kind Kind, name string) *stratum {
		s := newStratum(kind, name, RateOf(kind, len(all)), now)
		arm.strata = append(arm.strata, s)
		return s
	}
	arm.all = add(All, "")
	for i, name := range planNames {
		arm.plans[i] = add(Plan, name)
	}
	own := all[:min(len(all), maxSegments)]
	for i := range own {
		arm.segments[own[i].Name] = add(Segment, own[i].Name)
	}
	if len(all) > len(own) {
		arm.others = add(Segment, OtherSegments)
	}
	arm.ef = add(Ef, "")
	return arm
}

// Holder holds a snapshot open.
type Holder interface {
	// Hold holds it, and reports whether that was possible.
	Hold() bool
	// Release lets it go.
	Release()
}

// Answered is a query that was answered.
type Answered struct {
	Tower *shard.Tower // that was asked
	Query *shard.Query // copied if it is taken
	Found *shard.Answer
	Holder
}

// Offer takes a query that was answered by an arm, or not; see the package's doc. It waits for
// nothing, and allocates nothing unless it takes the query.
func (arm *Arm) Offer(o Answered) {
	if arm == nil || arm.gone.Load() {
		return
	}
	plan, ok := planOf(o.Found)
	if !ok {
		return
	}
	var why purpose
	if o.Query.Ef != 0 {
		why = arm.ef.due(byEf)
	} else {
		arm.offered.Add(1)
		if random() <= arm.threshold.Load() {
			why = uniform
		}
		why |= arm.plans[plan].due(byPlan)
		if s := arm.segment(o.Query.Segment); s != nil {
			why |= s.due(bySegment)
		}
	}
	if why != 0 {
		arm.take(o, plan, why)
	}
}

// segment returns the stratum of a segment; nil for none.
func (arm *Arm) segment(name string) *stratum {
	if name == "" {
		return nil
	}
	if s := arm.segments[name]; s != nil {
		return s
	}
	return arm.others
}

// planOf returns the place in planNames of the plan of an answer; false if the answer is not
// one of all shards, or none of them had to look.
func planOf(found *shard.Answer) (plan int, ok bool) {
	const mixed = len(planNames) - 1
	for i := range found.Shards {
		s := &found.Shards[i]
		switch own := int(s.Plan) - int(index.ExactScan); {
		case s.Err != nil || s.Cut != nil:
			return 0, false
		case s.Eligible == 0 || own < 0 || own >= mixed:
		case ok && own != plan:
			plan = mixed
		default:
			plan, ok = own, true
		}
	}
	return plan, ok
}

// Snapshot returns what is known of all strata that were asked, arm by arm.
func (a *Auditor) Snapshot() []Stratum {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	var out []Stratum
	for _, arm := range a.arms {
		out = append(out, arm.look(a.c.Now())...)
	}
	a.mu.Unlock()
	return ordered(out)
}

// Look returns what is known of the strata of one arm that were asked, that of all of it
// first, asked or not. It is nil for a nil arm.
func (arm *Arm) Look() []Stratum {
	if arm == nil {
		return nil
	}
	arm.auditor.mu.Lock()
	out := arm.look(arm.auditor.c.Now())
	arm.auditor.mu.Unlock()
	return ordered(out)
}

func ordered(list []Stratum) []Stratum {
	for i := range list {
		list[i].order()
	}
	return list
}

func (arm *Arm) look(now time.Time) (out []Stratum) {
	for _, s := range arm.strata {
		if s.kind != All && s.total == 0 && !s.asked.Load() {
			continue
		}
		l := s.look(now)
		l.Generation, l.Arm, l.Snapshot = arm.Generation, arm.Name, arm.Snapshot
		out = append(out, l)
	}
	return out
}

// Counts returns what has become of what was offered.
func (a *Auditor) Counts() Counts {
	if a == nil {
		return Counts{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

// Rollback says what has become of the rollback that a release asks for; empty if there is
// nothing to say.
func (a *Auditor) Rollback() string {
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rollback.text
}

// thresholdOf returns the largest of 64 random bits that have a probability.
func thresholdOf(p float64) uint64 {
	if p >= 1 {
		return math.MaxUint64
	}
	return uint64(math.Ldexp(max(p, 0), 64))
}
