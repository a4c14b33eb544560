//go:build race

package shard_test

// raceEnabled tells tests that the race detector allocates and slows down.
const raceEnabled = true
