package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
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
)

// flatParts returns the hash partition of apps in memory, of so many shards. All that is asked
// of it is answered by exact scans.
func flatParts(t shardtest.TB, apps []shardtest.App, dim, shards int, metric index.Metric) []shard.Part {
	compiler, err := eligibility.NewCompiler(shardtest.Schema())
	require.NoError(t, err)
	rows := make([][]shardtest.App, shards)
	for _, a := range apps {
		n := shard.Partition(a.ID, shards)
		rows[n] = append(rows[n], a)
	}
	parts := make([]shard.Part, shards)
	for number, rows := range rows {
		slices.SortFunc(rows, func(a, b shardtest.App) int { return cmp.Compare(a.ID, b.ID) })
		vectors, err := index.NewMatrix(dim, len(rows))
		require.NoError(t, err)
		attributes := attribute.NewWriter(shardtest.Schema(), len(rows))
		var ids []string
		for i, a := range rows {
			require.NoError(t, vectors.Append(a.Vector))
			require.NoError(t, attributes.Set(i, shardtest.Developer, attribute.OfKeyword(a.Developer)))
			ids = append(ids, a.ID)
		}
		x, err := index.Flat(vectors, metric)
		require.NoError(t, err)
		s, err := shard.InMemory(fmt.Sprint("shard ", number), ids, x, attributes, nil, compiler)
		require.NoError(t, err)
		parts[number] = shard.NewLocal(s, compiler)
	}
	return parts
}

// elsewherePart is a part that says it is elsewhere. What is asked of it goes by its gate first.
type elsewherePart struct {
	shard.Part
	gate func(ctx context.Context, method string, r *shard.Request) error
}

func (p *elsewherePart) Info() shard.Info {
	info := p.Part.Info()
	info.Elsewhere = true
	return info
}

func (p *elsewherePart) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	if err := p.gate(ctx, "search", r); err != nil {
		return err
	}
	return p.Part.Search(ctx, r, reply)
}

func (p *elsewherePart) Explain(ctx context.Context, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	if err := p.gate(ctx, "explain", r); err != nil {
		return nil, err
	}
	return p.Part.Explain(ctx, r, ids)
}

func (p *elsewherePart) Vectors(ctx context.Context, at shard.Moment, ids []string, dst [][]float32) error {
	if err := p.gate(ctx, "vectors", nil); err != nil {
		return err
	}
	return p.Part.Vectors(ctx, at, ids, dst)
}

func (p *elsewherePart) Attributes(ctx context.Context, at shard.Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (int, error) {
	if err := p.gate(ctx, "attributes", nil); err != nil {
		return 0, err
	}
	return p.Part.Attributes(ctx, at, refs, fields, most, dst)
}

// towerOf returns a tower of parts that are the hash partition.
func towerOf(t shardtest.TB, parts []shard.Part, dim int, metric index.Metric) *shard.Tower {
	tw, err := shard.NewTowerOf(shard.Apps, parts, len(parts), metric, dim, shardtest.Schema())
	require.NoError(t, err)
	return tw
}

// behind returns parts that are elsewhere, each behind the gate.
func behind(parts []shard.Part, gate func(ctx context.Context, method string, r *shard.Request) error) []shard.Part {
	all := make([]shard.Part, len(parts))
	for i, p := range parts {
		all[i] = &elsewherePart{p, gate}
	}
	return all
}

// gathering is a gate that opens once so many calls of the same method wait at it.
type gathering struct {
	mu    sync.Mutex
	of    int
	calls map[string]int
	open  map[string]chan struct{}
}

func (g *gathering) pass(ctx context.Context, method string, _ *shard.Request) error {
	g.mu.Lock()
	if g.open[method] == nil {
		g.open[method] = make(chan struct{})
	}
	open := g.open[method]
	if g.calls[method]++; g.calls[method] == g.of {
		close(open)
	}
	g.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestElsewhereAtOnce: each method of parts that are elsewhere is called of all of them before
// any has returned, on one processor too, beside a part of this process.
func TestElsewhereAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const shards = 16
	apps := shardtest.Grid(400)
	parts := flatParts(t, apps, 1, shards, index.Dot)
	g := &gathering{of: shards - 1, calls: map[string]int{}, open: map[string]chan struct{}{}}
	tw := towerOf(t, append(behind(parts[:shards-1], g.pass), parts[shards-1]), 1, index.Dot)
	q := &shard.Query{Vectors: [][]float32{{1}}, K: 300, Target: 1, MinCoverage: 1, Attributes: []int{shardtest.Developer}, Workers: 1}
	var all []string
	for _, a := range apps {
		all = append(all, a.ID)
	}
	q.Explain = all
	want, err := towerOf(t, parts, 1, index.Dot).Search(t.Context(), q)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only parts that are not asked at once wait
	defer cancel()
	got, err := tw.Search(ctx, q)
	require.NoError(t, err)
	require.Equal(t, want.Candidates, got.Candidates)
	require.Equal(t, want.Explained, got.Explained)
	vectors, err := tw.Vectors(ctx, shard.Moment{}, all)
	require.NoError(t, err)
	for i, a := range apps {
		require.Equal(t, a.Vector, vectors[i])
	}
	require.Equal(t, map[string]int{"search": shards - 1, "explain": shards - 1, "vectors": shards - 1, "attributes": shards - 1}, g.calls)
}

// TestElsewhereEnds: a query ends with its context, and nothing of it is left, whichever method
// is waited for. What has been found by then is answered where that is accepted.
func TestElsewhereEnds(t *testing.T) {
	const shards = 64
	apps := shardtest.Grid(2000)
	parts := flatParts(t, apps, 1, shards, index.Dot)
	for _, stuck := range []string{"search", "explain", "attributes", "vectors"} {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		waiting, inside := 0, 0
		tw := towerOf(t, behind(parts, func(ctx context.Context, method string, _ *shard.Request) error {
			if method != stuck {
				return nil
			}
			mu.Lock()
			inside++
			if waiting++; waiting == shards {
				cancel()
			}
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			inside--
			mu.Unlock()
			return ctx.Err()
		}), 1, index.Dot)
		q := &shard.Query{Vectors: [][]float32{{1}}, K: 2000, Target: 1, MinCoverage: 1, Attributes: []int{shardtest.Developer}}
		for _, a := range apps {
			q.Explain = append(q.Explain, a.ID)
		}
		var err error
		if stuck == "vectors" {
			_, err = tw.Vectors(ctx, shard.Moment{}, q.Explain)
		} else {
			_, err = tw.Search(ctx, q)
		}
		require.ErrorIs(t, err, context.Canceled, stuck)
		require.Equal(t, shards, waiting, stuck)
		require.Zero(t, inside, "a call of %s goes on", stuck)
	}
}

// TestElsewhereLost: of parts that fail as they are asked for attributes or to explain, the
// answer is that of the others.
func TestElsewhereLost(t *testing.T) {
	const shards = 8
	apps := shardtest.Grid(200)
	parts := flatParts(t, apps, 1, shards, index.Dot)
	for _, method := range []string{"search", "explain", "attributes"} {
		gone := func(_ context.Context, called string, _ *shard.Request) error {
			if called == method {
				return fmt.Errorf("the node is gone")
			}
			return nil
		}
		lost := slices.Clone(parts)
		copy(lost[2:4], behind(parts[2:4], gone))
		copy(lost[6:], behind(parts[6:], gone))
		tw := towerOf(t, lost, 1, index.Dot)
		q := &shard.Query{Vectors: [][]float32{{1}}, K: 50, Target: 1, Attributes: []int{shardtest.Developer}, Explain: []string{"app-001", "app-150", "app-199"}}
		var left []shardtest.App
		for _, a := range apps {
			if n := shard.Partition(a.ID, shards); n != 2 && n != 3 && n < 6 {
				left = append(left, a)
			}
		}
		want := bruteForce(index.Dot, left, q, func(shardtest.App) bool { return true })
		if method == "explain" { // of those parts whose rows are explained
			q.Explain = nil
			for _, a := range apps {
				q.Explain = append(q.Explain, a.ID)
			}
		}
		a, err := tw.Search(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, want.top, ids(a))
		require.Equal(t, shards-4, a.Answered())
		q.MinCoverage = 1
		_, err = tw.Search(t.Context(), q)
		var short *shard.CoverageError
		require.ErrorAs(t, err, &short)
		require.ErrorContains(t, err, "the node is gone")
	}
}

// drawSkewed draws apps of which, mostly, one shard of several has far more than its share, and
// many score alike.
func drawSkewed(t *rapid.T, shards, dim int) []shardtest.App {
	full := rapid.IntRange(0, shards-1).Draw(t, "the fullest shard")
	keep := rapid.SampledFrom([]int{1, 3, 20}).Draw(t, "one in so many of the others")
	scores := rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "components")
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	var apps []shardtest.App
	for i := range rapid.IntRange(1, 600).Draw(t, "ids") {
		id := fmt.Sprintf("app-%03d", i)
		if shard.Partition(id, shards) != full && i%keep != 0 {
			continue
		}
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(1 + r.IntN(scores))
		}
		apps = append(apps, shardtest.App{ID: id, Vector: v, Developer: fmt.Sprint(r.IntN(40))})
	}
	return apps
}

// TestFanOutIsOneShard asks of 1 to 64 shards, of which some are elsewhere, what brute force
// finds in all rows: in order, with ties by id, page after page, within limits, for several
// vectors.
func TestFanOutIsOneShard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const dim = 2
		shards := rapid.IntRange(1, 64).Draw(t, "shards")
		apps := drawSkewed(t, shards, dim)
		parts := flatParts(t, apps, dim, shards, index.Dot)
		open := func(context.Context, string, *shard.Request) error { return nil }
		for i := range parts {
			if rapid.Bool().Draw(t, "elsewhere") {
				parts[i] = behind(parts[i:i+1], open)[0]
			}
		}
		tw := towerOf(t, parts, dim, index.Dot)
		for range 5 {
			q := &shard.Query{K: rapid.IntRange(1, 300).Draw(t, "k"), Target: rapid.SampledFrom([]float64{0.9, 1}).Draw(t, "target"), MinCoverage: 1, Attributes: []int{shardtest.Developer}}
			for range rapid.IntRange(1, 3).Draw(t, "vectors") {
				q.Vectors = append(q.Vectors, []float32{float32(rapid.IntRange(1, 3).Draw(t, "x")), float32(rapid.IntRange(-3, 3).Draw(t, "y"))})
			}
			if rapid.Bool().Draw(t, "limited") {
				q.AtMost = []shard.AtMost{{Field: shardtest.Developer, N: rapid.IntRange(1, 5).Draw(t, "n")}}
			}
			for i := range rapid.IntRange(0, 40).Draw(t, "excluded") {
				q.Exclude = append(q.Exclude, fmt.Sprintf("app-%03d", 7*i))
			}
			want := bruteForce(index.Dot, apps, q, func(shardtest.App) bool { return true })
			a, err := tw.Search(context.Background(), q)
			require.NoError(t, err)
			require.Equal(t, append([]string{}, want.top...), append([]string{}, ids(a)...))
			for _, c := range a.Candidates {
				require.Equal(t, float32(want.scores[c.ID]), c.Score)
				at := slices.IndexFunc(apps, func(a shardtest.App) bool { return a.ID == c.ID })
				require.Equal(t, apps[at].Developer, c.Attributes[0].Keyword())
			}
			whole := *q
			whole.K = len(apps) + 1
			want = bruteForce(index.Dot, apps, &whole, func(shardtest.App) bool { return true })
			var paged []string
			for _, c := range pagesOf(t, tw, *q, func() int { return q.K }) {
				paged = append(paged, c.ID)
			}
			require.Equal(t, want.top, paged)
		}
	})
}

// TestFanOutAsksForFew: of a thousand candidates, 16 shards return less than a tenth of what
// each might have of them, and hardly any is asked twice.
func TestFanOutAsksForFew(t *testing.T) {
	const rows, dim, shards, queries = 20_000, 4, 16, 300
	r := rand.New(rand.NewPCG(3, 4))
	vector := func() []float32 {
		v := make([]float32, dim)
		for j := range v {
			v[j] = float32(r.NormFloat64())
		}
		return v
	}
	apps := make([]shardtest.App, rows)
	for i := range apps {
		apps[i] = shardtest.App{ID: fmt.Sprintf("app-%05d", i), Vector: vector()}
	}
	var mu sync.Mutex
	var calls, again int
	parts := flatParts(t, apps, dim, shards, index.Dot)
	tw := towerOf(t, behind(parts, func(_ context.Context, method string, r *shard.Request) error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; r.Expected == 0 {
			again++
			require.Equal(t, 1000, r.K, "it is asked for all")
		} else {
			require.LessOrEqual(t, r.Expected, r.K)
		}
		return nil
	}), dim, index.Dot)
	returned, second := 0, 0
	for range queries {
		before := again
		a, err := tw.Search(t.Context(), &shard.Query{Vectors: [][]float32{vector()}, K: 1000, Target: 0.99, MinCoverage: 1})
		require.NoError(t, err)
		for _, s := range a.Shards {
			returned += s.Asked
		}
		if again > before {
			second++
		}
	}
	require.LessOrEqual(t, float64(returned), 0.1*queries*shards*1000)
	require.LessOrEqual(t, second, queries/100)
	require.Equal(t, queries*shards+again, calls)
}
