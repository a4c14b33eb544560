package tower_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// jsonLines returns lines of ids from 1 on with these values of x, as JSON has them.
func jsonLines(values ...string) string {
	var b strings.Builder
	for i, v := range values {
		fmt.Fprintf(&b, "{\"id\":%d,\"x\":%s}\n", i+1, v)
	}
	return b.String()
}

func repeat(value string, n int) (list []string) {
	for range n {
		list = append(list, value)
	}
	return list
}

// typed reads x of all lines, and returns its type, its values where they are not as most
// are, the problems and the notes.
func typed(t *testing.T, text string, types map[string]attribute.Type) (got string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	r, err := tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{path}, IDKey: "id", Types: types})
	require.NoError(t, err)
	return describe(t, r)
}

// One odd value among many does not change what the others are.
func TestATypeIsWhatMostValuesSay(t *testing.T) {
	const at, long = `"2026-11-22T10:00:00Z"`, `9007199254740993`
	for name, test := range map[string]struct {
		values []string
		typ    attribute.Type
		odd    string // the problem of the last value
		notes  []string
	}{
		"text among times":            {append(repeat(at, 99), `"n/a"`), attribute.Timestamp, `attribute type change: line 100: attribute x: string "n/a", but its type is timestamp, as 99 of 100 strings are dates and times`, nil},
		"text among few times":        {append(repeat(at, 2), `""`), attribute.Timestamp, `attribute type change: line 3: attribute x: string "", but its type is timestamp, as 2 of 3 strings are dates and times`, nil},
		"a number among times":        {append(repeat(at, 9), `5`), attribute.Timestamp, `attribute type change: line 10: attribute x: integer 5, but its type is timestamp, as 9 of 9 strings are dates and times`, nil},
		"a time among texts":          {append(repeat(`"x"`, 9), at), attribute.Keyword, "", []string{"key x: 1 of 10 strings are dates and times, so it is of type keyword; it can be told to be timestamp"}},
		"a fraction among long ids":   {append(repeat(long, 99), `0.5`), attribute.Int, `attribute type change: line 100: attribute x: number 0.5, but its type is int, as 99 of 100 numbers are integers, and some of them have more digits than a float holds`, nil},
		"a whole among long ids":      {append(repeat(long, 99), `5.0`), attribute.Int, "", nil},
		"a long id among fractions":   {append(repeat(`0.5`, 99), long), attribute.Float, `attribute out of range: line 100: attribute x: integer 9007199254740993, want an integer that float64 holds exactly`, nil},
		"a long one that floats hold": {append(repeat(`0.5`, 99), `9007199254740994`), attribute.Float, "", nil},
		"a huge one among fractions":  {append(repeat(`0.5`, 99), `123456789012345678901`), attribute.Float, `attribute out of range: line 100: attribute x: integer 123456789012345678901, want an integer that float64 holds exactly`, nil},
		"a fraction among integers":   {append(repeat(`7`, 99), `0.5`), attribute.Float, "", []string{"key x: 1 of 100 numbers have a fraction or an exponent, so it is of type float; it can be told to be int"}},
		"integers and fractions":      {append(repeat(`7`, 2), `0.5`), attribute.Float, "", nil},
		"too large for int64":         {append(repeat(`7`, 9), `9223372036854775808`), attribute.Int, `attribute out of range: line 10: attribute x: integer 9223372036854775808, want the int64 range`, nil},
		"text among numbers":          {append(repeat(`7`, 9), `"7"`), attribute.Int, `attribute type change: line 10: attribute x: string "7", but its type is int, as 9 of 10 values are numbers`, nil},
		"odd one first":               {append([]string{`"n/a"`}, repeat(`7`, 9)...), attribute.Int, "", nil},
		"object among texts":          {append(repeat(`"x"`, 9), `{}`), attribute.Keyword, `attribute type change: line 10: attribute x: object {}, but its type is keyword, as 9 of 10 values are strings`, nil},
		"numbers among lists":         {append(repeat(`["x"]`, 9), `[1]`), attribute.KeywordList, `attribute type change: line 10: attribute x: array [1], but its type is keyword_list, as 9 of 10 values are arrays of strings`, nil},
		"an infinity among integers":  {append(repeat(`7`, 9), `Infinity`), attribute.Int, `attribute type change: line 10: attribute x: infinity Infinity, but its type is int, as 9 of 9 values are numbers`, nil},
		"no float64 among integers":   {append(repeat(`7`, 9), `1e400`), attribute.Int, `attribute type change: line 10: attribute x: number 1e400, but its type is int, as 9 of 9 values are numbers`, nil},
		"a huge one among both":       {append(repeat(`7`, 9), `0.5`, `123456789012345678901`), attribute.Float, `attribute out of range: line 11: attribute x: integer 123456789012345678901, want an integer that float64 holds exactly`, nil},
		"infinities among texts":      {append([]string{`"x"`}, repeat(`Infinity`, 3)...), attribute.Keyword, `attribute type change: line 4: attribute x: infinity Infinity, but its type is keyword, as 1 of 1 values are strings`, nil},
		"huge ones among three":       {append(repeat(`123456789012345678901`, 3), `0.5`, `0.5`, long), attribute.Float, `attribute out of range: line 6: attribute x: integer 9007199254740993, want an integer that float64 holds exactly`, nil},
		"huge ones alone":             {repeat(`123456789012345678901`, 2), attribute.Int, `attribute out of range: line 2: attribute x: integer 123456789012345678901, want the int64 range`, nil},
		"infinities alone":            {repeat(`-Infinity`, 3), attribute.Float, `attribute out of range: line 3: attribute x: infinity -Infinity, want a finite number of the float64 range`, nil},
		"dates":                       {append(repeat(`"2026-01-04"`, 19), `"TBA"`), attribute.Timestamp, `attribute type change: line 20: attribute x: string "TBA", but its type is timestamp, as 19 of 20 strings are dates or times`, []string{"attribute x: 19 times name no zone and are taken for UTC"}},
		"many dates":                  {append(repeat(`"2026-01-04"`, 18), `"TBA"`), attribute.Keyword, "", []string{"key x: 18 of 19 strings are dates or times, so it is of type keyword; it can be told to be timestamp"}},
		"dates and times":             {append(repeat(`"2026-01-04"`, 19), at, `"TBA"`), attribute.Timestamp, `attribute type change: line 21: attribute x: string "TBA", but its type is timestamp, as 20 of 21 strings are dates or times`, []string{"attribute x: 19 times name no zone and are taken for UTC"}},
		"nulls alone with one":        {append(repeat(`null`, 99), `true`), attribute.Bool, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			lines := strings.Split(strings.TrimSpace(typed(t, jsonLines(test.values...), nil)), "\n")
			require.Equal(t, "x:"+test.typ.String()+" ", lines[0])
			last := lines[len(test.values)]
			if test.odd != "" {
				require.Equal(t, fmt.Sprintf("%d %q [absent] [%s]", len(test.values), fmt.Sprint(len(test.values)), test.odd), last)
			} else {
				require.NotContains(t, last, "attribute", last)
			}
			var notes []string
			for _, note := range lines[len(test.values)+1:] {
				notes = append(notes, strings.TrimPrefix(note, "note: "))
			}
			require.Equal(t, test.notes, notes)
			if name == "a fraction among long ids" {
				require.Equal(t, `1 "1" [9007199254740993]`, lines[1])
			}
		})
	}
}

// Times as programs write them.
func TestTimes(t *testing.T) {
	require.Equal(t, `x:timestamp `+`
1 "1" [2026-11-22T10:00:00Z]
2 "2" [2026-11-22T10:00:00.5Z]
3 "3" [2026-11-22T10:00:00Z]
4 "4" [2026-11-22T10:00:00Z]
5 "5" [2026-11-22T08:00:00Z]
6 "6" [2026-11-22T10:00:00.25Z]
7 "7" [2026-11-22T00:00:00Z]
8 "8" [2026-11-22T10:00:00Z]
note: attribute x: 4 times name no zone and are taken for UTC
`, typed(t, jsonLines(`"2026-11-22T10:00:00"`, `"2026-11-22 10:00:00.500000"`, `"2026-11-22 10:00:00+00:00"`, `"2026-11-22 10:00:00 UTC"`,
		`"2026-11-22T10:00:00+0200"`, `"2026-11-22 10:00:00.25"`, `"2026-11-22"`, `"2026-11-22T10:00:00Z"`), nil))
	for _, text := range []string{"2026-11-22 10:00:00 CET", "2026-11-22 10:00", "2026-13-22T10:00:00Z", "2026-11-22T10:00:00,5Z", "22.11.2026 10:00:00", "2026-11-22T10:00:00ZZ", "2026-11-22 10:00:00 UTCX"} {
		require.Contains(t, typed(t, jsonLines(`"`+text+`"`), nil), "x:keyword", text)
	}
	require.Contains(t, typed(t, jsonLines(`"2026-11-22"`), nil), "1 \"1\" [2026-11-22T00:00:00Z]", "as a date of Parquet is")
}

// NaN is what Python writes for what is missing.
func TestNaN(t *testing.T) {
	require.Equal(t, `x:float `+`
1 "1" [0.5]
2 "2" [absent]
3 "3" [absent] [attribute out of range: line 3: attribute x: infinity -Infinity, want a finite number of the float64 range]
4 "4" [absent] [attribute out of range: line 4: attribute x: infinity Infinity, want a finite number of the float64 range]
5 "" [absent] [not a JSON object: line 5: "{\"id\":5,\"x\":nan}": want one JSON object in UTF-8]
6 "" [absent] [not a JSON object: line 6: "{\"id\":6,\"x\":1NaN}": want one JSON object in UTF-8]
7 "" [absent] [not a JSON object: line 7: "{\"id\":7,\"x\":NaNNaN}": want one JSON object in UTF-8]
8 "" [absent] [not a JSON object: line 8: "{\"id\":8,NaN:1}": want one JSON object in UTF-8]
note: attribute x: 1 NaN values are absent
`, typed(t, jsonLines("0.5", "NaN", "-Infinity", " Infinity ", "nan", "1NaN", "NaNNaN")+"{\"id\":8,NaN:1}\n", nil))
	require.Equal(t, `x:keyword_list `+`
1 "1" [["\"NaN" "NaN"]]
2 "2" [absent]
note: attribute x: 1 lists had null elements, which are left out
note: attribute x: 1 NaN values are absent
`, typed(t, jsonLines(`["NaN", NaN,"\"NaN"]`, "NaN"), nil))
	require.Equal(t, "x:int \n1 \"1\" [7]\n2 \"2\" [absent]\nnote: attribute x: 1 NaN values are absent\n", typed(t, jsonLines("7", "NaN"), nil))
	require.Equal(t, "\n1 \"\" [] [attributes without an id: line 1: key id is NaN, want a string or a 64-bit integer]\n", typed(t, `{"id":NaN}`, nil))
}

// Half a surrogate pair is no text, and is not made another one.
func TestSurrogates(t *testing.T) {
	require.Equal(t, `x:keyword `+`
1 "1" [😀]
2 "2" [absent] [half a surrogate pair: line 2: attribute x: string "\ud83d", want Unicode]
3 "3" [absent] [half a surrogate pair: line 3: attribute x: string "\ude00\ud83d", want Unicode]
4 "4" [absent] [half a surrogate pair: line 4: attribute x: string "a\ud83dx", want Unicode]
5 "5" [\ud83d]
6 "6" [absent] [half a surrogate pair: line 6: attribute x: string "\\\ud83d\\ude00", want Unicode]
7 "" [absent] [half a surrogate pair: line 7: key id is "\uDC00", want Unicode]
`, typed(t, jsonLines(`"\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"a\ud83dx"`, `"\\ud83d"`, `"\\\ud83d\\ude00"`)+`{"id":"\uDC00"}`, nil))
	require.Equal(t, "x:keyword_list \n1 \"1\" [absent] [half a surrogate pair: line 1: attribute x: array [\"a\",\"\\ud83d\"], want Unicode]\n", typed(t, jsonLines(`["a","\ud83d"]`), nil))
}

// A type that is told is the type, whatever values look like.
func TestToldTypes(t *testing.T) {
	const bad = " [absent] [attribute type change: line "
	for typ, test := range map[attribute.Type]struct{ values, want []string }{
		attribute.Keyword:     {[]string{`7`, `0.50`, `true`, `"x"`, `null`}, []string{"[7]", "[0.50]", "[true]", "[x]", "[absent]"}},
		attribute.Int:         {[]string{`7`, `5.0`, `"9007199254740993"`, `"x"`}, []string{"[7]", "[5]", "[9007199254740993]", bad}},
		attribute.Float:       {[]string{`7`, `"0.5"`, `"x"`, `true`}, []string{"[7]", "[0.5]", bad, bad}},
		attribute.Float32:     {[]string{`0.5`, `"2"`, `["x"]`}, []string{"[0.5]", "[2]", bad}},
		attribute.Bool:        {[]string{`true`, `"False"`, `1`}, []string{"[true]", "[false]", bad}},
		attribute.Timestamp:   {[]string{`"2026-11-22"`, `"n/a"`, `5`}, []string{"[2026-11-22T00:00:00Z]", bad, bad}},
		attribute.KeywordList: {[]string{`["x"]`, `"x"`, `[]`}, []string{`[["x"]]`, bad, "[absent]"}},
	} {
		lines := strings.Split(typed(t, jsonLines(test.values...), map[string]attribute.Type{"x": typ, "none": attribute.Int}), "\n")
		require.Equal(t, "x:"+typ.String()+" ", lines[0], "a key that is nowhere is no attribute")
		for i, want := range test.want {
			require.Contains(t, lines[i+1], strings.TrimSpace(want), "%v", typ)
		}
	}
	r, err := openAttributes(t, `{"id":1,"x":{}}`+"\n"+`{"id":2,"y":[1],"z":{}}`)
	require.Nil(t, r)
	require.ErrorContains(t, err, "cannot store key x (objects, the first in line 1), key y (arrays of other than strings, the first in line 2), key z (objects, the first in line 2): supported are")
}

// Attributes in parts, some of them compressed.
func TestAttributesInParts(t *testing.T) {
	gz, zst := compressed(t, `{"id":"2","x":1}`+"\n"+`{"id":"3","x":"?"}`)
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"dt=1/a.jsonl": []byte(`{"id":"1","x":1}`), "dt=1/b.gz": gz, "dt=2/c": zst, "_SUCCESS": nil, "notes.txt": []byte("words"), "dt=2/d.json": nil,
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
	r, err := tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{dir}, IDKey: "id"})
	require.NoError(t, err)
	require.Equal(t, "line 1 of "+dir+"/dt=1/b.gz", r.Place(2))
	odd := func(file string) string {
		return ` [attribute type change: line 2 of ` + dir + file + `: attribute x: string "?", but its type is int, as 3 of 5 values are numbers]`
	}
	require.Equal(t, `x:int `+`
1 "1" [1]
2 "2" [1]
3 "3" [absent]`+odd("/dt=1/b.gz")+`
4 "2" [1]
5 "3" [absent]`+odd("/dt=2/c")+`
note: `+dir+`: left out 1 name beginning with _ or a dot: _SUCCESS
note: `+dir+`: left out 1 file of another sort: notes.txt
note: files without a line: 1, the first `+dir+`/dt=2/d.json
`, describe(t, r))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "dt=2/c"), zst[:len(zst)-4], 0o600))
	_, err = tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{dir}, IDKey: "id"})
	require.ErrorContains(t, err, "read "+dir+"/dt=2/c")
}
