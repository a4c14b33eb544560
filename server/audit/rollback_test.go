package audit

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// seen has an arm audited so many times, with a mean recall.
func (w *world) seen(arm *Arm, n int, recall float64) {
	r := rand.New(rand.NewPCG(5, 6))
	now := w.clock.Now()
	for range n {
		now = now.Add(time.Second)
		arm.all.add(now, binomial(r, 100, recall), 0.99)
	}
}

func (w *world) two(t *testing.T, auto bool) (control, candidate *Arm) {
	arms := w.Serve([]Served{
		{Generation: 4, Name: release.Control, Snapshot: manifest.Sum([]byte("good")), Manifest: measured()},
		{Generation: 4, Name: release.Candidate, Snapshot: manifest.Sum([]byte("bad")), Manifest: measured()},
	}, auto)
	require.Len(t, arms, 2)
	return arms[0], arms[1]
}

// An arm is taken off only where the control is known to do better.
func TestRollbackWaitsForTheControl(t *testing.T) {
	w := newWorld(t, 0.02)
	control, candidate := w.two(t, true)
	assert.Nil(t, w.bad())
	w.seen(candidate, 100, 0.9)
	require.Equal(t, candidate, w.bad())
	assert.ErrorContains(t, w.mayLeave(candidate), "what arm control has is not known: 0 audits, 30 are needed")
	w.seen(control, 40, 0.99)
	assert.NoError(t, w.mayLeave(candidate))

	control, candidate = w.two(t, true)
	w.seen(candidate, 100, 0.9)
	w.seen(control, 100, 0.9)
	require.Equal(t, candidate, w.bad(), "not the control")
	assert.ErrorContains(t, w.mayLeave(candidate), "arm control has an alarm as well")

	control, candidate = w.two(t, true)
	w.seen(candidate, 100, 0.93)
	w.seen(control, 40, 0.99)
	for i := range control.all.window { // not yet an alarm
		control.all.window[i].recall = 0.5
	}
	assert.ErrorContains(t, w.mayLeave(candidate), "the recall of arm control is no better")
}

// What comes back is good by its gates or by audits, and not bad by audits.
func TestRollbackOnlyToWhatIsGood(t *testing.T) {
	w := newWorld(t, 0.02)
	control, candidate := w.two(t, true)
	good, bad, other := control.Snapshot, candidate.Snapshot, manifest.Sum([]byte("other"))
	worker := &worker{Auditor: w.Auditor, clock: w.clock}
	plan := func(unfit bool, digests ...manifest.Digest) release.Plan {
		p := release.Plan{Next: &release.Release{}}
		for _, d := range digests {
			p.Next.Arms = append(p.Next.Arms, release.Arm{Snapshot: d})
			if unfit {
				p.Unfit, p.UnfitSnapshots = append(p.Unfit, "snapshot "+d.Short()+": its recall is low"), append(p.UnfitSnapshots, d)
			}
		}
		return p
	}
	assert.NoError(t, worker.mayComeBack(plan(false, other)), "its gates are good")
	assert.ErrorContains(t, worker.mayComeBack(plan(true, other)), "is not known to be good: snapshot "+other.Short()+": its recall is low")
	assert.ErrorContains(t, worker.mayComeBack(plan(true, good)), "not known to be good")
	w.seen(control, 40, 0.99)
	assert.NoError(t, worker.mayComeBack(plan(true, good)), "audits have found it good")
	w.seen(candidate, 100, 0.9)
	assert.ErrorContains(t, worker.mayComeBack(plan(false, bad)), "has an alarm as well")

	w.Serve([]Served{{Generation: 5, Name: release.Control, Snapshot: other, Manifest: measured()}}, true)
	assert.NoError(t, worker.mayComeBack(plan(true, good)), "that is remembered")
	assert.ErrorContains(t, worker.mayComeBack(plan(false, bad)), "was below its floor when it was replaced")
}

// A server that cannot roll back says so, once.
func TestNoRollback(t *testing.T) {
	for _, auto := range []bool{false, true} {
		w := newWorld(t, 0.02)
		control, candidate := w.two(t, auto)
		w.seen(control, 40, 0.99)
		w.seen(candidate, 100, 0.9)
		worker := &worker{Auditor: w.Auditor, clock: w.clock}
		for range 3 {
			worker.rollBack(t.Context(), w.clock.Now())
		}
		if !auto {
			assert.Empty(t, w.told)
			assert.Empty(t, w.Rollback())
			continue
		}
		require.Len(t, w.told, 1)
		assert.Equal(t, events.RecallKept, w.told[0].Change)
		assert.Equal(t, uint64(4), w.told[0].Generation)
		assert.Equal(t, "not done: this server follows no releases", w.Rollback())
		w.two(t, true)
		assert.Empty(t, w.Rollback(), "another generation")
	}
}
