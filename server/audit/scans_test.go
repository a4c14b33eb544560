package audit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runScans runs scans by a clock until stop is called.
func runScans(clock *fakeClock, share float64) (s *Scans, stop func()) {
	s = NewScans(Config{CPU: share, Clock: func() Clock { return clock }, Now: clock.Now})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { s.Run(ctx) })
	return s, func() { cancel(); group.Wait() }
}

// However many scans are asked for, all together take their share of a processor, in slices of at
// most a millisecond.
func TestScansKeepTheBudget(t *testing.T) {
	clock := newFakeClock()
	s, stop := runScans(clock, 0.02)
	var asking sync.WaitGroup
	for i := range 20 {
		asking.Go(func() {
			used, err := s.Do(t.Context(), func(ctx context.Context, pause func()) error {
				for range 100 { // 10 ms
					clock.work(100 * time.Microsecond)
					if i%2 == 0 {
						pause()
					} else if err := ctx.Err(); err != nil {
						return err
					}
				}
				return nil
			})
			assert.NoError(t, err)
			assert.Equal(t, 10*time.Millisecond, used)
		})
	}
	asking.Wait()
	stop()
	assert.InDelta(t, 0.2/0.02, clock.Now().Sub(start).Seconds(), 0.2)
	for _, slice := range clock.slices {
		assert.LessOrEqual(t, slice, time.Millisecond)
	}
	counts := s.Counts()
	assert.Equal(t, uint64(20), counts.Audits)
	assert.Equal(t, 200*time.Millisecond, counts.Used)
	assert.LessOrEqual(t, counts.Longest, time.Millisecond)
}

// A scan ends when who asks has gone, or nothing is done any more, and what waits too.
func TestScansEnd(t *testing.T) {
	clock := newFakeClock()
	s, stop := runScans(clock, 0.5)
	ctx, cancel := context.WithCancel(t.Context())
	forever := func(begun chan<- struct{}) func(context.Context, func()) error {
		return func(ctx context.Context, _ func()) error {
			for ctx.Err() == nil {
				select {
				case begun <- struct{}{}:
				default:
				}
				clock.work(100 * time.Microsecond)
			}
			return ctx.Err()
		}
	}
	begun, ended := make(chan struct{}, 1), make(chan error, 2)
	go func() { _, err := s.Do(ctx, forever(begun)); ended <- err }()
	<-begun
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	_, err := s.Do(ctx, func(context.Context, func()) error { return errors.New("it is called") })
	require.ErrorIs(t, err, context.Canceled)

	begun = make(chan struct{}, 1)
	for range 2 {
		go func() { _, err := s.Do(t.Context(), forever(begun)); ended <- err }()
	}
	<-begun
	stop()
	require.ErrorIs(t, <-ended, ErrEnded)
	require.ErrorIs(t, <-ended, ErrEnded)
	_, err = s.Do(t.Context(), forever(nil))
	require.ErrorIs(t, err, ErrEnded)
}
