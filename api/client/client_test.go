package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/tandem-ann/tandem/api/client"
	"github.com/tandem-ann/tandem/api/client/clienttest"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// TestAnswers asks all procedures over each kind of connection.
func TestAnswers(t *testing.T) {
	s := towers(t, 50)
	secure := listen(t, s, func(h *httptest.Server) { h.EnableHTTP2 = true; h.StartTLS() })
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	for name, c := range map[string]struct {
		node    *node
		proto   int
		options []client.Option
	}{
		"HTTP/1.1":          {listen(t, s), 1, nil},
		"HTTP/2":            {listen(t, s), 2, []client.Option{client.WithHTTP2()}},
		"TLS":               {secure, 1, []client.Option{client.WithTLS(&tls.Config{RootCAs: roots})}},
		"TLS with HTTP/2":   {secure, 2, []client.Option{client.WithTLS(&tls.Config{RootCAs: roots}), client.WithHTTP2()}},
		"TLS, with batches": {secure, 1, []client.Option{client.WithTLS(&tls.Config{RootCAs: roots}), client.WithBatching(time.Millisecond, 2)}},
	} {
		t.Run(name, func(t *testing.T) {
			c.node.breaks(func(_ http.ResponseWriter, r *http.Request) bool {
				require.Equal(t, c.proto, r.ProtoMajor)
				return false
			})
			k := newClient(t, client.Addresses(c.node.address()), append(c.options, client.WithDeadline(time.Minute))...)
			answer, err := k.Retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "user-040", K: 2, Filter: "price < 10", Attributes: []string{"price"}})
			require.NoError(t, err)
			require.Equal(t, []string{"app-009", "app-008"}, ids(answer))
			require.EqualValues(t, 9, answer.Candidates[0].Attributes["price"].GetInt())
			require.EqualValues(t, 10, answer.Eligible)

			results, err := k.BatchRetrieve(t.Context(), []*tandemv1.RetrieveRequest{query("user-001", 1), query("nobody", 1), query("user-049", 1)})
			require.NoError(t, err)
			require.Len(t, results, 3)
			require.Equal(t, []string{"app-000"}, ids(results[0].Response))
			require.ErrorIs(t, results[1].Err, client.EntityUnknown)
			require.Equal(t, []string{"app-049"}, ids(results[2].Response))

			vectors, err := k.GetEmbeddings(t.Context(), &tandemv1.GetEmbeddingsRequest{Ids: []string{"app-001", "app-x"}})
			require.NoError(t, err)
			require.Equal(t, []float32{1, 49}, vectors.Embeddings[0].Values)
			require.Equal(t, []string{"app-x"}, vectors.UnknownIds)
		})
	}
}

func ids(r *tandemv1.RetrieveResponse) (list []string) {
	for _, c := range r.GetCandidates() {
		list = append(list, c.Id)
	}
	return list
}

// TestErrors looks at what errors say of each kind of mistake.
func TestErrors(t *testing.T) {
	s := towers(t, 10)
	n := listen(t, s)
	c := newClient(t, client.Addresses(n.address()), client.WithDeadline(time.Minute))
	ctx := client.WithRequestID(t.Context(), "shop 7")
	for _, of := range []struct {
		request *tandemv1.RetrieveRequest
		code    connect.Code
		reason  client.Reason
		fields  []string
	}{
		{&tandemv1.RetrieveRequest{UserId: "user-001"}, connect.CodeInvalidArgument, client.RuleBroken, []string{"k"}},
		{&tandemv1.RetrieveRequest{UserId: "user-001", K: 1, AtMost: []*tandemv1.AtMost{{Attribute: "maker"}}}, connect.CodeInvalidArgument, client.RuleBroken, []string{"at_most[0].n"}},
		{&tandemv1.RetrieveRequest{Vector: []float32{1}, K: 1}, connect.CodeInvalidArgument, client.VectorInvalid, []string{"vector"}},
		{&tandemv1.RetrieveRequest{Vector: []float32{1, float32(math.NaN())}, K: 1}, connect.CodeInvalidArgument, client.VectorInvalid, []string{"vector[1]"}},
		{&tandemv1.RetrieveRequest{UserId: "user-001", K: 1, Filter: "price <"}, connect.CodeInvalidArgument, client.FilterInvalid, []string{"filter"}},
		{&tandemv1.RetrieveRequest{UserId: "user-001", K: 1, Segment: "teens"}, connect.CodeInvalidArgument, client.SegmentInvalid, []string{"segment"}},
		{&tandemv1.RetrieveRequest{UserId: "user-001", K: 1, Attributes: []string{"maker", "prize"}}, connect.CodeInvalidArgument, client.AttributeInvalid, []string{"attributes[1]"}},
		{&tandemv1.RetrieveRequest{UserId: "user-001", K: 1, ExcludeIds: []string{""}}, connect.CodeInvalidArgument, client.IDInvalid, []string{"exclude_ids[0]"}},
		{&tandemv1.RetrieveRequest{UserId: "nobody", K: 1}, connect.CodeNotFound, client.EntityUnknown, nil},
		{&tandemv1.RetrieveRequest{UserId: "user-001", K: 1, ModelVersion: "2"}, connect.CodeFailedPrecondition, client.ModelVersionNotServed, nil},
	} {
		before := n.asked()
		_, err := c.Retrieve(ctx, of.request)
		check := func(err error) *client.Error {
			e, ok := errors.AsType[*client.Error](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, of.code, e.Code)
			require.ErrorIs(t, err, of.reason)
			require.Equal(t, n.address(), e.Server)
			require.Contains(t, e.RequestID, "shop 7")
			var paths []string
			for _, f := range e.Fields {
				paths = append(paths, f.Path)
				require.NotEmpty(t, f.Description)
			}
			require.Equal(t, of.fields, paths)
			require.Equal(t, of.code != connect.CodeNotFound, e.Mistake())
			require.False(t, e.Temporary())
			return e
		}
		e := check(err)
		require.Equal(t, 1, e.Tries)
		require.Equal(t, before+1, n.asked(), "a mistake is not repeated")
		require.Contains(t, err.Error(), string(of.reason))

		results, err := c.BatchRetrieve(ctx, []*tandemv1.RetrieveRequest{of.request, query("user-001", 1)})
		require.NoError(t, err)
		item := check(results[0].Err)
		require.Equal(t, e.Message, item.Message)
		require.NoError(t, results[1].Err)
		if of.reason == client.EntityUnknown {
			require.Equal(t, &client.Missing{Type: "user", Name: "nobody"}, e.Missing)
			require.Equal(t, e.Missing, item.Missing)
		}
	}
}

// TestReasons compares the reasons and their codes with those that the page and the contract list.
func TestReasons(t *testing.T) {
	page, err := os.ReadFile("../../docs/errors.md")
	require.NoError(t, err)
	contract, err := os.ReadFile("../tandem/v1/retrieval.proto")
	require.NoError(t, err)
	source, err := os.ReadFile("reason.go")
	require.NoError(t, err)
	found := 0
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(page), -1) {
		for _, reason := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(row[2], -1) {
			found++
			require.Equal(t, row[1], client.Reason(reason[1]).Code().String(), reason[1])
			require.Contains(t, string(source), `Reason = "`+reason[1]+`"`)
			require.Contains(t, string(contract), reason[1])
		}
	}
	ours := regexp.MustCompile(`Reason = "[A-Z_]+"`).FindAllString(string(source), -1)
	require.Len(t, ours, found+5, "those of the page, and the client's own")
	require.Equal(t, connect.CodeUnknown, client.Reason("NEWER").Code())
}

// TestHeaders looks at what a request says beside its message.
func TestHeaders(t *testing.T) {
	var got http.Header
	n := listen(t, towers(t, 3))
	n.breaks(func(_ http.ResponseWriter, r *http.Request) bool { got = r.Header.Clone(); return false })
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	c := newClient(t, client.Addresses(n.address()), client.WithTokenFile(file), client.WithPriority("batch"), client.WithProbes(0), client.WithDeadline(time.Minute))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	_, err := c.Retrieve(trace.ContextWithSpanContext(client.WithRequestID(t.Context(), "shop-7"), span), query("user-001", 1))
	require.NoError(t, err)
	require.Equal(t, "Bearer first", got.Get("Authorization"))
	require.Equal(t, "batch", got.Get("Tandem-Priority"))
	require.Equal(t, "shop-7", got.Get("X-Request-Id"))
	require.Equal(t, "00-"+span.TraceID().String()+"-"+span.SpanID().String()+"-01", got.Get("Traceparent"))
	require.Equal(t, "identity", got.Get("Accept-Encoding"))
	require.NotEmpty(t, got.Get("Connect-Timeout-Ms"))

	// A token that is refused is looked for in its file, and not repeated if that has no other.
	refuses := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer second" {
			return false
		}
		s := towers(t, 3)
		s.Before(func(context.Context, string, proto) error {
			return clienttest.Refuse(client.TokenInvalid, "there is no such token")
		})
		s.ServeHTTP(w, r)
		return true
	}
	n.breaks(refuses)
	before := n.asked()
	_, err = c.Retrieve(t.Context(), query("user-001", 1))
	require.ErrorIs(t, err, client.TokenInvalid)
	require.Equal(t, before+1, n.asked())
	require.NoError(t, os.WriteFile(file, []byte("second, a longer one"), 0o600))
	_, err = c.Retrieve(t.Context(), query("user-001", 1))
	require.ErrorIs(t, err, client.TokenInvalid, "a file that has no token leaves the one before")
	require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
	require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(time.Hour)))
	_, err = c.Retrieve(t.Context(), query("user-001", 1))
	require.NoError(t, err)
}

// TestBadOptions looks at what is said of options and addresses that cannot be.
func TestBadOptions(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, c := range []struct {
		from    client.Source
		options []client.Option
		want    string
	}{
		{nil, nil, "there is no source of servers"},
		{client.Addresses(), nil, "addresses: there are none"},
		{client.Addresses("a:1", "ftp://a"), nil, `addresses[1] is "ftp://a": accepted: http://HOST:PORT`},
		{client.Addresses("http://a/?x=1"), nil, "accepted: http://HOST:PORT"},
		{client.Addresses("http://user:secret@a"), nil, "accepted: http://HOST:PORT"},
		{client.Addresses(strings.Repeat("x", 10_000) + "://a"), nil, "addresses[0] is"},
		{client.Addresses("10.0.0.1:80"), []client.Option{client.WithToken("t")}, "a token would be sent in clear text"},
		{client.Addresses("a:1"), []client.Option{client.WithToken("two words")}, "the token is not one"},
		{client.Addresses("a:1"), []client.Option{client.WithToken("t"), client.WithTokenFile(empty)}, "a token and a file of one"},
		{client.Addresses("a:1"), []client.Option{client.WithTokenFile(empty)}, "does not have one token, alone"},
		{client.Addresses("a:1"), []client.Option{client.WithTokenFile(filepath.Dir(empty))}, "it is no regular file"},
		{client.Addresses("a:1"), []client.Option{client.WithDeadline(0)}, "deadline is 0s; accepted: more than 0"},
		{client.Addresses("a:1"), []client.Option{client.WithFence(-1)}, "fence is -1ns"},
		{client.Addresses("a:1"), []client.Option{client.WithRetries(1.5)}, "retries is 1.5; accepted: 0 to 1"},
		{client.Addresses("a:1"), []client.Option{client.WithRetries(math.NaN())}, "retries is NaN"},
		{client.Addresses("a:1"), []client.Option{client.WithHedges(0)}, "hedges is 0; accepted: above 0"},
		{client.Addresses("a:1"), []client.Option{client.WithPriority("high")}, `priority is "high"; accepted: live, batch, audit`},
		{client.Addresses("a:1"), []client.Option{client.WithBatching(time.Second, 10)}, "the wait for a batch is 1s"},
		{client.Addresses("a:1"), []client.Option{client.WithBatching(time.Millisecond, 257)}, "the size of a batch is 257; accepted: 2 to 256"},
		{client.Addresses("a:1"), []client.Option{client.WithConnections(0)}, "connections is 0"},
		{client.Addresses("a:1"), []client.Option{client.WithMaxAnswer(0)}, "max answer is 0"},
		{client.Addresses("a:1"), []client.Option{client.WithLookups(0)}, "lookups are made every 0s"},
		{client.Addresses("a:1"), []client.Option{client.WithProbes(-1)}, "probes are made every -1ns"},
	} {
		_, err := client.New(c.from, c.options...)
		require.ErrorContains(t, err, c.want)
		require.Less(t, len(err.Error()), 500)
		require.NotContains(t, err.Error(), "secret")
	}
}

// TestClosed calls a client that is closed, and closes one amid a call.
func TestClosed(t *testing.T) {
	n := listen(t, towers(t, 3))
	begun := make(chan struct{})
	n.breaks(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/readyz" {
			return false
		}
		close(begun)
		<-r.Context().Done()
		return true
	})
	c := newClient(t, client.Addresses(n.address()), client.WithDeadline(time.Minute))
	failed := make(chan error)
	go func() {
		_, err := c.Retrieve(context.Background(), query("user-001", 1))
		failed <- err
	}()
	<-begun
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-failed, client.Closed)
	_, err := c.Retrieve(t.Context(), query("user-001", 1))
	require.ErrorIs(t, err, client.Closed)
	require.ErrorIs(t, err, context.Canceled)
}

// TestDeadlines ends calls by their context, and by the default.
func TestDeadlines(t *testing.T) {
	n := listen(t, towers(t, 3))
	n.breaks(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	c := newClient(t, client.Addresses(n.address()), client.WithDeadline(20*time.Millisecond))
	_, err := c.Retrieve(t.Context(), query("user-001", 1))
	require.ErrorIs(t, err, client.DeadlineExceeded)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	time.AfterFunc(time.Millisecond, cancel)
	_, err = c.Retrieve(ctx, query("user-001", 1))
	require.ErrorIs(t, err, client.CallerGone)
	require.ErrorIs(t, err, context.Canceled)
}

// TestObserver looks at what is told of calls.
func TestObserver(t *testing.T) {
	s := towers(t, 3)
	var calls []client.Call
	c := s.Client(t, client.WithObserver(func(k client.Call) { calls = append(calls, k) }))
	_, err := c.Retrieve(t.Context(), query("user-001", 1))
	require.NoError(t, err)
	s.Before(func(context.Context, string, proto) error { return clienttest.Refuse(client.LiveStale, "stale") })
	_, err = c.BatchRetrieve(t.Context(), []*tandemv1.RetrieveRequest{query("user-001", 1)})
	require.ErrorIs(t, err, client.LiveStale)
	require.Len(t, calls, 2)
	require.Equal(t, "Retrieve", calls[0].Procedure)
	require.Nil(t, calls[0].Err)
	require.Equal(t, []int{1, 0, 0}, []int{calls[0].Tries, calls[0].Retries, calls[0].Hedges})
	require.Equal(t, "127.0.0.1:1", calls[0].Server)
	require.Equal(t, "BatchRetrieve", calls[1].Procedure)
	require.Equal(t, client.LiveStale, calls[1].Err.Reason)
	require.Equal(t, []int{4, 3, 0}, []int{calls[1].Tries, calls[1].Retries, calls[1].Hedges})
}

// TestPages asks for all pages of an answer of the server in memory.
func TestPages(t *testing.T) {
	c := towers(t, 20).Client(t)
	whole, err := c.Retrieve(t.Context(), query("user-007", 20))
	require.NoError(t, err)
	var paged []string
	for token := ""; ; {
		answer, err := c.Retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "user-007", K: 7, PageToken: token})
		require.NoError(t, err)
		paged = append(paged, ids(answer)...)
		if token = answer.NextPageToken; token == "" {
			require.Equal(t, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, answer.ShortReason)
			break
		}
	}
	require.Equal(t, ids(whole), paged)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(paged))), 20)
	answer, err := c.Retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "user-007", K: 10, AtMost: []*tandemv1.AtMost{{Attribute: "maker", N: 2}}})
	require.NoError(t, err)
	require.Len(t, answer.Candidates, 6)
	require.Equal(t, tandemv1.ShortReason_SHORT_REASON_AT_MOST, answer.ShortReason)
	_, err = fmt.Sscanf(answer.ShortReasonText, "at_most leaves 6 of 20")
	require.NoError(t, err)
}
