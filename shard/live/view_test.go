package live

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// apart returns what [time.Now] would have returned so long ago as the monotonic clock has it,
// if the time of day has gone on by another duration since: more, if the machine slept or its
// time of day was set forward, and less if that was set back. Nothing makes such a time but
// the kernel, so it is written where package time has its reading of the monotonic clock.
func apart(t *testing.T, monotonic, wall time.Duration) time.Time {
	type layout struct {
		wall uint64
		ext  int64 // of the monotonic clock, in nanoseconds
		loc  *time.Location
	}
	at := time.Now().Add(-wall)
	(*layout)(unsafe.Pointer(&at)).ext += int64(wall - monotonic)
	require.InDelta(t, monotonic, time.Since(at), float64(time.Second))
	require.InDelta(t, wall, time.Now().Round(0).Sub(at.Round(0)), float64(time.Second))
	return at
}

// A proof is as old as either clock says, and the next one is young again.
func TestProofOfTwoClocks(t *testing.T) {
	for name, c := range map[string]struct{ monotonic, wall, want time.Duration }{
		"nothing happened":                 {time.Minute, time.Minute, time.Minute},
		"the machine slept, or was paused": {time.Minute, time.Hour, time.Hour},
		"the time of day was set back":     {time.Minute, -time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewProof(apart(t, c.monotonic, c.wall))
			assert.InDelta(t, c.want, p.Age(), float64(time.Second))
			assert.InDelta(t, c.want, p.next().Age(), float64(time.Second))
			p.renew(time.Now())
			assert.Less(t, p.Age(), time.Minute/2)
			p.renew(apart(t, time.Second, -time.Hour))
			assert.Less(t, p.Age(), time.Second, "what was asked before does not count any more")
		})
	}
	assert.EqualValues(t, math.MaxInt64, (&Proof{}).next().Age())
}

// A clock that was set beyond 2157, where times have no reading of the monotonic one, and back
// leaves a proof whose age is not known: it is not fresh, and the next one takes its place.
func TestProofOfAClockThatWasSet(t *testing.T) {
	beyond := time.Now().AddDate(174, 0, 0)
	p := NewProof(beyond)
	assert.EqualValues(t, math.MaxInt64, p.Age())
	assert.EqualValues(t, math.MaxInt64, p.next().Age())
	p.renew(time.Now())
	assert.Less(t, p.Age(), time.Minute)
	p.renew(beyond)
	assert.EqualValues(t, math.MaxInt64, p.Age(), "it is the last one that was taken")
	p.renew(time.Now())
	assert.Less(t, p.Age(), time.Minute)
}
