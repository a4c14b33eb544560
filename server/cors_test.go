package server

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// TestCORS asks as a browser does for a script of a page.
func TestCORS(t *testing.T) {
	const page = "https://shop.example"
	preflight := func(s *site, origin string) reply {
		r, err := http.NewRequest(http.MethodOptions, s.url+retrievePath, nil)
		require.NoError(t, err)
		return s.do(t, r, "Origin", origin, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "connect-protocol-version,content-type,traceparent,x-grpc-web,x-request-id,x-user-agent")
	}
	service := smallTowers(index.Dot).loaded(t)
	for _, origins := range [][]string{{page, "http://localhost:3000"}, {"*"}} {
		s := serve(t, service, Options{CORSOrigins: origins})
		got := preflight(s, page)
		require.Equal(t, http.StatusNoContent, got.status)
		want := page
		if origins[0] == "*" {
			want = "*"
		}
		require.Equal(t, want, got.header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "POST", got.header.Get("Access-Control-Allow-Methods"))
		require.NotEmpty(t, got.header.Get("Access-Control-Allow-Headers"))
		require.Equal(t, "7200", got.header.Get("Access-Control-Max-Age"))
		for _, body := range []string{`{"userId": "u1", "k": 1}`, "{"} { // errors too
			got = s.post(t, "Retrieve", body, "Origin", page)
			require.Equal(t, want, got.header.Get("Access-Control-Allow-Origin"))
			exposed := strings.ToLower(got.header.Get("Access-Control-Expose-Headers"))
			for _, name := range []string{"grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id", "retry-after"} {
				require.Contains(t, exposed, name)
			}
		}
		require.Equal(t, want, s.post(t, "Delete", "{}", "Origin", page).header.Get("Access-Control-Allow-Origin"))
	}
	s := serve(t, service, Options{CORSOrigins: []string{page}})
	require.Empty(t, preflight(s, "https://other.example").header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, s.post(t, "Retrieve", "{}").header.Values("Vary"), "Origin")
	s = serve(t, service, Options{})
	require.Equal(t, http.StatusMethodNotAllowed, preflight(s, page).status)
	require.Empty(t, s.post(t, "Retrieve", "{}", "Origin", page).header.Get("Access-Control-Allow-Origin"))
}

// TestAnswerHeaders looks at what is between a server and its callers: lengths, and what
// caches may do.
func TestAnswerHeaders(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	const large = `{"userId": "u1", "k": 60, "recallTarget": 1, "attributes": ["*"]}`
	for name, got := range map[string]reply{
		"answer":     s.post(t, "Retrieve", large),
		"compressed": s.post(t, "Retrieve", large, "Accept-Encoding", "gzip"),
		"error":      s.post(t, "Retrieve", "{"),
		"path":       s.post(t, "Delete", "{}"),
		"media type": s.post(t, "Retrieve", "{}", "Content-Type", "text/csv"),
		"get":        s.get(t, retrievePath+`?encoding=json&message={"userId":"u1","k":60,"attributes":["*"]}`),
		"get error":  s.get(t, retrievePath+`?encoding=json&message={}`),
		"healthz":    s.get(t, "/healthz"),
		"readyz":     s.get(t, "/readyz"),
		"nothing":    s.get(t, "/nothing"),
	} {
		require.Equal(t, strconv.Itoa(len(got.body)), got.header.Get("Content-Length"), name)
		require.Equal(t, "no-store", got.header.Get("Cache-Control"), name)
		require.Equal(t, []string{"Accept-Encoding"}, got.header.Values("Vary"), name)
		require.NotEmpty(t, got.header.Get(RequestIDHeader), name)
	}
	r, err := http.NewRequest(http.MethodHead, s.url+"/healthz", nil)
	require.NoError(t, err)
	got := s.do(t, r)
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "3", got.header.Get("Content-Length"))
	require.Empty(t, got.body)
}
