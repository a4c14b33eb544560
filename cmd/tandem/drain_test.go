package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// A server that gets SIGTERM answers all requests of clients that look at its readiness,
// whatever their connections, and exits with 0.
func TestTerminatedServerLosesNoRequest(t *testing.T) {
	t.Parallel() // it waits
	dir := t.TempDir()
	towers, store := filepath.Join(dir, "towers"), filepath.Join(dir, "store")
	var built bytes.Buffer
	for _, args := range [][]string{
		{"generate", "--out", towers, "--apps", "500", "--users", "80", "--dim", "8"},
		{
			"build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", "1", "--metric", "dot", "--store", store,
		},
	} {
		built.Reset()
		require.Zero(t, run(t.Context(), args, &built, io.Discard))
	}
	lines := strings.Fields(built.String())
	digest := lines[len(lines)-1]
	cmd := exec.Command("tandem", "serve", "--store", store, "--snapshot", digest, "--listen", "127.0.0.1:0", "--drain-delay", "15s", "--log-format", "json")
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }() // it has ended
	address := make(chan string, 1)
	var logged sync.WaitGroup
	logged.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var e servingEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Msg == "listening" {
				address <- e.Address
			}
		}
	})
	url := "http://" + <-address

	kept, anew := &http.Transport{}, &http.Transport{DisableKeepAlives: true}
	multiplexed := &http.Transport{Protocols: new(http.Protocols)}
	multiplexed.Protocols.SetUnencryptedHTTP2(true)
	isReady := func() bool {
		response, err := (&http.Client{Transport: anew}).Get(url + "/readyz")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode == http.StatusOK
	}
	for !isReady() {
		time.Sleep(time.Millisecond)
	}
	var ready atomic.Bool
	ready.Store(true)
	var asked atomic.Int64
	var clients sync.WaitGroup
	for i := range 9 {
		transport := []*http.Transport{kept, anew, multiplexed}[i%3]
		var options []connect.ClientOption
		if i == 2 {
			options = append(options, connect.WithGRPC())
		}
		client := tandemv1connect.NewRetrievalServiceClient(&http.Client{Transport: transport}, url, options...)
		clients.Go(func() {
			for ready.Load() {
				_, err := client.Retrieve(context.Background(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "user-0000001", K: 3}))
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for asked.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for ready.Load() {
		time.Sleep(100 * time.Millisecond)
		ready.Store(isReady())
	}
	clients.Wait()
	kept.CloseIdleConnections()
	multiplexed.CloseIdleConnections()
	logged.Wait()
	require.NoError(t, cmd.Wait())
}
