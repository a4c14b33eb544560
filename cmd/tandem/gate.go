package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
)

// gateFiles are the files that the gates read.
type gateFiles struct {
	Gates        string   `placeholder:"FILE" help:"YAML mapping of gates to their limits; by default those of the README."`
	Interactions []string `sep:"none" placeholder:"PATH" help:"Parquet or CSV of what users did, with the id columns of both towers: the gates then see whether the towers belong together. A file, a folder, a glob in quotes, or a URL; may be repeated."`
}

// gateFlags are what the gates look at beside a snapshot.
type gateFlags struct {
	gateFiles
	Previous string `placeholder:"DIGEST" help:"Snapshot to compare with, or none; by default the one that is released to most traffic."`
}

// noPrevious is the value of --previous that says that there is none.
const noPrevious = "none"

// previous returns the snapshot to compare with, empty for none. That a candidate is
// released already tells nothing of it: then it is the one that its own build compared it
// with.
func (f *gateFlags) previous(e *environment, store *shard.Store, candidate shard.Digest) (shard.Digest, error) {
	switch f.Previous {
	case noPrevious:
		return "", nil
	case "":
	default:
		return store.Resolve(e.ctx, f.Previous)
	}
	now, err := newestRelease(e, store)
	if err != nil || now == nil {
		return "", err
	}
	var most release.Arm
	for _, arm := range now.Arms {
		if arm.Weight > most.Weight {
			most = arm
		}
	}
	if most.Snapshot != candidate {
		return most.Snapshot, nil
	}
	m, err := store.Manifest(e.ctx, candidate)
	if err != nil || m.Lineage == nil {
		return "", err
	}
	if _, err = store.Manifest(e.ctx, m.Lineage.Previous); errors.Is(err, shard.ErrNoSnapshot) {
		return "", nil // collected meanwhile
	}
	return m.Lineage.Previous, err
}

// passed returns an error if a snapshot failed its gates.
func passed(r *gate.Recorded) error {
	if failed := r.Failed(); len(failed) > 0 {
		return unfitError{fmt.Errorf("snapshot %s is not fit for release: %d of %s failed",
			r.Snapshot.Short(), len(failed), plural(int64(len(r.Checks())), "check"))}
	}
	return nil
}

// writeGates writes how a snapshot did at its gates: each check that failed, and each gate
// that did not run or found nothing either way.
func writeGates(w io.Writer, r *gate.Recorded) {
	checks, failed, previous := r.Checks(), r.Failed(), r.Report.Previous
	against := "without a previous snapshot"
	if previous != "" {
		against = "against snapshot " + previous.Short()
	}
	if len(failed) == 0 {
		fmt.Fprintf(w, "\ngates, %s: %s passed\n", against, plural(int64(len(checks)), "check"))
	} else {
		fmt.Fprintf(w, "\ngates, %s: %d of %s failed\n", against, len(failed), plural(int64(len(checks)), "check"))
	}
	for _, c := range failed {
		fmt.Fprintf(w, "  %s: %s\n", c.Gate, c.Text)
	}
	for _, row := range r.Rows() {
		if row.State == shard.GateNotRun || row.State == shard.GateInconclusive {
			fmt.Fprintf(w, "  %s %s: %s\n", row.Gate, row.State, row.Why)
		}
	}
}

type gateCommand struct {
	snapshotFlags
	gateFlags
	JSON string `placeholder:"FILE" help:"Write what was found as JSON too; - prints it instead of the table."`
}

func (gateCommand) Help() string {
	return `Runs every gate anew, whatever the build found, and records the run in the store. Of each gate the newest run that evaluated it decides whether tandem release start takes the snapshot. The exit code is 3 if a check fails.

Example:

    tandem gate --store store 4be1 --interactions interactions.parquet`
}

func (c *gateCommand) Run(e *environment) (err error) {
	found := &gate.Recorded{Time: time.Now().UTC(), Tool: toolRelease}
	in := gate.Input{Thresholds: gate.DefaultThresholds()}
	if c.Gates != "" {
		var thresholds shard.Input
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
	if in.Candidate, err = shard.OpenSnapshot(e.ctx, store, digest); err != nil {
		return err
	}
	defer closing(&err, in.Candidate)
	if previous != "" {
		if in.Previous, err = shard.OpenSnapshot(e.ctx, store, previous); err != nil {
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
	in.Begin = func(gate string) { p.Stage("gate "+gate, -1) }
	if found.Report, err = gate.Run(e.ctx, in); err == nil && in.Interactions.Files != nil {
		err = in.Interactions.Files.Unchanged()
	}
	if err != nil {
		return err
	}
	p.Stage("gate "+gate.Latency, -1)
	if found.Latency, err = gate.Measure(e.ctx, in.Candidate, in.Thresholds); err != nil {
		return err
	}
	p.Done()
	found.LatencyOff = in.Thresholds.Off[gate.Latency]
	found.Snapshot, found.Seconds = digest, time.Since(found.Time).Seconds()
	if err := gate.Record(e.ctx, store.Objects(), found); err != nil {
		return err
	}
	if err := c.write(e, found); err != nil {
		return err
	}
	return passed(found)
}

// openInteractions opens the files of interactions and describes them.
func openInteractions(e *environment, p progress, o tower.InteractionOptions) (*input.Set, []shard.Input, error) {
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

func (c *gateCommand) write(e *environment, found *gate.Recorded) error {
	if c.JSON == "-" {
		return found.WriteJSON(e.stdout)
	}
	if c.JSON != "" {
		if err := writeFile(c.JSON, found.WriteJSON); err != nil {
			return err
		}
	}
	return found.WriteTable(e.stdout)
}

type snapshotDiffCommand struct {
	requiredStoreFlags
	Candidate string `arg:"" placeholder:"DIGEST" help:"The snapshot's digest or the beginning of it."`
	Previous  string `arg:"" placeholder:"DIGEST" help:"The snapshot before, likewise."`
	JSON      bool   `help:"Print JSON."`
}

func (snapshotDiffCommand) Help() string {
	return `Compares the second snapshot with what the first has become: ids, norms, scores, the candidates of the same users in all apps and in each segment, attributes, and whether apps and users are where they were among each other, whichever way a retrained model has turned its space.

Example:

    tandem snapshot diff --store store 4be1 09c2`
}

func (c *snapshotDiffCommand) Run(e *environment) (err error) {
	store, candidate, err := openStore(e, c.Store, c.Candidate, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	previous, err := store.Resolve(e.ctx, c.Previous)
	if err != nil {
		return err
	}
	now, err := shard.OpenSnapshot(e.ctx, store, candidate)
	if err != nil {
		return err
	}
	defer closing(&err, now)
	before, err := shard.OpenSnapshot(e.ctx, store, previous)
	if err != nil {
		return err
	}
	defer closing(&err, before)
	report, err := compare.Compare(e.ctx, now, before, compare.Options{})
	if err != nil {
		return err
	}
	if c.JSON {
		return report.WriteJSON(e.stdout)
	}
	return report.WriteTable(e.stdout)
}
