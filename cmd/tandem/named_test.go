package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/wording"
)

// TestStatusJSON holds the shape of what tandem status --json prints: enums have names, numbers
// are numbers as they are, and what was not said is left out.
func TestStatusJSON(t *testing.T) {
	s := goodServer()
	s.Status.Generation, s.Status.Error = 1<<63+1, "a < b"
	s.Status.Failures = append(s.Status.Failures, &tandemv1.ServerFailure{Kind: 9999})
	var b bytes.Buffer
	require.NoError(t, wording.WriteJSON(&b, fleetStatus{Servers: []serverStatus{*s, {Server: "b:1", Error: "it does not answer"}}}))
	for _, text := range []string{`"generation": 9223372036854775809,`, `"error": "a < b"`} {
		assert.Contains(t, b.String(), text)
	}
	var got struct{ Servers []map[string]any }
	require.NoError(t, json.Unmarshal(b.Bytes(), &got))
	status, live := got.Servers[0]["status"].(map[string]any), got.Servers[0]["live"].(map[string]any)
	assert.Equal(t, "PHASE_SERVING", status["phase"])
	assert.Equal(t, "LOG_STATE_FOLLOWED", status["log_state"])
	assert.Equal(t, "LOG_STATE_FOLLOWED", live["log_state"])
	failures := status["failures"].([]any)
	assert.Equal(t, "FAILURE_KIND_RECORDING", failures[0].(map[string]any)["kind"])
	assert.EqualValues(t, 9999, failures[1].(map[string]any)["kind"])
	assert.EqualValues(t, 12, live["position"].(map[string]any)["sequence"])
	assert.EqualValues(t, 1, status["staleness"].(map[string]any)["seconds"])
	assert.Equal(t, map[string]any{"server": "b:1", "good": false, "error": "it does not answer"}, got.Servers[1])

	for _, info := range []any{serverInfo{Server: "a:1", Status: s.Status}, liveServerInfo{Server: "a:1", Status: s.Live}} {
		b.Reset()
		require.NoError(t, wording.WriteJSON(&b, info))
		assert.Contains(t, b.String(), `"log_state": "LOG_STATE_FOLLOWED"`)
	}
}
