package main

import (
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/assert"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

func TestParseAtMost(t *testing.T) {
	limit, err := parseAtMost("developer=2")
	assert.NoError(t, err)
	assert.Equal(t, "developer", limit.Attribute)
	assert.EqualValues(t, 2, limit.N)
	for _, text := range []string{"", "developer", "=2", "developer=", "developer=-1", "developer=4294967296", "developer=two"} {
		_, err := parseAtMost(text)
		assert.ErrorContains(t, err, "want NAME=N", text)
		assert.ErrorAs(t, err, new(usageError), text)
	}
}

// The contract has no name for its bound, so maxK repeats it.
func TestMaxKIsTheServersLimit(t *testing.T) {
	ask := &tandemv1.RetrieveRequest{UserId: "u", K: maxK}
	assert.NoError(t, protovalidate.Validate(ask))
	ask.K++
	assert.ErrorContains(t, protovalidate.Validate(ask), "k is 10001")
}
