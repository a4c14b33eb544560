package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/tandem-ann/tandem/api/client"
	"github.com/tandem-ann/tandem/api/client/clienttest"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// towers returns a server in memory of n apps and as many users, on a circle.
func towers(tb testing.TB, n int) *clienttest.Server {
	apps, users := make([]clienttest.Row, n), make([]clienttest.Row, n)
	for i := range n {
		v := []float32{float32(i), float32(n - i)}
		apps[i] = clienttest.Row{ID: fmt.Sprintf("app-%03d", i), Vector: v, Attributes: map[string]any{"price": int64(i), "maker": fmt.Sprint(i % 3)}}
		users[i] = clienttest.Row{ID: fmt.Sprintf("user-%03d", i), Vector: v}
	}
	s, err := clienttest.New(apps, users)
	require.NoError(tb, err)
	s.Filters = map[string]func(clienttest.Row, map[string]any) bool{
		"price < 10": func(app clienttest.Row, _ map[string]any) bool { return app.Attributes["price"].(int64) < 10 },
	}
	return s
}

// node is a listener in front of a server in memory, which breaks requests by what is set.
type node struct {
	*httptest.Server
	mu    sync.Mutex
	fault func(w http.ResponseWriter, r *http.Request) bool // reports whether it has answered
	calls int
}

// listen returns a node; before is called on its server before it starts.
func listen(tb testing.TB, s http.Handler, before ...func(*httptest.Server)) *node {
	n := &node{}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		fault := n.fault
		if r.URL.Path != "/readyz" {
			n.calls++
		}
		n.mu.Unlock()
		// Only then does a server of HTTP/1.1 notice that the client is gone.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if fault == nil || !fault(w, r) {
			s.ServeHTTP(w, r)
		}
	}))
	n.Config.Protocols = new(http.Protocols)
	n.Config.Protocols.SetHTTP1(true)
	n.Config.Protocols.SetHTTP2(true)
	n.Config.Protocols.SetUnencryptedHTTP2(true)
	for _, f := range before {
		f(n.Server)
	}
	if n.TLS == nil {
		n.Start()
	}
	tb.Cleanup(func() {
		n.CloseClientConnections()
		n.Close()
	})
	return n
}

// breaks has the node fail from now on; nil mends it.
func (n *node) breaks(fault func(w http.ResponseWriter, r *http.Request) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

func (n *node) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

// address is HOST:PORT.
func (n *node) address() string { return n.Listener.Addr().String() }

// newClient returns a client that ends with the test.
func newClient(tb testing.TB, from client.Source, options ...client.Option) *client.Client {
	c, err := client.New(from, options...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

func query(user string, k uint32) *tandemv1.RetrieveRequest {
	return &tandemv1.RetrieveRequest{UserId: user, K: k}
}

// inMemory is servers in this process, by their URLs, whose list may change.
type inMemory struct {
	mu   sync.Mutex
	list []client.Server
	err  error
}

func memorySource(n int) *inMemory {
	s := &inMemory{}
	for i := range n {
		s.list = append(s.list, client.Server{URL: fmt.Sprintf("http://127.0.0.%d:1", i+1)})
	}
	return s
}

func (s *inMemory) Servers(context.Context) ([]client.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]client.Server(nil), s.list...), s.err
}

func (s *inMemory) set(list []client.Server, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.err = list, err
}

// sender answers requests by a function, in place of a network.
type sender func(*http.Request) (*http.Response, error)

func (f sender) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// refusedDial is what a port says on which nobody listens.
var refusedDial = &net.OpError{Op: "dial", Net: "tcp", Err: net.ErrClosed}

// handled returns the answer of a handler to a request.
func handled(h http.Handler, r *http.Request) *http.Response {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer.Result()
}

type proto = protobuf.Message
