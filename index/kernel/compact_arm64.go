package kernel

const selectedFloat16 = selected

func supportedFloat16() []implementation { return supported() }

func dotFloat16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	dotFloat16NEON(query, rows, ordinals, out)
}

func l2Float16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	l2Float16NEON(query, rows, ordinals, out)
}

func dotRangeFloat16(query []float32, rows []uint16, out []float32) {
	dotRangeFloat16NEON(query, rows, out)
}

func l2RangeFloat16(query []float32, rows []uint16, out []float32) {
	l2RangeFloat16NEON(query, rows, out)
}

func dotUint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	dotUint8NEON(query, rows, ordinals, out)
}

func l2Uint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	l2Uint8NEON(query, rows, ordinals, out)
}

func dotRangeUint8(query []float32, rows []uint8, out []float32) {
	dotRangeUint8NEON(query, rows, out)
}

func l2RangeUint8(query []float32, rows []uint8, out []float32) {
	l2RangeUint8NEON(query, rows, out)
}
