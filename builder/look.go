package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// detectRows is how many rows decide the dimension of a tower, or the first after them
// that has an embedding.
const detectRows = 1000

// checkEvery is how many rows pass between looks at the context.
const checkEvery = 4096

// looked is what is known of a tower before its rows are read.
type looked struct {
	dim     int
	packed  bool     // its embeddings are bytes
	unknown []string // columns that were to be ignored and are in no input
}

// look fixes in a plan what all steps must agree on, and fails if what can be known before
// rows are read does not fit.
func (b *build) look(ctx context.Context) error {
	b.Progress.Stage("look at the first embeddings", -1)
	b.plan = &plan.Plan{
		Version: plan.Version, Builder: Version, Tool: b.Tool, Model: b.Model, ModelVersion: b.ModelVersion,
		Metric: b.Params.Metric, Params: b.Params.String(), Parameters: b.parameters(),
		Previous: b.Previous, Live: b.LivePosition, LiveHead: b.Live.Position().Shard(), Forgotten: digestOf(b.Live.Forgotten()),
	}
	found := map[shard.Kind]*looked{}
	for _, t := range []struct {
		kind shard.Kind
		o    TowerOptions
	}{{shard.Apps, b.Apps}, {shard.Users, b.Users}} {
		files := b.Opened.tower(t.kind)
		l, err := b.lookAt(ctx, t.kind, t.o, b.plan.Tower(t.kind))
		if err = files.checked(err); err != nil {
			return refused(err)
		}
		found[t.kind] = l
	}
	apps, users := found[shard.Apps], found[shard.Users]
	if apps.dim != users.dim {
		return refused(fmt.Errorf("apps have embeddings of dimension %d%s, users of %d%s: both towers must come from one model version",
			apps.dim, partition.AsBytes(apps.dim, apps.packed), users.dim, partition.AsBytes(users.dim, users.packed)))
	}
	if a, u := b.plan.Apps.Survey.Run, b.plan.Users.Survey.Run; a != "" && u != "" && a != u {
		return refused(fmt.Errorf("apps are of the training run %.80q, users of %.80q, as %s says: both towers must come from one", a, u, tower.RunKey))
	}
	b.plan.Dim = apps.dim
	for _, name := range common(apps.unknown, users.unknown) {
		b.Progress.Note(fmt.Sprintf("column %s: to be ignored, but in no input of either tower", name))
	}
	for _, set := range []*input.Set{b.Opened.interactions} {
		if set != nil {
			b.plan.Interactions = filesOf(set)
		}
	}
	if s := b.Opened.segments; s != nil {
		b.plan.Segments, b.plan.SegmentsName = s.data, s.path
	}
	b.plan.Gates, b.plan.GatesName = b.Opened.gatesData, b.Gates
	b.plan.Split(math.MaxInt64)
	job, err := newJob(b.plan, b.Live.Forgotten())
	if err != nil {
		return refused(err)
	}
	b.job = job
	b.threads, b.progress = b.Threads, b.Progress
	if err := b.checkTypes(); err != nil {
		return refused(err)
	}
	return refused(b.job.checkSegments())
}

// filesOf returns what a plan says of files, but for their fingerprints.
func filesOf(set *input.Set) []plan.File {
	if set == nil {
		return nil
	}
	places, names := set.Places(), set.Recorded()
	list := make([]plan.File, len(places))
	for i, f := range set.Files() {
		list[i] = plan.File{Place: places[i], Shown: f.Name(), Name: names[i], Size: f.Size()}
	}
	return list
}

// lookAt looks at the files of one tower.
func (b *build) lookAt(ctx context.Context, kind shard.Kind, o TowerOptions, t *plan.Tower) (_ *looked, err error) {
	files := b.Opened.tower(kind)
	t.Shards = o.Shards
	t.Rows, t.IDs, t.Attributes, t.Graph = filesOf(files.rows), filesOf(files.ids), filesOf(files.attributes), filesOf(files.graph)
	r, err := tower.Open(ctx, b.input(kind))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	notes := slices.Clone(r.Notes())
	l := &looked{unknown: slices.Clone(r.Unknown())}
	if l.dim, l.packed, err = detectDim(ctx, kind, r, files.rows.Files()[0].Name()); err != nil {
		return nil, err
	}
	t.Survey, t.RowFields = r.Survey(), r.Schema().Fields()
	if len(o.Attributes.Paths) > 0 {
		lines := o.Attributes
		lines.Files = files.attributes
		r, err := tower.OpenAttributes(ctx, lines)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", kind, err)
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		l.unknown = common(l.unknown, r.Unknown())
		notes = append(notes, r.Notes()...)
		t.Lines, t.LineFields = r.Survey(), r.Schema().Fields()
	}
	if _, err := t.Schema(); err != nil {
		return nil, fmt.Errorf("read %s: %s: %w", kind, kind, err)
	}
	for _, note := range notes {
		b.Progress.Note(fmt.Sprintf("%s: %s", kind, note))
	}
	return l, nil
}

// detectDim returns the most common length of the first embeddings, and whether they are
// bytes. Name is that of the first file.
func detectDim(ctx context.Context, kind shard.Kind, r tower.Reader, name string) (dim int, packed bool, err error) {
	counts, malformed := map[int]int{}, "" // why the first row that has one has none
	for n := 0; n < detectRows || dim == 0; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return 0, false, err
			}
		}
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, false, err
		}
		packed = row.Packed
		length := len(row.Vector)
		if length == 0 {
			if malformed == "" && len(row.Problems) > 0 && row.Problems[0].Kind == tower.BadEmbedding {
				malformed = ": " + row.Problems[0].Detail
			}
			continue
		}
		if counts[length]++; counts[length] > counts[dim] {
			dim = length
		}
	}
	if dim == 0 {
		return 0, false, fmt.Errorf("%s: %s has no embedding%s", kind, name, malformed)
	}
	if dim > index.MaxDim {
		return 0, false, fmt.Errorf("%s: %s has embeddings of dimension %d, want 1 to %d", kind, name, dim, index.MaxDim)
	}
	return dim, packed, nil
}

// common returns those of a list that another has too.
func common(list, other []string) []string {
	return slices.DeleteFunc(list, func(name string) bool { return !slices.Contains(other, name) })
}

// checkTypes returns an error if a type was told of an attribute that neither tower has.
func (b *build) checkTypes() error {
	told := map[string]bool{}
	for _, t := range []TowerOptions{b.Apps, b.Users} {
		for _, types := range []map[string]attribute.Type{t.Input.AttributeTypes, t.Attributes.Types} {
			for name := range types {
				_, ofApps := b.job.terms[shard.Apps].Schema.Lookup(name)
				_, ofUsers := b.job.terms[shard.Users].Schema.Lookup(name)
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

// input returns how the rows of a tower are read.
func (b *build) input(kind shard.Kind) tower.Options {
	o, files := b.Apps.Input, b.Opened.tower(kind)
	if kind == shard.Users {
		o = b.Users.Input
	}
	o.Files, o.IDFiles = files.rows, files.ids
	return o
}

// header returns the manifest of a plan as far as the plan has it.
func header(p *plan.Plan) *manifest.Manifest {
	m := &manifest.Manifest{
		Version: manifest.GatesVersion, Builder: p.Builder, Tool: p.Tool,
		Model: p.Model, ModelVersion: p.ModelVersion, Metric: p.Metric, Dim: p.Dim,
		Parameters: p.Parameters, Live: p.Live,
	}
	return m
}
