//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every implementation of WithinRange must give what Within gives for the same
// rows in a list.
func TestWithinRangeIsWithin(t *testing.T) {
	kept := selectedCodes
	defer func() { selectedCodes = kept }()
	r := rand.New(rand.NewPCG(1, 2))
	for _, stride := range []int{32, 64, 96, 128, 288} {
		const count = 77
		rows := make([]uint8, count*stride)
		for i := range rows {
			rows[i] = uint8(r.Uint32())
		}
		factors := make([]float32, 2*count)
		for i := range factors {
			factors[i] = r.Float32()
		}
		q := Query{Code: make([]int8, stride), Base: 3, Scale: -0.25, Shift: 7}
		for i := range q.Code {
			q.Code[i] = int8(r.Uint32())
		}
		for _, i := range supportedCodes() {
			selectedCodes = i
			for first := range 9 {
				for n := range count - first + 1 {
					ordinals := make([]uint32, n)
					for i := range ordinals {
						ordinals[i] = uint32(first + i)
					}
					for _, bound := range []float32{float32(math.Inf(-1)), -100, 0, 50, float32(math.Inf(1))} {
						want, got := make([]uint64, n+Spare), make([]uint64, n+Spare+1)
						got[n+Spare] = 12345
						want = want[:Within(&q, rows, factors, ordinals, bound, want)]
						hits := got[:WithinRange(&q, rows, factors, first, n, bound, got[:n+Spare])]
						require.Equal(t, want, hits, "%v: stride %d, rows %d to %d, bound %v", i, stride, first, first+n, bound)
						require.EqualValues(t, 12345, got[n+Spare], "nothing is written beyond out")
					}
				}
			}
		}
	}
}

// Rows that are not there are a programmer's error.
func TestWithinRangePanics(t *testing.T) {
	rows, factors := make([]uint8, 64*10), make([]float32, 2*10)
	q := Query{Code: make([]int8, 64)}
	out := make([]uint64, 20)
	for _, tt := range []struct{ first, count int }{{-1, 1}, {0, 11}, {10, 1}, {11, 0}, {3, -1}, {math.MaxInt, 1}} {
		require.PanicsWithValue(t, fmt.Sprintf("kernel: score rows %d to %d: there are 10", tt.first, tt.first+tt.count), func() {
			WithinRange(&q, rows, factors, tt.first, tt.count, 0, out)
		})
	}
	require.PanicsWithValue(t, "kernel: score 10 rows: out has room for 12, want 13", func() {
		WithinRange(&q, rows, factors, 0, 10, 0, out[:12])
	})
	require.PanicsWithValue(t, "kernel: query has 33 codes: want a positive multiple of 32", func() {
		WithinRange(&Query{Code: make([]int8, 33)}, rows, factors, 0, 1, 0, out)
	})
	require.PanicsWithValue(t, "kernel: score rows 8 to 10: there are 9", func() {
		WithinRange(&q, rows, factors[:18], 8, 2, 0, out)
	})
	require.Zero(t, WithinRange(&q, rows, factors, 10, 0, 0, out))
}
