package shard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// openApps opens the app tower of apps.
func openApps(t shardtest.TB, dir string, apps []shardtest.App, dim, shards int, metric index.Metric) *shard.Tower {
	params := index.DefaultParams(metric)
	params.M, params.EfConstruction = 4, 20
	store := shardtest.Store(t, dir)
	m := shardtest.Manifest(t, store, apps, dim, shards, params)
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	return tw
}

// Beside the hash partition there may be parts that have any ids. Answers are those of
// brute force over all rows, as far as lists, unknown ids and explanations go too.
func TestPartsBesideTheHashPartition(t *testing.T) {
	all := cutApps(120)
	for _, layout := range []struct{ split, shards, beside int }{{80, 3, 2}, {119, 4, 1}, {0, 2, 2}, {0, 0, 2}, {120, 3, 1}} {
		hashed := openApps(t, t.TempDir(), all[:layout.split], cutDim, layout.shards, index.Dot)
		beside := openApps(t, t.TempDir(), all[layout.split:], cutDim, layout.beside, index.Dot)
		tw, err := shard.NewTowerOf(shard.Apps, slices.Concat(hashed.Parts(), beside.Parts()), len(hashed.Parts()), index.Dot, cutDim, hashed.Schema())
		require.NoError(t, err)
		require.Equal(t, len(all), tw.Rows())
		rapid.Check(t, func(t *rapid.T) { askBeside(t, tw, all) })
		require.NoError(t, tw.Close())
	}
}

// askBeside asks a tower of apps a query.
func askBeside(t *rapid.T, tw *shard.Tower, apps []shardtest.App) {
	some := func(label string) (list []string) {
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(apps)-1), 0, 50).Draw(t, label) {
			list = append(list, apps[i].ID)
		}
		return list
	}
	q := &shard.Query{K: rapid.IntRange(1, 60).Draw(t, "k"), Target: 1, MinCoverage: 1, Attributes: []int{shardtest.MinAge}}
	q.Vectors = [][]float32{apps[rapid.IntRange(0, len(apps)-1).Draw(t, "query")].Vector}
	q.Exclude = append(some("exclude"), "nobody")
	if rapid.Bool().Draw(t, "includes") {
		q.Include = append(some("include"), "nobody", "nowhere", "nobody")
	}
	if rapid.Bool().Draw(t, "self") {
		q.Self = apps[rapid.IntRange(0, len(apps)-1).Draw(t, "which")].ID
	}
	if rapid.Bool().Draw(t, "limited") {
		q.AtMost = []shard.AtMost{{Field: shardtest.Developer, N: rapid.IntRange(1, 5).Draw(t, "n")}}
	}
	for _, a := range apps {
		q.Explain = append(q.Explain, a.ID)
	}
	q.Explain = append(q.Explain, "nobody")
	want := bruteForce(index.Dot, apps, q, func(shardtest.App) bool { return true })
	a, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	require.Equal(t, want.top, ids(a))
	require.Equal(t, len(want.all), a.Eligible)
	requireUnknown(t, a, q)
	vectors, err := tw.Vectors(context.Background(), shard.Moment{}, q.Explain)
	require.NoError(t, err)
	for i, app := range apps {
		e := a.Explained[i]
		require.Equal(t, app.ID, e.ID)
		require.Equal(t, slices.Index(want.top, app.ID)+1, e.Rank)
		require.NotContains(t, []shard.Standing{0, shard.Unknown, shard.ShardMissing}, e.Standing)
		require.Equal(t, app.Vector, vectors[i])
		v, ok, err := tw.Vector(context.Background(), shard.Moment{}, app.ID)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, app.Vector, v)
	}
	require.Equal(t, shard.Unknown, a.Explained[len(apps)].Standing)
	require.Nil(t, vectors[len(apps)])
}

// failingPart is a part that fails at one call of one method.
type failingPart struct {
	shard.Part
	method string
	err    error
	left   atomic.Int64 // calls of the method until it fails
}

func (p *failingPart) fails(method string) bool {
	return method == p.method && p.left.Add(-1) < 0
}

func (p *failingPart) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	err := p.Part.Search(ctx, r, reply)
	if p.fails("search") {
		reply.Hits = nil // nobody must read it
		return p.err
	}
	return err
}

func (p *failingPart) Explain(ctx context.Context, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	if p.fails("explain") {
		return nil, p.err
	}
	return p.Part.Explain(ctx, r, ids)
}

func (p *failingPart) Vectors(ctx context.Context, at shard.Moment, ids []string, dst [][]float32) error {
	if p.fails("vectors") {
		return p.err
	}
	return p.Part.Vectors(ctx, at, ids, dst)
}

func (p *failingPart) Attributes(ctx context.Context, at shard.Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (int, error) {
	if p.fails("attributes") {
		return len(refs) - 1, p.err
	}
	return p.Part.Attributes(ctx, at, refs, fields, most, dst)
}

// A part is lost at whatever it is asked, after it has answered too: the others answer as
// if it had not been there. Bugs and wrong queries end the query.
func TestPartIsLost(t *testing.T) {
	const shards, lost = 3, 1
	apps := shardtest.Grid(900)
	for i := range apps {
		apps[i].Developer = fmt.Sprint("solo ", i)
		if i >= 300 {
			apps[i].Developer = "Ten"
		}
	}
	whole := openApps(t, t.TempDir(), apps, 1, shards, index.Dot)
	defer func() { require.NoError(t, whole.Close()) }()
	var others []shardtest.App
	for _, a := range apps {
		if shard.Partition(a.ID, shards) != lost {
			others = append(others, a)
		}
	}
	q := &shard.Query{
		Vectors: [][]float32{{1}}, K: 40, Target: 1, AtMost: []shard.AtMost{{Field: shardtest.Developer, N: 1}},
		Attributes: []int{shardtest.Developer}, Explain: []string{apps[0].ID, apps[1].ID, apps[2].ID, apps[3].ID, apps[4].ID, apps[899].ID},
	}
	all := func(shardtest.App) bool { return true }
	gone := errors.New("gone")
	for _, test := range []struct {
		method string
		call   int64
	}{{"search", 0}, {"search", 1}, {"explain", 0}, {"attributes", 0}} {
		t.Run(fmt.Sprint(test.method, test.call), func(t *testing.T) {
			failing := &failingPart{Part: whole.Parts()[lost], method: test.method}
			parts := slices.Clone(whole.Parts())
			parts[lost] = failing
			tw, err := shard.NewTowerOf(shard.Apps, parts, shards, index.Dot, 1, whole.Schema())
			require.NoError(t, err)
			ask := func(err error, coverage float64) (*shard.Answer, error) {
				failing.err = err
				failing.left.Store(test.call)
				q.MinCoverage = coverage
				return tw.Search(t.Context(), q)
			}
			a, err := ask(gone, 0)
			require.NoError(t, err)
			want := bruteForce(index.Dot, others, q, all)
			require.Equal(t, want.top, ids(a))
			require.Equal(t, len(others), a.Eligible)
			require.Equal(t, shards-1, a.Answered())
			require.ErrorIs(t, a.Shards[lost].Err, gone)
			for _, e := range a.Explained {
				require.Equal(t, shard.Partition(e.ID, shards) == lost, e.Standing == shard.ShardMissing)
			}
			for i, c := range a.Candidates {
				require.Equal(t, apps[slices.IndexFunc(apps, func(a shardtest.App) bool { return a.ID == c.ID })].Developer, c.Attributes[0].Keyword(), "place %d", i)
			}

			_, err = ask(gone, 1)
			var short *shard.CoverageError
			require.ErrorAs(t, err, &short)
			require.ErrorIs(t, err, gone)
			for _, fatal := range []error{fmt.Errorf("no: %w", index.ErrQuery), &shard.PanicError{Shard: "apps-0001", Value: "bug"}} {
				_, err = ask(fatal, 0)
				require.Equal(t, fatal, err)
			}
			_, err = ask(context.Canceled, 1)
			require.ErrorIs(t, err, context.Canceled)
			a, err = ask(context.Canceled, 0)
			switch test.method {
			case "search":
				require.NoError(t, err)
				require.Equal(t, test.call > 0, a.Shards[lost].Err == nil, "what it gave before counts")
			case "explain":
				require.NoError(t, err)
				for _, e := range a.Explained {
					require.Equal(t, shard.Partition(e.ID, shards) == lost, e.Standing == 0)
				}
			default:
				require.ErrorIs(t, err, context.Canceled)
			}
			if test.method == "attributes" {
				a, err = ask(nil, 0)
				require.NoError(t, err)
				require.ErrorContains(t, a.Shards[lost].Err, "gave the attributes of ")
			}
		})
	}
	failing := &failingPart{Part: whole.Parts()[0], method: "vectors", err: gone}
	tw, err := shard.NewTowerOf(shard.Apps, []shard.Part{failing}, 1, index.Dot, 1, whole.Schema())
	require.NoError(t, err)
	_, _, err = tw.Vector(t.Context(), shard.Moment{}, apps[0].ID)
	require.ErrorIs(t, err, gone)
	_, err = tw.Vectors(t.Context(), shard.Moment{}, []string{apps[0].ID})
	require.ErrorIs(t, err, gone)
}

// A part answers the same whether it kept something of the query or not.
func TestKeptIsForSpeedOnly(t *testing.T) {
	apps := shardtest.Grid(600)
	for i := range apps {
		apps[i].Developer = fmt.Sprint(i % 7)
	}
	tw := openApps(t, t.TempDir(), apps, 1, 1, index.Dot)
	defer func() { require.NoError(t, tw.Close()) }()
	part := tw.Parts()[0]
	r := &shard.Request{Vectors: [][]float32{{1}}, K: 10, Target: 1, Limited: []int{shardtest.Developer}, Exclude: []string{apps[599].ID, "nobody"}}
	var kept shard.Reply
	for range 5 {
		require.NoError(t, part.Search(t.Context(), r, &kept))
		require.NotNil(t, kept.Kept)
		var anew shard.Reply
		require.NoError(t, part.Search(t.Context(), r, &anew))
		require.Equal(t, kept.Hits, anew.Hits)
		require.Equal(t, []int{kept.Eligible, kept.Left, kept.Asked, kept.UnknownExclude}, []int{anew.Eligible, anew.Left, anew.Asked, anew.UnknownExclude})
		require.Equal(t, 1, anew.UnknownExclude)
		anew.Kept.Release()
		for _, h := range kept.Hits {
			if !slices.Contains(r.Full, h.Values[0]) && len(r.Full) < 5 {
				v := h.Values[0]
				r.Full = append(r.Full, shard.FieldValue{Field: v.Field, Text: fmt.Sprint(v.Text)})
				r.Taken = append(r.Taken, h.Ref)
				break
			}
		}
		r.K *= 2
	}
	require.Len(t, r.Full, 5)
	kept.Kept.Release()
}
