package release_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
)

// story makes changes that a test tells as words: "start a", "split", ...
type story struct {
	t *testing.T
	r *release.Releases
	d map[string]manifest.Digest
}

func newStory(t *testing.T) *story {
	r, d := newReleases(t, folder(t), "z", "a", "b", "c")
	return &story{t, r, map[string]manifest.Digest{"z": d[0], "a": d[1], "b": d[2], "c": d[3]}}
}

func (s *story) start(name string, weight int) {
	s.t.Helper()
	_, err := s.r.Start(s.t.Context(), release.StartOptions{Snapshot: s.d[name], Weight: weight})
	require.NoError(s.t, err)
}

func (s *story) promote() {
	s.t.Helper()
	_, err := s.r.Promote(s.t.Context(), release.Change{}, "")
	require.NoError(s.t, err)
}

func (s *story) split(weight int) {
	s.t.Helper()
	_, err := s.r.Split(s.t.Context(), release.SplitOptions{Weights: map[string]int{"candidate": weight}})
	require.NoError(s.t, err)
}

// back rolls back and returns the generation that came back, and what was said of it.
func (s *story) back(o release.RollbackOptions) (uint64, release.Plan) {
	s.t.Helper()
	var plan release.Plan
	o.Before = func(p release.Plan) { plan = p }
	got, err := s.r.Rollback(s.t.Context(), o)
	require.NoError(s.t, err)
	require.Equal(s.t, got.Arms, plan.Next.Arms)
	return got.Of, plan
}

func (s *story) stuck(o release.RollbackOptions, text string) {
	s.t.Helper()
	o.Before = func(release.Plan) { s.t.Error("nothing is to be said of what is not done") }
	_, err := s.r.Rollback(s.t.Context(), o)
	require.ErrorIs(s.t, err, release.ErrChange)
	require.ErrorContains(s.t, err, text)
}

// A canary that has 10% of the traffic loses all of it, and does not come back.
func TestRollbackTakesTheCanaryOff(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.stuck(release.RollbackOptions{}, "generation 1 is the first")
	s.start("a", 10)
	s.split(100)
	of, plan := s.back(release.RollbackOptions{})
	assert.EqualValues(t, 1, of)
	assert.Equal(t, []manifest.Digest{s.d["a"]}, plan.Off)
	assert.Empty(t, plan.Passed)
	assert.Empty(t, plan.Unfit)
	assert.EqualValues(t, 4, plan.Next.Generation)
	for range 2 {
		s.stuck(release.RollbackOptions{}, "there is no earlier generation in which another snapshot had all traffic than "+s.d["z"].Short())
	}
}

// An arm without a share still answers those who are pinned to it, and may be ended alone.
func TestRollbackBesideAnArmWithoutTraffic(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	s.split(0)
	s.stuck(release.RollbackOptions{}, "that can come back; tandem release stop candidate ends that arm alone; name one")
}

func TestRollbackOfWhatHasAllTraffic(t *testing.T) {
	for name, promote := range map[string]func(*story){
		"promoted": func(s *story) { s.start("a", 10); s.promote() },
		"grown":    func(s *story) { s.start("a", 10); s.split(1000) },
		"at once":  func(s *story) { s.start("a", 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.start("z", 0)
			promote(s)
			of, _ := s.back(release.RollbackOptions{})
			assert.EqualValues(t, 1, of)
			s.stuck(release.RollbackOptions{}, "there is no earlier generation")
		})
	}
}

// What came last is what goes, however its share changed since.
func TestRollbackFromAMixture(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 0)
	_, err := s.r.Split(t.Context(), release.SplitOptions{Pins: map[string][]string{"candidate": {"u1"}}})
	require.NoError(t, err)
	s.split(1000)
	// In the generation before, another than what has 100 had all traffic: the bad one.
	_, err = s.r.Split(t.Context(), release.SplitOptions{Weights: map[string]int{"candidate": 900, "control": 100}})
	require.NoError(t, err)
	of, _ := s.back(release.RollbackOptions{})
	assert.EqualValues(t, 1, of, "and no user is pinned to it")

	// It was good before, and is tried again: the path behind is not gone.
	s = newStory(t)
	s.start("a", 0)
	s.start("z", 10)
	s.promote()      // 3: z
	s.start("a", 10) // 4
	of, _ = s.back(release.RollbackOptions{})
	assert.EqualValues(t, 3, of)
	s.stuck(release.RollbackOptions{}, "generation 1: it has snapshot "+s.d["a"].Short()+", which generation 5 took off")
	of, _ = s.back(release.RollbackOptions{To: 1})
	assert.EqualValues(t, 1, of, "who names it gets it")
}

// A rollback that was a mistake is taken back, and what it went to is no worse for it.
func TestRollbackTakenBack(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	s.promote()                            // 3: a
	s.back(release.RollbackOptions{})      // 4: z
	s.back(release.RollbackOptions{To: 3}) // 5: a again
	of, _ := s.back(release.RollbackOptions{})
	assert.EqualValues(t, 1, of)
	// Started again, it is a release like any other.
	s.start("a", 10)
	s.promote() // 8: a
	s.start("b", 10)
	of, _ = s.back(release.RollbackOptions{})
	assert.EqualValues(t, 8, of)
	of, _ = s.back(release.RollbackOptions{})
	assert.EqualValues(t, 6, of)
}

func TestRollbackToAMixture(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	s.promote()                            // 3: a
	s.back(release.RollbackOptions{To: 2}) // 4: z and a, of which a came last
	of, _ := s.back(release.RollbackOptions{})
	assert.EqualValues(t, 1, of)
}

func TestRollbackAwayFrom(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	s.promote()
	_, err := s.r.Start(t.Context(), release.StartOptions{Snapshot: s.d["b"], Arm: "b", Weight: 10})
	require.NoError(t, err)
	_, err = s.r.Start(t.Context(), release.StartOptions{Snapshot: s.d["c"], Arm: "c", Weight: 10})
	require.NoError(t, err)
	s.stuck(release.RollbackOptions{AwayFrom: string(s.d["z"])}, "does not serve; "+s.d["a"].Short()+", "+s.d["b"].Short()+", "+s.d["c"].Short()+" do")
	s.stuck(release.RollbackOptions{To: 1, AwayFrom: "a"}, "accepted: one of them")
	of, _ := s.back(release.RollbackOptions{AwayFrom: string(s.d["c"][:20])})
	assert.EqualValues(t, 4, of)
	of, _ = s.back(release.RollbackOptions{AwayFrom: string(s.d["a"])})
	assert.EqualValues(t, 1, of)
	s.stuck(release.RollbackOptions{AwayFrom: string(s.d["z"])}, "there is no earlier generation without snapshot "+s.d["z"].Short()+" that can come back")
}

// What is not there any more, or not readable, is passed over, and that is said.
func TestRollbackPassesOver(t *testing.T) {
	s := newStory(t)
	bucket := s.r.Store().Objects()
	s.start("z", 0)
	for _, name := range []string{"a", "b", "c"} {
		s.start(name, 10)
		s.promote()
	}
	require.NoError(t, bucket.Delete(t.Context(), "snapshots/"+string(s.d["b"])+".json"))
	require.NoError(t, bucket.Delete(t.Context(), "shards/"+string(manifest.Sum([]byte("a")))+".shard"))
	require.NoError(t, bucket.Write(t.Context(), entryKey(6), []byte("garbage")))
	require.NoError(t, bucket.Delete(t.Context(), entryKey(4)))
	of, plan := s.back(release.RollbackOptions{})
	assert.EqualValues(t, 1, of)
	require.Len(t, plan.Passed, 4)
	for i, text := range []string{
		"generation 6: release: invalid character", "generation 5: store .*: snapshot " + string(s.d["b"]) + ": no such snapshot",
		"generation 4: the log has a gap: generation 4 is missing", `generation 3: snapshot [0-9a-f]{12} cannot be served: shard \S+ \(shards/[0-9a-f]+.shard\) is not in the store`,
	} {
		assert.Regexp(t, "^"+text, plan.Passed[i])
	}

	// All that is passed over is told, if it is little.
	s = newStory(t)
	s.start("z", 0)
	for range 15 {
		s.start("a", 10)
		s.promote()
		s.start("z", 10)
		s.promote()
	}
	require.NoError(t, s.r.Store().Objects().Delete(t.Context(), "snapshots/"+string(s.d["a"])+".json"))
	s.stuck(release.RollbackOptions{}, "; and 5 more; name one")
}

// What is not fit comes back all the same, and is told.
func TestRollbackToWhatIsNotFit(t *testing.T) {
	v := verdicts{}
	bucket := folder(t)
	r, d := newJudged(t, bucket, v.judge, "1", "2", "3")
	change := release.Change{Override: "a test"}
	v[d[0]] = low
	_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[0], Change: change})
	require.NoError(t, err)
	_, err = r.Start(t.Context(), release.StartOptions{Snapshot: d[1], Weight: 10})
	require.NoError(t, err)
	var plan release.Plan
	before := func(p release.Plan) { plan = p }
	_, err = r.Rollback(t.Context(), release.RollbackOptions{Before: before})
	require.NoError(t, err)
	assert.Equal(t, []string{"snapshot " + d[0].Short() + ": the gates do not let it pass: recall is low (it was released all the same: a test)"}, plan.Unfit)

	silent, _ := newJudged(t, bucket, func(context.Context, manifest.Digest) (release.Found, error) {
		return release.Found{}, errors.New("the store is silent")
	})
	_, err = silent.Rollback(t.Context(), release.RollbackOptions{To: 2, Before: before})
	require.NoError(t, err)
	assert.Len(t, plan.Unfit, 2)
	assert.Equal(t, "snapshot "+d[1].Short()+": what its gates have found is not known: the store is silent", plan.Unfit[1])
	_, err = silent.Stop(t.Context(), release.StopOptions{Arm: "candidate", Before: before})
	require.NoError(t, err)
	assert.Len(t, plan.Unfit, 1)
}

// Of two who change the same generation one is told who was first, whatever was said.
func TestRollbackThatLoses(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	_, err := s.r.Rollback(t.Context(), release.RollbackOptions{Before: func(release.Plan) { s.split(100) }})
	require.ErrorIs(t, err, release.ErrConflict)
	require.ErrorContains(t, err, "generation 3 is a split by ")
	require.NotContains(t, err.Error(), `("")`, "nobody has given a reason")
	_, err = s.r.Rollback(t.Context(), release.RollbackOptions{Change: release.Change{Generation: 2}})
	require.ErrorIs(t, err, release.ErrConflict)
	_, err = s.r.Rollback(t.Context(), release.RollbackOptions{Change: release.Change{Generation: 9}})
	require.ErrorIs(t, err, release.ErrConflict)
	require.ErrorContains(t, err, "generation 9 is not what is released, generation 3 is")
	now, err := s.r.Current(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 3, now.Generation)
}

func TestStop(t *testing.T) {
	s := newStory(t)
	ctx := t.Context()
	stop := func(arm string) (*release.Release, error) { return s.r.Stop(ctx, release.StopOptions{Arm: arm}) }
	s.start("z", 0)
	_, err := stop("control")
	require.ErrorContains(t, err, "arm control is the only one")
	s.start("a", 100)
	_, err = s.r.Start(ctx, release.StartOptions{Snapshot: s.d["b"], Arm: "bold", Weight: 333})
	require.NoError(t, err)
	_, err = stop("nobody")
	require.ErrorContains(t, err, "there is no arm nobody; there are: control, candidate, bold")
	_, err = stop("control")
	require.ErrorIs(t, err, release.ErrChange)
	before, err := s.r.Current(ctx)
	require.NoError(t, err)
	got, err := stop("candidate")
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"control": 667, "bold": 333}, shares(got))
	assert.Equal(t, before.Arm("bold"), got.Arm("bold"), "nobody joins it")
	assert.Equal(t, "candidate", got.Stopped)
	got, err = s.r.Split(ctx, release.SplitOptions{Weights: map[string]int{"bold": 1000}})
	require.NoError(t, err)
	assert.Empty(t, got.Stopped)
	got, err = stop("bold")
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"control": 1000}, shares(got))
	// What was stopped does not come back by itself.
	s.stuck(release.RollbackOptions{}, "there is no earlier generation")

	r, d := newReleases(t, folder(t), "1", "2", "3")
	for i, name := range []string{"one", "two", "three"} {
		_, err := r.Start(ctx, release.StartOptions{Snapshot: d[i], Arm: name, Weight: 500})
		require.NoError(t, err)
	}
	got, err = r.Stop(ctx, release.StopOptions{Arm: "three"})
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"one": 500, "two": 500}, shares(got))
	_, err = r.Split(ctx, release.SplitOptions{Weights: map[string]int{"two": 1000}})
	require.NoError(t, err)
	_, err = r.Stop(ctx, release.StopOptions{Arm: "two"})
	require.ErrorContains(t, err, "arm two has all traffic, and there is no control")
}

// Any history of changes: a rollback ends in one snapshot that has all traffic and is none
// of those that were to go, however often it is done; and there is one if the history has
// one that nobody has taken off.
func TestRollbackModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bucket := objects.New(memblob.OpenBucket(nil), "mem://")
		defer bucket.Close()
		r, d := newReleases(t, bucket, "1", "2", "3", "4", "5")
		ctx := t.Context()
		path := map[uint64][]*release.Release{} // what served before each generation, undone changes left out
		bad := map[manifest.Digest]bool{}       // what was taken off, and not given traffic again
		note := func(now, next *release.Release) {
			path[next.Generation] = append(slices.Clone(path[next.Generation-1]), next)
			if next.Kind == release.RolledBack {
				path[next.Generation] = path[next.Of]
			}
		}
		arms := func(r *release.Release) map[manifest.Digest]int {
			all := map[manifest.Digest]int{}
			for _, a := range r.Arms {
				all[a.Snapshot] += a.Weight
			}
			return all
		}
		now, err := r.Start(ctx, release.StartOptions{Snapshot: d[0]})
		require.NoError(rt, err)
		note(nil, now)
		for step := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			var next *release.Release
			kind := rapid.SampledFrom([]string{"start", "start", "promote", "split", "stop", "to", "back", "back"}).Draw(rt, "kind")
			switch kind {
			case "start":
				next, err = r.Start(ctx, release.StartOptions{
					Snapshot: rapid.SampledFrom(d).Draw(rt, "snapshot"), Arm: fmt.Sprint("arm-", step),
					Weight: rapid.SampledFrom([]int{0, 10, 500, 1000}).Draw(rt, "weight"),
				})
				if err == nil {
					delete(bad, next.Arms[len(next.Arms)-1].Snapshot)
				}
			case "promote":
				next, err = r.Promote(ctx, release.Change{}, now.Arms[rapid.IntRange(0, len(now.Arms)-1).Draw(rt, "arm")].Name)
			case "split":
				next, err = r.Split(ctx, release.SplitOptions{Weights: map[string]int{
					now.Arms[rapid.IntRange(0, len(now.Arms)-1).Draw(rt, "arm")].Name: rapid.SampledFrom([]int{0, 10, 500, 1000}).Draw(rt, "weight"),
				}})
			case "stop":
				next, err = r.Stop(ctx, release.StopOptions{Arm: now.Arms[rapid.IntRange(0, len(now.Arms)-1).Draw(rt, "arm")].Name})
			case "to":
				next, err = r.Rollback(ctx, release.RollbackOptions{To: rapid.Uint64Range(1, now.Generation).Draw(rt, "to")})
			case "back":
				next, err = r.Rollback(ctx, release.RollbackOptions{})
			}
			if err != nil {
				require.ErrorIs(rt, err, release.ErrChange)
			}
			before := arms(now)
			if kind == "back" {
				checkBack(rt, path[now.Generation], now, next, bad)
			}
			if err != nil {
				continue
			}
			after := arms(next)
			again := false
			for s := range after {
				if _, had := before[s]; !had && bad[s] {
					again = true
					delete(bad, s)
				}
			}
			for s := range before {
				if _, has := after[s]; !has && (next.Kind == release.RolledBack && !again || kind == "stop") {
					bad[s] = true
				}
			}
			note(now, next)
			now = next
		}
	})
}

// served tells what a release serves.
func served(r *release.Release) (arms []string) {
	for _, a := range r.Arms {
		arms = append(arms, fmt.Sprint(a.Name, " ", a.Weight, " ", a.Snapshot.Short()))
	}
	return arms
}

// checkBack compares a rollback with what the path and the bad snapshots say. Next is nil
// if there was none.
func checkBack(rt *rapid.T, path []*release.Release, now, next *release.Release, bad map[manifest.Digest]bool) {
	traffic := func(r *release.Release) map[manifest.Digest]bool {
		list := map[manifest.Digest]bool{}
		for _, a := range r.Arms {
			if a.Weight > 0 {
				list[a.Snapshot] = true
			}
		}
		return list
	}
	has := func(r *release.Release, d manifest.Digest) bool {
		return slices.ContainsFunc(r.Arms, func(a release.Arm) bool { return a.Snapshot == d })
	}
	// Since when each snapshot that has traffic is there without a break.
	since := map[manifest.Digest]int{}
	for d := range traffic(now) {
		for i := len(path) - 1; i >= 0 && has(path[i], d); i-- {
			since[d] = i
		}
	}
	last := slices.MaxFunc(slices.Collect(maps.Keys(since)), func(a, b manifest.Digest) int { return cmp.Compare(since[a], since[b]) })
	var want *release.Release
	for i := len(path) - 1; i >= 0 && want == nil; i-- {
		one := path[i]
		if len(traffic(one)) == 1 && !has(one, last) && !slices.ContainsFunc(one.Arms, func(a release.Arm) bool { return bad[a.Snapshot] }) {
			want = one
		}
	}
	if next == nil {
		if want != nil {
			rt.Fatalf("generation %d could come back", want.Generation)
		}
		return
	}
	if want == nil {
		rt.Fatalf("generation %d came back", next.Of)
	}
	require.Equal(rt, served(want), served(next), "generations %d and %d", want.Generation, next.Of)
}
