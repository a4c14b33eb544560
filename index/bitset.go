package index

import "math/bits"

// Bitset is a dense set of ordinals, one bit each, lowest bit first. Its length
// in words is fixed by [NewBitset]; bits at or beyond the number of rows it was
// made for must stay zero, because [Bitset.Count] counts them.
type Bitset []uint64

// NewBitset returns an empty set for ordinals below n.
func NewBitset(n int) Bitset { return make(Bitset, (n+63)/64) }

// Has reports whether i is in the set.
func (b Bitset) Has(i uint32) bool { return b[i>>6]&(1<<(i&63)) != 0 }

// Set adds i.
func (b Bitset) Set(i uint32) { b[i>>6] |= 1 << (i & 63) }

// Unset removes i.
func (b Bitset) Unset(i uint32) { b[i>>6] &^= 1 << (i & 63) }

// Clear removes every ordinal.
func (b Bitset) Clear() { clear(b) }

// Fill makes the set hold exactly the ordinals below n.
func (b Bitset) Fill(n int) {
	full := n / 64
	for i := range b[:full] {
		b[i] = ^uint64(0)
	}
	clear(b[full:])
	if n%64 != 0 {
		b[full] = 1<<(n%64) - 1
	}
}

// And keeps what is also in o, which has the same length.
func (b Bitset) And(o Bitset) {
	o = o[:len(b)]
	// Eight words at a time: a loop of one spends most of its time on the loop.
	for len(b) >= 8 {
		x, y := (*[8]uint64)(b), (*[8]uint64)(o)
		x[0] &= y[0]
		x[1] &= y[1]
		x[2] &= y[2]
		x[3] &= y[3]
		x[4] &= y[4]
		x[5] &= y[5]
		x[6] &= y[6]
		x[7] &= y[7]
		b, o = b[8:], o[8:]
	}
	for i := range b {
		b[i] &= o[i]
	}
}

// AndNot removes what is in o, which has the same length.
func (b Bitset) AndNot(o Bitset) {
	o = o[:len(b)]
	// Eight words at a time: a loop of one spends most of its time on the loop.
	for len(b) >= 8 {
		x, y := (*[8]uint64)(b), (*[8]uint64)(o)
		x[0] &^= y[0]
		x[1] &^= y[1]
		x[2] &^= y[2]
		x[3] &^= y[3]
		x[4] &^= y[4]
		x[5] &^= y[5]
		x[6] &^= y[6]
		x[7] &^= y[7]
		b, o = b[8:], o[8:]
	}
	for i := range b {
		b[i] &^= o[i]
	}
}

// Or adds what is in o, which has the same length.
func (b Bitset) Or(o Bitset) {
	o = o[:len(b)]
	// Eight words at a time: a loop of one spends most of its time on the loop.
	for len(b) >= 8 {
		x, y := (*[8]uint64)(b), (*[8]uint64)(o)
		x[0] |= y[0]
		x[1] |= y[1]
		x[2] |= y[2]
		x[3] |= y[3]
		x[4] |= y[4]
		x[5] |= y[5]
		x[6] |= y[6]
		x[7] |= y[7]
		b, o = b[8:], o[8:]
	}
	for i := range b {
		b[i] |= o[i]
	}
}

// Count returns the number of ordinals in the set.
func (b Bitset) Count() int {
	// Four sums, so that no count waits for the one before.
	var n0, n1, n2, n3 int
	for len(b) >= 4 {
		x := (*[4]uint64)(b)
		n0 += bits.OnesCount64(x[0])
		n1 += bits.OnesCount64(x[1])
		n2 += bits.OnesCount64(x[2])
		n3 += bits.OnesCount64(x[3])
		b = b[4:]
	}
	for _, w := range b {
		n0 += bits.OnesCount64(w)
	}
	return n0 + n1 + n2 + n3
}

// Append appends the set's ordinals to dst in ascending order.
func (b Bitset) Append(dst []uint32) []uint32 { return b.appendFrom(0, dst) }

// appendFrom appends the set's ordinals, counted from first.
func (b Bitset) appendFrom(first uint32, dst []uint32) []uint32 {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			dst = append(dst, first+uint32(i*64+bits.TrailingZeros64(w)))
		}
	}
	return dst
}
