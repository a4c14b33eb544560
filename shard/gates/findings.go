package gates

import (
	"fmt"
	"strconv"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Findings takes down what gates find. The zero value has nothing yet.
type Findings struct {
	Checks    []manifest.GateCheck // those that passed or failed
	Undecided []manifest.GateCheck // those that did not run or found nothing either way
}

// AtLeast adds a check that a value is not below a limit. The format and its arguments are
// those of [fmt.Sprintf], here and in what follows.
func (f *Findings) AtLeast(gate, subject string, value, limit float64, format string, args ...any) {
	f.Add(gate, subject, value, manifest.BoundMin, limit, value >= limit, fmt.Sprintf(format, args...))
}

// AtMost adds a check that a value is not above a limit.
func (f *Findings) AtMost(gate, subject string, value, limit float64, format string, args ...any) {
	f.Add(gate, subject, value, manifest.BoundMax, limit, value <= limit, fmt.Sprintf(format, args...))
}

// Add adds a check that passed or failed.
func (f *Findings) Add(gate, subject string, value float64, bound manifest.GateBound, limit float64, passed bool, text string) {
	f.Checks = append(f.Checks, check(gate, subject, value, bound, limit, passed, text))
}

// NotRun adds that a gate did not run, or, with a subject, one check of it.
func (f *Findings) NotRun(gate, subject, format string, why ...any) {
	f.Undecided = append(f.Undecided, manifest.GateCheck{
		Gate: gate, Subject: subject, Undecided: manifest.GateNotRun, Text: bounded(fmt.Sprintf(format, why...)),
	})
}

// Inconclusive adds a check whose value, beside a limit, tells nothing either way.
func (f *Findings) Inconclusive(gate, subject string, value float64, bound manifest.GateBound, limit float64, format string, why ...any) {
	c := check(gate, subject, value, bound, limit, false, fmt.Sprintf(format, why...))
	c.Undecided = manifest.GateInconclusive
	f.Undecided = append(f.Undecided, c)
}

// Join adds what others have found.
func (f *Findings) Join(others Findings) {
	f.Checks, f.Undecided = append(f.Checks, others.Checks...), append(f.Undecided, others.Undecided...)
}

// check returns a check. A text is bounded, for ids may be long.
func check(gate, subject string, value float64, bound manifest.GateBound, limit float64, passed bool, text string) manifest.GateCheck {
	return manifest.GateCheck{
		Gate: gate, Subject: subject, Value: manifest.Rounded(value), Bound: bound, Limit: manifest.Rounded(limit),
		Passed: passed, Text: bounded(text),
	}
}

func bounded(text string) string { return fmt.Sprintf("%.1000s", text) }

// NoPrevious is why what compares did not run.
const NoPrevious = "there is no previous snapshot to compare with"

// TurnedOff is why a gate did not run that the thresholds turn off.
const TurnedOff = "it was turned off"

// FallOf begins the subject of a check of how something has fallen, in a gate that has
// other checks which need no previous snapshot.
const FallOf = "fall of "

// Percent formats a share as a person would.
func Percent(share float64) string {
	return strconv.FormatFloat(manifest.Rounded(100*share*10)/10, 'f', decimals(100*share), 64) + "%"
}

// decimals returns how many of a percentage tell it from its neighbours: none of 20,
// one of 99.4, two of 0.12.
func decimals(x float64) int {
	switch {
	case x == float64(int(x)):
		return 0
	case x < 1:
		return 2
	}
	return 1
}
