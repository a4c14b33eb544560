package index

import "math"

// candidate is a node or a row with its distance, in one word: the distance in
// the upper half, in an encoding that sorts as floats do, then the ordinal, then
// the expanded bit. So candidates compare by (distance, ordinal) as plain
// integers, and a pool of them takes 8 bytes each.
type candidate uint64

// expanded marks a pooled node whose neighbours have been scored.
const expanded candidate = 1

// MaxRows is the largest number of rows in one index.
const MaxRows = 1 << 30

// newCandidate packs a distance that is not NaN, and an ordinal.
func newCandidate(dist float32, ordinal uint32) candidate {
	bits := math.Float32bits(dist + 0) // which makes -0 a 0, its equal
	// Negative numbers sort backwards by their bits; positive ones come after.
	bits ^= uint32(int32(bits)>>31) | 1<<31
	return candidate(bits)<<32 | candidate(ordinal)<<1
}

// dist returns the distance.
func (c candidate) dist() float32 {
	bits := uint32(c >> 32)
	bits ^= ^uint32(int32(bits)>>31) | 1<<31
	return math.Float32frombits(bits)
}

// ordinal returns the ordinal.
func (c candidate) ordinal() uint32 { return uint32(c) >> 1 }
