package auth_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/auth"
)

// TestIsOwnHost has the forms of what browsers and clients send, and names that only look like
// one of this machine.
func TestIsOwnHost(t *testing.T) {
	for _, host := range []string{
		"localhost", "localhost:8080", "LocalHost", "LOCALHOST:8080", "localhost.", "localhost.:8080",
		"127.0.0.1", "127.0.0.1:8080", "10.1.2.3:8080", "[::1]", "[::1]:8080", "::1", "[fe80::1%eth0]:8080",
	} {
		require.True(t, auth.IsOwnHost(host), host)
	}
	for _, host := range []string{
		"", ".", ":8080", "evil.example", "evil.example:8080", "localhost..", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example",
		"[localhost", "[::1", "::1]", "[[::1]]", "[evil.example]", "0x7f000001", "127.1", "localhost:8080:1",
	} {
		require.False(t, auth.IsOwnHost(host), host)
	}
}
