package members_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/members"
)

// pipes is a listener whose connections do not leave the process, nor a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	made []*deaf
}

// deaf is a connection whose other side may have gone without a word: what is written is lost,
// and nothing comes.
type deaf struct {
	net.Conn
	is     atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (d *deaf) Write(p []byte) (int, error) {
	if d.is.Load() {
		return len(p), nil
	}
	return d.Conn.Write(p)
}

func (d *deaf) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if d.is.Load() {
		<-d.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (d *deaf) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

// deafen has the other sides of all connections be gone.
func (p *pipes) deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.made {
		d.is.Store(true)
	}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		d := &deaf{Conn: ours, closed: make(chan struct{})}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.made = append(p.made, d)
		return d, nil
	case <-p.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// endpoints is the API of Kubernetes, as far as it has EndpointSlices. As the real one it knows
// what has happened since a version for a while only, and sends bookmarks.
type endpoints struct {
	t      *testing.T
	server *httptest.Server
	pipes  *pipes
	folder string // of the service account

	mu       sync.Mutex
	token    string
	version  int
	oldest   int // the first version whose changes are known
	slices   map[string]map[string]any
	log      []change
	changed  chan struct{}
	fault    func(w http.ResponseWriter, r *http.Request) bool // answers instead
	lists    int
	watches  int
	requests []string // what was wrong with them
}

type change struct {
	version int
	kind    string
	object  map[string]any
}

// inKube runs a test in a bubble, with an API and a source that watches it.
func inKube(t *testing.T, test func(t *testing.T, api *endpoints, w *watcher)) {
	inKubeBy(t, true, test)
}

// inKubeBy does so with an API that does or does not speak HTTP/2.
func inKubeBy(t *testing.T, http2 bool, test func(t *testing.T, api *endpoints, w *watcher)) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		api := &endpoints{t: t, pipes: newPipes(), folder: folder, token: "secret", version: 100, slices: map[string]map[string]any{}, changed: make(chan struct{})}
		api.server = httptest.NewUnstartedServer(api)
		_ = api.server.Listener.Close()
		api.server.Listener, api.server.EnableHTTP2 = api.pipes, http2
		api.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
		api.server.StartTLS()
		defer api.server.Close()
		api.account("secret", nil)
		s, err := members.Parse("k8s:///ns/shards", members.Cluster{Host: "127.0.0.1", Port: "443", Folder: folder})
		require.NoError(t, err)
		members.SetDial(s, api.pipes.dial)
		w := watch(t, s)
		defer w.stop()
		test(t, api, w)
		api.mu.Lock()
		defer api.mu.Unlock()
		require.Empty(t, api.requests)
	})
}

// account writes the files of the service account; the authority of the API if ca is nil.
func (e *endpoints) account(token string, ca []byte) {
	if ca == nil {
		ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.server.Certificate().Raw})
	}
	for name, data := range map[string][]byte{"token": []byte(token + "\n"), "ca.crt": ca} {
		path := filepath.Join(e.folder, name)
		require.NoError(e.t, os.WriteFile(path+".new", data, 0o600))
		require.NoError(e.t, os.Rename(path+".new", path))
	}
}

// put sets a slice, or deletes it if it has no fields.
func (e *endpoints) put(name string, fields map[string]any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.version++
	_, known := e.slices[name]
	kind := map[bool]string{false: "ADDED", true: "MODIFIED"}[known]
	if fields == nil {
		if !known {
			return
		}
		kind, fields = "DELETED", e.slices[name]
	}
	object := map[string]any{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1"}
	for k, v := range fields {
		object[k] = v
	}
	object["metadata"] = map[string]any{
		"name": name, "namespace": "ns", "resourceVersion": strconv.Itoa(e.version),
		"labels": map[string]any{"kubernetes.io/service-name": "shards"}, "managedFields": []any{map[string]any{"manager": "x"}},
	}
	if kind == "DELETED" {
		delete(e.slices, name)
	} else {
		e.slices[name] = object
	}
	e.log = append(e.log, change{e.version, kind, object})
	e.wake()
}

// compact forgets what has happened.
func (e *endpoints) compact() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.version++
	e.log, e.oldest = nil, e.version
}

func (e *endpoints) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// cut ends all connections, as they are.
func (e *endpoints) cut() { e.server.CloseClientConnections() }

// breakBy has another answer requests, until it is called with nil; it returns false to have
// them answered as ever. What is under way ends.
func (e *endpoints) breakBy(fault func(w http.ResponseWriter, r *http.Request) bool) {
	e.mu.Lock()
	e.fault = fault
	e.mu.Unlock()
	e.cut()
}

func status(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"code":%d}`, message, code)
}

// ServeHTTP implements [http.Handler].
func (e *endpoints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	e.mu.Lock()
	fault, token := e.fault, e.token
	watching := q.Get("watch") == "true"
	if watching {
		e.watches++
	} else {
		e.lists++
	}
	if r.Method != http.MethodGet || r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices" ||
		q.Get("labelSelector") != "kubernetes.io/service-name=shards" || r.Header.Get("Accept") != "application/json" {
		e.requests = append(e.requests, r.Method+" "+r.URL.String())
	}
	e.mu.Unlock()
	switch {
	case fault != nil && fault(w, r):
	case r.Header.Get("Authorization") != "Bearer "+token:
		status(w, http.StatusUnauthorized, "Unauthorized")
	case watching:
		e.watch(w, r)
	default:
		e.list(w)
	}
}

func (e *endpoints) list(w http.ResponseWriter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	items := []any{}
	for _, s := range e.slices {
		items = append(items, s)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(e.version)},
	})
}

// watch sends changes until its time is over.
func (e *endpoints) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	at, err := strconv.Atoi(q.Get("resourceVersion"))
	seconds, err2 := strconv.Atoi(q.Get("timeoutSeconds"))
	if err != nil || err2 != nil || q.Get("allowWatchBookmarks") != "true" {
		e.mu.Lock()
		e.requests = append(e.requests, r.URL.String())
		e.mu.Unlock()
	}
	over := time.After(time.Duration(seconds) * time.Second)
	marks := time.NewTicker(time.Minute)
	defer marks.Stop()
	_ = http.NewResponseController(w).Flush()
	for {
		e.mu.Lock()
		changed, next, gone := e.changed, []change(nil), at < e.oldest
		for _, c := range e.log {
			if c.version > at {
				next = append(next, c)
			}
		}
		e.mu.Unlock()
		if gone {
			_, _ = w.Write([]byte(`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}` + "\n"))
			return
		}
		for _, c := range next {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": c.kind, "object": c.object})
			at = c.version
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-over:
			return
		case <-r.Context().Done():
			return
		case <-marks.C:
			e.mu.Lock()
			at = e.version
			mark := map[string]any{"kind": "EndpointSlice", "metadata": map[string]any{"resourceVersion": strconv.Itoa(at), "creationTimestamp": nil}, "endpoints": nil, "ports": nil}
			e.mu.Unlock()
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "BOOKMARK", "object": mark})
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// counts returns how often slices were listed and watched.
func (e *endpoints) counts() (lists, watches int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lists, e.watches
}

// pod is an endpoint as the controller of Kubernetes makes it.
func pod(name, ip string, changes ...func(map[string]any)) map[string]any {
	e := map[string]any{
		"addresses":  []any{ip},
		"conditions": map[string]any{"ready": true, "serving": true, "terminating": false},
		"hostname":   name, "nodeName": "machine", "zone": "eu-1a",
		"targetRef": map[string]any{"kind": "Pod", "namespace": "ns", "name": name, "uid": "1"},
	}
	for _, c := range changes {
		c(e)
	}
	return e
}

// with sets a field; nil leaves it out.
func with(field string, value any) func(map[string]any) {
	return func(e map[string]any) {
		if e[field] = value; value == nil {
			delete(e, field)
		}
	}
}

// sliceOf is a slice with the port of the shard RPC.
func sliceOf(pods ...map[string]any) map[string]any {
	return map[string]any{
		"addressType": "IPv4", "endpoints": pods,
		"ports": []any{map[string]any{"name": "metrics", "port": 9090, "protocol": "TCP"}, map[string]any{"name": "shard", "port": 7070, "protocol": "TCP"}},
	}
}
