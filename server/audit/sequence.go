package audit

import (
	"math"
	"sort"
	"time"
)

// Sequence bounds the mean of values that come one after the other, as it is now, and may be
// looked at after each of them.
//
// # Goals
//
// A bound is wrong with a probability that counts hours, and neither values nor looks: over
// T hours, with a probability of at most T times the rate it was made with. It says what the
// mean is now, though it was another for days. Nothing is assumed but that values are from 0
// to 1: not that they are independent, nor anything of their spread.
//
// # Design
//
// A value x comes with a reference r, which is known before: what is bounded is the margin,
// the mean of x-r. For each candidate m on a grid of margins somebody bets that the mean is
// below it: a stake s becomes s*(1+b*(r+m-x)) with a bet b that leaves it positive whatever x
// is. If the mean is not below it, a stake is expected to shrink or stay, whatever was
// before, so a stake of 1 ever becomes A with a probability of 1/A at most. That is a
// confidence sequence by betting: Waudby-Smith and Ramdas, Estimating means of bounded random
// variables by betting (J. R. Stat. Soc. B, 2023), section 4. The bets are a few fixed ones,
// side by side, each with its part of the stake, as in their diversified Kelly betting: so
// nothing has to be learned once the mean changes, and the wealth rises with the candidate,
// which makes what is left an interval.
//
// A stake that has lost for days would take days to come back. So a new stake is added
// with each value, of as many hours as have passed since the last one, a quarter at most, times the
// rate. The
// wealth of all of them less all that was staked is expected to shrink or stay, so wealth
// reaches 1 within T hours with a probability of at most the stakes of T hours. That is the
// sum of Shiryaev and Roberts, for confidence sequences as in Shin, Ramdas and Rinaldo,
// E-detectors (New England J. Stat. Data Sci., 2023).
//
// The lower bound is the same with bets that the mean is above the candidate. There a bet
// can be no higher than what a value of 0 leaves, so it takes more values to be near.
type Sequence struct {
	rate  Rate
	grid  []candidate
	floor int       // the place in the grid that is nearest to -[Margin]
	since time.Time // of the last value, or of the beginning
	onset time.Time // since when one has won who bets that the mean is below the floor
	run   int       // values since then
	won   float64   // what that one has, as a logarithm
}

// Rate is how often bounds may be wrong, in times an hour.
type Rate struct {
	Below float64 // that the mean is not below the upper bound
	Above float64 // that it is not above the lower one
}

// candidate is one margin, and the wealth of those who bet against it.
type candidate struct {
	margin float64
	below  [len(betsBelow)]float64 // by those who bet that the mean is below
	above  [len(betsAbove)]float64
}

// The bets. A bet that the mean is below a candidate wins most where it is what the mean is
// below it by, divided by the mean square of that.
var (
	betsBelow = [...]float64{1, 2, 4, 8, 16, 32}
	betsAbove = [...]float64{0.25, 0.5, 1}
)

const (
	// most is the part of a stake that the worst value takes.
	most = 0.9
	// richest bounds wealth, so that who has won for days loses what was won within minutes
	// once the mean is another.
	richest = 1e6
	// head is the time whose stakes are there from the beginning: a snapshot that is bad is
	// so from its first query on.
	head = 6 * time.Minute
	// longestPause bounds the time whose stakes come with one value: where a clock was set, what
	// it says has passed is no time in which there was anything to see.
	longestPause = windowTime
	// onsetBet is the bet that tells since when the mean is below the floor: those that have
	// won nothing by it since some value say that it was above.
	onsetBet = 8
)

// margins is the grid, ascending, with -[Margin] on it.
func margins() (grid []float64) {
	for _, step := range []struct{ from, to, by int }{{-1000, -300, 50}, {-300, -100, 10}, {-100, 50, 2}, {50, 200, 10}, {200, 1000, 50}} {
		for m := step.from; m < step.to; m += step.by {
			grid = append(grid, float64(m)/1000)
		}
	}
	return append(grid, 1)
}

// NewSequence returns a sequence that begins now, whose bounds are on a grid of margins,
// ascending; by default one that suits recall.
func NewSequence(rate Rate, now time.Time, grid ...float64) *Sequence {
	if len(grid) == 0 {
		grid = margins()
	}
	s := &Sequence{rate: rate, grid: make([]candidate, len(grid)), since: now.Add(-head), onset: now}
	for i, m := range grid {
		s.grid[i].margin = m
		if math.Abs(m+Margin) < math.Abs(grid[s.floor]+Margin) {
			s.floor = i
		}
	}
	return s
}

// Add adds a value, 0 to 1, that came at a time, with its reference.
func (s *Sequence) Add(now time.Time, value, reference float64) {
	hours := min(max(now.Sub(s.since), 0), longestPause).Hours()
	s.since = now
	below, above := hours*s.rate.Below/float64(len(betsBelow)), hours*s.rate.Above/float64(len(betsAbove))
	for i := range s.grid {
		c := &s.grid[i]
		mean := min(max(reference+c.margin, 0), 1)
		bet(c.below[:], betsBelow[:], below, most/(1-mean), mean-value)
		bet(c.above[:], betsAbove[:], above, most/mean, value-mean)
	}
	floor := min(max(reference+s.grid[s.floor].margin, 0), 1)
	s.won += math.Log1p(min(onsetBet, most/(1-floor)) * (floor - value))
	if s.run++; s.won <= 0 {
		s.onset, s.run, s.won = now, 0, 0
	}
}

// bet stakes something more on each bet, of at most the limit, and has all of them win or
// lose.
func bet(wealth, bets []float64, stake, limit, won float64) {
	for j, b := range bets {
		wealth[j] = min((wealth[j]+stake)*(1+min(b, limit)*won), richest)
	}
}

func sum(wealth []float64) (all float64) {
	for _, w := range wealth {
		all += w
	}
	return all
}

// High returns the upper bound of the margin, which the mean is below; 1 without any.
func (s *Sequence) High() float64 {
	i := sort.Search(len(s.grid), func(i int) bool { return sum(s.grid[i].below[:]) >= 1 })
	if i == len(s.grid) {
		return 1
	}
	return s.grid[i].margin
}

// Low returns the lower bound of the margin, which the mean is above; -1 without any.
func (s *Sequence) Low() float64 {
	i := sort.Search(len(s.grid), func(i int) bool { return sum(s.grid[i].above[:]) < 1 })
	if i == 0 {
		return -1
	}
	return s.grid[i-1].margin
}

// BelowFloor reports whether the upper bound is below -[Margin], or the next point of the grid.
func (s *Sequence) BelowFloor() bool { return sum(s.grid[s.floor].below[:]) >= 1 }

// AboveFloor reports whether the lower bound is above it.
func (s *Sequence) AboveFloor() bool { return sum(s.grid[s.floor].above[:]) >= 1 }

// Onset returns since when about the mean seems to be below the floor, and how many values
// there were since then.
func (s *Sequence) Onset() (since time.Time, n int) { return s.onset, s.run }
