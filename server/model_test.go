package server

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

var modelSteps = flag.Int("model-steps", someSteps, "how many steps TestModel takes")

// TestModel takes random steps in a store that servers follow: events are written, snapshots
// released, rolled back and rebuilt, servers started anew, the log is summed up, the clock goes
// forward and back; and questions are asked. Whatever is answered must be what a plain program
// over maps says (modelLog), which goes through all events one after the other, and through all
// rows for each answer. It knows nothing of how servers do it.
//
// Servers need not have read what was written or released last, unless they are asked for it.
// But each answer says which snapshot, release and position it is of, and is compared with the
// model's for those; and none may be of an earlier one than the server has answered with.
//
// Steps are drawn by rapid, which makes a failure smaller: -rapid.seed has the same steps again.
func TestModel(t *testing.T) { checkModel(t, *modelSteps, false) }

// TestModelOfCluster does the same where one of the servers is a router, and nodes that come and
// go have the shards.
func TestModelOfCluster(t *testing.T) { checkModel(t, *modelSteps/4, true) }

func checkModel(t *testing.T, most int, clustered bool) {
	setFlag(t, "rapid.checks", strconv.Itoa(most)) // of at least one step each
	setFlag(t, "rapid.steps", "80")                // of a world
	seed := setFlag(t, "rapid.seed", cmp.Or(os.Getenv("RAPID_SEED"), strconv.FormatInt(time.Now().UnixNano(), 10)))
	t.Logf("again: go test ./server -run '^%s$' -model-steps %d -rapid.seed %s", t.Name(), *modelSteps, seed)
	dir := t.TempDir()
	var templates []*modelTemplate
	for _, metric := range []index.Metric{index.Dot, index.L2, index.Cosine} {
		templates = append(templates, newModelTemplate(t, filepath.Join(dir, metric.String()), metric))
	}
	report, whole := newModelReport(), t
	rapid.Check(t, func(t *rapid.T) {
		if report.steps >= most && !report.failed {
			return
		}
		if report.worlds%200 == 199 {
			whole.Logf("%d steps so far", report.steps)
		}
		w := newModelWorld(t, templates, report, clustered)
		report.worlds++
		defer func() {
			report.failed = report.failed || w.inStep
			w.close()
		}()
		t.Repeat(map[string]func(*rapid.T){"step": w.step})
	})
	t.Log(report)
}

// setFlag sets a flag for the time of a test, unless the command line has, and returns it.
func setFlag(t *testing.T, name, value string) string {
	f := flag.Lookup(name)
	old, given := f.Value.String(), false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return old
	}
	require.NoError(t, f.Value.Set(value))
	t.Cleanup(func() { require.NoError(t, f.Value.Set(old)) })
	return value
}

// modelKinds are the steps, each as often as it is drawn. The first ones are what a failure
// is made of where it can be.
var modelKinds = func() (list []string) {
	for _, of := range []struct {
		name string
		n    int
	}{
		{"ask", 22}, {"write", 22}, {"page", 14}, {"embeddings", 7}, {"walk", 6}, {"batch", 5}, {"tick", 5},
		{"prove", 3}, {"status", 3}, {"release", 3}, {"direct", 3}, {"refuse", 2}, {"race", 2}, {"rebuild", 1}, {"compact", 1}, {"restart", 1}, {"settle", 1}, {"replace", 1},
	} {
		list = append(list, slices.Repeat([]string{of.name}, of.n)...)
	}
	return list
}()

func (w *modelWorld) step(t *rapid.T) {
	w.t, w.inStep = t, true
	steps := map[string]func(){
		"ask": w.ask, "write": w.write, "page": w.page, "embeddings": w.embeddings, "walk": w.walk, "batch": w.batch, "tick": w.tick,
		"prove": w.prove, "status": w.status, "release": w.change, "direct": w.direct, "refuse": w.refuse, "race": w.race,
		"rebuild": w.rebuild, "compact": w.compact, "restart": w.restart, "settle": w.settle, "replace": w.replace,
	}
	kind := oneOf(t, modelKinds, "step")
	w.report.steps++
	w.report.byKind[kind]++
	steps[kind]()
	w.inStep = false
}

// tick sets the clock: windows begin and end on the hour.
func (w *modelWorld) tick() {
	by := oneOf(w.t, []time.Duration{time.Hour, 30 * time.Minute, -time.Hour, 2 * time.Hour, -3 * time.Hour, time.Nanosecond, -time.Nanosecond}, "by")
	w.clock.Add(int64(by))
}

// change releases something else.
func (w *modelWorld) change() {
	t, ctx := w.t, context.Background()
	now := w.released[w.generation]
	arm := func() string { return oneOf(t, now.Arms, "arm").Name }
	weight := oneOf(t, []int{500, 0, 100, 1000}, "weight")
	switch between(t, 0, 4, "change") {
	case 0:
		if len(now.Arms) == 3 {
			return
		}
		digest := oneOf(t, w.snapshots, "snapshot").digest
		w.note(w.releases.Start(ctx, release.StartOptions{Change: modelChange, Snapshot: digest, Arm: fmt.Sprint("arm", w.generation), Weight: weight}))
	case 1:
		w.note(w.releases.Promote(ctx, modelChange, arm()))
	case 2:
		w.note(w.releases.Split(ctx, release.SplitOptions{Change: modelChange, Weights: map[string]int{arm(): weight}}))
	case 3:
		w.note(w.releases.Stop(ctx, release.StopOptions{Change: release.Change{Author: "model"}, Arm: arm()}))
	case 4:
		o := release.RollbackOptions{Change: release.Change{Author: "model"}}
		if rapid.Bool().Draw(t, "to one") {
			o.To = uint64(between(t, 1, int(w.generation), "generation"))
		}
		w.note(w.releases.Rollback(ctx, o))
	}
	if between(t, 0, 2, "wait") > 0 {
		for _, s := range w.up() {
			w.await(s)
		}
	}
}

// await waits until a server answers with what was released last.
func (w *modelWorld) await(s *modelServer) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		got, err := s.admin.GetStatus(ctx, connect.NewRequest(&tandemv1.GetStatusRequest{}))
		require.NoError(w.t, err)
		require.Empty(w.t, got.Msg.Error)
		if got.Msg.Generation == w.generation {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
	s.generation = w.generation
	for _, a := range w.released[w.generation].Arms {
		s.mapped[a.Snapshot] = true
	}
}

// rebuild publishes a snapshot of what one amounts to now, or did a while ago.
func (w *modelWorld) rebuild() {
	if len(w.snapshots) == 9 {
		return
	}
	of := oneOf(w.t, w.snapshots, "of")
	at := uint64(between(w.t, int(w.log.settledThrough(of.version)), int(w.log.last), "position"))
	if rapid.Bool().Draw(w.t, "at the head") {
		at = w.log.last
	}
	next := w.rebuilt(of, at, rapid.Uint64Max(1000).Draw(w.t, "seed"))
	if w.snapshot(next.digest) == nil {
		w.snapshots = append(w.snapshots, next)
	}
}

// restart stops servers, and starts them again after what happened meanwhile.
func (w *modelWorld) restart() {
	var down []*modelServer
	which := between(w.t, 1, 3, "which")
	for i, s := range w.servers {
		if which&(1<<i) != 0 {
			require.NoError(w.t, w.end(s))
			down = append(down, s)
		}
	}
	for range between(w.t, 0, 2, "meanwhile") {
		switch between(w.t, 0, 2, "what") {
		case 0:
			w.direct()
		case 1:
			w.compact()
		case 2:
			w.change()
		}
	}
	for _, s := range down {
		w.start(s)
	}
}

// replace has a new node take the place of one.
func (w *modelWorld) replace() {
	if w.cluster == nil {
		return
	}
	old := w.cluster.oldest()
	next := w.startNode()
	w.cluster.leave(old)
	w.cluster.await(w.t, next)
	require.NoError(w.t, w.cluster.end(old))
}

// prove asks whether apps can be returned.
func (w *modelWorld) prove() {
	t, s := w.t, w.drawServer()
	r := &tandemv1.ProveRequest{Apps: drawIDs(t, shard.Apps, 1, 6, "apps"), MinLive: w.drawMinLive()}
	got, err := s.live.Prove(context.Background(), connect.NewRequest(r))
	require.NoError(t, err)
	at := got.Msg.Position.GetSequence()
	require.GreaterOrEqual(t, at, s.least(r.MinLive))
	require.LessOrEqual(t, at, w.log.last)
	s.sequence = at
	require.Len(t, got.Msg.Apps, len(r.Apps))
	for i, proof := range got.Msg.Apps {
		id := r.Apps[i]
		require.Equal(t, id, proof.App)
		found, outside := false, false
		in := map[manifest.Digest]bool{}
		for _, p := range proof.Snapshots {
			sn := w.snapshot(manifest.Digest(p.Snapshot))
			require.NotNil(t, sn)
			in[sn.digest] = true
			f := w.log.find(sn, shard.Apps, id, at)
			require.False(t, p.RowsUnknown)
			require.Equal(t, f.base, p.InSnapshot, "%s in %s", id, sn.name)
			require.Equal(t, f.there(w.now()), p.Found, "%s in %s at %d", id, sn.name, at)
			if f.row != nil {
				require.Equal(t, f.row.fresh, p.Fresh, "%s in %s at %d", id, sn.name, at)
			}
			later := f.row != nil && !f.there(w.now())
			require.Equal(t, later, p.OutsideWindow, "%s in %s at %d", id, sn.name, at)
			found, outside = found || p.Found, outside || later
		}
		for digest := range s.mapped {
			require.True(t, in[digest], "snapshot %s is mapped", digest)
		}
		down := w.log.find(w.snapshots[0], shard.Apps, id, at).down
		require.Equal(t, !found && down != nil, proof.CannotBeReturned)
		require.Equal(t, modelState(found, down != nil, outside), proof.State, "%s at %d", id, at)
		require.Equal(t, down != nil, proof.Takedown != nil, "%s at %d", id, at)
		if down != nil {
			require.Equal(t, []any{down.sequence, down.reason}, []any{proof.Takedown.Position.GetSequence(), proof.Takedown.Reason})
		}
	}
	w.report.answers++
}

// modelState returns the state of an app of which there is a snapshot.
func modelState(found, down, outside bool) tandemv1.AppState {
	switch {
	case found:
		return tandemv1.AppState_APP_STATE_RETURNABLE
	case down:
		return tandemv1.AppState_APP_STATE_TAKEN_DOWN
	case outside:
		return tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW
	}
	return tandemv1.AppState_APP_STATE_UNKNOWN
}

// status asks a server what it knows of the log.
func (w *modelWorld) status() {
	t, s := w.t, w.drawServer()
	if rapid.Bool().Draw(t, "at the end") {
		w.reach(s)
	}
	got, err := s.live.GetLiveStatus(context.Background(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	m := got.Msg
	at := m.Position.GetSequence()
	require.GreaterOrEqual(t, at, s.sequence)
	require.LessOrEqual(t, at, w.log.last)
	s.sequence = at
	require.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, m.LogState)
	down, forgotten := w.log.takedowns(at)
	require.EqualValues(t, down, m.Takedowns)
	require.EqualValues(t, forgotten, m.ForgottenUsers)
	if old, ok := w.digests[at]; ok {
		require.Equal(t, old, m.Digest, "at %d", at)
	}
	w.digests[at] = m.Digest
	in := map[manifest.Digest]bool{}
	for _, o := range m.Overlays {
		sn := w.snapshot(manifest.Digest(o.Snapshot))
		require.NotNil(t, sn)
		in[sn.digest] = true
		require.Equal(t, sn.inputs, o.Inputs.GetSequence())
		w.counted(sn, shard.Apps, at, o.Apps)
		w.counted(sn, shard.Users, at, o.Users)
	}
	for digest := range s.mapped {
		require.True(t, in[digest], "snapshot %s is mapped", digest)
	}
	w.report.answers++
}

// counted checks what a status counts of what lies over a tower.
func (w *modelWorld) counted(sn *modelSnapshot, kind shard.Kind, at uint64, got *tandemv1.OverlayTower) {
	var dead, changed, fresh uint64
	for id, f := range w.log.all(sn, kind, at) {
		own := sn.rows[kind][id]
		switch {
		case f.row != nil && f.row.fresh:
			fresh++
			if own != nil {
				dead++
			}
		case own == nil:
		case f.row == nil:
			dead++
		case !sameModelValues(own.values, f.row.values):
			changed++
		}
	}
	require.Equal(w.t, []uint64{dead, changed, fresh}, []uint64{got.DeadRows, got.ChangedRows, got.FreshRows},
		"dead, changed, fresh %s of %s at %d", kind, sn.name, at)
}

func sameModelValues(a, b modelValues) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range a {
		if fmt.Sprintf("%T %v", v, v) != fmt.Sprintf("%T %v", b[name], b[name]) {
			return false
		}
	}
	return true
}
