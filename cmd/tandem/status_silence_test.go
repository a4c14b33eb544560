package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/secure/certtest"
)

// statusOf looks at one server.
func statusOf(t *testing.T, h http.HandlerFunc) *fleetStatus {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return lookAt(t, serverFlags{Server: []string{server.URL}})
}

// lookAt looks at servers.
func lookAt(t *testing.T, flags serverFlags) *fleetStatus {
	c := statusCommand{serverFlags: flags, expectations: expected}
	all, err := c.fleet()
	require.NoError(t, err)
	return c.look(t.Context(), all)
}

// TestSilence has what is at the address of a server tell no status, in several ways: what is
// found, and the exit code, which is that of a server which does not answer only if it does not.
func TestSilence(t *testing.T) {
	says := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	refuses := func(code connect.Code) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = connect.NewErrorWriter().Write(w, r, connect.NewError(code, io.ErrNoProgress))
		}
	}
	for name, c := range map[string]struct {
		server      http.HandlerFunc
		found, next string
		exit        int
	}{
		"no token":        {refuses(connect.CodeUnauthenticated), "StatusRefused", "--token-file", exitFailure},
		"another scope":   {refuses(connect.CodePermissionDenied), "StatusRefused", "another scope, admin, publish or live", exitFailure},
		"a proxy's login": {says(401, "text/html", "who are you?"), "StatusRefused", "--token-file", exitFailure},
		"too much to do":  {refuses(connect.CodeResourceExhausted), "TandemOverloaded", "ask again", exitFailure},
		"it fails":        {refuses(connect.CodeInternal), "TandemErrors", "log", exitFailure},
		"not found":       {says(404, "text/plain", "not here"), "NotTandem", "--listen", exitFailure},
		"not known":       {says(501, "text/plain", "no"), "NotTandem", "--listen", exitFailure},
		"no such method":  {refuses(connect.CodeUnimplemented), "NotTandem", "--listen", exitFailure},
		"a page":          {says(200, "text/html", "<html>"), "NotTandem", "--listen", exitFailure},
		"no protobuf":     {says(200, "application/proto", "<html>"), "NotTandem", "--listen", exitFailure},
		"nothing behind":  {says(502, "text/html", "bad gateway"), "TandemDown", "whether the process runs", exitUnreachable},
		"cut off":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "TandemDown", "ask again; if it cuts every connection off, look whether the process runs", exitUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			now := statusOf(t, c.server)
			require.Len(t, now.Servers[0].Findings, 1)
			require.Equal(t, c.found, now.Servers[0].Findings[0].Alert, now.Servers[0].Error)
			require.Contains(t, now.Servers[0].Findings[0].Next, c.next)
			require.Equal(t, c.exit, report(t.Context(), io.Discard, "tandem status", now.err()))
		})
	}
}

// TestSilenceByTLS has a server with which TLS fails, in several ways.
func TestSilenceByTLS(t *testing.T) {
	authority := certtest.New(t, "one")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, authority.PEM(), 0o600))
	other := filepath.Join(t.TempDir(), "other.pem")
	require.NoError(t, os.WriteFile(other, certtest.New(t, "other").PEM(), 0o600))
	site := func(expires time.Duration, asks tls.ClientAuthType) *tls.Config {
		pair := authority.Pair(t, "server", time.Now().Add(expires))
		// By TLS 1.2, whose handshake ends only once the client's certificate counts.
		return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: asks, ClientCAs: authority.Pool(), MaxVersion: tls.VersionTLS12}
	}
	for name, c := range map[string]struct {
		server      *tls.Config
		scheme, ca  string
		found, next string
	}{
		"another authority":   {site(time.Hour, tls.NoClientCert), "https", other, "TLSFailed", "--tls-ca"},
		"no certificate":      {site(time.Hour, tls.RequireAndVerifyClientCert), "https", ca, "TLSFailed", "--tls-cert"},
		"it has expired":      {site(-time.Minute, tls.NoClientCert), "https", ca, "TandemCertificateExpires", "put a certificate that counts"},
		"it speaks no TLS":    {nil, "https", ca, "TLSFailed", "name it with http://"},
		"it is asked without": {site(time.Hour, tls.NoClientCert), "http", "", "NotTandem", "https:// if it speaks TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			t.Cleanup(server.Close)
			if server.TLS = c.server; c.server != nil {
				server.StartTLS()
			} else {
				server.Start()
			}
			url := c.scheme + "://" + server.Listener.Addr().String()
			now := lookAt(t, serverFlags{Server: []string{url}, clientFlags: clientFlags{TLSCA: c.ca}})
			require.Len(t, now.Servers[0].Findings, 1)
			require.Equal(t, c.found, now.Servers[0].Findings[0].Alert, now.Servers[0].Error)
			require.Contains(t, now.Servers[0].Findings[0].Next, c.next)
			require.Equal(t, exitFailure, report(t.Context(), io.Discard, "tandem status", now.err()))
		})
	}
}

// TestLongErrors has a server say far more of an error than anybody reads.
func TestLongErrors(t *testing.T) {
	now := statusOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", strings.Repeat("x", 100_000))
		_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeInternal, errors.New(strings.Repeat("no", 100_000))))
	})
	require.Equal(t, "TandemErrors", now.Servers[0].Findings[0].Alert)
	require.Less(t, len(now.Servers[0].Error), 3*maxServerText)
	require.Contains(t, now.Servers[0].Error, "internal: nonono")
}

// TestInterruptedStatus is interrupted before a server has answered: nothing is told of it.
func TestInterruptedStatus(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, watch := range []bool{false, true} {
		var out bytes.Buffer
		c := statusCommand{serverFlags: serverFlags{Server: []string{"127.0.0.1:1"}}, expectations: expected, Watch: watch, Every: time.Second}
		require.ErrorIs(t, c.Run(&environment{ctx, &out, &out}), context.Canceled)
		require.Empty(t, out.String())
	}
}

// TestEndlessAnswers has a server whose answers do not end: no more of them is read than
// answers have.
func TestEndlessAnswers(t *testing.T) {
	var sent atomic.Int64
	now := statusOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/proto")
		some := make([]byte, 1<<20)
		for {
			n, err := w.Write(some)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	require.Equal(t, "NotTandem", now.Servers[0].Findings[0].Alert)
	require.Contains(t, now.Servers[0].Error, "larger than configured max")
	const requests, buffered = 2, 32 << 20
	require.Less(t, sent.Load(), int64(requests*(fleet.MaxAnswer+buffered)))
}
