package parquetfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// root is a schema of two leaves: numbers, and lists of texts.
func root(t testing.TB) *schema.GroupNode {
	text := schema.MustPrimitive(schema.NewPrimitiveNodeLogical("element", parquet.Repetitions.Required, schema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1))
	list, err := schema.ListOfWithName("words", text, parquet.Repetitions.Optional, -1)
	require.NoError(t, err)
	g, err := schema.NewGroupNode("root", parquet.Repetitions.Required, schema.FieldList{
		schema.NewInt64Node("number", parquet.Repetitions.Required, -1), list,
	}, -1)
	require.NoError(t, err)
	return g
}

// rows are n rows of root: the numbers from 0, and lists of number%3 words.
func rows(n int) (numbers, words parquetfile.Batch) {
	for i := range n {
		numbers.Int64s = append(numbers.Int64s, int64(i))
		for k := range i % 3 {
			words.Bytes = append(words.Bytes, parquet.ByteArray(fmt.Sprint("w", i, k)))
			words.Def, words.Rep = append(words.Def, 2), append(words.Rep, int16(min(k, 1)))
		}
		if i%3 == 0 {
			words.Def, words.Rep = append(words.Def, 1), append(words.Rep, 0)
		}
	}
	return numbers, words
}

// written is a file of row groups of numbers of rows.
func written(t testing.TB, o parquetfile.Options, groups ...int) []byte {
	var out bytes.Buffer
	w, err := parquetfile.Create(&out, root(t), o)
	require.NoError(t, err)
	for _, n := range groups {
		numbers, words := rows(n)
		require.NoError(t, w.Append(0, &numbers))
		require.NoError(t, w.Append(1, &words))
		require.NoError(t, w.EndGroup())
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// read reads a column of all row groups.
func read(f *parquetfile.File, leaf int) (b parquetfile.Batch, err error) {
	for group := range f.Groups() {
		c, err := f.Column(group, leaf)
		if err != nil {
			return b, err
		}
		for {
			if err = c.Next(); err != nil {
				break
			}
			b.Levels, b.Count = b.Levels+c.Levels, b.Count+c.Count
			b.Def, b.Rep = append(b.Def, c.Def...), append(b.Rep, c.Rep...)
			b.Int64s = append(b.Int64s, c.Int64s[:min(c.Count, len(c.Int64s))]...)
			for _, v := range c.Bytes[:min(c.Count, len(c.Bytes))] {
				b.Bytes = append(b.Bytes, slices.Clone(v))
			}
		}
		if !errors.Is(err, io.EOF) {
			return b, errors.Join(err, c.Close())
		}
		if again := c.Next(); !errors.Is(again, io.EOF) {
			return b, fmt.Errorf("after the end: %w", again)
		}
		if err := c.Close(); err != nil {
			return b, err
		}
	}
	return b, nil
}

func open(data []byte, limits parquetfile.Limits) (*parquetfile.File, error) {
	return parquetfile.OpenWithin(bytes.NewReader(data), int64(len(data)), limits)
}

func TestRoundTrip(t *testing.T) {
	o := parquetfile.Options{Dictionaries: []string{"words.list.element"}, Metadata: map[string]string{"key": "value"}}
	for _, groups := range [][]int{{}, {1}, {3, 40_000}} {
		f, err := open(written(t, o, groups...), parquetfile.Limits{})
		require.NoError(t, err)
		v, ok := f.Value("key")
		require.Equal(t, "value", v)
		require.True(t, ok)
		_, ok = f.Value("other")
		require.False(t, ok)
		require.Equal(t, len(groups), f.Groups())
		var numbers, words parquetfile.Batch
		total := int64(0)
		for i, n := range groups {
			require.Equal(t, int64(n), f.GroupRows(i))
			total += int64(n)
			a, b := rows(n)
			numbers.Int64s = append(numbers.Int64s, a.Int64s...)
			words.Bytes, words.Def, words.Rep = append(words.Bytes, b.Bytes...), append(words.Def, b.Def...), append(words.Rep, b.Rep...)
		}
		require.Equal(t, total, f.Rows())
		got, err := read(f, 0)
		require.NoError(t, err)
		require.Equal(t, numbers.Int64s, got.Int64s)
		got, err = read(f, 1)
		require.NoError(t, err)
		require.Equal(t, words.Bytes, got.Bytes)
		require.Equal(t, words.Def, got.Def)
		require.Equal(t, words.Rep, got.Rep)
	}
}

// What is written is the same each time.
func TestWriterIsDeterministic(t *testing.T) {
	o := parquetfile.Options{Dictionaries: []string{"words.list.element"}}
	require.Equal(t, written(t, o, 5000), written(t, o, 5000))
}

// full fails after some bytes.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("no space")
	}
	return len(p), nil
}

func TestWriterReportsErrors(t *testing.T) {
	whole := len(written(t, parquetfile.Options{}, 3000))
	for _, left := range []int{0, 4, 1000, whole / 2, whole - 300, whole - 1} {
		numbers, words := rows(3000)
		w, err := parquetfile.Create(&full{left}, root(t), parquetfile.Options{})
		if err == nil {
			err = errors.Join(w.Append(0, &numbers), w.Append(1, &words), w.Close())
		}
		require.ErrorContains(t, err, "no space", "%d of %d bytes", left, whole)
	}
}

// footer returns a file that is a footer only.
func footer(thrift string) []byte {
	data := append([]byte("PAR1"), thrift...)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(thrift)))
	return append(data, "PAR1"...)
}

func TestDamagedFooters(t *testing.T) {
	good := written(t, parquetfile.Options{}, 10)
	cut := func(n int) []byte { return append(slices.Clone(good[:n]), "PAR1"...) }
	// A schema of elements with these numbers of children: name in field 4, children in 5.
	tree := func(children ...int) string {
		s := "\x15\x02\x19" + string(rune(len(children)<<4|12))
		for _, n := range children {
			s += "\x48\x01a" + "\x15" + string(binary.AppendVarint(nil, int64(n))) + "\x00"
		}
		return s + "\x16\x00\x19\x0c\x00"
	}
	deep := func(n int) string {
		var s strings.Builder
		s.WriteString("\x15\x02\x19\xfc")
		s.Write(binary.AppendUvarint(nil, uint64(n+1)))
		for range n {
			s.WriteString("\x48\x01a\x15\x02\x00")
		}
		s.WriteString("\x48\x01a\x15\x00\x00\x16\x00\x19\x0c\x00")
		return s.String()
	}
	for _, test := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "0 bytes are no Parquet file", nil},
		{"text", `it begins with "id,a", a Parquet file with "PAR1"`, []byte("id,app_id,when\n1,2,3\n")},
		{"no end", `it ends with "\x00PAR"`, good[:len(good)-1]},
		{"footer too long", "is it truncated?", cut(len(good) - 60)},
		{"a list of 2^31-1 elements", "the footer's structure", footer("\x15\x02\x19\xfc\xff\xff\xff\xff\x07\x00")},
		{"a group of 2^30 children", "element 1 of a schema of 2 has 1073741824 children", footer(tree(1, 1<<30))},
		{"negative children", "has -5 children", footer(tree(1, -5))},
		{"two trees", "the schema is no tree", footer(tree(1, 0, 0))},
		{"half a tree", "the schema ends too early", footer(tree(2, 1, 0))},
		{"a tower of groups", "the schema is more than 64 levels deep", footer(deep(100_000))},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := open(test.data, parquetfile.Limits{})
			require.ErrorIs(t, err, parquetfile.ErrDamaged)
			require.ErrorContains(t, err, test.want)
		})
	}
	for _, data := range []string{"PARE            PARE", "PAR1            PARE", "PARE            PAR1"} {
		_, err := open([]byte(data), parquetfile.Limits{})
		require.ErrorIs(t, err, parquetfile.ErrEncrypted)
	}
	_, err := open(good, parquetfile.Limits{FooterBytes: 20})
	require.ErrorIs(t, err, parquetfile.ErrDamaged)
	require.ErrorContains(t, err, "bytes; accepted: up to 20")
}

// A logical type that is not known is ignored, as the format's document asks for.
func TestUnknownLogicalType(t *testing.T) {
	good := written(t, parquetfile.Options{}, 10)
	// The text's logical type is field 10 of its element: a union whose first field is an
	// empty struct. Fields 30 and 63 in its place are not known.
	at := bytes.LastIndex(good, []byte("\x4c\x1c\x00\x00\x00")) + 1
	require.Positive(t, at)
	for _, field := range []string{"\x0c\x3c", "\x0c\x7e"} {
		length := binary.LittleEndian.Uint32(good[len(good)-8:])
		data := slices.Concat(good[:at], []byte(field), good[at+1:len(good)-8], binary.LittleEndian.AppendUint32(nil, length+1), []byte("PAR1"))
		f, err := open(data, parquetfile.Limits{})
		require.NoError(t, err)
		require.True(t, f.Schema().Column(1).LogicalType().Equals(schema.StringLogicalType{}), "what it was before there were logical types is known")
		got, err := read(f, 1)
		require.NoError(t, err)
		require.Len(t, got.Bytes, 9)
	}
}

// compressed is a file of arrow-go's own with a codec, of one required column of texts.
func compressed(t testing.TB, codec compress.Compression, texts ...string) []byte {
	var out bytes.Buffer
	root := schema.MustGroup(schema.NewGroupNode("root", parquet.Repetitions.Required, schema.FieldList{
		schema.NewByteArrayNode("text", parquet.Repetitions.Required, -1),
	}, -1))
	w := file.NewParquetWriter(&out, root, file.WithWriterProps(parquet.NewWriterProperties(
		parquet.WithCompression(codec), parquet.WithDictionaryDefault(false), parquet.WithStats(false), parquet.WithDataPageSize(64<<20))))
	g, err := w.AppendRowGroupChecked()
	require.NoError(t, err)
	c, err := g.NextColumn()
	require.NoError(t, err)
	var values []parquet.ByteArray
	for _, s := range texts {
		values = append(values, parquet.ByteArray(s))
	}
	_, err = c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, nil, nil)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, w.Close())
	return out.Bytes()
}

// What a page header says that a page takes is checked before it is taken.
func TestPageSizes(t *testing.T) {
	codecs := compress.Codecs
	for _, codec := range []compress.Compression{codecs.Uncompressed, codecs.Snappy, codecs.Gzip, codecs.Brotli, codecs.Zstd, codecs.Lz4Raw} {
		t.Run(codec.String(), func(t *testing.T) {
			data := compressed(t, codec, strings.Repeat("a", 200), "b")
			f, err := open(data, parquetfile.Limits{})
			require.NoError(t, err)
			got, err := read(f, 0)
			require.NoError(t, err)
			require.Len(t, got.Bytes[0], 200)
			// The page header begins the file: its type, then the size of the page, 209
			// bytes: zigzag in two bytes. In five it is 900 MiB.
			require.Equal(t, "\x15\x00\x15\xa2\x03", string(data[4:9]))
			large := binary.AppendVarint(nil, 900<<20)
			bomb := slices.Concat(data[:7], large, data[9+len(large)-2:])
			require.NotEqual(t, data, bomb)
			f, err = open(bomb, parquetfile.Limits{})
			require.NoError(t, err)
			_, err = read(f, 0)
			require.ErrorIs(t, err, parquetfile.ErrDamaged)
		})
	}
	// A page of zeros is as small as a bomb, and is one no more than it says.
	for _, codec := range []compress.Compression{codecs.Gzip, codecs.Brotli, codecs.Zstd} {
		f, err := open(compressed(t, codec, strings.Repeat("\x00", 20<<20)), parquetfile.Limits{})
		require.NoError(t, err)
		got, err := read(f, 0)
		require.NoError(t, err)
		require.Len(t, got.Bytes[0], 20<<20)
	}
	data := compressed(t, codecs.Zstd, strings.Repeat("\x00", 20<<20))
	for want, limits := range map[string]parquetfile.Limits{
		"a page of 20971524 bytes; accepted: up to 1048576":        {PageBytes: 1 << 20},
		"pages of 20971524 bytes; accepted: up to 16777216 in all": {UnpackedBytes: 16 << 20},
	} {
		f, err := open(data, limits)
		require.NoError(t, err)
		_, err = read(f, 0)
		require.ErrorIs(t, err, parquetfile.ErrDamaged)
		require.ErrorContains(t, err, want)
	}
}

// A source reads some bytes of a file, and fails then.
type source struct {
	*bytes.Reader
	failed bool
}

var errDisk = errors.New("input/output error")

func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	if s.failed {
		return 0, errDisk
	}
	return s.Reader.ReadAt(p, offset)
}

// What fails below is no damage.
func TestFailingSource(t *testing.T) {
	data := written(t, parquetfile.Options{}, 1000)
	s := &source{bytes.NewReader(data), true}
	_, err := parquetfile.Open(s, s.Size())
	require.ErrorIs(t, err, errDisk)
	s.failed = false
	f, err := parquetfile.Open(s, s.Size())
	require.NoError(t, err)
	s.failed = true
	for leaf := range 2 {
		_, err = read(f, leaf)
		require.ErrorIs(t, err, errDisk)
		require.NotErrorIs(t, err, parquetfile.ErrDamaged)
	}
	_, err = parquetfile.Open(bytes.NewReader(data[:len(data)-40]), s.Size())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}
