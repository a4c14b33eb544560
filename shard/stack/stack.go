// Package stack spares goroutines what they would copy.
package stack

// depth is how many bytes of stack a request takes, about.
const depth = 12 << 10

// Grow makes the stack of the goroutine as large as a request takes. A new goroutine has a small one,
// which Go doubles whenever it is full, and copies with all frames that are on it: for a goroutine of
// one deep call that is a considerable part of its work. Called where few frames are on the stack, it
// is a copy of those.
func Grow() { _ = touch() }

//go:noinline
func touch() byte {
	var room [depth]byte
	return room[len(opaque)%depth]
}

// opaque keeps the compiler from knowing which byte is read.
var opaque []byte
