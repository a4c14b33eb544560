package adminhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// start returns the address of a listener.
func start(t *testing.T, o adminhttp.Options) string {
	var addr net.Addr
	o.Listen, o.Listening = "127.0.0.1:0", func(a net.Addr) { addr = a }
	s, err := adminhttp.Start(o, adminhttp.Handlers{Metrics: says("metrics"), Alive: says("alive"), Ready: says("ready"), Started: says("started")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(time.Second)) })
	return addr.String()
}

// get asks for a path by the name of a host, and returns the status and the text.
func get(t *testing.T, addr, host, path string) (int, string) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
	require.NoError(t, err)
	r.Host = host
	response, err := (&http.Client{Transport: transport}).Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

func TestPaths(t *testing.T) {
	addr := start(t, adminhttp.Options{})
	for path, want := range map[string]string{
		"/metrics": "metrics", "/healthz": "alive", "/readyz": "ready", "/startupz": "started",
		"/debug/pprof/": "goroutine", "/debug/pprof/heap?debug=1": "heap profile", "/debug/pprof/cmdline": "test",
		"/debug/pprof/goroutine?debug=2": "goroutine ", "/debug/pprof/symbol": "num_symbols",
		"/docs/": "<h1", "/docs/gates": "<table>", "/docs/gates.md": "# What must", "/docs/llms.txt": "/docs/gates.md",
	} {
		status, text := get(t, addr, "", path)
		require.Equal(t, http.StatusOK, status, path)
		require.Contains(t, text, want, path)
	}
	for _, path := range []string{"/", "/debug/", "/tandem.v1.RetrievalService/Retrieve"} {
		status, _ := get(t, addr, "", path)
		require.Equal(t, http.StatusNotFound, status, path)
	}
}

// TestAddresses holds that what may be reached from elsewhere is protected, or said not to be.
func TestAddresses(t *testing.T) {
	protect := func(next http.Handler) http.Handler { return next }
	for listen, loopback := range map[string]bool{
		"127.0.0.1:6060": true, "127.8.0.1:0": true, "[::1]:6060": true, "localhost:6060": true,
		":6060": false, "0.0.0.0:6060": false, "[::]:6060": false, "10.1.2.3:6060": false, "example.com:6060": false, "localhost.example.com:6060": false,
	} {
		err := (&adminhttp.Options{Listen: listen}).Check()
		if loopback {
			require.NoError(t, err, listen)
		} else {
			require.ErrorContains(t, err, fmt.Sprintf("admin address %q is reached by other machines", listen))
		}
		require.NoError(t, (&adminhttp.Options{Listen: listen, Protect: protect}).Check())
		require.NoError(t, (&adminhttp.Options{Listen: listen, Insecure: true}).Check())
	}
	status, _ := get(t, start(t, adminhttp.Options{Insecure: true}), "evil.example", "/metrics")
	require.Equal(t, http.StatusMisdirectedRequest, status, "it is on loopback all the same")
	require.ErrorContains(t, (&adminhttp.Options{Listen: "6060", Insecure: true}).Check(), `admin address "6060": want HOST:PORT`)
}

// TestOtherNames holds that a web page which has its own name lead here is refused.
func TestOtherNames(t *testing.T) {
	var told atomic.Int32
	addr := start(t, adminhttp.Options{Refused: func(_ *http.Request, caller string, denied *auth.DeniedError) {
		if caller == "" && denied.Denial == auth.OtherHost {
			told.Add(1)
		}
	}})
	for host, want := range map[string]int{
		"localhost:6060": 200, "127.0.0.1": 200, "[::1]:6060": 200, "10.1.2.3:6060": 200,
		"[::1]": 200, "localhost.": 200, "LocalHost.:6060": 200,
		"evil.example": 421, "evil.example:6060": 421, "localhost.evil.example": 421,
	} {
		status, _ := get(t, addr, host, "/metrics")
		require.Equal(t, want, status, host)
	}
	require.EqualValues(t, 3, told.Load(), "each that is refused is told of")
	status, _ := get(t, start(t, adminhttp.Options{Protect: func(next http.Handler) http.Handler { return next }}), "tandem.example", "/metrics")
	require.Equal(t, 200, status, "who may ask is known by something else")
}

// TestProtect holds what is protected: profiles, and metrics if they are said to be. Probes are
// open.
func TestProtect(t *testing.T) {
	deny := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	}
	profiles, both := start(t, adminhttp.Options{Protect: deny}), start(t, adminhttp.Options{Protect: deny, ProtectMetrics: deny})
	for path, want := range map[string][2]int{
		"/debug/pprof/": {403, 403}, "/debug/pprof/heap": {403, 403}, "/debug/pprof/profile?seconds=1": {403, 403},
		"/docs/": {403, 403}, "/docs/gates.md": {403, 403}, "/metrics": {200, 403}, "/healthz": {200, 200}, "/readyz": {200, 200}, "/startupz": {200, 200},
	} {
		for i, addr := range []string{profiles, both} {
			status, _ := get(t, addr, "", path)
			require.Equal(t, want[i], status, path)
		}
	}
	reading := start(t, adminhttp.Options{Protect: deny, ProtectDocs: func(next http.Handler) http.Handler { return next }})
	for path, want := range map[string]int{"/debug/pprof/": 403, "/docs/": 200, "/docs/gates.md": 200} {
		status, _ := get(t, reading, "", path)
		require.Equal(t, want, status, path)
	}
}

// TestProfilesAreBounded asks for profiles that take too long, in each way in which that can be
// said.
func TestProfilesAreBounded(t *testing.T) {
	addr := start(t, adminhttp.Options{})
	for _, path := range []string{"profile", "trace", "heap", "goroutine"} {
		for _, seconds := range []string{"61", "1e9", "-1", "0", "NaN", "x", "9999999999999999999999"} {
			status, text := get(t, addr, "", "/debug/pprof/"+path+"?seconds="+seconds)
			require.Equal(t, http.StatusBadRequest, status)
			require.Equal(t, fmt.Sprintf("seconds is %.20q; accepted: more than 0, up to 60\n", seconds), text)
		}
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).PostForm("http://"+addr+"/debug/pprof/trace", url.Values{"seconds": {"1000"}})
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	status, _ := get(t, addr, "", "/debug/pprof/trace?seconds=0.01")
	require.Equal(t, http.StatusOK, status)
}

// TestHeadersAreBounded sends a header that does not end.
func TestHeadersAreBounded(t *testing.T) {
	addr := start(t, adminhttp.Options{})
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	go func() {
		_, _ = fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: %s", strings.Repeat("x", 1<<20))
	}() // it is cut off
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "431")
}

// TestSilentConnections has many connections that say nothing, or not all of a request, and come
// again whenever they are cut off: a probe is answered all the same.
func TestSilentConnections(t *testing.T) {
	for name, text := range map[string]string{
		"silent":          "",
		"half a header":   "GET /healthz HTTP/1.1\r\nHost: local",
		"without a body":  "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n",
		"idle afterwards": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr := start(t, adminhttp.Options{})
			crowd(t, addr, 256, text)
			for answered, tries := 0, 0; answered < 8; tries++ {
				transport := &http.Transport{DisableKeepAlives: true}
				response, err := (&http.Client{Transport: transport, Timeout: 2 * time.Second}).Get("http://" + addr + "/healthz")
				if err != nil { // a busy machine may need longer than a connection may stay
					require.Less(t, tries, 80, "%v", err)
					continue
				}
				answered++
				require.Equal(t, http.StatusOK, response.StatusCode)
				require.NoError(t, response.Body.Close())
			}
		})
	}
}

// crowd has so many connections open until the test ends, each of which says a text and comes
// again when it is cut off. It returns once all have come.
func crowd(t *testing.T, addr string, n int, text string) {
	ctx, cancel := context.WithCancel(t.Context())
	var running, coming sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	coming.Add(n)
	for range n {
		running.Go(func() {
			come := sync.OnceFunc(coming.Done)
			defer come()
			for ctx.Err() == nil {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					continue
				}
				end := context.AfterFunc(ctx, func() { _ = c.Close() })
				_, _ = io.WriteString(c, text)
				come()
				_, _ = io.Copy(io.Discard, c)
				end()
				_ = c.Close()
			}
		})
	}
	coming.Wait()
}

// TestItEnds holds that it ends in time, whatever is asked of it, and that the address is free
// then.
func TestItEnds(t *testing.T) {
	var addr net.Addr
	s, err := adminhttp.Start(adminhttp.Options{Listen: "127.0.0.1:0", Listening: func(a net.Addr) { addr = a }}, adminhttp.Handlers{
		Metrics: says(""), Alive: says(""), Ready: says(""), Started: says(""),
	})
	require.NoError(t, err)
	c, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	defer c.Close()
	_, err = fmt.Fprint(c, "GET /debug/pprof/heap?seconds=50 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	begun := time.Now()
	require.NoError(t, s.Close(10*time.Millisecond))
	require.Less(t, time.Since(begun), 20*time.Second)
	l, err := net.Listen("tcp", addr.String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
