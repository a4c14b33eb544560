package server

import (
	"math/bits"
	"sync"
)

// buffers is memory for bytes of requests and answers, that is used again.
//
// # Goals
//
// Large messages leave no garbage. A collection of it takes a server with one processor from
// its callers for tens of milliseconds, and comes the more often, the more there is.
//
// # Design
//
// Who takes a buffer gives it back once nobody has a part of it. It has one of few sizes, so
// that one that was given back fits another. There is a bound on how many bytes are kept
// unused, of which large ones take the place of small ones: what is beyond it is garbage, and
// so is all of it once the server is hardly asked (see keeper). A [sync.Pool] has neither bound, and is emptied by two
// collections, when it is needed most.
type buffers struct {
	most int // bytes that are kept

	mu   sync.Mutex
	kept int
	free [bufferSizes][][]byte // those of a size given back last are at the end
}

const (
	// smallestBuffer is the least size, of which a power of 2 and 1.5 are the others.
	smallestBuffer = 4 << 10
	bufferSizes    = 26 // up to 24 MiB
)

// sizeOf returns which is the smallest size of n bytes or more, and how many bytes it has;
// if there is none, bufferSizes and n.
func sizeOf(n int) (number, size int) {
	if n <= smallestBuffer {
		return 0, smallestBuffer
	}
	power := bits.Len(uint(n-1)) - bits.Len(smallestBuffer-1) // from 1 on
	number, size = 2*power, smallestBuffer<<power
	if between := size / 4 * 3; n <= between {
		number, size = number-1, between
	}
	if number >= bufferSizes {
		return bufferSizes, n
	}
	return number, size
}

// take returns an empty buffer with room for n bytes or more.
func (b *buffers) take(n int) []byte {
	number, size := sizeOf(n)
	if number < bufferSizes {
		b.mu.Lock()
		p := b.pop(number)
		b.mu.Unlock()
		if p != nil {
			return p[:0]
		}
	}
	return make([]byte, 0, size)
}

// pop takes a buffer of a size that is kept, nil if none is. The lock is held.
func (b *buffers) pop(number int) []byte {
	list := b.free[number]
	if len(list) == 0 {
		return nil
	}
	last := len(list) - 1
	p := list[last]
	list[last] = nil
	b.free[number] = list[:last]
	b.kept -= cap(p)
	return p
}

// give gives a buffer back, which take has returned or append made of such a one.
func (b *buffers) give(p []byte) {
	number, size := sizeOf(cap(p))
	if size > cap(p) {
		number-- // append knows other sizes
	}
	if number < 0 || number >= bufferSizes || cap(p) > b.most {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for smaller := 0; b.kept+cap(p) > b.most; {
		if smaller == number {
			return
		}
		if b.pop(smaller) == nil {
			smaller++
		}
	}
	b.kept += cap(p)
	b.free[number] = append(b.free[number], p)
}

// drop makes garbage of all that is kept.
func (b *buffers) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept, b.free = 0, [bufferSizes][][]byte{}
}
