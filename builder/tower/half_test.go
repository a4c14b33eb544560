package tower

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What halves are written as, in order, is read as them again, and has no digit too many.
func TestWrittenHalf(t *testing.T) {
	for h, want := range map[uint16]float64{
		0x2e66: 0.1, 0xb8cd: -0.6, 0x3c00: 1, 0x7bff: 65500, 0x0001: 6e-8, 0x3555: 0.3333, 0x7000: 8192, 0x7001: 8200,
	} {
		require.Equal(t, want, writtenHalf(h), "%04x", h)
	}
	before := 0.0
	for h := uint16(1); h < 0x7c00; h++ {
		w, exact := writtenHalf(h), float64(fromHalf(h))
		require.Greater(t, w, before)
		require.Equal(t, -w, writtenHalf(h|0x8000))
		require.Less(t, math.Abs(w-exact), math.Abs(w-float64(fromHalf(h-1))))
		if h < 0x7bff {
			require.Less(t, math.Abs(w-exact), math.Abs(w-float64(fromHalf(h+1))))
		}
		require.LessOrEqual(t, len(strings.Trim(strings.Split(strconv.FormatFloat(w, 'e', -1, 64), "e")[0], "."))-1, 5)
		before = w
	}
	require.Zero(t, writtenHalf(0))
	require.True(t, math.IsInf(writtenHalf(0xfc00), -1))
	require.True(t, math.IsNaN(writtenHalf(0x7e01)))
}

func TestHalf(t *testing.T) {
	for h, want := range map[uint16]float32{
		0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 5.9604645e-08, 0x03ff: 6.097555e-05, 0x0400: 6.1035156e-05,
		0x3555: 0.33325195, 0x7c00: float32(math.Inf(1)), 0xfc00: float32(math.Inf(-1)),
	} {
		require.Equal(t, want, fromHalf(h), "%04x", h)
	}
	require.True(t, math.IsNaN(float64(fromHalf(0x7e01))))
	require.True(t, math.Signbit(float64(fromHalf(0x8000))))
}
