package overlay_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/overlay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	model   = "feed"
	version = "2026-11-22"
	dim     = 3
)

// clock is a time at which, and around which, apps come and go.
var clock = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// names are of attributes, one of each type.
var names = []string{"at", "cost", "flag", "genre", "price", "tags", "year"}

func schema() attribute.Schema {
	types := []attribute.Type{attribute.Timestamp, attribute.Float32, attribute.Bool, attribute.Keyword, attribute.Float, attribute.KeywordList, attribute.Int}
	var fields []attribute.Field
	for i, name := range names {
		fields = append(fields, attribute.Field{Name: name, Type: types[i]})
	}
	s, err := attribute.NewSchema(fields)
	if err != nil {
		panic(err)
	}
	return s
}

// segments are of the app tower.
var segments = []shard.Segment{
	{Name: "flagged", Expression: "flag"},
	{Name: "old", Expression: `year < 5 && !("b" in tags)`},
}

// filters are what tests ask with.
var filters = []string{"", `genre == "x"`, `"a" in tags || price >= 2.5`, "has(year) && year > 3", "!(cost < 3.0)", `at >= timestamp("2026-11-30T00:00:00Z")`}

type values map[string]attribute.Value

// entity is an app or user of an oracle.
type entity struct {
	vector []float32
	values values
}

func (e *entity) clone() *entity {
	if e == nil {
		return nil
	}
	return &entity{e.vector, maps.Clone(e.values)}
}

// towerOf returns a tower of entities, in so many shards that are in memory.
func towerOf(kind shard.Kind, rows map[string]*entity, shards int, metric index.Metric) (*shard.Tower, error) {
	var list []shard.Segment
	if kind == shard.Apps {
		list = segments
	}
	compiler, err := eligibility.NewCompiler(schema())
	if err != nil {
		return nil, err
	}
	var parts []*shard.Shard
	for number := range shards {
		var ids []string
		for id := range rows {
			if shard.Partition(id, shards) == number {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		vectors, err := index.NewMatrix(dim, len(ids))
		if err != nil {
			return nil, err
		}
		w := attribute.NewWriter(schema(), len(ids))
		for row, id := range ids {
			if err := vectors.Append(rows[id].vector); err != nil {
				return nil, err
			}
			for name, v := range rows[id].values {
				field, ok := schema().Lookup(name)
				if !ok {
					return nil, fmt.Errorf("no attribute %s", name)
				}
				if err := w.Set(row, field, v); err != nil {
					return nil, err
				}
			}
		}
		x, err := index.Flat(vectors, metric)
		if err != nil {
			return nil, err
		}
		s, err := shard.InMemory(fmt.Sprintf("%s-%04d", kind, number), ids, x, w, list, compiler)
		if err != nil {
			return nil, err
		}
		parts = append(parts, s)
	}
	return shard.NewTower(kind, parts, metric, dim, schema())
}

func drawVector(t *rapid.T) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(rapid.IntRange(-3, 3).Draw(t, "component"))
	}
	v[0] += 10 // never zero
	return v
}

// drawValue draws a value of an attribute: mostly of its type, sometimes of one that can be
// converted, or cannot.
func drawValue(t *rapid.T, name string, strict bool) attribute.Value {
	n := rapid.IntRange(0, 8).Draw(t, "value")
	other := 9
	if !strict {
		other = rapid.IntRange(0, 9).Draw(t, "other type")
	}
	switch name {
	case "at":
		at := clock.Add(time.Duration(n-4) * 24 * time.Hour)
		switch other {
		case 0:
			return attribute.OfKeyword(at.Format(time.RFC3339))
		case 1:
			return attribute.OfKeyword("yesterday")
		}
		return attribute.OfTimestamp(at)
	case "cost":
		switch other {
		case 0:
			return attribute.OfInt(int64(n))
		case 1:
			return attribute.OfFloat(float64(n) + 0.99)
		case 2:
			return attribute.OfInt(1<<24 + 1)
		}
		return attribute.OfFloat32(float32(n) / 2)
	case "flag":
		if other == 0 {
			return attribute.OfInt(1)
		}
		return attribute.OfBool(n%2 == 0)
	case "genre":
		if other == 0 {
			return attribute.OfKeywords([]string{"x"})
		}
		return attribute.OfKeyword([]string{"x", "y", "", "ü"}[n%4])
	case "price":
		if other == 0 {
			return attribute.OfInt(int64(n))
		}
		return attribute.OfFloat(float64(n) / 2)
	case "tags":
		if other == 0 {
			return attribute.OfKeyword("a")
		}
		return attribute.OfKeywords(slices.Clone([]string{"a", "b", "c", "d"}[n%4 : 4]))
	}
	switch other {
	case 0:
		return attribute.OfFloat(float64(n))
	case 1:
		return attribute.OfFloat(float64(n) + 0.5)
	}
	return attribute.OfInt(int64(n))
}

func drawValues(t *rapid.T, strict bool) values {
	v := values{}
	for _, name := range names {
		if rapid.IntRange(0, 2).Draw(t, "has "+name) > 0 {
			v[name] = drawValue(t, name, strict)
		}
	}
	return v
}

// stored returns a value as an attribute has it, and whether it can.
func stored(name string, v attribute.Value) (attribute.Value, bool) {
	field, _ := schema().Lookup(name)
	want := schema().Field(field).Type
	switch {
	case v.Absent() || v.Type() == want:
		return v, true
	case want == attribute.Timestamp && v.Type() == attribute.Keyword:
		at, err := time.Parse(time.RFC3339, v.Keyword())
		return attribute.OfTimestamp(at), err == nil
	case want == attribute.Float32 && v.Type() == attribute.Int:
		return attribute.OfFloat32(float32(v.Int())), v.Int() <= 1<<24
	case want == attribute.Float32 && v.Type() == attribute.Float:
		f, err := strconv.ParseFloat(fmt.Sprint(v.Float()), 32)
		return attribute.OfFloat32(float32(f)), err == nil
	case want == attribute.Float && v.Type() == attribute.Int:
		return attribute.OfFloat(float64(v.Int())), true
	case want == attribute.Int && v.Type() == attribute.Float:
		return attribute.OfInt(int64(v.Float())), v.Float() == float64(int64(v.Float()))
	}
	return v, false
}

// drawEvent draws an event about an app or user. If it is strict, all of it fits, but for
// attributes that there are not.
func drawEvent(t *rapid.T, tower shard.Kind, id string, strict bool) live.Event {
	e := live.Event{Tower: tower, Entity: id}
	kinds := []live.Kind{live.Upsert, live.Upsert, live.SetAttributes, live.SetAttributes, live.Remove, live.Takedown, live.Restore}
	if tower == shard.Users {
		kinds = []live.Kind{live.Upsert, live.Upsert, live.SetAttributes, live.Remove, live.Forget}
	}
	switch e.Kind = rapid.SampledFrom(kinds).Draw(t, "kind"); e.Kind {
	case live.Takedown:
		e.Reason = "malware"
	case live.Upsert:
		e.Model, e.ModelVersion = model, version
		if rapid.IntRange(0, 4).Draw(t, "other version") == 0 {
			e.ModelVersion = "2026-11-29"
		}
		e.Vector = drawVector(t)
		if !strict && rapid.IntRange(0, 9).Draw(t, "other dimension") == 0 {
			e.Vector = append(e.Vector, 1)
		}
		e.Attributes = drawValues(t, strict || rapid.IntRange(0, 3).Draw(t, "strict") > 0)
	case live.SetAttributes:
		e.Attributes = values{}
		for range rapid.IntRange(1, 3).Draw(t, "attributes") {
			name := rapid.SampledFrom(names).Draw(t, "attribute")
			if e.Attributes[name] = drawValue(t, name, strict || rapid.IntRange(0, 3).Draw(t, "strict") > 0); rapid.IntRange(0, 4).Draw(t, "clears") == 0 {
				e.Attributes[name] = attribute.Value{}
			}
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "unknown attribute") == 0 && e.Attributes != nil {
		e.Attributes["rating"] = attribute.OfInt(5)
	}
	if tower == shard.Apps && (e.Kind == live.Upsert || e.Kind == live.SetAttributes) && rapid.IntRange(0, 3).Draw(t, "window") == 0 {
		e.Window = &live.Window{}
		if rapid.Bool().Draw(t, "from") {
			e.Window.From = clock.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "hours")) * time.Hour)
		}
		if rapid.Bool().Draw(t, "until") {
			e.Window.Until = clock.Add(time.Duration(rapid.IntRange(4, 6).Draw(t, "hours")) * time.Hour)
		}
	}
	return e
}

// told is an event with the number of its entry.
type told struct {
	live.Event
	sequence uint64
}

// oracle is what a snapshot and events amount to, in the plainest way.
type oracle struct {
	base   map[shard.Kind]map[string]*entity
	events []told
	inputs uint64
	// fresh and down are of the last call of rows.
	fresh, down map[string]bool
}

// rows returns what there is of a tower at a time, and which apps are outside of their
// windows.
func (o *oracle) rows(kind shard.Kind, at time.Time) (rows map[string]*entity, outside map[string]bool) {
	rows, outside, o.fresh, o.down = map[string]*entity{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	ids := map[string]bool{}
	for id := range o.base[kind] {
		ids[id] = true
	}
	for _, e := range o.events {
		if e.Tower == kind {
			ids[e.Entity] = true
		}
	}
	for id := range ids {
		base := o.base[kind][id].clone()
		var up *entity
		forgotten := false
		bad := map[string]bool{} // what of the upsert does not fit
		window := live.Window{}
		for _, e := range o.events {
			if e.Tower != kind || e.Entity != id {
				continue
			}
			counts := e.sequence > o.inputs
			switch e.Kind {
			case live.Takedown:
				o.down[id] = true
			case live.Restore:
				delete(o.down, id)
			case live.Forget:
				if forgotten, up = true, nil; counts {
					base = nil
				}
			case live.Remove:
				if up = nil; counts && !forgotten {
					base = nil
				}
			case live.Upsert:
				forgotten = false
				if e.ModelVersion != version {
					break
				}
				if up = nil; counts {
					up = &entity{e.Vector, values{}}
					bad = map[string]bool{"vector": len(e.Vector) != dim}
					for name, v := range e.Attributes {
						if name != "rating" {
							ok := false
							up.values[name], ok = stored(name, v)
							bad[name] = !ok
						}
					}
				}
			case live.SetAttributes:
				for name, v := range e.Attributes {
					if name == "rating" || !counts || forgotten {
						continue
					}
					v, ok := stored(name, v)
					if base != nil {
						if base.values[name] = v; !ok {
							base.values[name] = attribute.Value{}
						}
					}
					if up != nil {
						if up.values[name] = v; !ok {
							up.values[name] = attribute.Value{}
						}
						bad[name] = false
					}
				}
			}
			if e.Window != nil {
				window = *e.Window
			}
		}
		row := base
		if up != nil && !slices.Contains(slices.Collect(maps.Values(bad)), true) {
			row = up
		}
		switch {
		case o.down[id] || forgotten || row == nil:
		case !window.Contains(at):
			outside[id] = true
			o.fresh[id] = row == up && up != nil
		default:
			rows[id] = row
			o.fresh[id] = row == up && up != nil
		}
	}
	return rows, outside
}

// world is a store, a replica of its live log, and what lies over a snapshot of it.
type world struct {
	oracle
	snapshot overlay.Snapshot
	metric   index.Metric
	replica  *live.Replica
	applier  *overlay.Applier
	shards   map[shard.Kind][]*overlay.ShardApplier // what applies beside it, by shard
	failed   error
	stop     func()
}

func newWorld(t *rapid.T, dir string) *world {
	w := &world{metric: rapid.SampledFrom([]index.Metric{index.Dot, index.Cosine, index.L2}).Draw(t, "metric")}
	w.base = map[shard.Kind]map[string]*entity{shard.Apps: {}, shard.Users: {}}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for i := range rapid.IntRange(0, 12).Draw(t, "rows") {
			w.base[kind][fmt.Sprintf("%s%02d", kind[:1], i)] = &entity{drawVector(t), drawValues(t, true)}
		}
	}
	w.snapshot = overlay.Snapshot{Model: model, ModelVersion: version}
	var err error
	w.snapshot.Apps, err = towerOf(shard.Apps, w.base[shard.Apps], rapid.IntRange(1, 3).Draw(t, "shards"), w.metric)
	require.NoError(t, err)
	w.snapshot.Users, err = towerOf(shard.Users, w.base[shard.Users], rapid.IntRange(1, 3).Draw(t, "shards"), w.metric)
	require.NoError(t, err)
	bucket, err := objects.Open(context.Background(), dir)
	require.NoError(t, err)
	w.replica, err = live.Open(context.Background(), bucket, live.Options{Poll: time.Hour, Apply: func(s *live.State, changes []live.Change) {
		if w.applier != nil {
			w.failed = cmp.Or(w.failed, w.applier.Apply(s, changes))
		}
		for _, list := range w.shards {
			for _, a := range list {
				w.failed = cmp.Or(w.failed, a.Apply(s, changes))
			}
		}
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.replica.Run(ctx) // it ends with ctx
	}()
	w.stop = func() {
		cancel()
		<-done
		require.NoError(t, bucket.Close())
	}
	return w
}

// begin lays what there is by now over the snapshot, whose inputs reflect a position.
func (w *world) begin(t *rapid.T, inputs uint64) {
	w.inputs = inputs
	w.snapshot.Inputs = shard.Position{Sequence: inputs}
	w.applier = w.full(t)
}

func (w *world) full(t *rapid.T) (a *overlay.Applier) {
	w.replica.Read(func(s *live.State) {
		var err error
		a, err = overlay.New(context.Background(), w.snapshot, s)
		require.NoError(t, err)
	})
	return a
}

// write appends events. Where several are about one app or user, none has what does not fit:
// the state does not tell which of two that come in one entry was first.
func (w *world) write(t *rapid.T) {
	var events []live.Event
	repeats := rapid.Bool().Draw(t, "repeats")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		var who []int
		if repeats {
			who = rapid.SliceOfN(rapid.IntRange(0, 16), 0, 12).Draw(t, "who")
		} else {
			who = rapid.SliceOfNDistinct(rapid.IntRange(0, 16), 0, 8, rapid.ID).Draw(t, "who")
		}
		for _, i := range who {
			events = append(events, drawEvent(t, kind, fmt.Sprintf("%s%02d", kind[:1], i), repeats))
		}
	}
	if len(events) == 0 {
		return
	}
	receipt, err := w.replica.Append(context.Background(), events)
	require.NoError(t, err)
	require.NoError(t, w.failed)
	for _, e := range events {
		w.events = append(w.events, told{e, receipt.Position.Sequence})
	}
}

// TestOverlaidEqualsPlainMap: whatever is appended, a snapshot with it answers as one that
// was built from what there is by then, in the plainest way. How many events came at a time
// does not matter, nor whether they came before or after the snapshot was opened.
func TestOverlaidEqualsPlainMap(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, strconv.Itoa(n))
		require.NoError(t, os.Mkdir(dir, 0o755))
		w := newWorld(t, dir)
		defer w.stop()
		for range rapid.IntRange(0, 3).Draw(t, "before") {
			w.write(t)
		}
		w.begin(t, uint64(rapid.IntRange(0, int(w.replica.View().Position.Sequence)).Draw(t, "inputs")))
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			w.write(t)
			now, full := w.applier.Now(), w.full(t).Now()
			require.Equal(t, w.replica.View().Position.Shard(), now.Position)
			sameStatus(t, full.Status, now.Status)
			for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
				at := clock.Add(time.Duration(rapid.IntRange(-4, 7).Draw(t, "hour")) * time.Hour)
				rows, outside := w.rows(kind, at)
				plain, err := towerOf(kind, rows, 1, w.metric)
				require.NoError(t, err)
				w.ask(t, kind, at, plain, now, outside)
				w.ask(t, kind, at, plain, full, outside)
			}
		}
	})
}

// sameStatus compares all that does not depend on how many events came at a time.
func sameStatus(t *rapid.T, want, got overlay.Status) {
	for _, s := range []*overlay.TowerStatus{&want.Apps, &want.Users, &got.Apps, &got.Users} {
		s.Runs, s.Layers = 0, 0
	}
	require.Equal(t, want, got)
}

// ask asks the same of a tower and of another that has the same rows.
func (w *world) ask(t *rapid.T, kind shard.Kind, at time.Time, plain *shard.Tower, over *overlay.Overlaid, outside map[string]bool) {
	moment := shard.Moment{Position: over.Position, Time: at}
	tower := over.Tower(kind)
	require.Equal(t, plain.Rows()+len(outside), tower.Rows())
	if len(outside) == 0 {
		require.Equal(t, plain.SegmentRows(), tower.SegmentRows())
	}
	var ids []string
	for i := range 18 {
		ids = append(ids, fmt.Sprintf("%s%02d", kind[:1], i))
	}
	some := func(label string, most int) (list []string) {
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(ids)-1), 0, most).Draw(t, label) {
			list = append(list, ids[i])
		}
		return list
	}
	q := &shard.Query{K: rapid.IntRange(1, 20).Draw(t, "k"), Target: 1, MinCoverage: 1, Vectors: [][]float32{drawVector(t)}}
	for field := range names {
		q.Attributes = append(q.Attributes, field)
	}
	if filter := rapid.SampledFrom(filters).Draw(t, "filter"); filter != "" {
		f, err := tower.Compile(filter)
		require.NoError(t, err)
		bound, err := f.Bind(context.Background(), nil)
		require.NoError(t, err)
		q.Filter = &bound
	}
	if kind == shard.Apps && rapid.Bool().Draw(t, "segment") {
		q.Segment = rapid.SampledFrom(segments).Draw(t, "which").Name
	}
	if rapid.IntRange(0, 2).Draw(t, "limits") == 0 {
		fields := rapid.SliceOfNDistinct(rapid.SampledFrom([]int{2, 3, 5, 6}), 1, 2, rapid.ID).Draw(t, "at most of")
		for _, field := range fields {
			q.AtMost = append(q.AtMost, shard.AtMost{Field: field, N: rapid.IntRange(1, 3).Draw(t, "n")})
		}
	}
	q.Exclude = some("exclude", 4)
	if rapid.IntRange(0, 3).Draw(t, "includes") == 0 {
		q.Include = append(some("include", 10), "nobody")
	}
	q.Explain = append(slices.Clone(ids), "nobody")
	want, err := plain.Search(context.Background(), q)
	require.NoError(t, err)
	q.Moment = moment
	got, err := tower.Search(context.Background(), q)
	require.NoError(t, err)
	require.Equal(t, want.Candidates, got.Candidates)
	require.Equal(t, []int{want.Eligible, want.UnknownInclude, want.UnknownExclude}, []int{got.Eligible, got.UnknownInclude, got.UnknownExclude})
	require.Equal(t, 1.0, got.Coverage())
	for i, e := range got.Explained {
		plain := want.Explained[i]
		switch {
		case w.down[e.ID]:
			require.Equal(t, shard.TakenDown, e.Standing, e.ID)
			plain.Standing = shard.TakenDown
		case outside[e.ID]:
			require.Equal(t, shard.OutsideWindow, e.Standing, e.ID)
			plain.Standing = shard.OutsideWindow
		}
		if e.Standing != shard.TakenDown && e.Standing != shard.Unknown {
			require.Equal(t, w.fresh[e.ID], e.Fresh, e.ID)
		}
		e.Shard, e.Fresh, plain.Shard, plain.Fresh = "", false, "", false
		require.Equal(t, plain, e)
	}
	wanted, err := plain.Vectors(context.Background(), shard.Moment{}, ids)
	require.NoError(t, err)
	vectors, err := tower.Vectors(context.Background(), moment, ids)
	require.NoError(t, err)
	require.Equal(t, wanted, vectors)
}
