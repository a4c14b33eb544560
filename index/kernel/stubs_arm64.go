package kernel

// What each does, its amd64 counterpart says in stubs_amd64.go; dotCodesNEON and
// dotCodesDotprod do for rows of codes what dotNEON does for those of floats.

//go:noescape
func dotNEON(query, rows []float32, ordinals []uint32, out []float32)

//go:noescape
func dotRangeNEON(query, rows, out []float32)

//go:noescape
func l2NEON(query, rows []float32, ordinals []uint32, out []float32)

//go:noescape
func l2RangeNEON(query, rows, out []float32)

//go:noescape
func dotFloat16NEON(query []float32, rows []uint16, ordinals []uint32, out []float32)

//go:noescape
func dotRangeFloat16NEON(query []float32, rows []uint16, out []float32)

//go:noescape
func l2Float16NEON(query []float32, rows []uint16, ordinals []uint32, out []float32)

//go:noescape
func l2RangeFloat16NEON(query []float32, rows []uint16, out []float32)

//go:noescape
func dotUint8NEON(query []float32, rows []uint8, ordinals []uint32, out []float32)

//go:noescape
func dotRangeUint8NEON(query []float32, rows []uint8, out []float32)

//go:noescape
func l2Uint8NEON(query []float32, rows []uint8, ordinals []uint32, out []float32)

//go:noescape
func l2RangeUint8NEON(query []float32, rows []uint8, out []float32)

//go:noescape
func dotCodesNEON(query []int8, rows []uint8, ordinals []uint32, out []int32)

//go:noescape
func dotCodesDotprod(query []int8, rows []uint8, ordinals []uint32, out []int32)

//go:noescape
func prefetchARM64(data *byte, stride, length int, ordinals []uint32)
