package attack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// sendFilter sends filters that are hard to parse, to check or to answer, each of them
// new to the server.
func sendFilter(ctx context.Context, a *attacker) {
	q := a.user(a.rand, pick(a.rand, uint32(10), 100, 1000))
	q.Filter = a.filter(a.rand, pick(a.rand, 100, 1000, 16<<10, 17<<10))
	if a.chance(3) {
		q.Bindings = map[string]*structpb.Value{}
		for i := range pick(a.rand, 1, 256, 300) {
			q.Bindings[fmt.Sprint("b", i)] = deepValue(a.rand.IntN(90))
		}
	}
	for range 5 {
		a.send(ctx, "Retrieve", q)
	}
}

// deepValue is a list in a list in a list.
func deepValue(depth int) *structpb.Value {
	v := structpb.NewStringValue("x")
	for range depth {
		v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
	}
	return v
}

// filter returns a filter of up to a number of bytes.
func (c *campaign) filter(r *rand.Rand, bytes int) string {
	repeat := func(separator string, one func() string) string {
		var b strings.Builder
		for b.Len() < bytes {
			term := one()
			if b.Len()+len(separator)+len(term) > bytes {
				break
			}
			if b.Len() > 0 {
				b.WriteString(separator)
			}
			b.WriteString(term)
		}
		return b.String()
	}
	nest := func(open, inner, end string) string {
		n := max((bytes-len(inner))/(len(open)+len(end)), 1)
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	keyword := first(c.target.named(attribute.Keyword))
	list := first(c.target.named(attribute.KeywordList))
	number := first(c.target.named(attribute.Int, attribute.Float))
	term := func() string { return c.term(r) }
	switch r.IntN(24) {
	case 0:
		return repeat(" || ", term)
	case 1:
		return repeat(" && ", term)
	case 2:
		return repeat(" || ", func() string { return "!(" + term() + " && " + term() + ")" })
	case 3:
		return nest("(", term(), ")")
	case 4:
		return nest("!", "("+term()+")", "")
	case 5:
		return nest("!(", term(), ")")
	case 6:
		return nest("("+term()+"||", "true", ")")
	case 7:
		return nest("true ? ", "true", ": false")
	case 8:
		return keyword + " in [" + repeat(",", func() string { return fmt.Sprintf("%q", c.word(r)) }) + "]"
	case 9:
		return number + " in [" + repeat(",", func() string { return fmt.Sprint(r.Int64N(1_000_000)) }) + "]"
	case 10:
		return nest("["+list+",", "[]", "]") + " == []"
	case 11:
		return nest("[1].all(x, ", "true", ")")
	case 12:
		return repeat(" || ", func() string { return "[1,2,3].map(x, x * 2).exists(y, y in [" + fmt.Sprint(r.IntN(99)) + "])" })
	case 13:
		return keyword + `.matches("` + strings.Repeat("(a*)*", min(bytes/8, 1500)) + `$")`
	case 14:
		return keyword + `.startsWith("` + strings.Repeat("\u4e16", bytes/8) + `")`
	case 15:
		return strings.Repeat("a.", bytes/2) + "b == 1"
	case 16:
		return number + " < " + strings.Repeat("9", bytes-50)
	case 17:
		return number + " == " + repeat("+", func() string { return "1" })
	case 18:
		return `"` + strings.Repeat("\\u0000", bytes/8) + `" in ` + list
	case 19:
		return repeat("", func() string { return string(rune(33 + r.IntN(94))) })
	case 20:
		return nest("-", number, "") + " < 0"
	case 21:
		return "has(" + strings.Repeat("has(", bytes/10) + keyword + strings.Repeat(")", bytes/10)
	case 22:
		return repeat(" && ", func() string { return fmt.Sprintf("%q in user.b%d", c.word(r), r.IntN(300)) })
	}
	return nest("{1:", "2", "}") + "[1] == 2"
}

// term is one condition.
func (c *campaign) term(r *rand.Rand) string {
	if len(c.target.Fields) == 0 {
		return "true"
	}
	f := pick(r, c.target.Fields...)
	switch f.Type {
	case attribute.Keyword:
		return pick(r, fmt.Sprintf("%s == %q", f.Name, c.word(r)), fmt.Sprintf("%s >= %q", f.Name, c.word(r)), fmt.Sprintf("%s.startsWith(%q)", f.Name, c.word(r)[:1]))
	case attribute.KeywordList:
		return fmt.Sprintf("%q in %s", c.word(r), f.Name)
	case attribute.Bool:
		return f.Name
	case attribute.Int:
		return fmt.Sprintf("%s %s %d", f.Name, pick(r, "<", ">=", "==", "!="), r.Int64N(3000)-10)
	case attribute.Float:
		return fmt.Sprintf("%s %s %v", f.Name, pick(r, "<", ">=", "==", "!="), float64(r.IntN(10_000))/100+0.001)
	}
	return pick(r, fmt.Sprintf("has(%s)", f.Name), fmt.Sprintf("%s < timestamp(%q)", f.Name, pick(r, "2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z")))
}

// word is a value of a keyword, or none.
func (c *campaign) word(r *rand.Rand) string {
	if len(c.target.Words) == 0 || r.IntN(3) == 0 {
		return fmt.Sprint("w", r.IntN(1_000_000))
	}
	if w := pick(r, c.target.Words...); w != "" {
		return w
	}
	return "w"
}
