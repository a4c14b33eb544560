package parquetfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// What follows writes Parquet files that say what no writer says. Fields of structs in
// Thrift's compact protocol are given by how far their number is from that of the last.

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func asInt32(step int, v int64) []byte { return binary.AppendVarint([]byte{byte(step<<4 | 5)}, v) }
func asInt64(step int, v int64) []byte { return binary.AppendVarint([]byte{byte(step<<4 | 6)}, v) }

func asText(step int, s string) []byte {
	return append(binary.AppendUvarint([]byte{byte(step<<4 | 8)}, uint64(len(s))), s...)
}

func asStruct(step int, fields ...[]byte) []byte {
	return append(join(append([][]byte{{byte(step<<4 | 12)}}, fields...)...), 0)
}

// asList is a list of elements of a kind.
func asList(step int, kind byte, elements ...[]byte) []byte {
	head := binary.AppendUvarint([]byte{byte(step<<4 | 9), 0xf0 | kind}, uint64(len(elements)))
	return append(head, join(elements...)...)
}

// element is a struct in a list.
func element(fields ...[]byte) []byte { return append(join(fields...), 0) }

// page is a data page of version 1, or a dictionary.
func page(kind int, encoding parquet.Encoding, values int64, unpacked int, body []byte) []byte {
	part := asStruct(2, asInt32(1, values), asInt32(1, int64(encoding)), asInt32(1, int64(parquet.Encodings.RLE)), asInt32(1, int64(parquet.Encodings.RLE)))
	if kind == 2 {
		part = asStruct(4, asInt32(1, values), asInt32(1, int64(encoding)))
	}
	return join(asInt32(1, int64(kind)), asInt32(1, int64(unpacked)), asInt32(1, int64(len(body))), part, []byte{0}, body)
}

func dataOf(encoding parquet.Encoding, values int64, body []byte) []byte {
	return page(0, encoding, values, len(body), body)
}

// A crafted file has columns of one type, all with the same pages.
type crafted struct {
	typ        parquet.Type
	typeLength int64
	optional   bool
	codec      compress.Compression
	rows       int64
	columns    int // 0 is 1
	groups     int // 0 is 1, all of the same pages
	pages      []byte
}

func (c *crafted) bytes() []byte {
	columns, groups := max(1, c.columns), max(1, c.groups)
	repetition := int64(0)
	if c.optional {
		repetition = 1
	}
	leaf := element(asInt32(1, int64(c.typ)), asInt32(1, c.typeLength), asInt32(1, repetition), asText(1, "c"))
	if c.typ != parquet.Types.FixedLenByteArray {
		leaf = element(asInt32(1, int64(c.typ)), asInt32(2, repetition), asText(1, "c"))
	}
	schema := [][]byte{element(asText(4, "root"), asInt32(1, int64(columns)))}
	var chunks [][]byte
	out := []byte("PAR1")
	for range columns {
		schema = append(schema, leaf)
		chunks = append(chunks, element(asInt64(2, 0), asStruct(1,
			asInt32(1, int64(c.typ)), asList(1, 5, binary.AppendVarint(nil, 0)), asList(1, 8, append([]byte{1}, 'c')), asInt32(1, int64(c.codec)),
			asInt64(1, c.rows), asInt64(1, int64(len(c.pages))), asInt64(1, int64(len(c.pages))), asInt64(2, int64(len(out))))))
		out = append(out, c.pages...)
	}
	var rowGroups [][]byte
	for range groups {
		rowGroups = append(rowGroups, element(asList(1, 12, chunks...), asInt64(1, int64(len(c.pages))), asInt64(1, c.rows)))
	}
	return withFooter(out, join(asInt32(1, 1), asList(1, 12, schema...), asInt64(1, c.rows*int64(groups)), asList(1, 12, rowGroups...), []byte{0}))
}

// withFooter ends a file.
func withFooter(data, footer []byte) []byte {
	out := append(slices.Clip(data), footer...)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(footer))), "PAR1"...)
}

// differences begins values in DELTA_BINARY_PACKED: numbers of the values of a block, of
// miniblocks and of values, and the first value.
func differences(block, minis, values uint64, first int64) []byte {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, block), minis)
	return binary.AppendVarint(binary.AppendUvarint(b, values), first)
}

// equal is n times v in DELTA_BINARY_PACKED, in large blocks.
func equal(n uint64, v int64) []byte {
	const block = 1 << 16
	b := differences(block, 1, n, v)
	for left := int64(n) - 1; left > 0; left -= block {
		b = append(b, 0, 0)
	}
	return b
}

// firstThen is n lengths: the first, and another for all others.
func firstThen(n uint64, first, then int64) []byte {
	const block = 128
	b := append(differences(block, 1, n, first), binary.AppendVarint(nil, 0)...)
	width, delta := 32, uint64(then-first) // of the first difference; the others are 0
	if then < first {
		b = append(b[:len(b)-1], binary.AppendVarint(nil, then-first)...) // the least of them
		delta = 0
	}
	b = append(b, byte(width))
	for i := range block {
		if i > 0 && then < first {
			delta = uint64(first - then)
		} else if i > 0 {
			delta = 0
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(delta))
	}
	for left := int64(n) - 1 - block; left > 0; left -= block {
		b = append(b, 0, 0)
	}
	return b
}

// repeated is n times v in RLE with a width of up to 8 bits.
func repeated(n uint64, v byte) []byte { return append(binary.AppendUvarint(nil, n<<1), v) }

// sized is RLE with its length ahead.
func sized(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// zstandard compresses the body of a page.
func zstandard(t testing.TB, kind int, encoding parquet.Encoding, values int64, body []byte) []byte {
	codec, err := compress.GetCodec(compress.Codecs.Zstd)
	require.NoError(t, err)
	return page(kind, encoding, values, len(body), codec.Encode(make([]byte, codec.CompressBound(int64(len(body)))), body))
}

// drain reads all columns of a file, all of a row group at the same time, as towers are
// read.
func drain(data []byte) error {
	f, err := parquetfile.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	for group := range f.Groups() {
		if err := drainGroup(f, group); err != nil {
			return err
		}
	}
	return nil
}

func drainGroup(f *parquetfile.File, group int) (err error) {
	var open []*parquetfile.Column
	defer func() {
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
	}()
	for leaf := range f.Schema().NumColumns() {
		c, err := f.Column(group, leaf)
		if err != nil {
			return err
		}
		open = append(open, c)
	}
	for left := len(open); left > 0; {
		for _, c := range open {
			err := c.Next()
			if errors.Is(err, io.EOF) {
				left--
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// cpuTime returns how long the process has been on a processor.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// costs runs a function and fails if it takes much memory, or long.
func costs(t testing.TB, f func()) {
	const most = 100 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := cpuTime(t)
	f()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapSys)-int64(before.HeapSys), int64(most), "bytes of memory")
	require.Less(t, cpuTime(t)-started, time.Minute)
}

// Files of a few bytes that stand for more than there is memory, or time, are damaged; and
// so are those of which a part could be understood in two ways.
func TestCraftedFiles(t *testing.T) {
	e, types := parquet.Encodings, parquet.Types
	long := strings.Repeat("x", 1<<20)
	text := append(binary.LittleEndian.AppendUint32(nil, uint32(len(long))), long...)
	const many = 9_000_000
	sizes := func(other ...[]byte) []byte { // a page header with a field more, which says 1 GiB
		return join(asInt32(1, 0), asInt32(1, 8), asInt32(1, 8), join(other...), asStruct(2, asInt32(1, 1), asInt32(1, 0), asInt32(1, 3), asInt32(1, 3)), []byte{0}, make([]byte, 8))
	}
	hidden := dataOf(e.Plain, 1, make([]byte, 8))
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 19 << 3} // a frame of zstd with a window of 512 MiB
	for range 40 {
		window = append(window, 1<<1, 0, 16, 0) // a run of 128 KiB
	}
	window = append(window, 1|1<<1|1<<3, 0, 0, 0)
	for _, test := range []struct {
		name string
		file crafted
		want string
	}{
		{"block", crafted{typ: types.Int64, rows: 100, pages: dataOf(e.DeltaBinaryPacked, 100, append(differences(1<<32-128, 1, 100, 0), 0, 0))}, "accepted: up to 65536 in a miniblock"},
		{"miniblocks", crafted{typ: types.Int32, rows: 100, pages: dataOf(e.DeltaBinaryPacked, 100, append(differences(1<<31, 1<<26, 100, 0), 0, 0))}, "in 67108864 miniblocks"},
		{"no miniblocks", crafted{typ: types.Int32, rows: 100, pages: dataOf(e.DeltaBinaryPacked, 100, append(differences(128, 0, 100, 0), 0, 0))}, "128 values in 0 miniblocks"},
		{"values of differences", crafted{typ: types.Int64, rows: 100, pages: dataOf(e.DeltaBinaryPacked, 100, append(differences(1<<16, 1, math.MaxUint64, 0), make([]byte, 16)...))}, "are missing"},
		{"more values", crafted{typ: types.Int64, rows: 2, pages: dataOf(e.DeltaBinaryPacked, 2, equal(3, 0))}, "3 values in a page of 2"},
		{"no header", crafted{typ: types.Int64, rows: 2, pages: dataOf(e.DeltaBinaryPacked, 2, []byte{0x80, 1})}, "a header that ends too early"},
		{"lengths", crafted{typ: types.ByteArray, rows: many, pages: dataOf(e.DeltaLengthByteArray, many, equal(many, 0))}, "at a time; accepted"},
		{"prefixes", crafted{typ: types.ByteArray, rows: many, pages: dataOf(e.DeltaByteArray, many, join(equal(many, 0), equal(many, 0)))}, "at a time; accepted"},
		{"block of prefixes", crafted{typ: types.ByteArray, rows: 100, pages: dataOf(e.DeltaByteArray, 100, join(equal(100, 0), differences(1<<31, 1, 100, 0), []byte{0, 0}))}, "DELTA_BYTE_ARRAY, list 1: blocks of"},
		{"block of prefixes of a fixed length", crafted{typ: types.FixedLenByteArray, typeLength: 4, rows: 100, pages: dataOf(e.DeltaByteArray, 100, append(differences(1<<31, 1, 100, 0), 0, 0))}, "DELTA_BYTE_ARRAY, list 0: blocks of"},
		{"long prefixes", crafted{typ: types.ByteArray, codec: compress.Codecs.Zstd, rows: 100_000, pages: zstandard(t, 0, e.DeltaByteArray, 100_000,
			join(firstThen(100_000, 0, 1<<20), firstThen(100_000, 1<<20, 1), []byte(long), make([]byte, 100_000)))}, "values of"},
		{"one value of a dictionary", crafted{typ: types.ByteArray, codec: compress.Codecs.Zstd, rows: many, pages: join(
			zstandard(t, 2, e.Plain, 1, text), zstandard(t, 0, e.RLEDict, many, append([]byte{1}, repeated(many, 0)...)))}, "values of"},
		{"index beyond the dictionary", crafted{typ: types.Int64, rows: 9, pages: join(
			page(2, e.Plain, 1, 8, make([]byte, 8)), dataOf(e.RLEDict, 9, append([]byte{8}, repeated(9, 255)...)))}, "dict eof"},
		{"values of a dictionary", crafted{typ: types.Int64, rows: 9, pages: join(
			page(2, e.Plain, math.MaxInt32, 8, make([]byte, 8)), dataOf(e.RLEDict, 9, append([]byte{8}, repeated(9, 0)...)))}, "a dictionary of 2147483647 values in 8 bytes"},
		{"bit width", crafted{typ: types.Int64, rows: 9, pages: join(
			page(2, e.Plain, 1, 8, make([]byte, 8)), dataOf(e.RLEDict, 9, append([]byte{255}, repeated(9, 0)...)))}, "bit width"},
		{"dictionaries", crafted{typ: types.ByteArray, codec: compress.Codecs.Zstd, columns: 20, rows: 1, pages: join(
			zstandard(t, 2, e.Plain, 1<<19, make([]byte, 1<<21)), zstandard(t, 0, e.RLEDict, 1, []byte{1, 2, 0}))}, "at a time; accepted"},
		{"length of a byte array", crafted{typ: types.ByteArray, rows: 1, pages: dataOf(e.Plain, 1, []byte{0xff, 0xff, 0xff, 0x7f, 1})}, "eof"},
		{"negative length of a byte array", crafted{typ: types.ByteArray, rows: 1, pages: dataOf(e.Plain, 1, []byte{0xff, 0xff, 0xff, 0xff, 1})}, "invalid BYTE_ARRAY"},
		{"fixed length", crafted{typ: types.FixedLenByteArray, typeLength: math.MaxInt32, rows: 9, pages: dataOf(e.ByteStreamSplit, 9, make([]byte, 9))}, "not aligned"},
		{"bools", crafted{typ: types.Boolean, rows: 1000, pages: dataOf(e.RLE, 1000, sized(repeated(9, 1)))}, "EOF"},
		{"nulls", crafted{typ: types.Int64, optional: true, rows: math.MaxInt32, pages: dataOf(e.Plain, math.MaxInt32, sized(repeated(math.MaxInt32, 0)))}, "columns of more than"},
		{"pages of nulls", crafted{typ: types.Int64, optional: true, rows: 4000 << 20, pages: bytes.Repeat(dataOf(e.Plain, 1<<30, sized(repeated(1<<30, 0))), 4)}, "columns of more than"},
		{"row groups of the same pages", crafted{typ: types.Int64, groups: 3000, rows: 1000, pages: dataOf(e.Plain, 1000, make([]byte, 8000))}, "columns of more bytes than the file"},
		{"pages at a time", crafted{typ: types.Int64, codec: compress.Codecs.Zstd, columns: 100, rows: 1 << 18, pages: zstandard(t, 0, e.Plain, 1<<18, make([]byte, 2<<20))}, "at a time; accepted"},
		{"page of zeros", crafted{typ: types.Int64, codec: compress.Codecs.Zstd, rows: 1 << 25, pages: zstandard(t, 0, e.Plain, 1<<25, make([]byte, 256<<20))}, "at a time; accepted"},
		{"window", crafted{typ: types.Int64, codec: compress.Codecs.Zstd, rows: 1 << 19, pages: page(0, e.Plain, 1<<19, 5<<20+1, window)}, "window size exceeded"},
		{"pages in an index", crafted{typ: types.Int64, rows: 1, pages: join(asInt32(1, 1), asInt32(1, int64(len(hidden))), asInt32(1, int64(len(hidden))), []byte{0}, hidden)}, "a page of type 1"},
		{"size twice", crafted{typ: types.Int64, rows: 1, pages: sizes(append([]byte{5}, binary.AppendVarint([]byte{4}, 1<<30)...), asInt32(1, 8))}, "structure"},
		{"size of another kind", crafted{typ: types.Int64, rows: 1, pages: join(asInt32(1, 0), asInt64(1, 8), asInt32(1, 8), asStruct(2, asInt32(1, 1), asInt32(1, 0), asInt32(1, 3), asInt32(1, 3)), []byte{0}, make([]byte, 8))}, "structure"},
		{"size in a field beyond 16 bits", crafted{typ: types.Int64, rows: 1, pages: join(asInt32(1, 0), asInt32(1, 8), asInt32(1, 8), asStruct(2, asInt32(1, 1), asInt32(1, 0), asInt32(1, 3), asInt32(1, 3)),
			binary.AppendVarint(binary.AppendVarint([]byte{5}, 1<<16+2), 1<<30), []byte{0}, make([]byte, 8))}, "structure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := test.file.bytes()
			require.Less(t, len(data), 1<<20)
			costs(t, func() {
				err := drain(data)
				require.ErrorIs(t, err, parquetfile.ErrDamaged)
				require.ErrorContains(t, err, test.want)
			})
		})
	}
}

// So are files with such footers.
func TestCraftedFooters(t *testing.T) {
	leaf := element(asInt32(1, int64(parquet.Types.Int64)), asInt32(2, 0), asText(1, "c"))
	root := func(children ...[]byte) []byte {
		return asList(1, 12, append([][]byte{element(asText(4, "root"), asInt32(1, int64(len(children))))}, children...)...)
	}
	group := element(asText(4, strings.Repeat("n", 50_000)), asInt32(1, 20_000))
	wide := [][]byte{element(asText(4, "root"), asInt32(1, 1)), group}
	for range 20_000 {
		wide = append(wide, leaf)
	}
	// A struct whose first field is a list of 2^31-1 structs.
	bomb := []byte{0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0}
	var octets [][]byte
	for _, b := range bomb {
		octets = append(octets, []byte{b})
	}
	for _, test := range []struct {
		name   string
		fields [][]byte
		want   string
	}{
		{"list of structs that says bytes", [][]byte{root(leaf), asInt64(1, 1), asList(1, 3, octets...)}, "the footer's structure"},
		{"list in a list that says bytes", [][]byte{root(leaf), asInt64(1, 1), asList(1, 12, element(asList(1, 3, octets...), asInt64(1, 1), asInt64(1, 1)))}, "the footer's structure"},
		{"list of encodings that says structs", [][]byte{root(leaf), asInt64(1, 1), asList(1, 12, element(asList(1, 12, element(asStruct(3, asInt32(1, 2), asList(1, 12, element()))))))}, "the footer's structure"},
		{"children of another kind", [][]byte{asList(1, 12, element(asText(4, "root"), asInt64(1, 1<<31)), leaf), asInt64(1, 1), asList(1, 12)}, "no tree"},
		{"children", [][]byte{asList(1, 12, element(asText(4, "root"), asInt32(1, math.MaxInt32)), leaf), asInt64(1, 1), asList(1, 12)}, "2147483647 children"},
		{"paths", [][]byte{asList(1, 12, wide...), asInt64(1, 0), asList(1, 12)}, "on the ways to its columns"},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := withFooter([]byte("PAR1"), append(join(asInt32(1, 1), join(test.fields...)), 0))
			costs(t, func() {
				err := drain(data)
				require.ErrorIs(t, err, parquetfile.ErrDamaged)
				require.ErrorContains(t, err, test.want)
			})
		})
	}
}

// Whatever is in a page, and whatever it says that it is, reading it neither panics nor
// takes much memory.
func FuzzPage(f *testing.F) {
	e, types := parquet.Encodings, parquet.Types
	add := func(typ parquet.Type, encoding parquet.Encoding, values int32, optional bool, body []byte) {
		f.Add(byte(typ), byte(encoding), values, optional, []byte{}, body)
	}
	add(types.Int64, e.DeltaBinaryPacked, 1000, false, equal(1000, 7))
	add(types.Int32, e.DeltaBinaryPacked, 100, true, join(sized(repeated(100, 1)), equal(100, 7)))
	add(types.ByteArray, e.DeltaLengthByteArray, 4, false, join(firstThen(4, 2, 1), []byte("abcde")))
	add(types.ByteArray, e.DeltaByteArray, 4, false, join(firstThen(4, 0, 2), firstThen(4, 2, 1), []byte("abcde")))
	add(types.FixedLenByteArray, e.DeltaByteArray, 1, false, join(equal(1, 0), equal(1, 4), []byte("abcd")))
	add(types.FixedLenByteArray, e.ByteStreamSplit, 2, false, []byte("abcdefgh"))
	add(types.Double, e.ByteStreamSplit, 2, false, []byte("abcdefghijklmnop"))
	add(types.Boolean, e.RLE, 20, false, sized(repeated(20, 1)))
	add(types.Int96, e.Plain, 1, true, join(sized(repeated(1, 1)), make([]byte, 12)))
	add(types.ByteArray, e.Plain, 1, false, []byte{1, 0, 0, 0, 'a'})
	f.Add(byte(types.Int64), byte(e.RLEDict), int32(9), false, make([]byte, 8), append([]byte{8}, repeated(9, 0)...))
	f.Add(byte(types.ByteArray), byte(e.RLEDict), int32(9), true, []byte{1, 0, 0, 0, 'a'}, join(sized(repeated(9, 1)), []byte{8}, repeated(9, 0)))
	f.Fuzz(func(t *testing.T, typ, encoding byte, values int32, optional bool, dictionary, body []byte) {
		if len(body)+len(dictionary) > 1<<16 {
			return
		}
		c := crafted{typ: parquet.Type(typ % 8), typeLength: 4, optional: optional, rows: int64(values), pages: dataOf(parquet.Encoding(encoding%16), int64(values), body)}
		if len(dictionary) > 0 {
			c.pages = join(page(2, e.Plain, int64(len(dictionary))/8, len(dictionary), dictionary), c.pages)
		}
		costs(t, func() { _ = drain(c.bytes()) })
	})
}
