package querylog

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Bounds of a file. Those of what a file says of itself are far above what [Encode]
// writes for 64 MiB of queries, and keep what a small file can make its reader allocate
// near 1 GiB.
const (
	// MaxFileBytes is the largest file that is read.
	MaxFileBytes   = 256 << 20
	maxFooterBytes = 256 << 10
	maxPageBytes   = 128 << 20 // decompressed
	maxValues      = 8 << 20   // in one column
	maxDepth       = 32        // of structs in the footer
)

// checkFooter checks that no list in a file's footer says that it has more elements
// than there are bytes: a decoder allocates lists by what they say.
func checkFooter(data []byte) error {
	const frame = 12 // two magics and the footer's length
	if len(data) < frame || string(data[:4]) != "PAR1" || string(data[len(data)-4:]) != "PAR1" {
		return fmt.Errorf("%w: %d bytes that are no Parquet file", ErrDamaged, len(data))
	}
	n := uint64(binary.LittleEndian.Uint32(data[len(data)-8:]))
	if n > uint64(len(data)-frame) {
		return fmt.Errorf("%w: footer of %d bytes in a file of %d: is it truncated?", ErrDamaged, n, len(data))
	}
	if n > maxFooterBytes {
		return fmt.Errorf("%w: footer of %d bytes; accepted: up to %d", ErrDamaged, n, maxFooterBytes)
	}
	c := compact{data[len(data)-8-int(n) : len(data)-8]}
	if !c.fields(0) {
		return fmt.Errorf("%w: the footer's structure", ErrDamaged)
	}
	return nil
}

// compact walks a struct in Thrift's compact protocol. Its methods return false where
// the bytes do not fit together.
type compact struct{ rest []byte }

func (c *compact) take(n uint64) bool {
	if n > uint64(len(c.rest)) {
		return false
	}
	c.rest = c.rest[n:]
	return true
}

func (c *compact) varint() (uint64, bool) {
	v, n := binary.Uvarint(c.rest)
	return v, n > 0 && c.take(uint64(n))
}

func (c *compact) octet() (byte, bool) {
	if len(c.rest) == 0 {
		return 0, false
	}
	b := c.rest[0]
	return b, c.take(1)
}

// fields walks the fields of a struct.
func (c *compact) fields(depth int) bool {
	for depth <= maxDepth {
		head, ok := c.octet()
		if !ok || head == 0 {
			return ok
		}
		if head>>4 == 0 { // the field's number follows
			if _, ok := c.varint(); !ok {
				return false
			}
		}
		if kind := head & 0xf; kind > 2 && !c.value(kind, depth) { // 1 and 2 are true and false
			return false
		}
	}
	return false
}

// value walks a value of a kind. Bools are in their field's head, except in lists.
func (c *compact) value(kind byte, depth int) bool {
	switch kind {
	case 1, 2, 3: // bool, bool, byte
		return c.take(1)
	case 4, 5, 6: // integers
		_, ok := c.varint()
		return ok
	case 7: // double
		return c.take(8)
	case 8: // binary
		n, ok := c.varint()
		return ok && c.take(n)
	case 9, 10: // list, set
		head, ok := c.octet()
		n := uint64(head >> 4)
		if n == 15 && ok {
			n, ok = c.varint()
		}
		if !ok || n > uint64(len(c.rest)) {
			return false
		}
		for range n {
			if !c.value(head&0xf, depth+1) {
				return false
			}
		}
		return depth <= maxDepth
	case 12: // struct
		return c.fields(depth + 1)
	}
	return false // maps too: no footer has one
}

// checkPages checks what each page of a file says of its sizes, and that what is
// compressed has the size that it says.
func checkPages(data []byte, f *parquet.File) error {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPageBytes))
	if err != nil {
		return err
	}
	defer decoder.Close()
	s := survey{data: data, decoder: decoder, values: map[int]int64{}}
	for _, group := range f.Metadata().RowGroups {
		for i := range group.Columns {
			if err := s.chunk(i, &group.Columns[i].MetaData); err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
		}
	}
	return nil
}

// survey goes through the pages of a file.
type survey struct {
	data    []byte
	decoder *zstd.Decoder
	scratch []byte
	values  map[int]int64 // of each column so far
	bytes   int64         // decompressed so far
}

// chunk checks a column's pages in a row group.
func (s *survey) chunk(column int, m *format.ColumnMetaData) error {
	if m.Codec != format.Uncompressed && m.Codec != format.Zstd {
		return fmt.Errorf("column %d is compressed with %s; accepted: ZSTD", column, m.Codec)
	}
	start := m.DataPageOffset
	if m.DictionaryPageOffset != 0 {
		start = m.DictionaryPageOffset
	}
	n := int64(len(s.data))
	if start < 0 || m.TotalCompressedSize < 0 || start > n || m.TotalCompressedSize > n-start {
		return fmt.Errorf("column %d has %d bytes at %d of a file of %d", column, m.TotalCompressedSize, start, n)
	}
	rest := s.data[start : start+m.TotalCompressedSize]
	for len(rest) > 0 {
		r := new(thrift.CompactProtocol).NewReaderFromBytes(rest)
		var h format.PageHeader
		if err := thrift.NewDecoder(r).Decode(&h); err != nil {
			return fmt.Errorf("column %d: page header: %w", column, err)
		}
		rest = rest[r.BytesRead():]
		if h.CompressedPageSize < 0 || int64(h.CompressedPageSize) > int64(len(rest)) {
			return fmt.Errorf("column %d: page of %d bytes where %d are left", column, h.CompressedPageSize, len(rest))
		}
		if err := s.page(column, m.Codec, &h, rest[:h.CompressedPageSize]); err != nil {
			return fmt.Errorf("column %d: %w", column, err)
		}
		rest = rest[h.CompressedPageSize:]
	}
	return nil
}

// page checks one page.
func (s *survey) page(column int, codec format.CompressionCodec, h *format.PageHeader, body []byte) error {
	var values, levels int32
	var encoding format.Encoding
	compressed := codec == format.Zstd
	switch {
	case h.Type == format.DataPage && h.DataPageHeader.Valid:
		values, encoding = h.DataPageHeader.V.NumValues, h.DataPageHeader.V.Encoding
	case h.Type == format.DictionaryPage && h.DictionaryPageHeader.Valid:
		values, encoding = h.DictionaryPageHeader.V.NumValues, h.DictionaryPageHeader.V.Encoding
	case h.Type == format.DataPageV2 && h.DataPageHeaderV2.Valid:
		v2 := &h.DataPageHeaderV2.V
		values, encoding = v2.NumValues, v2.Encoding
		if v2.RepetitionLevelsByteLength < 0 || v2.DefinitionLevelsByteLength < 0 ||
			int64(v2.RepetitionLevelsByteLength)+int64(v2.DefinitionLevelsByteLength) > int64(min(len(body), int(h.UncompressedPageSize))) {
			return fmt.Errorf("page of %d bytes with levels of %d and %d", len(body), v2.RepetitionLevelsByteLength, v2.DefinitionLevelsByteLength)
		}
		levels = v2.RepetitionLevelsByteLength + v2.DefinitionLevelsByteLength
		compressed = compressed && (!v2.IsCompressed.Valid || v2.IsCompressed.V)
	default:
		return fmt.Errorf("page of type %s", h.Type)
	}
	switch encoding {
	case format.Plain, format.RLEDictionary, format.RLE, format.DeltaBinaryPacked, format.DeltaLengthByteArray:
	default: // DELTA_BYTE_ARRAY makes long values of a few bytes
		return fmt.Errorf("page encoded as %s", encoding)
	}
	s.bytes += int64(h.UncompressedPageSize)
	s.values[column] += int64(values)
	switch {
	case values < 0 || s.values[column] > maxValues:
		return fmt.Errorf("more than %d values", maxValues)
	case h.UncompressedPageSize < 0 || h.UncompressedPageSize > maxPageBytes || s.bytes > MaxFileBytes:
		return fmt.Errorf("page of %d bytes after %d; accepted: up to %d, %d in all",
			h.UncompressedPageSize, s.bytes-int64(h.UncompressedPageSize), maxPageBytes, MaxFileBytes)
	case !compressed && int64(h.UncompressedPageSize) != int64(len(body)):
		return fmt.Errorf("page of %d bytes that says %d", len(body), h.UncompressedPageSize)
	}
	if compressed {
		var err error
		if s.scratch, err = s.decoder.DecodeAll(body[levels:], s.scratch[:0]); err != nil {
			return fmt.Errorf("decompress: %w", err)
		}
		if len(s.scratch)+int(levels) != int(h.UncompressedPageSize) {
			return fmt.Errorf("page of %d bytes that says %d", len(s.scratch)+int(levels), h.UncompressedPageSize)
		}
	}
	return nil
}
