package kernel

// The products of codes are NEON's; what follows them is a few operations a row, for
// which the compiler's code is good enough. There is a function for each routine,
// not one that is handed the routine, so that arguments do not escape to the heap.

func withinDotprod(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	var products [batch]int32
	n := 0
	for len(ordinals) > 0 {
		part := ordinals[:min(len(ordinals), batch)]
		dotCodesDotprod(query, rows, part, products[:len(part)])
		n += admit(products[:], factors, part, base, scale, shift, bound, out[n:])
		ordinals = ordinals[len(part):]
	}
	return n
}

func withinNEON(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	var products [batch]int32
	n := 0
	for len(ordinals) > 0 {
		part := ordinals[:min(len(ordinals), batch)]
		dotCodesNEON(query, rows, part, products[:len(part)])
		n += admit(products[:], factors, part, base, scale, shift, bound, out[n:])
		ordinals = ordinals[len(part):]
	}
	return n
}

func visitARM64(list []uint32, marks []uint8, epoch uint8, rows []uint8, stride, length int, factors []float32, dst []uint32) int {
	n := visitGeneric(list, marks, epoch, dst)
	Prefetch(rows, stride, length, dst[:n])
	Prefetch(factors, 2, 2, dst[:n])
	return n
}
