package kernel

import (
	"math/rand/v2"
	"testing"
)

func TestCompactReadsEndWithTheirArguments(t *testing.T) {
	random := rand.New(rand.NewPCG(29, 30))
	for _, stride := range []int{16, 48, 128} {
		for n := 1; n <= 14; n++ {
			query := atEnd[float32](t, stride)
			halves, bytes := atEnd[uint16](t, n*stride), atEnd[uint8](t, n*stride)
			for j := range halves {
				halves[j], bytes[j] = uint16(random.Uint32()), uint8(random.Uint32())
			}
			ordinals := atEnd[uint32](t, n)
			for i := range ordinals {
				ordinals[i] = uint32(n - 1 - i)
			}
			out := atEnd[float32](t, n)
			scoreAll(float16Rows, query, halves, ordinals, out)
			scoreAll(uint8Rows, query, bytes, ordinals, out)
		}
	}
}

// scoreAll calls every routine of every implementation.
func scoreAll[T compact](e elementType[T], query []float32, rows []T, ordinals []uint32, out []float32) {
	for _, i := range e.supported {
		r := e.routines(i)
		r.dot(query, rows, ordinals, out)
		r.l2(query, rows, ordinals, out)
		r.dotRange(query, rows, out)
		r.l2Range(query, rows, out)
	}
}
