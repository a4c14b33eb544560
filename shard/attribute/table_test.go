package attribute

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// A question and the same question asked of a value.
type question struct {
	name  string
	field int
	set   Set
	want  func(v Value) bool
}

func questions(table *Table, rng *rapid.T) []question {
	schema := table.Schema()
	field := func(name string) int { i, _ := schema.Lookup(name); return i }
	word := rapid.OneOf(rapid.SampledFrom(words8), rapid.StringN(0, 4, 8)).Draw(rng, "word")
	lo, hi := drawInt(rng), drawInt(rng)
	flo, fhi := drawFloat(rng), drawFloat(rng)
	if rapid.IntRange(0, 4).Draw(rng, "unbounded") == 0 {
		hi, fhi = math.MaxInt64, math.Inf(1)
	}
	some := func(f func(s string) bool) func(v Value) bool {
		return func(v Value) bool {
			return v.Type() == Keyword && f(v.Keyword()) || slices.ContainsFunc(v.Keywords(), f)
		}
	}
	var all []question
	for i := range schema.Len() {
		all = append(all, question{"has", i, table.Has(i), func(v Value) bool { return !v.Absent() }})
	}
	for _, name := range []string{"genre", "tags"} {
		i := field(name)
		all = append(all,
			question{name + " keyword", i, table.Keyword(i, word), some(func(s string) bool { return s == word })},
			question{name + " prefix", i, table.Prefix(i, word), some(func(s string) bool { return strings.HasPrefix(s, word) })},
			question{name + " below", i, table.Below(i, word), some(func(s string) bool { return s < word })},
			question{name + " from", i, table.From(i, word), some(func(s string) bool { return s >= word })},
		)
	}
	from, to := drawTime(rng), drawTime(rng)
	in := func(v Value) bool { return !v.Absent() && lo <= v.Int() && v.Int() <= hi }
	exactly := func(v Value) float64 { return float64(v.Float32()) }
	return append(all,
		question{"true", field("flag"), table.Is(field("flag"), true), func(v Value) bool { return !v.Absent() && v.Bool() }},
		question{"false", field("flag"), table.Is(field("flag"), false), func(v Value) bool { return !v.Absent() && !v.Bool() }},
		question{"ints", field("year"), table.Ints(field("year"), lo, hi), in},
		question{"timestamps", field("released"), table.Times(field("released"), from, to), func(v Value) bool {
			return !v.Absent() && !v.Time().Before(from) && !v.Time().After(to)
		}},
		question{"float32s", field("score"), table.Floats(field("score"), flo, fhi), func(v Value) bool { return !v.Absent() && flo <= exactly(v) && exactly(v) <= fhi }},
		question{"a float32", field("score"), table.Floats(field("score"), -1, float64(float32(9.99))), func(v Value) bool { return !v.Absent() && -1 <= exactly(v) && v.Float32() <= 9.99 }},
		question{"floats", field("price"), table.Floats(field("price"), flo, fhi), func(v Value) bool { return !v.Absent() && flo <= v.Float() && v.Float() <= fhi }},
		question{"nan", field("price"), table.Floats(field("price"), math.NaN(), fhi), func(Value) bool { return false }},
	)
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.SampledFrom([]int{0, 1, 5, 63, 64, 130}).Draw(rt, "rows")
		rows := drawRows(rt, allTypes, n)
		order := rapid.Permutation(identity(n)).Draw(rt, "order")
		table, f := store(t, dir, allTypes, rows, order)
		defer f.Close()
		require.True(t, table.Schema().Equal(allTypes))
		for ordinal, r := range order {
			for field, want := range rows[r] {
				got := table.Value(uint32(ordinal), field)
				require.True(t, want.Equal(got), "ordinal %d %s: got %s, want %s", ordinal, allTypes.Field(field).Name, got, want)
				if typ := allTypes.Field(field).Type; typ == Keyword || typ == KeywordList {
					texts := slices.Clone(want.Keywords())
					if want.Type() == Keyword {
						texts = append(texts, want.Keyword())
					}
					for _, code := range table.Codes(uint32(ordinal), field) {
						require.NotEmpty(t, texts)
						require.Equal(t, texts[0], table.Text(field, code))
						texts = texts[1:]
					}
					require.Empty(t, texts)
				}
			}
		}
		for _, q := range questions(table, rt) {
			checkSet(t, q.name, q.set, n, func(i uint32) bool { return q.want(rows[order[i]][q.field]) })
		}
	})
}

// checkSet compares each way to use a set with asking row by row.
func checkSet(t *testing.T, name string, s Set, rows int, want func(i uint32) bool) {
	t.Helper()
	expect, before, scratch := index.NewBitset(rows), index.NewBitset(rows), index.NewBitset(rows)
	for i := range uint32(rows) {
		if want(i) {
			expect.Set(i)
		}
		if i%3 != 0 {
			before.Set(i)
		}
	}
	dirty := func() {
		for i := range scratch {
			scratch[i] = ^uint64(0)
		}
	}
	check := func(op string, use func(dst index.Bitset), combine func(dst, o index.Bitset)) {
		t.Helper()
		dirty()
		got, wanted := slices.Clone(before), slices.Clone(before)
		use(got)
		combine(wanted, expect)
		require.Equal(t, wanted.Append(nil), got.Append(nil), "%s %s", name, op)
	}
	check("copy", s.CopyTo, func(dst, o index.Bitset) { copy(dst, o) })
	check("or", func(dst index.Bitset) { s.Or(dst, scratch) }, index.Bitset.Or)
	check("and", func(dst index.Bitset) { s.And(dst, scratch) }, index.Bitset.And)
	check("and not", func(dst index.Bitset) { s.AndNot(dst, scratch) }, index.Bitset.AndNot)
	if s.Empty() {
		require.Zero(t, expect.Count(), name)
	}
}

// TestLargeShard covers what small shards do not have: bitmap and run
// containers, several containers, and cuts.
func TestLargeShard(t *testing.T) {
	const n = 200_000
	schema := mustSchema(Field{"dense", Keyword}, Field{"many", Keyword}, Field{"lists", KeywordList},
		Field{"number", Int}, Field{"few", Int}, Field{"sparse", Float}, Field{"runs", Bool})
	field := func(name string) int { i, ok := schema.Lookup(name); require.True(t, ok); return i }
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]row, n)
	for i := range rows {
		rows[i] = make(row, schema.Len())
		rows[i][field("dense")] = OfKeyword([]string{"x", "y", "yy"}[rng.IntN(3)])
		rows[i][field("many")] = OfKeyword(string(rune('a'+rng.IntN(26))) + string(rune(0x4e00+rng.IntN(3000))))
		rows[i][field("lists")] = OfKeywords([]string{"even", string(rune('a' + rng.IntN(26)))}[i%2:])
		rows[i][field("number")] = OfInt(rng.Int64N(1_000_000) - 500_000)
		rows[i][field("few")] = OfInt(rng.Int64N(4))
		if rng.IntN(40) == 0 {
			rows[i][field("sparse")] = OfFloat(rng.Float64())
		}
		rows[i][field("runs")] = OfBool(i/70_000%2 == 1)
	}
	table, f := store(t, t.TempDir(), schema, rows, identity(n))
	defer f.Close()
	on := func(name string, want func(v Value) bool) func(i uint32) bool {
		i := field(name)
		return func(o uint32) bool { return want(rows[o][i]) }
	}
	for i := range schema.Len() {
		checkSet(t, "has", table.Has(i), n, on(schema.Field(i).Name, func(v Value) bool { return !v.Absent() }))
	}
	checkSet(t, "dense", table.Keyword(field("dense"), "y"), n, on("dense", func(v Value) bool { return v.Keyword() == "y" }))
	checkSet(t, "dense from", table.From(field("dense"), "y"), n, on("dense", func(v Value) bool { return v.Keyword() >= "y" }))
	for _, p := range []string{"", "k", "k一", "~"} {
		checkSet(t, "many "+p, table.Prefix(field("many"), p), n, on("many", func(v Value) bool { return strings.HasPrefix(v.Keyword(), p) }))
		checkSet(t, "many below "+p, table.Below(field("many"), p), n, on("many", func(v Value) bool { return v.Keyword() < p }))
	}
	checkSet(t, "lists", table.Keyword(field("lists"), "even"), n, on("lists", func(v Value) bool { return slices.Contains(v.Keywords(), "even") }))
	for _, b := range []bool{true, false} {
		checkSet(t, "runs", table.Is(field("runs"), b), n, on("runs", func(v Value) bool { return v.Bool() == b }))
	}
	for range 30 {
		lo, hi := rng.Int64N(1_100_000)-550_000, rng.Int64N(1_100_000)-550_000
		checkSet(t, "number", table.Ints(field("number"), lo, hi), n, on("number", func(v Value) bool { return lo <= v.Int() && v.Int() <= hi }))
		narrow := lo + rng.Int64N(20_000)
		checkSet(t, "narrow", table.Ints(field("number"), lo, narrow), n, on("number", func(v Value) bool { return lo <= v.Int() && v.Int() <= narrow }))
		flo, fhi := rng.Float64(), rng.Float64()
		checkSet(t, "sparse", table.Floats(field("sparse"), flo, fhi), n, on("sparse", func(v Value) bool { return !v.Absent() && flo <= v.Float() && v.Float() <= fhi }))
		few := rng.Int64N(4)
		checkSet(t, "few", table.Ints(field("few"), few, few), n, on("few", func(v Value) bool { return v.Int() == few }))
	}
}

func TestValuesOutliveTheFile(t *testing.T) {
	rows := []row{{OfBool(true), OfKeyword("rpg"), OfFloat(1), OfTimestamp(time.Unix(0, 2)), OfFloat32(4), OfKeywords([]string{"b", "a"}), OfInt(3)}}
	table, f := store(t, t.TempDir(), allTypes, rows, identity(1))
	var got row
	for field := range allTypes.Len() {
		got = append(got, table.Value(0, field))
	}
	require.NoError(t, f.Close())
	for field := range got {
		assert.True(t, rows[0][field].Equal(got[field]))
	}
}

func TestSetRejects(t *testing.T) {
	w := NewWriter(allTypes, 2)
	field := func(name string) int { i, _ := allTypes.Lookup(name); return i }
	for _, c := range []struct {
		row, field int
		v          Value
		want       string
	}{
		{0, field("year"), OfKeyword("x"), `attribute year: value "x" is of type keyword, want int`},
		{0, field("genre"), OfKeyword("\xff"), `attribute genre: "\xff" is not valid UTF-8`},
		{0, field("tags"), OfKeywords([]string{"ok", "\xff"}), `attribute tags: "\xff" is not valid UTF-8`},
		{0, field("price"), OfFloat(math.Inf(1)), `attribute price: value +Inf, want a finite number`},
		{2, 0, OfBool(true), `set attribute: row 2 of 2`},
		{0, field("score"), OfFloat32(float32(math.Inf(-1))), `attribute score: value -Inf, want a finite number`},
		{0, field("score"), OfFloat(1), `attribute score: value "1" is of type float, want float32`},
		{0, field("released"), OfTimestamp(time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)), `attribute released: value 10000-01-01T00:00:00Z, want a time of the years 1 to 9999`},
		{0, 7, OfBool(true), `set attribute: attribute 7 of 7`},
	} {
		assert.EqualError(t, w.Set(c.row, c.field, c.v), c.want)
	}
}

func TestSetTwice(t *testing.T) {
	genre, _ := allTypes.Lookup("genre")
	w := NewWriter(allTypes, 2)
	require.NoError(t, w.Set(0, genre, OfKeyword("old")))
	require.NoError(t, w.Set(0, genre, OfKeyword("new")))
	require.NoError(t, w.Set(1, genre, OfKeyword("gone")))
	require.NoError(t, w.Set(1, genre, Value{}))
	path := t.TempDir() + "/shard"
	out, err := sections.Create(path)
	require.NoError(t, err)
	assert.Error(t, w.Write(out, []uint32{0, 0}))
	assert.Error(t, w.Write(out, []uint32{0}))
	assert.Error(t, w.Write(out, []uint32{0, 2}))
	require.NoError(t, w.Write(out, []uint32{1, 0}))
	require.NoError(t, out.Commit())
	f, err := sections.Open(path)
	require.NoError(t, err)
	defer f.Close()
	table, err := OpenTable(f, 2)
	require.NoError(t, err)
	assert.Equal(t, "new", table.Value(1, genre).Keyword())
	assert.True(t, table.Value(0, genre).Absent())
	assert.Equal(t, 1, table.columns[genre].values())
}

// TestOpenRejects breaks one thing at a time in a file whose checksums are right.
func TestOpenRejects(t *testing.T) {
	const n = 1500 // enough for cuts
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{OfBool(i%2 == 0), OfKeyword(string(rune('a' + i%3))), OfFloat(float64(i%7) + 0.5),
			OfTimestamp(time.Unix(int64(i%5)*1e10, 1)), OfFloat32(float32(i%4) + 0.1), OfKeywords([]string{"x", "y", string(rune('a' + i%3))}), OfInt(int64(i % 9))}
	}
	rows[7] = make(row, allTypes.Len())
	_, f := store(t, t.TempDir(), allTypes, rows, identity(n))
	defer f.Close()
	base := unpack(t, f)
	field := func(name string) int { i, _ := allTypes.Lookup(name); return i }
	le := binary.LittleEndian
	u32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint32(b[4*at:], v); return b }
	}
	u64 := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint64(b[8*at:], v); return b }
	}
	bitmap := func(change func(*roaring.Bitmap)) func([]byte) []byte {
		return func(b []byte) []byte {
			m := roaring.New()
			_, err := m.FromBuffer(b)
			require.NoError(t, err)
			change(m)
			b, err = m.ToBytes()
			require.NoError(t, err)
			return b
		}
	}
	add := func(o uint32) func([]byte) []byte { return bitmap(func(m *roaring.Bitmap) { m.Add(o) }) }
	remove := func(o uint32) func([]byte) []byte { return bitmap(func(m *roaring.Bitmap) { m.Remove(o) }) }
	short := func(b []byte) []byte { return b[:len(b)-1] }
	long := func(b []byte) []byte { return append(b, 0) }
	swap := func(i, j int) func([]byte) []byte {
		return func(b []byte) []byte {
			x, y := le.Uint32(b[4*i:]), le.Uint32(b[4*j:])
			le.PutUint32(b[4*i:], y)
			le.PutUint32(b[4*j:], x)
			return b
		}
	}
	for _, c := range []struct {
		what, attribute, part string
		change                func([]byte) []byte
	}{
		{"too long", "genre", "has", long},
		{"too short", "genre", "has", short},
		{"empty", "genre", "has", func([]byte) []byte { return nil }},
		{"cookie", "genre", "has", u32(0, 99)},
		{"out of range", "genre", "has", add(n)},
		{"far out of range", "genre", "has", add(1 << 31)},
		{"ordinal without value", "genre", "has", add(7)},
		{"value without presence", "genre", "has", remove(8)},
		{"moved", "genre", "has", bitmap(func(m *roaring.Bitmap) { m.Remove(8); m.Add(7) })},
		{"not ascending", "genre", "dict", func(b []byte) []byte { b[1] = 'a'; return b }},
		{"not UTF-8", "genre", "dict", func(b []byte) []byte { b[2] = 0xff; return b }},
		{"too long", "genre", "dict", long},
		{"first offset", "genre", "dict_offsets", u64(0, 1)},
		{"middle offset", "genre", "dict_offsets", u64(1, 99)},
		{"last offset", "genre", "dict_offsets", u64(3, 99)},
		{"no offsets", "genre", "dict_offsets", func([]byte) []byte { return nil }},
		{"odd length", "genre", "dict_offsets", long},
		{"one value less", "genre", "posting_offsets", func(b []byte) []byte { copy(b[16:], b[24:]); return b[:24] }},
		{"middle offset", "genre", "posting_offsets", u64(1, 9)},
		{"cookie", "genre", "postings", u32(0, 99)},
		{"other value", "genre", "rows", u32(0, 1)},
		{"no such value", "genre", "rows", u32(0, 3)},
		{"hidden", "genre", "rows", u32(0, absent)},
		{"appears", "genre", "rows", u32(7, 0)},
		{"too short", "genre", "rows", func(b []byte) []byte { return b[4:] }},
		{"first", "tags", "list_offsets", u32(0, 1)},
		{"descends", "tags", "list_offsets", u32(3, 1)},
		{"beyond", "tags", "list_offsets", u32(3, 1<<30)},
		{"moved", "tags", "list_offsets", u32(3, 8)},
		{"repeated", "tags", "list", u32(1, 0)},
		{"no such value", "tags", "list", u32(2, 5)},
		{"other value", "tags", "list", u32(0, 1)},
		{"without presence", "flag", "true", add(7)},
		{"out of range", "flag", "true", add(n)},
		{"absent has number", "year", "numbers", u64(7, 5)},
		{"other number", "year", "numbers", u64(0, 5)},
		{"NaN", "price", "numbers", u64(0, math.Float64bits(math.NaN()))},
		{"infinite", "price", "numbers", u64(0, math.Float64bits(math.Inf(-1)))},
		{"negative zero", "price", "numbers", u64(0, 1<<63)},
		{"order of numbers", "year", "sorted", swap(0, n-2)},
		{"order of ordinals", "year", "sorted", swap(0, 1)},
		{"repeated", "year", "sorted", u32(0, 9)},
		{"absent", "year", "sorted", u32(0, 7)},
		{"out of range", "year", "sorted", u32(0, n)},
		{"too short", "year", "sorted", func(b []byte) []byte { return b[4:] }},
		{"a bit", "year", "cumulative", func(b []byte) []byte { b[5] ^= 1; return b }},
		{"a bit beyond the rows", "year", "cumulative", func(b []byte) []byte { b[len(b)-1] |= 0x80; return b }},
		{"too short", "year", "cumulative", func(b []byte) []byte { return b[8:] }},
		{"a bit", "released", "cumulative", func(b []byte) []byte { b[5] ^= 1; return b }},
		{"stands for nothing late", "released", "numbers", u64(1, math.MaxInt64-4)},
		{"stands for nothing early", "released", "numbers", u64(1, 1<<63)},
		{"a number that stands for none", "released", "numbers", u64(1, 1<<63|endNumbers-1)},
		{"order of times", "released", "wide", u64(0, 400e8)},
		{"twice the same time", "released", "wide", u64(2, 10e9)},
		{"nanoseconds", "released", "wide", u64(1, 1e9)},
		{"needs no place", "released", "wide", u64(0, 9e9)},
		{"after year 9999", "released", "wide", u64(6, 1<<50)},
		{"odd", "released", "wide", func(b []byte) []byte { return b[:len(b)-8] }},
		{"empty", "released", "wide", func([]byte) []byte { return nil }},
		{"NaN", "score", "numbers", u32(0, math.Float32bits(float32(math.NaN())))},
		{"infinite", "score", "numbers", u32(0, math.Float32bits(float32(math.Inf(1))))},
		{"negative zero", "score", "numbers", u32(0, 1<<31)},
		{"absent has number", "score", "numbers", u32(7, 5)},
		{"order of numbers", "score", "sorted", swap(0, n-2)},
		{"too long", "score", "numbers", func(b []byte) []byte { return append(b, b...) }},
	} {
		t.Run(c.attribute+" "+c.part+" "+c.what, func(t *testing.T) {
			name := sectionName(field(c.attribute), c.part)
			parts := slices.Clone(base)
			i := parts.At(name)
			require.GreaterOrEqual(t, i, 0, "no section %s", name)
			parts[i].Data = c.change(slices.Clone(parts[i].Data))
			require.NotEqual(t, base[i].Data, parts[i].Data)
			broken, err := sections.FromBytes(parts.Pack(f.Features()))
			require.NoError(t, err)
			_, err = OpenTable(broken, n)
			require.ErrorIs(t, err, sections.ErrCorrupt)
			assert.Contains(t, err.Error(), "attribute "+c.attribute)
		})
	}
	for i := range base {
		parts := slices.Delete(slices.Clone(base), i, i+1)
		broken, err := sections.FromBytes(parts.Pack(f.Features()))
		require.NoError(t, err)
		_, err = OpenTable(broken, n)
		require.ErrorIs(t, err, sections.ErrCorrupt)
		if base[i].Name == sectionName(field("released"), "wide") {
			require.ErrorContains(t, err, "that there is a wide timestamp is false")
			continue // a file may have none, but its feature bits say that this one has
		}
		require.Contains(t, err.Error(), base[i].Name)
	}
}
