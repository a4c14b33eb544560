package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// served serves threeShards.
func served(t *testing.T) string {
	service := server.NewService(slog.New(slog.DiscardHandler))
	store, err := snapshots.OpenStore(t.Context(), filepath.Join(testDir, "3", "store"), snapshots.Options{})
	require.NoError(t, err)
	snapshot, err := snapshots.Open(t.Context(), store, threeShards.Digest())
	require.NoError(t, err)
	service.Serve(snapshot)
	t.Cleanup(service.Close)
	h := httptest.NewUnstartedServer(server.NewHandler(service, server.Options{MaxDeadline: time.Minute}))
	h.Config.Protocols = new(http.Protocols)
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Start()
	t.Cleanup(h.Close)
	return h.URL
}

func TestLoad(t *testing.T) {
	url := served(t)
	var began []int
	report, err := Load(t.Context(), LoadOptions{
		Server: url + "/", Request: &tandemv1.RetrieveRequest{K: 10}, Snapshot: threeShards,
		Clients: []int{1, 3}, Queries: 200, WarmUp: 10 * time.Millisecond, RecallQueries: 50, PID: os.Getpid(),
		Progress: func(n int) { began = append(began, n) },
	})
	require.NoError(t, err)
	require.Equal(t, []int{1, 3}, began)
	require.Equal(t, threeShards.Digest(), report.Snapshot)
	require.Equal(t, DefaultTarget, report.Target)
	require.GreaterOrEqual(t, *report.Recall, 0.9)
	require.LessOrEqual(t, *report.Worst, *report.Recall)
	require.Equal(t, 50, report.RecallQueries)
	for _, r := range report.Results {
		require.Equal(t, 200, r.Queries)
		require.Zero(t, r.Errors+r.Short)
		require.Positive(t, r.QPS)
		require.LessOrEqual(t, r.P50, r.P99)
		require.LessOrEqual(t, r.P99, r.Max*1.01)
	}
	var text, data bytes.Buffer
	require.NoError(t, report.WriteTable(&text))
	require.Contains(t, text.String(), "k=10, recall target 0.99, of ")
	require.NoError(t, report.WriteJSON(&data))
	var back LoadReport
	require.NoError(t, json.Unmarshal(data.Bytes(), &back))
	require.Equal(t, *report, back)
}

// TestLoadFailures: an error before the load is its own; later ones are counted.
func TestLoadFailures(t *testing.T) {
	url := served(t)
	o := LoadOptions{Server: url, Request: &tandemv1.RetrieveRequest{K: 10}, Clients: []int{2}, Queries: 20, WarmUp: -1, HTTP1: true}
	_, err := Load(t.Context(), o)
	require.EqualError(t, err, "there are no users to ask with")
	o.Users = []string{"nobody"}
	_, err = Load(t.Context(), o)
	require.ErrorContains(t, err, `user_id "nobody" is not in the user tower`)
	o.Users = []string{sample(threeShards.Tower("users"), 1)[0].id, "nobody"}
	o.Request.Filter = "false"
	report, err := Load(t.Context(), o)
	require.NoError(t, err)
	require.Nil(t, report.Recall)
	require.Nil(t, report.Worst)
	r := report.Results[0]
	require.Equal(t, []int{10, 10, 10}, []int{r.Queries, r.Errors, r.Short})
	require.Contains(t, r.FirstError, `"nobody"`)
	var text bytes.Buffer
	require.NoError(t, report.WriteTable(&text))
	require.Contains(t, text.String(), "the server's CPU was not measured")
	require.Contains(t, text.String(), "first error of 2 clients: not_found: ")
}

// A server that falls silent ends the load, after a while and with what was measured.
func TestLoadOfSilentServer(t *testing.T) {
	service := server.NewService(slog.New(slog.DiscardHandler))
	store, err := snapshots.OpenStore(t.Context(), filepath.Join(testDir, "3", "store"), snapshots.Options{})
	require.NoError(t, err)
	snapshot, err := snapshots.Open(t.Context(), store, threeShards.Digest())
	require.NoError(t, err)
	service.Serve(snapshot)
	t.Cleanup(service.Close)
	answers := server.NewHandler(service, server.Options{MaxDeadline: time.Minute})
	var asked atomic.Int64
	limit := int64(21) // one to begin with, and 20
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > limit {
			_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is seen
			<-r.Context().Done()
			return
		}
		answers.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	o := LoadOptions{
		Server: h.URL, Request: &tandemv1.RetrieveRequest{K: 10}, Users: []string{sample(threeShards.Tower("users"), 1)[0].id},
		Clients: []int{2}, Queries: 1_000_000, WarmUp: -1, HTTP1: true, Timeout: 10 * time.Second,
	}
	report, err := Load(t.Context(), o)
	require.NoError(t, err)
	r := report.Results[0]
	require.Equal(t, []int{20, 2}, []int{r.Queries, r.Errors})
	require.Contains(t, r.FirstError, "no answer within 10s; the client asked no more: ")
	_, err = Load(t.Context(), o)
	require.ErrorContains(t, err, "deadline_exceeded")
}

func TestLoadOptions(t *testing.T) {
	for want, o := range map[string]LoadOptions{
		`server is "localhost:8080", want a URL that begins with http:// or https://`: {Server: "localhost:8080"},
		"request is missing":               {Server: "http://x"},
		"timeout is -1s, want more than 0": {Server: "http://x", Request: &tandemv1.RetrieveRequest{}, Timeout: -time.Second},
		"clients is 0, want 1 to 10000":    {Server: "http://x", Request: &tandemv1.RetrieveRequest{}, Clients: []int{0}},
	} {
		require.EqualError(t, o.Validate(), want)
	}
}

func TestParseStat(t *testing.T) {
	d, err := parseStat("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 8 0 1 1 1")
	require.NoError(t, err)
	require.Equal(t, 1750*time.Millisecond, d)
	_, err = parseStat("7 (a) S 1 7")
	require.Error(t, err)
	_, err = parseStat("7 (a) S 1 7 7 0 -1 4194560 1 0 0 0 x 25 0 0 20 0 8 0 1 1 1")
	require.Error(t, err)
	_, err = ProcessCPU(1 << 30)
	require.ErrorContains(t, err, "read the CPU time of process 1073741824: ")
}

func TestCountingCodec(t *testing.T) {
	data, err := proto.Marshal(&tandemv1.RetrieveResponse{Candidates: []*tandemv1.Candidate{{Id: "a"}, {Id: "b"}}, Model: "feed", Eligible: 9})
	require.NoError(t, err)
	var answer tandemv1.RetrieveResponse
	require.NoError(t, countingCodec{}.Unmarshal(data, &answer))
	require.EqualValues(t, 2, answer.Eligible)
	require.Error(t, countingCodec{}.Unmarshal(data[:3], new(tandemv1.RetrieveResponse)))
	require.Error(t, countingCodec{}.Unmarshal([]byte{7}, new(tandemv1.RetrieveResponse)))
}
