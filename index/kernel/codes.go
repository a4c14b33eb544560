package kernel

import "fmt"

// codeBlock is what the length of a row of codes is a multiple of.
const codeBlock = 32

// CodeStride returns the length of a row of dim codes after padding: the least
// multiple of 32 that is not below dim. It is what DotCodes requires of a
// query's length.
func CodeStride(dim int) int {
	return (dim + codeBlock - 1) &^ (codeBlock - 1)
}

// DotCodes sets out[i] to the inner product of query and row ordinals[i] of
// rows, where row r is rows[r*len(query) : (r+1)*len(query)]. The query is
// padded with zeros; so what pads a row is of no account.
//
// The result is exact while it is within an int32, as that of up to 65,792
// codes is, whatever they are; beyond it wraps.
//
// Ordinals must be less than len(rows)/len(query), and that is not checked, as
// for Dot. DotCodes panics if len(query) is not a positive multiple of 32, or
// if ordinals and out differ in length.
func DotCodes(query []int8, rows []uint8, ordinals []uint32, out []int32) {
	if len(query) == 0 || len(query)%codeBlock != 0 || len(ordinals) != len(out) {
		panicCodes(query, ordinals, out)
	}
	dotCodes(query, rows, ordinals, out)
}

// DotCodesRange sets out[i] to the inner product of query and row first+i of
// rows. It panics if len(query) is not a positive multiple of 32, or if one of
// the rows is not in rows.
func DotCodesRange(query []int8, rows []uint8, first int, out []int32) {
	stride := len(query)
	if stride == 0 || stride%codeBlock != 0 {
		panicCodeStride(query)
	}
	if n := len(rows) / stride; first < 0 || first > n || len(out) > n-first {
		panicSpan(first, len(out), n)
	}
	dotCodesRange(query, rows[first*stride:(first+len(out))*stride], out)
}

// CodesName returns the name of the implementation for codes that this CPU
// selected: "avx512vnni", "avx2", "neon+dotprod", "neon" or "generic".
func CodesName() string {
	return selectedCodes.String()
}

func panicCodes(query []int8, ordinals []uint32, out []int32) {
	if len(ordinals) != len(out) {
		panicOut(ordinals, len(out))
	}
	panicCodeStride(query)
}

func panicCodeStride(query []int8) {
	panic(fmt.Sprintf("kernel: query has %d codes: want a positive multiple of %d", len(query), codeBlock))
}
