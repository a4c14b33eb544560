package parquetfile

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
)

// Bounds of what a page header may say, in bytes.
const (
	maxPageBytes   = 1 << 30
	maxHeaderBytes = 4 << 20
	// smallPage is what a page may always say that it takes.
	smallPage = 4 << 20
)

// A chunk is the source of one column chunk for arrow-go, which reads it from its first
// byte to its last. Pages are checked as they pass: a header that asks for more than its
// page can hold, or a checksum that is not the page's, is an error before arrow-go has
// seen the page.
type chunk struct {
	r           io.ReaderAt
	compression compress.Compression
	width       int64 // the least bytes of a value in a dictionary
	decoded     int64 // the bytes that such a value takes when it has been decoded
	total       int64 // levels, as the metadata says
	most        int64 // bytes of a page
	budget      *budget

	next   int64 // the offset that is read next
	end    int64 // where the pages end at the latest
	head   []byte
	page   pageHeader
	left   int64 // bytes left of the page's body
	crc    uint32
	levels int64 // of the pages that have passed
	empty  int   // data pages without levels
	shared int64 // bytes of the largest page whose values share bytes with others
	// Bytes that are held: of data pages, of a dictionary, of values' lengths, and of all.
	pages, dictionary, lengths, held int64

	done int64 // where the last page ended, 0 before
	err  error // stays
}

// Seek is there because arrow-go asks for it. It is for footers, which are read before.
func (c *chunk) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }

// ReadAt reads the bytes that follow those of the last call.
func (c *chunk) ReadAt(p []byte, offset int64) (int, error) {
	switch {
	case c.err != nil:
		return 0, c.err
	case offset != c.next:
		c.err = fmt.Errorf("%w: a dictionary is not ahead of its column", ErrDamaged)
		return 0, c.err
	case c.done > 0:
		return 0, io.EOF
	}
	if left := c.end - offset; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := c.r.ReadAt(p, offset)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		c.err = err
		return 0, err
	}
	used, err := c.pass(p)
	if err != nil {
		c.err = err
		return 0, err
	}
	c.next += int64(used)
	if c.levels >= c.total || c.next == c.end {
		c.done = c.next
		return used, io.EOF
	}
	return used, nil
}

// pass checks the next bytes, and returns how many of them are of the chunk.
func (c *chunk) pass(p []byte) (used int, err error) {
	for used < len(p) && c.levels < c.total {
		rest := p[used:]
		if c.left > 0 {
			n := min(c.left, int64(len(rest)))
			c.crc = crc32.Update(c.crc, crc32.IEEETable, rest[:n])
			c.left -= n
			used += int(n)
			if c.left > 0 {
				break
			}
			if err := c.endPage(); err != nil {
				return used, err
			}
			continue
		}
		before, data := len(c.head), rest
		if before > 0 {
			c.head = append(c.head, rest...)
			data = c.head
		}
		h, length, whole := parsePageHeader(data)
		if !whole {
			if before == 0 {
				c.head = append(c.head, rest...)
			}
			if used = len(p); len(c.head) > maxHeaderBytes || c.next+int64(used) == c.end {
				return used, fmt.Errorf("%w: a page header's structure", ErrDamaged)
			}
			break
		}
		c.head = c.head[:0]
		used += length - before
		c.page, c.left, c.crc = h, h.packed, 0
		if err := c.begin(c.next + int64(used)); err != nil {
			return used, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if c.left == 0 {
			if err := c.endPage(); err != nil {
				return used, err
			}
		}
	}
	return used, nil
}

// endPage is called when all of a page has passed.
func (c *chunk) endPage() error {
	h := &c.page
	if h.checked && h.crc != c.crc {
		return fmt.Errorf("%w: a page has the checksum %08x, its header says %08x", ErrDamaged, c.crc, h.crc)
	}
	if h.kind == dataPage || h.kind == dataPageV2 {
		if parquet.Encoding(h.encoding) == parquet.Encodings.DeltaByteArray {
			c.shared = max(c.shared, h.unpacked)
		}
		if c.levels += h.values; h.values == 0 {
			c.empty++
		}
	}
	return nil
}

// begin checks the header of the page whose body is at an offset.
func (c *chunk) begin(body int64) error {
	h := &c.page
	switch {
	case h.packed < 0 || h.packed > c.end-body:
		return fmt.Errorf("a page of %d bytes where %d are left", h.packed, c.end-body)
	case h.unpacked < 0 || h.unpacked > c.most:
		return fmt.Errorf("a page of %d bytes; accepted: up to %d", h.unpacked, c.most)
	case h.values < 0:
		return fmt.Errorf("a page of %d values", h.values)
	case h.kind == dataPageV2 && h.plain && h.packed != h.unpacked:
		return fmt.Errorf("a page of %d bytes that is not compressed, and %d bytes long", h.unpacked, h.packed)
	case h.kind == dictionaryPage && h.values*c.width > h.unpacked:
		return fmt.Errorf("a dictionary of %d values in %d bytes", h.values, h.unpacked)
	case h.levels > h.packed || h.levels > h.unpacked:
		return fmt.Errorf("a page of %d bytes with levels of %d", min(h.packed, h.unpacked), h.levels)
	}
	part, held := &c.pages, h.unpacked
	switch h.kind {
	case dataPage, dataPageV2:
	case dictionaryPage:
		part, held = &c.dictionary, held+h.values*c.decoded
	default: // arrow-go would take what is in it for pages
		return fmt.Errorf("a page of type %d", h.kind)
	}
	if err := c.budget.unpack(h.unpacked); err != nil {
		return err
	}
	if err := c.hold(part, held); err != nil {
		return err
	}
	if h.unpacked <= smallPage {
		return nil
	}
	return c.unpacks(body)
}

// hold notes that a part of what the column holds has n bytes, if that is more than before.
func (c *chunk) hold(part *int64, n int64) error {
	more := n - *part
	if more <= 0 {
		return nil
	}
	*part, c.held = n, c.held+more
	return c.budget.hold(more)
}

// release gives back what the column holds.
func (c *chunk) release() {
	c.budget.release(c.held)
	c.pages, c.dictionary, c.lengths, c.held = 0, 0, 0, 0
}

// unpacks checks that a page can be as large as its header says.
func (c *chunk) unpacks(body int64) error {
	h := &c.page
	packed, unpacked := h.packed-h.levels, h.unpacked-h.levels
	compression := c.compression
	if h.kind == dataPageV2 && h.plain {
		compression = compress.Codecs.Uncompressed
	}
	most := int64(1) // bytes that a compressed byte can stand for
	switch compression {
	case compress.Codecs.Uncompressed:
	case compress.Codecs.Snappy:
		most = 32
	case compress.Codecs.Lz4, compress.Codecs.Lz4Raw:
		most = 256
	default:
		if most = 16; unpacked > most*packed { // few pages are: look
			n, err := unpackedSize(compression, io.NewSectionReader(c.r, body+h.levels, packed), unpacked)
			if err != nil {
				return fmt.Errorf("a page of %d bytes: %w", h.unpacked, err)
			}
			if n != unpacked {
				return fmt.Errorf("a page of %d bytes, of which its header says %d", n+h.levels, h.unpacked)
			}
			return nil
		}
	}
	if unpacked > most*packed {
		return fmt.Errorf("a page of %d bytes compressed to %d", h.unpacked, h.packed)
	}
	return nil
}
