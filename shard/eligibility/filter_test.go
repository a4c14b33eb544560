package eligibility

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// TestData runs testdata. Commands: "schema" (name type a line), "rows" (a JSON
// object a line), "eval" (a filter a line, as many lines of output) and "text"
// (one filter of many lines). The lines "user.NAME = VALUE" before the filters of
// an eval are its bindings.
func TestData(t *testing.T) {
	for _, name := range []string{"language", "bindings", "errors"} {
		t.Run(name, func(t *testing.T) {
			var schema attribute.Schema
			var table *attribute.Table
			var compiler *Compiler
			runFile(t, "testdata/"+name+".txt", func(command, input string) string {
				values := map[string]any{}
				eval := func(text string) string {
					f, err := compiler.Compile(text)
					if err != nil {
						var e *Error
						require.ErrorAs(t, err, &e)
						return err.Error()
					}
					b, err := f.Bind(ctx, values)
					if err != nil {
						var e *BindError
						require.ErrorAs(t, err, &e)
						return err.Error()
					}
					dst := index.NewBitset(table.Rows())
					n := eval(t, b, table, dst)
					require.Equal(t, dst.Count(), n)
					return formatOrdinals(dst.Append(nil))
				}
				switch command {
				case "schema":
					schema = parseSchema(t, input)
					var err error
					compiler, err = NewCompiler(schema)
					require.NoError(t, err)
					return fmt.Sprint(schema.Names())
				case "rows":
					rows := parseRows(t, schema, input)
					table = newTable(t, t.TempDir(), schema, rows)
					return fmt.Sprintf("%d rows", len(rows))
				case "eval":
					var out []string
					for line := range strings.Lines(input) {
						line = strings.TrimSuffix(line, "\n")
						name, value, ok := strings.Cut(line, " = ")
						if name, isBinding := strings.CutPrefix(name, "user."); ok && isBinding {
							values[name] = parseBinding(t, value)
							continue
						}
						out = append(out, eval(line))
					}
					return strings.Join(out, "\n")
				case "text":
					return eval(input)
				}
				require.Fail(t, "unknown command "+command)
				return ""
			})
		})
	}
}

func steamSchema(t testing.TB) attribute.Schema {
	return parseSchema(t, "platforms keyword_list\nrelease_year int\ntags keyword_list\ngenres keyword_list\nprice_gbp float\nprice_usd float\nrequired_age int")
}

// TestSteamFilters compiles the filters of the steam data set.
func TestSteamFilters(t *testing.T) {
	c, err := NewCompiler(steamSchema(t))
	require.NoError(t, err)
	for _, text := range []string{
		`"windows" in platforms`,
		`release_year >= 2015`,
		`"mac" in platforms`,
		`"Strategy" in tags || "Strategy" in genres`,
		`"linux" in platforms`,
		`price_gbp == 0.0 || (!has(price_gbp) && price_usd == 0.0)`,
		`("Multiplayer" in tags || "Multiplayer" in genres) && (price_gbp < 10.0 || (!has(price_gbp) && price_usd < 10.0))`,
		`"VR" in tags || "VR" in genres`,
		`"linux" in platforms && ("Strategy" in tags || "Strategy" in genres) && (price_gbp < 5.0 || (!has(price_gbp) && price_usd < 5.0))`,
		`required_age >= 18`,
		`"MOBA" in tags || "MOBA" in genres`,
		`"mac" in platforms && required_age >= 18`,
		`has(platforms) && !("windows" in platforms)`,
	} {
		f, err := c.Compile(text)
		if assert.NoError(t, err, text) {
			assert.Empty(t, f.Bindings())
		}
	}
}

func TestClauses(t *testing.T) {
	c, err := NewCompiler(steamSchema(t))
	require.NoError(t, err)
	for _, test := range []struct {
		text string
		want []string
	}{
		{`"VR" in tags`, []string{`"VR" in tags`}},
		{` ((has(tags))) // all`, []string{`((has(tags)))`}},
		{`has(tags) && has(genres) || true`, []string{`has(tags) && has(genres) || true`}},
		{`!(has(tags) && has(genres))`, []string{`!(has(tags) && has(genres))`}},
		{`true && release_year>=2015&&  has(tags)`, []string{`true`, `release_year>=2015`, `has(tags)`}},
		{`((has(tags) && (true || false)) && (has(genres) && true))`, []string{`has(tags)`, `(true || false)`, `has(genres)`, `true`}},
		{`(true || false) && (has(tags))`, []string{`(true || false)`, `(has(tags))`}},
		{`((true) || (false)) && ((has(tags)) && !(true))`, []string{`((true) || (false))`, `(has(tags))`, `!(true)`}},
		{`"a && (b" in tags && ")" in tags`, []string{`"a && (b" in tags`, `")" in tags`}},
		{`(r"\" in tags && "\"(" in tags) && r")" in tags`, []string{`r"\" in tags`, `"\"(" in tags`, `r")" in tags`}},
		{`("""a"(""" in tags && '' in tags) && '''a')''' in tags`, []string{`"""a"(""" in tags`, `'' in tags`, `'''a')''' in tags`}},
		{
			"// ( && \"\n(true // && (\n && has(tags) // )\n) && \"ü//\" in tags && has(genres)",
			[]string{"true", "has(tags)", `"ü//" in tags`, "has(genres)"},
		},
		{`tags.exists(t, t == "a" || t == "b") && "日本" in tags && true`, []string{`tags.exists(t, t == "a" || t == "b")`, `"日本" in tags`, `true`}},
	} {
		f, err := c.Compile(test.text)
		require.NoError(t, err, test.text)
		b, err := f.Bind(ctx, nil)
		require.NoError(t, err)
		assert.Equal(t, test.text, b.String())
		var got []string
		for _, clause := range clauses(t, b) {
			got = append(got, clause.String())
		}
		assert.Equal(t, test.want, got, test.text)
	}
}

func TestCache(t *testing.T) {
	c, err := NewCompiler(steamSchema(t))
	require.NoError(t, err)
	once, err := c.Compile("release_year >= user.year")
	require.NoError(t, err)
	first, err := c.Compile("release_year >= user.year")
	require.NoError(t, err)
	assert.NotSame(t, once, first)
	again, err := c.Compile("release_year >= user.year")
	require.NoError(t, err)
	assert.Same(t, first, again)
	for i := range 2 * cacheSize {
		_, err := c.Compile(fmt.Sprint("release_year <= ", i))
		require.NoError(t, err)
	}
	assert.Len(t, c.cached, 1, "filters that came once are not remembered")
	for i := range 2 * cacheSize {
		_, err := c.Compile(fmt.Sprint("release_year >= ", i/2))
		require.NoError(t, err)
	}
	assert.Len(t, c.cached, cacheSize)
	assert.Equal(t, cacheSize, c.recent.Len())
	again, err = c.Compile("release_year >= user.year")
	require.NoError(t, err)
	assert.NotSame(t, first, again, "the least recently used must have gone")
}

// TestCacheOfLongTexts: what is remembered is bounded in bytes too.
func TestCacheOfLongTexts(t *testing.T) {
	c, err := NewCompiler(steamSchema(t))
	require.NoError(t, err)
	kept := cacheText / (MaxLength / 2)
	for i := range 4 * kept {
		text := fmt.Sprintf("release_year >= %4d", i/2)
		_, err := c.Compile(text + strings.Repeat(" ", MaxLength/2-len(text)))
		require.NoError(t, err)
	}
	assert.Len(t, c.cached, kept)
	assert.Equal(t, cacheText, c.text)
	_, err = c.Compile("has(tags)")
	require.NoError(t, err)
	assert.Len(t, c.cached, kept)
}

// TestTrim: what is remembered is forgotten once nobody has used it from one trim to the
// next, and nothing else is.
func TestTrim(t *testing.T) {
	c, err := NewCompiler(steamSchema(t))
	require.NoError(t, err)
	compile := func(text string) *Filter {
		f, err := c.Compile(text)
		require.NoError(t, err)
		return f
	}
	const used, unused = "release_year >= 2000", "release_year >= user.year"
	filters := map[string]*Filter{}
	for _, text := range []string{used, unused} {
		compile(text)
		filters[text] = compile(text)
	}
	c.Trim()
	assert.Same(t, filters[used], compile(used), "it had been compiled since the beginning")
	c.Trim()
	assert.Same(t, filters[used], compile(used))
	again := compile(unused)
	assert.NotSame(t, filters[unused], again)
	assert.Equal(t, unused, again.String())
	assert.Same(t, again, compile(unused), "it came more than once, and is remembered anew")
	c.Trim()
	c.Trim()
	assert.NotSame(t, filters[used], compile(used))
	assert.NotSame(t, again, compile(unused))
}

func TestLimits(t *testing.T) {
	c, err := NewCompiler(steamSchema(t))
	require.NoError(t, err)
	const x = `"VR" in tags`
	for _, ok := range []string{
		strings.Repeat("(", 40) + x + strings.Repeat(")", 40),
		x + strings.Repeat(" || "+x, 1000),
		"release_year in [" + strings.Repeat("1,", 5000) + "1]",
		strings.Repeat("!(", 30) + x + strings.Repeat(")", 30),
	} {
		_, err := c.Compile(ok)
		assert.NoError(t, err, "%.60s", ok)
	}
	for _, bad := range []struct{ text, want string }{
		{strings.Repeat("(", 100) + x + strings.Repeat(")", 100), "at most 64 levels"},
		{strings.Repeat("!(", 70) + x + strings.Repeat(")", 70), "at most 64 levels"},
		{strings.Repeat("[", 8000), "at most 64 levels"},
		{"user" + strings.Repeat(".a", 5000), "at most 64 levels"},
		{"release_year == " + strings.Repeat("-", 5000) + "1", ""},
		{"release_year == 1" + strings.Repeat("+1", 5000), "at most 64 levels"},
		{x + strings.Repeat(" ", MaxLength), "bytes of text"},
		{"release_year in [" + strings.Repeat("1,", 8000) + "1]", ""},
		{"has(" + strings.Repeat("a.", 5000) + "b)", "at most 64 levels"},
	} {
		_, err := c.Compile(bad.text)
		var e *Error
		if bad.want == "" {
			continue // must only end
		}
		if assert.ErrorAs(t, err, &e, "%.60s", bad.text) {
			assert.Contains(t, e.Message, bad.want, "%.60s", bad.text)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	schema := parseSchema(t, "n int\ntags keyword_list")
	var rows []map[string]attribute.Value
	for i := range 300 {
		rows = append(rows, map[string]attribute.Value{"n": attribute.OfInt(int64(i)), "tags": attribute.OfKeywords([]string{fmt.Sprint(i % 3)})})
	}
	table := newTable(t, t.TempDir(), schema, rows)
	c, err := NewCompiler(schema)
	require.NoError(t, err)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for g := range errs {
		wg.Go(func() {
			dst := index.NewBitset(len(rows))
			for i := range 200 {
				f, err := c.Compile(fmt.Sprintf("n < user.n && (n > %d || !(%q in tags))", i%7, fmt.Sprint(g%3)))
				if err != nil {
					errs[g] = err
					return
				}
				b, err := f.Bind(ctx, map[string]any{"n": int64(i)})
				if err != nil {
					errs[g] = err
					return
				}
				want := 0
				for n := range i {
					if n > i%7 || n%3 != g%3 {
						want++
					}
				}
				got, err := b.Eval(ctx, table, dst)
				if err != nil {
					errs[g] = err
					return
				}
				if got != want {
					errs[g] = fmt.Errorf("n < %d: %d eligible, want %d", i, got, want)
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}
