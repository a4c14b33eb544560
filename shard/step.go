package shard

import "time"

// Step is one step of a search that has ended, as [Query].Observe is told of it.
type Step struct {
	Kind  StepKind
	Begin time.Time
	Took  time.Duration
	// Shard is what became of the shard that was asked, by then; of Asked. It is valid during
	// the call.
	Shard *ShardAnswer
}

// StepKind is what a step of a search does.
type StepKind uint8

// The kinds. A search may ask and merge several times.
const (
	Asked      StepKind = iota + 1 // one shard was asked
	Merged                         // what shards found was merged, and limits applied
	Attributed                     // the attributes of candidates were fetched
	Justified                      // what Query.Explain asks for was found
)

// observed tells of a step that ends now. It is for queries that are observed only.
func (q *Query) observed(kind StepKind, begin time.Time, of *ShardAnswer) {
	q.Observe(Step{Kind: kind, Begin: begin, Took: time.Since(begin), Shard: of})
}
