//go:build race

package server

// raceEnabled tells tests that the race detector allocates and slows down.
const raceEnabled = true

// someSteps are fewer under the race detector, which finds what two goroutines do at any of them.
const someSteps = 400
