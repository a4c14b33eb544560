package kernel

import "golang.org/x/sys/cpu"

// Go runs on no arm64 CPU without NEON.
const selected = neon

// selectedCodes is set once, at start-up; nothing writes it afterwards.
var selectedCodes = supportedCodes()[0]

func supported() []implementation { return []implementation{neon, generic} }

// supportedCodes returns the implementations for codes that this CPU can run,
// the fastest first. GODEBUG=cpu.asimddp=off takes one away.
func supportedCodes() []implementation {
	if cpu.ARM64.HasASIMDDP {
		return []implementation{dotprod, neon, generic}
	}
	return []implementation{neon, generic}
}

func dot(query, rows []float32, ordinals []uint32, out []float32) {
	dotNEON(query, rows, ordinals, out)
}

func l2(query, rows []float32, ordinals []uint32, out []float32) {
	l2NEON(query, rows, ordinals, out)
}

func dotRange(query, rows, out []float32) { dotRangeNEON(query, rows, out) }

func l2Range(query, rows, out []float32) { l2RangeNEON(query, rows, out) }

func within(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	if selectedCodes == dotprod {
		return withinDotprod(query, rows, factors, ordinals, base, scale, shift, bound, out)
	}
	return withinNEON(query, rows, factors, ordinals, base, scale, shift, bound, out)
}

func visit(list []uint32, marks []uint8, epoch uint8, rows []uint8, stride, length int, factors []float32, dst []uint32) int {
	return visitARM64(list, marks, epoch, rows, stride, length, factors, dst)
}

func prefetch(data *byte, stride, length int, ordinals []uint32) {
	prefetchARM64(data, stride, length, ordinals)
}

func insert(pool []uint64, n int, batch []uint64) (count, least int) {
	return insertGeneric(pool, n, batch)
}

func withinRange(query []int8, rows []uint8, factors []float32, first, count int, base, scale, shift, bound float32, out []uint64) int {
	return withinListed(query, rows, factors, first, count, base, scale, shift, bound, out)
}

func split(list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int) {
	return splitGeneric(list, filter, marks, epoch, eligible, others)
}

func through(links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int) {
	return throughGeneric(links, width, via, want, filter, marks, epoch, eligible, n)
}
