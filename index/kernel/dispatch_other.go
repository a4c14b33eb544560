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

func dotCodes(query []int8, rows []uint8, ordinals []uint32, out []int32) {
	dotCodesGeneric(query, rows, ordinals, out)
}

func dotCodesRange(query []int8, rows []uint8, out []int32) {
	dotCodesRangeGeneric(query, rows, out)
}
