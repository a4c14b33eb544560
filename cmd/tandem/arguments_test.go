package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ended runs a command to its end, and returns its exit code and what it prints.
func ended(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

// TestArgumentsAreText refuses what the parser would change into another id.
func TestArgumentsAreText(t *testing.T) {
	for _, args := range [][]string{
		{"live", "takedown", "--reason", "spam", "--store", t.TempDir(), "--new-store", "app-\xff"},
		{"live", "takedown", "app-1", "--reason", "\xc3\x28", "--store", t.TempDir(), "--new-store"},
		{"inspect", t.TempDir() + "/\xff" + strings.Repeat("long", 1000)},
	} {
		code, stdout, stderr := ended(t, args...)
		require.Equal(t, exitUsage, code, stderr)
		require.Empty(t, stdout)
		require.Regexp(t, `^tandem: argument [0-9]+ is ".*\\x.*, which is not UTF-8; accepted: `, stderr)
		require.Less(t, len(stderr), 1200)
	}
	code, _, stderr := ended(t, "live", "takedown", "--reason", "spam", "--store", t.TempDir(), "--new-store", "app-\uFFFD")
	require.Zero(t, code, stderr)
}

// TestTerminalIsSafe prints no control character of an id.
func TestTerminalIsSafe(t *testing.T) {
	store, app := t.TempDir(), "a\x1b[2J\x07b"
	code, stdout, stderr := ended(t, "live", "takedown", "--reason", "spam", "--store", store, "--new-store", "other")
	require.Zero(t, code, stdout+stderr)
	for _, args := range [][]string{
		{"live", "prove", "--store", store, app},
		{"live", app},
		{"snapshot", "show", "--store", store, app},
	} {
		code, stdout, stderr := ended(t, args...)
		require.NotZero(t, code)
		require.Contains(t, stderr, `\x1b[2J`)
		require.NotContains(t, stdout+stderr, "\x1b")
		require.NotContains(t, stdout+stderr, "\x07")
	}
}
