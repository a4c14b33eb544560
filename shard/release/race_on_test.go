//go:build race

package release_test

// someHistories are fewer under the race detector, which looks at who else is at work and not
// at what is left in the end.
const someHistories = 10
