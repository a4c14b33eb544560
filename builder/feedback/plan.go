package feedback

import (
	"errors"
	"fmt"
	"math"
)

// PlanOptions say what an experiment is to find.
type PlanOptions struct {
	// Rate is the share of requests that are a hit now, and Lift by which share of itself the
	// other arm changes it, above 0.
	Rate, Lift float64
	// Prefer is the share of requests with a hit of one arm more in which that is the better one,
	// if answers are interleaved, above a half, and Decisive the share of interleaved requests
	// that have one arm ahead.
	Prefer, Decisive float64
	// Power is the probability of finding it, and Level that of finding what is not there.
	Power, Level float64
}

// Validate returns an error unless the options make sense. It names the field.
func (o *PlanOptions) Validate() error {
	in := func(name string, x, low, high float64) error {
		if !(x > low && x < high) {
			return fmt.Errorf("%s is %v; accepted: above %v and below %v", name, x, low, high)
		}
		return nil
	}
	err := errors.Join(in("rate", o.Rate, 0, 1), in("power", o.Power, 0, 1), in("level", o.Level, 0, 1), in("prefer", o.Prefer, 0.5, 1))
	switch {
	case err != nil:
		return err
	case !(o.Lift > 0) || !(o.Rate*(1+o.Lift) < 1):
		return fmt.Errorf("lift is %v; accepted: above 0, and so that the rate is below 1 with it", o.Lift)
	case !(o.Decisive > 0 && o.Decisive <= 1):
		return fmt.Errorf("decisive is %v; accepted: above 0, up to 1", o.Decisive)
	}
	return nil
}

// Plan is how many requests an experiment takes, each of another user. The names of its JSON
// fields are stable.
type Plan struct {
	// Compared is how many requests a comparison of two arms takes, of both together, and
	// Interleaved how many an interleaving does.
	Compared    int64   `json:"ab_requests"`
	Interleaved int64   `json:"interleaved_requests"`
	Deciding    int64   `json:"deciding_requests"` // of those interleaved
	Ratio       float64 `json:"ratio"`             // of interleaved to compared
}

// maxDeciding bounds a search.
const maxDeciding = 1 << 20

// NewPlan reckons how many requests an experiment takes: by the normal approximation of two
// shares for a comparison of arms (Fleiss, Levin, Paik, Statistical Methods for Rates and
// Proportions, section 4.3), and by the exact sign test for an interleaving.
func NewPlan(o PlanOptions) (*Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	a, b := normalQuantile(1-o.Level/2), normalQuantile(o.Power)
	p, q := o.Rate, o.Rate*(1+o.Lift)
	mean := (p + q) / 2
	root := a*math.Sqrt(2*mean*(1-mean)) + b*math.Sqrt(p*(1-p)+q*(1-q))
	arm := math.Ceil(root * root / ((q - p) * (q - p)))
	n, err := deciding(o)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Compared: 2 * int64(arm), Deciding: n, Interleaved: int64(math.Ceil(float64(n) / o.Decisive))}
	plan.Ratio = float64(plan.Interleaved) / float64(plan.Compared)
	return plan, nil
}

// deciding returns how many requests with one arm ahead a sign test takes: with so many the power
// is reached, and so many that it is with the next 20 as well, since it goes up and down with the
// number.
func deciding(o PlanOptions) (int64, error) {
	guess := (normalQuantile(1-o.Level/2)*0.5 + normalQuantile(o.Power)*math.Sqrt(o.Prefer*(1-o.Prefer))) / (o.Prefer - 0.5)
	if guess*guess > maxDeciding {
		return 0, fmt.Errorf("prefer is %v, which takes more than %d deciding requests to find; accepted: more", o.Prefer, maxDeciding)
	}
	const run = 20
	good := int64(0)
	for n := max(int64(guess*guess*0.7), 1); ; n++ {
		if signPower(n, o.Prefer, o.Level) < o.Power {
			good = 0
			continue
		}
		if good++; good == run {
			return n - run + 1, nil
		}
	}
}

// signPower returns the probability that the sign test of n rejects at a level, in favour of the
// one that wins with a probability.
func signPower(n int64, prefer, level float64) float64 {
	// The largest number of losses that rejects, by halves.
	low, high := int64(-1), n/2
	for low < high {
		mid := low + (high-low+1)/2
		if 2*binomialBelow(n, mid, 0.5) <= level {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return binomialBelow(n, low, 1-prefer)
}

// normalQuantile returns the value that a share of the normal distribution lies below.
func normalQuantile(share float64) float64 { return math.Sqrt2 * math.Erfinv(2*share-1) }
