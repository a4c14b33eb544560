package release_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// verdicts is a judge whose verdicts a test sets, by the snapshot; those of others are good.
type verdicts map[manifest.Digest]release.Found

func (v verdicts) judge(_ context.Context, d manifest.Digest) (release.Found, error) {
	if known, ok := v[d]; ok {
		return known, nil
	}
	return release.Found{Compared: true}, nil
}

// low is the verdict on a snapshot that is not fit.
var low = release.Found{Failed: errors.New("recall is low"), Compared: true}

func TestGatesStopReleases(t *testing.T) {
	var v release.Found
	var broken error
	r, d := newJudged(t, folder(t), func(context.Context, manifest.Digest) (release.Found, error) { return v, broken }, "1", "2")
	start := func(d manifest.Digest, arm, override string) (*release.Release, error) {
		return r.Start(t.Context(), release.StartOptions{Snapshot: d, Arm: arm, Change: release.Change{Override: override}})
	}
	v.Failed = errors.New("recall is low")
	_, err := start(d[0], "", "")
	require.ErrorIs(t, err, release.ErrGates)
	require.ErrorContains(t, err, "recall is low")
	v.Failed, broken = nil, errors.New("the store is silent")
	_, err = start(d[0], "", "")
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, release.ErrGates, "nobody knows whether it is fit")
	require.ErrorContains(t, err, "what its gates have found is not known: the store is silent")
	broken = nil
	v.Unproved = "nothing tells whether its towers are of one model"
	_, err = start(d[0], "", "")
	require.ErrorIs(t, err, release.ErrGates)
	require.ErrorContains(t, err, "a first release has nothing to fall back on, and nothing tells whether its towers are of one model")
	v.Unproved = ""

	first, err := start(d[0], "", "")
	require.NoError(t, err, "there is nothing to compare it with")
	_, err = start(d[0], "again", "")
	require.NoError(t, err, "it serves already")
	_, err = start(d[1], "", "")
	require.ErrorIs(t, err, release.ErrGates)
	require.ErrorContains(t, err, "compared it with no snapshot that serves, while "+first.Arms[0].Snapshot.Short()+" is released; run tandem gate")
	v.Compared, v.Off, v.Unproved = true, []string{"rows", "latency"}, "nothing tells"
	_, err = start(d[1], "", "")
	require.NoError(t, err, "there is something to fall back on")
	v = release.Found{Failed: errors.New("recall is low"), Off: []string{"norms"}}
	got, err := start(d[1], "forced", "a test")
	require.NoError(t, err)
	assert.Equal(t, "a test", got.Override)
	assert.Equal(t, []string{"", "a test"}, []string{got.Arm("candidate").Override, got.Arm("forced").Override})
	assert.Equal(t, [][]string{{"rows", "latency"}, {"norms"}}, [][]string{got.Arm("candidate").GatesOff, got.Arm("forced").GatesOff})
}

func TestUnprovedFirstReleaseWithAReason(t *testing.T) {
	v := verdicts{}
	r, d := newJudged(t, folder(t), v.judge, "1")
	v[d[0]] = release.Found{Unproved: "nothing tells whether its towers are of one model"}
	got, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[0], Change: release.Change{Override: "seen by eye"}})
	require.NoError(t, err)
	assert.Equal(t, "seen by eye", got.Arms[0].Override)
}

// What the store has of the runs of the gates decides.
func TestJudgedByRecords(t *testing.T) {
	bucket := folder(t)
	store, d := newStore(t, bucket, "1", "2")
	r := release.New(store)
	start := func(d manifest.Digest) error {
		_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d})
		return err
	}
	record := func(d, previous manifest.Digest, passed bool) {
		report := &manifest.GateReport{Previous: previous, Checks: []manifest.GateCheck{{Gate: gates.Placement, Passed: passed, Text: "0 of 9 apps moved"}}}
		require.NoError(t, gates.Record(t.Context(), bucket, &gates.Recorded{Snapshot: d, Report: report}))
	}
	err := start(d[0])
	require.ErrorIs(t, err, release.ErrGates)
	require.ErrorIs(t, err, gates.ErrNotRun)
	_, err = r.Current(t.Context())
	require.ErrorIs(t, err, release.ErrNone)
	record(d[0], "", true)
	require.NoError(t, start(d[0]))

	record(d[1], "", true)
	require.ErrorContains(t, start(d[1]), "compared it with no snapshot that serves, while "+d[0].Short()+" is released")
	record(d[1], d[0], false)
	err = start(d[1])
	require.ErrorIs(t, err, release.ErrGates)
	require.ErrorIs(t, err, gates.ErrFailed)
	require.ErrorContains(t, err, "placement failed: 0 of 9 apps moved")
	got, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[1], Arm: "forced", Change: release.Change{Override: "a test"}})
	require.NoError(t, err)
	assert.Equal(t, []string{gates.Placement}, got.Arm("forced").GatesFailed)
	record(d[1], d[0], true)
	got, err = r.Start(t.Context(), release.StartOptions{Snapshot: d[1]})
	require.NoError(t, err)
	assert.Empty(t, got.Arm("candidate").Override)
	assert.NotEmpty(t, got.Arm("candidate").GatesUndecided, "most gates did not run")
}

// What gets more traffic is judged again, and what has an override keeps it.
func TestMoreTrafficIsJudged(t *testing.T) {
	ctx := t.Context()
	v := verdicts{}
	r, d := newJudged(t, folder(t), v.judge, "1", "2", "3")
	override := release.Change{Override: "a test"}
	_, err := r.Start(ctx, release.StartOptions{Snapshot: d[0]})
	require.NoError(t, err)
	_, err = r.Start(ctx, release.StartOptions{Snapshot: d[1], Weight: 10})
	require.NoError(t, err)
	split := func(o release.SplitOptions) error { _, err := r.Split(ctx, o); return err }
	more := release.SplitOptions{Weights: map[string]int{"candidate": 500}}
	pinned := release.SplitOptions{Pins: map[string][]string{"candidate": {"u1"}}}

	v[d[1]] = low
	for _, o := range []release.SplitOptions{more, pinned, {Weights: map[string]int{"control": 0}}, {Remove: []string{"control"}}} {
		err := split(o)
		require.ErrorIs(t, err, release.ErrGates)
		assert.ErrorContains(t, err, "arm candidate gets more traffic: snapshot "+d[1].Short()+": the gates do not let it pass: recall is low")
	}
	_, err = r.Promote(ctx, release.Change{}, "")
	require.ErrorIs(t, err, release.ErrGates)
	assert.ErrorContains(t, err, "arm candidate gets all traffic: ")
	require.NoError(t, split(release.SplitOptions{Weights: map[string]int{"candidate": 5}}), "it gets less")
	more.Change = override
	got, err := r.Split(ctx, more)
	require.NoError(t, err)
	assert.Equal(t, []string{"a test", "a test", ""}, []string{got.Override, got.Arm("candidate").Override, got.Arm("control").Override})
	require.NoError(t, split(pinned), "it has a reason")
	got, err = r.Promote(ctx, release.Change{}, "")
	require.NoError(t, err)
	assert.Equal(t, []string{"", "a test"}, []string{got.Override, got.Arms[0].Override})

	// Once it is fit it has no other reason, and needs one when it no longer is.
	_, err = r.Start(ctx, release.StartOptions{Snapshot: d[2], Weight: 500})
	require.NoError(t, err)
	v[d[1]] = release.Found{Compared: true, Off: []string{"rows"}}
	got, err = r.Split(ctx, release.SplitOptions{Weights: map[string]int{"control": 600}})
	require.NoError(t, err)
	assert.Empty(t, got.Arm("control").Override)
	assert.Equal(t, []string{"rows"}, got.Arm("control").GatesOff)
	v[d[1]] = low
	require.ErrorIs(t, split(release.SplitOptions{Weights: map[string]int{"control": 700}}), release.ErrGates)
}

// A reason holds for the gates that it was given for.
func TestReasonsHoldForWhatFailedThen(t *testing.T) {
	ctx := t.Context()
	v := verdicts{}
	var broken error
	judge := func(ctx context.Context, d manifest.Digest) (release.Found, error) {
		if broken != nil {
			return release.Found{}, broken
		}
		return v.judge(ctx, d)
	}
	r, d := newJudged(t, folder(t), judge, "1", "2")
	_, err := r.Start(ctx, release.StartOptions{Snapshot: d[0]})
	require.NoError(t, err)
	failing := func(gates ...string) {
		v[d[1]] = release.Found{Failed: errors.New("they are low"), FailedGates: gates, Compared: true}
	}
	split := func(weight int, override string) (*release.Release, error) {
		o := release.SplitOptions{Weights: map[string]int{"candidate": weight}}
		o.Override = override
		return r.Split(ctx, o)
	}
	failing("norms", "rows")
	got, err := r.Start(ctx, release.StartOptions{Snapshot: d[1], Weight: 10, Change: release.Change{Override: "half a catalogue"}})
	require.NoError(t, err)
	assert.Equal(t, []string{"norms", "rows"}, got.Arm("candidate").GatesFailed)
	failing("rows")
	got, err = split(20, "")
	require.NoError(t, err, "it is known, and less")
	assert.Equal(t, []string{"rows"}, got.Arm("candidate").GatesFailed)
	failing("rows", "placement")
	_, err = split(30, "")
	require.ErrorIs(t, err, release.ErrGates)
	require.ErrorContains(t, err, `the reason that was given, "half a catalogue", was for less: rows`)
	got, err = split(30, "looked at")
	require.NoError(t, err)
	assert.Equal(t, []string{"rows", "placement"}, got.Arm("candidate").GatesFailed)
	broken = errors.New("the store is silent")
	_, err = split(40, "")
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, release.ErrGates)
	broken = nil
	v[d[1]] = release.Found{Compared: true}
	got, err = split(40, "")
	require.NoError(t, err)
	assert.Empty(t, got.Arm("candidate").GatesFailed)
}
