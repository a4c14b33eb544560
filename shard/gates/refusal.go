package gates

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// decisive are the gates in the order in which what they find explains what others find:
// half a tower also has few candidates in common with the one before.
var decisive = []string{
	Structure, Contract, TrainingRun, Axes, Alignment, Rows, Fresh, Placement, Norms, Coverage, Overlap, Concentration, Recall, Filters, Latency,
}

// causes are what is most often behind a gate that failed.
var causes = map[string]string{
	Structure:     "a shard file is damaged, or was written by a tool with a fault",
	Recall:        "the graphs are too sparse for these vectors, or rows have become unreachable",
	Concentration: "the vectors have collapsed, or the norms of a few apps outweigh all else: a model that is half trained",
	Contract:      "a column or a file of the input was left out, renamed or written with another type, or the build was given other options",
	Rows:          "the export was cut short or filtered otherwise, or some of its files were not given",
	Coverage:      "a column of the export is empty now, or was renamed",
	Norms:         "the model normalises otherwise, or one tower is of another training",
	Overlap:       "the towers are of two model versions, or of another model than what is released",
	Placement:     "vectors were joined to the wrong ids, or one tower is of another model version",
	Alignment:     "the towers are of two model versions or training runs, vectors were joined to the wrong ids, or the interactions are of other ids",
	TrainingRun:   "one of the files is of another training run",
	Axes:          "the towers are of two model versions or training runs",
	Filters:       "an attribute or a segment that callers use was left out, renamed or written with another type",
	Fresh:         "the inputs are older than their live position says, or the export leaves out what is new; of apps that are no more the live log was not told",
	Latency:       "the machine was busy with something else, or the vectors are harder to search than before",
}

// HeldOutUsers is the subject of the check that there is anybody to measure recall with.
const HeldOutUsers = "held-out users"

// causesOf returns the likely ones of what a gate found first.
func causesOf(gate string, checks []manifest.GateCheck) string {
	if len(checks) > 0 {
		switch checks[0].Subject {
		case HeldOutUsers:
			return "the export of users was cut short, or there are too few of them to measure anything with"
		case metricChanged:
			return "the build was given another metric than the model is served with"
		}
	}
	return causes[gate]
}

// FailedError says why a snapshot is not fit for release. It is of class [ErrFailed].
type FailedError struct {
	// Snapshot is the one, and Previous the one that it was compared with last; empty if it
	// was not.
	Snapshot, Previous manifest.Digest
	// Failed are the rows of the gates that failed, the one that explains most first.
	Failed []Row
	// Checks are those that the first of them failed.
	Checks []manifest.GateCheck
	// Causes are the likely ones of that.
	Causes string
}

// mostChecks is how many of the checks of one gate an error tells.
const mostChecks = 4

// refusal returns the error of rows and checks, nil if none failed.
func refusal(list []Row, checks []manifest.GateCheck) *FailedError {
	e := &FailedError{}
	for _, r := range list {
		if r.State == manifest.GateFailed {
			e.Failed = append(e.Failed, r)
		}
	}
	if len(e.Failed) == 0 {
		return nil
	}
	rank := func(r Row) int {
		if i := slices.Index(decisive, r.Gate); i >= 0 {
			return i
		}
		return len(decisive) // of a later release of the tool
	}
	slices.SortStableFunc(e.Failed, func(a, b Row) int { return rank(a) - rank(b) })
	for _, c := range checks {
		if c.Gate == e.Failed[0].Gate && !c.Passed {
			e.Checks = append(e.Checks, c)
		}
	}
	e.Causes = causesOf(e.Failed[0].Gate, e.Checks)
	return e
}

// Error says on the first line what failed, on the second why that may be, and then what
// else failed.
func (e *FailedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed: %s", e.Failed[0].Gate, shortened(e.Failed[0].Why, 320))
	if e.Causes != "" {
		fmt.Fprintf(&b, "\n  likely causes: %s", e.Causes)
	}
	first, _, _ := strings.Cut(e.Failed[0].Why, "; ")
	for _, c := range e.Checks[min(len(e.Checks), 1):min(len(e.Checks), mostChecks)] {
		if strings.HasPrefix(c.Text, first) {
			continue // it says the same, and how it knows
		}
		fmt.Fprintf(&b, "\n  also failed: %s", shortened(c.Text, 160))
	}
	if more := len(e.Checks) - mostChecks; more > 0 {
		fmt.Fprintf(&b, "\n  also failed: %d more checks of %s", more, e.Failed[0].Gate)
	}
	for _, r := range e.Failed[1:] {
		fmt.Fprintf(&b, "\n  also failed: %s: %s", r.Gate, shortened(r.Why, 160))
	}
	return b.String()
}

// Unwrap returns [ErrFailed].
func (e *FailedError) Unwrap() error { return ErrFailed }

// shortened returns as many clauses of a text as most bytes take, at least one.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = fmt.Sprintf("%.*s", 3*most, text)
	end := 0
	for end < len(text) {
		next := strings.Index(text[end:], "; ")
		if next < 0 {
			next = len(text) - end
		}
		if end > 0 && end+next > most {
			break
		}
		end = min(end+next+2, len(text))
		if end == len(text) {
			return text
		}
	}
	return strings.TrimSuffix(text[:end], "; ") + " ..."
}
