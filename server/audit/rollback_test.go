package audit

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
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

// TestRollbackToAControlWithoutTraffic takes off an arm that has all traffic, beside a control
// of which there will be no audits: what was found of it before decides, and its gates.
func TestRollbackToAControlWithoutTraffic(t *testing.T) {
	for was, want := range map[string]string{
		"good":     "done: generation 4 brings generation 1 back",
		"bad":      "was below its floor when it was replaced",
		"no gates": "what would come back is not known to be good: ",
	} {
		t.Run(was, func(t *testing.T) {
			w := newWorld(t, 0.02)
			releases, arms := allToTheCandidate(t)
			w.c.Releases = releases
			before := w.Serve(arms[:1], true)[0]
			switch was {
			case "good":
				w.seen(before, 40, 0.99)
			case "bad":
				w.seen(before, 100, 0.9)
			}
			served := w.Serve(arms, true)
			w.seen(served[1], 100, 0.9)
			worker := &worker{Auditor: w.Auditor, clock: w.clock}
			w.mu.Lock()
			worker.rollBack(t.Context(), w.clock.Now())
			w.mu.Unlock()
			worker.aside.Wait()
			assert.Contains(t, w.Rollback(), want)
			now, err := releases.Current(t.Context())
			require.NoError(t, err)
			if was != "good" {
				assert.Equal(t, uint64(3), now.Generation, "nothing has changed")
				return
			}
			require.Equal(t, 1, len(now.Arms), "arms") // each prints a thousand buckets
			assert.Equal(t, arms[0].Snapshot, now.Arms[0].Snapshot)
		})
	}
}

// allToTheCandidate returns releases whose third has a candidate with all traffic beside a
// control, and its arms. Neither was gated.
func allToTheCandidate(t *testing.T) (*release.Releases, []Served) {
	bucket, err := objects.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	store, err := snapshots.NewStore(bucket, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	releases, by := release.New(store), release.Change{Author: "ann", Override: "a test"}
	served := []Served{{Name: release.Control, Idle: true}, {Name: release.Candidate}}
	for i := range served {
		version := served[i].Name
		one := manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum([]byte(version)), Size: 1}}}
		m := &manifest.Manifest{
			Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: version, Metric: index.Dot, Dim: 1, Apps: one, Users: one,
		}
		data, err := m.Encode()
		require.NoError(t, err)
		d := manifest.Sum(data)
		require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d)+".json", data))
		require.NoError(t, bucket.Write(t.Context(), "shards/"+string(one.Shards[0].Digest)+".shard", []byte{0}))
		_, err = releases.Start(t.Context(), release.StartOptions{Change: by, Snapshot: d})
		require.NoError(t, err)
		served[i].Generation, served[i].Snapshot, served[i].Manifest = 3, d, measured()
	}
	by.AutoRollback = true
	_, err = releases.Split(t.Context(), release.SplitOptions{Change: by, Weights: map[string]int{release.Candidate: release.Total}})
	require.NoError(t, err)
	return releases, served
}
