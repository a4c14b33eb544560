package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestServerURL(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:8080": "http://127.0.0.1:8080",
		"https://host/ann/":     "https://host/ann",
		"127.0.0.1:8080":        "http://127.0.0.1:8080",
		"localhost:8080/":       "http://localhost:8080",
		"[::1]:8080":            "http://[::1]:8080",
		":8080":                 "http://:8080",
		"http://host":           "http://host",
		"https://[::1]":         "https://[::1]",
	} {
		got, err := serverURL(text, "http")
		assert.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "http://", "ftp://host", "host:port", "/socket", "http://u:p@host", "host?q", "host#f", ":"} {
		_, err := serverURL(text, "http")
		assert.ErrorContains(t, err, "want HOST:PORT, http://HOST:PORT or https://HOST:PORT", text)
		assert.ErrorAs(t, err, new(usageError), text)
	}
	for _, text := range []string{"host", "127.0.0.1", "[::1]", "host:", "localhost/ann"} {
		_, err := serverURL(text, "https")
		assert.ErrorContains(t, err, "which has no port; want HOST:PORT, http://HOST:PORT or https://HOST:PORT", text)
		assert.ErrorAs(t, err, new(usageError), text)
	}
	for _, text := range []string{"127.0.0.1:99999", "http://host:65536", "[::1]:0", "host:" + strings.Repeat("9", 1000)} {
		_, err := serverURL(text, "http")
		assert.ErrorContains(t, err, "accepted: 1 to 65535", text)
		assert.ErrorAs(t, err, new(usageError), text)
		assert.Less(t, len(err.Error()), 400)
	}
	got, err := serverURL("host:8443", "https")
	assert.NoError(t, err)
	assert.Equal(t, "https://host:8443", got)
}

func TestPlainAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080", "http://127.0.0.1:8080/": "127.0.0.1:8080", "[::1]:80": "[::1]:80", ":80": ":80",
	} {
		got, err := plainAddress(text)
		assert.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "https://127.0.0.1:8080", "http://127.0.0.1:8080/path", "127.0.0.1"} {
		_, err := plainAddress(text)
		assert.ErrorAs(t, err, new(usageError), text)
	}
}
