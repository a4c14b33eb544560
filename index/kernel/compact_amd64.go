package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

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

// The routines for lists prefetch two groups of rows ahead, which is far enough for
// the many lines of a row of float32. Short rows are done before more of them have
// come, so their memory is asked for a part of the list at a time.
const (
	short = 512      // bytes of the longest such row
	part  = 32 << 10 // bytes that are still in the first cache when their turn comes
)

// ask prefetches the rows of the first n ordinals of a list, and returns n.
func ask[T compact](rows []T, stride int, ordinals []uint32) (n int) {
	size := stride * int(unsafe.Sizeof(*new(T)))
	if size > short {
		return len(ordinals)
	}
	n = min(len(ordinals), part/size)
	Prefetch(rows, stride, stride, ordinals[:n])
	return n
}

func dotFloat16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	for len(ordinals) > 0 {
		n := ask(rows, len(query), ordinals)
		switch selectedFloat16 {
		case avx512:
			dotFloat16AVX512(query, rows, ordinals[:n], out)
		case avx2:
			dotFloat16AVX2(query, rows, ordinals[:n], out)
		default:
			dotCompactGeneric(query, rows, ordinals[:n], out)
		}
		ordinals, out = ordinals[n:], out[n:]
	}
}

func l2Float16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	for len(ordinals) > 0 {
		n := ask(rows, len(query), ordinals)
		switch selectedFloat16 {
		case avx512:
			l2Float16AVX512(query, rows, ordinals[:n], out)
		case avx2:
			l2Float16AVX2(query, rows, ordinals[:n], out)
		default:
			l2CompactGeneric(query, rows, ordinals[:n], out)
		}
		ordinals, out = ordinals[n:], out[n:]
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
	for len(ordinals) > 0 {
		n := ask(rows, len(query), ordinals)
		switch selected {
		case avx512:
			dotUint8AVX512(query, rows, ordinals[:n], out)
		case avx2:
			dotUint8AVX2(query, rows, ordinals[:n], out)
		default:
			dotCompactGeneric(query, rows, ordinals[:n], out)
		}
		ordinals, out = ordinals[n:], out[n:]
	}
}

func l2Uint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	for len(ordinals) > 0 {
		n := ask(rows, len(query), ordinals)
		switch selected {
		case avx512:
			l2Uint8AVX512(query, rows, ordinals[:n], out)
		case avx2:
			l2Uint8AVX2(query, rows, ordinals[:n], out)
		default:
			l2CompactGeneric(query, rows, ordinals[:n], out)
		}
		ordinals, out = ordinals[n:], out[n:]
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
