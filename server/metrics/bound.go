package metrics

import (
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/release"
)

// What a metric counts as series: a histogram one for each bucket, the last included, one for
// its sum and one for its count.
const (
	latencySeries = 15 + 3
	// cellSeries are those of an arm, a plan and a segment: stages, candidates, eligible rows,
	// distances, coverage, and why answers were short.
	cellSeries = stages*latencySeries + (12 + 3) + (10 + 3) + (12 + 3) + (6 + 3) + (shortReasons - 1)
	// armSeriesEach are those of an arm alone, and towerSeries those of each tower of it.
	armSeriesEach, towerSeries = 4, 7
	// fixedSeries are those without any such label, and those of the Go runtime and the
	// process, with room for those that later releases of Go add.
	fixedSeries = 280
)

// Series returns how many series at most there are of a server that serves so many arms
// whose snapshots have so many segments in all, and of so many methods: those of the
// contract, of health and of reflection, and one for all that is none of them.
func Series(arms, segments, methods int) int {
	// Beside its segments an arm has queries without one, and those of others.
	pairs := min(segments, maxPairs) + 2*arms + 1 // and what is of no arm that answers
	queries := pairs * (plans*cellSeries + len(outcomes))
	rpcs := methods * (2*latencySeries + grpcCodes + 1)
	recall := (min(segments, maxPairs)+armStrata*arms+maxNodes)*recallSeries + auditSeries
	return queries + rpcs + recall + arms*(armSeriesEach+2*towerSeries) + maxMapped + len(events.Sheds()) + len(events.Interleavings()) + clusterSeries + fixedSeries
}

// MostSeries is how many series at most there are of any server, whatever is released and
// whatever callers send.
func MostSeries() int { return Series(release.MaxArms, maxPairs, len(procedures())+1) }
