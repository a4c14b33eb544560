package kernel

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A mapped file may end where its last row does. Here every argument ends
// where readable memory does, so that a read past one of them faults.
func TestReadsEndWithTheirArguments(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for _, stride := range []int{16, 48, 128} {
		for n := 1; n <= 14; n++ {
			query := atEnd[float32](t, stride)
			copy(query, normal(random, stride))
			rows := atEnd[float32](t, n*stride)
			copy(rows, normal(random, n*stride))
			ordinals := atEnd[uint32](t, n)
			for i := range ordinals {
				ordinals[i] = uint32(n - 1 - i)
			}
			out := atEnd[float32](t, n)
			for _, i := range supported() {
				r := i.routines()
				r.dot(query, rows, ordinals, out)
				r.l2(query, rows, ordinals, out)
				r.dotRange(query, rows, out)
				r.l2Range(query, rows, out)
			}
		}
	}
}

func TestCodeReadsEndWithTheirArguments(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	for _, stride := range []int{32, 64, 96, 128, 160, 288} {
		for n := 1; n <= 14; n++ {
			query := atEnd[int8](t, stride)
			copy(query, codeFills[0].queryOf(random, stride))
			rows := atEnd[uint8](t, n*stride)
			copy(rows, codeFills[0].rowsOf(random, n*stride))
			ordinals := atEnd[uint32](t, n)
			for i := range ordinals {
				ordinals[i] = uint32(n - 1 - i)
			}
			factors := atEnd[float32](t, 2*n)
			copy(factors, normal(random, 2*n))
			out, near := atEnd[int32](t, n), atEnd[uint64](t, n+Spare)
			marks, fresh := atEnd[uint8](t, n), atEnd[uint32](t, n)
			for e, i := range supportedCodes() {
				r := i.codeRoutines()
				if r.list != nil {
					r.list(query, rows, ordinals, out)
				}
				require.Equal(t, n, r.within(query, rows, factors, ordinals, 0, 1, 0, infinity, near))
				require.Equal(t, n, r.visit(ordinals, marks, uint8(e+1), rows, stride, stride, factors, fresh))
			}
			require.Equal(t, n, withinRange(query, rows, factors, 0, n, 0, 1, 0, infinity, near))
			PrefetchCodes(rows, stride, factors, ordinals)
		}
	}
}

// The entries of a pool are moved eight at a time, and the last of them are fewer.
func TestInsertKeepsToItsArguments(t *testing.T) {
	for size := 1; size <= 34; size++ {
		pool, batch := atEnd[uint64](t, size), atEnd[uint64](t, 2*size)
		for n := range size + 1 {
			for _, i := range supportedCodes() {
				for j := range pool {
					pool[j] = uint64(4 * j)
				}
				for j := range batch {
					batch[j] = uint64(4*(len(batch)-j) - 2)
				}
				count, least := i.codeRoutines().insert(pool, n, batch)
				require.Equal(t, size, count)
				require.Equal(t, min(n, 1), least)
			}
		}
	}
}

// A hint may be of what is not there.
func TestPrefetchReadsNothing(t *testing.T) {
	rows := atEnd[uint8](t, 64)
	Prefetch(rows, 64, 64, []uint32{0, 1, 1 << 20, End})
	Prefetch[uint32](nil, 32, 32, []uint32{0, 7})
	Prefetch(rows, 64, 64, nil)
	PrefetchCodes(rows, 64, nil, []uint32{0, 1})
}

// atEnd returns n zeros that end at a page that can not be read.
func atEnd[T float32 | uint64 | uint32 | int32 | int8 | compact](t *testing.T, n int) []T {
	t.Helper()
	var zero T
	page, used := syscall.Getpagesize(), n*int(unsafe.Sizeof(zero))
	size := (used + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Munmap(m)) })
	require.NoError(t, syscall.Mprotect(m[size:], syscall.PROT_NONE))
	return unsafe.Slice((*T)(unsafe.Pointer(&m[size-used])), n)
}
