package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// liveInputFlags say what of the live log the inputs of a build have.
type liveInputFlags struct {
	LivePosition string   `placeholder:"POS" help:"Position of the live log that the inputs reflect: SEQUENCE, LOG:SEQUENCE, or now for where the log ends. Of earlier events only takedowns, windows and forgotten users count over the snapshot. By default all events do."`
	ExtractedAt  timeFlag `placeholder:"TIME" help:"When the inputs were extracted, instead of --live-position: 2026-11-25T08:15:00Z, or 2h for two hours ago. It stands for the last event that was accepted before."`
}

// nowPosition is the value of --live-position that means where the log ends.
const nowPosition = "now"

// check returns an error if the flags do not go together, or are none.
func (f *liveInputFlags) check() error {
	switch f.LivePosition {
	case "", nowPosition:
	default:
		if _, err := shard.ParsePosition(f.LivePosition); err != nil {
			return usagef("--live-position: %w, or now", err)
		}
	}
	at := time.Time(f.ExtractedAt)
	switch {
	case f.LivePosition != "" && !at.IsZero():
		return usagef("--live-position and --extracted-at do not go together: both say what of the live log the inputs have")
	case at.After(time.Now()):
		return usagef("--extracted-at is %s, which is yet to come", at.UTC().Format(time.RFC3339))
	}
	return nil
}

// read reads the live log of a store, and returns the position that the flags mean: that
// before all of it without flags, and nil without a log.
func (f *liveInputFlags) read(e *environment, store *snapshots.Store) (*live.State, *shard.Position, error) {
	log, err := e.readLive(store)
	if err != nil {
		return nil, nil, err
	}
	head := log.Position().Shard()
	p := shard.Position{}
	switch at := time.Time(f.ExtractedAt); {
	case f.LivePosition == nowPosition:
		p = head
	case f.LivePosition != "":
		if p, err = shard.ParsePosition(f.LivePosition); err != nil {
			return nil, nil, err
		}
		if err := errors.Join(bareOfAnother(p, log), builder.CheckLivePosition(p, log)); err != nil {
			return nil, nil, usagef("--live-position: %w", err)
		}
	case !at.IsZero():
		known := false
		if p, known = log.Before(at.Add(-1)); !known {
			if err := begunAfter(e, store, at); err != nil {
				return nil, nil, err
			}
		}
	}
	if head == (shard.Position{}) {
		return log, nil, nil
	}
	return log, &p, nil
}

// bareOfAnother returns an error if a number alone, which is a position of the first log, may be
// meant as one of the log that a person has accepted in place of it, and is another entry there.
func bareOfAnother(p shard.Position, log *live.State) error {
	head := log.Position().Shard()
	common, _ := log.Lineage().Common("")
	if p.Log != "" || head.Log == "" || p.Sequence <= common {
		return nil
	}
	return fmt.Errorf("%s names no log, and the live log of the store is another one since a person has accepted it; accepted: %s:SEQUENCE, up to %s, or a number up to %d, the last entry that is the same in both", p, head.Log, head, common)
}

// begunAfter returns an error unless the live log of a store began at a time or later.
func begunAfter(e *environment, store *snapshots.Store, at time.Time) error {
	first, err := live.Log(store.Objects(), 0).Get(e.ctx, 1)
	var begun *live.Commit
	switch {
	case errors.Is(err, objects.ErrNotFound):
		return nil // it has not begun
	case err == nil:
		if begun, err = live.Decode(first.Data); err == nil && !begun.Time.Before(at) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, appendlog.ErrCompacted) {
		return err
	}
	return fmt.Errorf("--extracted-at is %s: the live log does not remember what was accepted so long ago, only that of a day and a million events; accepted: a later time, or --live-position with the position itself", at.UTC().Format(time.RFC3339))
}

// noPosition warns that all of a live log counts over a snapshot; it is empty if that is not
// so.
func noPosition(m *manifest.Manifest, head shard.Position) string {
	if m.Live == nil || m.Live.Sequence > 0 || head.Sequence == 0 {
		return ""
	}
	return fmt.Sprintf("WARNING: the live log has events up to %s, and the inputs are not said to have any of them, so all of them count over this snapshot: an older upsert lies over a newer row of the inputs; --live-position or --extracted-at says what the inputs have", head)
}

// writeLiveInputs says what a build took from the live log, and loudly what it was not told.
func writeLiveInputs(w io.Writer, m *manifest.Manifest, head shard.Position) {
	if warning := noPosition(m, head); warning != "" {
		fmt.Fprintf(w, "\n%s\n", warning)
		writeForgotten(w, m)
		return
	}
	writeLivePosition(w, m)
}

// writeLivePosition says which position of the live log the inputs of a snapshot reflect, and
// how many users were left out, if there is a live log.
func writeLivePosition(w io.Writer, m *manifest.Manifest) {
	if m.Live != nil {
		fmt.Fprintf(w, "\nthe inputs reflect the live log up to %s\n", m.Live)
	}
	writeForgotten(w, m)
}

// writeForgotten says how many users a build has left out, if any.
func writeForgotten(w io.Writer, m *manifest.Manifest) {
	if n := m.Forgotten(); n > 0 {
		fmt.Fprintf(w, "left out %s of the inputs\n", wording.Plural(n, "forgotten user"))
	}
}
