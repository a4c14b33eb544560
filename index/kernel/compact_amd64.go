package kernel

import "golang.org/x/sys/cpu"

// selectedFloat16 is set once, at start-up; nothing writes it afterwards.
var selectedFloat16 = supportedFloat16()[0]

// supportedFloat16 returns the implementations for float16 that this CPU can run,
// the fastest first. Those for uint8 are [supported].
func supportedFloat16() []implementation {
	var s []implementation
	for _, i := range supported() {
		if i != avx2 || cpu.X86.HasF16C {
			s = append(s, i)
		}
	}
	return s
}

func dotFloat16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	switch selectedFloat16 {
	case avx512:
		dotFloat16AVX512(query, rows, ordinals, out)
	case avx2:
		dotFloat16AVX2(query, rows, ordinals, out)
	default:
		dotCompactGeneric(query, rows, ordinals, out)
	}
}

func l2Float16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	switch selectedFloat16 {
	case avx512:
		l2Float16AVX512(query, rows, ordinals, out)
	case avx2:
		l2Float16AVX2(query, rows, ordinals, out)
	default:
		l2CompactGeneric(query, rows, ordinals, out)
	}
}

func dotRangeFloat16(query []float32, rows []uint16, out []float32) {
	switch selectedFloat16 {
	case avx512:
		dotRangeFloat16AVX512(query, rows, out)
	case avx2:
		dotRangeFloat16AVX2(query, rows, out)
	default:
		dotRangeCompactGeneric(query, rows, out)
	}
}

func l2RangeFloat16(query []float32, rows []uint16, out []float32) {
	switch selectedFloat16 {
	case avx512:
		l2RangeFloat16AVX512(query, rows, out)
	case avx2:
		l2RangeFloat16AVX2(query, rows, out)
	default:
		l2RangeCompactGeneric(query, rows, out)
	}
}

func dotUint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	switch selected {
	case avx512:
		dotUint8AVX512(query, rows, ordinals, out)
	case avx2:
		dotUint8AVX2(query, rows, ordinals, out)
	default:
		dotCompactGeneric(query, rows, ordinals, out)
	}
}

func l2Uint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	switch selected {
	case avx512:
		l2Uint8AVX512(query, rows, ordinals, out)
	case avx2:
		l2Uint8AVX2(query, rows, ordinals, out)
	default:
		l2CompactGeneric(query, rows, ordinals, out)
	}
}

func dotRangeUint8(query []float32, rows []uint8, out []float32) {
	switch selected {
	case avx512:
		dotRangeUint8AVX512(query, rows, out)
	case avx2:
		dotRangeUint8AVX2(query, rows, out)
	default:
		dotRangeCompactGeneric(query, rows, out)
	}
}

func l2RangeUint8(query []float32, rows []uint8, out []float32) {
	switch selected {
	case avx512:
		l2RangeUint8AVX512(query, rows, out)
	case avx2:
		l2RangeUint8AVX2(query, rows, out)
	default:
		l2RangeCompactGeneric(query, rows, out)
	}
}
