package tower

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// moreFolders are folders of Parquet files, for which testdata/expect.py has been run, with
// colons between them.
var moreFolders = flag.String("parquet", "", "folders of Parquet files to read and damage, with colons between them")

// An expectation is what testdata/expect.py writes of a file.
type expectation struct {
	Error   string                       `json:"error"`
	Rows    int64                        `json:"rows"`
	Columns map[string][]json.RawMessage `json:"columns"`
}

// A seen value is one of an attribute, or a vector.
type seen struct {
	value  attribute.Value
	said   remark
	vector []float32
}

// readColumns calls each with the values of each top-level column of a file that can be an
// attribute, or an embedding as a list.
func readColumns(data []byte, each func(c *column, row int64, v seen)) error {
	pf, err := parquetfile.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	for _, n := range schemaTree(pf.Schema()).children {
		s := n.shape()
		if s.attribute() == 0 && !(s.list && s.number()) {
			continue
		}
		c := &column{shape: s, name: n.Name(), typ: s.attribute()}
		if err := readColumn(pf, c, each); err != nil {
			return fmt.Errorf("column %s (%s): %w", c.name, c.text, err)
		}
	}
	return nil
}

func readColumn(f *parquetfile.File, c *column, each func(c *column, row int64, v seen)) (err error) {
	defer func() { err = errors.Join(err, c.close()) }()
	row := int64(0)
	for group := range f.Groups() {
		if err := c.open(f, group); err != nil {
			return err
		}
		for range f.GroupRows(group) {
			var v seen
			if c.typ == 0 {
				v.vector, err = c.floats()
			} else {
				v.value, v.said, err = c.value()
			}
			if err != nil {
				return err
			}
			each(c, row, v)
			row++
		}
		if err := c.finish(); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether a value is the expected one.
func same(c *column, expected json.RawMessage, got seen) bool {
	var list []string
	if c.typ == 0 {
		if json.Unmarshal(expected, &list) != nil || (list == nil) != (got.vector == nil) || len(list) != len(got.vector) {
			return false
		}
		for i, text := range list {
			bits, err := strconv.ParseUint(text, 16, 64)
			want := float32(math.Float64frombits(bits))
			if err != nil {
				want = float32(math.NaN())
			}
			if want != got.vector[i] && !(want != want && got.vector[i] != got.vector[i]) {
				return false
			}
		}
		return true
	}
	v, said := got.value, got.said
	if json.Unmarshal(expected, &list) == nil && list != nil {
		for i := range list {
			list[i] = wantedText(list[i], c.decoding)
		}
		return v.Equal(attribute.OfKeywords(list))
	}
	var want *string
	if json.Unmarshal(expected, &want) != nil {
		return false
	}
	if want == nil {
		return v.Absent() && said.problem == nil
	}
	switch c.decoding {
	case text, raw, uuid:
		return !v.Absent() && v.Keyword() == wantedText(*want, c.decoding)
	case boolean:
		return !v.Absent() && strconv.FormatBool(v.Bool()) == *want
	case single, double, half, decimal:
		if v.Type() == attribute.Int {
			return strconv.FormatInt(v.Int(), 10) == *want
		}
		bits, err := strconv.ParseUint(*want, 16, 64)
		w := math.Float64frombits(bits)
		switch {
		case err != nil:
			return false
		case math.IsNaN(w):
			return v.Absent() && said.note != ""
		case math.IsInf(w, 0):
			return v.Absent() && said.problem != nil
		case v.Absent():
			return false
		case c.decoding == half: // ours is the decimal that is nearest
			return w == v.Float() || math.Abs(w-v.Float()) <= math.Abs(w)/1024
		case c.decoding == single:
			return float32(w) == v.Float32()
		}
		return v.Float() == w
	case days, millis, micros, nanos, julian:
		unit := time.Microsecond
		if rest, ok := strings.CutPrefix(*want, "n"); ok {
			*want, unit = rest, time.Nanosecond
		}
		n, err := strconv.ParseInt(*want, 10, 64)
		if err != nil || v.Absent() {
			return false
		}
		at := time.UnixMicro(n)
		if unit == time.Nanosecond {
			at = time.Unix(0, n)
		}
		return v.Time().Truncate(unit).Equal(attribute.ClampTime(at).Truncate(unit))
	}
	if said.problem != nil { // an integer that int64 cannot hold
		n, err := strconv.ParseInt(*want, 10, 64)
		return err != nil && n != 0
	}
	return !v.Absent() && strconv.FormatInt(v.Int(), 10) == *want
}

// wantedText undoes the hexadecimal of bytes.
func wantedText(s string, d decoding) string {
	if rest, ok := strings.CutPrefix(s, "x"); ok && d == raw {
		var b []byte
		if _, err := fmt.Sscanf(rest, "%x", &b); err == nil || rest == "" {
			return string(b)
		}
	}
	return s
}

// compareFiles compares the columns of a folder's files with what is expected, and
// returns why files could not be read.
func compareFiles(t *testing.T, folder string) (refused map[string]error) {
	data, err := os.ReadFile(strings.TrimSuffix(folder, "/") + ".json")
	require.NoError(t, err)
	var files map[string]expectation
	require.NoError(t, json.Unmarshal(data, &files))
	refused = map[string]error{}
	for name, want := range files {
		columns, wrong := map[string]int64{}, 0
		data, err := os.ReadFile(filepath.Join(folder, name))
		require.NoError(t, err)
		err = readColumns(data, func(c *column, row int64, v seen) {
			columns[c.name]++
			values, ok := want.Columns[c.name]
			if want.Error != "" {
				return
			}
			if !ok {
				if row == 0 {
					t.Logf("%s: column %s (%s) is read, and is none that is compared", name, c.name, c.text)
				}
				return
			}
			if wrong < 5 && !same(c, values[row], v) {
				wrong++
				t.Errorf("%s: column %s (%s), row %d: %v, want %s", name, c.name, c.text, row, v, values[row])
			}
		})
		if err != nil {
			refused[name] = err
			continue
		}
		for column, rows := range columns {
			if want.Error == "" {
				require.Equal(t, want.Rows, rows, "%s: column %s", name, column)
			}
		}
		for column := range want.Columns {
			if columns[column] == 0 && want.Rows > 0 {
				t.Logf("%s: column %s is not read", name, column)
			}
		}
	}
	return refused
}

// TestColumnsOfFiles reads each column of many files, and compares each value. It is for
// files that are not here, such as those of apache/parquet-testing: `.ci/run parquet`.
func TestColumnsOfFiles(t *testing.T) {
	if *moreFolders == "" {
		t.Skip("the flag -parquet names no folders")
	}
	for folder := range strings.SplitSeq(*moreFolders, ":") {
		refused := compareFiles(t, folder)
		var names []string
		for name := range refused {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			t.Logf("refused: %s/%s: %v", folder, name, refused[name])
			require.False(t, errors.Is(refused[name], io.EOF))
		}
	}
}

// TestForeignFiles reads what other writers wrote, and compares each value with DuckDB's.
// The scripts are in testdata.
func TestForeignFiles(t *testing.T) {
	require.Empty(t, compareFiles(t, "testdata/foreign"))
}
