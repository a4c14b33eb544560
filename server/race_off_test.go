//go:build !race

package server

const raceEnabled = false

// someSteps is how many steps TestModel takes, and TestModelOfCluster a quarter of, if nothing else is
// asked for.
const someSteps = 1000
