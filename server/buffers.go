package server

import (
	"math/bits"
	"slices"
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
// so is what nobody needed for a while (see trim). A [sync.Pool] has no bound, and is emptied
// by two collections, when it is needed most.
type buffers struct {
	most int // bytes that are kept

	mu   sync.Mutex
	kept int
	free [bufferSizes]freeBuffers
}

// freeBuffers are buffers of a size that are kept. The one given back last is taken first.
type freeBuffers struct {
	list   [][]byte
	unused int // of the first, that nobody has taken since the last trim
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
	if p := b.reuse(number); p != nil {
		return p[:0]
	}
	return make([]byte, 0, size)
}

// reuse takes a buffer of a size that is kept, or of the next, which will do; nil if there is
// none.
func (b *buffers) reuse(number int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := number; i < min(number+2, bufferSizes); i++ {
		if p := b.pop(i); p != nil {
			return p
		}
	}
	return nil
}

// pop takes a buffer of a size that is kept, nil if none is. The lock is held.
func (b *buffers) pop(number int) []byte {
	f := &b.free[number]
	if len(f.list) == 0 {
		return nil
	}
	last := len(f.list) - 1
	p := f.list[last]
	f.list[last] = nil
	f.list = f.list[:last]
	f.unused = min(f.unused, last)
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
	b.free[number].list = append(b.free[number].list, p)
}

// trim makes garbage of what nobody has taken since it was called last.
func (b *buffers) trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.free {
		f := &b.free[i]
		for _, p := range f.list[:f.unused] {
			b.kept -= cap(p)
		}
		f.list = slices.Clone(f.list[f.unused:]) // the list may have been long
		f.unused = len(f.list)
	}
}
