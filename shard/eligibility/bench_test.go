package eligibility

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

const million = 1_000_000

func benchSchema(b *testing.B) attribute.Schema {
	return parseSchema(b, "country keyword\nfree bool\nmin_age int\nplatforms keyword_list\nprice float\nyear int")
}

func benchTable(b *testing.B, schema attribute.Schema) *attribute.Table {
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]map[string]attribute.Value, million)
	for i := range rows {
		platforms := []string{"linux", "mac", "windows"}[rng.IntN(3):]
		rows[i] = map[string]attribute.Value{
			"country":   attribute.OfKeyword(fmt.Sprint("c", rng.IntN(40))),
			"free":      attribute.OfBool(rng.IntN(4) == 0),
			"min_age":   attribute.OfInt([]int64{0, 0, 7, 12, 16, 18}[rng.IntN(6)]),
			"platforms": attribute.OfKeywords(append([]string(nil), platforms...)),
			"price":     attribute.OfFloat(float64(rng.IntN(10_000)) / 100),
			"year":      attribute.OfInt(int64(2000 + rng.IntN(27))),
		}
	}
	return newTable(b, b.TempDir(), schema, rows)
}

var benchFilters = []struct{ name, text string }{
	{"and3", `"linux" in platforms && min_age <= user.age && price < 10.0`},
	{"and3_ranges", `year >= 2010 && min_age < 16 && price < 35.5`},
	{"and3_kinds", `country == "c7" && "linux" in platforms && year >= 2010`},
	{"and3_keywords", `country == "c7" && "linux" in platforms && !free`},
	{"or_in_and", `("linux" in platforms || "mac" in platforms) && !(country in ["c1", "c2"]) && (price < 5.0 || free)`},
	{"one", `"linux" in platforms`},
}

var benchValues = map[string]any{"age": 12.0}

// BenchmarkEval evaluates filters over a shard of a million rows.
func BenchmarkEval(b *testing.B) {
	schema := benchSchema(b)
	table := benchTable(b, schema)
	dst := index.NewBitset(million)
	c, err := NewCompiler(schema)
	if err != nil {
		b.Fatal(err)
	}
	for _, q := range benchFilters {
		b.Run(q.name, func(b *testing.B) {
			f, err := c.Compile(q.text)
			if err != nil {
				b.Fatal(err)
			}
			bound, err := f.Bind(ctx, benchValues)
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n = eval(b, bound, table, dst)
			}
			b.ReportMetric(float64(n)/million*100, "%eligible")
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	schema := benchSchema(b)
	c, err := NewCompiler(schema)
	if err != nil {
		b.Fatal(err)
	}
	text := benchFilters[0].text
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.compile(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Compile(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	f, err := c.Compile(text)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bind", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := f.Bind(ctx, benchValues); err != nil {
				b.Fatal(err)
			}
		}
	})
}
