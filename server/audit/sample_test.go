package audit

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// serve asks an arm queries of which some are of a rare plan and some of a rare segment, and
// takes what is in the queue as audited, for a cost, within the budget.
func (w *world) serve(t *testing.T, arms []*Arm, seconds, qps int, cost time.Duration) (taken map[purpose]int) {
	taken = map[purpose]int{}
	r := rand.New(rand.NewPCG(1, 2))
	var free time.Duration // budget
	for range seconds * qps {
		arm := arms[0]
		if len(arms) > 1 && r.IntN(100) == 0 {
			arm = arms[1]
		}
		plan, segment := index.GraphWalk, ""
		switch r.IntN(200) {
		case 0:
			plan = index.ExactScan
		case 1:
			segment = "teens"
		}
		arm.Offer(w.answered(plan, segment, 10, 0))
		w.clock.Sleep(t.Context(), time.Second/time.Duration(qps))
		free += time.Duration(float64(time.Second) * w.c.CPU / float64(qps))
		for free >= cost {
			it := w.next(w.clock.Now())
			if it == nil {
				free = cost
				break
			}
			free -= cost
			it.hold.Release()
			taken[it.why]++
			for _, s := range it.strata() {
				s.total++
			}
			w.sampler.done(cost)
		}
		w.mu.Lock()
		w.sampler.tick(w.clock.Now(), w.arms)
		w.mu.Unlock()
	}
	return taken
}

// Rare strata are audited too, arms as often as each other, and the budget is used.
func TestSamplingFloor(t *testing.T) {
	w := newWorld(t, 0.02)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured("teens", "adults")}, {Name: "candidate", Manifest: measured("teens")}}, false)
	const seconds = 600
	taken := w.serve(t, arms, seconds, 50, 20*time.Millisecond) // room for one a second
	t.Logf("taken %v, counts %+v", taken, w.counts)
	for _, s := range arms[0].strata {
		if s.asked.Load() {
			t.Logf("%s %s: %d", s.kind, s.name, s.total)
		}
	}
	control, candidate := arms[0].all.total, arms[1].all.total
	assert.Greater(t, int(control), seconds/6)
	assert.Greater(t, int(candidate), seconds/20, "of a hundredth of the traffic")
	assert.Greater(t, int(arms[0].plans[0].total), seconds/40, "a plan of one query in 4 seconds")
	assert.Greater(t, int(arms[0].segments["teens"].total), seconds/40, "a segment of one query in 4 seconds")
	assert.Less(t, int(w.counts.Full+w.counts.Aged), seconds/10)
}

// What is taken for a stratum that is rare counts in no other.
func TestRareAuditsCountInTheirStratum(t *testing.T) {
	w := newWorld(t, 0.02)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured("teens")}}, false)
	arms[0].threshold.Store(0)
	arms[0].segments["teens"].wanted.Store(true)
	arms[0].Offer(w.answered(index.GraphWalk, "teens", 10, 0))
	it := w.next(w.clock.Now())
	require.NotNil(t, it)
	assert.Equal(t, []*stratum{arms[0].segments["teens"]}, it.strata())

	arms[0].threshold.Store(thresholdOf(1))
	arms[0].Offer(w.answered(index.GraphWalk, "teens", 10, 0))
	it = w.next(w.clock.Now())
	assert.Equal(t, []*stratum{arms[0].all, arms[0].plans[2], arms[0].segments["teens"]}, it.strata())
}

// Queries that give an ef are apart, and raise no alarm.
func TestEfIsApart(t *testing.T) {
	w := newWorld(t, 1)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	arms[0].threshold.Store(thresholdOf(1))
	w.run(t.Context())
	for range 40 {
		arms[0].ef.wanted.Store(true)
		o := w.answered(index.GraphWalk, "", 10, 9)
		o.Query.Ef = 1
		arms[0].Offer(o)
		require.Eventually(t, func() bool { return w.hold.holds() == 0 }, time.Minute, 50*time.Microsecond)
	}
	w.finish(t)
	strata := arms[0].Look()
	require.Len(t, strata, 2)
	assert.Zero(t, strata[0].Total)
	assert.Equal(t, Ef, strata[1].Kind)
	assert.InDelta(t, 0.1, strata[1].Recall, 1e-9)
	assert.Zero(t, strata[1].Floor)
	assert.Empty(t, w.told)
}

func TestRecallOf(t *testing.T) {
	list := func(scores ...float32) (out []shard.Candidate) {
		for i, s := range scores {
			out = append(out, shard.Candidate{ID: string(rune('a' + i)), Score: s})
		}
		return out
	}
	exact := list(9, 8, 7, 6)
	assert.InDelta(t, 1, recallOf(exact, exact), 0)
	assert.InDelta(t, 1, recallOf(nil, nil), 0)
	assert.InDelta(t, 0.5, recallOf(exact, exact[2:]), 0)
	tied := append(list(9, 8, 7), shard.Candidate{ID: "z", Score: 6 * (1 + 0.9e-5)})
	assert.InDelta(t, 1, recallOf(exact, tied), 0, "a tie within what scores promise")
	tied[3].Score = 6 * (1 - 3e-5)
	assert.InDelta(t, 0.75, recallOf(exact, tied), 0)
	tied[3].Score = 8.5 // what ranks there and is not in the exact answer should not have been given
	assert.InDelta(t, 0.75, recallOf(exact, tied), 0)
	negative := []shard.Candidate{{ID: "a", Score: -1}, {ID: "b", Score: -2}}
	assert.InDelta(t, 0.5, recallOf(negative, []shard.Candidate{{ID: "a", Score: -1}, {ID: "c", Score: -2.1}}), 0)
}

func TestReference(t *testing.T) {
	m := measured("teens")
	m.Apps.Recall = append(m.Apps.Recall, manifest.Recall{K: 10, Target: 0.999, Queries: 100, Recall: 0.9995})
	m.Apps.Segments[0].Recall = []manifest.Recall{{K: 10, Target: 0.99, Queries: 100, Recall: 0.985}, {K: 100, Target: 0.99, Queries: 100, Recall: 0.98}}
	q := func(k int, target float64, segment string) *shard.Query {
		return &shard.Query{K: k, Target: target, Segment: segment}
	}
	r := newReferences(m, 0)
	for _, c := range []struct {
		q    *shard.Query
		want float64
	}{
		{q(10, 0.99, ""), 0.99},
		{q(100, 0.99, ""), 0.995},
		{q(500, 0.99, ""), 0.995},
		{q(50, 0.99, ""), 0.99}, // the lower of the bands around it
		{q(10, 0.999, ""), 0.9995},
		{q(10, 0.95, ""), 0.95},   // nothing was measured for 0.95 itself: what is for more is not promised
		{q(10, 0.9, ""), 0.9},     // likewise
		{q(10, 0.995, ""), 0.995}, // no target of the manifest
		{q(10, 1, ""), 1},
		{q(10, 0.99, "teens"), 0.985},
		{q(100, 0.99, "teens"), 0.98},
		{q(10, 0.999, "teens"), 0.999},
		{&shard.Query{K: 100, Target: 0.99, Include: []string{"a"}}, 0.99}, // its own target
	} {
		assert.InDelta(t, c.want, r.of(shard.Apps, c.q), 1e-9, "k %d, target %v, segment %q", c.q.K, c.q.Target, c.q.Segment)
	}
	r = newReferences(m, 0.9)
	assert.InDelta(t, 0.92, r.of(shard.Apps, q(10, 0.99, "")), 1e-9)
	assert.InDelta(t, 0.9, r.of(shard.Apps, q(10, 0.9, "")), 1e-9)
}

// An alarm is raised where recall is low, told once, and cleared once it is not.
func TestAlarm(t *testing.T) {
	s := newStratum(All, "", FalseAlarms/2, start)
	r := rand.New(rand.NewPCG(3, 4))
	now, changes := start, map[change]int{}
	ask := func(n int, p float64) {
		for range n {
			now = now.Add(time.Second)
			changes[s.add(now, binomial(r, 100, p), 0.99)]++
		}
	}
	ask(1000, 0.99)
	assert.Equal(t, map[change]int{nothing: 1000}, changes)
	ask(60, 0.9)
	assert.Equal(t, 1, changes[raised])
	l := s.look(now)
	require.NotNil(t, l.Alarm)
	assert.Less(t, l.High, l.Floor)
	assert.InDelta(t, 0.9, l.Recall, 0.03, "what was before recall fell does not count")
	assert.WithinDuration(t, start.Add(1000*time.Second), l.Alarm.Onset, 15*time.Second)
	assert.Contains(t, l.Alarm.String(), "below")
	ask(600, 0.9)
	assert.Equal(t, 1, changes[raised], "told once")
	assert.Zero(t, changes[cleared])
	ask(400, 0.99)
	assert.Equal(t, 1, changes[cleared])
	assert.Nil(t, s.look(now).Alarm)
}

func TestAlarmsAreTold(t *testing.T) {
	w := newWorld(t, 1)
	arms := w.Serve([]Served{{Generation: 7, Name: "candidate", Manifest: measured()}}, false)
	w.run(t.Context())
	for range 40 {
		arms[0].threshold.Store(thresholdOf(1))
		arms[0].Offer(w.answered(index.GraphWalk, "", 10, 2))
		require.Eventually(t, func() bool { return w.hold.holds() == 0 }, time.Minute, 50*time.Microsecond)
	}
	w.finish(t)
	require.NotEmpty(t, w.told)
	assert.Equal(t, events.RecallAlarm, w.told[0].Change)
	assert.Equal(t, "all", w.told[0].Stratum)
	assert.Equal(t, uint64(7), w.told[0].Generation)
	assert.InDelta(t, 0.8, w.told[0].Recall, 1e-9)
	assert.InDelta(t, 0.97, w.told[0].Floor, 1e-9)
}
