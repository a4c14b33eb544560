package audit

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// binomial draws the recall of a query for k candidates of which each is found with a
// probability: the mean is that, exactly.
func binomial(r *rand.Rand, k int, p float64) float64 {
	hits := 0
	for range k {
		if r.Float64() < p {
			hits++
		}
	}
	return float64(hits) / float64(k)
}

// In how many of many runs a bound is ever wrong within an hour, looked at after each value,
// is no more than the rate it was made with.
func TestSequenceIsWrongAsOftenAsItSays(t *testing.T) {
	const trials, values = 400, 600
	rate := Rate{Below: 0.1, Above: 0.1}
	for _, c := range []struct {
		name      string
		k         int
		p, margin float64
	}{
		{"one of ten", 10, 0.9, -0.02}, {"one of a hundred", 100, 0.97, 0}, {"all or nothing", 1, 0.95, -0.02}, {"half", 1, 0.5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(c.k)))
			high, low := 0, 0
			for range trials {
				s := NewSequence(rate, start, c.margin) // the mean is right there
				wrongHigh, wrongLow := false, false
				for i := range values {
					s.Add(start.Add(time.Duration(i)*time.Hour/values), binomial(r, c.k, c.p), c.p-c.margin)
					wrongHigh, wrongLow = wrongHigh || s.High() < 1, wrongLow || s.Low() > -1
				}
				if wrongHigh {
					high++
				}
				if wrongLow {
					low++
				}
			}
			// An hour and what is staked at the beginning; three standard deviations above.
			most := trials*0.11 + 3*6.3
			assert.LessOrEqual(t, float64(high), most)
			assert.LessOrEqual(t, float64(low), most)
			t.Logf("of %d the upper bound was wrong %d times, the lower %d", trials, high, low)
		})
	}
}

// A recall that falls after hours is found as soon as one that was low from the beginning.
func TestSequenceForgets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	found := func(good time.Duration) int {
		s := NewSequence(Rate{Below: FalseAlarms / 2, Above: lowRate}, start)
		now := start
		for ; now.Before(start.Add(good)); now = now.Add(time.Second) {
			s.Add(now, binomial(r, 100, 0.995), 0.99)
			if s.BelowFloor() {
				t.Fatal("a false alarm")
			}
		}
		for i := range 1000 {
			now = now.Add(time.Second)
			if s.Add(now, binomial(r, 100, 0.90), 0.99); s.BelowFloor() {
				onset, n := s.Onset()
				assert.InDelta(t, i+1, n, 12, "values since recall fell")
				assert.WithinDuration(t, start.Add(good), onset, 12*time.Second)
				return i + 1
			}
		}
		return 1000
	}
	fresh, late := found(0), found(6*time.Hour)
	t.Logf("%d values, after hours %d", fresh, late)
	assert.Less(t, fresh, 60)
	assert.Less(t, late, 60)
}

// Bounds are an interval, whatever comes: the wealth against a candidate rises with it.
func TestSequenceIsAnInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSequence(Rate{Below: 0.01, Above: 0.01}, start)
		now := start
		for range rapid.IntRange(1, 200).Draw(t, "values") {
			now = now.Add(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "ms")) * time.Millisecond)
			s.Add(now, float64(rapid.IntRange(0, 10).Draw(t, "hits"))/10, rapid.Float64Range(0, 1).Draw(t, "reference"))
		}
		for i := range s.grid[1:] {
			if sum(s.grid[i].below[:]) > sum(s.grid[i+1].below[:])*(1+1e-9) || sum(s.grid[i].above[:])*(1+1e-9) < sum(s.grid[i+1].above[:]) {
				t.Fatalf("wealth at %v and %v: below %v %v, above %v %v", s.grid[i].margin, s.grid[i+1].margin,
					s.grid[i].below, s.grid[i+1].below, s.grid[i].above, s.grid[i+1].above)
			}
		}
	})
}

// The grid has the margin of the floor, so that the upper bound is below it when there is an
// alarm.
func TestGrid(t *testing.T) {
	s := NewSequence(Rate{}, start)
	assert.InDelta(t, -Margin, s.grid[s.floor].margin, 1e-12)
	for i := range s.grid[1:] {
		assert.Less(t, s.grid[i].margin, s.grid[i+1].margin)
	}
}

// A clock that is set beyond 2157, where times have no reading of the monotonic one, and back
// says that more time has passed than there was: that raises no alarm, and one is raised after
// it as soon as without it.
func TestSequenceOfAClockThatWasSet(t *testing.T) {
	beyond := start.AddDate(174, 0, 0)
	for name, times := range map[string][2]time.Time{"forward": {start, beyond}, "and back": {beyond, start}} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			s := newStratum(All, "", FalseAlarms/2, times[0])
			for _, now := range times {
				for i := range 100 {
					require.Equal(t, nothing, s.add(now.Add(time.Duration(i)*time.Second), 1, 0.95), "audit %d", i)
				}
			}
			now := times[1].Add(100 * time.Second)
			l := s.look(now)
			assert.Equal(t, 100, l.Audits, "by the clock of now")
			assert.Nil(t, l.Alarm)
			n := 0
			for c := nothing; c != raised; n++ {
				require.Less(t, n, 60)
				c = s.add(now.Add(time.Duration(n)*time.Second), binomial(r, 100, 0.85), 0.95)
			}
		})
	}
}
