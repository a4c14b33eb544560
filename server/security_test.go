package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/secure"
	"github.com/tandem-ann/tandem/server/secure/certtest"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/server/traces/tracetest"
)

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// fortress is a server that asks callers who they are.
type fortress struct {
	*process
	tokens    map[string]string // by the name of the caller
	authority *certtest.Authority
	client    *tls.Config // nil in clear text
	log       lockedBuffer
	admin     net.Addr
	collector *tracetest.Collector
}

// callers are those of a fortress.
var callers = []auth.Token{
	{Name: "ranker", Scopes: auth.Query},
	{Name: "writer", Scopes: auth.Live},
	{Name: "ops", Scopes: auth.Admin},
	{Name: "publisher", Scopes: auth.Publish},
	{Name: "former", Scopes: auth.Any, Expires: time.Now().Add(-time.Hour)},
	{Name: "small", Scopes: auth.Query, Quota: auth.Quota{CPU: 1e-6}},
}

// newFortress starts a server with tokens, by TLS with certificates of clients, or in clear text.
func newFortress(t *testing.T, encrypted bool) *fortress {
	dir := t.TempDir()
	f := &fortress{tokens: map[string]string{}, collector: tracetest.Start(t)}
	o := auth.Options{TokenFile: filepath.Join(dir, "tokens.yaml"), Certificates: encrypted}
	for _, token := range callers {
		secret := auth.NewSecret()
		f.tokens[token.Name], token.Hash = secret, auth.HashOf(secret)
		require.NoError(t, auth.Append(o.TokenFile, token))
	}
	c := smallTowers(index.Dot).named(t, Config{
		Live: writes(), ReleaseWrites: true, LogSlow: 1, Traces: &traces.Options{Endpoint: f.collector.URL, Share: 1, MaxSpans: 1_000_000, Queue: 1 << 17},
		Logger:  slog.New(slog.NewJSONHandler(&f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Options: Options{MaxMessageBytes: 1 << 20, MaxBytesInFlight: 4 << 20, MaxDeadline: 20 * time.Second},
	})
	var err error
	if encrypted {
		f.authority = certtest.New(t, "one")
		f.authority.Write(t, dir)
		c.TLS, err = secure.Open(secure.Options{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ClientCA: filepath.Join(dir, "ca.pem")})
		require.NoError(t, err)
		f.client = &tls.Config{RootCAs: f.authority.Pool(), Certificates: []tls.Certificate{f.authority.Pair(t, "ranker", time.Now().Add(time.Hour))}}
	}
	c.Options.Guard, err = auth.Open(o)
	require.NoError(t, err)
	c.Admin = &adminhttp.Options{Listen: "127.0.0.1:0", Listening: func(a net.Addr) { f.admin = a }}
	c.Console = &Console{}
	if encrypted {
		c.Admin.ProtectMetrics = c.Options.Guard.Require(auth.Live)
	}
	f.process = start(t, c)
	if encrypted {
		f.url = "https://" + f.addr.String()
		f.http1, f.http2 = clientsOf(t, f.client)
	}
	return f
}

// clientsOf returns clients by TLS, of HTTP/1.1 and HTTP/2.
func clientsOf(t *testing.T, config *tls.Config) (http1, http2 *http.Client) {
	t1 := &http.Transport{DisableCompression: true, TLSClientConfig: config.Clone()}
	t2 := &http.Transport{DisableCompression: true, TLSClientConfig: config.Clone(), Protocols: new(http.Protocols)}
	t2.Protocols.SetHTTP2(true)
	t.Cleanup(t1.CloseIdleConnections)
	t.Cleanup(t2.CloseIdleConnections)
	return &http.Client{Transport: t1}, &http.Client{Transport: t2}
}

// dial opens a connection, which ends with the test.
func (f *fortress) dial(t *testing.T, protocol string) net.Conn {
	c, err := net.Dial("tcp", f.addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	if f.client != nil {
		config := f.client.Clone()
		config.ServerName, config.NextProtos = "localhost", []string{protocol}
		encrypted := tls.Client(c, config)
		require.NoError(t, encrypted.Handshake())
		require.Equal(t, protocol, encrypted.ConnectionState().NegotiatedProtocol)
		c = encrypted
	}
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

// as returns the header of a caller.
func (f *fortress) as(name string) []string {
	return []string{"Authorization", "Bearer " + f.tokens[name]}
}

// call sends a message in JSON to a procedure, and returns what came back.
func (f *fortress) call(t *testing.T, procedure string, body io.Reader, header ...string) reply {
	r, err := http.NewRequest(http.MethodPost, f.url+procedure, body)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	return f.do(t, r, header...)
}

// requireReason checks how a request was refused.
func requireReason(t *testing.T, got reply, status int, reason string) {
	t.Helper()
	require.Equal(t, status, got.status, "%s", got.body)
	require.Contains(t, string(got.body), `"`+reason+`"`)
}

// TestStrangersAreRefused walks what strangers, callers of others' scopes, and hostile callers
// send, over real connections, and looks for what the log must not have.
func TestStrangersAreRefused(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", encrypted), func(t *testing.T) {
			t.Parallel()
			f := newFortress(t, encrypted)
			for name, walk := range map[string]func(*testing.T, *fortress){
				"probes": walkProbes, "tokens": walkTokens, "gRPC": walkGRPC, "certificates": walkCertificates, "quota": walkQuota, "admin": walkAdmin, "releases": walkReleases,
				"bodies": walkBodies, "malformed": walkMalformed, "slow writer": walkSlowWriter, "slow reader": walkSlowReader, "secrets": walkSecrets,
			} {
				t.Run(name, func(t *testing.T) { walk(t, f) })
			}
			f.stop()
			require.NoError(t, <-f.done)
			f.requireCleanLog(t)
		})
	}
}

// requireCleanLog looks for what the log must have, and for what it and traces must not.
func (f *fortress) requireCleanLog(t *testing.T) {
	secrets := []string{"very-secret", "0.7182818", "718281828"}
	for _, token := range f.tokens {
		secrets = append(secrets, token[7:20]) // after what all begin with
	}
	log := f.log.String()
	for line := range strings.Lines(log) {
		for _, secret := range secrets {
			if strings.Contains(line, secret) {
				t.Errorf("the log has %q: %s", secret, line)
			}
		}
	}
	spans := f.collector.Bytes()
	for _, secret := range append(secrets, "authorization", "Bearer") {
		if bytes.Contains(spans, []byte(secret)) {
			t.Errorf("the collector has %q", secret)
		}
	}
	require.Contains(t, string(spans), "VECTOR_INVALID")
	require.Contains(t, log, "slow query")
	for _, told := range []string{`"TOKEN_MISSING"`, `"SCOPE_MISSING"`, `"QUOTA_EXCEEDED"`, `"VECTOR_INVALID"`, `"caller":"ranker"`, `"procedure":"/debug/pprof/heap"`} {
		if !strings.Contains(log, told) {
			t.Errorf("the log does not tell of %s", told)
		}
	}
}

const alive1 = `{"userId": "u1", "k": 1}`

func walkProbes(t *testing.T, f *fortress) {
	require.Equal(t, "ok\n", string(f.get(t, "/healthz").body))
	require.Equal(t, "ready\n", string(f.get(t, "/readyz").body))
	require.Equal(t, http.StatusOK, f.call(t, checkPath, strings.NewReader("{}")).status)
	for _, path := range []string{"/", "/nothing", reflectPath, "/tandem.v1.RetrievalService/Nothing"} {
		require.Equal(t, http.StatusUnauthorized, f.get(t, path).status, path)
	}
	require.Equal(t, http.StatusNotFound, f.get(t, "/nothing", f.as("ranker")...).status)
}

func walkTokens(t *testing.T, f *fortress) {
	require.Empty(t, f.post(t, "Retrieve", alive1, "Traceparent", flagged).header.Get(traces.ResponseHeader), "strangers have nothing traced")
	require.NotEmpty(t, f.post(t, "Retrieve", alive1, append(f.as("ranker"), "Traceparent", flagged)...).header.Get(traces.ResponseHeader))
	for procedure, need := range auth.Procedures {
		if procedure == tandemv1connect.LiveServiceImportProcedure {
			continue // a stream, which is not by JSON alone
		}
		got := f.call(t, procedure, strings.NewReader("{}"))
		requireReason(t, got, http.StatusUnauthorized, "TOKEN_MISSING")
		require.Equal(t, "Bearer", got.header.Get("Www-Authenticate"))
		require.NotEmpty(t, got.header.Get(RequestIDHeader))
		requireReason(t, f.call(t, procedure, strings.NewReader("{}"), "Authorization", "Bearer "+auth.NewSecret()), http.StatusUnauthorized, "TOKEN_INVALID")
		requireReason(t, f.call(t, procedure, strings.NewReader("{}"), f.as("former")...), http.StatusUnauthorized, "TOKEN_EXPIRED")
		for _, c := range callers[:4] {
			got := f.call(t, procedure, strings.NewReader("{}"), f.as(c.Name)...)
			if c.Scopes&need == 0 {
				requireReason(t, got, http.StatusForbidden, "SCOPE_MISSING")
			} else {
				require.NotContains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, got.status, "%s", got.body)
			}
		}
	}
	require.Equal(t, http.StatusOK, f.post(t, "Retrieve", alive1, f.as("ranker")...).status)
	requireReason(t, f.post(t, "Retrieve", alive1, append(f.as("ranker"), PriorityHeader, "soon")...), http.StatusBadRequest, "HEADER_INVALID")
	require.Equal(t, http.StatusOK, f.post(t, "Retrieve", alive1, append(f.as("ranker"), PriorityHeader, "batch")...).status)
}

// walkReleases changes what is released, by the name of a server too, and looks for who has.
func walkReleases(t *testing.T, f *fortress) {
	if f.client != nil {
		t.Skip("the store is the same kind of store")
	}
	list := f.call(t, tandemv1connect.ReleaseServiceListSnapshotsProcedure, strings.NewReader("{}"), f.as("ops")...)
	require.Equal(t, http.StatusOK, list.status, "%s", list.body)
	digest := list.json["snapshots"].([]any)[0].(map[string]any)["snapshot"].(string)
	body := fmt.Sprintf(`{"change": {"generation": 0, "author": "ann", "reason": "the first"}, "snapshot": %q, "override": "nobody ran gates"}`, digest)
	start := func(name string) reply {
		r, err := http.NewRequest(http.MethodPost, f.url+tandemv1connect.ReleaseServiceStartProcedure, strings.NewReader(body))
		require.NoError(t, err)
		r.Host = "tandem.example"
		r.Header.Set("Content-Type", "application/json")
		return f.do(t, r, f.as(name)...)
	}
	requireReason(t, start("ops"), http.StatusForbidden, "SCOPE_MISSING")
	got := start("publisher")
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	require.Contains(t, string(got.body), `"author":"publisher (ann)"`)
}

// walkGRPC asks by gRPC over HTTP/2, streams too.
func walkGRPC(t *testing.T, f *fortress) {
	as := func(name string) connect.ClientOption {
		return connect.WithInterceptors(bearerOf(f.tokens[name]))
	}
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 1}
	_, err := f.client2(connect.WithGRPC(), as("ranker")).Retrieve(t.Context(), connect.NewRequest(ask))
	require.NoError(t, err)
	_, err = f.client2(connect.WithGRPC()).Retrieve(t.Context(), connect.NewRequest(ask))
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
	_, err = f.client2(connect.WithGRPC(), as("writer")).Retrieve(t.Context(), connect.NewRequest(ask))
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	for name, code := range map[string]connect.Code{"": connect.CodeUnauthenticated, "ranker": connect.CodePermissionDenied, "writer": 0} {
		stream := f.liveClient(connect.WithGRPC(), as(name)).Import(t.Context())
		err := stream.Send(&tandemv1.ImportRequest{Events: []*tandemv1.LiveEvent{takedown("a1")}})
		_, closeErr := stream.CloseAndReceive()
		if code == 0 {
			require.NoError(t, err)
			require.NoError(t, closeErr)
		} else {
			require.Equal(t, code, connect.CodeOf(closeErr), name)
		}
	}
}

func (f *fortress) client2(options ...connect.ClientOption) tandemv1connect.RetrievalServiceClient {
	return f.process.client(options...)
}

// bearerOf adds a token to requests.
type bearerOf string

func (b bearerOf) set(header http.Header) {
	if b != "" {
		header.Set("Authorization", "Bearer "+string(b))
	}
}

func (b bearerOf) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		b.set(r.Header())
		return next(ctx, r)
	}
}

func (b bearerOf) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		c := next(ctx, spec)
		b.set(c.RequestHeader())
		return c
	}
}

func (b bearerOf) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func walkCertificates(t *testing.T, f *fortress) {
	if f.client == nil {
		t.Skip("the connections are in clear text")
	}
	for name, c := range map[string]struct {
		by      *certtest.Authority
		expires time.Duration
	}{"expired": {f.authority, -time.Hour}, "of a stranger": {certtest.New(t, "other"), time.Hour}} {
		pair := c.by.Pair(t, "ranker", time.Now().Add(c.expires))
		http1, _ := clientsOf(t, &tls.Config{RootCAs: f.authority.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }})
		if response, err := http1.Get(f.url + "/healthz"); err == nil {
			_ = response.Body.Close()
			t.Errorf("a certificate that is %s is taken", name)
		}
	}
	http1, _ := clientsOf(t, &tls.Config{RootCAs: f.authority.Pool()})
	without := &fortress{process: &process{site: &site{f.url, http1, nil}}}
	require.Equal(t, "ready\n", string(without.get(t, "/readyz").body), "probes have no certificate")
	requireReason(t, without.call(t, retrievePath, strings.NewReader(alive1), f.as("ranker")...), http.StatusUnauthorized, "CERTIFICATE_INVALID")
}

func walkQuota(t *testing.T, f *fortress) {
	shed := func() float64 {
		got := f.forAdmin(f.http1).get(t, "/metrics", f.as("writer")...)
		return scraped(t, bytes.NewReader(got.body)).sum("tandem_shed_requests_total", `reason="quota_cpu"`)
	}
	status := func() *tandemv1.GetStatusResponse { return f.status(t, f.as("writer")...) }
	before := shed()
	require.Equal(t, strings.HasPrefix(f.url, "https:"), status().Secrets.CertificateUntil != nil)
	require.Equal(t, http.StatusOK, f.post(t, "Retrieve", alive1, f.as("small")...).status, "what a caller has not taken it may take at once")
	got := f.post(t, "Retrieve", alive1, f.as("small")...)
	requireReason(t, got, http.StatusTooManyRequests, "QUOTA_EXCEEDED")
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Contains(t, string(got.body), "RetryInfo")
	require.Equal(t, http.StatusOK, f.post(t, "Retrieve", alive1, f.as("ranker")...).status, "others go on")
	require.Equal(t, before+1, shed())
	wait(t, func() bool {
		now := status().Load.LastMinute
		return now.RefusedForQuota == 1 && now.Refused > 0
	})
}

// forAdmin returns the listener for those who operate the server, as a client has it.
func (f *fortress) forAdmin(client *http.Client) *site {
	scheme, _, _ := strings.Cut(f.url, ":")
	return &site{scheme + "://" + f.admin.String(), client, nil}
}

// walkAdmin asks the listener for those who operate the server. By TLS, metrics have a scope.
func walkAdmin(t *testing.T, f *fortress) {
	admin := f.forAdmin(f.http1)
	for path, text := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n", "/startupz": "started\n"} {
		got := admin.get(t, path)
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, text, string(got.body))
	}
	for _, c := range []struct {
		caller             string
		profiles, measured int // what they get, where metrics have a scope
	}{
		{"", 401, 401}, {"former", 401, 401}, {"ranker", 403, 403}, {"writer", 403, 200}, {"ops", 200, 403},
	} {
		var header []string
		if c.caller != "" {
			header = f.as(c.caller)
		}
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline"} {
			got := admin.get(t, path, header...)
			require.Equal(t, c.profiles, got.status, "%s of %q: %s", path, c.caller, got.body)
			require.Equal(t, c.profiles == 401, got.header.Get("Www-Authenticate") == "Bearer")
		}
		read := http.StatusOK
		if c.profiles == http.StatusUnauthorized {
			read = c.profiles
		}
		require.Equal(t, read, admin.get(t, "/docs/gates", header...).status, c.caller)
		want := c.measured
		if f.client == nil {
			want = http.StatusOK
		}
		require.Equal(t, want, admin.get(t, "/metrics", header...).status, c.caller)
	}
	refused := func(code string) float64 {
		got := admin.get(t, "/metrics", f.as("writer")...)
		return scraped(t, bytes.NewReader(got.body)).sum("tandem_admin_refused_total", `code="`+code+`"`)
	}
	scrapes := 0.0 // they are asked for by as many, who are refused by TLS alone
	if f.client != nil {
		scrapes = 2
	}
	require.Equal(t, 6+2+scrapes, refused("unauthenticated"))
	require.Equal(t, 6+scrapes, refused("permission_denied"))

	// A browser reads the documentation once somebody has signed in at the console.
	signedIn, err := f.http1.Post(admin.url+"/console/session", "application/json", strings.NewReader(fmt.Sprintf(`{"token": %q}`, f.tokens["ranker"])))
	require.NoError(t, err)
	require.NoError(t, signedIn.Body.Close())
	require.Equal(t, http.StatusOK, signedIn.StatusCode)
	var cookies []string
	for _, c := range signedIn.Cookies() {
		cookies = append(cookies, "Cookie", c.Name+"="+c.Value)
	}
	require.Len(t, cookies, 4)
	require.Equal(t, http.StatusOK, admin.get(t, "/docs/gates", cookies[2:]...).status)
	require.Equal(t, http.StatusUnauthorized, admin.get(t, "/docs/gates", cookies[:2]...).status)
	require.Equal(t, http.StatusUnauthorized, admin.get(t, "/debug/pprof/", cookies[2:]...).status)
	if f.client == nil {
		return
	}
	validity := scraped(t, bytes.NewReader(admin.get(t, "/metrics", f.as("writer")...).body))
	until, issued := validity.sum("tandem_certificate_expiry_timestamp_seconds"), validity.sum("tandem_certificate_issued_timestamp_seconds")
	require.Greater(t, until, float64(time.Now().Unix()))
	require.Less(t, issued, until)
	http1, http2 := clientsOf(t, &tls.Config{RootCAs: f.authority.Pool()})
	strange := f.forAdmin(http1)
	require.Equal(t, http.StatusOK, strange.get(t, "/readyz").status, "probes have no certificate")
	for path, caller := range map[string]string{"/debug/pprof/heap": "ops", "/metrics": "writer"} {
		got := strange.get(t, path, f.as(caller)...)
		require.Equal(t, http.StatusUnauthorized, got.status)
		require.Contains(t, string(got.body), "without a client certificate")
	}
	if response, err := http2.Get(admin.url + "/readyz"); err == nil {
		_ = response.Body.Close()
		t.Error("the admin listener speaks HTTP/2")
	}
	require.Equal(t, http.StatusBadRequest, newSite(t, f.admin).get(t, "/metrics").status, "in clear text")
}

// walkBodies sends too much, and what becomes too much.
func walkBodies(t *testing.T, f *fortress) {
	large := bytes.Repeat([]byte(" "), 2<<20)
	requireReason(t, f.call(t, retrievePath, bytes.NewReader(large), f.as("ranker")...), http.StatusBadRequest, "MESSAGE_TOO_LARGE")
	requireReason(t, f.call(t, retrievePath, io.MultiReader(bytes.NewReader(large)), f.as("ranker")...), http.StatusBadRequest, "MESSAGE_TOO_LARGE")
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for range 256 {
		_, err := zip.Write(large[:1<<20])
		require.NoError(t, err)
	}
	require.NoError(t, zip.Close())
	require.Less(t, bomb.Len(), 1<<20)
	requireReason(t, f.call(t, retrievePath, &bomb, append(f.as("ranker"), "Content-Encoding", "gzip")...), http.StatusBadRequest, "MESSAGE_TOO_LARGE")
	requireReason(t, f.call(t, retrievePath, bytes.NewReader(large)), http.StatusUnauthorized, "TOKEN_MISSING")
}

// walkMalformed sends frames of HTTP/2 that are none.
func walkMalformed(t *testing.T, f *fortress) {
	for name, frame := range map[string][]byte{
		"a header on no stream": {0, 0, 1, 1, 4, 0, 0, 0, 0, 0x82},
		"too long":              {0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1},
		"no headers":            {0, 0, 3, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff},
	} {
		c := f.dial(t, "h2")
		_, err := c.Write(append([]byte(prefaceText+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), frame...))
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, c)
		if err != nil {
			require.NotContains(t, err.Error(), "timeout", name)
		}
	}
	require.Equal(t, http.StatusOK, f.post(t, "Retrieve", alive1, f.as("ranker")...).status)
}

// walkSlowWriter sends half of a request.
func walkSlowWriter(t *testing.T, f *fortress) {
	c := f.dial(t, "http/1.1")
	_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", retrievePath, f.tokens["ranker"])
	require.NoError(t, err)
	answer, _ := io.ReadAll(c) // it has a deadline itself
	require.Contains(t, string(answer), "DEADLINE_EXCEEDED")
}

// walkSlowReader takes nothing of long answers, until others need the memory.
func walkSlowReader(t *testing.T, f *fortress) {
	c := f.dial(t, "h2")
	_, err := io.WriteString(c, prefaceText)
	require.NoError(t, err)
	framer := http2.NewFramer(c, c)
	require.NoError(t, framer.WriteSettings())
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	item := `{"userId": "u1", "k": 60, "attributes": ["*"], "recallTarget": 1}`
	batch := []byte(`{"requests": [` + strings.Repeat(item+",", 99) + item + `]}`)
	for stream := uint32(1); stream <= 3; stream += 2 { // they hold all the memory there is
		header.Reset()
		for _, field := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: batchPath},
			{Name: "content-type", Value: "application/json"}, {Name: "authorization", Value: "Bearer " + f.tokens["ranker"]},
		} {
			require.NoError(t, encoder.WriteField(field))
		}
		require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: header.Bytes(), EndHeaders: true}))
		require.NoError(t, framer.WriteData(stream, true, batch))
		for answered := false; !answered; {
			frame, err := framer.ReadFrame()
			require.NoError(t, err)
			headers, ok := frame.(*http2.HeadersFrame)
			answered = ok && headers.StreamID == stream
			require.False(t, answered && headers.StreamEnded(), "it has a body")
		}
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		for {
			frame, err := framer.ReadFrame()
			if _, reset := frame.(*http2.RSTStreamFrame); reset || err != nil {
				return
			}
		}
	}()
	require.Eventually(t, func() bool {
		return f.call(t, batchPath, bytes.NewReader(batch), f.as("ranker")...).status == http.StatusOK
	}, 2*time.Minute, 50*time.Millisecond, "others are answered")
	select {
	case <-cut:
	case <-time.After(time.Minute):
		require.Fail(t, "whoever takes nothing is not cut off")
	}
}

const batchPath = tandemv1connect.RetrievalServiceBatchRetrieveProcedure

// walkSecrets has requests fail that ask with what the log must not have.
func walkSecrets(t *testing.T, f *fortress) {
	good := f.post(t, "Retrieve", `{"userId": "u1", "k": 1, "filter": "developer == user.d || developer == 'very-secret'", "bindings": {"d": "very-secret"}, "excludeIds": ["very-secret"], "explainIds": ["very-secret"]}`, f.as("ranker")...)
	require.Equal(t, http.StatusOK, good.status, "%s", good.body)
	for _, body := range []string{
		`{"userId": "user-very-secret", "k": 1}`,
		`{"appId": "app-very-secret", "k": 1}`,
		`{"userId": "u1", "k": 1, "filter": "developer == user.d", "bindings": {"d": {"int": 718281828}, "very-secret": {"keyword": "very-secret"}}}`,
		`{"userId": "u1", "k": 1, "filter": "developer == 'very-secret"}`,
		`{"vector": [0.7182818, 1], "k": 1}`,
		`{"vector": [0.7182818, 1, 2, "very-secret"], "k": 1}`,
		`{"userId": "u1", "k": 1, "excludeIds": ["very-secret", ""]}`,
		`{"userId": "very-secret`,
		`{"very-secret": 1}`,
		`{"userId": "u1", "k": 1, "segment": "very-secret"}`,
		`{"userId": "u1", "k": 1, "pageToken": "very-secret"}`,
		`{"userId": "u1", "k": 1, "modelVersion": "very-secret"}`,
		`{"userId": "` + strings.Repeat("very-secret", 100) + `", "k": 1}`,
	} {
		got := f.post(t, "Retrieve", body, f.as("ranker")...)
		require.NotEqual(t, http.StatusOK, got.status, body)
		require.Less(t, got.status, 500, body)
	}
	f.call(t, tandemv1connect.RetrievalServiceBatchRetrieveProcedure, strings.NewReader(`{"requests": [{"userId": "user-very-secret", "k": 1}]}`), f.as("ranker")...)
	f.call(t, tandemv1connect.RetrievalServiceGetEmbeddingsProcedure, strings.NewReader(`{"ids": ["very-secret"]}`), f.as("ranker")...)
	f.call(t, tandemv1connect.LiveServiceWriteProcedure, strings.NewReader(`{"events": [{"forgetUser": {"user": "very-secret", "reason": 1}}]}`), f.as("writer")...)
	f.get(t, retrievePath+"?encoding=json&connect=v1&message=%7B%22userId%22%3A%22very-secret%22%7D", f.as("ranker")...)
}

// TestAuthorIsTheCaller: what a request says of who writes is no proof, the token is.
func TestAuthorIsTheCaller(t *testing.T) {
	f := newFortress(t, false)
	for said, want := range map[string]string{"": "writer", "ann": "writer (ann)", strings.Repeat("b", 256): "writer (" + strings.Repeat("b", 248)} {
		body := fmt.Sprintf(`{"author": %q, "events": [{"takedown": {"app": "a1", "reason": "spam"}}]}`, said)
		wrote := f.call(t, tandemv1connect.LiveServiceWriteProcedure, strings.NewReader(body), f.as("writer")...)
		require.Equal(t, http.StatusOK, wrote.status, "%s", wrote.body)
		got := f.call(t, tandemv1connect.LiveServiceProveProcedure, strings.NewReader(`{"apps": ["a1"]}`), f.as("writer")...)
		require.Equal(t, http.StatusOK, got.status, "%s", got.body)
		require.Contains(t, string(got.body), fmt.Sprintf(`"author":%q`, want))
	}
}

// status asks a server how it is.
func (s *site) status(t *testing.T, header ...string) *tandemv1.GetStatusResponse {
	r := connect.NewRequest(&tandemv1.GetStatusRequest{})
	for i := 0; i < len(header); i += 2 {
		r.Header().Set(header[i], header[i+1])
	}
	answer, err := tandemv1connect.NewAdminServiceClient(s.http1, s.url).GetStatus(t.Context(), r)
	require.NoError(t, err)
	return answer.Msg
}

// TestTokensAreRotated replaces the file of a server that runs, by a good one, bad ones, and
// another good one.
func TestTokensAreRotated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	secret := func(name string) string {
		s := auth.NewSecret()
		require.NoError(t, auth.Append(file, auth.Token{Name: name, Hash: auth.HashOf(s), Scopes: auth.Query | auth.Admin}))
		return s
	}
	first, reread := secret("ranker"), make(chan os.Signal)
	guard, err := auth.Open(auth.Options{TokenFile: file})
	require.NoError(t, err)
	counts := metrics.New()
	p := start(t, smallTowers(index.Dot).named(t, Config{Reread: reread, Options: Options{Guard: guard}, Metrics: counts}))
	rereads := func() []float64 {
		all := scrape(t, counts)
		return []float64{
			all.sum("tandem_secrets_rereads_total", `files="tokens"`, `outcome="used"`), all.sum("tandem_secrets_rereads_total", `files="tokens"`, `outcome="failed"`),
			all.sum("tandem_secrets_stale", `files="tokens"`),
		}
	}
	status := func(token string) int {
		return p.post(t, "Retrieve", alive1, "Authorization", "Bearer "+token).status
	}
	second := secret("ranker")
	require.Equal(t, http.StatusUnauthorized, status(second))
	reread <- syscall.SIGHUP
	p.await("changed files are in use")
	require.Equal(t, []int{http.StatusOK, http.StatusOK}, []int{status(first), status(second)})
	wait(t, func() bool { return slices.Equal([]float64{1, 0, 0}, rereads()) })

	require.NoError(t, os.WriteFile(file, []byte("- name: ranker"), 0o600))
	reread <- syscall.SIGHUP
	p.await("CHANGED FILES CANNOT BE USED: what was read before stays in use")
	wait(t, func() bool { return slices.Equal([]float64{1, 1, 1}, rereads()) })
	require.Equal(t, []int{http.StatusOK, http.StatusOK}, []int{status(first), status(second)})
	require.Equal(t, []string{"tokens"}, p.status(t, "Authorization", "Bearer "+first).Secrets.Stale)

	// A pipe to which nobody writes holds nothing up, and an empty file locks nobody out.
	require.NoError(t, os.Remove(file))
	require.NoError(t, syscall.Mkfifo(file, 0o600))
	reread <- syscall.SIGHUP
	p.await("CHANGED FILES CANNOT BE USED: what was read before stays in use")
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	reread <- syscall.SIGHUP
	p.await("CHANGED FILES CANNOT BE USED: what was read before stays in use")
	wait(t, func() bool { return slices.Equal([]float64{1, 3, 1}, rereads()) })
	require.Equal(t, []int{http.StatusOK, http.StatusOK}, []int{status(first), status(second)})

	require.NoError(t, os.Remove(file))
	third := secret("ranker")
	reread <- syscall.SIGHUP
	p.await("changed files are in use")
	require.Equal(t, []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusOK}, []int{status(first), status(second), status(third)})
	wait(t, func() bool { return len(p.status(t, "Authorization", "Bearer "+third).Secrets.Stale) == 0 })
	p.stop()
	require.NoError(t, <-p.done)
}
