package tail

import (
	"fmt"
	"math"
	"slices"
)

// Times is a distribution of times in seconds: values in ascending order, each as likely as the
// others, and all between two of them.
type Times []float64

// NewTimes returns the distribution of some times, as at most so many values: their quantiles.
func NewTimes(list []float64, most int) Times {
	sorted := slices.Sorted(slices.Values(list))
	if len(sorted) <= most {
		return sorted
	}
	t := make(Times, most)
	for i := range t {
		t[i] = Times(sorted).At(float64(i) / float64(most-1))
	}
	return t
}

// At returns the quantile of u, 0 to 1, and 0 of no times.
func (t Times) At(u float64) float64 {
	if len(t) == 0 {
		return 0
	}
	at := u * float64(len(t)-1)
	i := min(int(at), len(t)-1)
	if i == len(t)-1 {
		return t[i]
	}
	return t[i] + (t[i+1]-t[i])*(at-float64(i))
}

// Mean returns the mean.
func (t Times) Mean() float64 {
	if len(t) < 2 {
		return t.At(0)
	}
	sum := (t[0] + t[len(t)-1]) / 2
	for _, v := range t[1 : len(t)-1] {
		sum += v
	}
	return sum / float64(len(t)-1)
}

// Scaled returns times that are so many times as long.
func (t Times) Scaled(by float64) Times {
	out := make(Times, len(t))
	for i, v := range t {
		out[i] = v * by
	}
	return out
}

// Plus returns times that are longer by so much, which may be negative; none is below 0.
func (t Times) Plus(more float64) Times {
	out := make(Times, len(t))
	for i, v := range t {
		out[i] = max(v+more, 0)
	}
	return out
}

// Validate returns an error that names the first value that is no time, or out of order.
func (t Times) Validate() error {
	for i, v := range t {
		switch {
		case !(v >= 0) || math.IsInf(v, 1): // NaN is neither
			return fmt.Errorf("time %d is %v, want a number of seconds of at least 0", i, v)
		case i > 0 && v < t[i-1]:
			return fmt.Errorf("time %d is %v after %v, want ascending ones", i, v, t[i-1])
		}
	}
	return nil
}
