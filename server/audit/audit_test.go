package audit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeClock is time that passes when work is done and when someone sleeps.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	used   time.Duration
	slices []time.Duration // of work between two sleeps
	slice  time.Duration
	slept  func() // called at each sleep, if set
}

func newFakeClock() *fakeClock { return &fakeClock{now: start} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Used() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

func (c *fakeClock) Sleep(_ context.Context, d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(max(d, 0))
	c.slices, c.slice = append(c.slices, c.slice), 0
	slept := c.slept
	c.mu.Unlock()
	if slept != nil {
		slept()
	}
}

// work takes time of the processor.
func (c *fakeClock) work(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.used, c.slice = c.now.Add(d), c.used+d, c.slice+d
}

// part finds a few apps, and takes its time for that.
type part struct {
	clock *fakeClock
	steps int  // of 0.1 ms
	quiet bool // it looks at the context alone, as filters do
	ids   []string
	asked func(*shard.Request)
}

func (p *part) Info() shard.Info {
	return shard.Info{Name: "part", Rows: 1000, Segments: []shard.Segment{{Name: "teens", Expression: "true"}}, SegmentRows: []int{1000}}
}

func (p *part) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	if p.asked != nil {
		p.asked(r)
	}
	for range p.steps {
		p.clock.work(100 * time.Microsecond)
		if !p.quiet {
			r.Pause()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	reply.Reset()
	for i, id := range p.ids[:min(r.K, len(p.ids))] {
		reply.Add(id, uint32(i), float32(100-i))
	}
	reply.Eligible, reply.Left, reply.Asked = 1000, 1000, r.K
	return nil
}

func (p *part) Explain(context.Context, *shard.Request, []string) ([]shard.ExplainedRow, error) {
	return nil, nil
}
func (p *part) Vectors(context.Context, shard.Moment, []string, [][]float32) error { return nil }
func (p *part) Attributes(context.Context, shard.Moment, []uint32, []int, int, []attribute.Value) (int, error) {
	return 0, nil
}

// snapshot counts who holds it.
type snapshot struct {
	mu   sync.Mutex
	held int
	gone bool
}

func (s *snapshot) Hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gone {
		s.held++
	}
	return !s.gone
}

func (s *snapshot) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
}

func (s *snapshot) holds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// world is an auditor and what it needs.
type world struct {
	*Auditor
	clock *fakeClock
	part  *part
	tower *shard.Tower
	hold  *snapshot
	told  []events.Recall
	done  []Audit
	stop  func()
}

func newWorld(t *testing.T, cpu float64) *world {
	w := &world{clock: newFakeClock(), hold: &snapshot{}}
	w.part = &part{clock: w.clock, steps: 5}
	for i := range 200 {
		w.part.ids = append(w.part.ids, fmt.Sprintf("app-%03d", i))
	}
	var err error
	w.tower, err = shard.NewTowerOf(shard.Apps, []shard.Part{w.part}, 1, index.Dot, 2, attribute.Schema{})
	require.NoError(t, err)
	w.Auditor = New(Config{
		CPU: cpu, Events: events.Tee(&events.Listener{Recall: func(e events.Recall) { w.told = append(w.told, e) }}),
		Clock: func() Clock { return w.clock }, Now: w.clock.Now, Recorded: func(a Audit) { w.done = append(w.done, a) },
	})
	return w
}

func measured(names ...string) *manifest.Manifest {
	recall := []manifest.Recall{{K: 10, Target: 0.99, Queries: 100, Recall: 0.99}, {K: 100, Target: 0.99, Queries: 100, Recall: 0.995}}
	m := &manifest.Manifest{Dim: 2, Apps: manifest.Tower{Rows: 1000, Recall: recall}}
	for _, name := range names {
		m.Apps.Segments = append(m.Apps.Segments, manifest.Segment{Segment: shard.Segment{Name: name}, Recall: recall})
	}
	return m
}

// answered is an answer that lacks some of the best.
func (w *world) answered(plan index.Plan, segment string, k, missing int) Answered {
	found := &shard.Answer{Shards: []shard.ShardAnswer{{Eligible: 1000, Stats: index.Stats{Plan: plan}}}}
	for i := missing; i < k+missing; i++ {
		found.Candidates = append(found.Candidates, shard.Candidate{ID: w.part.ids[i], Score: float32(100 - i)})
	}
	return Answered{
		Tower: w.tower, Found: found, Holder: w.hold,
		Query: &shard.Query{Vectors: [][]float32{{1, 2}}, K: k, Segment: segment, Target: 0.99, MinCoverage: 1},
	}
}

// run runs until stop is called.
func (w *world) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { w.Run(ctx) })
	w.stop = func() { cancel(); group.Wait() }
}

// finish waits until the queue is empty and ends the run.
func (w *world) finish(t *testing.T) {
	require.Eventually(t, func() bool { return w.hold.holds() == 0 }, time.Minute, time.Millisecond)
	w.stop()
}

func TestAuditOfAnAnswer(t *testing.T) {
	w := newWorld(t, 1)
	arms := w.Serve([]Served{{Generation: 3, Name: "control", Manifest: measured("teens")}}, false)
	w.run(t.Context())
	arms[0].threshold.Store(thresholdOf(1))
	arms[0].Offer(w.answered(index.GraphWalk, "", 10, 2))
	w.finish(t)
	strata := arms[0].Look()
	require.Len(t, strata, 2)
	assert.Equal(t, All, strata[0].Kind)
	assert.InDelta(t, 0.8, strata[0].Recall, 1e-9)
	assert.InDelta(t, 0.97, strata[0].Floor, 1e-9)
	assert.Equal(t, 1, strata[0].Audits)
	assert.False(t, strata[0].Enough, "one audit is not enough data")
	assert.Equal(t, "graph_walk", strata[1].Name)
	assert.Equal(t, uint64(1), w.Counts().Audits)
}

// What is audited is the query that was asked, by the exact plan.
func TestAuditAsksTheSame(t *testing.T) {
	w := newWorld(t, 1)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured("teens")}}, false)
	var asked shard.Request
	w.part.asked = func(r *shard.Request) { asked = *r; asked.Exclude = append([]string(nil), r.Exclude...) }
	arms[0].threshold.Store(thresholdOf(1))
	o := w.answered(index.FilteredWalk, "teens", 10, 0)
	o.Query.Exclude = []string{"app-150"}
	o.Query.Moment = shard.Moment{Snapshot: "abc", Time: start}
	vector := o.Query.Vectors[0]
	arms[0].Offer(o)
	vector[0], o.Query.Exclude[0] = 7, "changed" // by the next request
	w.run(t.Context())
	w.finish(t)
	assert.Equal(t, index.ExactScan, asked.Plan)
	assert.Equal(t, []float32{1, 2}, asked.Vectors[0])
	assert.Equal(t, []string{"app-150"}, asked.Exclude)
	assert.Equal(t, "teens", asked.Segment)
	assert.Equal(t, o.Query.Moment, asked.Moment)
	assert.Equal(t, 10, asked.K)
}

// The share of a processor is kept, in slices of at most a millisecond.
func TestBudget(t *testing.T) {
	for _, share := range []float64{0.02, 0.5} {
		w := newWorld(t, share)
		w.part.quiet = share > 0.1
		w.part.steps = 300 // 30 ms
		arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
		arms[0].threshold.Store(thresholdOf(1))
		for range 10 {
			arms[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
		}
		w.run(t.Context())
		w.finish(t)
		took := w.clock.Now().Sub(start)
		assert.Equal(t, 300*time.Millisecond, w.clock.Used())
		assert.InDelta(t, 0.3/share, took.Seconds(), 0.3/share/100, "share %v", share)
		assert.Greater(t, len(w.clock.slices), 300)
		for _, slice := range w.clock.slices {
			assert.LessOrEqual(t, slice, time.Millisecond)
		}
		assert.LessOrEqual(t, w.Counts().Longest, time.Millisecond)
	}
}

// What is not audited in time is let go, and so is what is of an arm that answers no more.
func TestNothingIsHeldForLong(t *testing.T) {
	w := newWorld(t, 0.02)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	arms[0].threshold.Store(thresholdOf(1))
	for range maxQueued + 5 {
		arms[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
	}
	assert.Equal(t, maxQueued, w.hold.holds())
	assert.Equal(t, uint64(5), w.Counts().Full)

	next := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	assert.Zero(t, w.hold.holds())
	assert.Equal(t, uint64(maxQueued), w.Counts().Gone)
	arms[0].Offer(w.answered(index.GraphWalk, "", 10, 0)) // of a request that took longer
	assert.Zero(t, w.hold.holds())

	next[0].threshold.Store(thresholdOf(1))
	next[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
	w.clock.Sleep(t.Context(), maxAge+time.Second)
	w.run(t.Context())
	w.finish(t)
	assert.Equal(t, uint64(1), w.Counts().Aged)
	next[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
	assert.Zero(t, w.hold.holds(), "nothing audits any more")
}

// An audit ends in its midst when its arm goes.
func TestAuditEndsWithItsArm(t *testing.T) {
	w := newWorld(t, 0.02)
	w.part.steps = 1 << 40
	arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	arms[0].threshold.Store(thresholdOf(1))
	arms[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
	slept := make(chan struct{})
	var once sync.Once
	w.clock.slept = func() { once.Do(func() { close(slept) }) }
	w.run(t.Context())
	<-slept
	w.Serve(nil, false)
	w.finish(t)
	assert.Equal(t, uint64(1), w.Counts().Gone)
	assert.Zero(t, w.Counts().Audits)
}

// Answers that lack shards are no matter of recall.
func TestOfferOfAnAnswerThatLacksShards(t *testing.T) {
	w := newWorld(t, 1)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	arms[0].threshold.Store(thresholdOf(1))
	o := w.answered(index.GraphWalk, "", 10, 0)
	o.Found.Shards = append(o.Found.Shards, shard.ShardAnswer{Err: context.DeadlineExceeded})
	arms[0].Offer(o)
	o = w.answered(index.GraphWalk, "", 10, 0)
	o.Found.Shards[0].Cut = context.DeadlineExceeded
	arms[0].Offer(o)
	assert.Zero(t, w.hold.holds())
}

func TestOfferAllocatesNothing(t *testing.T) {
	w := newWorld(t, 0.02)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured("teens")}}, false)
	arms[0].threshold.Store(0)
	o := w.answered(index.FilteredWalk, "teens", 100, 0)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { arms[0].Offer(o) }))
	var none *Arm
	assert.Zero(t, testing.AllocsPerRun(1000, func() { none.Offer(o) }))
	assert.Zero(t, w.hold.holds())
}

func BenchmarkOffer(b *testing.B) {
	w := &world{clock: newFakeClock(), hold: &snapshot{}, part: &part{ids: make([]string, 200)}}
	w.Auditor = New(Config{CPU: 0.02, Events: events.Tee()})
	arms := w.Serve([]Served{{Name: "control", Manifest: measured("teens")}}, false)
	arms[0].threshold.Store(0)
	o := w.answered(index.FilteredWalk, "teens", 100, 0)
	b.ReportAllocs()
	for b.Loop() {
		arms[0].Offer(o)
	}
}

// lateClock is one whose sleeps end late, for a while.
type lateClock struct {
	*fakeClock
	late int // sleeps that do
}

func (c *lateClock) Sleep(ctx context.Context, d time.Duration) {
	if c.late > 0 {
		c.late--
		d += 20 * time.Millisecond
	}
	c.fakeClock.Sleep(ctx, d)
}

// Where others want the processor, audits wait until they do not, or for two seconds.
func TestBudgetGivesWay(t *testing.T) {
	for _, c := range []struct {
		late int
		want time.Duration
	}{{0, 50 * time.Millisecond}, {1, 250 * time.Millisecond}, {1 << 30, 2 * time.Second}} {
		clock := &lateClock{newFakeClock(), c.late}
		b := newBudget(clock, clock.Now, 0.02)
		clock.work(time.Millisecond)
		b.pause(t.Context())
		assert.InDelta(t, c.want.Seconds(), clock.Now().Sub(start).Seconds(), 0.25, "%d late", c.late)
	}
}

func TestPlanOf(t *testing.T) {
	shardOf := func(plan index.Plan, eligible int) shard.ShardAnswer {
		return shard.ShardAnswer{Eligible: eligible, Stats: index.Stats{Plan: plan}}
	}
	for _, c := range []struct {
		shards []shard.ShardAnswer
		want   string
	}{
		{[]shard.ShardAnswer{shardOf(index.ExactScan, 1), shardOf(index.ExactScan, 1)}, "exact_scan"},
		{[]shard.ShardAnswer{shardOf(index.FilteredWalk, 1)}, "filtered_walk"},
		{[]shard.ShardAnswer{shardOf(index.ExactScan, 0), shardOf(index.GraphWalk, 1)}, "graph_walk"},
		{[]shard.ShardAnswer{shardOf(index.GraphWalk, 1), shardOf(index.ExactScan, 1), shardOf(index.GraphWalk, 1)}, "mixed"},
		{[]shard.ShardAnswer{shardOf(index.ExactScan, 0)}, ""},
		{[]shard.ShardAnswer{shardOf(index.GraphWalk, 1), {Err: context.Canceled}}, ""},
	} {
		plan, ok := planOf(&shard.Answer{Shards: c.shards})
		assert.Equal(t, c.want != "", ok)
		if ok {
			assert.Equal(t, c.want, planNames[plan])
		}
	}
}
