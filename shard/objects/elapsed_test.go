package objects

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A time that neither clock can tell the age of is older than all that may be fresh.
func TestElapsed(t *testing.T) {
	now := time.Now()
	assert.InDelta(t, 0, Elapsed(now), float64(time.Minute))
	assert.InDelta(t, time.Hour, Elapsed(now.Add(-time.Hour)), float64(time.Minute))
	for name, at := range map[string]time.Time{
		"beyond 2157, and the clock was set back since": now.AddDate(174, 0, 0),
		"no reading of the monotonic clock":             now.Round(0).Add(-time.Second),
		"never":                                         {},
	} {
		assert.False(t, IsMonotonic(at), name)
		assert.EqualValues(t, math.MaxInt64, Elapsed(at), name)
	}
	assert.True(t, IsMonotonic(now))
}
