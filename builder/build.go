package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
)

// Version names what wrote a snapshot. It changes whenever the same inputs and
// parameters would give another snapshot.
const Version = "tandem-builder/4"

// Build builds a snapshot of both towers, runs the gates on it and publishes it in the
// store, whether it passes or not. A [*RejectedError] says which rows could not be served.
//
// Nothing is published when it returns an error. What was built by then is kept on this
// machine if the towers were done, for [shard.KeptLife]: Build with the same inputs and
// options goes on from there, and gives the same digest.
func Build(ctx context.Context, store *shard.Store, o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	if err := checkPrevious(ctx, store, o); err != nil {
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
	b.manifest = &shard.Manifest{
		Version: shard.GatesVersion, Builder: Version, Tool: b.Tool,
		Model: b.Model, ModelVersion: b.ModelVersion, Metric: b.Params.Metric,
		Parameters: b.parameters(),
	}
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
	digest, err := b.publish(ctx)
	if err != nil {
		return nil, err
	}
	return &Report{Digest: digest, Manifest: b.manifest, Gates: b.found, Rejected: b.rejected}, nil
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
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(b.Apps.Input.AttributeTypes)) {
		_, ofApps := b.apps.schema.Lookup(name)
		_, ofUsers := b.users.schema.Lookup(name)
		if !ofApps && !ofUsers {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("types were told of attributes that neither tower has: %.1000s", strings.Join(unknown, ", "))
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
	store    *shard.Store // that is built into
	stage    *shard.Stage
	staged   *shard.Store // where shards wait until all are built
	work     string       // the folder of temporary files
	keyed    shard.Digest // of all that the snapshot depends on
	resumed  bool         // the stage is one that was kept
	keeps    bool         // the stage outlives this process
	manifest *shard.Manifest

	apps, users *ingested
	rejected    map[shard.Kind]*Rejections
	segments    *segmentsFile  // nil without
	gates       gates          // of the inputs
	found       *gate.Recorded // nil until the gates have run
}

// detectDim finds the dimension, which both towers must have.
func (b *build) detectDim(ctx context.Context) error {
	appDim, err := detectDim(ctx, shard.Apps, b.input(shard.Apps))
	if err != nil {
		return err
	}
	userDim, err := detectDim(ctx, shard.Users, b.input(shard.Users))
	if err != nil {
		return err
	}
	if appDim != userDim {
		return fmt.Errorf("apps have embeddings of dimension %d, users of %d: both towers must come from one model version", appDim, userDim)
	}
	b.manifest.Dim = appDim
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
		*t.in, err = ingest(ctx, t.kind, t.TowerOptions, metric, b.manifest.Dim, b.work, b.Progress)
		if changed := files.unchanged(); changed != nil {
			err = changed // which explains all else
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", t.kind, err)
		}
	}
	b.rejected = map[shard.Kind]*Rejections{shard.Apps: &b.apps.rejections, shard.Users: &b.users.rejections}
	for _, in := range []*ingested{b.apps, b.users} {
		rows, err := in.rejectDuplicates()
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
			return fmt.Errorf("%s: no row is left to build from", in.kind)
		}
	}
	return nil
}

// digestInputs records what the snapshot is built from.
func (b *build) digestInputs(ctx context.Context) (err error) {
	if b.manifest.Inputs, err = b.Opened.ofTowers(ctx, b.Progress); err != nil {
		return err
	}
	b.gates.inputs, err = b.Opened.ofGates(ctx)
	return err
}

// tower builds the shards of one tower, one after the other, and measures them on
// held-out queries.
func (b *build) tower(ctx context.Context, in *ingested, o TowerOptions, queries *sample) error {
	calibrate, measure, err := queries.split(in.dim)
	if err != nil {
		return err
	}
	tm := b.manifest.Tower(in.kind)
	params := b.Params
	params.Frozen = o.Graph != ""
	tm.Params = params.String()
	orphans, scanned := 0, map[int]scans{}
	mean := newMean(b.Params.Metric, in.dim)
	for number := range in.rows {
		b.Progress.Stage(fmt.Sprintf("index %s, shard %d of %d", in.kind, number+1, len(in.rows)), int64(in.rows[number].count))
		c, n, err := in.load(number)
		if err != nil {
			return err
		}
		orphans += n
		if in.kind == shard.Users {
			mean.add(c.input.Vectors)
		}
		sm, err := b.shard(ctx, in, o, number, c, calibrate, scanned)
		if err != nil {
			return fmt.Errorf("shard %d: %w", number, err)
		}
		tm.Shards = append(tm.Shards, sm)
	}
	b.noteScans(in.kind, len(in.rows), scanned)
	if in.kind == shard.Users {
		if b.manifest.MeanUser, err = mean.vector(); err != nil {
			b.Progress.Note(fmt.Sprintf("%s: the mean of their vectors cannot be asked with, so no query can fall back on it: %v", in.kind, err))
		}
	}
	if orphans > 0 {
		b.Progress.Note(fmt.Sprintf("%s: %d attribute lines are for ids that the tower does not have; they were left out", in.kind, orphans))
	}
	b.Progress.Stage(fmt.Sprintf("measure recall of %s", in.kind), -1)
	if tm.Recall, err = b.recall(ctx, in.kind, measure); err != nil || in.kind != shard.Apps {
		return err
	}
	return b.measureSegments(ctx, measure)
}

// shard builds one shard and moves it to the store.
func (b *build) shard(ctx context.Context, in *ingested, o TowerOptions, number int, c *contents, queries *index.Matrix, scanned map[int]scans) (shard.ShardManifest, error) {
	var sm shard.ShardManifest
	if files := b.Opened.tower(in.kind).graph; files != nil {
		var err error
		c.input.Graph, err = sourceGraph(files.Files()[0], o.GraphKeys, c.ids)
		if changed := files.Unchanged(); changed != nil {
			err = changed
		}
		if err != nil {
			return sm, err
		}
	}
	c.input.Threads = b.Threads
	c.input.Progress = func(done, _ int) { b.Progress.Step(int64(done)) }
	x, err := index.Build(ctx, c.input, b.Params)
	if err != nil {
		return sm, err
	}
	if err := x.Calibrate(ctx, queries, b.Threads); err != nil {
		return sm, err
	}
	countScans(scanned, x)
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

// scans counts the shards of a tower where, for some k, an exact scan is the
// cheapest plan at the default target.
type scans struct {
	shards int
	best   float32 // the highest recall of a cheaper walk
}

// countScans adds what a shard's calibration found, by k.
func countScans(byK map[int]scans, x *index.Index) {
	for _, e := range x.Effort() {
		if rounded(float64(e.Target)) == index.DefaultTarget && e.Recall < e.Target {
			s := byK[e.K]
			byK[e.K] = scans{s.shards + 1, max(s.best, e.Recall)}
		}
	}
}

// noteScans says where a graph is of no use to a query that names no target.
func (b *build) noteScans(kind shard.Kind, shards int, byK map[int]scans) {
	for _, k := range slices.Sorted(maps.Keys(byK)) {
		b.Progress.Note(fmt.Sprintf(
			"%s: in %d of %d shards no walk cheaper than an exact scan reaches recall@%d of %g (the best reaches %.3f), so such queries scan all their rows",
			kind, byK[k].shards, shards, k, index.DefaultTarget, byK[k].best))
	}
}

// recallBands are the values of k that a build reports on, ascending.
var recallBands = [...]int{10, 100}

// recall measures the tower as it will be asked: through the fan-out, at each
// target, by queries that calibrated nothing.
func (b *build) recall(ctx context.Context, kind shard.Kind, queries *index.Matrix) (_ []shard.Recall, err error) {
	t, err := shard.OpenTower(ctx, b.staged, b.manifest, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	targets := make([]float64, len(index.Targets))
	for i, target := range index.Targets {
		targets[i] = rounded(float64(target))
	}
	return measureRecall(ctx, t, queries, "", targets)
}

// measureRecall measures the recall of a tower, or of one segment of it, at each band
// and target. Without queries it measures nothing.
func measureRecall(ctx context.Context, t *shard.Tower, queries *index.Matrix, segment string, targets []float64) ([]shard.Recall, error) {
	if queries.Rows() == 0 {
		return nil, nil
	}
	var report []shard.Recall
	for _, k := range recallBands {
		for _, target := range targets {
			report = append(report, shard.Recall{K: k, Target: target, Queries: queries.Rows()})
		}
	}
	for i := range queries.Rows() {
		q := &shard.Query{Vectors: [][]float32{queries.Row(i)}, K: recallBands[len(recallBands)-1], Segment: segment, Target: 1, MinCoverage: 1}
		exact, err := t.Search(ctx, q)
		if err != nil {
			return nil, err
		}
		for j := range report {
			r := &report[j]
			q.K, q.Target = r.K, r.Target
			found, err := t.Search(ctx, q)
			if err != nil {
				return nil, err
			}
			// The best k are the first of the best of the largest k.
			r.Recall += shard.RecallOf(t.Metric(), exact.Candidates[:min(r.K, len(exact.Candidates))], found.Candidates)
			if i == 0 {
				for _, s := range found.Shards {
					r.Ef = append(r.Ef, s.Ef)
				}
			}
		}
	}
	for j := range report {
		report[j].Recall = rounded(report[j].Recall / float64(queries.Rows()))
	}
	return report, nil
}

// rounded returns a share to six decimals, as a person would write it: 0.9, not
// the float32 next to it.
func rounded(share float64) float64 { return math.Round(share*1e6) / 1e6 }
