package shard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// What lies over shards, and rows in memory, are asked over pipes as in this process: a
// part's answers are bytes like those of any other.
func TestOverlaidPartsOverPipes(t *testing.T) {
	for number := range uint64(2) {
		dir := t.TempDir()
		s := newTrialSet(t, dir, *trialsSeed, 6000+number)
		d := drawer{rand.New(rand.NewPCG(*trialsSeed, 6000+number))}
		o := newOverlaidSet(s)
		for range 2 {
			o.change(t, d, gaussian)
		}
		var parts []shard.Part
		for _, p := range o.over.Parts() {
			parts = append(parts, localOverPipe(t, p.(*shard.Local)))
		}
		remote, err := shard.NewTowerOf(shard.Apps, parts, len(s.tower.Parts()), s.metric, s.dim, s.tower.Schema())
		require.NoError(t, err)
		require.Equal(t, o.over.Rows(), remote.Rows())
		require.Equal(t, o.over.SegmentRows(), remote.SegmentRows())
		rows, outside := o.merged(trialClock)
		for range 100 {
			q := o.drawQuery(d, rows, outside)
			if d.chance(50) {
				q.Target, q.Ef, q.Plan = 0, 1+d.IntN(60), index.Auto
			}
			q.Moment = shard.Moment{Position: shard.Position{Sequence: o.sequence}, Time: trialClock}
			want, wantErr := o.over.Search(t.Context(), q)
			got, err := remote.Search(t.Context(), q)
			require.True(t, sameAnswer(want, got) && sameError(wantErr, err), "%s: %+v: %v, want %v", s.name, q, err, wantErr)
		}
		require.NoError(t, s.tower.Close())
		require.NoError(t, os.RemoveAll(dir))
	}
}

// A part answers at the position that it is at, and at no other.
func TestOverlaidPosition(t *testing.T) {
	tw := openGrid(t, 10, 1)
	plain := tw.Parts()[0].(*shard.Local)
	at := shard.Position{Log: "b", Sequence: 7}
	o, err := plain.Overlay().With(at, nil)
	require.NoError(t, err)
	require.Equal(t, at, o.At())
	over := o.Part()
	for _, test := range []struct {
		part  *shard.Local
		asked shard.Position
		err   string
	}{
		{plain, shard.Position{}, ""},
		{over, shard.Position{}, ""},
		{over, at, ""},
		{plain, at, "is at position 0 of the live log, and not at b:7"},
		{over, shard.Position{Log: "b", Sequence: 8}, "is at position b:7 of the live log, and not at b:8"},
		{over, shard.Position{Sequence: 7}, "is at position b:7 of the live log, and not at 7"},
	} {
		moment := shard.Moment{Position: test.asked, Time: trialClock}
		r := &shard.Request{Moment: moment, Vectors: [][]float32{{1}}, K: 3, Target: 1}
		_, explainErr := test.part.Explain(t.Context(), r, []string{"app-001"})
		_, attributesErr := test.part.Attributes(t.Context(), moment, []uint32{1}, []int{0}, 0, make([]attribute.Value, 1))
		for _, err := range []error{
			test.part.Search(t.Context(), r, new(shard.Reply)), explainErr, attributesErr,
			test.part.Vectors(t.Context(), moment, []string{"app-001"}, make([][]float32, 1)),
		} {
			if test.err == "" {
				require.NoError(t, err)
				continue
			}
			require.ErrorContains(t, err, test.err)
			wrong, ok := errors.AsType[*shard.PositionError](err)
			require.True(t, ok)
			require.Equal(t, test.asked, wrong.Asked)
		}
	}
}

// What is refused is as unknown whatever parts say, and costs no place in an answer.
func TestRefused(t *testing.T) {
	for _, shards := range []int{1, 3} {
		apps := cutApps(120)
		tw := openApps(t, t.TempDir(), apps, cutDim, shards, index.Dot)
		rapid.Check(t, func(t *rapid.T) {
			refused := idSet{"nobody": true}
			var left []shardtest.App
			share := rapid.SampledFrom([]int{1, 3, 10, 50}).Draw(t, "share")
			for _, a := range apps {
				if refused[a.ID] = rapid.IntRange(0, share).Draw(t, "refused") == 0; !refused[a.ID] {
					left = append(left, a)
				}
			}
			over, err := tw.With(tw.Parts(), nil, refused)
			require.NoError(t, err)
			q := &shard.Query{K: rapid.IntRange(1, 60).Draw(t, "k"), Target: 1, MinCoverage: 1, Vectors: [][]float32{apps[0].Vector}}
			if rapid.Bool().Draw(t, "in turn") { // later parts know what earlier ones have found
				q.Workers = 1
			}
			if rapid.Bool().Draw(t, "limited") {
				q.AtMost = []shard.AtMost{{Field: shardtest.Developer, N: rapid.IntRange(1, 5).Draw(t, "n")}}
			}
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(apps)-1), 0, 8).Draw(t, "explain") {
				q.Explain = append(q.Explain, apps[i].ID)
			}
			q.Explain = append(q.Explain, "nobody", "nowhere")
			want := bruteForce(index.Dot, left, q, func(shardtest.App) bool { return true })
			a, err := over.Search(context.Background(), q)
			require.NoError(t, err)
			require.Equal(t, want.top, append([]string(nil), ids(a)...))
			for _, e := range a.Explained {
				switch {
				case refused[e.ID]:
					require.Equal(t, shard.TakenDown, e.Standing)
					require.Zero(t, e.Score)
				case e.ID == "nowhere":
					require.Equal(t, shard.Unknown, e.Standing)
				default:
					require.NotContains(t, []shard.Standing{0, shard.Unknown, shard.TakenDown}, e.Standing)
				}
				v, ok, err := over.Vector(context.Background(), shard.Moment{}, e.ID)
				require.NoError(t, err)
				require.Equal(t, ok, e.Standing != shard.TakenDown && e.Standing != shard.Unknown)
				all, err := over.Vectors(context.Background(), shard.Moment{}, []string{e.ID})
				require.NoError(t, err)
				require.Equal(t, v, all[0])
			}
			q.Explain = nil
			q.Target, q.Plan, q.Ef = 0, index.GraphWalk, rapid.IntRange(1, 40).Draw(t, "ef")
			walk, err := over.Search(context.Background(), q)
			require.NoError(t, err)
			if len(q.AtMost) == 0 {
				require.Len(t, walk.Candidates, len(want.top))
			}
			for _, c := range walk.Candidates {
				require.False(t, refused[c.ID])
			}
		})
		require.NoError(t, tw.Close())
	}
}

type idSet map[string]bool

func (s idSet) Has(id string) bool { return s[id] }

func (s idSet) HasAny(ids []string) bool { return slices.ContainsFunc(ids, s.Has) }

// A query that refuses what it would have returned allocates no more than one that does not.
func TestRefusingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	tw := openGrid(t, 500, 2)
	refused := idSet{}
	for i := range 20 {
		refused[fmt.Sprintf("app-%03d", 499-7*i)] = true
	}
	over, err := tw.With(tw.Parts(), nil, refused)
	require.NoError(t, err)
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 50, Target: 0.9, Workers: 1}
	allocs := func(tw *shard.Tower) float64 {
		return testing.AllocsPerRun(200, func() {
			if _, err := tw.Search(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		})
	}
	allocs(over)
	require.LessOrEqual(t, allocs(over), allocs(tw))
}

// Rows come and go by the time of the request alone, in whatever order times are asked, by
// however many at once.
func TestWindows(t *testing.T) {
	const rows = 200
	tw := openGrid(t, rows, 1)
	local := tw.Parts()[0].(*shard.Local)
	from, until := map[string]time.Time{}, map[string]time.Time{}
	var changes []shard.OverlaidRow
	d := drawer{rand.New(rand.NewPCG(1, 2))}
	for ordinal := range uint32(rows) {
		r := shard.OverlaidRow{Ordinal: ordinal}
		id := local.Shard().ID(ordinal)
		if d.chance(50) {
			r.From = trialClock.Add(time.Duration(d.IntN(10)) * time.Minute)
			from[id] = r.From
		}
		if d.chance(50) {
			r.Until = trialClock.Add(time.Duration(10+d.IntN(10)) * time.Minute)
			until[id] = r.Until
		}
		changes = append(changes, r)
	}
	o, err := local.Overlay().With(shard.Position{Sequence: 1}, changes)
	require.NoError(t, err)
	over, err := tw.With([]shard.Part{o.Part()}, nil, nil)
	require.NoError(t, err)
	ask := func(at time.Time) {
		var want []string
		for i := rows - 1; i >= 0; i-- {
			id := fmt.Sprintf("app-%03d", i)
			f, u := from[id], until[id]
			if (f.IsZero() || !at.Before(f)) && (u.IsZero() || at.Before(u)) {
				want = append(want, id)
			}
		}
		q := &shard.Query{Moment: shard.Moment{Time: at}, Vectors: [][]float32{{1}}, K: rows, Target: 1}
		a, err := over.Search(context.Background(), q)
		if err != nil || !slices.Equal(want, ids(a)) || a.Eligible != len(want) {
			t.Errorf("at %s: %v, %v, want %v", at, ids(a), err, want)
		}
	}
	for minute := -1; minute < 22; minute++ {
		bound := trialClock.Add(time.Duration(minute) * time.Minute)
		for _, at := range []time.Time{bound, bound.Add(-1), bound.Add(30 * time.Second)} {
			ask(at)
		}
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			d := drawer{rand.New(rand.NewPCG(3, uint64(worker)))}
			for range 200 {
				ask(trialClock.Add(time.Duration(d.IntN(22*60)) * time.Second))
			}
		})
	}
	group.Wait()
	o, err = o.With(shard.Position{Sequence: 2}, []shard.OverlaidRow{{Ordinal: 0, Dead: true}, {Ordinal: 1}})
	require.NoError(t, err)
	require.True(t, o.IsDead(0))
	f, u := o.Window(1)
	require.True(t, f.IsZero() && u.IsZero())
}

// Rows that an overlay cannot have are refused, and change nothing.
func TestOverlayRefuses(t *testing.T) {
	tw := openGrid(t, 10, 1)
	local := tw.Parts()[0].(*shard.Local)
	values := make([]attribute.Value, tw.Schema().Len())
	wrong := slices.Clone(values)
	wrong[shardtest.MinAge] = attribute.OfKeyword("old")
	for text, rows := range map[string][]shard.OverlaidRow{
		"lay over shard apps-0000: row 10 of 10":                      {{Ordinal: 10}},
		"row 3 comes after row 3":                                     {{Ordinal: 3}, {Ordinal: 3}},
		"row 2 comes after row 3":                                     {{Ordinal: 3}, {Ordinal: 2}},
		"row 1 has 2 attributes, the schema 5":                        {{Ordinal: 1, Attributes: values[:2]}},
		`attribute min_age: value "old" is of type keyword, want int`: {{Ordinal: 1, Attributes: wrong}},
	} {
		_, err := local.Overlay().With(shard.Position{}, rows)
		require.ErrorContains(t, err, text)
	}
	_, err := tw.With(nil, nil, nil)
	require.EqualError(t, err, "0 parts in place of the 1 of the hash partition")
	require.Same(t, local.Shard(), local.Overlay().Part().Shard(), "an overlay lies over no other shard")
}

// Layers are few, however many changes make them, and each row counts in one.
func TestLayersAreFew(t *testing.T) {
	const rows = 4000
	tw := openGrid(t, rows, 1)
	local := tw.Parts()[0].(*shard.Local)
	o := local.Overlay()
	d := drawer{rand.New(rand.NewPCG(1, 2))}
	age := map[uint32]int64{}
	most := 0
	for round := range 300 {
		n := d.upTo(400)
		at := map[uint32]bool{}
		for range n {
			at[uint32(d.IntN(rows))] = true
		}
		var changes []shard.OverlaidRow
		for ordinal := range uint32(rows) {
			if !at[ordinal] {
				continue
			}
			values := make([]attribute.Value, tw.Schema().Len())
			values[shardtest.MinAge] = attribute.OfInt(int64(round))
			age[ordinal] = int64(round)
			changes = append(changes, shard.OverlaidRow{Ordinal: ordinal, Attributes: values})
		}
		var err error
		o, err = o.With(shard.Position{Sequence: uint64(round)}, changes)
		require.NoError(t, err)
		require.Equal(t, len(age), o.Changed())
		most = max(most, o.Layers())
	}
	require.LessOrEqual(t, most, 6)
	over := o.Part()
	for ordinal, want := range age {
		got := make([]attribute.Value, 1)
		_, err := over.Attributes(t.Context(), shard.Moment{}, []uint32{ordinal}, []int{shardtest.MinAge}, 0, got)
		require.NoError(t, err)
		require.Equal(t, want, got[0].Int())
	}
	t.Logf("%d layers at most", most)
}

// Ids that are beside the snapshot are found in other Unicode forms, and those that are dead
// are not suggested.
func TestOverlaidForms(t *testing.T) {
	const kept, dead, fresh = "ＡＢＣé", "ＡＢＣe\u0301x", "ＦＲＥＳＨé"
	apps := shardtest.Grid(2)
	apps[0].ID, apps[1].ID = kept, dead
	slices.SortFunc(apps, func(a, b shardtest.App) int { return len(a.ID) - len(b.ID) })
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, apps, 1, 1, index.DefaultParams(index.Dot))
	tw, err := snapshots.OpenTower(t.Context(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	local := tw.Parts()[0].(*shard.Local)
	ordinal, ok := local.Shard().Ordinal(dead)
	require.True(t, ok)
	o, err := local.Overlay().With(shard.Position{}, []shard.OverlaidRow{{Ordinal: ordinal, Dead: true}})
	require.NoError(t, err)
	vectors, err := index.NewMatrix(1, 1)
	require.NoError(t, err)
	require.NoError(t, vectors.Append([]float32{1}))
	x, err := index.Flat(vectors, index.Dot)
	require.NoError(t, err)
	run, err := tw.InMemory("fresh-1", []string{fresh}, x, attribute.NewWriter(tw.Schema(), 1))
	require.NoError(t, err)
	over, err := tw.With([]shard.Part{o.Part()}, []shard.Part{run}, nil)
	require.NoError(t, err)
	for asked, want := range map[string]string{"ABCe\u0301": kept, "ABCéx": "", "FRESHe\u0301": fresh, "FRESHé": fresh} {
		require.True(t, over.MayHaveOtherForm(asked))
		other, _, ok, err := over.OtherForm(t.Context(), shard.Moment{}, asked)
		require.NoError(t, err)
		require.Equal(t, want != "", ok, asked)
		require.Equal(t, want, other, asked)
	}
	_, _, ok, err = tw.OtherForm(t.Context(), shard.Moment{}, "ABCéx")
	require.NoError(t, err)
	require.True(t, ok)
}

// What is in memory is checked as a file is.
func TestInMemoryRefuses(t *testing.T) {
	tw := openGrid(t, 3, 1)
	flat := func(dim, rows int, metric index.Metric) *index.Index {
		vectors, err := index.NewMatrix(dim, rows)
		require.NoError(t, err)
		for range rows {
			require.NoError(t, vectors.Append(append(make([]float32, dim-1), 1)))
		}
		x, err := index.Flat(vectors, metric)
		require.NoError(t, err)
		return x
	}
	for text, test := range map[string]struct {
		ids []string
		x   *index.Index
	}{
		"shard new: 1 ids for 2 rows":               {[]string{"a"}, flat(1, 2, index.Dot)},
		`shard new: row 1: id "a" is not after "a"`: {[]string{"a", "a"}, flat(1, 2, index.Dot)},
		"shard new: row 0: id is empty":             {[]string{"", "a"}, flat(1, 2, index.Dot)},
		"vectors of 2 components, compared by dot":  {[]string{"a"}, flat(2, 1, index.Dot)},
		"vectors of 1 components, compared by l2":   {[]string{"a"}, flat(1, 1, index.L2)},
	} {
		_, err := tw.InMemory("new", test.ids, test.x, attribute.NewWriter(tw.Schema(), len(test.ids)))
		require.ErrorContains(t, err, text)
	}
}

// How many rows of a segment there are does not depend on how many changed at a time.
func TestSegmentRowsOfMany(t *testing.T) {
	const rows = 600
	schema := shardtest.Schema()
	compiler, err := eligibility.NewCompiler(schema)
	require.NoError(t, err)
	vectors, err := index.NewMatrix(1, rows)
	require.NoError(t, err)
	attributes := attribute.NewWriter(schema, rows)
	var ids []string
	for i := range rows {
		ids = append(ids, fmt.Sprintf("app-%03d", i))
		require.NoError(t, vectors.Append([]float32{1}))
		require.NoError(t, attributes.Set(i, shardtest.Free, attribute.OfBool(i%2 == 0)))
	}
	x, err := index.Flat(vectors, index.Dot)
	require.NoError(t, err)
	s, err := shard.InMemory("apps", ids, x, attributes, []shard.Segment{{Name: "free", Expression: "free"}}, compiler)
	require.NoError(t, err)
	local := shard.NewLocal(s, compiler)
	require.Equal(t, []int{rows / 2}, local.Info().SegmentRows)
	values := make([]attribute.Value, schema.Len())
	var changes []shard.OverlaidRow
	want := rows / 2
	one := local.Overlay()
	for i := range uint32(rows) {
		r := shard.OverlaidRow{Ordinal: i}
		switch i % 5 {
		case 0:
			if r.Dead = true; i%2 == 0 {
				want--
			}
		case 1:
			if r.Attributes = values; i%2 == 0 {
				want--
			}
		case 2:
			continue
		}
		changes = append(changes, r)
		one, err = one.With(shard.Position{}, []shard.OverlaidRow{r})
		require.NoError(t, err)
	}
	all, err := local.Overlay().With(shard.Position{}, changes)
	require.NoError(t, err)
	require.Equal(t, []int{want}, all.Part().Info().SegmentRows)
	require.Equal(t, []int{want}, one.Part().Info().SegmentRows)
}
