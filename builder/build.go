package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Version names what wrote a snapshot. It changes whenever the same inputs and
// parameters would give another snapshot.
const Version = "tandem-builder/5"

// Build builds a snapshot of both towers, runs the gates on it and publishes it in the
// store, whether it passes or not. A [*RejectedError] says which rows could not be served.
//
// Nothing is published when it returns an error. What was built by then is kept on this
// machine if the towers were done, for [snapshots.KeptLife]: Build with the same inputs and
// options goes on from there, and gives the same digest.
func Build(ctx context.Context, store *snapshots.Store, o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
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
			return nil, err
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

// run does all of a build, or what is left of one that was kept.
func (b *build) run(ctx context.Context) (_ *Report, err error) {
	b.manifest = &manifest.Manifest{
		Version: manifest.GatesVersion, Builder: Version, Tool: b.Tool,
		Model: b.Model, ModelVersion: b.ModelVersion, Metric: b.Params.Metric,
		Parameters: b.parameters(), Live: b.LivePosition,
	}
	b.forgotten = newForgotten(b.Live)
	b.listSegments()
	if err := b.readGates(ctx); err != nil {
		return nil, err
	}
	if err := b.detectDim(ctx); err != nil {
		return nil, err
	}
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
	return &Report{Digest: digest, Manifest: b.manifest, Gates: b.found, Rejected: b.rejected, LiveHead: b.Live.Position().Shard()}, nil
}

// towers reads both towers and builds their shards.
func (b *build) towers(ctx context.Context) error {
	b.work = filepath.Join(b.stage.Dir(), "work")
	if err := os.Mkdir(b.work, 0o755); err != nil {
		return err
	}
	if err := b.ingest(ctx); err != nil {
		return err
	}
	if err := b.checkTypes(); err != nil {
		return err
	}
	if err := b.checkSegments(); err != nil {
		return err
	}
	for _, t := range []struct {
		in      *ingested
		o       TowerOptions
		queries *sample
	}{{b.apps, b.Apps, &b.users.sample}, {b.users, b.Users, &b.apps.sample}} {
		if err := b.tower(ctx, t.in, t.o, t.queries); err != nil {
			return fmt.Errorf("build %s: %w", t.in.kind, err)
		}
	}
	b.manifest.Version = b.manifest.LowestVersion()
	return os.RemoveAll(b.work)
}

// checkTypes returns an error if a type was told of an attribute that neither tower has.
func (b *build) checkTypes() error {
	told := map[string]bool{}
	for _, t := range []TowerOptions{b.Apps, b.Users} {
		for _, types := range []map[string]attribute.Type{t.Input.AttributeTypes, t.Attributes.Types} {
			for name := range types {
				_, ofApps := b.apps.schema.Lookup(name)
				_, ofUsers := b.users.schema.Lookup(name)
				told[name] = ofApps || ofUsers
			}
		}
	}
	maps.DeleteFunc(told, func(_ string, known bool) bool { return known })
	if len(told) > 0 {
		return fmt.Errorf("types were told of attributes that neither tower has: %.1000s", strings.Join(slices.Sorted(maps.Keys(told)), ", "))
	}
	return nil
}

// silent is progress that nobody follows.
type silent struct{}

func (silent) Stage(string, int64) {}
func (silent) Step(int64)          {}
func (silent) Note(string)         {}

// build is one run of [Build].
type build struct {
	Options
	store    *snapshots.Store // that is built into
	stage    *snapshots.Stage
	staged   *snapshots.Store // where shards wait until all are built
	work     string           // the folder of temporary files
	keyed    manifest.Digest  // of all that the snapshot depends on
	resumed  bool             // the stage is one that was kept
	keeps    bool             // the stage outlives this process
	manifest *manifest.Manifest
	runs     map[string]string // the training run that each tower says it is of, by role

	apps, users *ingested
	rejected    map[shard.Kind]*Rejections
	segments    *segmentsFile   // nil without
	forgotten   *forgotten      // nil if nobody is
	gates       gateInputs      // of the inputs
	found       *gates.Recorded // nil until the gates have run
}

// detectDim finds the dimension, which both towers must have.
func (b *build) detectDim(ctx context.Context) error {
	b.Progress.Stage("look at the first embeddings", -1)
	appDim, appPacked, appRun, err := detectDim(ctx, shard.Apps, b.input(shard.Apps))
	if err != nil {
		return b.Opened.apps.checked(err)
	}
	userDim, userPacked, userRun, err := detectDim(ctx, shard.Users, b.input(shard.Users))
	if err != nil {
		return b.Opened.users.checked(err)
	}
	if appDim != userDim {
		return fmt.Errorf("apps have embeddings of dimension %d%s, users of %d%s: both towers must come from one model version",
			appDim, asBytes(appDim, appPacked), userDim, asBytes(userDim, userPacked))
	}
	if appRun != "" && userRun != "" && appRun != userRun {
		return fmt.Errorf("apps are of the training run %.80q, users of %.80q, as %s says: both towers must come from one", appRun, userRun, tower.RunKey)
	}
	b.manifest.Dim = appDim
	b.runs = map[string]string{string(shard.Apps): appRun, string(shard.Users): userRun}
	return nil
}

// input returns how the rows of a tower are read.
func (b *build) input(kind shard.Kind) tower.Options {
	o, files := b.Apps.Input, b.Opened.tower(kind)
	if kind == shard.Users {
		o = b.Users.Input
	}
	o.Files, o.IDFiles = files.rows, files.ids
	return o
}

// ingest reads both towers and fails if too many rows were rejected.
func (b *build) ingest(ctx context.Context) (err error) {
	metric := b.Params.Metric
	for _, t := range []struct {
		in **ingested
		TowerOptions
		kind shard.Kind
	}{{&b.apps, b.Apps, shard.Apps}, {&b.users, b.Users, shard.Users}} {
		files := b.Opened.tower(t.kind)
		t.Input, t.Attributes.Files = b.input(t.kind), files.attributes
		leave := b.forgotten
		if t.kind == shard.Apps {
			leave = nil
		}
		*t.in, err = ingest(ctx, t.kind, t.TowerOptions, metric, b.manifest.Dim, b.work, leave, b.Progress)
		if err = files.checked(err); err != nil {
			return fmt.Errorf("read %s: %w", t.kind, err)
		}
	}
	b.noteForgotten()
	for _, name := range common(b.apps.unknown, b.users.unknown) {
		b.Progress.Note(fmt.Sprintf("column %s: to be ignored, but in no input of either tower", name))
	}
	b.rejected = map[shard.Kind]*Rejections{shard.Apps: &b.apps.rejections, shard.Users: &b.users.rejections}
	for _, in := range []*ingested{b.apps, b.users} {
		b.Progress.Stage(fmt.Sprintf("look for repeated ids of %s", in.kind), int64(len(in.rows)))
		rows, err := in.rejectDuplicates(b.Progress)
		if err != nil {
			return fmt.Errorf("read %s: %w", in.kind, err)
		}
		tm := b.manifest.Tower(in.kind)
		tm.Rows, tm.Rejected = rows, in.rejections.Total
		tm.Schema = in.schema
	}
	if b.apps.rejections.Total+b.users.rejections.Total > b.MaxRejected {
		return &RejectedError{Max: b.MaxRejected, Apps: &b.apps.rejections, Users: &b.users.rejections}
	}
	for _, in := range []*ingested{b.apps, b.users} {
		if b.manifest.Tower(in.kind).Rows == 0 {
			text := "the input has none"
			if n := b.manifest.Forgotten(); n > 0 && in.kind == shard.Users {
				text = fmt.Sprintf("%s of the input are forgotten", wording.Plural(n, "user"))
			}
			if r := in.rejections; r.Total > 0 {
				text = fmt.Sprintf("%d were rejected, the first as %s: %s", r.Total, r.Kinds[0].Kind, r.Kinds[0].First[0])
			}
			return fmt.Errorf("%s: no row is left to build from: %s", in.kind, text)
		}
	}
	return nil
}

// digestInputs records what the snapshot is built from.
func (b *build) digestInputs(ctx context.Context) (err error) {
	if b.manifest.Inputs, err = b.Opened.ofTowers(ctx, b.Progress); err != nil {
		return err
	}
	for i := range b.manifest.Inputs {
		in := &b.manifest.Inputs[i]
		in.Run = b.runs[in.Role]
	}
	b.gates.inputs, err = b.Opened.ofGates(ctx)
	return err
}

// tower builds the shards of one tower, one after the other, and measures them on
// held-out queries.
func (b *build) tower(ctx context.Context, in *ingested, o TowerOptions, queries *sample) error {
	samples, err := queries.split(in.dim)
	if err != nil {
		return err
	}
	tm := b.manifest.Tower(in.kind)
	params := b.Params
	params.Frozen = o.Graph != ""
	tm.Params = params.String()
	tm.Samples = samples.counts()
	apart, scanned := &unjoined{}, &scans{}
	mean := newMean(b.Params.Metric, in.dim)
	for number := range in.rows {
		of := fmt.Sprintf("%s, shard %d of %d", in.kind, number+1, len(in.rows))
		b.Progress.Stage("load "+of, -1)
		c, err := in.load(number, apart)
		if err != nil {
			return err
		}
		if in.kind == shard.Users {
			mean.add(c.input.Vectors)
		}
		sm, err := b.shard(ctx, in, o, number, of, c, samples, scanned)
		if err != nil {
			return fmt.Errorf("shard %d: %w", number, err)
		}
		tm.Shards = append(tm.Shards, sm)
	}
	if note := scanned.note(in.kind, len(in.rows)); note != "" {
		b.Progress.Note(note)
	}
	if in.kind == shard.Users {
		if b.manifest.MeanUser, err = mean.vector(); err != nil {
			b.Progress.Note(fmt.Sprintf("%s: the mean of their vectors cannot be asked with, so no query can fall back on it: %v", in.kind, err))
		}
	}
	if apart.lines > 0 {
		b.Progress.Note(fmt.Sprintf("%s: %d attribute lines are for ids that the tower does not have; they were left out, the first is %s (id %.64q)", in.kind, apart.lines, in.line(apart.first), apart.id))
	}
	if apart.rows > 0 {
		b.Progress.Note(fmt.Sprintf("%s: %d of %d have no attribute line, and so none of those attributes", in.kind, apart.rows, tm.Rows))
	}
	measure := samples[manifest.Gate]
	b.Progress.Stage(fmt.Sprintf("measure recall of %s", in.kind), int64(measure.Rows()))
	if tm.Recall, err = b.recall(ctx, in.kind, measure); err != nil || in.kind != shard.Apps {
		return err
	}
	return b.measureSegments(ctx, measure)
}

// shard builds one shard, which is called of, and moves it to the store.
func (b *build) shard(ctx context.Context, in *ingested, o TowerOptions, number int, of string, c *contents, queries samples, scanned *scans) (manifest.Shard, error) {
	var sm manifest.Shard
	if files := b.Opened.tower(in.kind).graph; files != nil {
		var err error
		c.input.Graph, err = sourceGraph(files.Files()[0], o.GraphKeys, c.ids)
		if err = checked(files, err); err != nil {
			return sm, err
		}
	}
	b.Progress.Stage("index "+of, int64(len(c.ids)))
	c.input.Threads = b.Threads
	c.input.Progress = func(done, _ int) { b.Progress.Step(int64(done)) }
	x, err := index.Build(ctx, c.input, b.Params)
	if err != nil {
		return sm, err
	}
	b.Progress.Stage("calibrate "+of, -1)
	if err := x.Calibrate(ctx, queries[manifest.Shape], queries[manifest.Calibrate], b.Threads); err != nil {
		return sm, err
	}
	scanned.count(number, x.Rows(), x.Effort())
	b.Progress.Stage("write "+of, -1)
	path := filepath.Join(b.work, fmt.Sprintf("%s-%04d.shard", in.kind, number))
	var segments []shard.Segment
	if in.kind == shard.Apps && b.segments != nil {
		segments = b.segments.list
	}
	if err := shard.Write(path, c.ids, x, c.attributes, segments...); err != nil {
		return sm, err
	}
	sm, err = b.staged.AddShard(ctx, path)
	sm.Rows, sm.Effort = x.Rows(), x.Effort()
	return sm, err
}
