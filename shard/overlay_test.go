package shard_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

var overlaid = flag.Int("overlaid", someOverlaid, "how many data sets TestOverlaidEqualsRebuilt changes")

// trialClock is a time at which, and around which, rows of trials come and go.
var trialClock = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// overlaidRow is a row of a data set with what lies over it.
type overlaidRow struct {
	row         *trialRow
	dead        bool // in the data set
	changed     bool
	from, until time.Time
	fresh       bool // the row is beside the data set
}

// overlaidSet is a data set with overlays over its shards and runs beside them, and what
// the two are to be, row by row.
type overlaidSet struct {
	*trialSet
	over     *shard.Tower
	overlays []*shard.Overlay
	runs     []*trialRun
	model    map[string]*overlaidRow
	sequence uint64
}

type trialRun struct {
	local *shard.Local
	over  *shard.Overlay
	ids   []string
}

func newOverlaidSet(s *trialSet) *overlaidSet {
	o := &overlaidSet{trialSet: s, model: map[string]*overlaidRow{}}
	for i := range s.rows {
		o.model[s.rows[i].id] = &overlaidRow{row: &s.rows[i]}
	}
	for _, p := range s.tower.Parts() {
		o.overlays = append(o.overlays, p.(*shard.Local).Overlay())
	}
	return o
}

// values returns all attributes of a row.
func (r *trialRow) values() []attribute.Value {
	values := make([]attribute.Value, trialFields)
	for field := range values {
		values[field] = r.value(field)
	}
	return values
}

func (d drawer) window() (from, until time.Time) {
	if d.chance(70) {
		return from, until
	}
	if d.chance(60) {
		from = trialClock.Add(time.Duration(d.IntN(7)-3) * time.Hour)
	}
	if from.IsZero() || d.chance(50) {
		until = trialClock.Add(time.Duration(d.IntN(7)-3) * time.Hour)
		if !from.IsZero() && !until.After(from) {
			until = from.Add(time.Hour)
		}
	}
	return from, until
}

// change changes some rows, of the data set and beside it.
func (o *overlaidSet) change(t testing.TB, d drawer, kind vectorKind) {
	o.sequence++
	at := shard.Position{Sequence: o.sequence}
	changes := make([][]shard.OverlaidRow, len(o.overlays))
	inRuns := make([][]shard.OverlaidRow, len(o.runs))
	// lay changes the row that the data set has of an id, and layRun those beside it.
	lay := func(id string, r shard.OverlaidRow) {
		if len(o.overlays) == 0 {
			return
		}
		n := shard.Partition(id, len(o.overlays))
		if ordinal, ok := o.tower.Local()[n].Ordinal(id); ok {
			r.Ordinal = ordinal
			changes[n] = append(changes[n], r)
		}
	}
	layRun := func(id string, r shard.OverlaidRow) {
		for i, run := range o.runs {
			if ordinal, ok := run.local.Shard().Ordinal(id); ok && !run.over.IsDead(ordinal) {
				r.Ordinal = ordinal
				inRuns[i] = append(inRuns[i], r)
			}
		}
	}
	var fresh []*overlaidRow
	ids := make([]string, 0, len(o.model))
	for id := range o.model {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, n := range d.Perm(len(ids))[:min(len(ids), d.upTo(len(ids)))] {
		id := ids[n]
		m := o.model[id]
		switch d.IntN(6) {
		case 0: // it is gone
			m.dead, m.changed = true, false
			lay(id, shard.OverlaidRow{Dead: true})
			layRun(id, shard.OverlaidRow{Dead: true})
			m.fresh = false
		case 1: // it is upserted
			m.dead, m.changed, m.fresh = true, false, true
			m.row = o.draw(d, id, kind)
			m.from, m.until = d.window()
			lay(id, shard.OverlaidRow{Dead: true})
			layRun(id, shard.OverlaidRow{Dead: true})
			fresh = append(fresh, m)
		case 2: // it is back as it was
			base, ok := o.byID[id]
			if !ok {
				continue
			}
			m.row, m.dead, m.changed, m.fresh = &o.rows[base], false, false, false
			m.from, m.until = d.window()
			lay(id, shard.OverlaidRow{From: m.from, Until: m.until})
			layRun(id, shard.OverlaidRow{Dead: true})
		default: // it has other attributes
			if m.dead {
				continue
			}
			row := *m.row
			row.takeAttributes(o.draw(d, id, kind))
			m.row, m.changed = &row, true
			m.from, m.until = d.window()
			lay(id, shard.OverlaidRow{From: m.from, Until: m.until, Attributes: row.values()})
		}
	}
	for range d.IntN(4) {
		id := fmt.Sprintf("%cnew%d-%d", 'a'+rune(d.IntN(26)), o.sequence, len(fresh))
		m := &overlaidRow{row: o.draw(d, id, kind), dead: true, fresh: true}
		m.from, m.until = d.window()
		o.model[id] = m
		fresh = append(fresh, m)
	}
	byOrdinal := func(a, b shard.OverlaidRow) int { return cmp.Compare(a.Ordinal, b.Ordinal) }
	var err error
	for i := range o.overlays {
		slices.SortFunc(changes[i], byOrdinal)
		o.overlays[i], err = o.overlays[i].With(at, changes[i])
		require.NoError(t, err)
	}
	for i, run := range o.runs {
		slices.SortFunc(inRuns[i], byOrdinal)
		run.over, err = run.over.With(at, inRuns[i])
		require.NoError(t, err)
	}
	if len(fresh) > 0 {
		o.runs = append(o.runs, o.newRun(t, at, fresh))
	}
	hashed, beside := []shard.Part{}, []shard.Part{}
	for _, over := range o.overlays {
		hashed = append(hashed, over.Part())
	}
	for _, run := range o.runs {
		beside = append(beside, run.over.Part())
	}
	o.over, err = o.tower.With(hashed, beside, nil)
	require.NoError(t, err)
}

// draw draws a row with an id.
func (o *overlaidSet) draw(d drawer, id string, kind vectorKind) *trialRow {
	row := d.rows(1, o.dim, o.metric, kind)[0]
	row.id = id
	return &row
}

// takeAttributes gives a row those of another.
func (r *trialRow) takeAttributes(o *trialRow) {
	with := *o
	with.id, with.vector, with.norm = r.id, r.vector, r.norm
	*r = with
}

func (o *overlaidSet) newRun(t testing.TB, at shard.Position, fresh []*overlaidRow) *trialRun {
	slices.SortFunc(fresh, func(a, b *overlaidRow) int { return cmp.Compare(a.row.id, b.row.id) })
	vectors, err := index.NewMatrix(o.dim, len(fresh))
	require.NoError(t, err)
	w := attribute.NewWriter(o.tower.Schema(), len(fresh))
	run := &trialRun{}
	var windows []shard.OverlaidRow
	for i, m := range fresh {
		require.NoError(t, vectors.Append(m.row.vector))
		for field, v := range m.row.values() {
			require.NoError(t, w.Set(i, field, v))
		}
		run.ids = append(run.ids, m.row.id)
		windows = append(windows, shard.OverlaidRow{Ordinal: uint32(i), From: m.from, Until: m.until})
	}
	x, err := index.Flat(vectors, o.metric)
	require.NoError(t, err)
	run.local, err = o.tower.InMemory(fmt.Sprint("fresh-", at.Sequence), run.ids, x, w)
	require.NoError(t, err)
	run.over, err = run.local.Overlay().With(at, windows)
	require.NoError(t, err)
	return run
}

// merged returns the rows that there are at a time.
func (o *overlaidSet) merged(at time.Time) (rows []trialRow, outside map[string]bool) {
	outside = map[string]bool{}
	for id, m := range o.model {
		switch {
		case m.dead && !m.fresh:
		case !m.from.IsZero() && at.Before(m.from), !m.until.IsZero() && !at.Before(m.until):
			outside[id] = true
		default:
			rows = append(rows, *m.row)
		}
	}
	slices.SortFunc(rows, func(a, b trialRow) int { return cmp.Compare(a.id, b.id) })
	return rows, outside
}

// TestOverlaidEqualsRebuilt: a tower with overlays and rows beside it answers as one that
// was built from the rows that there are, whatever is asked, at whatever time.
//
//	go test ./shard -run TestOverlaidEqualsRebuilt -v -timeout 0 -overlaid 1000
func TestOverlaidEqualsRebuilt(t *testing.T) {
	asked, walked, found := 0, 0, 0
	for number := range uint64(*overlaid) {
		dir := t.TempDir()
		s := newTrialSet(t, dir, *trialsSeed, 5000+number)
		d := drawer{rand.New(rand.NewPCG(*trialsSeed, 5000+number))}
		o := newOverlaidSet(s)
		for round := range 4 {
			o.change(t, d, gaussian)
			at := shard.Moment{Position: shard.Position{Sequence: o.sequence}, Time: trialClock.Add(time.Duration(d.IntN(9)-4) * time.Hour)}
			rebuiltDir, err := os.MkdirTemp(dir, "rebuilt")
			require.NoError(t, err)
			rows, outside := o.merged(at.Time)
			rebuilt := o.rebuild(t, d, rebuiltDir, rows)
			name := fmt.Sprintf("%s, round %d, %d rows at %s", s.name, round, len(rows), at.Time)
			if len(outside) == 0 {
				require.Equal(t, rebuilt.Rows(), o.over.Rows(), name)
				require.Equal(t, rebuilt.SegmentRows(), o.over.SegmentRows(), name)
			}
			for range 60 {
				q := o.drawQuery(d, rows, outside)
				want := *q
				q.Moment = at
				wanted, err := rebuilt.Search(t.Context(), &want)
				require.NoError(t, err, name)
				got, err := o.over.Search(t.Context(), q)
				require.NoError(t, err, name)
				require.NoError(t, o.differ(q, wanted, got, outside), "%s: %+v", name, q)
				if asked++; !d.chance(30) {
					continue
				}
				walk := *q
				walk.Target, walk.Ef, walk.Plan = 0, 1+d.IntN(60), pickOne(d, index.Auto, index.GraphWalk)
				walk.AtMost, walk.Explain, walk.Attributes = nil, nil, nil
				exact := walk
				exact.K, exact.Plan, exact.Moment = len(rows)+1, index.ExactScan, shard.Moment{}
				all, err := rebuilt.Search(t.Context(), &exact)
				require.NoError(t, err)
				some, err := o.over.Search(t.Context(), &walk)
				require.NoError(t, err)
				require.Equal(t, all.Eligible, some.Eligible)
				require.Len(t, some.Candidates, min(walk.K, len(all.Candidates)), name)
				scores := map[string]float32{}
				for _, c := range all.Candidates {
					scores[c.ID] = c.Score
				}
				for _, c := range some.Candidates {
					score, ok := scores[c.ID]
					require.True(t, ok && score == c.Score, "%s: %s scores %v, want %v", name, c.ID, c.Score, score)
				}
				walked, found = walked+1, found+len(some.Candidates)
			}
			ids := []string{"nobody", "", s.rows[0].id}
			for id := range o.model {
				ids = append(ids, id)
			}
			want, err := rebuilt.Vectors(t.Context(), shard.Moment{}, ids)
			require.NoError(t, err)
			got, err := o.over.Vectors(t.Context(), at, ids)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.NoError(t, rebuilt.Close())
		}
		require.NoError(t, o.over.Close())
		_, err := s.tower.Search(t.Context(), &shard.Query{Vectors: [][]float32{s.rows[0].vector}, K: 1, Target: 1})
		require.NoError(t, err, "an overlaid tower does not close the shards")
		require.NoError(t, s.tower.Close())
	}
	t.Logf("%d queries by exact scans, %d by walks, which found %d", asked, walked, found)
}

// rebuild builds a tower of rows.
func (o *overlaidSet) rebuild(t testing.TB, d drawer, dir string, rows []trialRow) *shard.Tower {
	with := *o.trialSet
	with.rows = rows
	with.segments = slices.Clone(with.segments)
	for i, s := range o.tower.Segments() {
		p := index.NewBitset(len(rows))
		filter, err := o.tower.Compile(s.Expression)
		require.NoError(t, err)
		bound, err := filter.Bind(context.Background(), nil)
		require.NoError(t, err)
		w := attribute.NewWriter(o.tower.Schema(), len(rows))
		ids := make([]string, len(rows))
		vectors, err := index.NewMatrix(o.dim, len(rows))
		require.NoError(t, err)
		for row := range rows {
			ids[row] = rows[row].id
			require.NoError(t, vectors.Append(rows[row].vector))
			for field, v := range rows[row].values() {
				require.NoError(t, w.Set(row, field, v))
			}
		}
		x, err := index.Flat(vectors, o.metric)
		require.NoError(t, err)
		l, err := o.tower.InMemory("rows", ids, x, w)
		require.NoError(t, err)
		_, err = bound.Eval(context.Background(), l.Shard().Attributes(), p)
		require.NoError(t, err)
		with.segments[i].rows = p
	}
	with.open(t, d, dir, 1+d.IntN(4), gaussian, o.tower.Segments())
	return with.tower
}

// drawQuery draws a query for an exact answer.
func (o *overlaidSet) drawQuery(d drawer, rows []trialRow, outside map[string]bool) *shard.Query {
	trial := o.trialSet.draw(d)
	q := &trial.query
	o.drawRest(d, q)
	q.Explain, q.MaxText = nil, 0
	if len(q.Vectors[0]) != o.dim {
		q.Vectors = [][]float32{make([]float32, o.dim)}
		q.Vectors[0][0] = 1
	}
	q.Target, q.Ef, q.Plan = 1, 0, index.Auto
	if d.chance(30) {
		q.Ef, q.Plan = 10, index.ExactScan
	}
	ids := []string{"nobody"}
	for id := range outside {
		ids = append(ids, id)
	}
	for id := range o.model {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	some := func(n int) (list []string) {
		for range n {
			list = append(list, ids[d.IntN(len(ids))])
		}
		return list
	}
	if d.chance(30) {
		q.Exclude = append(slices.Clip(q.Exclude), some(d.upTo(40))...)
	}
	if d.chance(20) {
		q.Include = some(d.upTo(200))
	}
	if d.chance(20) {
		q.Self = some(1)[0]
	}
	if d.chance(40) {
		q.Explain = some(20)
	}
	return q
}

// differ returns an error that says in what two answers differ.
func (o *overlaidSet) differ(q *shard.Query, want, got *shard.Answer, outside map[string]bool) error {
	if len(got.Candidates) != len(want.Candidates) {
		return fmt.Errorf("%d candidates, want %d", len(got.Candidates), len(want.Candidates))
	}
	for i := range got.Candidates {
		a, b := &got.Candidates[i], &want.Candidates[i]
		if a.ID != b.ID || a.Score != b.Score || !slices.EqualFunc(a.Attributes, b.Attributes, attribute.Value.Equal) {
			return fmt.Errorf("place %d is %+v, want %+v", i, *a, *b)
		}
	}
	switch {
	case got.Eligible != want.Eligible:
		return fmt.Errorf("%d are eligible, want %d", got.Eligible, want.Eligible)
	case got.Coverage() != 1 || got.Rows != got.TowerRows:
		return fmt.Errorf("coverage is %v", got.Coverage())
	case got.UnknownInclude != want.UnknownInclude || got.UnknownExclude != want.UnknownExclude:
		return fmt.Errorf("%d and %d ids are unknown, want %d and %d", got.UnknownInclude, got.UnknownExclude, want.UnknownInclude, want.UnknownExclude)
	case got.Text != want.Text || len(got.Explained) != len(want.Explained):
		return fmt.Errorf("%d bytes of text, %d explained, want %d and %d", got.Text, len(got.Explained), want.Text, len(want.Explained))
	}
	for i, a := range got.Explained {
		b := want.Explained[i]
		if outside[a.ID] {
			if a.Standing != shard.OutsideWindow || b.Standing != shard.Unknown {
				return fmt.Errorf("%s is outside of its window: %+v", a.ID, a)
			}
			continue
		}
		if m := o.model[a.ID]; a.Standing != shard.Unknown && a.Fresh != m.fresh {
			return fmt.Errorf("%s is explained as %+v", a.ID, a)
		}
		a.Shard, b.Shard, a.Fresh = "", "", false
		if !a.Value.Equal(b.Value) {
			return fmt.Errorf("%s is explained by %v, want %v", a.ID, a.Value, b.Value)
		}
		a.Value, b.Value = attribute.Value{}, attribute.Value{}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			return fmt.Errorf("%s is explained as %+v, want %+v", a.ID, a, b)
		}
	}
	return nil
}
