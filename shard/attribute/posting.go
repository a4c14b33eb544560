package attribute

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
	"unsafe"

	"github.com/tandem-ann/tandem/index"
)

// A posting is a roaring bitmap in the portable serialisation, used in place.
//
// Goals: an attribute may have 100,000 values with a bitmap each, so opening a
// shard must not build an object per bitmap; a filter must merge a bitmap into a
// dense bitset without allocating; and the bytes may be hostile.
//
// Design: package roaring writes the bitmaps, and its FromBuffer reads them, but
// that allocates an object for each container, and its check of run containers
// is quadratic. Merging into dense words needs only a walk over the containers in
// order, so that walk is here, straight over the bytes: [posting.check] proves
// once that it cannot leave them.
type posting []byte

const (
	cookieRuns   = 12347 // some containers may be runs
	cookieNoRuns = 12346

	runOffsetsFrom = 4    // with runs, fewer containers than this have no offset header
	arrayMax       = 4096 // an array container holds at most this many
	blockWords     = 1024 // 64-bit words of a container's 65,536 ordinals
	bitmapBytes    = blockWords * 8
)

type containerKind uint8

const (
	arrayContainer containerKind = iota
	bitmapContainer
	runContainer
)

// container is a part of a posting: the ordinals with the same upper 16 bits.
type container struct {
	kind containerKind
	key  int
	card int
	data []byte // sorted uint16s, 1,024 words, or (start, length - 1) pairs of uint16
}

// walk iterates over the containers of a checked posting.
type walk struct {
	flags   []byte // one bit a container: it is a run container
	cards   []byte // (key, cardinality - 1) pairs
	offsets []byte // where each container is; absent if there are few with runs
	data    []byte // the containers from the next one on
	next    int
	n       int
}

func (p posting) walk() walk {
	le := binary.LittleEndian
	cookie := le.Uint32(p)
	if cookie == cookieNoRuns {
		n := int(le.Uint32(p[4:]))
		return walk{cards: p[8 : 8+4*n], offsets: p[8+4*n : 8+8*n], data: p[8+8*n:], n: n}
	}
	n := int(cookie>>16) + 1
	head := 4 + (n+7)/8
	w := walk{flags: p[4:head], cards: p[head : head+4*n], data: p[head+4*n:], n: n}
	if n >= runOffsetsFrom {
		w.offsets, w.data = w.data[:4*n], w.data[4*n:]
	}
	return w
}

// container returns the next container and moves past it.
func (w *walk) container() (container, bool) {
	if w.next == w.n {
		return container{}, false
	}
	le := binary.LittleEndian
	desc := w.cards[4*w.next:]
	c := container{key: int(le.Uint16(desc)), card: int(le.Uint16(desc[2:])) + 1}
	size := 0
	switch {
	case len(w.flags) > 0 && w.flags[w.next/8]&(1<<(w.next%8)) != 0:
		c.kind = runContainer
		size = 4 * int(le.Uint16(w.data))
		w.data = w.data[2:]
	case c.card > arrayMax:
		c.kind, size = bitmapContainer, bitmapBytes
	default:
		size = 2 * c.card
	}
	c.data, w.data = w.data[:size], w.data[size:]
	w.next++
	return c, true
}

// cardinality returns the number of ordinals.
func (p posting) cardinality() int {
	w := p.walk()
	n := 0
	for i := range w.n {
		n += int(binary.LittleEndian.Uint16(w.cards[4*i+2:])) + 1
	}
	return n
}

// contains reports whether ordinal o is in the bitmap.
func (p posting) contains(o uint32) bool {
	w := p.walk()
	w.skipTo(p, int(o>>16))
	c, ok := w.container()
	return ok && c.key == int(o>>16) && c.contains(uint16(o))
}

// skipTo moves to the first container whose key is not below key.
func (w *walk) skipTo(p posting, key int) {
	le := binary.LittleEndian
	next := sort.Search(w.n, func(i int) bool { return int(le.Uint16(w.cards[4*i:])) >= key })
	if w.offsets == nil {
		for w.next < next {
			w.container()
		}
		return
	}
	if w.next = next; next < w.n {
		w.data = p[le.Uint32(w.offsets[4*next:]):]
	}
}

func (c container) contains(x uint16) bool {
	switch c.kind {
	case bitmapContainer:
		return words(c.data)[x>>6]&(1<<(x&63)) != 0
	case runContainer:
		for r := c.data; len(r) > 0; r = r[4:] {
			start, length := run(r)
			if int(x) < start {
				return false
			}
			if int(x) < start+length {
				return true
			}
		}
		return false
	}
	_, found := slices.BinarySearch(values16(c.data), x)
	return found
}

// words returns a bitmap container's words. They may lie at any address, which
// every supported platform reads.
func words(data []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/8)
}

// values16 returns an array container's values, as [words] does.
func values16(data []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/2)
}

// run decodes the first pair of a run container.
func run(data []byte) (start, length int) {
	le := binary.LittleEndian
	return int(le.Uint16(data)), int(le.Uint16(data[2:])) + 1
}

// block returns the words of dst that container key covers: fewer than
// blockWords at the end of the shard.
func block(dst index.Bitset, key int) []uint64 {
	b := dst[key*blockWords:]
	return b[:min(len(b), blockWords)]
}

// or adds the ordinals to dst.
func (p posting) or(dst index.Bitset) {
	w := p.walk()
	for c, ok := w.container(); ok; c, ok = w.container() {
		c.or(block(dst, c.key))
	}
}

// copy makes dst hold exactly the ordinals.
func (p posting) copy(dst index.Bitset) {
	done := 0 // words of dst that are written
	w := p.walk()
	for c, ok := w.container(); ok; c, ok = w.container() {
		start := c.key * blockWords
		b := block(dst, c.key)
		if c.kind == bitmapContainer {
			clear(dst[done:start])
			copy(b, words(c.data))
		} else {
			clear(dst[done : start+len(b)])
			c.or(b)
		}
		done = start + len(b)
	}
	clear(dst[done:])
}

// and keeps what is also in the bitmap.
func (p posting) and(dst index.Bitset) {
	var tmp [blockWords]uint64
	done := 0
	w := p.walk()
	for c, ok := w.container(); ok; c, ok = w.container() {
		start := c.key * blockWords
		clear(dst[done:start])
		b := block(dst, c.key)
		o := tmp[:len(b)]
		if c.kind == bitmapContainer {
			o = words(c.data)
		} else {
			clear(o)
			c.or(o)
		}
		index.Bitset(b).And(o)
		done = start + len(b)
	}
	clear(dst[done:])
}

// andNot removes the ordinals from dst.
func (p posting) andNot(dst index.Bitset) {
	w := p.walk()
	for c, ok := w.container(); ok; c, ok = w.container() {
		b := block(dst, c.key)
		switch c.kind {
		case arrayContainer:
			for _, x := range values16(c.data) {
				b[x>>6] &^= 1 << (x & 63)
			}
		case bitmapContainer:
			index.Bitset(b).AndNot(words(c.data))
		case runContainer:
			for r := c.data; len(r) > 0; r = r[4:] {
				start, length := run(r)
				clearBits(b, start, start+length)
			}
		}
	}
}

// or adds a container to the words of its block.
func (c container) or(b []uint64) {
	switch c.kind {
	case arrayContainer:
		if len(b) == blockWords { // the compiler then proves every index
			setValues((*[blockWords]uint64)(b), values16(c.data))
			return
		}
		for _, x := range values16(c.data) {
			b[x>>6] |= 1 << (x & 63)
		}
	case bitmapContainer:
		index.Bitset(b).Or(words(c.data))
	case runContainer:
		for r := c.data; len(r) > 0; r = r[4:] {
			start, length := run(r)
			setBits(b, start, start+length)
		}
	}
}

// setValues sets the bits of ascending values. Those next to each other are often in one
// word, where one has to wait for the other; so it sets four far apart at a time.
func setValues(b *[blockWords]uint64, values []uint16) {
	n := len(values) / 4
	v0, v1, v2, v3 := values[:n], values[n:][:n], values[2*n:][:n], values[3*n:][:n]
	for i, x := range v0 {
		b[x>>6] |= 1 << (x & 63)
		x = v1[i]
		b[x>>6] |= 1 << (x & 63)
		x = v2[i]
		b[x>>6] |= 1 << (x & 63)
		x = v3[i]
		b[x>>6] |= 1 << (x & 63)
	}
	for _, x := range values[4*n:] {
		b[x>>6] |= 1 << (x & 63)
	}
}

// setBits sets the bits lo <= bit < hi; there is at least one.
func setBits(b []uint64, lo, hi int) {
	first, last := lo>>6, (hi-1)>>6
	from, to := ^uint64(0)<<(lo&63), ^uint64(0)>>(63-(hi-1)&63)
	if first == last {
		b[first] |= from & to
		return
	}
	b[first] |= from
	for i := first + 1; i < last; i++ {
		b[i] = ^uint64(0)
	}
	b[last] |= to
}

// clearBits clears the bits lo <= bit < hi; there is at least one.
func clearBits(b []uint64, lo, hi int) {
	first, last := lo>>6, (hi-1)>>6
	from, to := ^uint64(0)<<(lo&63), ^uint64(0)>>(63-(hi-1)&63)
	if first == last {
		b[first] &^= from & to
		return
	}
	b[first] &^= from
	clear(b[first+1 : last])
	b[last] &^= to
}

// each calls f for each ordinal, ascending, until f returns false. It reports
// whether f always returned true.
func (p posting) each(f func(o uint32) bool) bool {
	w := p.walk()
	for c, ok := w.container(); ok; c, ok = w.container() {
		if !c.each(f) {
			return false
		}
	}
	return true
}

func (c container) each(f func(o uint32) bool) bool {
	high := uint32(c.key) << 16
	switch c.kind {
	case arrayContainer:
		for _, x := range values16(c.data) {
			if !f(high | uint32(x)) {
				return false
			}
		}
	case bitmapContainer:
		for i, word := range words(c.data) {
			for ; word != 0; word &= word - 1 {
				if !f(high | uint32(i*64+bits.TrailingZeros64(word))) {
					return false
				}
			}
		}
	case runContainer:
		for r := c.data; len(r) > 0; r = r[4:] {
			start, length := run(r)
			for x := start; x < start+length; x++ {
				if !f(high | uint32(x)) {
					return false
				}
			}
		}
	}
	return true
}
