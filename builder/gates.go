package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
)

// gates is what the gates of a build look at beside the snapshot.
type gates struct {
	thresholds   gate.Thresholds
	interactions tower.InteractionOptions
	inputs       []shard.Input // the files of both, as far as there are any
}

// readGates looks whether the thresholds fit and the interactions can be read, so that a
// build fails before it has spent time.
func (b *build) readGates(ctx context.Context) error {
	b.gates = gates{thresholds: b.Opened.thresholds, interactions: InteractionOptions(b.Interactions, b.manifest.Parameters)}
	b.gates.interactions.Files = b.Opened.interactions
	var names []string
	for _, s := range b.manifest.Apps.Segments {
		names = append(names, s.Name)
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
func checkPrevious(ctx context.Context, store *shard.Store, o Options) error {
	if o.Previous == "" {
		return nil
	}
	_, err := cmp.Or(o.PreviousStore, store).Manifest(ctx, o.Previous)
	return err
}

// InteractionOptions say how to read the interactions with a snapshot of these
// parameters: their columns of ids are called as those of the towers. Without parameters
// they are called as `tandem generate` calls them.
func InteractionOptions(paths []string, p *shard.Parameters) tower.InteractionOptions {
	if p == nil {
		p = &shard.Parameters{}
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
		m.Lineage = &shard.Lineage{Previous: b.Previous}
	}
	m.Inputs = append(m.Inputs, b.gates.inputs...)
	in := gate.Input{
		Thresholds: b.gates.thresholds, Interactions: b.gates.interactions,
		Begin: func(gate string) { b.Progress.Stage("gate "+gate, -1) },
	}
	if in.Candidate, err = b.openStaged(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Candidate.Close()) }()
	if b.Previous != "" {
		if in.Previous, err = shard.OpenSnapshot(ctx, cmp.Or(b.PreviousStore, b.store), b.Previous); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Previous.Close()) }()
	}
	found := &gate.Recorded{Time: start.UTC(), Tool: b.Tool, Inputs: b.gates.inputs, LatencyOff: b.gates.thresholds.Off[gate.Latency]}
	found.Report, err = gate.Run(ctx, in)
	if err = checked(in.Interactions.Files, err); err != nil {
		return err
	}
	b.Progress.Stage("gate "+gate.Latency, -1)
	if found.Latency, err = gate.Measure(ctx, in.Candidate, b.gates.thresholds); err != nil {
		return err
	}
	m.Gates = found.Report
	m.Version = m.LowestVersion()
	data, err := m.Encode()
	if err != nil {
		return err
	}
	found.Snapshot, found.Seconds = shard.Sum(data), time.Since(start).Seconds()
	b.found = found
	return nil
}

// openStaged opens the snapshot as far as it is, for the gates. An error of class
// [shard.ErrSource] says that its files are not what was built.
func (b *build) openStaged(ctx context.Context) (*shard.Snapshot, error) {
	digest, err := b.staged.Publish(ctx, b.manifest)
	if err == nil {
		var s *shard.Snapshot
		if s, err = shard.OpenSnapshot(ctx, b.staged, digest); err == nil {
			return s, nil
		}
	}
	if sections.IsDamaged(err) || errors.Is(err, objects.ErrNotFound) {
		err = fmt.Errorf("%w: %w", shard.ErrSource, err)
	}
	return nil, err
}

// parameters returns what the build was told beside its input files.
func (o *Options) parameters() *shard.Parameters {
	of := func(t TowerOptions) shard.TowerParameters {
		p := shard.TowerParameters{
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
	return &shard.Parameters{MaxRejected: o.MaxRejected, Apps: of(o.Apps), Users: of(o.Users)}
}
