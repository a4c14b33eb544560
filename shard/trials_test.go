package shard_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

var (
	trials     = flag.Int("trials", 20_000, "how many queries TestTrials asks")
	trialsSeed = flag.Uint64("seed", 1, "what TestTrials draws from")
)

// How often what is dear to make is used: a data set for trialFilters filters, a
// filter for trialQueries queries.
const (
	trialFilters = 40
	trialQueries = 30
	trialAsks    = 12 // different query vectors of a data set
)

// TestTrials draws data sets, filters and queries, and checks every answer against
// an evaluation of the filter row by row and the scores of all rows. A trial is one
// query. A failure tells the data set by -seed and its number, and what was asked.
func TestTrials(t *testing.T) {
	var tally trialTally
	dir := t.TempDir()
	start := time.Now()
	for set := uint64(0); tally.trials < *trials; set++ {
		r := rand.New(rand.NewPCG(*trialsSeed, set))
		s := newTrialSet(t, r, filepath.Join(dir, "store"))
		tally.sets++
		for range trialFilters {
			if tally.trials >= *trials {
				break
			}
			f := drawTrialFilter(r, 3)
			tally.filters++
			filter, err := s.tower.Compile(f.text)
			require.NoError(t, err, f.text)
			bound, err := filter.Bind(s.user.bindings())
			require.NoError(t, err, f.text)
			eligible := 0
			for i := range s.rows {
				s.passes[i] = f.holds(&s.rows[i], &s.user)
				if s.passes[i] {
					eligible++
				}
			}
			for range min(trialQueries, *trials-tally.trials) {
				ask, q := s.drawQuery(r)
				q.Filter = &bound
				err := s.try(ask, q, eligible, &tally)
				if err != nil {
					t.Fatalf("seed %d, data set %d (%s, %d rows, %d shards): %v\nfilter %s\nuser %+v\nquery %+v",
						*trialsSeed, set, s.metric, len(s.rows), len(s.tower.Shards()), err, f.text, s.user, *q)
				}
			}
		}
		require.NoError(t, s.tower.Close())
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "store")))
	}
	took := time.Since(start)
	t.Logf("seed %d: %s; %.0f trials/s", *trialsSeed, &tally, float64(tally.trials)/took.Seconds())
	if *trials >= 20_000 {
		require.Greater(t, tally.walked, tally.trials/5, "walks must be tried too")
		require.Greater(t, tally.exact, tally.trials/5)
	}
}

// trialTally counts what was tried.
type trialTally struct {
	sets, filters, trials  int
	candidates, ineligible int // returned in all; rows that must not be, in all
	none, all              int // trials where no row is eligible, or every one
	exact                  int // trials whose ids were compared in order
	walked                 int // trials where a shard walked
	plans                  [8]int
	missed                 int // of the best k, in trials where a shard walked
	wanted                 int
}

func (y *trialTally) String() string {
	return fmt.Sprintf("%d trials, %d data sets, %d filters; %d candidates returned, %d rows were not eligible; no row eligible in %d, every row in %d; "+
		"compared to brute force in order in %d, walked in %d (recall %.4f); shards' plans: %d %v, %d %v, %d %v",
		y.trials, y.sets, y.filters, y.candidates, y.ineligible, y.none, y.all,
		y.exact, y.walked, 1-float64(y.missed)/float64(max(y.wanted, 1)),
		y.plans[index.ExactScan], index.ExactScan, y.plans[index.GraphWalk], index.GraphWalk, y.plans[index.FilteredWalk], index.FilteredWalk)
}

// trialRow is a row; what it does not have is nil.
type trialRow struct {
	id       string
	vector   []float32
	flag     *bool
	genre    *string
	price    *float64
	released *int64
	tags     []string
	year     *int64
}

// The attributes of a trialRow, by their places in the schema.
const (
	trialFlag = iota
	trialGenre
	trialPrice
	trialReleased
	trialTags
	trialYear
)

// trialUser has the values of the bindings.
type trialUser struct {
	s string
	i int64
	f float64
	b bool
	l []string
}

func (u *trialUser) bindings() map[string]any {
	l := make([]any, len(u.l))
	for i, s := range u.l {
		l[i] = s
	}
	return map[string]any{"s": u.s, "i": u.i, "f": u.f, "b": u.b, "l": l}
}

// trialAsk is query vectors with the answer to them if every row is eligible.
type trialAsk struct {
	vectors [][]float32
	scores  []float64 // by row
	order   []int32   // the rows, best first, ties by id
}

type trialSet struct {
	metric index.Metric
	// Whether scores are exact in float32, so that the order must be that of brute
	// force even among rows that differ by little.
	integral bool
	rows     []trialRow // ascending by id
	byID     map[string]int32
	tower    *shard.Tower
	user     trialUser
	asks     []trialAsk
	passes   []bool // rows that the filter makes eligible

	// The trial that last excluded, included or returned a row.
	trial                        int32
	excluded, included, returned []int32
	want                         []int32
}

var trialWords = []string{"", "a", "ab", "abc", "b", "ü"}

func maybe[T any](r *rand.Rand, v T) *T {
	if r.IntN(5) == 0 {
		return nil
	}
	return &v
}

func oneOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func newTrialSet(t *testing.T, r *rand.Rand, dir string) *trialSet {
	s := &trialSet{
		metric:   oneOf(r, index.Dot, index.Cosine, index.L2),
		integral: r.IntN(2) == 0,
		byID:     map[string]int32{},
		user: trialUser{
			s: oneOf(r, trialWords...), i: r.Int64N(4) - 1, f: oneOf(r, -0.5, 0, 0.5, 1),
			b: r.IntN(2) == 0, l: []string{oneOf(r, trialWords...), oneOf(r, trialWords...)},
		},
	}
	dim := 2 + r.IntN(7)
	// Half of the sets are large, because the planner scans small ones.
	n := 1 + r.IntN(1+r.IntN(2000))
	if r.IntN(2) == 0 {
		n = 1000 + r.IntN(1001)
	}
	duplicates, correlated := r.IntN(3) == 0, r.IntN(3) == 0
	s.rows = make([]trialRow, n)
	for i := range s.rows {
		row := &s.rows[i]
		row.id = fmt.Sprintf("%c%04d", 'a'+rune(r.IntN(7)), i)
		row.vector = s.drawVector(r, dim)
		if duplicates && i > 0 && r.IntN(3) == 0 {
			row.vector = s.rows[r.IntN(i)].vector
		}
		row.flag = maybe(r, r.IntN(2) == 0)
		row.genre = maybe(r, oneOf(r, trialWords...))
		row.price = maybe(r, float64(r.IntN(9)-2)/2)
		row.released = maybe(r, r.Int64N(4)-1)
		for range r.IntN(4) {
			row.tags = append(row.tags, oneOf(r, trialWords...))
		}
		row.year = maybe(r, r.Int64N(7)-2)
		if correlated && row.year != nil { // eligible rows are then near each other
			*row.year = int64(math.Round(float64(row.vector[0])))
		}
	}
	slices.SortFunc(s.rows, func(a, b trialRow) int { return cmp.Compare(a.id, b.id) })
	for i, row := range s.rows {
		s.byID[row.id] = int32(i)
	}
	s.passes = make([]bool, n)
	s.excluded, s.included, s.returned = make([]int32, n), make([]int32, n), make([]int32, n)
	s.tower = s.openTower(t, r, dir, dim)
	for range trialAsks {
		s.asks = append(s.asks, s.drawAsk(r, dim))
	}
	return s
}

func (s *trialSet) drawVector(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for {
		zero := true
		for j := range v {
			v[j] = float32(r.NormFloat64())
			if s.integral {
				v[j] = float32(r.IntN(7) - 3)
			}
			zero = zero && v[j] == 0
		}
		if !zero { // which cosine refuses
			return v
		}
	}
}

func (s *trialSet) drawAsk(r *rand.Rand, dim int) trialAsk {
	ask := trialAsk{vectors: [][]float32{s.drawVector(r, dim)}, scores: make([]float64, len(s.rows)), order: make([]int32, len(s.rows))}
	if r.IntN(4) == 0 {
		ask.vectors = append(ask.vectors, s.drawVector(r, dim))
	}
	for i := range s.rows {
		best := score(s.metric, ask.vectors[0], s.rows[i].vector)
		for _, v := range ask.vectors[1:] {
			other := score(s.metric, v, s.rows[i].vector)
			if s.metric == index.L2 {
				best = min(best, other)
			} else {
				best = max(best, other)
			}
		}
		ask.scores[i], ask.order[i] = best, int32(i)
	}
	slices.SortFunc(ask.order, func(a, b int32) int {
		order := cmp.Compare(ask.scores[b], ask.scores[a])
		if s.metric == index.L2 {
			order = -order
		}
		return cmp.Or(order, cmp.Compare(a, b))
	})
	return ask
}

func (s *trialSet) openTower(t *testing.T, r *rand.Rand, dir string, dim int) *shard.Tower {
	schema, err := attribute.NewSchema([]attribute.Field{
		{Name: "flag", Type: attribute.Bool},
		{Name: "genre", Type: attribute.Keyword},
		{Name: "price", Type: attribute.Float},
		{Name: "released", Type: attribute.Timestamp},
		{Name: "tags", Type: attribute.KeywordList},
		{Name: "year", Type: attribute.Int},
	})
	require.NoError(t, err)
	params := index.DefaultParams(s.metric)
	params.M, params.EfConstruction, params.Seed = oneOf(r, 2, 4, 8), 20, r.Uint64()
	store := newStore(t, dir)
	tm := shard.TowerManifest{Params: params.String(), Schema: schema}
	shards, calibrate := 1+r.IntN(4), r.IntN(2) == 0
	for number := range shards {
		var rows []trialRow
		for _, row := range s.rows {
			if shard.Partition(row.id, shards) == number {
				rows = append(rows, row)
			}
		}
		vectors, err := index.NewMatrix(dim, len(rows))
		require.NoError(t, err)
		w := attribute.NewWriter(schema, len(rows))
		var ids []string
		var keys []uint64
		for i, row := range rows {
			require.NoError(t, vectors.Append(row.vector))
			ids, keys = append(ids, row.id), append(keys, shard.Key(row.id))
			row.write(t, w, i)
		}
		x, err := index.Build(t.Context(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(t, err)
		if calibrate { // without it a recall target is always answered by the scan
			sample, err := index.NewMatrix(dim, 10)
			require.NoError(t, err)
			for range 10 {
				require.NoError(t, sample.Append(s.drawVector(r, dim)))
			}
			require.NoError(t, x.Calibrate(t.Context(), sample, 1))
		}
		stage, err := store.Stage()
		require.NoError(t, err)
		path := filepath.Join(stage.Dir(), "a.shard")
		require.NoError(t, shard.Write(path, ids, x, w))
		sm, err := store.AddShard(t.Context(), path)
		require.NoError(t, err)
		require.NoError(t, stage.Close())
		sm.Rows = len(rows)
		tm.Rows += len(rows)
		tm.Shards = append(tm.Shards, sm)
	}
	tw, err := shard.OpenTower(t.Context(), store, &shard.Manifest{
		Version: shard.ManifestVersion, Builder: "test", Model: "feed", ModelVersion: "1",
		Metric: s.metric, Dim: dim, Apps: tm, Users: tm,
	}, shard.Apps)
	require.NoError(t, err)
	return tw
}

// write writes the attributes that the row has.
func (row *trialRow) write(t *testing.T, w *attribute.Writer, i int) {
	set := func(field int, v attribute.Value) { require.NoError(t, w.Set(i, field, v)) }
	if row.flag != nil {
		set(trialFlag, attribute.OfBool(*row.flag))
	}
	if row.genre != nil {
		set(trialGenre, attribute.OfKeyword(*row.genre))
	}
	if row.price != nil {
		set(trialPrice, attribute.OfFloat(*row.price))
	}
	if row.released != nil {
		set(trialReleased, attribute.OfTimestamp(*row.released))
	}
	if len(row.tags) > 0 {
		set(trialTags, attribute.OfKeywords(slices.Clone(row.tags)))
	}
	if row.year != nil {
		set(trialYear, attribute.OfInt(*row.year))
	}
}

// drawQuery draws all of a query but its filter.
func (s *trialSet) drawQuery(r *rand.Rand) (*trialAsk, *shard.Query) {
	ask := &s.asks[r.IntN(len(s.asks))]
	q := &shard.Query{Vectors: ask.vectors, K: 1 + r.IntN(12), MinCoverage: 1}
	if r.IntN(16) == 0 {
		q.K = 1 + r.IntN(len(s.rows)+5)
	}
	switch r.IntN(8) {
	case 0:
		q.Target = 1
	case 1:
		q.Plan, q.Ef = index.ExactScan, 1+r.IntN(20)
	case 2:
		q.Target = oneOf(r, 0.5, 0.9, 0.95, 0.99, 0.999)
	case 3, 4:
		q.Plan, q.Ef = index.GraphWalk, 1+r.IntN(30)
	default:
		q.Ef = 1 + r.IntN(10)
	}
	anyone := func() string {
		if r.IntN(12) == 0 {
			return "nobody"
		}
		return s.rows[r.IntN(len(s.rows))].id
	}
	switch r.IntN(4) {
	case 0: // what would else be returned
		for _, row := range ask.order[:min(len(ask.order), 1+r.IntN(12))] {
			q.Exclude = append(q.Exclude, s.rows[row].id)
		}
	case 1:
		for range r.IntN(30) {
			q.Exclude = append(q.Exclude, anyone())
		}
	}
	if r.IntN(6) == 0 {
		for range 1 + r.IntN(oneOf(r, 3, 60)) {
			q.Include = append(q.Include, anyone())
		}
	}
	if r.IntN(4) == 0 {
		q.Self = anyone()
	}
	return ask, q
}

// may reports whether a row may be returned in the present trial.
func (s *trialSet) may(row int32, q *shard.Query) bool {
	return s.passes[row] && s.excluded[row] != s.trial && (len(q.Include) == 0 || s.included[row] == s.trial)
}

// try asks the query, and says what is wrong with the answer. eligible is how many
// rows pass the filter.
func (s *trialSet) try(ask *trialAsk, q *shard.Query, eligible int, tally *trialTally) error {
	s.trial++
	exclude := func(id string) {
		if row, ok := s.byID[id]; ok && s.excluded[row] != s.trial {
			s.excluded[row] = s.trial
			if s.passes[row] {
				eligible--
			}
		}
	}
	for _, id := range q.Exclude {
		exclude(id)
	}
	exclude(q.Self)
	if len(q.Include) > 0 {
		eligible = 0
		for _, id := range q.Include {
			if row, ok := s.byID[id]; ok && s.included[row] != s.trial {
				s.included[row] = s.trial
				if s.may(row, q) {
					eligible++
				}
			}
		}
	}
	s.want = s.want[:0]
	for _, row := range ask.order {
		if len(s.want) == min(q.K, eligible) {
			break
		}
		if s.may(row, q) {
			s.want = append(s.want, row)
		}
	}

	answer, err := s.tower.Search(context.Background(), q)
	if err != nil {
		return err
	}
	tally.trials++
	tally.candidates += len(answer.Candidates)
	tally.ineligible += len(s.rows) - eligible
	switch eligible {
	case 0:
		tally.none++
	case len(s.rows):
		tally.all++
	}
	if answer.Eligible != eligible {
		return fmt.Errorf("%d rows are said to be eligible, %d are", answer.Eligible, eligible)
	}
	if len(answer.Candidates) != len(s.want) {
		return fmt.Errorf("%d candidates, want %d", len(answer.Candidates), len(s.want))
	}
	walked := false
	for _, a := range answer.Shards {
		tally.plans[a.Plan]++
		walked = walked || a.Plan != index.ExactScan
	}
	// A shard tells its plan for the last query vector only.
	exact := q.Target == 1 || q.Plan == index.ExactScan || !walked && len(q.Vectors) == 1
	if exact && walked {
		return fmt.Errorf("a shard walked, the exact plan was asked for")
	}
	hits := 0
	for i, c := range answer.Candidates {
		row, ok := s.byID[c.ID]
		switch {
		case !ok:
			return fmt.Errorf("%q is no row", c.ID)
		case !s.may(row, q):
			return fmt.Errorf("%s at %d is not eligible", c.ID, i)
		case s.returned[row] == s.trial:
			return fmt.Errorf("%s comes twice", c.ID)
		case !near(c.Score, ask.scores[row]):
			return fmt.Errorf("%s has the score %v, want %v", c.ID, c.Score, ask.scores[row])
		}
		s.returned[row] = s.trial
		if i > 0 {
			last := answer.Candidates[i-1]
			if s.metric.Better(c.Score, last.Score) || c.Score == last.Score && c.ID < last.ID {
				return fmt.Errorf("%s at %d is after %s", c.ID, i, last.ID)
			}
		}
		best := ask.scores[s.want[i]]
		if near(c.Score, best) || s.metric.Better(c.Score, float32(best)) {
			hits++
		}
		switch {
		case !exact:
		case !near(c.Score, best):
			return fmt.Errorf("%s at %d has the score %v, want %s with %v", c.ID, i, c.Score, s.rows[s.want[i]].id, best)
		case s.integral && s.metric != index.Cosine && row != s.want[i]:
			return fmt.Errorf("%s at %d, want %s", c.ID, i, s.rows[s.want[i]].id)
		}
	}
	if exact {
		tally.exact++
	}
	if walked {
		tally.walked++
		tally.wanted += len(s.want)
		tally.missed += len(s.want) - hits
	}
	return nil
}

func near(got float32, want float64) bool {
	return math.Abs(float64(got)-want) <= 1e-5*max(1, math.Abs(want))
}

// trialFilter is a filter and the same thing in Go.
type trialFilter struct {
	text  string
	holds func(*trialRow, *trialUser) bool
}

func drawTrialFilter(r *rand.Rand, depth int) trialFilter {
	if kind := r.IntN(6); depth > 0 && kind < 4 {
		a := drawTrialFilter(r, depth-1)
		if kind == 0 {
			return trialFilter{"!(" + a.text + ")", func(row *trialRow, u *trialUser) bool { return !a.holds(row, u) }}
		}
		b := drawTrialFilter(r, depth-1)
		if kind == 1 {
			return trialFilter{"(" + a.text + " && " + b.text + ")", func(row *trialRow, u *trialUser) bool { return a.holds(row, u) && b.holds(row, u) }}
		}
		return trialFilter{"(" + a.text + " || " + b.text + ")", func(row *trialRow, u *trialUser) bool { return a.holds(row, u) || b.holds(row, u) }}
	}
	return drawTrialTest(r)
}

// drawTrialTest draws one test. What a row does not have passes none but !has.
func drawTrialTest(r *rand.Rand) trialFilter {
	switch r.IntN(14) {
	case 0:
		return trialFilter{"flag", func(row *trialRow, _ *trialUser) bool { return row.flag != nil && *row.flag }}
	case 1:
		return trialFilter{"flag != user.b", func(row *trialRow, u *trialUser) bool { return row.flag != nil && *row.flag != u.b }}
	case 2:
		op, w := drawOp(r), drawWord(r)
		return trialFilter{"genre " + op.text + " " + w.text, func(row *trialRow, u *trialUser) bool {
			return row.genre != nil && op.holds(cmp.Compare(*row.genre, w.value(u)))
		}}
	case 3:
		w := drawWord(r)
		return trialFilter{"genre.startsWith(" + w.text + ")", func(row *trialRow, u *trialUser) bool {
			return row.genre != nil && strings.HasPrefix(*row.genre, w.value(u))
		}}
	case 4:
		l := drawList(r)
		return trialFilter{"genre in " + l.text, func(row *trialRow, u *trialUser) bool {
			return row.genre != nil && slices.Contains(l.value(u), *row.genre)
		}}
	case 5:
		w := drawWord(r)
		return trialFilter{w.text + " in tags", func(row *trialRow, u *trialUser) bool { return slices.Contains(row.tags, w.value(u)) }}
	case 6:
		w, prefix, l := drawWord(r), drawWord(r), drawList(r)
		text := fmt.Sprintf("tags.exists(x, x == %s || x.startsWith(%s) || x in %s)", w.text, prefix.text, l.text)
		return trialFilter{text, func(row *trialRow, u *trialUser) bool {
			return slices.ContainsFunc(row.tags, func(x string) bool {
				return x == w.value(u) || strings.HasPrefix(x, prefix.value(u)) || slices.Contains(l.value(u), x)
			})
		}}
	case 7:
		op, c := drawOp(r), drawNumber(r)
		return trialFilter{"year " + op.text + " " + c.text, func(row *trialRow, u *trialUser) bool {
			return row.year != nil && op.holds(cmp.Compare(float64(*row.year), c.value(u)))
		}}
	case 8: // a range
		low, high := drawNumber(r), drawNumber(r)
		return trialFilter{"(" + low.text + " <= year && year < " + high.text + ")", func(row *trialRow, u *trialUser) bool {
			return row.year != nil && low.value(u) <= float64(*row.year) && float64(*row.year) < high.value(u)
		}}
	case 9:
		a, b := drawNumber(r), drawNumber(r)
		return trialFilter{"year in [" + a.text + ", " + b.text + "]", func(row *trialRow, u *trialUser) bool {
			return row.year != nil && (float64(*row.year) == a.value(u) || float64(*row.year) == b.value(u))
		}}
	case 10:
		op, c := drawOp(r), drawNumber(r)
		return trialFilter{"price " + op.text + " " + c.text, func(row *trialRow, u *trialUser) bool {
			return row.price != nil && op.holds(cmp.Compare(*row.price, c.value(u)))
		}}
	case 11:
		op, ns := drawOp(r), r.Int64N(3)-1
		text := time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
		return trialFilter{fmt.Sprintf("released %s timestamp(%q)", op.text, text), func(row *trialRow, _ *trialUser) bool {
			return row.released != nil && op.holds(cmp.Compare(*row.released, ns))
		}}
	case 12:
		return oneOf(
			r,
			trialFilter{"true", func(*trialRow, *trialUser) bool { return true }},
			trialFilter{"user.b", func(_ *trialRow, u *trialUser) bool { return u.b }},
			trialFilter{"user.i < 1", func(_ *trialRow, u *trialUser) bool { return u.i < 1 }},
			trialFilter{"user.s in user.l", func(_ *trialRow, u *trialUser) bool { return slices.Contains(u.l, u.s) }},
		)
	}
	return oneOf(
		r,
		trialFilter{"has(flag)", func(row *trialRow, _ *trialUser) bool { return row.flag != nil }},
		trialFilter{"has(genre)", func(row *trialRow, _ *trialUser) bool { return row.genre != nil }},
		trialFilter{"has(price)", func(row *trialRow, _ *trialUser) bool { return row.price != nil }},
		trialFilter{"has(released)", func(row *trialRow, _ *trialUser) bool { return row.released != nil }},
		trialFilter{"has(tags)", func(row *trialRow, _ *trialUser) bool { return len(row.tags) > 0 }},
		trialFilter{"!has(year)", func(row *trialRow, _ *trialUser) bool { return row.year == nil }},
	)
}

// operand is a constant or a binding.
type operand[T any] struct {
	text  string
	value func(*trialUser) T
}

func drawWord(r *rand.Rand) operand[string] {
	if r.IntN(5) == 0 {
		return operand[string]{"user.s", func(u *trialUser) string { return u.s }}
	}
	w := oneOf(r, trialWords...)
	return operand[string]{strconv.Quote(w), func(*trialUser) string { return w }}
}

func drawList(r *rand.Rand) operand[[]string] {
	if r.IntN(4) == 0 {
		return operand[[]string]{"user.l", func(u *trialUser) []string { return u.l }}
	}
	var list, quoted []string
	for range r.IntN(4) {
		w := oneOf(r, trialWords...)
		list, quoted = append(list, w), append(quoted, strconv.Quote(w))
	}
	return operand[[]string]{"[" + strings.Join(quoted, ", ") + "]", func(*trialUser) []string { return list }}
}

func drawNumber(r *rand.Rand) operand[float64] {
	switch r.IntN(8) {
	case 0:
		return operand[float64]{"user.i", func(u *trialUser) float64 { return float64(u.i) }}
	case 1:
		return operand[float64]{"user.f", func(u *trialUser) float64 { return u.f }}
	}
	c := float64(r.IntN(9)-3) / 2
	return operand[float64]{strconv.FormatFloat(c, 'g', -1, 64), func(*trialUser) float64 { return c }}
}

// trialOp is a comparison, and whether it holds of operands in an order.
type trialOp struct {
	text  string
	holds func(int) bool
}

func drawOp(r *rand.Rand) trialOp {
	return oneOf(
		r,
		trialOp{"==", func(o int) bool { return o == 0 }},
		trialOp{"!=", func(o int) bool { return o != 0 }},
		trialOp{"<", func(o int) bool { return o < 0 }},
		trialOp{"<=", func(o int) bool { return o <= 0 }},
		trialOp{">", func(o int) bool { return o > 0 }},
		trialOp{">=", func(o int) bool { return o >= 0 }},
	)
}
