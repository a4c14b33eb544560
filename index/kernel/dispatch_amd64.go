package kernel

import "golang.org/x/sys/cpu"

//go:generate go -C avo run . -out ../kernel_amd64.s -stubs ../stubs_amd64.go -pkg kernel

// What is selected is set once, at start-up; nothing writes it afterwards. It
// is a value to switch on, not a function to call through, so that arguments do
// not escape to the heap.
var (
	selected      = supported()[0]
	selectedCodes = supportedCodes()[0]
)

// supported returns the implementations that this CPU and its operating system
// can run, the fastest first. GODEBUG=cpu.avx512f=off takes one away.
func supported() []implementation {
	var s []implementation
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX2 {
		s = append(s, avx512)
	}
	if cpu.X86.HasAVX2 {
		s = append(s, avx2)
	}
	return append(s, generic)
}

// supportedCodes does the same for codes. It asks for more than the multiplications
// need: what admits candidates counts bits, and what inserts them has masks of eight.
func supportedCodes() []implementation {
	var s []implementation
	x := &cpu.X86
	if x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512VNNI && x.HasAVX2 && x.HasBMI2 && x.HasPOPCNT {
		s = append(s, vnni)
	}
	if x.HasAVX2 && x.HasPOPCNT {
		s = append(s, avx2)
	}
	return append(s, generic)
}

func dot(query, rows []float32, ordinals []uint32, out []float32) {
	switch selected {
	case avx512:
		dotAVX512(query, rows, ordinals, out)
	case avx2:
		dotAVX2(query, rows, ordinals, out)
	default:
		dotGeneric(query, rows, ordinals, out)
	}
}

func l2(query, rows []float32, ordinals []uint32, out []float32) {
	switch selected {
	case avx512:
		l2AVX512(query, rows, ordinals, out)
	case avx2:
		l2AVX2(query, rows, ordinals, out)
	default:
		l2Generic(query, rows, ordinals, out)
	}
}

func dotRange(query, rows, out []float32) {
	switch selected {
	case avx512:
		dotRangeAVX512(query, rows, out)
	case avx2:
		dotRangeAVX2(query, rows, out)
	default:
		dotRangeGeneric(query, rows, out)
	}
}

func l2Range(query, rows, out []float32) {
	switch selected {
	case avx512:
		l2RangeAVX512(query, rows, out)
	case avx2:
		l2RangeAVX2(query, rows, out)
	default:
		l2RangeGeneric(query, rows, out)
	}
}

func within(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	switch selectedCodes {
	case vnni:
		return withinVNNI(query, rows, factors, ordinals, base, scale, shift, bound, out)
	case avx2:
		return withinAVX2(query, rows, factors, ordinals, base, scale, shift, bound, out)
	default:
		return withinGeneric(query, rows, factors, ordinals, base, scale, shift, bound, out)
	}
}

func withinRange(query []int8, rows []uint8, factors []float32, first, count int, base, scale, shift, bound float32, out []uint64) int {
	groups := count &^ 3
	var n int
	switch selectedCodes {
	case vnni:
		n = withinRangeVNNI(query, rows, factors, first, groups, base, scale, shift, bound, out)
	case avx2:
		n = withinRangeAVX2(query, rows, factors, first, groups, base, scale, shift, bound, out)
	default:
		groups = 0
	}
	if groups < count {
		n += withinListed(query, rows, factors, first+groups, count-groups, base, scale, shift, bound, out[n:])
	}
	return n
}

func visit(list []uint32, marks []uint8, epoch uint8, rows []uint8, stride, length int, factors []float32, dst []uint32) int {
	return visitAMD64(list, marks, epoch, rows, stride, length, factors, dst)
}

func prefetch(data *byte, stride, length int, ordinals []uint32) {
	prefetchAMD64(data, stride, length, ordinals)
}

func insert(pool []uint64, n int, batch []uint64) (count, least int) {
	if selectedCodes == vnni {
		return insertAVX512(pool, n, batch)
	}
	return insertGeneric(pool, n, batch)
}

func split(list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int) {
	if selectedCodes == vnni {
		return splitAVX512(list, filter, marks, epoch, eligible, others)
	}
	return splitGeneric(list, filter, marks, epoch, eligible, others)
}

func through(links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int) {
	if selectedCodes == vnni {
		return throughAVX512(links, width, via, want, filter, marks, epoch, eligible, n)
	}
	return throughGeneric(links, width, via, want, filter, marks, epoch, eligible, n)
}
