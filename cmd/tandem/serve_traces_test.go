package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/traces/tracetest"
)

// TestTracesOfAProcess has a process trace as variables of OpenTelemetry say, and end: the
// collector has all, with the headers that it asks for, compressed.
func TestTracesOfAProcess(t *testing.T) {
	dir := t.TempDir()
	towers, store := filepath.Join(dir, "towers"), filepath.Join(dir, "store")
	var built bytes.Buffer
	for _, args := range [][]string{
		{"generate", "--out", towers, "--apps", "500", "--users", "80", "--dim", "8"},
		{
			"build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", "1", "--metric", "dot", "--store", store, "--shards", "2",
		},
	} {
		built.Reset()
		require.Zero(t, run(t.Context(), args, &built, io.Discard))
	}
	lines := strings.Fields(built.String())
	c := tracetest.Start(t)
	headers := make(chan http.Header, 100)
	c.Answer(func(_ http.ResponseWriter, r *http.Request) bool { headers <- r.Header.Clone(); return false })

	cmd := exec.Command("tandem", "serve", "--store", store, "--snapshot", lines[len(lines)-1], "--listen", "127.0.0.1:0", "--drain-delay", "0s", "--log-format", "json")
	cmd.Env = append(os.Environ(),
		"OTEL_EXPORTER_OTLP_ENDPOINT="+strings.TrimSuffix(c.URL, "/v1/traces"), "OTEL_TRACES_SAMPLER=always_on", "OTEL_SERVICE_NAME=candidates",
		"OTEL_EXPORTER_OTLP_HEADERS=authorization=very-secret", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip",
	)
	log := &lockedBuffer{}
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }() // it has ended
	var url string
	require.Eventually(t, func() bool {
		at := regexp.MustCompile(`"msg":"listening","address":"([^"]+)"`).FindStringSubmatch(log.String())
		if at == nil {
			return false
		}
		url = "http://" + at[1]
		response, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, 2*time.Minute, 20*time.Millisecond)
	response, err := http.Post(url+"/tandem.v1.RetrievalService/Retrieve", "application/json", strings.NewReader(`{"userId": "user-0000001", "k": 3}`))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())

	names := map[string]int{}
	for _, s := range c.Spans() {
		names[s.Name]++
		require.Equal(t, response.Header.Get("Traceresponse")[3:35], s.Trace)
	}
	require.Equal(t, 1, names["tandem.v1.RetrievalService/Retrieve"])
	require.Equal(t, 2, names["shard"])
	require.Equal(t, "candidates", c.Service())
	sent := <-headers
	require.Equal(t, "very-secret", sent.Get("Authorization"))
	require.Equal(t, "gzip", sent.Get("Content-Encoding"))
	require.NotContains(t, log.String(), "very-secret")
}
