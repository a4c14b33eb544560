//go:build !amd64 && !arm64

package kernel

const selected, selectedCodes = generic, generic

func supported() []implementation { return []implementation{generic} }

func supportedCodes() []implementation { return []implementation{generic} }

func dot(query, rows []float32, ordinals []uint32, out []float32) {
	dotGeneric(query, rows, ordinals, out)
}

func l2(query, rows []float32, ordinals []uint32, out []float32) {
	l2Generic(query, rows, ordinals, out)
}

func dotRange(query, rows, out []float32) { dotRangeGeneric(query, rows, out) }

func l2Range(query, rows, out []float32) { l2RangeGeneric(query, rows, out) }

func within(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	return withinGeneric(query, rows, factors, ordinals, base, scale, shift, bound, out)
}

func visit(list []uint32, marks []uint8, epoch uint8, _ []uint8, _, _ int, _ []float32, dst []uint32) int {
	return visitGeneric(list, marks, epoch, dst)
}

func prefetch(*byte, int, int, []uint32) {}

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
