package engines

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// predicateOf makes a predicate of some rows.
func predicateOf(s *Set, name string, rows ...uint32) *Predicate {
	p := &Predicate{Name: name, rows: index.NewBitset(s.base.Rows()), eligible: len(rows)}
	for _, row := range rows {
		p.rows.Set(row)
	}
	return p
}

func TestRunFilters(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.Dot, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			s, err := ReadSet(t.Context(), writeSet(t, metric, 600, 100, 7))
			require.NoError(t, err)
			predicates, err := s.Synthetic(1)
			require.NoError(t, err)
			predicates = slices.DeleteFunc(predicates, func(p *Predicate) bool { return p.eligible > 200 })
			all := predicateOf(s, "all")
			all.rows.Fill(600)
			all.eligible = 600
			r, err := RunFilters(t.Context(), s, append(predicates, all), Options{
				Engines: []Spec{{Name: Coder}, {Name: Tandem}, {Name: "hnswlib"}}, Drivers: t.TempDir(),
				K: []int{5, 20}, Ef: []int{600, 20, 3}, Rounds: 2,
			})
			require.NoError(t, err)
			for _, want := range []string{
				"coder is left out: it cannot search among eligible rows: it has no such search",
				"random 0.001 is left out: it leaves 1 rows, want at least 5",
				"near 0.001 is left out: it leaves 1 rows, want at least 5",
			} {
				assert.Contains(t, r.Notes, want)
			}
			require.Len(t, r.Engines, 1)
			var names []string
			for _, p := range r.Predicates {
				names = append(names, p.Name)
				assert.InDelta(t, float64(p.Eligible)/600, p.Selectivity, 1e-9)
				var settings []string
				for _, result := range p.Results {
					settings = append(settings, result.Setting.String())
					assert.Positive(t, result.QPS)
					assert.Equal(t, 50, result.Asked)
					assert.LessOrEqual(t, result.Worst, result.Recall)
					if result.Setting.String() == "exact" || result.Ef == 600 {
						assert.Equal(t, 1.0, result.Recall, "%s, %s", p.Name, result.Setting)
					}
					assert.NotEmpty(t, result.How)
				}
				assert.Contains(t, settings, "target 0.9")
				assert.Contains(t, settings, "target 0.95")
				assert.Contains(t, settings, "target 0.99")
				require.Len(t, p.Summaries, 2)
				for _, summary := range p.Summaries {
					assert.Nil(t, summary.AtTarget)
					assert.Nil(t, summary.AtEqual)
					assert.InDelta(t, summary.QPS/summary.ScanQPS, summary.OverScan, 1e-9)
					assert.Equal(t, p.Name == "no filter", summary.Slowdown == nil)
				}
			}
			assert.Equal(t, []string{"no filter", "random 0.2", "random 0.1", "random 0.05", "random 0.02", "random 0.01",
				"near 0.2", "near 0.05", "near 0.01", "far 0.2", "far 0.05", "far 0.01"}, names[:12])
			assert.Equal(t, "all", names[len(names)-1])
			assert.InDelta(t, 1.0, r.Predicates[0].Correlation, 1e-9)
			assert.NoError(t, r.WriteTable(io.Discard))
			assert.NoError(t, r.WriteSVG(io.Discard))
		})
	}
}

func TestRunFiltersRefuses(t *testing.T) {
	s, err := ReadSet(t.Context(), writeSet(t, index.L2, 20, 3, 2))
	require.NoError(t, err)
	few := predicateOf(s, "few", 1, 2, 3, 4)
	_, err = RunFilters(t.Context(), s, []*Predicate{few}, Options{})
	assert.EqualError(t, err, "none of 1 predicates leaves at least 5 rows")
	_, err = RunFilters(t.Context(), s, []*Predicate{few}, Options{Engines: []Spec{{Name: "faiss"}}})
	assert.EqualError(t, err, "engines are [faiss], want tandem among them")
	_, err = RunFilters(t.Context(), s, []*Predicate{few}, Options{K: []int{0}})
	assert.EqualError(t, err, "k is 0, want 1 to 10000")
}

// TestDriversFilter runs the peers that bench/peers/build.sh has made, if any: with
// enough effort each of them finds the eligible rows, and no others.
func TestDriversFilter(t *testing.T) {
	const drivers = "../peers/bin"
	for _, metric := range []index.Metric{index.L2, index.Dot} {
		s, err := ReadSet(t.Context(), writeSet(t, metric, 400, 100, 9))
		require.NoError(t, err)
		predicates, err := s.Synthetic(3)
		require.NoError(t, err)
		for _, spec := range DefaultSpecs(metric)[1:] {
			t.Run(metric.String()+" "+spec.String(), func(t *testing.T) {
				if _, err := os.Stat(filepath.Join(drivers, spec.Name)); err != nil {
					t.Skipf("run bench/peers/build.sh: %v", err)
				}
				r, err := RunFilters(t.Context(), s, predicates, Options{
					Engines: []Spec{{Name: Tandem}, spec}, Drivers: drivers, K: []int{5}, Ef: []int{400}, Rounds: 1,
				})
				require.NoError(t, err)
				for _, p := range r.Predicates {
					result := p.Results[len(p.Results)-1]
					require.Equal(t, spec, result.Engine)
					assert.GreaterOrEqual(t, result.Recall, 0.95, p.Name)
					assert.NotNil(t, p.Summaries[0].AtTarget, p.Name)
				}
			})
		}
	}
}

func TestSynthetic(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.Dot} {
		s, err := ReadSet(t.Context(), writeSet(t, metric, 10_000, 100, 5))
		require.NoError(t, err)
		predicates, err := s.Synthetic(7)
		require.NoError(t, err)
		again, err := s.Synthetic(7)
		require.NoError(t, err)
		assert.Equal(t, predicates, again)
		other, err := s.Synthetic(8)
		require.NoError(t, err)
		byName := map[string]*Predicate{}
		for i, p := range predicates {
			byName[p.Name] = p
			assert.Equal(t, p.rows.Count(), p.eligible)
			if p.eligible > 0 {
				assert.NotEqual(t, p.rows, other[i].rows, p.Name)
			}
		}
		require.Len(t, byName, len(randomShares)+3*len(regionShares))
		assert.Equal(t, 5000, byName["random 0.5"].eligible)
		assert.Equal(t, 1, byName["random 0.0001"].eligible)
		assert.Equal(t, 0, byName["random 1e-05"].eligible)
		assert.Equal(t, 2000, byName["near 0.2"].eligible)
		assert.Equal(t, 10, byName["far 0.001"].eligible)
		assert.InDelta(t, 500, byName["and 0.05"].eligible, 100)

		// Some query of the sample has exactly a region's rows before all others, or
		// after.
		assert.True(t, hasRegion(s, byName["near 0.05"], 1))
		assert.True(t, hasRegion(s, byName["far 0.05"], -1))
		assert.False(t, hasRegion(s, byName["random 0.05"], 1))
		truths, err := findTruths(t.Context(), s, []*Predicate{nil, byName["random 0.2"], byName["far 0.2"]}, []int{5}, 1, func(int64) {})
		require.NoError(t, err)
		assert.InDelta(t, 1, truths[1].correlation(truths[0]), 0.1)
		assert.InDelta(t, 0.2, truths[2].selectivity(), 1e-9)
	}
	s, err := ReadSet(t.Context(), writeSet(t, index.L2, 20, 1, 2))
	require.NoError(t, err)
	_, err = s.Synthetic(0)
	assert.EqualError(t, err, "the set has one query: a synthetic predicate needs one more, which is not asked")
}

func hasRegion(s *Set, p *Predicate, sign float32) bool {
	distances := make([]float32, s.base.Rows())
	for i := range s.sample.Rows() {
		s.distanceRange(s.sample.padded(i), 0, distances)
		inside, outside := float32(math.Inf(-1)), float32(math.Inf(1))
		for row, d := range distances {
			if p.has(uint32(row)) {
				inside = max(inside, sign*d)
			} else {
				outside = min(outside, sign*d)
			}
		}
		if inside <= outside {
			return true
		}
	}
	return false
}

func TestTruthUnderAPredicate(t *testing.T) {
	s, err := ReadSet(t.Context(), writeSet(t, index.L2, 1500, 9, 3))
	require.NoError(t, err)
	p := predicateOf(s, "some", 3, 64, 511, 512, 700, 1499)
	truths, err := findTruths(t.Context(), s, []*Predicate{nil, p}, []int{3, 10}, 2, func(int64) {})
	require.NoError(t, err)
	assert.ElementsMatch(t, []uint32{3, 64, 511, 512, 700, 1499}, truths[1].top[0])
	for _, test := range []struct {
		k    int
		rows []int32
		want float64
	}{
		{10, []int32{3, 64, 511, 512, 700, 1499, -1, -1}, 1},
		{10, []int32{3, 64, 511, -1}, 0.5},
		{3, []int32{int32(truths[1].top[0][0]), int32(truths[1].top[0][5])}, 1.0 / 3},
	} {
		got, err := truths[1].recall(0, test.k, test.rows)
		require.NoError(t, err)
		assert.Equal(t, test.want, got, "%+v", test)
	}
	_, err = truths[1].recall(0, 3, []int32{64, 65})
	assert.EqualError(t, err, "the answer to query 0 has row 65, which is not eligible")
	assert.Len(t, truths[0].top[0], topRows)
}

// writeTower writes a Parquet tower with attributes and returns how to read the set.
func writeTower(t *testing.T, rows int) SetOptions {
	t.Helper()
	o := writeSet(t, index.Dot, 1, 40, 3)
	schema, err := attribute.NewSchema([]attribute.Field{
		{Name: "platforms", Type: attribute.KeywordList}, {Name: "price", Type: attribute.Float},
	})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "apps.parquet")
	w, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: "app_id", EmbeddingColumn: "embedding", Schema: schema})
	require.NoError(t, err)
	for i := range rows {
		row := &tower.Row{ID: strings.Repeat("a", i+1), Vector: []float32{float32(i), 1, float32(i % 7)}, Attributes: make([]attribute.Value, 2)}
		platforms, _ := schema.Lookup("platforms")
		price, _ := schema.Lookup("price")
		if i%2 == 0 {
			row.Attributes[platforms] = attribute.OfKeywords([]string{"linux", "mac"})
		}
		if i%3 == 0 {
			row.Attributes[price] = attribute.OfFloat(float64(i))
		}
		require.NoError(t, w.Append(row))
	}
	require.NoError(t, w.Close())
	o.Base, o.Attributes = tower.Options{Paths: []string{path}, IDColumn: "app_id"}, true
	return o
}

func TestPredicates(t *testing.T) {
	o := writeTower(t, 100)
	s, err := ReadSet(t.Context(), o)
	require.NoError(t, err)
	n := func(i int) *int { return &i }
	predicates, err := s.Predicates(t.Context(), []Filter{
		{"linux", `"linux" in platforms`, n(50)},
		{"cheap", `price < user.budget && !("linux" in platforms)`, nil},
		{"none", `price < 0.0`, nil},
	}, map[string]any{"budget": int64(50)})
	require.NoError(t, err)
	require.Len(t, predicates, 3)
	assert.Equal(t, []uint32{3, 9, 15, 21, 27, 33, 39, 45}, predicates[1].rows.Append(nil))
	for i, eligible := range []int{50, 8, 0} {
		assert.Equal(t, eligible, predicates[i].eligible)
		assert.Positive(t, predicates[i].Evaluate)
	}
	r, err := RunFilters(t.Context(), s, predicates, Options{Engines: []Spec{{Name: Tandem}}, K: []int{5}, Rounds: 1})
	require.NoError(t, err)
	assert.Equal(t, []string{"none is left out: it leaves 0 rows, want at least 5"}, r.Notes)
	require.Len(t, r.Predicates, 3)
	assert.Equal(t, `"linux" in platforms`, r.Predicates[1].Filter)
	assert.Positive(t, *r.Predicates[1].Evaluate)

	_, err = s.Predicates(t.Context(), []Filter{{"linux", `"linux" in platforms`, n(51)}}, nil)
	assert.EqualError(t, err, "filter linux leaves 50 rows, and should leave 51")
	_, err = s.Predicates(t.Context(), []Filter{{"wrong", `colour == "red"`, nil}}, nil)
	assert.ErrorContains(t, err, "filter wrong: ")
	assert.ErrorAs(t, err, new(*eligibility.Error))
	_, err = s.Predicates(t.Context(), []Filter{{"cheap", `price < user.budget`, nil}}, nil)
	assert.ErrorAs(t, err, new(*eligibility.BindError))

	// What the whole base leaves says nothing of a part of it.
	o.Rows = 10
	s, err = ReadSet(t.Context(), o)
	require.NoError(t, err)
	predicates, err = s.Predicates(t.Context(), []Filter{{"linux", `"linux" in platforms`, n(50)}}, nil)
	require.NoError(t, err)
	assert.Equal(t, 5, predicates[0].eligible)
}

func TestReadFilters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "filters.json")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o644)) }
	write(`[{"name": "a", "filter": "x > 1", "eligible": 3, "share_of_unfiltered_top100": 0.5}, {"name": "b", "filter": "x > 2"}]`)
	filters, err := ReadFilters(path)
	require.NoError(t, err)
	three := 3
	assert.Equal(t, []Filter{{"a", "x > 1", &three}, {"b", "x > 2", nil}}, filters)
	for text, want := range map[string]string{
		`[]`:              path + " has no filters",
		`[{"name": "a"}]`: path + `: filter 1 has name "a" and filter "", want both`,
		`[{"name": "a", "filter": "x > 1"}, {"name": "a", "filter": "x > 2"}]`: path + `: filter 2: name "a" is taken`,
		`{}`: path + ": json: cannot unmarshal object into Go value of type []engines.Filter",
	} {
		write(text)
		_, err := ReadFilters(path)
		assert.EqualError(t, err, want)
	}
	_, err = ReadFilters(filepath.Join(t.TempDir(), "none.json"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestFilterEfforts(t *testing.T) {
	assert.Equal(t, []int{10, 15, 22, 33, 50, 80, 120, 200, 320, 640, 1280, 2560}, Options{}.filterPace().efforts(Spec{}, 10))
	assert.Equal(t, []int{100, 150, 220, 330, 500, 800, 1200, 2000, 3200}, Options{}.filterPace().efforts(Spec{}, 100))
	assert.Equal(t, []int{100, 200}, Options{Ef: []int{50, 100, 200}}.filterPace().efforts(Spec{}, 100))
}

// fixedFilterReport has every form that a report's lines take.
func fixedFilterReport() *FilterReport {
	ours, peer := Spec{Name: Tandem}.withDefaults(), Spec{Name: "hnswlib"}.withDefaults()
	r := &FilterReport{Setup: fixedSetup(), Engines: []Engine{{ours, Cost{12.34, 1.5, 20_000_000}}, {peer, Cost{BuildSeconds: 3}}}, Target: FilterTarget}
	evaluate := 12.5
	for _, p := range []struct {
		PredicateResult
		recall, peer float64 // ours at the target, the peer's at its most effort
	}{
		{PredicateResult{Name: "no filter", Eligible: 44428, Selectivity: 1, Correlation: 1}, 0.96, 0.97},
		{PredicateResult{Name: "vr", Filter: `"VR" in tags`, Eligible: 2169, Selectivity: 0.0488, Correlation: 0.278, Evaluate: &evaluate}, 0.98, 0.96},
		{PredicateResult{Name: "moba", Filter: `"MOBA" in tags`, Eligible: 91, Selectivity: 0.00205, Correlation: 13.4, Evaluate: &evaluate}, 0.9, 0.6},
	} {
		found := p.PredicateResult
		var plain []Result
		for _, k := range []int{10, 100} {
			x := float64(k)
			distances := 20 * x
			found.Results = append(found.Results,
				Result{Engine: ours, Setting: Setting{K: k, Ef: k}, Recall: 0.93, Worst: 0.61, Asked: 1000, QPS: 1e6 / x, Mean: x, P50: 0.9 * x, P99: 2000, Distances: &distances, How: "filtered walk, ef 10"},
				Result{Engine: ours, Setting: Setting{K: k, Target: 0.95}, Recall: p.recall, Worst: 0.7, Asked: 1000, QPS: 8e5 / x, Mean: 1.25 * x, P50: x, P99: 3 * x, Distances: &distances, How: "filtered walk, ef 20"},
				Result{Engine: ours, Setting: Setting{K: k, Target: 0.99}, Recall: 0.995, Worst: 0.8, Asked: 1000, QPS: 5e5 / x, Mean: 2 * x, P50: 2 * x, P99: 5 * x, Distances: &distances, How: "90% filtered walk, ef 40"},
				Result{Engine: ours, Setting: Setting{K: k}, Recall: 1, Worst: 1, Asked: 1000, QPS: 1000, Mean: 1000, P50: 999, P99: 1_100_000, Distances: &distances, How: "exact scan"},
				Result{Engine: peer, Setting: Setting{K: k, Ef: k}, Recall: p.peer - 0.2, Worst: 0, Asked: 1000, QPS: 4e5 / x, Mean: 2.5 * x, P50: 2 * x, P99: 2000},
				Result{Engine: peer, Setting: Setting{K: k, Ef: 2 * k}, Recall: p.peer, Worst: 0.1, Asked: 50, QPS: 1e5 / x, Mean: 10 * x, P50: 9 * x, P99: 2000},
			)
			if p.Filter != "" {
				plain = append(plain, Result{Engine: ours, Setting: Setting{K: k, Target: index.DefaultTarget}, Mean: 1.6 * x})
			}
		}
		found.summarise(ours, plain)
		r.Predicates = append(r.Predicates, found)
	}
	return r
}

func TestFilterReport(t *testing.T) {
	var table, text bytes.Buffer
	require.NoError(t, fixedFilterReport().WriteTable(&table))
	golden(t, "filters.txt", table.Bytes())
	require.NoError(t, fixedFilterReport().WriteJSON(&text))
	golden(t, "filters.json", text.Bytes())
	var back FilterReport
	require.NoError(t, json.Unmarshal(text.Bytes(), &back))
	assert.Equal(t, fixedFilterReport(), &back)
	assert.Error(t, fixedFilterReport().WriteTable(failing{}))
}

func TestSummary(t *testing.T) {
	r := fixedFilterReport()
	s := r.Predicates[1].summary(10)
	assert.True(t, s.Met)
	assert.InDelta(t, 80, s.OverScan, 1e-9)
	require.NotNil(t, s.AtTarget)
	assert.InDelta(t, s.QPS/s.AtTarget.QPS, s.AtTarget.Ratio, 1e-9)
	assert.Equal(t, 0.95, s.AtTarget.Recall)
	assert.Nil(t, s.AtEqual, "the peer does not reach 0.98")
	assert.InDelta(t, 2/1.6, *s.Slowdown, 1e-9)

	s = r.Predicates[2].summary(100)
	assert.False(t, s.Met)
	assert.Nil(t, s.AtTarget)
	assert.Nil(t, s.AtEqual)

	// Who misses one row in a thousand has found all.
	p := &r.Predicates[1]
	for i := range p.Results {
		if p.Results[i].Setting == (Setting{K: 10, Target: 0.95}) {
			p.Results[i].Recall = 1
		}
		if p.Results[i].Setting == (Setting{K: 10, Ef: 20}) {
			p.Results[i].Recall = 0.9991
		}
	}
	p.Summaries = nil
	p.summarise(r.Engines[0].Engine, nil)
	require.NotNil(t, p.summary(10).AtEqual)
	assert.Equal(t, 0.999, p.summary(10).AtEqual.Recall)
	assert.Nil(t, p.summary(10).Slowdown)
}

func TestRecallAt(t *testing.T) {
	peer := Spec{Name: "hnswlib"}
	p := &PredicateResult{Results: []Result{
		{Engine: Spec{Name: Tandem}, Setting: Setting{K: 5, Ef: 10}, Recall: 0.1},
		{Engine: peer, Setting: Setting{K: 5, Ef: 10}, Recall: 0.8},
		{Engine: peer, Setting: Setting{K: 5, Ef: 20}, Recall: 1},
		{Engine: peer, Setting: Setting{K: 6, Ef: 40}, Recall: 0.3},
	}}
	for ef, want := range map[int]float64{10: 0.8, 20: 1, 40: 1} {
		recall, ok := p.recallAt(peer, 5, ef)
		assert.True(t, ok)
		assert.Equal(t, want, recall, "ef %d", ef)
	}
	_, ok := p.recallAt(peer, 7, 10)
	assert.False(t, ok)
	ef, ok := p.reaches(peer, 5, 0.9)
	assert.True(t, ok)
	assert.Equal(t, 20, ef)
	_, ok = p.reaches(peer, 6, 0.9)
	assert.False(t, ok)
}

func TestFilterSVG(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, fixedFilterReport().WriteSVG(&b))
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
	for _, want := range []string{"tandem", "tandem, exact scan", "tandem, target 0.95", "hnswlib", "recall@10", "recall@100", "selectivity"} {
		assert.Contains(t, texts, want)
	}
	assert.Error(t, fixedFilterReport().WriteSVG(failing{}))
}

func TestSurveyWithin(t *testing.T) {
	assert.Equal(t, 100, within(time.Second, 100*time.Millisecond, 10, 20, 1000))
	assert.Equal(t, 20, within(time.Second, 10*time.Second, 10, 20, 1000))
	assert.Equal(t, 1000, within(time.Second, time.Millisecond, 10, 20, 1000))
	assert.Equal(t, 15, within(time.Second, time.Minute, 10, 20, 15))
}
