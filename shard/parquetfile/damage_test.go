package parquetfile_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/snappy"
	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// readAll reads all columns of a file, as text.
func readAll(data []byte) (string, error) {
	f, err := open(data, parquetfile.Limits{})
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for leaf := range f.Schema().NumColumns() {
		b, err := read(f, leaf)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&all, b)
	}
	return all.String(), nil
}

// Where pages have checksums, no damaged byte of a page gives other values. The file is
// pyarrow's: testdata/make.py of builder/tower writes it.
func TestChecksums(t *testing.T) {
	good, err := os.ReadFile("testdata/checksums.parquet")
	require.NoError(t, err)
	want, err := readAll(good)
	require.NoError(t, err)
	pages := len(good) - 8 - int(binary.LittleEndian.Uint32(good[len(good)-8:]))
	failed := 0
	for i := range pages {
		for _, change := range []byte{1, 0x10, 0x80, 0xff} {
			data := slices.Clone(good)
			data[i] ^= change
			got, err := readAll(data)
			if err != nil {
				failed++
				continue
			}
			require.Equal(t, want, got, "byte %d ^ %#x", i, change)
		}
	}
	require.Greater(t, failed, 4*pages*8/10)
}

// A file that is cut anywhere is an error.
func TestCutFiles(t *testing.T) {
	good := written(t, parquetfile.Options{}, 20)
	for n := range good {
		_, err := readAll(good[:n])
		require.Error(t, err)
	}
}

// A column that has other numbers of values than its metadata says is damaged, and its
// last row is not cut short.
func TestValuesOfTheMetadata(t *testing.T) {
	good := written(t, parquetfile.Options{}, 5000)
	// The words have as many levels as a zigzag varint of the footer says, and so many.
	_, words := rows(5000)
	number := binary.AppendVarint(nil, int64(len(words.Def)))
	at := bytes.LastIndex(good, number)
	require.Greater(t, at, len(good)-400)
	for _, other := range []int{len(words.Def) - 1, len(words.Def) + 1, 5000} {
		changed := binary.AppendVarint(nil, int64(other))
		require.Len(t, changed, len(number))
		data := slices.Clone(good)
		copy(data[at:], changed)
		_, err := readAll(data)
		require.ErrorIs(t, err, parquetfile.ErrDamaged, "%d values instead of %d", other, len(words.Def))
	}
}

// Blocks do not decode to more than the page that they are of.
func TestCodecs(t *testing.T) {
	page := []byte(strings.Repeat("some words and some more; ", 40))
	block := make([]byte, lz4.CompressBlockBound(len(page)))
	n, err := lz4.CompressBlock(page, block, nil)
	require.NoError(t, err)
	block = block[:n]
	frame := func(unpacked, packed int, data []byte) []byte {
		return append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(unpacked)), uint32(packed)), data...)
	}
	hadoop := frame(len(page), n, block)
	long := binary.AppendUvarint(nil, 1<<31)
	for _, test := range []struct {
		name  string
		codec compress.Compression
		data  []byte
		whole bool
	}{
		{"hadoop", compress.Codecs.Lz4, hadoop, true},
		{"no hadoop", compress.Codecs.Lz4, block, true},
		{"hadoop of another length", compress.Codecs.Lz4, frame(1<<30, n, block), false},
		{"hadoop that is cut", compress.Codecs.Lz4, hadoop[:n], false},
		{"snappy", compress.Codecs.Snappy, snappy.Encode(nil, page), true},
		{"snappy of another length", compress.Codecs.Snappy, append(long, 0, 0, 0), false},
		{"snappy of no length", compress.Codecs.Snappy, []byte{0xff}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			codec, err := compress.GetCodec(test.codec)
			require.NoError(t, err)
			got, err := compress.Decode(codec, make([]byte, len(page)), test.data)
			if test.whole {
				require.NoError(t, err)
				require.Equal(t, page, got)
			} else {
				require.Error(t, err)
			}
		})
	}
	for _, compression := range []compress.Compression{compress.Codecs.Gzip, compress.Codecs.Brotli, compress.Codecs.Zstd, compress.Codecs.Snappy} {
		codec, err := compress.GetCodec(compression)
		require.NoError(t, err)
		packed := codec.Encode(make([]byte, codec.CompressBound(int64(len(page)))), page)
		got, err := compress.Decode(codec, make([]byte, len(page)), packed)
		require.NoError(t, err, compression)
		require.Equal(t, page, got)
		for _, other := range []int{len(page) - 1, len(page) / 2, 0} {
			got, err = compress.Decode(codec, make([]byte, other), packed)
			require.True(t, err != nil || len(got) != other, "%v: a page of %d bytes that are %d", compression, other, len(page))
			require.LessOrEqual(t, len(got), other)
		}
		got, err = compress.Decode(codec, make([]byte, len(page)+1), packed)
		require.True(t, err != nil || len(got) < len(page)+1, "%v: a page that is shorter", compression)
		got, err = compress.Decode(codec, nil, nil)
		require.NoError(t, err, "a page without values")
		require.Empty(t, got)
	}
}

func FuzzFile(f *testing.F) {
	f.Add(written(f, parquetfile.Options{Dictionaries: []string{"words.list.element"}}, 20, 3))
	if data, err := os.ReadFile("testdata/checksums.parquet"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 1<<16 {
			_, _ = readAll(data) // it must not panic
		}
	})
}
