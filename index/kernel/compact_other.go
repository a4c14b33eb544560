//go:build !amd64 && !arm64

package kernel

const selectedFloat16 = selected

func supportedFloat16() []implementation { return supported() }

func dotFloat16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	dotCompactGeneric(query, rows, ordinals, out)
}

func l2Float16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	l2CompactGeneric(query, rows, ordinals, out)
}

func dotRangeFloat16(query []float32, rows []uint16, out []float32) {
	dotRangeCompactGeneric(query, rows, out)
}

func l2RangeFloat16(query []float32, rows []uint16, out []float32) {
	l2RangeCompactGeneric(query, rows, out)
}

func dotUint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	dotCompactGeneric(query, rows, ordinals, out)
}

func l2Uint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	l2CompactGeneric(query, rows, ordinals, out)
}

func dotRangeUint8(query []float32, rows []uint8, out []float32) {
	dotRangeCompactGeneric(query, rows, out)
}

func l2RangeUint8(query []float32, rows []uint8, out []float32) {
	l2RangeCompactGeneric(query, rows, out)
}
