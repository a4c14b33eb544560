package attribute

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/tandem-ann/tandem/index/sections"
)

// check proves that p is a whole, well-formed bitmap of ordinals below rows. No
// other method may be called before.
func (p posting) check(section string, rows int) error {
	if err := p.wellFormed(rows); err != nil {
		return sections.Corruptf(section, "bitmap: %v", err)
	}
	return nil
}

func (p posting) wellFormed(rows int) error {
	le := binary.LittleEndian
	if len(p) < 8 {
		return fmt.Errorf("%d bytes are no bitmap", len(p))
	}
	var n, head int
	var offsets bool
	switch cookie := le.Uint32(p); {
	case cookie == cookieNoRuns:
		n, head, offsets = int(le.Uint32(p[4:])), 8, true
	case cookie&0xffff == cookieRuns:
		n = int(cookie>>16) + 1
		head, offsets = 4+(n+7)/8, n >= runOffsetsFrom
	default:
		return fmt.Errorf("cookie is %#x", cookie)
	}
	if n > 1<<16 {
		return fmt.Errorf("%d containers", n)
	}
	start := head + 4*n
	if offsets {
		start += 4 * n
	}
	if len(p) < start {
		return fmt.Errorf("%d bytes do not hold the header of %d containers", len(p), n)
	}
	runs := head != 8 || le.Uint32(p) != cookieNoRuns
	if runs && n%8 != 0 && p[4+n/8]>>(n%8) != 0 {
		return fmt.Errorf("run flags beyond the %d containers", n)
	}
	key := -1
	at := start
	for i := range n {
		desc := p[head+4*i:]
		c := container{key: int(le.Uint16(desc)), card: int(le.Uint16(desc[2:])) + 1}
		if c.key <= key {
			return fmt.Errorf("container %d: key %d does not ascend", i, c.key)
		}
		key = c.key
		if offsets {
			if o := le.Uint32(p[head+4*n+4*i:]); uint64(o) != uint64(at) {
				return fmt.Errorf("container %d: offset is %d, want %d", i, o, at)
			}
		}
		size := 2 * c.card
		switch {
		case runs && p[4+i/8]&(1<<(i%8)) != 0:
			if len(p)-at < 2 {
				return fmt.Errorf("container %d: truncated", i)
			}
			c.kind = runContainer
			size = 4 * int(le.Uint16(p[at:]))
			at += 2
		case c.card > arrayMax:
			c.kind, size = bitmapContainer, bitmapBytes
		}
		if len(p)-at < size {
			return fmt.Errorf("container %d: truncated", i)
		}
		c.data = p[at : at+size]
		at += size
		last, err := c.last()
		if err != nil {
			return fmt.Errorf("container %d: %w", i, err)
		}
		if o := c.key<<16 | last; o >= rows {
			return fmt.Errorf("ordinal %d in a shard of %d rows", o, rows)
		}
	}
	if at != len(p) {
		return fmt.Errorf("%d bytes follow it", len(p)-at)
	}
	return nil
}

// last checks a container and returns the lower 16 bits of its last ordinal.
func (c container) last() (int, error) {
	last, card := -1, 0
	switch c.kind {
	case arrayContainer:
		for _, v := range values16(c.data) {
			x := int(v)
			if x <= last {
				return 0, fmt.Errorf("array does not ascend at %d", x)
			}
			last = x
			card++
		}
	case bitmapContainer:
		for i, word := range words(c.data) {
			if word != 0 {
				last = i*64 + 63 - bits.LeadingZeros64(word)
				card += bits.OnesCount64(word)
			}
		}
	case runContainer:
		for r := c.data; len(r) > 0; r = r[4:] {
			start, length := run(r)
			if start <= last {
				return 0, fmt.Errorf("runs do not ascend at %d", start)
			}
			last = start + length - 1
			card += length
		}
		if last > 0xffff {
			return 0, fmt.Errorf("run ends at %d", last)
		}
	}
	if card != c.card {
		return 0, fmt.Errorf("cardinality is %d, the header says %d", card, c.card)
	}
	return last, nil
}
