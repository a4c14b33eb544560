package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/server/reportpage"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// gateFiles are the files that the gates read.
type gateFiles struct {
	Gates        string   `placeholder:"FILE" help:"YAML mapping of gates to their limits; by default those in docs/gates.md."`
	Interactions []string `sep:"none" placeholder:"PATH" help:"Parquet or CSV of what users did, with the id columns of both towers: the gates then see whether the towers belong together. A file, a folder, a glob in quotes, or a URL; may be repeated."`
}

// gateFlags are what the gates look at beside a snapshot.
type gateFlags struct {
	gateFiles
	Previous string `placeholder:"DIGEST" help:"Snapshot to compare with, or none; by default the one that is released to most traffic."`
}

// noPrevious is the value of --previous that says that there is none.
const noPrevious = "none"

// previous returns the snapshot to compare a candidate with, empty for none.
func (f *gateFlags) previous(e *environment, store *snapshots.Store, candidate manifest.Digest) (manifest.Digest, error) {
	switch f.Previous {
	case noPrevious:
		return "", nil
	case "":
	default:
		return store.Resolve(e.ctx, f.Previous)
	}
	now, err := newestRelease(e, store)
	if err != nil {
		return "", err
	}
	return release.New(store).Previous(e.ctx, now, candidate)
}

// passed returns an error that says why if a snapshot failed its gates.
func passed(r *gates.Recorded, store string) error {
	if err := r.Err(); err != nil {
		return unfitError{fmt.Errorf("snapshot %s is not fit for release: %w%s", r.Snapshot.Short(), err, lookNext(err, "--store "+store))}
	}
	return nil
}

// lookNext says what to look at after an error if it is one of gates that failed, or
// nothing. The flag says where the snapshot is.
func lookNext(err error, where string) string {
	if errors.Is(err, release.ErrUnproved) {
		return fmt.Sprintf("\n  what settles it: tandem gate --store %s with --interactions, what users did with the apps", storeOf(where))
	}
	failed, ok := errors.AsType[*gates.FailedError](err)
	if !ok {
		return ""
	}
	first := failed.Failed[0].Gate
	var next []string
	for _, c := range failed.Checks {
		for _, f := range (&inputs{}).flags() {
			if first == gates.Contract && strings.Contains(c.Text, "no input "+f.role+",") {
				next = append(next, f.flag+", which was not given to the build")
			}
		}
	}
	if failed.Previous != "" && first != gates.Structure && first != gates.Latency {
		next = append(next, fmt.Sprintf("tandem snapshot diff %s %s %s", where, failed.Snapshot.Short(), failed.Previous.Short()))
	}
	next = append(next, fmt.Sprintf("tandem gate --store %s %s --full", storeOf(where), failed.Snapshot.Short()))
	return "\n  look at: " + strings.Join(next, "; ")
}

// storeOf returns the store that a flag names; of a server its name is not known.
func storeOf(where string) string {
	if store, ok := strings.CutPrefix(where, "--store "); ok {
		return store
	}
	return "STORE"
}

// writeRefusal writes first of all why a snapshot is not fit for release, if it is not.
func writeRefusal(w io.Writer, r *gates.Recorded) {
	if err := r.Err(); err != nil {
		fmt.Fprintf(w, "snapshot %s is not fit for release: %v\n\n", r.Snapshot.Short(), err)
	}
}

// writeGates writes how a snapshot did at its gates in one run.
func writeGates(w io.Writer, r *gates.Recorded) error {
	return writeGateRows(w, r.Report.Previous, r.Rows(), r.Report.Loosened)
}

// writeVerdict writes what all runs of the gates on a snapshot amount to.
func writeVerdict(w io.Writer, v *gates.Verdict) error {
	var previous manifest.Digest
	if n := len(v.ComparedWith); n > 0 {
		previous = v.ComparedWith[n-1]
	}
	return writeGateRows(w, previous, v.Rows, v.Loosened)
}

// writeGateRows writes how many checks passed, and what each gate came to.
func writeGateRows(w io.Writer, previous manifest.Digest, rows []gates.Row, loosened []string) error {
	checks, failed := 0, 0
	for _, r := range rows {
		checks, failed = checks+r.Checks, failed+r.Failed
	}
	against := "without a previous snapshot"
	if previous != "" {
		against = "against snapshot " + previous.Short()
	}
	if failed == 0 {
		fmt.Fprintf(w, "\ngates, %s: %s passed\n", against, wording.Plural(checks, "check"))
	} else {
		fmt.Fprintf(w, "\ngates, %s: %d of %s failed\n", against, failed, wording.Plural(checks, "check"))
	}
	if err := gates.WriteRows(w, rows); err != nil {
		return err
	}
	for _, text := range loosened {
		fmt.Fprintf(w, "loosened: %s\n", text)
	}
	return nil
}

type gateCommand struct {
	snapshotFlags
	gateFlags
	Full bool   `help:"Print every check, not only what each gate came to."`
	JSON string `placeholder:"FILE" help:"Write what was found as JSON too; - prints it instead of the table."`
	htmlFlag
}

func (gateCommand) Help() string {
	return `Runs every gate anew, whatever the build found, and records the run in the store. Of each gate the newest run that evaluated it decides whether tandem release start takes the snapshot. The exit code is 3 if a check fails.

Example:

    tandem gate --store store 4be1 --interactions interactions.parquet`
}

func (c *gateCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	found := &gates.Recorded{Time: time.Now().UTC(), Tool: toolRelease}
	in := gate.Input{Thresholds: gates.DefaultThresholds()}
	if c.Gates != "" {
		var thresholds manifest.Input
		if in.Thresholds, thresholds, err = gate.ReadThresholds(c.Gates); err != nil {
			return err
		}
		found.Inputs = append(found.Inputs, thresholds)
	}
	store, digest, err := c.open(e)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	previous, err := c.previous(e, store, digest)
	if err != nil {
		return err
	}
	if in.Candidate, err = snapshots.Open(e.ctx, store, digest); err != nil {
		return err
	}
	defer closing(&err, in.Candidate)
	if previous != "" {
		if in.Previous, err = snapshots.Open(e.ctx, store, previous); err != nil {
			return err
		}
		defer closing(&err, in.Previous)
	}
	p := newProgress(e.stderr)
	defer p.Done()
	if len(c.Interactions) > 0 {
		in.Interactions = builder.InteractionOptions(c.Interactions, in.Candidate.Manifest().Parameters)
		files, inputs, err := openInteractions(e, p, in.Interactions)
		if err != nil {
			return err
		}
		defer closing(&err, files)
		in.Interactions.Files = files
		found.Inputs = append(found.Inputs, inputs...)
	}
	log, err := e.readLive(store)
	if err != nil {
		return err
	}
	if forgotten := log.Forgotten(); forgotten.Len() > 0 {
		in.Forgotten = forgotten.Has
	}
	in.Unnamed = log.Position().Shard() != shard.Position{}
	if err := runGates(e.ctx, p, in, store, log, found); err != nil {
		return err
	}
	p.Done()
	found.Snapshot, found.Seconds = digest, time.Since(found.Time).Seconds()
	if err := gates.Record(e.ctx, store.Objects(), found); err != nil {
		return err
	}
	if err := c.write(e, found); err != nil {
		return err
	}
	return passed(found, c.Store)
}

// runGates runs all gates, and notes what they found.
func runGates(ctx context.Context, p progress, in gate.Input, store *snapshots.Store, log *live.State, found *gates.Recorded) (err error) {
	in.Begin = func(gate string) { p.Stage("gate "+gate, -1) }
	found.Report, err = gate.Run(ctx, in)
	if in.Interactions.Files != nil {
		err = cmp.Or(in.Interactions.Files.Unchanged(), err)
	}
	if errors.As(err, new(*tower.InteractionsError)) {
		err = inputsError(builder.AtFault(err))
	}
	if err != nil {
		return err
	}
	p.Stage("gate "+gates.Filters, -1)
	var released *manifest.Manifest
	if in.Previous != nil {
		released = in.Previous.Manifest()
	}
	filters, err := gates.CheckFilters(ctx, in.Candidate.Manifest(), released, in.Thresholds, gates.LiveFilters(store))
	if err != nil {
		return err
	}
	p.Stage("gate "+gates.Fresh, -1)
	fresh, err := gate.CheckFresh(in.Candidate, released, in.Thresholds, log, time.Now())
	if err != nil {
		return err
	}
	found.Filters, found.Fresh, found.Undecided = filters.Checks, fresh.Checks, slices.Concat(filters.Undecided, fresh.Undecided)
	p.Stage("gate "+gates.Latency, -1)
	if found.Latency, err = gate.Measure(ctx, in.Candidate, in.Thresholds); err != nil {
		return err
	}
	found.FiltersOff, found.FreshOff, found.LatencyOff = in.Thresholds.Off[gates.Filters], in.Thresholds.Off[gates.Fresh], in.Thresholds.Off[gates.Latency]
	return nil
}

// openInteractions opens the files of interactions and describes them.
func openInteractions(e *environment, p progress, o tower.InteractionOptions) (*input.Set, []manifest.Input, error) {
	files, err := tower.OpenInteractions(e.ctx, o, input.Options{Progress: builder.Copying(p, "interactions")})
	if err != nil {
		return nil, nil, err
	}
	for _, note := range files.Notes() {
		p.Note("interactions: " + note)
	}
	inputs, err := files.Describe(e.ctx, "interactions", nil)
	if err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	return files, inputs, nil
}

// gatePage is what a page of the gates shows.
type gatePage struct {
	Run  *gates.Recorded `json:"run"`
	Rows []gates.Row     `json:"rows"`
}

func (c *gateCommand) write(e *environment, found *gates.Recorded) error {
	if err := c.htmlFlag.write(reportpage.Gate, "Gates of snapshot "+found.Snapshot.Short(), gatePage{found, found.Rows()}); err != nil {
		return err
	}
	if c.JSON == "-" {
		return found.WriteJSON(e.stdout)
	}
	if c.JSON != "" {
		if err := writeFile(c.JSON, found.WriteJSON); err != nil {
			return err
		}
	}
	writeRefusal(e.stdout, found)
	fmt.Fprintf(e.stdout, "snapshot %s\n", found.Snapshot)
	if err := writeGates(e.stdout, found); err != nil || !c.Full {
		return err
	}
	fmt.Fprintln(e.stdout)
	return found.WriteTable(e.stdout)
}

type snapshotDiffCommand struct {
	askedFlags
	Candidate string `arg:"" placeholder:"DIGEST" help:"The snapshot's digest or the beginning of it."`
	Previous  string `arg:"" optional:"" placeholder:"DIGEST" help:"The snapshot before, likewise; by default what is released to most traffic."`
	JSON      bool   `help:"Print JSON."`
	htmlFlag
}

func (snapshotDiffCommand) Help() string {
	return `Compares the second snapshot with what the first has become: ids, norms, scores, the candidates of the same users in all apps and in each segment, attributes, and whether apps and users are where they were among each other, whichever way a retrained model has turned its space.

Example:

    tandem snapshot diff --store store 4be1 09c2`
}

func (c *snapshotDiffCommand) Run(e *environment) (err error) {
	if c.Candidate == "" {
		return usagef("the digest is empty; accepted: the beginning of one, or all of it")
	}
	if err := c.check(); err != nil {
		return err
	}
	server, err := c.server(e)
	if err != nil {
		return err
	}
	var found *compare.Report
	if server != nil {
		found, err = server.diff(e, c.Candidate, c.Previous)
	} else {
		found, err = c.compare(e)
	}
	if err != nil {
		return err
	}
	title := fmt.Sprintf("Snapshot %s beside %s", found.Candidate.Snapshot.Short(), found.Previous.Snapshot.Short())
	if err := c.write(reportpage.Diff, title, found); err != nil {
		return err
	}
	if c.JSON {
		return found.WriteJSON(e.stdout)
	}
	return found.WriteTable(e.stdout)
}

// compare compares the snapshots of a store.
func (c *snapshotDiffCommand) compare(e *environment) (_ *compare.Report, err error) {
	store, candidate, err := openStore(e, c.Store, c.Candidate, c.cacheFlags.options())
	if err != nil {
		return nil, err
	}
	defer closing(&err, store)
	previous, err := resolve(e, store, c.Previous)
	if err != nil {
		return nil, err
	}
	if previous == candidate && c.Previous == "" {
		return nil, usagef("%s is what is released: name what to compare it with", candidate.Short())
	}
	now, err := snapshots.Open(e.ctx, store, candidate)
	if err != nil {
		return nil, err
	}
	defer closing(&err, now)
	before, err := snapshots.Open(e.ctx, store, previous)
	if err != nil {
		return nil, err
	}
	defer closing(&err, before)
	return compare.Compare(e.ctx, now, before, compare.Options{})
}
