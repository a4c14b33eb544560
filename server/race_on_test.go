//go:build race

package server

// raceEnabled tells tests that the race detector allocates and slows down.
const raceEnabled = true
