package attribute

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestFloat32IsWhatItIsWrittenAs: of a float32, the number that is shown is the shortest
// decimal that means it, whatever a float64 would show of it.
func TestFloat32IsWhatItIsWrittenAs(t *testing.T) {
	for _, f := range []float64{0, 1, -3, 9.99, 0.1, 19.95, 1e-45, 3.4028235e38, 16_777_216, 1_048_576.1} {
		assert.Equal(t, f, OfFloat32(float32(f)).Float(), "%v", f)
	}
	assert.Equal(t, "9.99", OfFloat32(9.99).String())
	assert.True(t, OfFloat32(float32(math.NaN())).Absent())
	assert.True(t, OfFloat32(float32(math.Copysign(0, -1))).Equal(OfFloat32(0)))
	assert.False(t, OfFloat32(1).Equal(OfFloat(1)))
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float32().Draw(t, "float32")
		v := OfFloat32(f)
		require.Equal(t, f, v.Float32())
		want, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'e', -1, 32), 64)
		require.NoError(t, err)
		require.Equal(t, want, v.Float())
		require.Equal(t, f, float32(v.Float()))
	})
}

func TestTimestampsOfAllYears(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := drawTime(t)
		v := OfTimestamp(at)
		require.Equal(t, at, v.Time())
		require.NoError(t, Field{"released", Timestamp}.Check(v))
	})
	assert.Equal(t, "9999-12-31T23:59:59.999999999Z", OfTimestamp(ClampTime(time.UnixMicro(math.MaxInt64))).String())
	assert.Equal(t, "0001-01-01T00:00:00Z", OfTimestamp(ClampTime(time.UnixMicro(math.MinInt64))).String())
}
