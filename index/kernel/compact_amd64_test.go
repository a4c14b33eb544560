package kernel

func (i implementation) float16Routines() compactRoutines[uint16] {
	switch i {
	case avx512:
		return compactRoutines[uint16]{dotFloat16AVX512, l2Float16AVX512, dotRangeFloat16AVX512, l2RangeFloat16AVX512}
	case avx2:
		return compactRoutines[uint16]{dotFloat16AVX2, l2Float16AVX2, dotRangeFloat16AVX2, l2RangeFloat16AVX2}
	default:
		return genericCompactRoutines[uint16]()
	}
}

func (i implementation) uint8Routines() compactRoutines[uint8] {
	switch i {
	case avx512:
		return compactRoutines[uint8]{dotUint8AVX512, l2Uint8AVX512, dotRangeUint8AVX512, l2RangeUint8AVX512}
	case avx2:
		return compactRoutines[uint8]{dotUint8AVX2, l2Uint8AVX2, dotRangeUint8AVX2, l2RangeUint8AVX2}
	default:
		return genericCompactRoutines[uint8]()
	}
}
