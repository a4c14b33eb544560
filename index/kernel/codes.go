package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// codeBlock is what the length of a row of codes is a multiple of.
const codeBlock = 32

// CodeStride returns the length of a row of dim codes after padding: the least
// multiple of 32 that is not below dim. A query's code has it too.
func CodeStride(dim int) int {
	return (dim + codeBlock - 1) &^ (codeBlock - 1)
}

// A Query is what rows of codes are scored against. The distance of a row with
// the factors (step, bias) is
//
//	base + bias + step*(scale*p + shift)
//
// where p is the inner product of Code and the row. It is computed from left to
// right, and each operation is rounded.
type Query struct {
	Code               []int8
	Base, Scale, Shift float32
}

// Within sets out to the rows among ordinals whose distance is at most bound, in
// their order, and returns how many they are. A distance that is NaN is within no
// bound. An entry holds the distance in its upper half, as [Sortable] encodes it, and
// twice the ordinal below.
//
// Row r of rows is rows[r*len(Code) : (r+1)*len(Code)], and its factors are
// factors[2*r] and factors[2*r+1]. The query's code is padded with zeros; so what
// pads a row is of no account. The inner product is exact while it is within an
// int32, as that of up to 65,792 codes is, whatever they are; beyond it wraps.
//
// out has room for [Spare] entries more than ordinals; what Within does not use of it
// is undefined afterwards. Ordinals must be less than len(rows)/len(Code) and 1<<31,
// and that is not checked, as for Dot. Within panics if len(Code) is not a positive
// multiple of 32, or if out is too short. It prefetches nothing: see [PrefetchCodes].
func Within[T ~uint64](q *Query, rows []uint8, factors []float32, ordinals []uint32, bound float32, out []T) int {
	if len(q.Code) == 0 || len(q.Code)%codeBlock != 0 || len(out) < len(ordinals)+Spare {
		panicWithin(q, ordinals, len(out))
	}
	return within(q.Code, rows, factors, ordinals, q.Base, q.Scale, q.Shift, bound, words(out))
}

// WithinRange does what [Within] does for the count rows from first on, which is
// faster where few of them are within the bound. It panics as Within does, and if
// one of the rows, or its factors, is not there.
func WithinRange[T ~uint64](q *Query, rows []uint8, factors []float32, first, count int, bound float32, out []T) int {
	stride := len(q.Code)
	if stride == 0 || stride%codeBlock != 0 {
		panicCodeStride(q.Code)
	}
	if n := min(len(rows)/stride, len(factors)/2); first < 0 || first > n || count < 0 || count > n-first {
		panicSpan(first, count, n)
	}
	if len(out) < count+Spare {
		panicRange(count, len(out))
	}
	return withinRange(q.Code, rows, factors, first, count, q.Base, q.Scale, q.Shift, bound, words(out))
}

// Spare is how many entries more than rows Within and WithinRange have to have room
// for.
const Spare = 3

// Sortable returns bits that order as the distances do; d is not NaN. Negative and
// positive zero are one.
func Sortable(d float32) uint32 {
	bits := math.Float32bits(d + 0)
	// Negative numbers sort backwards by their bits; positive ones come after.
	return bits ^ (uint32(int32(bits)>>31) | 1<<31)
}

// End is what fills the places of a list of nodes after its last.
const End = math.MaxUint32

// Visit sets dst to the nodes of a list, up to its first [End], whose mark is not
// epoch, in their order, and returns how many they are. It sets their marks to epoch,
// and prefetches what [Within] reads of their rows, which are stride codes long.
//
// The nodes must be less than len(marks), and that is not checked, as for Dot. Visit
// panics if dst has not room for the whole list; what it does not use of it is
// undefined afterwards.
func Visit(list []uint32, marks []uint8, epoch uint8, rows []uint8, stride int, factors []float32, dst []uint32) int {
	_ = dst[:len(list):len(dst)]
	return visit(list, marks, epoch, rows, stride, min(stride, reach), factors, dst)
}

// reach is how many bytes of a row are prefetched; from there the hardware follows.
const reach = 4 * 64

// PrefetchCodes asks for what [Within] reads of the rows of ordinals.
func PrefetchCodes(rows []uint8, stride int, factors []float32, ordinals []uint32) {
	Prefetch(rows, stride, min(stride, reach), ordinals)
	Prefetch(factors, 2, 2, ordinals)
}

// Prefetch asks for the first length elements of each row of data, stride elements
// long, to be brought near the CPU, into its second cache. It is a hint: it changes no
// result, and reads nothing.
func Prefetch[T uint8 | uint16 | uint32 | float32](data []T, stride, length int, ordinals []uint32) {
	size := int(unsafe.Sizeof(*new(T)))
	prefetch((*byte)(unsafe.Pointer(unsafe.SliceData(data))), size*stride, size*length, ordinals)
}

func panicWithin(q *Query, ordinals []uint32, room int) {
	if room < len(ordinals)+Spare {
		panic(fmt.Sprintf("kernel: score %d ordinals: out has room for %d, want %d", len(ordinals), room, len(ordinals)+Spare))
	}
	panicCodeStride(q.Code)
}

func panicRange(count, room int) {
	panic(fmt.Sprintf("kernel: score %d rows: out has room for %d, want %d", count, room, count+Spare))
}

func panicCodeStride(query []int8) {
	panic(fmt.Sprintf("kernel: query has %d codes: want a positive multiple of %d", len(query), codeBlock))
}

// words returns s as what it is made of.
func words[T ~uint64](s []T) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(s))), len(s))
}
