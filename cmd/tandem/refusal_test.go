package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// refuser answers every request by an error.
type refuser struct {
	tandemv1connect.UnimplementedRetrievalServiceHandler
	tandemv1connect.UnimplementedAdminServiceHandler
	err *connect.Error
}

func (r refuser) Retrieve(context.Context, *connect.Request[tandemv1.RetrieveRequest]) (*connect.Response[tandemv1.RetrieveResponse], error) {
	return nil, r.err
}

func (r refuser) GetStatus(context.Context, *connect.Request[tandemv1.GetStatusRequest]) (*connect.Response[tandemv1.GetStatusResponse], error) {
	return nil, r.err
}

// TestRefusals prints what an answer says of its error.
func TestRefusals(t *testing.T) {
	info := &errdetails.ErrorInfo{Reason: "SOME_REASON", Domain: "tandem"}
	for _, test := range []struct {
		details    []proto.Message
		header     []string
		want, line string
	}{
		{nil, nil, "resource_exhausted: some text", "resource_exhausted: some text"},
		{
			[]proto.Message{info}, []string{"X-Request-Id", "r-1"},
			"resource_exhausted: some text\n  reason    SOME_REASON\n  request   r-1",
			"resource_exhausted: some text (reason SOME_REASON; request r-1)",
		},
		{
			[]proto.Message{info, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "k"}, {Field: ""}, {Field: "at_most[0].n"}, {Field: "k"}}}}, nil,
			"resource_exhausted: some text\n  reason    SOME_REASON\n  fields    k, at_most[0].n", "",
		},
		{
			[]proto.Message{&errdetails.ResourceInfo{ResourceType: "user", ResourceName: "a\x1b[1m"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}}, []string{"Retry-After", "2"},
			"resource_exhausted: some text\n  missing   user \"a\\x1b[1m\"\n  retry     in 1.5s", "",
		},
		{nil, []string{"Retry-After", "2"}, "resource_exhausted: some text\n  retry     after 2 s", ""},
		{nil, []string{"Retry-After", "Mon, 23 Nov 2026 08:00:00 GMT"}, "resource_exhausted: some text\n  retry     after Mon, 23 Nov 2026 08:00:00 GMT", ""},
	} {
		failure := connect.NewError(connect.CodeResourceExhausted, errors.New("some text"))
		for _, m := range test.details {
			detail, err := connect.NewErrorDetail(m)
			require.NoError(t, err)
			failure.AddDetail(detail)
		}
		for i := 0; i < len(test.header); i += 2 {
			failure.Meta().Set(test.header[i], test.header[i+1])
		}
		mux := http.NewServeMux()
		mux.Handle(tandemv1connect.NewRetrievalServiceHandler(refuser{err: failure}))
		mux.Handle(tandemv1connect.NewAdminServiceHandler(refuser{err: failure}))
		h := httptest.NewServer(mux)
		for name, args := range map[string][]string{
			"tandem query": {"query", "--server", h.URL, "--user", "u"},
			"tandem load":  {"load", "--server", h.URL, "--users", "refusal_test.go", "--queries", "1", "--http1"},
		} {
			var stdout, stderr bytes.Buffer
			require.Equal(t, exitFailure, run(t.Context(), args, &stdout, &stderr))
			require.Equal(t, name+": "+test.want+"\n", stderr.String())
			require.Empty(t, stdout.String())
		}
		all, err := (&serverFlags{Server: []string{h.URL}}).fleet()
		require.NoError(t, err)
		line := ofServer(all.Ask(t.Context())[0].Err)
		if test.line != "" {
			require.Equal(t, test.line, line)
		}
		require.NotContains(t, line, "\n")
		h.Close()
	}
	var stderr bytes.Buffer
	require.Equal(t, exitFailure, run(t.Context(), []string{"query", "--server", "127.0.0.1:1", "--user", "u"}, &bytes.Buffer{}, &stderr))
	require.Regexp(t, `^tandem query: unavailable: dial tcp 127.0.0.1:1: .*refused\n$`, stderr.String())
}
