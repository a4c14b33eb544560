package gates

import (
	"fmt"
	"slices"
	"strings"
)

// The names of the gates, in the order in which they run.
const (
	Structure     = "structure"
	Recall        = "recall"
	Concentration = "concentration"
	Contract      = "contract"
	Rows          = "rows"
	Coverage      = "coverage"
	Norms         = "norms"
	Overlap       = "overlap"
	Placement     = "placement"
	TrainingRun   = "training"
	Axes          = "axes"
	Alignment     = "alignment"
	Filters       = "filters"
	Fresh         = "fresh"
	Latency       = "latency"
)

// Names lists all gates in the order in which they run.
func Names() []string {
	return []string{Structure, Recall, Concentration, Contract, Rows, Coverage, Norms, Overlap, Placement, TrainingRun, Axes, Alignment, Filters, Fresh, Latency}
}

// Thresholds are the limits of all gates; see [DefaultThresholds].
type Thresholds struct {
	// Off are the gates that do not run.
	Off map[string]bool
	// Recall is of all apps and, where Segments does not say otherwise, of each
	// segment.
	Recall   RecallLimits
	Segments map[string]SegmentLimits

	Concentration ConcentrationLimits
	Contract      ContractLimits
	Rows          RowLimits
	// Coverage is by how much of what it was the share of apps that have an attribute
	// may fall.
	CoverageDrop float64
	// NormDrift is the largest factor by which a quantile of a tower's norms may rise or
	// fall.
	NormDrift float64
	Overlap   OverlapLimits
	Placement PlacementLimits
	Alignment AlignmentLimits
	Filters   FilterLimits
	Fresh     FreshLimits
	Latency   LatencyLimits
}

// RecallLimits are the least recalls at the default target. At10 and At100 bound the
// Wilson lower bound of recall@10 and recall@100, Worst the mean of the worst hundredth
// of the users, and Found how many of the apps of a segment that are among users' best
// 100 of all apps are given to them there.
type RecallLimits struct {
	At10, At100, Worst, Found float64
}

// SegmentLimits are the recall limits of one segment.
type SegmentLimits struct {
	Off bool
	RecallLimits
}

// ConcentrationLimits bound how alike the candidates of users are. The spread is the
// share of the apps that could be among anyone's best 100, beyond those of the first
// user, that are.
type ConcentrationLimits struct {
	Spread float64 // the least
	Drop   float64 // by how much of what it was it may fall
}

// RowLimits bound how the towers grow and shrink: shares of what was there.
type RowLimits struct {
	Fewer, More  float64 // rows of either tower
	RemovedApps  float64 // ids that are gone
	RemovedUsers float64
	SegmentFewer float64 // eligible apps of a segment
}

// OverlapLimits are the least mean overlaps, of all apps and in each segment.
type OverlapLimits struct {
	At10, At100 float64
}

// PlacementLimits are the largest shares of rows that have moved, of all apps, of those of
// a segment, and of all users; see compare.Placement.
type PlacementLimits struct {
	Apps, SegmentApps, Users float64
}

// AlignmentLimits bound what interactions say of the towers.
type AlignmentLimits struct {
	// Ratio is the least ratio of the hit rate to the best by chance: that of shuffled
	// users, or of users whose space was turned at random.
	Ratio float64
	// Drop is by how much of what it was the hit rate may fall.
	Drop float64
	// Known is the least share of the interactions that are of users and apps that the
	// towers have.
	Known float64
}

// FreshLimits bound what becomes of the apps that were upserted before the inputs of a
// snapshot were extracted.
type FreshLimits struct {
	Missing float64 // the share of them that the snapshot may lack
}

// LatencyLimits bound the default query for 100 candidates, one at a time, in
// milliseconds.
type LatencyLimits struct {
	P50, P99 float64
}

// DefaultThresholds returns limits under which a daily retrain passes and what is broken
// does not:
//
//	structure: on
//	recall: {at_10: 0.97, at_100: 0.97, worst: 0.5, found: 0.9}
//	concentration: {spread: 0.005, drop: 0.5}
//	contract: {attributes: 0, segments: 0}
//	rows: {fewer: 0.2, more: 1, removed_apps: 0.2, removed_users: 0.5, segment_fewer: 0.5}
//	coverage: {drop: 0.2}
//	norms: {drift: 2}
//	overlap: {at_10: 0.2, at_100: 0.2}
//	placement: {apps: 0.02, segment_apps: 0.1, users: 0.02}
//	alignment: {ratio: 1.5, drop: 0.2, known: 0.5}
//	filters: {share: 0}
//	fresh: {missing: 0}
//	latency: {p50_ms: 50, p99_ms: 250}
func DefaultThresholds() Thresholds {
	return Thresholds{
		Off:           map[string]bool{},
		Recall:        RecallLimits{At10: 0.97, At100: 0.97, Worst: 0.5, Found: 0.9},
		Segments:      map[string]SegmentLimits{},
		Concentration: ConcentrationLimits{Spread: 0.005, Drop: 0.5},
		Rows:          RowLimits{Fewer: 0.2, More: 1, RemovedApps: 0.2, RemovedUsers: 0.5, SegmentFewer: 0.5},
		CoverageDrop:  0.2,
		NormDrift:     2,
		Overlap:       OverlapLimits{At10: 0.2, At100: 0.2},
		Placement:     PlacementLimits{Apps: 0.02, SegmentApps: 0.1, Users: 0.02},
		Alignment:     AlignmentLimits{Ratio: 1.5, Drop: 0.2, Known: 0.5},
		Latency:       LatencyLimits{P50: 50, P99: 250},
	}
}

// Limit is one number of [Thresholds] that may be set.
type Limit struct {
	Key       string   // its name beside those of the same gate
	Value     *float64 // where it is
	Low, High float64  // that it may be
}

// Largest bounds limits that have no bound of their own.
const Largest = 1e6

// Limits returns what may be set of a gate, nothing of one that is only on or off.
func (t *Thresholds) Limits(gate string) []Limit {
	switch gate {
	case Recall:
		return t.Recall.Limits()
	case Concentration:
		return []Limit{{"spread", &t.Concentration.Spread, 0, 1}, {"drop", &t.Concentration.Drop, 0, 1}}
	case Contract:
		return []Limit{{"attributes", &t.Contract.Attributes, 0, Largest}, {"segments", &t.Contract.Segments, 0, Largest}}
	case Rows:
		return []Limit{
			{"fewer", &t.Rows.Fewer, 0, 1}, {"more", &t.Rows.More, 0, Largest},
			{"removed_apps", &t.Rows.RemovedApps, 0, 1}, {"removed_users", &t.Rows.RemovedUsers, 0, 1},
			{"segment_fewer", &t.Rows.SegmentFewer, 0, 1},
		}
	case Coverage:
		return []Limit{{"drop", &t.CoverageDrop, 0, 1}}
	case Norms:
		return []Limit{{"drift", &t.NormDrift, 1, Largest}}
	case Overlap:
		return []Limit{{"at_10", &t.Overlap.At10, 0, 1}, {"at_100", &t.Overlap.At100, 0, 1}}
	case Placement:
		return []Limit{{"apps", &t.Placement.Apps, 0, 1}, {"segment_apps", &t.Placement.SegmentApps, 0, 1}, {"users", &t.Placement.Users, 0, 1}}
	case Alignment:
		return []Limit{{"ratio", &t.Alignment.Ratio, 1, Largest}, {"drop", &t.Alignment.Drop, 0, 1}, {"known", &t.Alignment.Known, 0, 1}}
	case Filters:
		return []Limit{{"share", &t.Filters.Share, 0, 1}}
	case Fresh:
		return []Limit{{"missing", &t.Fresh.Missing, 0, 1}}
	case Latency:
		return []Limit{{"p50_ms", &t.Latency.P50, 0, Largest}, {"p99_ms", &t.Latency.P99, 0, Largest}}
	}
	return nil
}

// Limits returns what may be set of them.
func (r *RecallLimits) Limits() []Limit {
	return []Limit{{"at_10", &r.At10, 0, 1}, {"at_100", &r.At100, 0, 1}, {"worst", &r.Worst, 0, 1}, {"found", &r.Found, 0, 1}}
}

// Segment returns the limits of a segment.
func (t *Thresholds) Segment(name string) SegmentLimits {
	if l, ok := t.Segments[name]; ok {
		return l
	}
	return SegmentLimits{RecallLimits: t.Recall}
}

// ThresholdsError is an error in the limits that were given, or that their file cannot be
// read: whoever gave them is to change them.
type ThresholdsError struct{ Err error }

func (e ThresholdsError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with them.
func (e ThresholdsError) Unwrap() error { return e.Err }

// CheckSegments returns a [ThresholdsError] if limits are for a segment that is none of
// known.
func (t *Thresholds) CheckSegments(known []string) error {
	for name := range t.Segments {
		if !slices.Contains(known, name) {
			accepted := "none, the app tower has no segments"
			if len(known) > 0 {
				accepted = strings.Join(known, ", ")
			}
			return ThresholdsError{fmt.Errorf("recall.segments.%s: the app tower has no such segment; accepted: %.1000s", name, accepted)}
		}
	}
	return nil
}
