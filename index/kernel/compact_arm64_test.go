package kernel

func (i implementation) float16Routines() compactRoutines[uint16] {
	if i == neon {
		return compactRoutines[uint16]{dotFloat16NEON, l2Float16NEON, dotRangeFloat16NEON, l2RangeFloat16NEON}
	}
	return genericCompactRoutines[uint16]()
}

func (i implementation) uint8Routines() compactRoutines[uint8] {
	if i == neon {
		return compactRoutines[uint8]{dotUint8NEON, l2Uint8NEON, dotRangeUint8NEON, l2RangeUint8NEON}
	}
	return genericCompactRoutines[uint8]()
}
