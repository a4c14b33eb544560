package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// repeater has written every event before, and proves nothing.
type repeater struct {
	tandemv1connect.UnimplementedLiveServiceHandler
	deadline atomic.Value // that the last write had, as its header says
}

func (r *repeater) Write(_ context.Context, q *connect.Request[tandemv1.WriteRequest]) (*connect.Response[tandemv1.WriteResponse], error) {
	r.deadline.Store(q.Header().Get("Connect-Timeout-Ms"))
	return connect.NewResponse(&tandemv1.WriteResponse{Position: &tandemv1.LivePosition{Sequence: 7}, RepeatedEvents: uint32(len(q.Msg.Events))}), nil
}

func (*repeater) Prove(context.Context, *connect.Request[tandemv1.ProveRequest]) (*connect.Response[tandemv1.ProveResponse], error) {
	return nil, connect.NewError(connect.CodeUnavailable, errors.New("not now"))
}

// TestImportRepeatedUnknown fails where it is not known whether a takedown still holds.
func TestImportRepeatedUnknown(t *testing.T) {
	r := &repeater{}
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewLiveServiceHandler(r))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	events := filepath.Join(t.TempDir(), "events.jsonl")
	require.NoError(t, os.WriteFile(events, []byte(`{"takedown": {"app": "a", "reason": "spam"}}`), 0o600))
	code, stdout, stderr := ended(t, "live", "import", "--server", server.URL, events)
	require.Equal(t, exitFailure, code)
	require.Equal(t, "position 7, 1 event: it had been written before, and counts once\n", stdout)
	require.Contains(t, stderr, "whether the takedowns still hold that had been written before is not known (tandem live prove tells): unavailable: not now")
	require.Regexp(t, `^(30000|29[0-9]{3})$`, r.deadline.Load())

	// What takes nothing down is not looked up.
	require.NoError(t, os.WriteFile(events, []byte(`{"restore": {"app": "a"}}`), 0o600))
	code, _, stderr = ended(t, "live", "import", "--server", server.URL, events)
	require.Zero(t, code, stderr)
}
