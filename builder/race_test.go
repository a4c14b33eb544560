//go:build race

package builder_test

// raceEnabled tells tests that the race detector slows down, and looks at what goroutines share,
// which depends neither on how many rows there are nor on their metric.
const raceEnabled = true

const killPoints = 16
