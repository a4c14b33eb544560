package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// The attributes of trials, one of each type, by their places in the schema.
const (
	trialCost = iota
	trialFlag
	trialGenre
	trialPrice
	trialReleased
	trialTags
	trialYear
	trialFields
)

var trialNames = [trialFields]string{"cost", "flag", "genre", "price", "released", "tags", "year"}

func trialSchema() attribute.Schema {
	types := [trialFields]attribute.Type{attribute.Float32, attribute.Bool, attribute.Keyword, attribute.Float, attribute.Timestamp, attribute.KeywordList, attribute.Int}
	var fields []attribute.Field
	for i, name := range trialNames {
		fields = append(fields, attribute.Field{Name: name, Type: types[i]})
	}
	schema, err := attribute.NewSchema(fields)
	if err != nil {
		panic(err)
	}
	return schema
}

// trialRow is a row with its attributes, of which it has some.
type trialRow struct {
	id       string
	vector   []float32
	norm     float64
	has      [trialFields]bool
	cost     float32 // of a cent or more
	flag     bool
	genre    string
	price    float64
	released int64 // seconds
	tags     []string
	year     int64
}

// value returns an attribute as shards store it.
func (r *trialRow) value(field int) attribute.Value {
	if !r.has[field] {
		return attribute.Value{}
	}
	switch field {
	case trialCost:
		return attribute.OfFloat32(r.cost)
	case trialFlag:
		return attribute.OfBool(r.flag)
	case trialGenre:
		return attribute.OfKeyword(r.genre)
	case trialPrice:
		return attribute.OfFloat(r.price)
	case trialReleased:
		return attribute.OfTimestamp(time.Unix(r.released, 0))
	case trialTags:
		return attribute.OfKeywords(slices.Clone(r.tags))
	}
	return attribute.OfInt(r.year)
}

// limited returns the values of an attribute that [shard.AtMost] counts.
func (r *trialRow) limited(field int) []string {
	switch {
	case !r.has[field]:
		return nil
	case field == trialTags:
		return slices.Compact(slices.Sorted(slices.Values(r.tags)))
	case field == trialGenre:
		return []string{r.genre}
	case field == trialFlag:
		return []string{fmt.Sprint(r.flag)}
	}
	return []string{fmt.Sprint(r.year)}
}

// What is written for a time that is none, in seconds: the first and the last second that
// RFC 3339 has.
const (
	neverSince = int64(-62_135_596_800)
	neverUntil = int64(253_402_300_799)
)

// drawer draws all that a data set of trials and its queries are made of.
type drawer struct{ *rand.Rand }

func (d drawer) chance(percent int) bool { return d.IntN(100) < percent }

// upTo returns 1 to n, small numbers as often as large ones.
func (d drawer) upTo(n int) int {
	return min(n, int(math.Exp(d.Float64()*math.Log(float64(n)+1))))
}

func pickOne[T any](d drawer, of ...T) T { return of[d.IntN(len(of))] }

var trialWords = []string{"", "a", "ab", "abc", "b", "ba", "c", "ü", "üa", "z"}

// word returns one of trialWords, the first ones often.
func (d drawer) word() string {
	return trialWords[min(int(d.ExpFloat64()*2.5), len(trialWords)-1)]
}

// rows draws rows. Those of some data sets have vectors of which many are equal, of
// whole numbers, or in clusters; and a year that says where a vector lies, so that
// filters on it have to do with the query.
func (d drawer) rows(n, dim int, metric index.Metric, kind vectorKind) []trialRow {
	rows := make([]trialRow, n)
	centres := make([][]float32, 1+d.IntN(8))
	for i := range centres {
		centres[i] = d.vector(dim, kind, nil)
	}
	repeated, clustered, tied := pickOne(d, 0, 0, 10, 60), d.chance(50), d.chance(50)
	absent := pickOne(d, 0, 20, 60)
	for i := range rows {
		r := &rows[i]
		r.id = fmt.Sprintf("%c%d", 'a'+rune(d.IntN(26)), i)
		switch {
		case i > 0 && d.chance(repeated):
			r.vector = rows[d.IntN(i)].vector
		case clustered:
			r.vector = d.vector(dim, kind, centres[d.IntN(len(centres))])
		default:
			r.vector = d.vector(dim, kind, nil)
		}
		if metric == index.Cosine && isZero(r.vector) {
			r.vector[0] = 1
		}
		for _, x := range r.vector {
			r.norm += float64(x) * float64(x)
		}
		r.norm = math.Sqrt(r.norm)
		for field := range r.has {
			r.has[field] = !d.chance(absent)
		}
		r.flag, r.genre, r.price = d.chance(70), d.word(), float64(d.IntN(60))/2-5
		r.cost = float32(d.IntN(2000)) / 100
		if r.released = int64(d.IntN(100))*86_400 - 50*86_400; d.chance(5) {
			r.released = pickOne(d, neverSince, neverUntil)
		}
		for range d.IntN(5) {
			r.tags = append(r.tags, d.word())
		}
		r.has[trialTags] = r.has[trialTags] && len(r.tags) > 0
		if r.year = int64(d.IntN(100)); tied {
			r.year = min(99, max(0, int64(50+40*r.vector[0]/kind.size())))
		}
	}
	return rows
}

// vectorKind says what components are.
type vectorKind int

const (
	smallWhole vectorKind = iota // products are exact, many tie
	byteWhole                    // 0 to 255: shards store bytes
	largeWhole
	gaussian
	vectorKinds
)

func (k vectorKind) size() float32 { return []float32{3, 255, 200, 2}[k] }

// vector draws a vector, near a centre if that is not nil.
func (d drawer) vector(dim int, kind vectorKind, near []float32) []float32 {
	v := make([]float32, dim)
	for j := range v {
		var c, spread float64 = 0, 1
		if near != nil {
			c, spread = float64(near[j]), 0.2
		}
		switch kind {
		case gaussian:
			v[j] = float32(c + spread*d.NormFloat64())
		case byteWhole:
			if near == nil {
				c = 128
			}
			v[j] = float32(math.Round(min(255, max(0, c+60*spread*d.NormFloat64()))))
		default:
			size := float64(kind.size())
			v[j] = float32(math.Round(min(size, max(-size, c+size*spread*d.NormFloat64()/2))))
		}
	}
	return v
}

func isZero(v []float32) bool { return !slices.ContainsFunc(v, func(x float32) bool { return x != 0 }) }

// predicate is a filter in CEL, and the same thing in Go of one row.
type predicate struct {
	text  string
	holds func(*trialRow) bool
}

// condition draws a condition. It reads bindings, and sets what they are, unless
// values is nil.
func (d drawer) condition(depth int, values map[string]any) predicate {
	if depth > 0 && d.chance(70) {
		a := d.condition(depth-1, values)
		if d.chance(20) {
			return predicate{"!(" + a.text + ")", func(r *trialRow) bool { return !a.holds(r) }}
		}
		b := d.condition(depth-1, values)
		if d.chance(50) {
			return predicate{"(" + a.text + " && " + b.text + ")", func(r *trialRow) bool { return a.holds(r) && b.holds(r) }}
		}
		return predicate{"(" + a.text + " || " + b.text + ")", func(r *trialRow) bool { return a.holds(r) || b.holds(r) }}
	}
	field := d.IntN(trialFields)
	name := trialNames[field]
	if d.chance(8) {
		return predicate{"has(" + name + ")", func(r *trialRow) bool { return r.has[field] }}
	}
	text, holds := d.test(field, values)
	return predicate{text, func(r *trialRow) bool { return r.has[field] && holds(r) }}
}

// test draws a test of an attribute that a row has.
func (d drawer) test(field int, values map[string]any) (string, func(*trialRow) bool) {
	switch field {
	case trialCost:
		x := float64(d.IntN(2000)) / 100
		op := d.operator()
		return "cost " + op + " " + d.operand(fmt.Sprintf("%.2f", x), x, values), func(r *trialRow) bool { return holds(op, cmp.Compare(r.cost, float32(x))) }
	case trialFlag:
		want := d.chance(50)
		operand := d.operand(fmt.Sprint(want), want, values)
		if d.chance(30) {
			return "flag != " + operand, func(r *trialRow) bool { return r.flag != want }
		}
		return "flag == " + operand, func(r *trialRow) bool { return r.flag == want }
	case trialGenre, trialTags:
		return d.testWords(field, values)
	case trialPrice:
		x := float64(d.IntN(64))/2 - 6
		op := d.operator()
		return "price " + op + " " + d.operand(fmt.Sprintf("%.1f", x), x, values), func(r *trialRow) bool { return holds(op, cmp.Compare(r.price, x)) }
	case trialReleased:
		x := int64(d.IntN(104))*86_400 - 52*86_400
		if d.chance(10) {
			x = pickOne(d, neverSince, neverUntil)
		}
		at := time.Unix(x, 0).UTC()
		op := d.operator()
		return "released " + op + " " + d.operand(fmt.Sprintf("timestamp(%q)", at.Format(time.RFC3339)), at, values),
			func(r *trialRow) bool { return holds(op, cmp.Compare(r.released, x)) }
	}
	if d.chance(20) {
		var list []string
		var years []int64
		for range d.IntN(4) {
			years = append(years, int64(d.IntN(100)))
			list = append(list, fmt.Sprint(years[len(years)-1]))
		}
		return "year in [" + strings.Join(list, ", ") + "]", func(r *trialRow) bool { return slices.Contains(years, r.year) }
	}
	x, op := int64(d.IntN(104)-2), d.operator()
	if d.chance(20) {
		return fmt.Sprintf("year %s %d.5", op, max(x, 0)), func(r *trialRow) bool { return holds(op, cmp.Compare(float64(r.year), float64(max(x, 0))+0.5)) }
	}
	return "year " + op + " " + d.operand(fmt.Sprint(x), x, values), func(r *trialRow) bool { return holds(op, cmp.Compare(r.year, x)) }
}

// testWords draws a test of the genre or of the tags.
func (d drawer) testWords(field int, values map[string]any) (string, func(*trialRow) bool) {
	word := d.word()
	operand := d.operand(fmt.Sprintf("%q", word), word, values)
	var list []string
	var quoted []string
	var bound []any
	for range d.IntN(4) {
		w := d.word()
		list, quoted, bound = append(list, w), append(quoted, fmt.Sprintf("%q", w)), append(bound, w)
	}
	listed := "[" + strings.Join(quoted, ", ") + "]"
	if len(bound) > 0 {
		listed = d.operand(listed, bound, values)
	}
	one := func(r *trialRow, is func(string) bool) bool {
		if field == trialGenre {
			return is(r.genre)
		}
		return slices.ContainsFunc(r.tags, is)
	}
	equals := func(w string) bool { return w == word }
	starts := func(w string) bool { return strings.HasPrefix(w, word) }
	among := func(w string) bool { return slices.Contains(list, w) }
	if field == trialTags {
		switch d.IntN(4) {
		case 0, 1:
			return operand + " in tags", func(r *trialRow) bool { return one(r, equals) }
		case 2:
			return "tags.exists(t, t.startsWith(" + operand + "))", func(r *trialRow) bool { return one(r, starts) }
		}
		return "tags.exists(t, t in " + listed + " || t == " + operand + ")",
			func(r *trialRow) bool { return one(r, func(w string) bool { return among(w) || equals(w) }) }
	}
	switch d.IntN(4) {
	case 0:
		return "genre.startsWith(" + operand + ")", func(r *trialRow) bool { return one(r, starts) }
	case 1:
		return "genre in " + listed, func(r *trialRow) bool { return one(r, among) }
	}
	op := d.operator()
	return "genre " + op + " " + operand, func(r *trialRow) bool { return holds(op, cmp.Compare(r.genre, word)) }
}

// operand returns a constant, or the name of a binding that is set to it.
func (d drawer) operand(text string, value any, values map[string]any) string {
	if values == nil || !d.chance(30) {
		return text
	}
	name := fmt.Sprintf("v%d", len(values))
	values[name] = value
	return "user." + name
}

func (d drawer) operator() string { return pickOne(d, "==", "!=", "<", "<", "<=", ">", ">", ">=") }

// holds reports whether what cmp.Compare returned is what an operator asks for.
func holds(op string, order int) bool {
	switch op {
	case "==":
		return order == 0
	case "!=":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

// trialSet is a data set, open, with what queries are put together from.
type trialSet struct {
	name     string
	metric   index.Metric
	dim      int
	exact    bool // scores are whole numbers, so that brute force has the same to the bit
	rows     []trialRow
	byID     map[string]int
	tower    *shard.Tower
	segments []trialFilter
	filters  []trialFilter
	vectors  []trialVectors
	lists    []trialList
}

// trialFilter is a filter or a segment, and the rows of the data set for which it
// holds, one by one.
type trialFilter struct {
	text  string
	bound *eligibility.Bound
	rows  index.Bitset
}

// trialVectors are query vectors, and all rows as they rank for them.
type trialVectors struct {
	list   [][]float32
	scores []float64
	within []float64 // what a score may be off by
	order  []int     // rows, best first, ties by id
}

// trialList is a list of ids, of which some may be unknown or repeated, and its rows.
type trialList struct {
	ids  []string
	rows index.Bitset
}

// newTrialSet draws, builds and opens a data set.
func newTrialSet(t testing.TB, dir string, seed, number uint64) *trialSet {
	d := drawer{rand.New(rand.NewPCG(seed, number))}
	kind := vectorKind(d.IntN(int(vectorKinds)))
	s := &trialSet{metric: pickOne(d, index.Dot, index.Cosine, index.L2), dim: 1 + d.IntN(24), byID: map[string]int{}}
	s.exact = kind != gaussian && s.metric != index.Cosine
	n := d.upTo(3000)
	if d.chance(30) {
		n = 1 + d.IntN(3000)
	}
	s.rows = d.rows(n, s.dim, s.metric, kind)
	for i, r := range s.rows {
		s.byID[r.id] = i
	}
	shards := 1 + d.IntN(4)
	s.name = fmt.Sprintf("seed %d, data set %d: %d rows of %d, %s, in %d shards", seed, number, len(s.rows), s.dim, s.metric, shards)
	var segments []shard.Segment
	for i := range d.IntN(3) {
		p := d.condition(2, nil)
		segments = append(segments, shard.Segment{Name: fmt.Sprint("s", i), Expression: p.text})
		s.segments = append(s.segments, trialFilter{text: segments[i].Name, rows: s.thatHold(p)})
	}
	s.open(t, d, dir, shards, kind, segments)
	for len(s.filters) < 24 {
		values := map[string]any{}
		p := d.condition(d.IntN(4), values)
		rows := s.thatHold(p)
		if rows.Count() == 0 && !d.chance(10) {
			continue // else half of the trials would be of none
		}
		filter, err := s.tower.Compile(p.text)
		require.NoError(t, err, "%s: %s", s.name, p.text)
		bound, err := filter.Bind(context.Background(), values)
		require.NoError(t, err, "%s: %s", s.name, p.text)
		s.filters = append(s.filters, trialFilter{text: fmt.Sprint(p.text, values), bound: &bound, rows: rows})
	}
	for range 12 {
		s.vectors = append(s.vectors, s.drawVectors(d, kind))
	}
	for range 8 {
		s.lists = append(s.lists, s.drawList(d))
	}
	return s
}

func (s *trialSet) thatHold(p predicate) index.Bitset {
	rows := index.NewBitset(len(s.rows))
	for i := range s.rows {
		if p.holds(&s.rows[i]) {
			rows.Set(uint32(i))
		}
	}
	return rows
}

// open writes the shards and opens them.
func (s *trialSet) open(t testing.TB, d drawer, dir string, shards int, kind vectorKind, segments []shard.Segment) {
	params := index.DefaultParams(s.metric)
	params.M = pickOne(d, 2, 4, 8)
	params.EfConstruction = params.M + d.IntN(20)
	calibrated := d.chance(50)
	store := shardtest.Store(t, dir)
	m := manifest.Tower{Params: params.String(), Schema: trialSchema()}
	for number := range shards {
		var rows []*trialRow
		for i := range s.rows {
			if shard.Partition(s.rows[i].id, shards) == number {
				rows = append(rows, &s.rows[i])
			}
		}
		slices.SortFunc(rows, func(a, b *trialRow) int { return cmp.Compare(a.id, b.id) })
		vectors, err := index.NewMatrix(s.dim, len(rows))
		require.NoError(t, err)
		w := attribute.NewWriter(m.Schema, len(rows))
		var ids []string
		var keys []uint64
		for i, r := range rows {
			require.NoError(t, vectors.Append(r.vector))
			ids, keys = append(ids, r.id), append(keys, shard.Key(r.id))
			for field := range trialFields {
				require.NoError(t, w.Set(i, field, r.value(field)))
			}
		}
		x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(t, err)
		if calibrated && len(rows) > 0 {
			// As many as it takes to be sure of the default target.
			shape, err := index.NewMatrix(s.dim, 8)
			require.NoError(t, err)
			queries, err := index.NewMatrix(s.dim, 60)
			require.NoError(t, err)
			for range 8 {
				require.NoError(t, shape.Append(s.query(d, kind)))
			}
			for range 60 {
				require.NoError(t, queries.Append(s.query(d, kind)))
			}
			require.NoError(t, x.Calibrate(context.Background(), shape, queries, 1))
		}
		stage, err := store.Stage()
		require.NoError(t, err)
		path := filepath.Join(stage.Dir(), "a.shard")
		require.NoError(t, shard.Write(path, ids, x, w, segments...), s.name)
		sm, err := store.AddShard(t.Context(), path)
		require.NoError(t, err)
		require.NoError(t, stage.Close())
		sm.Rows = len(rows)
		m.Rows += len(rows)
		m.Shards = append(m.Shards, sm)
	}
	for i, segment := range segments {
		m.Segments = append(m.Segments, manifest.Segment{Segment: segment, Eligible: s.segments[i].rows.Count()})
	}
	var err error
	s.tower, err = snapshots.OpenTower(context.Background(), store, &manifest.Manifest{
		Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: "1",
		Metric: s.metric, Dim: s.dim, Apps: m, Users: m,
	}, shard.Apps)
	require.NoError(t, err, s.name)
}

// query draws a query vector: like a row, or like none.
func (s *trialSet) query(d drawer, kind vectorKind) []float32 {
	v := d.vector(s.dim, kind, nil)
	if d.chance(50) {
		v = d.vector(s.dim, kind, s.rows[d.IntN(len(s.rows))].vector)
	}
	if isZero(v) {
		v[0] = 1
	}
	return v
}

func (s *trialSet) drawVectors(d drawer, kind vectorKind) trialVectors {
	v := trialVectors{scores: make([]float64, len(s.rows)), within: make([]float64, len(s.rows))}
	for n := range pickOne(d, 1, 1, 1, 2, 3) {
		q := s.query(d, kind)
		v.list = append(v.list, q)
		norm := math.Sqrt(score(index.Dot, q, q))
		for i, r := range s.rows {
			x := score(s.metric, q, r.vector)
			if n == 0 || s.better(x, v.scores[i]) {
				v.scores[i] = x
			}
			v.within[i] = max(v.within[i], 1e-5*s.scale(norm, r.norm, x))
		}
	}
	v.order = make([]int, len(s.rows))
	for i := range v.order {
		v.order[i] = i
	}
	slices.SortFunc(v.order, func(a, b int) int {
		switch {
		case s.better(v.scores[a], v.scores[b]):
			return -1
		case s.better(v.scores[b], v.scores[a]):
			return 1
		}
		return cmp.Compare(s.rows[a].id, s.rows[b].id)
	})
	return v
}

func (s *trialSet) better(a, b float64) bool {
	if s.metric == index.L2 {
		return a < b
	}
	return a > b
}

// scale returns what an error of a score is relative to: terms of a product cancel.
func (s *trialSet) scale(query, row, score float64) float64 {
	switch {
	case s.exact:
		return 0
	case s.metric == index.Dot:
		return query * row
	case s.metric == index.Cosine:
		return 1
	}
	return score + 1e-5
}

func (s *trialSet) drawList(d drawer) trialList {
	l := trialList{ids: []string{"nobody"}, rows: index.NewBitset(len(s.rows))}
	for range d.upTo(min(len(s.rows), 200)) {
		i := d.IntN(len(s.rows))
		l.ids = append(l.ids, s.rows[i].id)
		l.rows.Set(uint32(i))
	}
	return l
}
