//go:build !race

package builder_test

const raceEnabled = false

// killPoints is at how many points steps are killed.
const killPoints = 100
