package kernel

import "math"

// A float16 is a number of IEEE 754 binary16, held in its bits: a sign, five bits
// of exponent and ten of fraction.

// ToFloat16 returns the bits of the float16 that equals x, and whether there is one.
// Zeros of different signs are not equal. It finds none for a NaN.
func ToFloat16(x float32) (h uint16, exact bool) {
	// The exponents of the two formats are 112 apart. A float16 too small for a
	// full fraction becomes a float32 of that kind, so that no case is special.
	// What does not fit loses bits, and does not come back.
	bits := math.Float32bits(x)
	size := math.Float32frombits(bits&^(1<<31)) * 0x1p-112
	h = uint16(bits>>16&(1<<15)) | uint16(math.Float32bits(size)>>13)&^(1<<15)
	return h, math.Float32bits(FromFloat16(h)) == bits && x == x
}

// FromFloat16 returns the float16 with the bits h.
func FromFloat16(h uint16) float32 {
	bits := uint32(h&^(1<<15)) << 13
	bits = math.Float32bits(math.Float32frombits(bits) * 0x1p112)
	if h&0x7c00 == 0x7c00 { // infinite, or not a number
		bits |= 0xff << 23
	}
	return math.Float32frombits(bits | uint32(h&(1<<15))<<16)
}
