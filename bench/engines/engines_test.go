package engines

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
)

var update = flag.Bool("update", false, "write golden files anew")

// writeSet writes files of random vectors and returns how to read them.
func writeSet(t *testing.T, metric index.Metric, rows, queries, dim int) SetOptions {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	file := func(name string, n int) tower.Options {
		v := newVectors(dim, n)
		row := make([]float32, dim)
		for range n {
			for j := range row {
				row[j] = float32(rng.NormFloat64())
			}
			v.append(row)
		}
		path := filepath.Join(dir, name)
		require.NoError(t, v.writeFile(path))
		return tower.Options{Paths: []string{path}, NumberRows: true}
	}
	return SetOptions{Base: file("base.fbin", rows), Queries: file("queries.fbin", queries), Metric: metric, Ask: 60}
}

func TestRun(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.Dot, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			s, err := ReadSet(t.Context(), writeSet(t, metric, 600, 100, 7))
			require.NoError(t, err)
			r, err := Run(t.Context(), s, Options{
				Engines: []Spec{{Name: Tandem}, {Name: Coder, M: 8}, {Name: "hnswlib"}}, Drivers: t.TempDir(),
				K: []int{5}, Ef: []int{600, 5, 3}, Rounds: 2,
			})
			require.NoError(t, err)
			require.Len(t, r.Notes, 1)
			assert.Regexp(t, `^hnswlib is left out: bench/peers/build.sh has not made its driver .*/hnswlib$`, r.Notes[0])
			assert.Equal(t, []any{600, 7, 50, 50, metric}, []any{r.Rows, r.Dim, r.Asked, r.Sample, r.Metric})
			require.Len(t, r.Engines, 2)
			for _, e := range r.Engines {
				assert.Positive(t, e.BuildSeconds)
				assert.Positive(t, e.Bytes)
			}
			var settings []string
			for _, result := range r.Results {
				if result.Engine.Name == Tandem {
					settings = append(settings, result.Setting.String())
				}
				assert.Positive(t, result.QPS)
				assert.LessOrEqual(t, result.P50, result.P99)
				require.NotNil(t, result.Distances)
				assert.Positive(t, *result.Distances)
				if result.Engine.Name == Tandem && result.Ef > 0 {
					require.NotNil(t, result.Floor)
					assert.Positive(t, *result.Floor)
				} else {
					assert.Nil(t, result.Floor)
				}
			}
			assert.Equal(t, []string{"ef 3", "ef 5", "ef 600", "target 0.9", "target 0.95", "target 0.99", "target 0.999", "exact"}, settings)
			for _, result := range r.Results {
				if result.Engine.Name == Tandem && (result.Ef == 600 || result.Ef == 0 && result.Target == 0) {
					assert.Equal(t, 1.0, result.Recall, "%s", result.Setting)
				}
			}
			require.Len(t, r.Levels, 2*len(Levels))
			assert.Equal(t, 1.0, *r.Levels[0].Ratio)
			assert.NoError(t, r.WriteTable(io.Discard))
		})
	}
}

func TestRunWithoutEngines(t *testing.T) {
	s, err := ReadSet(t.Context(), writeSet(t, index.L2, 20, 3, 2))
	require.NoError(t, err)
	_, err = Run(t.Context(), s, Options{Engines: []Spec{{Name: "faiss"}}, Drivers: t.TempDir()})
	assert.ErrorIs(t, err, ErrNoDriver)
	_, err = Run(t.Context(), s, Options{Engines: []Spec{{Name: Coder, Augmented: true}}})
	assert.EqualError(t, err, "build coder augmented: augmented vectors are for inner product, the metric is l2")
}

// TestDrivers runs the peers that bench/peers/build.sh has made, if any. They build on
// one thread: what several threads build differs from run to run, and by inner product
// some of it stays below the recall that is asked for.
func TestDrivers(t *testing.T) {
	const drivers = "../peers/bin"
	for _, metric := range []index.Metric{index.L2, index.Dot} {
		s, err := ReadSet(t.Context(), writeSet(t, metric, 400, 100, 9))
		require.NoError(t, err)
		for _, spec := range DefaultSpecs(metric) {
			if spec.Name == Tandem {
				continue
			}
			t.Run(metric.String()+" "+spec.String(), func(t *testing.T) {
				if _, err := os.Stat(filepath.Join(drivers, spec.Name)); err != nil {
					t.Skipf("run bench/peers/build.sh: %v", err)
				}
				r, err := Run(t.Context(), s, Options{Engines: []Spec{spec}, Drivers: drivers, K: []int{5}, Ef: []int{400}, Rounds: 1, Threads: 1})
				require.NoError(t, err)
				require.Len(t, r.Results, 1)
				assert.GreaterOrEqual(t, r.Results[0].Recall, 0.95)
				assert.Positive(t, r.Engines[0].Bytes)
			})
		}
	}
}

func TestReadSet(t *testing.T) {
	o := writeSet(t, index.Dot, 50, 30, 3)
	o.Rows, o.Ask = 40, 1000
	s, err := ReadSet(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, []int{40, 15, 5, 10}, []int{s.base.Rows(), s.queries.Rows(), s.shape.Rows(), s.sample.Rows()}, "the samples get half of few queries")
	asked := map[float32]bool{}
	for i := range s.queries.Rows() {
		asked[s.queries.Row(i)[0]] = true
	}
	for i := range s.shape.Rows() {
		assert.False(t, asked[s.shape.Row(i)[0]], "what shapes was asked")
		asked[s.shape.Row(i)[0]] = true
	}
	for i := range s.sample.Rows() {
		assert.False(t, asked[s.sample.Row(i)[0]], "the sample was asked, or shapes")
	}

	o.Queries.Paths[0] = filepath.Join(t.TempDir(), "none.fbin")
	_, err = ReadSet(t.Context(), o)
	assert.ErrorIs(t, err, os.ErrNotExist)
	other := writeSet(t, index.Dot, 1, 1, 4)
	o.Queries = other.Queries
	_, err = ReadSet(t.Context(), o)
	assert.ErrorContains(t, err, "has dimension 4")
}

func TestTruthCountsTiesAndRowsOnce(t *testing.T) {
	s := &Set{Metric: index.L2, base: newVectors(1, 5), queries: newVectors(1, 1)}
	for _, x := range []float32{1, 2, 2, 2, 9} {
		s.base.append([]float32{x})
	}
	s.queries.append([]float32{0})
	truths, err := findTruths(t.Context(), s, []*Predicate{nil}, []int{2, 10}, 1, func(int64) {})
	require.NoError(t, err)
	for _, test := range []struct {
		k    int
		rows []int32
		want float64
	}{
		{2, []int32{0, 1}, 1},
		{2, []int32{0, 3}, 1}, // as near as row 1
		{2, []int32{1, 2}, 1},
		{2, []int32{0, 0}, 0.5},
		{2, []int32{4, 0}, 0.5},
		{2, []int32{0, -1}, 0.5},
		{10, []int32{0, 1, 2, 3, 4, -1, -1, -1, -1, -1}, 1}, // all there are
		{10, []int32{0, 1, 2, 3, -1}, 0.8},
	} {
		got, err := truths[0].recall(0, test.k, test.rows)
		require.NoError(t, err)
		assert.Equal(t, test.want, got, "%+v", test)
	}
	_, err = truths[0].recall(0, 2, []int32{0, 5})
	assert.EqualError(t, err, "the answer to query 0 has row 5 of 5")
}

func TestTruthAgainstSorting(t *testing.T) {
	s, err := ReadSet(t.Context(), writeSet(t, index.Dot, 2000, 4, 3))
	require.NoError(t, err)
	var best []float32
	for _, n := range s.nearest(0, 1, 100, []*Predicate{nil})[0][0] {
		best = append(best, n.distance)
	}
	require.Len(t, best, 100)
	assert.IsIncreasing(t, best[:50])
	for _, d := range best {
		assert.LessOrEqual(t, d, best[99])
	}
	n := 0
	for i := range s.base.Rows() {
		var sum float64
		for j, x := range s.base.Row(i) {
			sum -= float64(x) * float64(s.queries.Row(0)[j])
		}
		if sum < float64(best[99])-1e-6 {
			n++
		}
	}
	assert.InDelta(t, 99, n, 1)
}

// The nearest to a query among augmented vectors has its largest inner product.
func TestAugmented(t *testing.T) {
	s, err := ReadSet(t.Context(), writeSet(t, index.Dot, 300, 20, 5))
	require.NoError(t, err)
	base, queries := s.base.augmented(), s.queries.extended()
	require.Equal(t, []int{6, 6}, []int{base.dim, queries.dim})
	norm := squaredNorm(base.Row(0))
	for i := range base.Rows() {
		assert.InDelta(t, norm, squaredNorm(base.Row(i)), 1e-4*norm)
	}
	l2 := &Set{Metric: index.L2, base: base, queries: queries}
	for i := range queries.Rows() {
		scores := make([]float32, base.Rows())
		l2.distanceRange(queries.padded(i), 0, scores)
		products := make([]float32, base.Rows())
		s.distanceRange(s.queries.padded(i), 0, products)
		assert.Equal(t, argmin(products), argmin(scores))
	}
}

func argmin(v []float32) int {
	best := 0
	for i, x := range v {
		if x < v[best] {
			best = i
		}
	}
	return best
}

func TestSpec(t *testing.T) {
	for text, want := range map[string]Spec{
		"hnswlib":                              {Name: "hnswlib", M: 16, EfConstruction: 200},
		"faiss m=32 ef_construction=400":       {Name: "faiss", M: 32, EfConstruction: 400},
		" usearch  augmented ":                 {Name: "usearch", M: 16, EfConstruction: 200, Augmented: true},
		"coder ef_construction=20 augmented":   {Name: "coder", M: 16, EfConstruction: 20, Augmented: true},
		"tandem m=64 ef_construction=64":       {Name: "tandem", M: 64, EfConstruction: 64},
		"hnswlib m=16 ef_construction=200    ": {Name: "hnswlib", M: 16, EfConstruction: 200},
	} {
		got, err := ParseSpec(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got)
		back, err := ParseSpec(got.String())
		require.NoError(t, err)
		assert.Equal(t, got, back)
	}
	for text, want := range map[string]string{
		"":                           `engine "" has no name`,
		"hnswlib m=x":                `engine "hnswlib m=x": "m=x": strconv.Atoi: parsing "x": invalid syntax`,
		"hnswlib n=3":                `engine "hnswlib n=3": "n=3": want m, ef_construction or augmented`,
		"hnswlib augmented=1":        `engine "hnswlib augmented=1": "augmented=1": it takes no value`,
		"../hnswlib":                 `engine name is "../hnswlib", want tandem, coder or that of a driver`,
		"hnswlib m=1":                `engine hnswlib: m is 1, want 2 to 128`,
		"hnswlib ef_construction=10": `engine hnswlib: ef_construction is 10, want m (16) to 10000`,
		"tandem augmented":           `engine tandem takes inner product as it is: it cannot be augmented`,
	} {
		_, err := ParseSpec(text)
		assert.EqualError(t, err, want)
	}
}

func TestValidate(t *testing.T) {
	assert.NoError(t, Options{}.Validate())
	for text, o := range map[string]Options{
		"k is 0, want 1 to 10000":         {K: []int{0}},
		"ef is -1, want at least 1":       {Ef: []int{-1}},
		"rounds is -1, want 1 to 1000":    {Rounds: -1},
		"threads is -1, want 1 to 1024":   {Threads: -1},
		"engine hnswlib is listed twice":  {Engines: []Spec{{Name: "hnswlib"}, {Name: "hnswlib", M: 16}}},
		"engine x: m is 1, want 2 to 128": {Engines: []Spec{{Name: "x", M: 1}}},
	} {
		assert.EqualError(t, o.Validate(), text)
	}
}

func TestEfforts(t *testing.T) {
	other, ours := Spec{Name: "hnswlib"}, Spec{Name: Tandem}
	assert.Equal(t, []int{10, 13, 17, 22, 30, 40, 55, 80, 110, 160, 240, 400, 640}, Options{}.efforts(other, 10))
	assert.Equal(t, []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17, 22, 30, 40, 55, 80, 110, 160, 240, 400, 640}, Options{}.efforts(ours, 10))
	assert.Equal(t, []int{1, 2, 3, 4, 6, 8, 11}, Options{}.efforts(ours, 1)[:7])
	assert.Equal(t, []int{100, 130, 170, 220, 300, 400, 550, 800, 1100, 1600}, Options{}.efforts(other, 100))
	assert.Equal(t, []int{100, 200}, Options{Ef: []int{50, 100, 200}}.efforts(other, 100))
	assert.Equal(t, []int{50, 100, 200}, Options{Ef: []int{50, 100, 200}}.efforts(ours, 100))
}

func TestFront(t *testing.T) {
	f := front([]point{{0.9, 1000}, {0.8, 900}, {0.99, 100}, {0.95, 50}, {0.9, 1100}, {1, 10}})
	assert.Equal(t, []point{{0.9, 1100}, {0.99, 100}, {1, 10}}, f)
	for _, test := range []struct {
		recall, qps float64
		ok          bool
	}{
		{0.5, 1100, true}, // no less effort was tried
		{0.9, 1100, true},
		{0.945, math.Sqrt(1100 * 100), true},
		{0.99, 100, true},
		{0.995, math.Sqrt(100 * 10), true},
		{1, 10, true},
		{1.1, 0, false},
	} {
		qps, ok := at(f, test.recall)
		assert.InDelta(t, test.qps, qps, 1e-9, "%v", test.recall)
		assert.Equal(t, test.ok, ok)
	}
	_, ok := at(nil, 0)
	assert.False(t, ok)
	assert.Empty(t, front(nil))
}

func TestFrontTakesTheMeanOfTheSameWork(t *testing.T) {
	few, many := 10.0, 20.0
	engine := Spec{Name: Tandem}
	f := frontOf([]Result{
		{Engine: engine, Setting: Setting{K: 5, Ef: 5}, Recall: 0.9, QPS: 100, Distances: &few},
		{Engine: engine, Setting: Setting{K: 5, Target: 0.9}, Recall: 0.9, QPS: 120, Distances: &few},
		{Engine: engine, Setting: Setting{K: 5, Ef: 9}, Recall: 0.9, QPS: 90, Distances: &many},
		{Engine: engine, Setting: Setting{K: 6}, Recall: 0.9, QPS: 999},
		{Engine: Spec{Name: Coder}, Setting: Setting{K: 5}, Recall: 0.9, QPS: 999},
	}, engine, 5)
	assert.Equal(t, []point{{0.9, 110}}, f)
}

func fixedSetup() Setup {
	return Setup{
		Base: "towers/apps.parquet", Queries: "towers/users.parquet", Metric: index.Dot, Dim: 64, Rows: 44428,
		Asked: 1000, Sample: 900, Rounds: 5, Threads: 2, Kernel: "avx512", Go: "go1.26.0", Platform: "linux/amd64",
		Notes: []string{"faiss is left out: it is not here"},
	}
}

// fixedReport has every form that a report's lines take.
func fixedReport() *Report {
	r := &Report{Setup: fixedSetup()}
	ours, peer := Spec{Name: Tandem}.withDefaults(), Spec{Name: "hnswlib", M: 32, Augmented: true}.withDefaults()
	r.Engines = []Engine{{ours, Cost{12.34, 1.5, 20_000_000}}, {peer, Cost{BuildSeconds: 3}}}
	for _, k := range []int{10, 100} {
		x := float64(k)
		distances, floor := 20*x, 0.8*x
		r.Results = append(r.Results,
			Result{Engine: ours, Setting: Setting{K: k, Ef: k}, Recall: 0.93, Worst: 0.61, Asked: 1000, QPS: 1e6 / x, Mean: x, P50: 0.9 * x, P99: 2000, Distances: &distances, Floor: &floor, How: "graph walk, ef 10"},
			Result{Engine: ours, Setting: Setting{K: k, Target: 0.99}, Recall: 0.995, Worst: 0.8, Asked: 1000, QPS: 5e5 / x, Mean: 2 * x, P50: 2 * x, P99: 5 * x, Distances: &distances, How: "graph walk, ef 40"},
			Result{Engine: ours, Setting: Setting{K: k}, Recall: 1, Worst: 1, Asked: 1000, QPS: 1000, Mean: 1000, P50: 999, P99: 1_100_000, Distances: &distances, How: "exact scan"},
			Result{Engine: peer, Setting: Setting{K: k, Ef: k}, Recall: 0.8, Worst: 0.2, Asked: 1000, QPS: 4e5 / x, Mean: x, P50: 0.9 * x, P99: 2000},
			Result{Engine: peer, Setting: Setting{K: k, Ef: 2 * k}, Recall: 0.97, Worst: 0.7, Asked: 50, QPS: 1e5 / x, Mean: 10 * x, P50: 9 * x, P99: 2000},
		)
	}
	r.Levels = levels(r.Engines, r.Results)
	return r
}

func TestReport(t *testing.T) {
	var table, text bytes.Buffer
	require.NoError(t, fixedReport().WriteTable(&table))
	golden(t, "report.txt", table.Bytes())
	require.NoError(t, fixedReport().WriteJSON(&text))
	golden(t, "report.json", text.Bytes())
	var back Report
	require.NoError(t, json.Unmarshal(text.Bytes(), &back))
	assert.Equal(t, fixedReport(), &back)
	assert.Error(t, fixedReport().WriteTable(failing{}))
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, fixedReport().WriteSVG(&b))
	d := xml.NewDecoder(&b)
	texts := map[string]bool{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if text, ok := token.(xml.CharData); ok {
			texts[strings.TrimSpace(string(text))] = true
		}
	}
	for _, want := range []string{"tandem", "hnswlib m=32 augmented", "recall@10", "recall@100", "0.999", "5k"} {
		assert.Contains(t, texts, want)
	}
	assert.Error(t, fixedReport().WriteSVG(failing{}))
	empty := &Report{Results: []Result{{Setting: Setting{K: 1}}}}
	assert.NoError(t, empty.WriteSVG(io.Discard))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got), "run with -update if this is right")
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }
