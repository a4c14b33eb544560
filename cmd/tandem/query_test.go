package main

import (
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/assert"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

func TestServerURL(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:8080": "http://127.0.0.1:8080",
		"https://host/ann/":     "https://host/ann",
		"127.0.0.1:8080":        "http://127.0.0.1:8080",
		"localhost:8080/":       "http://localhost:8080",
		"[::1]:8080":            "http://[::1]:8080",
		":8080":                 "http://:8080",
		"host":                  "http://host",
	} {
		got, err := serverURL(text)
		assert.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "http://", "ftp://host", "host:port", "/socket"} {
		_, err := serverURL(text)
		assert.ErrorContains(t, err, "want http://HOST:PORT", text)
		assert.ErrorAs(t, err, new(usageError), text)
	}
}

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
