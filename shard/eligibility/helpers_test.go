package eligibility

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// runFile runs a data-driven test file: blocks of a command line, input lines,
// "----", and the output that run must return, up to an empty line. Lines that
// start with # between blocks are comments.
func runFile(t *testing.T, path string, run func(command, input string) string) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var out strings.Builder
	blocks := strings.Split(strings.TrimRight(string(data), "\n"), "\n\n")
	for i, block := range blocks {
		var comments []string
		for strings.HasPrefix(block, "#") {
			line, rest, _ := strings.Cut(block, "\n")
			comments, block = append(comments, line+"\n"), rest
		}
		head, want, found := strings.Cut(block, "\n----\n")
		if !found {
			head = strings.TrimSuffix(block, "\n----")
		}
		command, input, _ := strings.Cut(head, "\n")
		got := strings.TrimRight(run(command, input), "\n")
		if !*update {
			require.Equal(t, want, got, "%s: block %d: %s", path, i+1, head)
		}
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(strings.Join(comments, "") + head + "\n----\n" + got + "\n")
	}
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(out.String()), 0o644))
	}
}

// parseSchema reads lines of "name type".
func parseSchema(t testing.TB, text string) attribute.Schema {
	var fields []attribute.Field
	for line := range strings.Lines(text) {
		name, typ, _ := strings.Cut(strings.TrimSpace(line), " ")
		f := attribute.Field{Name: name}
		require.NoError(t, f.Type.UnmarshalText([]byte(typ)))
		fields = append(fields, f)
	}
	schema, err := attribute.NewSchema(fields)
	require.NoError(t, err)
	return schema
}

// parseRows reads lines of JSON objects.
func parseRows(t testing.TB, schema attribute.Schema, text string) []map[string]attribute.Value {
	var rows []map[string]attribute.Value
	for line := range strings.Lines(text) {
		var raw map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(line), &raw), line)
		row := map[string]attribute.Value{}
		for name, data := range raw {
			i, ok := schema.Lookup(name)
			require.True(t, ok, name)
			row[name] = parseValue(t, schema.Field(i).Type, data)
		}
		rows = append(rows, row)
	}
	return rows
}

func parseValue(t testing.TB, typ attribute.Type, data []byte) attribute.Value {
	read := func(v any) { require.NoError(t, json.Unmarshal(data, v), string(data)) }
	switch typ {
	case attribute.Keyword:
		var s string
		read(&s)
		return attribute.OfKeyword(s)
	case attribute.KeywordList:
		var l []string
		read(&l)
		return attribute.OfKeywords(l)
	case attribute.Bool:
		var b bool
		read(&b)
		return attribute.OfBool(b)
	case attribute.Int:
		var i int64
		read(&i)
		return attribute.OfInt(i)
	case attribute.Float:
		var f float64
		read(&f)
		return attribute.OfFloat(f)
	case attribute.Float32:
		var f float32
		read(&f)
		return attribute.OfFloat32(f)
	default:
		var s time.Time
		read(&s)
		return attribute.OfTimestamp(s)
	}
}

// parseBinding reads a binding's value: JSON, int(5) or time(RFC 3339).
func parseBinding(t testing.TB, text string) any {
	if arg, ok := strings.CutPrefix(text, "int("); ok {
		i, err := strconv.ParseInt(strings.TrimSuffix(arg, ")"), 10, 64)
		require.NoError(t, err)
		return i
	}
	if arg, ok := strings.CutPrefix(text, "time("); ok {
		v, err := time.Parse(time.RFC3339Nano, strings.TrimSuffix(arg, ")"))
		require.NoError(t, err)
		return v
	}
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

// newTable stores rows in a shard file and opens it.
func newTable(t testing.TB, dir string, schema attribute.Schema, rows []map[string]attribute.Value) *attribute.Table {
	w := attribute.NewWriter(schema, len(rows))
	order := make([]uint32, len(rows))
	for i, row := range rows {
		order[i] = uint32(i)
		for name, v := range row {
			field, ok := schema.Lookup(name)
			require.True(t, ok, name)
			require.NoError(t, w.Set(i, field, v))
		}
	}
	out, err := sections.Create(filepath.Join(dir, "shard"))
	require.NoError(t, err)
	require.NoError(t, w.Write(out, order))
	require.NoError(t, out.Commit())
	f, err := sections.Open(filepath.Join(dir, "shard"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	table, err := attribute.OpenTable(f, len(rows))
	require.NoError(t, err)
	return table
}

// ctx is that of the queries, which nobody cancels.
var ctx = context.Background()

func eval(t require.TestingT, b Bound, table *attribute.Table, dst index.Bitset) int {
	n, err := b.Eval(ctx, table, dst)
	require.NoError(t, err)
	return n
}

func clauses(t require.TestingT, b Bound) []Bound {
	all, err := b.Clauses(ctx)
	require.NoError(t, err)
	return all
}

func formatOrdinals(ordinals []uint32) string {
	if len(ordinals) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(ordinals), "[]")
}
