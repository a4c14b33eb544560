package builder_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

// add appends events to the live log of a store, and returns where it ends then.
func add(t *testing.T, store *snapshots.Store, events ...live.Event) shard.Position {
	t.Helper()
	r, err := live.Open(t.Context(), store.Objects(), live.Options{Author: "a test"})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	receipt, err := r.Append(ctx, events)
	require.NoError(t, err)
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	return receipt.Position
}

func upserted(id, version string) live.Event {
	return live.Event{Kind: live.Upsert, Tower: shard.Apps, Entity: id, Model: "feed", ModelVersion: version, Vector: []float32{1, 2, 3}}
}

func forgets(id string) live.Event {
	return live.Event{Kind: live.Forget, Tower: shard.Users, Entity: id}
}

func newStore(t *testing.T) *snapshots.Store {
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// The position is an input: a store without a live log knows none, and the same one gives the
// same digest.
func TestLivePosition(t *testing.T) {
	tw := syntheticTowers(t, 200, 60)
	o := tw.options(t, "1")
	store := newStore(t)
	at := func(p *shard.Position) *builder.Report {
		o.LivePosition = p
		report, err := builder.Build(t.Context(), store, o)
		require.NoError(t, err)
		return report
	}
	without := at(nil)
	require.Nil(t, without.Manifest.Live)
	require.Equal(t, manifest.EvidenceVersion, without.Manifest.Version)
	require.Equal(t, gates.Row{Gate: gates.Fresh, State: manifest.GateNotRun, Undecided: 1, Why: gate.NoLiveLog}, rowOf(without, gates.Fresh))
	o.LivePosition = &shard.Position{Sequence: 1}
	_, err := builder.Build(t.Context(), store, o)
	require.EqualError(t, err, "live position is 1, and the live log of the store ends at 0; accepted: up to that")

	add(t, store, upserted(tw.apps[0].ID, "1"))
	head := add(t, store, upserted(tw.apps[1].ID, "1"))
	none := at(nil)
	require.Equal(t, &shard.Position{}, none.Manifest.Live, "what nobody has said is that none of it is in the inputs")
	require.Equal(t, head, none.LiveHead)
	require.Equal(t, manifest.LiveVersion, none.Manifest.Version)
	require.Equal(t, none.Digest, at(&shard.Position{}).Digest)
	require.Contains(t, rowOf(none, gates.Fresh).Why, "the build was not told which position of the live log its inputs reflect")

	first, second := at(&shard.Position{Sequence: 1}), at(&head)
	require.Equal(t, first.Digest, at(&shard.Position{Sequence: 1}).Digest)
	digests := map[manifest.Digest]bool{without.Digest: true, none.Digest: true, first.Digest: true, second.Digest: true}
	require.Len(t, digests, 4)
	require.Equal(t, manifest.GatePassed, rowOf(second, gates.Fresh).State)
	for _, p := range []shard.Position{{Sequence: 3}, {Log: "20261130T080000.000Z-0123456789abcdef", Sequence: 1}} {
		o.LivePosition = &p
		_, err := builder.Build(t.Context(), store, o)
		require.EqualError(t, err, fmt.Sprintf("live position is %s, and the live log of the store ends at 2; accepted: up to that", p))
	}
	o.LivePosition = &shard.Position{Log: strings.Repeat("x", 99)}
	_, err = builder.Build(t.Context(), store, o)
	require.ErrorContains(t, err, "want up to 64 bytes of UTF-8")

	// It is built again as it was, elsewhere.
	again, err := builder.FromManifest(second.Manifest)
	require.NoError(t, err)
	require.Equal(t, &head, again.LivePosition)
	again.Apps.Input.Paths, again.Users.Input.Paths, again.Segments = o.Apps.Input.Paths, o.Users.Input.Paths, o.Segments
	again.Live, err = live.Read(t.Context(), store.Objects())
	require.NoError(t, err)
	require.NoError(t, again.CheckSources(second.Manifest.Inputs))
	_, rebuilt := build(t, again)
	require.Equal(t, second.Digest, rebuilt.Digest, second.Manifest.Difference(rebuilt.Manifest))
}

// Users who are forgotten are in nothing that is built, whatever the inputs have of them.
func TestForgottenUsers(t *testing.T) {
	tw := syntheticTowers(t, 300, 120)
	attributes := filepath.Join(t.TempDir(), "users.jsonl")
	lines := ""
	for _, u := range tw.users {
		lines += fmt.Sprintf("{\"user_id\": %q, \"vip\": true}\n", u.ID)
	}
	require.NoError(t, os.WriteFile(attributes, []byte(lines), 0o600))
	gone := map[string]bool{tw.users[3].ID: true, tw.users[40].ID: true, tw.users[119].ID: true}
	options := func() builder.Options {
		o := tw.options(t, "1")
		o.Interactions = []string{tw.interactions}
		o.Users.Attributes.Paths, o.Users.Attributes.IDKey = []string{attributes}, "user_id"
		return o
	}
	store := newStore(t)
	whole, err := builder.Build(t.Context(), store, options())
	require.NoError(t, err)

	for id := range gone {
		add(t, store, forgets(id))
	}
	add(t, store, forgets("nobody"))
	notes := &notes{}
	o := options()
	o.Previous, o.Progress = whole.Digest, notes
	report, err := builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	m := report.Manifest
	require.Equal(t, 117, m.Users.Rows)
	require.Zero(t, m.Users.Rejected)
	require.EqualValues(t, 3, m.Forgotten())
	require.Contains(t, notes.list, "users: left out 3 forgotten users of the inputs")
	s := open(t, store, report.Digest)
	for i, u := range tw.users {
		has, err := snapshots.Has(t.Context(), store, m, shard.Users, u.ID)
		require.NoError(t, err)
		require.Equal(t, !gone[u.ID], has, "user %d", i)
	}
	require.Equal(t, 117, s.Tower(shard.Users).Rows())
	known := check(report.Gates.Checks(), gates.Alignment, "known interactions")
	assert.EqualValues(t, 1, known.Value, "what they did does not count as unknown: %s", known.Text)
	data, err := m.Encode()
	require.NoError(t, err)
	for id := range gone {
		require.NotContains(t, string(data), id, "a report names no user")
		for _, note := range notes.list {
			require.NotContains(t, note, id)
		}
	}
	require.Equal(t, 3.0/120, check(report.Gates.Checks(), gates.Rows, "removed users").Value)

	// The same inputs and the same users who are left out give the same digest, whoever else
	// is forgotten; others give another one.
	o.Threads, o.Progress = 1, nil
	add(t, store, forgets("nobody else"))
	again, err := builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	require.Equal(t, report.Digest, again.Digest, m.Difference(again.Manifest))
	add(t, store, forgets(tw.users[7].ID))
	more, err := builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	require.EqualValues(t, 4, more.Manifest.Forgotten())
	require.NotEqual(t, report.Digest, more.Digest)

	// Who comes back is new.
	back := upserted(tw.users[7].ID, "1")
	back.Tower = shard.Users
	add(t, store, back)
	again, err = builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	require.Equal(t, report.Digest, again.Digest)

	for _, u := range tw.users {
		add(t, store, forgets(u.ID))
	}
	_, err = builder.Build(t.Context(), store, o)
	require.ErrorContains(t, err, "users: no row is left to build from: 120 users of the input are forgotten")
}

// notes is progress that keeps what a person would read.
type notes struct{ list []string }

func (*notes) Stage(string, int64) {}
func (*notes) Step(int64)          {}
func (n *notes) Note(text string)  { n.list = append(n.list, text) }

// An app that was upserted before the inputs and is not in them fails the gate, unless it is
// known to be gone, or is laid over the snapshot anyway.
func TestFresh(t *testing.T) {
	tw := syntheticTowers(t, 200, 60)
	store := newStore(t)
	first, err := builder.Build(t.Context(), store, tw.options(t, "1"))
	require.NoError(t, err)
	window := func(id string, until time.Time) live.Event {
		return live.Event{Kind: live.SetAttributes, Tower: shard.Apps, Entity: id, Window: &live.Window{Until: until}}
	}
	add(t, store,
		upserted(tw.apps[0].ID, "1"), upserted("new-1", "1"), upserted("new-2", "0"), upserted("down", "1"), upserted("removed", "1"),
		upserted("over", "1"), upserted("again", "2"), upserted("elsewhere", "2"), upserted("later", "2"),
	)
	other := upserted("other", "1")
	other.Model = "another"
	head := add(t, store, other, window("over", time.Now().Add(-time.Minute)), window("later", time.Now().Add(time.Hour)))
	add(t, store, live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: "down", Reason: "a test"},
		live.Event{Kind: live.Remove, Tower: shard.Apps, Entity: "removed"}, upserted("again", "2"), upserted("elsewhere", "1"), upserted("after", "2"))
	build := func(previous manifest.Digest, position shard.Position, thresholds string) *builder.Report {
		o := tw.options(t, "2")
		o.Previous, o.LivePosition = previous, &position
		if thresholds != "" {
			o.Gates = filepath.Join(t.TempDir(), "gates.yaml")
			require.NoError(t, os.WriteFile(o.Gates, []byte(thresholds), 0o600))
		}
		report, err := builder.Build(t.Context(), store, o)
		require.NoError(t, err)
		return report
	}
	report := build(first.Digest, head, "")
	row := rowOf(report, gates.Fresh)
	require.Equal(t, manifest.GateFailed, row.State)
	require.Equal(t, "4 of 5 apps that were upserted up to the live position 2 (80%) are not in the snapshot, and would be gone once it serves; at most 0% are accepted: elsewhere, later, new-1, new-2", row.Why)
	require.ErrorContains(t, report.Gates.Err(), "fresh failed: 4 of 5 apps")
	require.ErrorContains(t, report.Gates.Err(), "likely causes: the inputs are older than their live position says")
	for _, c := range report.Manifest.Gates.Checks {
		require.NotEqual(t, gates.Fresh, c.Gate, "the digest does not depend on what the log has by now")
	}

	// Limits, and off.
	loose := build(first.Digest, head, "fresh: {missing: 0.8}\n")
	require.Equal(t, manifest.GatePassed, rowOf(loose, gates.Fresh).State)
	require.Contains(t, loose.Manifest.Gates.Loosened, "fresh.missing: 0.8, by default 0")
	off := build(first.Digest, head, "fresh: off\n")
	require.Equal(t, gates.TurnedOff, rowOf(off, gates.Fresh).Why)
	require.Contains(t, off.Gates.Off(), gates.Fresh)
	require.NotContains(t, off.Manifest.Gates.Off, gates.Fresh)

	// What was upserted before the inputs of the snapshot that serves is not laid over it
	// either.
	next := build(report.Digest, head, "")
	require.Equal(t, gates.Row{Gate: gates.Fresh, State: manifest.GateNotRun, Undecided: 1,
		Why: "no app was upserted for model feed up to the live position 2, behind the one of the previous snapshot"}, rowOf(next, gates.Fresh))

	// The gates that are run again look at the log anew.
	for _, id := range []string{"elsewhere", "later", "new-1"} {
		add(t, store, live.Event{Kind: live.Remove, Tower: shard.Apps, Entity: id})
	}
	log, err := live.Read(t.Context(), store.Objects())
	require.NoError(t, err)
	check := func(now time.Time) gates.Findings {
		f, err := gate.CheckFresh(open(t, store, report.Digest), first.Manifest, gates.DefaultThresholds(), log, now)
		require.NoError(t, err)
		return f
	}
	f := check(time.Now())
	require.Len(t, f.Checks, 1)
	require.Contains(t, f.Checks[0].Text, "1 of 2 apps that were upserted up to the live position 2 (50%) are not in the snapshot")
	require.Contains(t, f.Checks[0].Text, ": new-2")
	add(t, store, live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: "new-2", Reason: "a test"})
	log, err = live.Read(t.Context(), store.Objects())
	require.NoError(t, err)
	f = check(time.Now())
	require.True(t, f.Checks[0].Passed)
	require.Equal(t, "all 1 app that were upserted up to the live position 2 are in the snapshot", f.Checks[0].Text)
}

// settling is progress that has a function called when a build begins to publish.
type settling struct {
	notes
	do func()
}

func (s *settling) Stage(name string, _ int64) {
	if name == "publish" {
		s.do()
	}
}

// What a collection settles while a build runs that needs it, the build notices before anybody
// can release what it has built.
func TestSettledMeanwhile(t *testing.T) {
	tw := syntheticTowers(t, 200, 60)
	store := newStore(t)
	add(t, store, upserted(tw.apps[0].ID, "1"))
	head := add(t, store, upserted(tw.apps[1].ID, "1"))
	collect := func() {
		state, err := live.Read(t.Context(), store.Objects())
		require.NoError(t, err)
		done, err := upkeep.Log(t.Context(), store, state, upkeep.LogOptions{
			Keep: 24 * time.Hour, PendingKeep: 24 * time.Hour, ForgetWithin: 24 * time.Hour, Now: time.Now(), Author: "a test",
		})
		require.NoError(t, err)
		require.Len(t, done.Settled, 1)
	}
	newer := tw.options(t, "1")
	newer.LivePosition = &head
	old := tw.options(t, "1")
	old.LivePosition = &shard.Position{Sequence: 1}
	old.Progress = &settling{do: func() {
		_, err := builder.Build(t.Context(), store, newer)
		require.NoError(t, err)
		collect()
	}}
	_, err := builder.Build(t.Context(), store, old)
	var settled *upkeep.SettledError
	require.ErrorAs(t, err, &settled)
	require.Equal(t, upkeep.SettledError{Inputs: shard.Position{Sequence: 1}, Through: head, Model: "feed", ModelVersion: "1"}, *settled)
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1, "it is not published")
}
