package attribute

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

const million = 1_000_000

func benchTable(b *testing.B) (*Table, *sections.File) {
	schema := mustSchema(Field{"country", Keyword}, Field{"developer", Keyword}, Field{"free", Bool},
		Field{"price", Float}, Field{"tags", KeywordList}, Field{"year", Int})
	rng := rand.New(rand.NewPCG(1, 2))
	w := NewWriter(schema, million)
	set := func(row int, name string, v Value) {
		field, _ := schema.Lookup(name)
		if err := w.Set(row, field, v); err != nil {
			b.Fatal(err)
		}
	}
	for i := range million {
		set(i, "country", OfKeyword(fmt.Sprint("c", min(rng.IntN(50), rng.IntN(50)))))
		set(i, "developer", OfKeyword(fmt.Sprint("dev", rng.IntN(100_000))))
		set(i, "free", OfBool(rng.IntN(4) == 0))
		set(i, "price", OfFloat(float64(rng.IntN(10_000))/100))
		set(i, "tags", OfKeywords([]string{fmt.Sprint("t", rng.IntN(8)), fmt.Sprint("t", rng.IntN(400))}))
		set(i, "year", OfInt(int64(2000+rng.IntN(27))))
	}
	path := b.TempDir() + "/shard"
	out, err := sections.Create(path)
	if err == nil {
		err = w.Write(out, identity(million))
	}
	if err == nil {
		err = out.Commit()
	}
	if err != nil {
		b.Fatal(err)
	}
	f, err := sections.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	})
	t, err := OpenTable(f, million)
	if err != nil {
		b.Fatal(err)
	}
	return t, f
}

// BenchmarkSet asks one question of a million rows and materialises the answer.
func BenchmarkSet(b *testing.B) {
	t, f := benchTable(b)
	field := func(name string) int { i, _ := t.Schema().Lookup(name); return i }
	dst, scratch := index.NewBitset(million), index.NewBitset(million)
	for _, q := range []struct {
		name string
		ask  func() Set
	}{
		{"has", func() Set { return t.Has(field("price")) }},
		{"bool", func() Set { return t.Is(field("free"), true) }},
		{"keyword_4%", func() Set { return t.Keyword(field("country"), "c0") }},
		{"keyword_0.001%", func() Set { return t.Keyword(field("developer"), "dev777") }},
		{"list_12%", func() Set { return t.Keyword(field("tags"), "t3") }},
		{"prefix_10%_of_100k", func() Set { return t.Prefix(field("developer"), "dev7") }},
		{"float_50%", func() Set { return t.Floats(field("price"), 21.3, 71.4) }},
		{"float_worst", func() Set { return t.Floats(field("price"), 0.7, 99.2) }},
		{"float_1%", func() Set { return t.Floats(field("price"), 10, 11) }},
		{"int_equal_4%", func() Set { return t.Ints(field("year"), 2015, 2015) }},
		{"int_from_44%", func() Set { return t.Ints(field("year"), 2015, 1<<62) }},
	} {
		b.Run(q.name+"/copy", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.ask().CopyTo(dst)
			}
			b.ReportMetric(float64(dst.Count())/million*100, "%eligible")
		})
		b.Run(q.name+"/and", func(b *testing.B) {
			dst.Fill(million)
			b.ReportAllocs()
			for b.Loop() {
				q.ask().And(dst, scratch)
			}
		})
	}
	b.Run("value", func(b *testing.B) {
		b.ReportAllocs()
		i := uint32(0)
		for b.Loop() {
			_ = t.Value(i%million, field("price"))
			i += 7919
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := OpenTable(f, million); err != nil {
				b.Fatal(err)
			}
		}
	})
}
