//go:build race

package shard_test

// raceEnabled tells tests that the race detector allocates and slows down.
const raceEnabled = true

// Random queries are fewer under the race detector, which looks at who else is at work and not at
// answers.
const (
	someTrials   = 2000
	trialsPerSet = 500
	somePiped    = 900 // of two data sets
	someOverlaid = 1
)
