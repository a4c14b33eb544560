package tower_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
)

// compressed returns text as gzip and zstd have it.
func compressed(t testing.TB, text string) (gz, zst []byte) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	z, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return b.Bytes(), z.EncodeAll([]byte(text), nil)
}

// inUTF16 returns text as PowerShell writes it.
func inUTF16(text string) []byte {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// utf32 returns strings as an .npy array of 5 characters each has them.
func utf32(order binary.AppendByteOrder, list ...string) (b []byte) {
	for _, text := range list {
		n := 0
		for _, c := range text {
			b, n = order.AppendUint32(b, uint32(c)), n+1
		}
		for ; n < 5; n++ {
			b = order.AppendUint32(b, 0)
		}
	}
	return b
}

// What id files of all kinds mean.
func TestIDs(t *testing.T) {
	gz, zst := compressed(t, "a\nb\n")
	gz1, _ := compressed(t, "a\n")
	gz2, _ := compressed(t, "b\n")
	long := int64(9007199254740993)
	for name, test := range map[string]struct {
		data []byte
		want []string
	}{
		"plain":             {[]byte("a\nb"), []string{"a", "b"}},
		"gzip":              {gz, []string{"a", "b"}},
		"zstd":              {zst, []string{"a", "b"}},
		"members of gzip":   {append(bytes.Clone(gz1), gz2...), []string{"a", "b"}},
		"padded gzip":       {append(bytes.Clone(gz), make([]byte, 1000)...), []string{"a", "b"}},
		"padded members":    {slices.Concat(gz1, make([]byte, 7), gz2, make([]byte, 3)), []string{"a", "b"}},
		"skippable frame":   {append([]byte("\x5e\x2a\x4d\x18\x03\x00\x00\x00abc"), zst...), []string{"a", "b"}},
		"all quoted":        {[]byte("\"a,1\"\r\n\"say \"\"b\"\"\"\r\n"), []string{"a,1", `say "b"`}},
		"quoted if need be": {[]byte("a\n\"b,1\"\n"), []string{"a", "b,1"}},
		"comma in one":      {[]byte("a,1\nb\n"), []string{"a,1", "b"}},
		"quote in one":      {[]byte("6\" disc\nb\n"), []string{`6" disc`, "b"}},
		"quoted semicolons": {[]byte("\"a;1\"\n\"b;2\"\n"), []string{"a;1", "b;2"}},
		"bar in one":        {[]byte("a|1\nb\n"), []string{"a|1", "b"}},
		"braces":            {[]byte("{639e28cb}\n[b]\n"), []string{"{639e28cb}", "[b]"}},
		"header":            {[]byte("app_id\na\nb\n"), []string{"a", "b"}},
		"quoted header":     {[]byte("\xef\xbb\xbf\"app_id\"\n\"a\"\n\"b\"\n"), []string{"a", "b"}},
		"no header":         {[]byte("app_id\nb\n"), []string{"app_id", "b"}},
		"npy U":             {npy(1, dict("<U5", "False", "2,"), utf32(binary.LittleEndian, "a", "zwölf")), []string{"a", "zwölf"}},
		"npy big-endian U":  {npy(1, dict(">U5", "False", "2,"), utf32(binary.BigEndian, "a", "zwölf")), []string{"a", "zwölf"}},
		"npy S":             {npy(1, dict("|S3", "False", "2,"), []byte("a\x00\x00bcd")), []string{"a", "bcd"}},
		"npy i8":            {npy(1, dict("<i8", "False", "2,"), numbers(long, int64(-1))), []string{"9007199254740993", "-1"}},
		"npy big-endian i4": {npy(1, dict(">i4", "False", "2,"), []byte{0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff}), []string{"256", "-1"}},
		"npy u8":            {npy(1, dict("<u8", "False", "2,"), numbers(uint64(math.MaxUint64), uint64(0))), []string{"18446744073709551615", "0"}},
		"npy i1":            {npy(1, dict("|i1", "False", "2,"), []byte{0x80, 1}), []string{"-128", "1"}},
		"npy of a column":   {npy(1, dict("<i2", "False", "2, 1"), numbers(int16(-2), int16(2))), []string{"-2", "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			rows, r, err := readIDs(t, test.data)
			require.NoError(t, err)
			var got []string
			for _, row := range rows {
				got = append(got, row.ID)
			}
			require.Equal(t, test.want, got)
			if name == "header" {
				require.Len(t, r.Notes(), 1)
				require.Contains(t, r.Notes()[0], "its first line is app_id and is taken for a header")
			} else if name != "quoted header" {
				require.Empty(t, r.Notes())
			}
		})
	}
}

// readIDs reads two rows with an id file.
func readIDs(t *testing.T, data []byte) ([]tower.Row, tower.Reader, error) {
	dir := t.TempDir()
	o := tower.Options{Paths: []string{filepath.Join(dir, "v.u8bin")}, IDs: []string{filepath.Join(dir, "ids")}, IDColumn: "app_id"}
	require.NoError(t, os.WriteFile(o.Paths[0], bigANN(2, 1, []byte{1, 2}), 0o600))
	require.NoError(t, os.WriteFile(o.IDs[0], data, 0o600))
	return readAll(t, o)
}

// What may be meant in another way is named.
func TestIDsThatAreRefused(t *testing.T) {
	gz, zst := compressed(t, "a\nb\n")
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"tab":             {[]byte("a\tApp\nb\tApp\n"), `line 1, "a\tApp", has a tab: want one id per line`},
		"columns":         {[]byte(",app_id\n0,a\n"), "every line has a comma, as rows of several columns"},
		"mixed quotes":    {[]byte("\"a\"\nb,c\n"), "line 1 is in quotes, and line 2 has a comma or a quote and is not"},
		"half a quote":    {[]byte("\"a\"\n\"b\n"), `line 2, "\"b", begins with a quote that does not end it: want one id per line`},
		"several lines":   {[]byte("\"a\nb\"\n"), `line 1, "\"a", begins with a quote that does not end it`},
		"semicolons":      {[]byte("a;1\nb;2\n"), `every line has a semicolon, as rows of several columns: want one id per line; an id that has a semicolon is quoted ("a;b")`},
		"bars":            {[]byte("app_id|n\na|1\nb|2\n"), "every line has a bar, as rows of several columns"},
		"JSON Lines":      {[]byte("{\"id\":\"a\"}\n{\"id\":\"b\"}\n"), `line 1, "{\"id\":\"a\"}", is a JSON object: want one id per line`},
		"one JSON object": {[]byte("a\n {\"id\":1}\n"), `line 2, " {\"id\":1}", is a JSON object`},
		"JSON array":      {[]byte(`["a","b"]`), "line 1, \"[\\\"a\\\",\\\"b\\\"]\", begins a JSON array"},
		"JSON of lines":   {[]byte("[\n\"a\",\n\"b\"\n]"), `line 1, "[", begins a JSON array`},
		"JSON numbers":    {[]byte("[1,2]\n"), "begins a JSON array"},
		"index and ids":   {[]byte("app_id\na\nb\nc\n"), "2 rows, and 4 ids in "},
		"UTF-16":          {inUTF16("a\r\nb\r\n"), "it is text in UTF-16; accepted are text of one id per line"},
		"Parquet":         {[]byte("PAR1..........PAR1"), "it is Parquet; accepted are text of one id per line"},
		"zip":             {[]byte("PK\x03\x04......"), "a zip archive (such as .npz and .pt)"},
		"pickle":          {[]byte("\x80\x04......"), "it is a Python pickle"},
		"cut gzip":        {gz[:len(gz)-5], "unexpected EOF"},
		"gzip and more":   {append(bytes.Clone(gz), "\x00garbage of some length"...), "gzip: invalid header"},
		"half a member":   {append(bytes.Clone(gz), gz[:4]...), "unexpected EOF"},
		"damaged gzip":    {append(bytes.Clone(gz[:len(gz)-8]), 0, 0, 0, 0, 4, 0, 0, 0), "gzip: invalid checksum"},
		"cut zstd":        {zst[:len(zst)-3], "unexpected EOF"},
		"npy of objects":  {npy(1, dict("|O", "False", "2,"), make([]byte, 16)), `type "|O": accepted are strings (U, S) and integers`},
		"npy of floats":   {npy(1, dict("<f8", "False", "2,"), make([]byte, 16)), `type "<f8": accepted are strings (U, S) and integers`},
		"npy of a table":  {npy(1, dict("<i8", "False", "1, 2"), make([]byte, 16)), "shape (1, 2): want (rows,)"},
		"npy too short":   {npy(1, dict("<i8", "False", "2,"), make([]byte, 15)), "header says 2 ids of 8 bytes each; the file has 15 bytes after it"},
		"npy of too many": {npy(1, dict("<i8", "False", "3,"), make([]byte, 24)), "2 rows, and 3 ids in "},
		"npy too large":   {npy(1, dict("<U999999", "False", "9223372036854775807,"), nil), "the file has 0 bytes after it"},
		"npy no Unicode":  {npy(1, dict("<U1", "False", "2,"), numbers(uint32(0xd800), uint32(1))), "0xd800 is not a character of Unicode"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := readIDs(t, test.data)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "ids")
		})
	}
}

// Rows and ids of several files.
func TestPartsOfPlainRows(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	write("v-0.npy", npy(1, dict("<f4", "False", "2, 1"), numbers(float32(1), float32(2))))
	write("v-1.npy", npy(1, dict("<f2", "False", "1, 1"), numbers(uint16(0x4200))))
	write("ids-0", []byte("a\nb\n"))
	write("ids-1", []byte("c\n"))
	o := tower.Options{Paths: []string{filepath.Join(dir, "v-*.npy")}, IDs: []string{filepath.Join(dir, "ids-*")}}
	rows, r, err := readAll(t, o)
	require.NoError(t, err)
	require.EqualValues(t, 3, r.Rows())
	require.Equal(t, "[{0 0 a [1]} {1 0 b [2]} {2 1 c [3]}]", short(rows))

	write("ids-0", []byte("a\n"))
	write("ids-1", []byte("b\nc\n"))
	_, _, err = readAll(t, o)
	require.ErrorContains(t, err, "v-0.npy: 2 rows, and 1 ids in "+dir+"/ids-0: want one id for each row")
	write("ids-2", nil)
	rows, _, err = readAll(t, o)
	require.NoError(t, err, "where they are not paired, the sum counts")
	require.Len(t, rows, 3)

	write("v-1.npy", npy(1, dict("<f4", "False", "1, 2"), numbers(float32(1), float32(2))))
	_, _, err = readAll(t, o)
	require.ErrorContains(t, err, "v-1.npy: it has dimension 2, and "+dir+"/v-0.npy has 1")
}

// Numbers of files are no order of names unless they have as many digits.
func TestPartsInTheOrderOfTheirNames(t *testing.T) {
	for _, test := range []struct {
		names []string
		note  string
	}{
		{[]string{"v-1.npy", "v-10.npy", "v-2.npy"}, "v-10.npy is read before %s/v-2.npy, in the order of their names and not of their numbers"},
		{[]string{"v-01.npy", "v-02.npy", "v-10.npy"}, ""},
		{[]string{"v-1-of-10.npy", "v-1-of-9.npy"}, "v-1-of-10.npy is read before %s/v-1-of-9.npy"},
		{[]string{"v-0010.npy", "v-9.npy"}, "v-0010.npy is read before %s/v-9.npy"},
		{[]string{"a9.npy", "b1.npy"}, ""},
		{[]string{"a.npy", "a1.npy"}, ""},
	} {
		dir := t.TempDir()
		o := tower.Options{Paths: []string{dir}, NumberRows: true}
		for _, name := range test.names {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), npy(1, dict("<f4", "False", "1, 1"), numbers(float32(1))), 0o600))
		}
		_, r, err := readAll(t, o)
		require.NoError(t, err)
		if test.note == "" {
			require.Empty(t, r.Notes(), test.names)
			continue
		}
		require.Len(t, r.Notes(), 1, test.names)
		require.Contains(t, r.Notes()[0], strings.ReplaceAll(test.note, "%s", dir))
	}
	dir := t.TempDir()
	for name, data := range map[string]string{"v.u8bin": string(bigANN(3, 1, []byte{1, 2, 3})), "ids-1": "a\n", "ids-10": "b\n", "ids-2": "c\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	_, r, err := readAll(t, tower.Options{Paths: []string{dir + "/v.u8bin"}, IDs: []string{dir + "/ids-*"}})
	require.NoError(t, err)
	require.Contains(t, strings.Join(r.Notes(), "\n"), "ids-10 is read before "+dir+"/ids-2, in the order of their names", "so are ids")
}

func short(rows []tower.Row) string {
	type row struct {
		number int64
		file   int
		id     string
		vector []float32
	}
	var list []row
	for _, r := range rows {
		list = append(list, row{r.Number, r.File, r.ID, r.Vector})
	}
	return fmt.Sprint(list)
}
