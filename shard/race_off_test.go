//go:build !race

package shard_test

const raceEnabled = false

// How much the tests of random queries go through, if nothing else is asked for.
const (
	someTrials   = 20_000
	trialsPerSet = 2500 // queries that each data set is asked
	somePiped    = 2000
	someOverlaid = 4
)
