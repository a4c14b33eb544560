package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Version names what wrote a snapshot. It changes whenever the same inputs and
// parameters would give another snapshot.
const Version = "tandem-builder/5"

// Build builds a snapshot of both towers, runs the gates on it and publishes it in the
// store, whether it passes or not. A [*RefusedError] says what of the inputs or options is at
// fault, so that doing it again gives the same; a [*RejectedError] in it says which rows could not
// be served.
//
// Nothing is published when it returns an error. What was built by then is kept on this
// machine if the towers were done, for [snapshots.KeptLife]: Build with the same inputs and
// options goes on from there, and gives the same digest.
func Build(ctx context.Context, store *snapshots.Store, o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, refused(err)
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	if err := checkPrevious(ctx, store, o); err != nil {
		return nil, err
	}
	if err := o.readLive(ctx, store); err != nil {
		return nil, err
	}
	if o.Opened == nil {
		spool := &spool{store: store}
		defer func() { err = errors.Join(err, spool.close()) }()
		if o.Opened, err = OpenInputs(ctx, o, spool.folder); err != nil {
			return nil, refused(err)
		}
		defer func() { err = errors.Join(err, o.Opened.Close()) }()
	}
	b := &build{Options: o, store: store}
	report, err := b.run(ctx)
	if b.outworn(ctx, err) {
		o.Progress.Note(fmt.Sprintf("what was built before is not whole any more, and is built anew: %v", err))
		b = &build{Options: o, store: store}
		return b.run(ctx)
	}
	return report, err
}

// run does all steps of a build in turn, or those that are left of one that was kept.
func (b *build) run(ctx context.Context) (_ *Report, err error) {
	if err := b.readGates(ctx, b.parameters()); err != nil {
		return nil, refused(err)
	}
	if err := b.look(ctx); err != nil {
		return nil, err
	}
	b.manifest = header(b.plan)
	b.listSegments(b.manifest)
	if err := b.digestInputs(ctx); err != nil {
		return nil, err
	}
	if err := b.openStage(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.closeStage(ctx, err)) }()
	defer sections.Guard(&err)() // and keep what is built
	if !b.resumed {
		if err := b.towers(ctx); err != nil {
			return nil, err
		}
		b.keep(ctx)
	}
	if b.found == nil {
		if err := b.runGates(ctx); err != nil {
			return nil, err
		}
		b.keep(ctx)
	}
	b.Progress.Stage("publish", -1)
	digest, err := b.publish(ctx)
	if err != nil {
		return nil, err
	}
	return &Report{Digest: digest, Manifest: b.manifest, Gates: b.found, Rejected: b.rejected, LiveHead: b.plan.LiveHead}, nil
}

// towers reads both towers, builds their shards and measures them.
func (b *build) towers(ctx context.Context) (err error) {
	work := filepath.Join(b.stage.Dir(), "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	objects := &local{of: map[shard.Kind]*parts{}}
	defer func() { err = errors.Join(err, objects.close()) }()
	found := newFound()
	for i, t := range b.plan.Tasks {
		files := taskFiles{files: b.Opened.tower(t.Tower).rows, ids: b.Opened.tower(t.Tower).ids}
		if t.Reads == plan.Attributes {
			files = taskFiles{files: b.Opened.tower(t.Tower).attributes}
		}
		path := filepath.Join(work, fmt.Sprintf("task-%d", i))
		none := func() ([]manifest.Input, error) { return nil, nil } // they are described
		if err := b.spread(ctx, t, files, path, partition.DefaultMemory, 0, none); err != nil {
			return err
		}
		summary, err := objects.open(t, path)
		if err != nil {
			return err
		}
		found[t.Tower].Merge(summary)
	}
	records, err := b.judge(objects.of)
	if err != nil {
		return err
	}
	if err := b.judged(b.manifest, found, records); err != nil {
		return err
	}
	b.rejected = rejections(found)
	mean := newMean(b.plan.Metric, b.plan.Dim)
	for i := range records {
		kind, number := b.plan.Shard(i)
		if err := b.shard(ctx, kind, number, objects.of[kind], found, &records[i], mean, work); err != nil {
			return fmt.Errorf("build %s: shard %d: %w", kind, number, err)
		}
	}
	if err := b.finish(ctx, b.manifest, found, records, mean); err != nil {
		return err
	}
	return os.RemoveAll(work)
}

// judge decides the rows of all shards, so that a build fails before it has spent time on a
// graph.
func (b *build) judge(objects map[shard.Kind]*parts) ([]record, error) {
	records := make([]record, b.plan.Shards())
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		shards := b.plan.Tower(kind).Shards
		b.Progress.Stage(fmt.Sprintf("look for repeated ids of %s", kind), int64(shards))
		for number := range shards {
			b.Progress.Step(int64(number))
			s, err := objects[kind].shard(number)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", kind, err)
			}
			p, err := b.places(kind, number, s)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", kind, err)
			}
			records[b.plan.Index(kind, number)] = record{Rows: len(p.rows), Rejections: p.rejections}
		}
	}
	return records, nil
}

// shard builds one shard and moves it to the staged store.
func (b *build) shard(ctx context.Context, kind shard.Kind, number int, objects *parts, found found, r *record, mean *mean, dir string) error {
	of := b.called(kind, number)
	b.Progress.Stage("load "+of, -1)
	s, err := objects.shard(number)
	if err != nil {
		return err
	}
	p, err := b.places(kind, number, s)
	if err != nil {
		return err
	}
	c, apart, err := b.load(kind, s, p)
	if err != nil {
		return err
	}
	if kind == shard.Users {
		mean.add(c.input.Vectors)
	}
	if files := b.Opened.tower(kind).graph; files != nil {
		c.input.Graph, err = sourceGraph(files.Files()[0], b.graphKeys(kind), c.ids)
		if err = checked(files, err); err != nil {
			return refused(err)
		}
	}
	queries, err := found.queries(kind, b.plan.Dim)
	if err != nil {
		return err
	}
	built, err := b.index(ctx, kind, number, of, c, queries, dir)
	if err != nil {
		return err
	}
	sm, err := b.staged.AddShard(ctx, built.path)
	if err != nil {
		return err
	}
	r.Apart = apart
	r.setShard(sm, built.index)
	return nil
}

// silent is progress that nobody follows.
type silent struct{}

func (silent) Stage(string, int64) {}
func (silent) Step(int64)          {}
func (silent) Note(string)         {}

// build is one run of [Build], or the last step of one on many machines.
type build struct {
	Options
	*job
	store    *snapshots.Store // that is built into
	stage    *snapshots.Stage
	staged   *snapshots.Store // where shards are; that which is built into if they are there already
	keyed    manifest.Digest  // of all that the snapshot depends on
	resumed  bool             // the stage is one that was kept
	keeps    bool             // the stage outlives this process
	plan     *plan.Plan       // what is fixed; that of the job
	manifest *manifest.Manifest

	rejected map[shard.Kind]*Rejections
	gates    gateInputs      // of the inputs
	found    *gates.Recorded // nil until the gates have run
}

// digestInputs records what the snapshot is built from.
func (b *build) digestInputs(ctx context.Context) (err error) {
	if b.manifest.Inputs, err = b.Opened.ofTowers(ctx, b.Progress); err != nil {
		return err
	}
	b.nameRuns(b.manifest.Inputs)
	b.gates.inputs, err = b.Opened.ofGates(ctx)
	return err
}
