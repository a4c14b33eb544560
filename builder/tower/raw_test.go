package tower_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
)

// npy returns an .npy file.
func npy(major byte, header string, data []byte) []byte {
	b := []byte{0x93, 'N', 'U', 'M', 'P', 'Y', major, 0}
	if major == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), data...)
}

func dict(descr, order, shape string) string {
	return fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }          \n", descr, order, shape)
}

func bigANN(rows, dim uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, rows)
	return append(binary.LittleEndian.AppendUint32(b, dim), data...)
}

func numbers(v ...any) []byte {
	var b bytes.Buffer
	for _, n := range v {
		_ = binary.Write(&b, binary.LittleEndian, n)
	}
	return b.Bytes()
}

// readRaw writes a file and an id file, and reads them.
func readRaw(t testing.TB, name string, data []byte, ids string) ([]tower.Row, tower.Reader, error) {
	dir := t.TempDir()
	o := tower.Options{Paths: []string{filepath.Join(dir, name)}, IDs: []string{filepath.Join(dir, "ids.txt")}}
	require.NoError(t, os.WriteFile(o.Paths[0], data, 0o600))
	require.NoError(t, os.WriteFile(o.IDs[0], []byte(ids), 0o600))
	return readAll(t, o)
}

func TestRawFormats(t *testing.T) {
	floats := numbers(float32(1), float32(-2.5), float32(3), float32(math.Inf(1)))
	want := [][]float32{{1, -2.5}, {3, float32(math.Inf(1))}}
	small := [][]float32{{1, 2}, {3, 255}}
	signed := [][]float32{{1, 2}, {3, -1}}
	bytes := []byte{1, 2, 3, 255}
	for _, test := range []struct {
		name string
		file string
		data []byte
		want [][]float32
	}{
		{"npy f4", "v.npy", npy(1, dict("<f4", "False", "2, 2"), floats), want},
		{"npy v2", "v.npy", npy(2, dict("<f4", "False", "2, 2"), floats), want},
		{"npy v3", "v.npy", npy(3, "{'shape':(2,2),'fortran_order':False,'descr':'<f4'}", floats), want},
		{"npy python 2", "v.NPY", npy(1, dict("<f4", "False", "2L, 2L,"), floats), want},
		{"npy f8", "v.npy", npy(1, dict("<f8", "False", "2, 2"), numbers(1.0, -2.5, 3.0, 1e300)), want},
		{"npy f2", "v.npy", npy(1, dict("<f2", "False", "2, 2"), numbers(uint16(0x3c00), uint16(0xc100), uint16(0x4200), uint16(0x7c00))), want},
		{"npy u1", "v.npy", npy(1, dict("|u1", "False", "2, 2"), bytes), small},
		{"npy i1", "v.npy", npy(1, dict("|i1", "False", "2, 2"), bytes), signed},
		{"fbin", "v.fbin", bigANN(2, 2, floats), want},
		{"u8bin", "v.u8bin", bigANN(2, 2, bytes), small},
		{"i8bin", "v.i8bin", bigANN(2, 2, bytes), signed},
		{"no rows", "v.fbin", bigANN(0, 2, nil), nil},
	} {
		for _, end := range []string{"\n", "\r\n"} {
			t.Run(test.name, func(t *testing.T) {
				ids := "\xef\xbb\xbfone" + end + "zwölf"
				if len(test.want) == 0 {
					ids = ""
				}
				rows, r, err := readRaw(t, test.file, test.data, ids)
				require.NoError(t, err)
				require.Equal(t, int64(len(test.want)), r.Rows())
				require.Zero(t, r.Schema().Len())
				require.Empty(t, r.Notes())
				require.Len(t, rows, len(test.want))
				for i, row := range rows {
					require.Equal(t, int64(i), row.Number)
					require.Equal(t, []string{"one", "zwölf"}[i], row.ID)
					require.Equal(t, test.want[i], row.Vector)
				}
			})
		}
	}
}

func TestRawErrors(t *testing.T) {
	data := make([]byte, 16)
	for _, test := range []struct {
		file, want string
		data       []byte
	}{
		{"v.fbin", "shorter than the header of 8 bytes", []byte{1, 0, 0}},
		{"v.fbin", "which makes a file of 24 bytes; the file has 23", bigANN(2, 2, data[:15])},
		{"v.fbin", "which makes a file of 24 bytes; the file has 25", bigANN(2, 2, append(data, 0))},
		{"v.u8bin", "which makes a file of 12 bytes; the file has 24", bigANN(2, 2, data)},
		{"v.fbin", "which makes a file of more than 2^64 bytes; the file has 24", bigANN(math.MaxUint32, math.MaxUint32, data)},
		{"v.u8bin", "which makes a file of 18446744065119617033 bytes", bigANN(math.MaxUint32, math.MaxUint32, data)},
		{"v.fbin", "2 rows of dimension 0", bigANN(2, 0, nil)},
		{"v.npy", `v.npy: it is of no known format, and begins with "\x93NUMPI\x01\x00"; accepted are Parquet`, []byte("\x93NUMPI\x01\x00")},
		{"v.npy", ".npy version 9.0, want 1 to 3", npy(9, "", nil)},
		{"v.npy", "is cut off", npy(1, "", nil)[:9]},
		{"v.npy", "above 65536", append(npy(2, "", nil)[:8], 0xff, 0xff, 0xff, 0xff)},
		{"v.npy", ".npy header of 9000 bytes is cut off", append(npy(2, "", nil)[:8], 0x28, 0x23, 0, 0)},
		{"v.npy", "want an array of plain numbers", npy(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 2), }", data)},
		{"v.npy", "want an array of plain numbers", npy(1, "import os", data)},
		{"v.npy", `type ">f4": accepted are <f4`, npy(1, dict(">f4", "False", "2, 2"), data)},
		{"v.npy", `type "|O": accepted are`, npy(1, dict("|O", "False", "2, 2"), data)},
		{"v.npy", "in Fortran order", npy(1, dict("<f4", "True", "2, 2"), data)},
		{"v.npy", "shape (4,): want (rows, dimension)", npy(1, dict("<f4", "False", "4,"), data)},
		{"v.npy", "shape (1, 2, 2): want (rows, dimension)", npy(1, dict("<f4", "False", "1, 2, 2"), data)},
		{"v.npy", "too large", npy(1, dict("<f4", "False", "2, 99999999999999999999"), data)},
		{"v.npy", "more than 2^64 bytes", npy(1, dict("<f4", "False", "4611686018427387904, 4611686018427387904"), data)},
		{"v.npy", "more than 2^64 bytes", npy(1, dict("<f4", "False", "4611686018427387904, 4"), data)},
		{"v.npy", "the file has", npy(1, dict("<f4", "False", "2, 2"), data[:15])},
	} {
		_, _, err := readRaw(t, test.file, test.data, "a\nb\n")
		require.ErrorContains(t, err, test.want)
		require.ErrorContains(t, err, test.file)
	}
}

func TestRowNumbersAsIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.u8bin")
	require.NoError(t, os.WriteFile(path, bigANN(2, 1, []byte{7, 8}), 0o600))
	rows, r, err := readAll(t, tower.Options{Paths: []string{path}, NumberRows: true})
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, []string{"0", "1"}, []string{rows[0].ID, rows[1].ID})
	require.Equal(t, []float32{8}, rows[1].Vector)
	require.EqualValues(t, 2, r.Rows())
	_, err = tower.Open(context.Background(), tower.Options{Paths: []string{path}, NumberRows: true, IDs: []string{"ids.txt"}})
	require.ErrorContains(t, err, "want one of them")
}

func TestIDFiles(t *testing.T) {
	two := bigANN(2, 1, numbers(float32(1), float32(2)))
	for ids, want := range map[string]string{
		"a\n":                                "2 rows, and 1 ids in",
		"":                                   "2 rows, and 0 ids in",
		"a\nb\nc":                            "2 rows, and 3 ids in",
		"a\nb\n\n":                           "2 rows, and 3 ids in",
		"a\r\nb\r":                           "",
		"\nb":                                "", // an empty id is for the builder to reject
		"a\n\n":                              "",
		"a b\nc ":                            "",
		"a\n" + strings.Repeat("x", 300_000): "line 2 is longer than 65536 bytes",
	} {
		rows, _, err := readRaw(t, "v.fbin", two, ids)
		if want == "" {
			require.NoError(t, err)
			require.Len(t, rows, 2)
			continue
		}
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "ids.txt")
	}
	path := filepath.Join(t.TempDir(), "v.fbin")
	require.NoError(t, os.WriteFile(path, two, 0o600))
	_, err := tower.Open(context.Background(), tower.Options{Paths: []string{path}})
	require.ErrorContains(t, err, "an id file is needed")
	_, err = tower.Open(context.Background(), tower.Options{Paths: []string{path}, IDs: []string{path + ".none"}})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzRaw(f *testing.F) {
	f.Add(uint8(0), npy(1, dict("<f4", "False", "1, 1"), numbers(float32(1))), []byte("a\n"))
	f.Add(uint8(0), npy(2, dict("|u1", "False", "2, 2"), []byte{1, 2, 3, 4}), []byte("a\r\nb"))
	f.Add(uint8(1), bigANN(1, 1, numbers(float32(1))), []byte("a"))
	f.Add(uint8(2), bigANN(2, 1, []byte{1, 2}), []byte("\n\n"))
	f.Add(uint8(3), bigANN(math.MaxUint32, math.MaxUint32, nil), []byte(""))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, format uint8, data, ids []byte) {
		o := tower.Options{
			Paths: []string{filepath.Join(dir, "v"+[]string{".npy", ".fbin", ".u8bin", ".i8bin"}[format%4])},
			IDs:   []string{filepath.Join(dir, "ids")},
		}
		require.NoError(t, os.WriteFile(o.Paths[0], data, 0o600))
		require.NoError(t, os.WriteFile(o.IDs[0], ids, 0o600))
		rows, r, err := readAll(t, o)
		if err == nil {
			require.Len(t, rows, int(r.Rows()))
		}
	})
}

func ExampleOpen() {
	dir, _ := os.MkdirTemp("", "")
	defer func() { _ = os.RemoveAll(dir) }()
	w, _ := tower.CreateParquet(filepath.Join(dir, "apps.parquet"), tower.ParquetOptions{IDColumn: "app_id", EmbeddingColumn: "embedding"})
	_ = w.Append(&tower.Row{ID: "chess", Vector: []float32{0.5, -1}})
	_ = w.Append(&tower.Row{ID: "go", Vector: []float32{0.25, 2}})
	if err := w.Close(); err != nil {
		panic(err)
	}

	r, err := tower.Open(context.Background(), tower.Options{Paths: []string{filepath.Join(dir, "apps.parquet")}, IDColumn: "app_id"})
	if err != nil {
		panic(err)
	}
	defer r.Close()
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(err)
		}
		fmt.Println(row.Number, row.ID, row.Vector)
	}
	// Output:
	// 0 chess [0.5 -1]
	// 1 go [0.25 2]
}
