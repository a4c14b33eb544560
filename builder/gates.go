package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// gateInputs are what the gates of a build look at beside the snapshot.
type gateInputs struct {
	thresholds   gates.Thresholds
	interactions tower.InteractionOptions
	inputs       []manifest.Input // the files of both, as far as there are any
}

// readGates looks whether the thresholds fit and the interactions can be read, so that a
// build fails before it has spent time.
func (b *build) readGates(ctx context.Context, p *manifest.Parameters) error {
	b.gates = gateInputs{thresholds: b.Opened.thresholds, interactions: InteractionOptions(b.Interactions, p)}
	b.gates.interactions.Files = b.Opened.interactions
	var names []string
	if b.Opened.segments != nil {
		for _, s := range b.Opened.segments.list {
			names = append(names, s.Name)
		}
	}
	if err := b.gates.thresholds.CheckSegments(names); err != nil {
		return fmt.Errorf("read gates %s: %w", b.Gates, err)
	}
	if b.gates.interactions.Files == nil {
		return nil
	}
	enough := errors.New("enough")
	err := tower.ReadInteractions(ctx, b.gates.interactions, func(string, string) error { return enough })
	if errors.Is(err, enough) {
		return nil
	}
	return checked(b.gates.interactions.Files, err)
}

// checkPrevious returns an error unless the snapshot that the gates compare with is there.
func checkPrevious(ctx context.Context, store *snapshots.Store, o Options) error {
	if o.Previous == "" {
		return nil
	}
	_, err := cmp.Or(o.PreviousStore, store).Manifest(ctx, o.Previous)
	return err
}

// InteractionOptions say how to read the interactions with a snapshot of these
// parameters: their columns of ids are called as those of the towers. Without parameters
// they are called as `tandem generate` calls them.
func InteractionOptions(paths []string, p *manifest.Parameters) tower.InteractionOptions {
	if p == nil {
		p = &manifest.Parameters{}
	}
	return tower.InteractionOptions{
		Paths:      paths,
		UserColumn: cmp.Or(p.Users.IDColumn, synthetic.UserIDColumn),
		AppColumn:  cmp.Or(p.Apps.IDColumn, synthetic.AppIDColumn),
	}
}

// runGates runs the gates on the staged snapshot and puts their report into the manifest.
func (b *build) runGates(ctx context.Context) (err error) {
	b.Progress.Stage("run the gates", -1)
	start := time.Now()
	m := b.manifest
	if b.Previous != "" {
		m.Lineage = &manifest.Lineage{Previous: b.Previous}
	}
	m.Inputs = append(m.Inputs, b.gates.inputs...)
	in := gate.Input{
		Thresholds: b.gates.thresholds, Interactions: b.gates.interactions,
		Forgotten: b.job.leave(), Unnamed: b.LivePosition != nil,
		Begin: func(gate string) { b.Progress.Stage("gate "+gate, -1) },
	}
	if in.Candidate, err = b.openStaged(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Candidate.Close()) }()
	if b.Previous != "" {
		if in.Previous, err = snapshots.Open(ctx, cmp.Or(b.PreviousStore, b.store), b.Previous); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Previous.Close()) }()
	}
	off := b.gates.thresholds.Off
	found := &gates.Recorded{Time: start.UTC(), Tool: b.Tool, Inputs: b.gates.inputs, FiltersOff: off[gates.Filters], FreshOff: off[gates.Fresh], LatencyOff: off[gates.Latency]}
	found.Report, err = gate.Run(ctx, in)
	if err = checked(in.Interactions.Files, err); errors.As(err, new(*tower.InteractionsError)) {
		err = refused(err)
	}
	if err != nil {
		return err
	}
	b.Progress.Stage("gate "+gates.Filters, -1)
	var released *manifest.Manifest
	if in.Previous != nil {
		released = in.Previous.Manifest()
	}
	filters, err := gates.CheckFilters(ctx, in.Candidate.Manifest(), released, b.gates.thresholds, b.LiveFilters)
	if err != nil {
		return err
	}
	b.Progress.Stage("gate "+gates.Fresh, -1)
	fresh, err := gate.CheckFresh(in.Candidate, released, b.gates.thresholds, b.Live, start)
	if err != nil {
		return err
	}
	found.Filters, found.Fresh, found.Undecided = filters.Checks, fresh.Checks, slices.Concat(filters.Undecided, fresh.Undecided)
	b.Progress.Stage("gate "+gates.Latency, -1)
	if found.Latency, err = gate.Measure(ctx, in.Candidate, b.gates.thresholds); err != nil {
		return err
	}
	m.Gates = found.Report
	m.Version = m.LowestVersion()
	data, err := m.Encode()
	if err != nil {
		return err
	}
	found.Snapshot, found.Seconds = manifest.Sum(data), time.Since(start).Seconds()
	b.found = found
	return nil
}

// openStaged opens the snapshot as far as it is, for the gates. An error of class
// [snapshots.ErrSource] says that its files are not what was built.
func (b *build) openStaged(ctx context.Context) (*snapshots.Snapshot, error) {
	s, err := snapshots.OpenUnpublished(ctx, b.staged, b.manifest)
	if err == nil {
		return s, nil
	}
	if sections.IsDamaged(err) || errors.Is(err, objects.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", snapshots.ErrSource, err)
	}
	return nil, err
}

// parameters returns what the build was told beside its input files.
func (o *Options) parameters() *manifest.Parameters {
	of := func(t TowerOptions) manifest.TowerParameters {
		p := manifest.TowerParameters{
			IDColumn: t.Input.IDColumn, EmbeddingColumn: cmp.Or(t.Input.EmbeddingColumn, tower.DefaultEmbeddingColumn),
			IgnoreColumns: t.Input.IgnoreColumns, NumberRows: t.Input.NumberRows,
			PartitionAttributes: t.Input.PartitionAttributes, AttributeTypes: t.Input.AttributeTypes,
			AttributeColumns: t.Input.AttributeColumns, RenameColumns: t.Input.RenameColumns,
		}
		if len(t.Attributes.Paths) > 0 {
			p.AttributesIDKey, p.AttributesIgnoreKeys = t.Attributes.IDKey, t.Attributes.IgnoreKeys
		}
		if t.Graph != "" {
			p.GraphKeys = t.GraphKeys.String()
		}
		return p
	}
	return &manifest.Parameters{MaxRejected: o.MaxRejected, Apps: of(o.Apps), Users: of(o.Users)}
}
