package tower_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

func openAttributes(t testing.TB, text string, ignore ...string) (*tower.AttributeReader, error) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{path}, IDKey: "id", IgnoreKeys: ignore})
}

// describe reads all lines as text: one line of schema, one for each row.
func describe(t testing.TB, r *tower.AttributeReader) string {
	var b strings.Builder
	for _, f := range r.Schema().Fields() {
		fmt.Fprintf(&b, "%s:%v ", f.Name, f.Type)
	}
	b.WriteByte('\n')
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		fmt.Fprintf(&b, "%d %q %v", row.Line, row.ID, row.Attributes)
		for _, p := range row.Problems {
			fmt.Fprintf(&b, " [%s: %s]", p.Kind, p.Detail)
		}
		b.WriteByte('\n')
	}
	for _, n := range r.Notes() {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	return b.String()
}

func TestAttributes(t *testing.T) {
	r, err := openAttributes(t, "\xef\xbb\xbf"+`{"id": "x", "platforms": ["linux", "web", "linux"], "price": 9, "when": "2026-11-22T10:00:00Z", "ok": true, "name": "\u00e9\"\\", "day": "2026-11-22T10:00:00Z"}
{"platforms":[],"id":7,"price":0.5,"when":"1969-12-31T23:59:59.5+01:00","n":9007199254740993, "day": "monday"}

   `+"\r\n"+`{"id":"y","platforms":[null,"mac"],"price":null,"nothing":null,"n":-1,"ok":false,"name":"","skip":{"a":["}"]}}`, "skip", "typo")
	require.NoError(t, err)
	require.Equal(t, `day:keyword n:int name:keyword ok:bool platforms:keyword_list price:float when:timestamp `+`
1 "x" [2026-11-22T10:00:00Z absent é"\ true ["linux" "web"] 9 2026-11-22T10:00:00Z]
2 "7" [monday 9007199254740993 absent absent absent 0.5 1969-12-31T22:59:59.5Z]
5 "y" [absent -1  false ["mac"] absent absent]
note: key day: 1 of 2 strings are dates and times, so it is of type keyword; it can be told to be timestamp
note: key nothing: has nulls only and no type, left out
note: attribute platforms: 1 lists had null elements, which are left out
`, describe(t, r))
	require.Equal(t, []string{"typo"}, r.Unknown())
}

// Times that RFC 3339 can write are what they are; what a zone takes out of the years 1 to
// 9999 is counted.
func TestAttributesOfAllYears(t *testing.T) {
	r, err := openAttributes(t, `{"id":1,"until":"9999-12-31T23:59:59.999999999Z"}
{"id":2,"until":"0001-01-01T00:00:00Z"}
{"id":3,"until":"3000-01-01T00:00:00+01:00"}
{"id":4,"until":"0001-01-01T00:00:00+01:00"}
{"id":5,"until":"0000-06-01T00:00:00Z"}`)
	require.NoError(t, err)
	require.Equal(t, `until:timestamp `+`
1 "1" [9999-12-31T23:59:59.999999999Z]
2 "2" [0001-01-01T00:00:00Z]
3 "3" [2999-12-31T23:00:00Z]
4 "4" [0001-01-01T00:00:00Z]
5 "5" [0001-01-01T00:00:00Z]
note: attribute until: 2 timestamps are not of the years 1 to 9999 and are stored as the first or the last moment of those
`, describe(t, r))
}

func TestAttributeProblems(t *testing.T) {
	r, err := openAttributes(t, strings.Join([]string{
		`{"id":"1","a":"x","b":1,"c":true,"d":["x"],"e":0.5,"f":"2026-01-01T00:00:00Z"}`,
		`{"id":"2","a":1,"b":"x","c":"true","d":"x","e":[],"f":5}`,
		`{"id":"3","a":["x"],"b":12345678901234567890,"c":{},"d":[1],"e":1e999}`,
		`[1]`,
		`{"id":"5"`,
		`{"id":"6"} {}`,
		`{"a":"x"}`,
		`{"id":null}`,
		`{"id":1.5}`,
		`{"id":"10","id":"11"}`,
		`{"id":"11","a":"x","\u0061":"y"}`,
		"{\"id\":\"\xff\"}",
		`{"id":"13","a":null,"b":null}`,
		`{"id":18446744073709551615}`,
	}, "\n"))
	require.NoError(t, err)
	require.Equal(t, `a:keyword b:int c:bool d:keyword_list e:float f:timestamp `+`
1 "1" [x 1 true ["x"] 0.5 2026-01-01T00:00:00Z]
2 "2" [absent absent absent absent absent absent] [attribute type change: line 2: attribute a: integer 1, but its type is keyword, as 4 of 6 values are strings] [attribute type change: line 2: attribute b: string "x", but its type is int, as 1 of 2 values are numbers] [attribute type change: line 2: attribute c: string "true", but its type is bool, as 1 of 3 values are bools] [attribute type change: line 2: attribute d: string "x", but its type is keyword_list, as 1 of 3 values are arrays of strings] [attribute type change: line 2: attribute e: array [], but its type is float, as 1 of 2 values are numbers] [attribute type change: line 2: attribute f: integer 5, but its type is timestamp, as 1 of 1 strings are dates and times]
3 "3" [absent absent absent absent absent absent] [attribute type change: line 3: attribute a: array ["x"], but its type is keyword, as 4 of 6 values are strings] [attribute out of range: line 3: attribute b: integer 12345678901234567890, want the int64 range] [attribute type change: line 3: attribute c: object {}, but its type is bool, as 1 of 3 values are bools] [attribute type change: line 3: attribute d: array [1], but its type is keyword_list, as 1 of 3 values are arrays of strings] [attribute out of range: line 3: attribute e: number 1e999, want a finite number of the float64 range]
4 "" [absent absent absent absent absent absent] [not a JSON object: line 4: "[1]": want one JSON object in UTF-8]
5 "" [absent absent absent absent absent absent] [not a JSON object: line 5: "{\"id\":\"5\"": want one JSON object in UTF-8]
6 "" [absent absent absent absent absent absent] [not a JSON object: line 6: "{\"id\":\"6\"} {}": want one JSON object in UTF-8]
7 "" [x absent absent absent absent absent] [attributes without an id: line 7: key id is missing]
8 "" [absent absent absent absent absent absent] [attributes without an id: line 8: key id is null, want a string or a 64-bit integer]
9 "" [absent absent absent absent absent absent] [attributes without an id: line 9: key id is 1.5, want a string or a 64-bit integer]
10 "10" [absent absent absent absent absent absent] [repeated JSON key: line 10: key id comes twice]
11 "11" [x absent absent absent absent absent] [repeated JSON key: line 11: key a comes twice]
12 "" [absent absent absent absent absent absent] [not a JSON object: line 12: "{\"id\":\"\xff\"}": want one JSON object in UTF-8]
13 "13" [absent absent absent absent absent absent]
14 "18446744073709551615" [absent absent absent absent absent absent]
`, describe(t, r))
}

func TestAttributesThatCannotBeStored(t *testing.T) {
	for text, want := range map[string]string{
		`{"id":"1"}` + "\n" + `{"id":"2","a":{"b":1}}`: "cannot store key a (objects, the first in line 2): supported are",
		`{"id":"1","a":[1]}`:                           "cannot store key a (arrays of other than strings, the first in line 1)",
		`{"id":"1","no-name":1}`:                       `attribute name "no-name"`,
		`{"id":"1","in":1}`:                            `attribute name "in": reserved`,
		`{"id":"1","tandem_run":"run 7"}`:              "key tandem_run is what names a training run, and only Parquet files of towers do; such a key can be ignored",
		`{"id":"1","` + strings.Repeat("x", 17<<20):    "line 1 is longer than 16777216 bytes",
	} {
		_, err := openAttributes(t, text)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "a.jsonl")
	}
	var b strings.Builder
	for i := range 1100 {
		fmt.Fprintf(&b, "{\"id\":1,\"k%d\":1}\n", i)
	}
	_, err := openAttributes(t, b.String())
	require.ErrorContains(t, err, "at most 1024 attributes")
	_, err = tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{"x"}})
	require.ErrorContains(t, err, "no id key is named")
	_, err = tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{"/nonexistent"}, IDKey: "id"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A long line is read, across the buffer.
func TestLongLine(t *testing.T) {
	r, err := openAttributes(t, `{"id":"1","a":"`+strings.Repeat("x", 1<<20)+`"}`+"\n"+`{"id":"2","a":"y"}`)
	require.NoError(t, err)
	row, err := r.Next()
	require.NoError(t, err)
	require.Len(t, row.Attributes[0].Keyword(), 1<<20)
	row, err = r.Next()
	require.NoError(t, err)
	require.Equal(t, "2", row.ID)
	require.NoError(t, r.Close())
	_, err = r.Next()
	require.ErrorContains(t, err, "the reader is closed")
}

// The scanner agrees with encoding/json on every line.
func FuzzAttributes(f *testing.F) {
	f.Add(`{"id":"x","a":["b",null,"c\n"],"d":1,"e":-1.5e3,"f":true,"g":"2026-11-22T10:00:00Z"}`)
	f.Add(` { "id" : 7 , "a" : [ ] , "b" : "\ud800" } ` + "\n" + `{"id":"y","a":["}"],"b":"\\\""}`)
	f.Add(`{"id":"x","a":NaN,"b":[-Infinity, "NaN"]}` + "\n" + `{"id":"y","a":1NaN,"b":5.0,"c":"2026-11-22 10:00:00"}`)
	f.Add("{}\n[]\n{\"id\":{}}\n{\"id\":\"1\",\"id\":2}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "a.jsonl")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		r, err := tower.OpenAttributes(t.Context(), tower.AttributeOptions{Paths: []string{path}, IDKey: "id"})
		if err != nil {
			return
		}
		defer r.Close()
		lines := strings.Split(strings.TrimPrefix(text, "\xef\xbb\xbf"), "\n")
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			require.NoError(t, err)
			line := lines[row.Line-1]
			var want map[string]any
			d := json.NewDecoder(strings.NewReader(line))
			d.UseNumber()
			valid := utf8.ValidString(line) && json.Valid([]byte(line)) && d.Decode(&want) == nil && want != nil
			broken := len(row.Problems) > 0
			if !valid {
				// Only these are valid here and not there.
				require.True(t, broken || strings.Contains(line, "NaN") || strings.Contains(line, "Infinity"))
				continue
			}
			if broken {
				continue
			}
			if want["id"] == json.Number("-0") {
				want["id"] = 0 // integers are canonical
			}
			require.Equal(t, fmt.Sprint(want["id"]), row.ID)
			for i, field := range r.Schema().Fields() {
				check(t, want[field.Name], row.Attributes[i])
			}
		}
	})
}

// check compares a value with what encoding/json decoded.
func check(t *testing.T, want any, got attribute.Value) {
	switch got.Type() {
	case attribute.Keyword:
		require.Equal(t, want, got.Keyword())
	case attribute.Bool:
		require.Equal(t, want, got.Bool())
	case attribute.Int:
		n, err := want.(json.Number).Int64()
		if err != nil { // 5.0
			f, _ := want.(json.Number).Float64()
			n = int64(f)
			require.Equal(t, f, float64(n))
		}
		require.Equal(t, n, got.Int())
	case attribute.Float:
		n, err := want.(json.Number).Float64()
		require.NoError(t, err)
		require.Equal(t, n, got.Float())
	case attribute.Timestamp:
		// Other texts of times are TestTimes's.
		if at, err := time.Parse(time.RFC3339Nano, want.(string)); err == nil && strings.Contains(want.(string), "T") {
			require.True(t, at.Equal(got.Time()))
		}
	case attribute.KeywordList:
		var list []string
		for _, e := range want.([]any) {
			if e != nil {
				list = append(list, e.(string))
			}
		}
		require.True(t, attribute.OfKeywords(list).Equal(got))
	default:
		if list, ok := want.([]any); ok {
			for _, e := range list {
				require.Nil(t, e)
			}
		} else {
			require.Nil(t, want)
		}
	}
}

func BenchmarkAttributes(b *testing.B) {
	var text strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&text, `{"app_id":"app-%07d","id":"app-%07d","name":"Wooden Farm Party","platforms":["linux","mac"],"price":%d.99,"free":false,"tags":["a","b","c"]}`+"\n", i, i, i%20)
	}
	path := filepath.Join(b.TempDir(), "a.jsonl")
	require.NoError(b, os.WriteFile(path, []byte(text.String()), 0o600))
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		r, err := tower.OpenAttributes(b.Context(), tower.AttributeOptions{Paths: []string{path}, IDKey: "id"})
		require.NoError(b, err)
		for {
			if _, err := r.Next(); errors.Is(err, io.EOF) {
				break
			}
		}
		_ = r.Close()
	}
}
