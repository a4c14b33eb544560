package parquetfile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
)

// A checker hands on the pages of a column whose values' own headers ask for no more than
// the page holds. arrow-go's decoders of differences allocate by those headers.
type checker struct {
	file.PageReader
	chunk          *chunk
	maxDef, maxRep int16
	err            error // stays
}

func (c *checker) Next() bool {
	if c.err != nil || !c.PageReader.Next() {
		return false
	}
	c.err = c.check(c.Page())
	return c.err == nil
}

func (c *checker) Err() error {
	if c.err != nil {
		return c.err
	}
	return c.PageReader.Err()
}

// Page returns the page that has been checked.
func (c *checker) Page() file.Page {
	if c.err != nil {
		return nil
	}
	return c.PageReader.Page()
}

// check checks a page.
func (c *checker) check(page file.Page) error {
	encoding := parquet.Encoding(page.Encoding())
	lists := 1 // of lengths
	switch encoding {
	default:
		return nil
	case parquet.Encodings.DeltaBinaryPacked:
		lists = 0
	case parquet.Encodings.DeltaLengthByteArray:
	case parquet.Encodings.DeltaByteArray:
		lists = 2
	}
	var values []byte
	var err error
	switch p := page.(type) {
	case *file.DataPageV1:
		values, err = c.valuesV1(p)
	case *file.DataPageV2:
		levels := int64(p.RepetitionLevelByteLen()) + int64(p.DefinitionLevelByteLen())
		if levels > int64(len(p.Data())) {
			return errLevels
		}
		values = p.Data()[levels:]
	default: // a dictionary, which must have another encoding
		return nil
	}
	if err != nil {
		return err
	}
	held := int64(0)
	for i := range max(1, lists) {
		d, rest, err := walkDelta(values)
		if err != nil {
			return fmt.Errorf("%v, list %d: %w", encoding, i, err)
		}
		if d.values > uint64(page.NumValues()) {
			return fmt.Errorf("%v, list %d: %d values in a page of %d", encoding, i, d.values, page.NumValues())
		}
		values = rest
		held += int64(d.mini) * 8 // decoders unpack a miniblock at a time
		if lists > 0 {
			held += int64(d.values) * 4
		}
		if err := c.chunk.budget.make(int64(d.miniblocks) * int64(d.mini)); err != nil {
			return err
		}
	}
	return c.chunk.hold(&c.chunk.lengths, held)
}

var errLevels = errors.New("a page that is shorter than its levels")

// valuesV1 returns the values of a page of version 1, which follow its levels.
func (c *checker) valuesV1(p *file.DataPageV1) ([]byte, error) {
	data := p.Data()
	skip := func(encoding parquet.Encoding, most int16) error {
		if most == 0 {
			return nil
		}
		n := int64(0)
		switch encoding {
		case parquet.Encodings.RLE:
			if len(data) < 4 {
				return errLevels
			}
			n = 4 + int64(binary.LittleEndian.Uint32(data))
		case parquet.Encodings.BitPacked:
			width := int64(1)
			for most > 1 {
				width, most = width+1, most/2
			}
			n = bitutil.BytesForBits(int64(p.NumValues()) * width)
		default:
			return fmt.Errorf("levels of the encoding %v", encoding)
		}
		if n > int64(len(data)) {
			return errLevels
		}
		data = data[n:]
		return nil
	}
	err := skip(p.RepetitionLevelEncoding(), c.maxRep)
	if err == nil {
		err = skip(p.DefinitionLevelEncoding(), c.maxDef)
	}
	return data, err
}

// maxMini bounds the values of a miniblock of DELTA_BINARY_PACKED. Writers have 32 to 256.
const maxMini = 1 << 16

// A delta is what the header of values in DELTA_BINARY_PACKED says, and what follows it.
type delta struct {
	values     uint64
	mini       uint64 // values in a miniblock
	miniblocks uint64 // that have values
}

// walkDelta walks the blocks of values in DELTA_BINARY_PACKED, and returns what follows
// them.
func walkDelta(data []byte) (d delta, rest []byte, err error) {
	c := compact{rest: data}
	block, ok1 := c.varint()
	minis, ok2 := c.varint()
	values, ok3 := c.varint()
	_, ok4 := c.varint() // the first value
	switch {
	case !ok1 || !ok2 || !ok3 || !ok4:
		return d, nil, errors.New("a header that ends too early")
	case block == 0 || minis == 0 || block%minis != 0 || block/minis%32 != 0:
		return d, nil, fmt.Errorf("blocks of %d values in %d miniblocks", block, minis)
	case block/minis > maxMini || minis > uint64(len(data)):
		return d, nil, fmt.Errorf("blocks of %d values in %d miniblocks; accepted: up to %d in a miniblock", block, minis, maxMini)
	}
	d = delta{values: values, mini: block / minis}
	for left := values; left > 1; {
		if _, ok := c.varint(); !ok || minis > uint64(len(c.rest)) {
			return d, nil, fmt.Errorf("%d values of which %d are missing", values, left-1)
		}
		widths := c.rest[:minis]
		c.rest = c.rest[minis:]
		for _, width := range widths {
			if left <= 1 {
				break
			}
			if width > 64 || !c.take(d.mini/8*uint64(width)) {
				return d, nil, fmt.Errorf("%d values of which %d are missing", values, left-1)
			}
			d.miniblocks++
			left -= min(left-1, d.mini)
		}
	}
	return d, c.rest, nil
}
