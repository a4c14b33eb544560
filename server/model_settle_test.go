package server

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

// modelSettled is what an entry settles: upserts for a version, or else what was set and
// removed, of entries up to one. It changes nothing of any snapshot that is left, so the model
// goes on from all events, and needs it for what there is room for alone.
type modelSettled struct {
	sequence uint64
	version  string
	through  uint64
}

// settledThrough returns up to which entry nothing is kept for a version that a snapshot of it
// lacks: what is built later must reflect that.
func (l *modelLog) settledThrough(version string) (through uint64) {
	for _, s := range l.settled {
		if s.version == "" || s.version == version {
			through = max(through, s.through)
		}
	}
	return through
}

// isSettled reports whether an upsert was settled by the time of an entry.
func (l *modelLog) isSettled(e *modelEvent, at uint64) bool {
	return slices.ContainsFunc(l.settled, func(s modelSettled) bool {
		return s.sequence <= at && s.version == e.version && e.sequence <= s.through
	})
}

// settle hands over to snapshots of newer inputs, deletes the older ones, and has the collection
// settle what the ones that are left reflect. Nothing that anybody is answered may change.
func (w *modelWorld) settle() {
	t, ctx := w.t, context.Background()
	var kept []*modelSnapshot
	for range between(t, 1, 3, "new snapshots") {
		of := oneOf(t, w.snapshots, "of")
		at := uint64(between(t, int(max(of.inputs, w.log.settledThrough(of.version))), int(w.log.last), "position"))
		next := w.rebuilt(of, at, rapid.Uint64Max(1000).Draw(t, "seed"))
		if old := w.snapshot(next.digest); old != nil {
			next = old
		} else {
			w.snapshots = append(w.snapshots, next)
		}
		kept = append(kept, next)
	}
	w.note(w.releases.Promote(ctx, modelChange, release.Control))
	if len(w.released[w.generation].Arms) > 1 {
		w.note(w.releases.Promote(ctx, modelChange, w.released[w.generation].Arms[0].Name))
	}
	if w.note(w.releases.Start(ctx, release.StartOptions{Change: modelChange, Snapshot: kept[0].digest, Arm: "next", Weight: 100})) {
		w.note(w.releases.Promote(ctx, modelChange, "next"))
	}
	for _, s := range w.servers { // what it has mapped ends with it
		require.NoError(t, w.end(s))
	}
	w.drop(kept)
	w.collect()
	for _, s := range w.servers {
		w.start(s)
	}
}

// drop deletes snapshots that do not serve, but for some.
func (w *modelWorld) drop(kept []*modelSnapshot) {
	for _, a := range w.released[w.generation].Arms {
		kept = append(kept, w.snapshot(a.Snapshot))
	}
	w.snapshots = slices.DeleteFunc(w.snapshots, func(s *modelSnapshot) bool {
		if slices.Contains(kept, s) || s.inputs > 0 && rapid.Bool().Draw(w.t, "keep "+s.name) {
			return false
		}
		names, err := filepath.Glob(filepath.Join(w.dir, "store", "snapshots", string(s.digest)+"*"))
		require.NoError(w.t, err)
		require.NotEmpty(w.t, names)
		for _, name := range names {
			require.NoError(w.t, os.Remove(name))
		}
		return true
	})
}

// collect does with the live log what a collection does, and notes what it has settled.
func (w *modelWorld) collect() {
	t, ctx := w.t, context.Background()
	state, err := live.Read(ctx, w.store.Objects())
	require.NoError(t, err)
	if state.Position().Sequence == 0 {
		return
	}
	done, err := upkeep.Log(ctx, w.store, state, upkeep.LogOptions{
		Keep: 24 * time.Hour, PendingKeep: 24 * time.Hour, ForgetWithin: 24 * time.Hour, Now: time.Now(), Author: "model",
	})
	require.NoError(t, err)
	if len(done.Settled) == 0 {
		return
	}
	w.log.last++
	w.report.entries++
	for _, s := range done.Settled {
		for _, sn := range w.snapshots {
			if s.ModelVersion == "" || s.ModelVersion == sn.version {
				require.LessOrEqual(t, s.Through, sn.inputs, "%s of %s", s.ModelVersion, sn.name)
			}
		}
		w.log.settled = append(w.log.settled, modelSettled{w.log.last, s.ModelVersion, s.Through})
		w.report.settled += s.Records
		t.Logf("entry %d settles %q through %d, of %d", w.log.last, s.ModelVersion, s.Through, s.Records)
	}
	require.Equal(t, w.log.last, w.position())
	for _, sn := range w.snapshots {
		require.NoError(t, upkeep.CheckInputs(ctx, w.store.Objects(), shard.Position{Sequence: sn.inputs}, "feed", sn.version))
	}
}

// position returns where the log ends.
func (w *modelWorld) position() uint64 {
	state, err := live.Read(context.Background(), w.store.Objects())
	require.NoError(w.t, err)
	return state.Position().Sequence
}
