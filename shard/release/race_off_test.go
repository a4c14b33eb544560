//go:build !race

package release_test

const someHistories = 50
