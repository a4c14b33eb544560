package kernel

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Where a mapped file was cut or its disk fails, a kernel faults amid its work. That
// must be a panic like one of Go code, which can be recovered once the stack has moved
// and was scanned.
func TestFaultsAreRecoverable(t *testing.T) {
	random := rand.New(rand.NewPCG(41, 42))
	const stride, n = 128, 64
	query := normal(random, stride)
	floats := cut[float32](t, n*stride)
	halves, bytes := cut[uint16](t, n*stride), cut[uint8](t, n*stride)
	factors := cut[float32](t, 2*n)
	ordinals := make([]uint32, n)
	for i := range ordinals {
		ordinals[i] = uint32(i)
	}
	cutOrdinals := cut[uint32](t, n)
	out := make([]float32, n)
	for _, i := range supported() {
		r := i.routines()
		requireFault(t, floats, func() { r.dot(query, floats, ordinals, out) })
		requireFault(t, floats, func() { r.l2(query, floats, ordinals, out) })
		requireFault(t, floats, func() { r.dotRange(query, floats, out) })
		requireFault(t, floats, func() { r.l2Range(query, floats, out) })
		requireFault(t, cutOrdinals, func() { r.dot(query, make([]float32, n*stride), cutOrdinals, out) })
	}
	requireElementFaults(t, float16Rows, query, halves, ordinals, out)
	requireElementFaults(t, uint8Rows, query, bytes, ordinals, out)

	coded := make([]int8, stride)
	codes, sums, near := make([]uint8, n*stride), make([]int32, n), make([]uint64, n+Spare)
	marks, fresh := make([]uint8, n), make([]uint32, n)
	for e, i := range supportedCodes() {
		r := i.codeRoutines()
		if r.list != nil {
			requireFault(t, bytes, func() { r.list(coded, bytes, ordinals, sums) })
		}
		requireFault(t, bytes, func() { r.within(coded, bytes, make([]float32, 2*n), ordinals, 0, 1, 0, infinity, near) })
		requireFault(t, factors, func() { r.within(coded, codes, factors, ordinals, 0, 1, 0, infinity, near) })
		// What is only asked for ahead of time does not fault.
		r.visit(ordinals, marks, uint8(e+1), bytes, stride, stride, factors, fresh)
		requireFault(t, cutOrdinals, func() { r.visit(cutOrdinals, marks, uint8(e+9), codes, stride, stride, factors, fresh) })
	}
	PrefetchCodes(bytes, stride, factors, ordinals)
	filter, others := make([]uint64, 1), make([]uint32, n)
	requireFault(t, bytes, func() { withinRange(coded, bytes, make([]float32, 2*n), 0, n, 0, 1, 0, infinity, near) })
	requireFault(t, cutOrdinals, func() { split(cutOrdinals, filter, marks, 99, fresh, others) })
	requireFault(t, cutOrdinals, func() { through(cutOrdinals, 1, ordinals, n, filter, marks, 99, fresh, 0) })
}

func requireElementFaults[T compact](t *testing.T, e elementType[T], query []float32, rows []T, ordinals []uint32, out []float32) {
	t.Helper()
	for _, i := range e.supported {
		r := e.routines(i)
		requireFault(t, rows, func() { r.dot(query, rows, ordinals, out) })
		requireFault(t, rows, func() { r.l2(query, rows, ordinals, out) })
		requireFault(t, rows, func() { r.dotRange(query, rows, out) })
		requireFault(t, rows, func() { r.l2Range(query, rows, out) })
	}
}

// requireFault requires that work meets a fault in memory.
func requireFault[T any](t *testing.T, memory []T, work func()) {
	t.Helper()
	done := make(chan any)
	go func() { // with a small stack
		debug.SetPanicOnFault(true)
		defer func() {
			runtime.GC()
			grow(64)
			done <- recover()
		}()
		work()
	}()
	met := <-done
	fault, ok := met.(interface{ Addr() uintptr })
	if _, isError := met.(runtime.Error); isError && !ok && runtime.GOARCH == "arm64" {
		return // qemu emulates the processor, and does not tell the address
	}
	require.True(t, ok, "no fault: %v", met)
	first := uintptr(unsafe.Pointer(&memory[0]))
	require.Less(t, fault.Addr()-first, uintptr(len(memory))*unsafe.Sizeof(memory[0]))
}

// grow uses n KiB of the stack.
func grow(n int) byte {
	var frame [1 << 10]byte
	if n > 0 {
		frame[n] = grow(n - 1)
	}
	return frame[n]
}

// cut returns a mapped file of n values that has been cut to nothing.
func cut[T float32 | uint32 | uint16 | uint8](t *testing.T, n int) []T {
	t.Helper()
	var zero T
	size := n * int(unsafe.Sizeof(zero))
	path := filepath.Join(t.TempDir(), "rows")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("\x00", size)), 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	m, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Munmap(m)) })
	require.NoError(t, os.Truncate(path, 0))
	return unsafe.Slice((*T)(unsafe.Pointer(&m[0])), n)
}
