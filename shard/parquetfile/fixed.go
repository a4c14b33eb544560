package parquetfile

import (
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// arrow-go does not decode DELTA_BYTE_ARRAY of byte arrays of a fixed length, which the
// format has and arrow-rs writes, also after pages with a dictionary. It does of others, as
// which these pages are the same. So the pages of such a column go to two readers, each as
// its encoding says: to one of byte arrays of a fixed length, and to one of any.

// A divider hands the pages of a column to two readers in turn.
type divider struct {
	pages file.PageReader
	ahead bool // a page has been read that no reader has taken
}

// A half of a divider is what one of the readers sees. When the next page is the other's it
// says that there is none, until the other has taken it.
type half struct {
	file.PageReader
	*divider
	delta bool // it is for pages of DELTA_BYTE_ARRAY
}

func (h *half) Next() bool {
	if !h.ahead {
		if !h.pages.Next() {
			return false
		}
		h.ahead = true
	}
	p := h.pages.Page()
	data := p.Type() == file.PageTypeDataPage || p.Type() == file.PageTypeDataPageV2
	if delta := data && parquet.Encoding(p.Encoding()) == parquet.Encodings.DeltaByteArray; delta != h.delta {
		return false
	}
	h.ahead = false
	return true
}

// Close closes the pages, which are of both halves.
func (h *half) Close() error {
	if h.delta {
		return nil
	}
	return h.PageReader.Close()
}

// fixedReaders returns the readers of the pages of a column of byte arrays of a fixed
// length.
func fixedReaders(descr *schema.Column, pages file.PageReader, pool *sync.Pool) []file.ColumnChunkReader {
	d := &divider{pages: pages}
	anyLength := schema.NewColumn(schema.NewByteArrayNode(descr.Name(), parquet.Repetitions.Required, -1), descr.MaxDefinitionLevel(), descr.MaxRepetitionLevel())
	var readers []file.ColumnChunkReader
	for _, of := range []*schema.Column{descr, anyLength} {
		//nolint:staticcheck // there is no other way to read the pages of a column in two ways
		readers = append(readers, file.NewColumnReader(of, &half{pages, d, of == anyLength}, memory.NewGoAllocator(), pool))
	}
	return readers
}

// fix makes values of any length ones of the fixed length.
func (c *Column) fix() error {
	c.Fixed = grown(c.Fixed, c.Count)
	for i, b := range c.any[:c.Count] {
		if len(b) != c.Leaf.TypeLength() {
			return fmt.Errorf("%w: a value of %d bytes in a column of %d", ErrDamaged, len(b), c.Leaf.TypeLength())
		}
		c.Fixed[i] = parquet.FixedLenByteArray(b)
	}
	return nil
}
