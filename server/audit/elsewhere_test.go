package audit

import (
	"context"
	"errors"
	"fmt"
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

// elsewhere has the exact answers of a world found by other processes, each of which takes so
// long.
func elsewhere(t *testing.T, cpu float64, used time.Duration, failing *error) *world {
	w := newWorld(t, cpu)
	w.c.Exact = func(_ context.Context, tower *shard.Tower, q *shard.Query) (*shard.Answer, time.Duration, error) {
		if *failing != nil {
			return nil, 0, *failing
		}
		exact := &shard.Answer{}
		for i, id := range w.part.ids[:q.K] {
			exact.Candidates = append(exact.Candidates, shard.Candidate{ID: id, Score: float32(100 - i)})
		}
		return exact, used, nil
	}
	return w
}

// What others take for audits is the budget, on average.
func TestBudgetElsewhere(t *testing.T) {
	var failing error
	w := elsewhere(t, 0.02, 30*time.Millisecond, &failing)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	arms[0].threshold.Store(thresholdOf(1))
	for range 10 {
		arms[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
	}
	w.run(t.Context())
	w.finish(t)
	assert.Equal(t, uint64(10), w.Counts().Audits)
	assert.Equal(t, 300*time.Millisecond, w.Counts().Used)
	took := w.clock.Now().Sub(start).Seconds()
	assert.InDelta(t, 0.3/0.02, took, 1.6, "the last one need not be rested from")
	assert.Zero(t, w.clock.Used())
}

// Where audits cannot be done that is said once in a while; where there is no room for them, or
// not in time, it is counted.
func TestFailuresElsewhere(t *testing.T) {
	failing := errors.New("no node audits")
	w := elsewhere(t, 1, time.Millisecond, &failing)
	arms := w.Serve([]Served{{Name: "control", Manifest: measured()}}, false)
	arms[0].threshold.Store(thresholdOf(1))
	worker := &worker{Auditor: w.Auditor, clock: w.clock, budget: newBudget(w.clock, w.clock.Now, 1)}
	auditOne := func(passed time.Duration) {
		w.clock.Sleep(t.Context(), passed)
		arms[0].Offer(w.answered(index.GraphWalk, "", 10, 0))
		it := worker.next(w.clock.Now())
		require.NotNil(t, it)
		worker.audit(t.Context(), it)
	}
	auditOne(0)
	auditOne(time.Minute)
	require.EqualError(t, arms[0].Failure(), "no node audits")
	require.Len(t, w.told, 1)
	assert.Equal(t, events.RecallUnaudited, w.told[0].Change)
	assert.EqualError(t, w.told[0].Err, "no node audits")
	auditOne(tellAgain)
	require.Len(t, w.told, 2)
	failing = nil
	auditOne(0)
	require.NoError(t, arms[0].Failure())
	failing = fmt.Errorf("%w: node-1", ErrBusy)
	auditOne(0)
	failing = fmt.Errorf("%w: position 7", ErrLate)
	auditOne(0)
	require.NoError(t, arms[0].Failure())
	require.Len(t, w.told, 2)
	counts := w.Counts()
	assert.Equal(t, [4]uint64{1, 3, 1, 1}, [4]uint64{counts.Audits, counts.Failed, counts.Busy, counts.Aged})
}

// cluster is answers of so many shards, of which each is asked on one of two nodes: of the first
// shard one node finds only a part.
type cluster struct {
	*world
	arm    *Arm
	worker *worker
	r      *rand.Rand
	shards int
	finds  float64
}

func newCluster(t *testing.T, shards int, finds float64) *cluster {
	w := newWorld(t, 1)
	c := &cluster{world: w, r: rand.New(rand.NewPCG(3, uint64(shards))), shards: shards, finds: finds}
	c.arm = w.Serve([]Served{{Generation: 2, Name: "control", Snapshot: manifest.Sum([]byte("a")), Manifest: measured()}}, true)[0]
	c.worker = &worker{Auditor: w.Auditor, clock: w.clock, budget: newBudget(w.clock, w.clock.Now, 1)}
	return c
}

// audit audits one answer.
func (c *cluster) audit() {
	c.clock.Sleep(context.Background(), time.Second)
	it := &item{arm: c.arm, why: uniform, reference: 0.99, from: make([]string, c.shards)}
	for i := range it.from {
		it.from[i] = fmt.Sprintf("node-%d", 2*(i%4)+c.r.IntN(2)) // eight nodes, of which two have each shard
	}
	exact := &shard.Answer{}
	for i, id := range c.part.ids[:100] {
		exact.Candidates = append(exact.Candidates, shard.Candidate{ID: id, Score: float32(100 - i)})
		share := 0.995
		if of := shard.Partition(id, c.shards); of == 0 && it.from[of] == "node-1" {
			share = c.finds
		}
		if c.r.Float64() < share {
			it.found = append(it.found, exact.Candidates[i])
		}
	}
	c.worker.record(it, exact, nil, time.Millisecond)
}

// A replica that has a damaged graph hides in the mean of all answers, and is found and named
// by what it finds itself. Nothing is rolled back for it.
func TestOneReplicaIsLow(t *testing.T) {
	c := newCluster(t, 16, 0.6)
	for range 300 {
		c.audit()
	}
	require.Nil(t, c.arm.all.alarm, "all: %v", c.arm.all.alarm)
	require.Len(t, c.told, 1)
	assert.Equal(t, events.Recall{Stratum: "node", Name: "node-1"}, events.Recall{Stratum: c.told[0].Stratum, Name: c.told[0].Name})
	var low []string
	for _, s := range c.arm.Look() {
		if s.Alarm != nil {
			low = append(low, s.Kind.String()+" "+s.Name)
			assert.InDelta(t, 0.9, s.Recall, 0.03, "a quarter of its rows are of the shard")
		}
	}
	assert.Equal(t, []string{"node node-1"}, low)
	assert.Nil(t, c.bad(), "its snapshot is not bad")
	assert.True(t, c.arm.isGood())

	c.finds = 0.995 // it has loaded the shard again
	for i := 0; c.arm.nodes["node-1"].alarm != nil; i++ {
		require.Less(t, i, 2000)
		c.audit()
	}
	assert.Equal(t, events.RecallCleared, c.told[1].Change)
}

// A node that is no more is forgotten, with its alarm.
func TestNodesAreForgotten(t *testing.T) {
	c := newCluster(t, 16, 0.5)
	for range 300 {
		c.audit()
	}
	require.Contains(t, c.arm.lowNodes(), "node-1")
	c.clock.Sleep(t.Context(), goneAfter+time.Second)
	c.worker.tick(t.Context())
	assert.Empty(t, c.arm.nodes)
	for _, s := range c.arm.strata {
		assert.NotEqual(t, Node, s.kind)
	}
	last := c.told[len(c.told)-1]
	assert.Equal(t, events.RecallCleared, last.Change)
	assert.Equal(t, "node", last.Stratum)
}

// Beyond a bound nothing is known of a node by itself.
func TestNodesAreBounded(t *testing.T) {
	c := newCluster(t, 1, 1)
	for i := range 2 * maxNodes {
		c.arm.node(fmt.Sprint("node-", i), c.clock.Now())
	}
	assert.Len(t, c.arm.nodes, maxNodes)
	assert.Nil(t, c.arm.node("another", c.clock.Now()))
	for i, s := range c.arm.strata[len(c.arm.strata)-maxNodes:] {
		assert.Equal(t, Node, s.kind)
		if i > 0 {
			assert.Less(t, c.arm.strata[len(c.arm.strata)-maxNodes+i-1].name, s.name)
		}
	}
}

func TestSharesOf(t *testing.T) {
	of := func(scores ...float32) (list []shard.Candidate) {
		for i, s := range scores {
			list = append(list, shard.Candidate{ID: fmt.Sprint("app-", i), Score: s})
		}
		return list
	}
	exact := of(9, 8, 7, 7)
	assert.Nil(t, sharesOf(exact, exact, nil), "shards of this process")
	assert.Nil(t, sharesOf(nil, nil, []string{"a"}))
	assert.Equal(t, map[string]share{"a": {4, 4}}, sharesOf(exact, exact, []string{"a"}))
	assert.Equal(t, map[string]share{"a": {1, 2}}, sharesOf(exact, exact[1:2], []string{"a"}), "of the last ones others may stand for two")
	total := share{}
	for _, s := range sharesOf(exact, exact[1:], []string{"a", "b", "c"}) {
		total.found, total.of = total.found+s.found, total.of+s.of
	}
	assert.Equal(t, share{3, 4}, total)
}
