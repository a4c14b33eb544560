package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/rowlog"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
	"github.com/tandem-ann/tandem/shard/wording"
)

// upkeepFlags say what is kept of what a store has beside snapshots.
type upkeepFlags struct {
	LiveKeep     time.Duration `default:"24h" placeholder:"TIME" help:"Keep entries of the live log until a checkpoint that has them is so old: servers that were cut off for less go on where they were (default ${default})."`
	PendingKeep  time.Duration `default:"720h" placeholder:"TIME" help:"Keep what was upserted for a model version of which there is no snapshot, since the last was upserted (default ${default})."`
	RecordKeep   time.Duration `default:"2160h" placeholder:"TIME" help:"Keep recorded queries (default ${default}, 90 days)."`
	OutcomeKeep  time.Duration `default:"2160h" placeholder:"TIME" help:"Keep outcomes (default ${default}, 90 days)."`
	JoinedKeep   time.Duration `default:"2160h" placeholder:"TIME" help:"Keep joined sets of days, since the day ended (default ${default}, 90 days)."`
	ForgetWithin time.Duration `default:"168h" placeholder:"TIME" help:"Within which nothing of a user who is forgotten is in the live log any more (default ${default})."`
}

func (f *upkeepFlags) check() error {
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"--live-keep", f.LiveKeep}, {"--pending-keep", f.PendingKeep}, {"--record-keep", f.RecordKeep}, {"--outcome-keep", f.OutcomeKeep}, {"--joined-keep", f.JoinedKeep}, {"--forget-within", f.ForgetWithin}} {
		if d.value < appendlog.LeastAge {
			return usagef("%s is %s, want at least %s", d.flag, d.value, appendlog.LeastAge)
		}
	}
	if f.LiveKeep > f.ForgetWithin {
		return usagef("--live-keep is %s and --forget-within %s; accepted: no more than that, or entries are kept for longer than what is in them", f.LiveKeep, f.ForgetWithin)
	}
	return nil
}

// upkeepInfo is what was done beside snapshots.
type upkeepInfo struct {
	Live    *upkeep.LogKept `json:"live,omitempty"`    // nil without a live log
	Queries *sweptQueries   `json:"queries,omitempty"` // nil if nothing was looked at
	// Outcomes and Joined are nil likewise.
	Outcomes *sweptOutcomes `json:"outcomes,omitempty"`
	Joined   *sweptJoined   `json:"joined,omitempty"`
}

// sweptQueries is what was done to recorded queries.
type sweptQueries struct {
	sweptFiles
	Queries int `json:"queries_of_forgotten_users"`
}

// sweptOutcomes is what was done to outcomes.
type sweptOutcomes struct {
	sweptFiles
	Outcomes int `json:"outcomes_of_forgotten_users"`
}

// sweptJoined is what was done to joined sets.
type sweptJoined struct {
	Deleted   []string `json:"deleted"`   // days
	Rewritten []string `json:"rewritten"` // days
	Left      []string `json:"left"`      // objects that no set names, deleted
	Rows      int      `json:"rows_of_forgotten_users"`
}

// sweptFiles are the files of a log that were deleted, and written anew.
type sweptFiles struct {
	Deleted   []string `json:"deleted"`
	Rewritten []string `json:"rewritten"`
}

func sweptFilesOf(s *rowlog.Swept) sweptFiles {
	return sweptFiles{append([]string{}, s.Deleted...), append([]string{}, s.Rewritten...)}
}

// keep keeps the live log, the recorded queries, the outcomes and the joined sets of a store short.
func (f *upkeepFlags) keep(e *environment, store *snapshots.Store, dryRun bool) (info upkeepInfo, err error) {
	now, err := store.Now(e.ctx)
	if err != nil {
		return info, err
	}
	log, err := e.readLive(store)
	if err != nil {
		return info, fmt.Errorf("the live log was left as it is, and so were recorded queries, outcomes and joined sets: %w", err)
	}
	if log.Position().Sequence > 0 {
		bound, err := release.New(store).LiveBound(e.ctx)
		if err != nil {
			return info, err
		}
		info.Live, err = upkeep.Log(e.ctx, store, log, upkeep.LogOptions{
			Keep: f.LiveKeep, ForgetWithin: f.ForgetWithin, PendingKeep: f.PendingKeep, Now: now, DryRun: dryRun,
			Author: shortened(author(), live.MaxAuthor), AtLeast: bound.Position, AtLeastFrom: bound.By,
		})
		if err != nil && !errors.As(err, new(*upkeep.LateError)) {
			return info, err
		}
		late := err
		defer func() { err = errors.Join(late, err) }()
	}
	queries := querylog.SweepOptions{Now: now, Keep: f.RecordKeep, Users: server.RecordedUsers, DryRun: dryRun}
	acts := outcomes.SweepOptions{Now: now, Keep: f.OutcomeKeep, DryRun: dryRun}
	sets := joined.SweepOptions{Now: now, Keep: f.JoinedKeep, DryRun: dryRun}
	if forgotten := log.Forgotten(); forgotten.Len() > 0 {
		queries.Forgotten, queries.Set = forgotten.Has, forgotten.Digest()
		acts.Forgotten, acts.Set = queries.Forgotten, queries.Set
		sets.Forgotten, sets.Set = queries.Forgotten, queries.Set
	}
	swept, err := querylog.Of(store.Objects()).Sweep(e.ctx, queries)
	info.Queries = &sweptQueries{sweptFilesOf(swept), swept.Rows}
	sweptActs, actsErr := outcomes.Of(store.Objects()).Sweep(e.ctx, acts)
	info.Outcomes = &sweptOutcomes{sweptFilesOf(sweptActs), sweptActs.Rows}
	// Last, so that no join after it reads what was not swept before.
	sweptSets, setsErr := joined.Sweep(e.ctx, store.Objects(), sets)
	info.Joined = &sweptJoined{append([]string{}, sweptSets.Deleted...), append([]string{}, sweptSets.Rewritten...), append([]string{}, sweptSets.Left...), sweptSets.Rows}
	return info, errors.Join(err, actsErr, setsErr)
}

// write says what was done, for people.
func (f *upkeepFlags) write(w io.Writer, info upkeepInfo, dryRun bool) {
	would := func(verb, past string) string {
		if dryRun {
			return "would " + verb
		}
		return past
	}
	if l := info.Live; l != nil {
		for _, s := range l.Settled {
			what, why := "what was set and removed", "every snapshot in the store reflects it"
			if s.Model != "" {
				what = fmt.Sprintf("upserts for %s at %s", release.Escape(s.Model), release.Escape(s.ModelVersion))
			}
			if s.Waited {
				why = fmt.Sprintf("no snapshot of it has come within %s (--pending-keep)", f.PendingKeep)
			}
			fmt.Fprintf(w, "%s %s of %s up to entry %d of the live log: %s\n", would("settle", "settled"), what, plural(s.Records, "app or user", "apps and users"), s.Through, why)
		}
		if l.Checkpoint > 0 {
			fmt.Fprintf(w, "%s a checkpoint of the live log at entry %d\n", would("write", "wrote"), l.Checkpoint)
		}
		if l.Entries+l.Checkpoints > 0 {
			fmt.Fprintf(w, "%s %s and %s of the live log\n", would("delete", "deleted"), plural(l.Entries, "entry", "entries"), wording.Plural(l.Checkpoints, "checkpoint"))
		}
		if g := l.Forgetting; g.Pending > 0 {
			fmt.Fprintf(w, "kept %s and %s of the live log that may have something of %s, the first of whom was forgotten at %s: they go with a later gc, by %s (--forget-within)\n",
				plural(g.Entries, "entry", "entries"), wording.Plural(g.Checkpoints, "checkpoint"), wording.Plural(g.Pending, "forgotten user"),
				g.Since.UTC().Format(time.RFC3339), g.Since.Add(f.ForgetWithin).UTC().Format(time.RFC3339))
		}
	}
	if q := info.Queries; q != nil {
		if n := len(q.Deleted); n > 0 {
			fmt.Fprintf(w, "%s %s of recorded queries, written more than %s ago (--record-keep)\n", would("delete", "deleted"), wording.Plural(n, "file"), f.RecordKeep)
		}
		if q.Queries > 0 {
			fmt.Fprintf(w, "%s %s of forgotten users out of %s\n", would("take", "took"), plural(q.Queries, "recorded query", "recorded queries"), wording.Plural(len(q.Rewritten), "file"))
		}
	}
	if o := info.Outcomes; o != nil {
		if n := len(o.Deleted); n > 0 {
			fmt.Fprintf(w, "%s %s of outcomes, written more than %s ago (--outcome-keep)\n", would("delete", "deleted"), wording.Plural(n, "file"), f.OutcomeKeep)
		}
		if o.Outcomes > 0 {
			fmt.Fprintf(w, "%s %s of forgotten users out of %s\n", would("take", "took"), wording.Plural(o.Outcomes, "outcome"), wording.Plural(len(o.Rewritten), "file"))
		}
	}
	if j := info.Joined; j != nil {
		if n := len(j.Deleted); n > 0 {
			fmt.Fprintf(w, "%s the joined sets of %s, which ended more than %s ago (--joined-keep)\n", would("delete", "deleted"), wording.Plural(n, "day"), f.JoinedKeep)
		}
		if n := len(j.Left); n > 0 {
			fmt.Fprintf(w, "%s %s of joined sets that no set names\n", would("delete", "deleted"), wording.Plural(n, "object"))
		}
		if j.Rows > 0 {
			fmt.Fprintf(w, "%s %s of forgotten users out of the joined sets of %s\n", would("take", "took"), wording.Plural(j.Rows, "row"), wording.Plural(len(j.Rewritten), "day"))
		}
	}
}

// plural counts things whose name is not made plural by an s.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return wording.Count(n) + " " + many
}
