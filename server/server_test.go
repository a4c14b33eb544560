package server

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// messages is a log handler that passes on the messages.
type messages chan string

func (e messages) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (e messages) Handle(_ context.Context, r slog.Record) error {
	e <- r.Message
	return nil
}
func (e messages) WithAttrs([]slog.Attr) slog.Handler { return e }
func (e messages) WithGroup(string) slog.Handler      { return e }

// process is a Run in the background.
type process struct {
	*site
	addr   net.Addr
	stop   context.CancelFunc
	done   chan error
	events messages
}

// start runs a server and returns once it is ready. Its events are told unless c has a
// logger.
func start(t *testing.T, c Config) *process {
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{stop: cancel, done: make(chan error, 1), events: make(messages, 100)}
	ready := make(chan struct{})
	c.Listen = "127.0.0.1:0"
	c.Options.MaxDeadline = cmp.Or(c.Options.MaxDeadline, patientDeadline)
	if c.Logger == nil {
		c.Logger = slog.New(p.events)
	}
	c.Listening = func(a net.Addr) { p.addr = a }
	c.Ready = func(Snapshot) { close(ready) }
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.done <- Run(ctx, c)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended // a store's folder that is removed must have no writer
	})
	select {
	case <-ready:
	case err := <-p.done:
		t.Fatal(err)
	}
	p.site = newSite(t, p.addr)
	return p
}

// await waits for a log message.
func (p *process) await(message string) {
	for <-p.events != message {
	}
}

// hold begins a request and returns when the server works on it. The caller sends
// the rest, which is body.
func hold(t *testing.T, addr net.Addr, body string) net.Conn {
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /tandem.v1.RetrievalService/Retrieve HTTP/1.1\r\nHost: x\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(body))
	require.NoError(t, err)
	line, err := readLine(conn)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue", line)
	line, err = readLine(conn)
	require.NoError(t, err)
	require.Empty(t, line)
	return conn
}

// readLine reads no byte beyond the line.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line[:max(len(line)-1, 0)]), nil
		}
		line = append(line, b[0])
	}
}

const heldRequest = `{"userId": "u1", "k": 3}`

func TestRunReadiness(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	log := make(messages, 100)
	var s *site
	var health *grpchealth.Client
	status := func() grpchealth.Status {
		r, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: tandemv1connect.RetrievalServiceName})
		require.NoError(t, err)
		return r.Status
	}
	err := Run(ctx, smallTowers(index.Dot).named(t, Config{
		Listen: "127.0.0.1:0", Logger: slog.New(log),
		Listening: func(a net.Addr) { // nothing is loaded before this returns
			s = newSite(t, a)
			health = grpchealth.NewClient(s.http2, s.url, connect.WithGRPC())
			require.Equal(t, http.StatusOK, s.get(t, "/healthz").status)
			got := s.get(t, "/readyz")
			require.Equal(t, http.StatusServiceUnavailable, got.status)
			require.Equal(t, "loading\n", string(got.body))
			require.Equal(t, grpchealth.StatusNotServing, status())
			_, err := s.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
			requireError(t, err, connect.CodeUnavailable, "no snapshot is loaded yet")
		},
		Ready: func(snapshot Snapshot) {
			require.Equal(t, http.StatusOK, s.get(t, "/readyz").status)
			require.Equal(t, grpchealth.StatusServing, status())
			got, err := s.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
			require.NoError(t, err)
			require.Equal(t, string(snapshot.Digest()), got.Msg.Snapshot)
			stop()
		},
	}))
	require.NoError(t, err)
	require.Equal(t, "listening", <-log)
	require.Equal(t, "request failed", <-log)
	require.Equal(t, "memory limit", <-log)
	require.Equal(t, "live log is read, and is empty", <-log)
	require.Regexp(t, "^SERVING A SNAPSHOT WHATEVER IS RELEASED: ", <-log)
	require.Equal(t, "ready", <-log)
	require.Equal(t, "draining", <-log)
	_, err = net.Dial("tcp", s.url[len("http://"):])
	require.Error(t, err, "nobody listens")
}

func TestRunDrains(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{}))
	watching, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := grpchealth.NewClient(p.http2, p.url, connect.WithGRPC()).Watch(watching, &grpchealth.CheckRequest{})
	require.Equal(t, grpchealth.StatusServing, (<-watch).Response.Status)
	conn := hold(t, p.addr, heldRequest)
	p.stop()
	p.await("draining")
	event := <-watch
	require.NoError(t, event.Err)
	require.Equal(t, grpchealth.StatusNotServing, event.Response.Status)
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf((<-watch).Err), "the watch ends")
	_, err := io.WriteString(conn, heldRequest)
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.NoError(t, <-p.done)
}

// TestRunBoundsWatchesOfConnections: one connection has a few health watches, and others have
// theirs.
func TestRunBoundsWatchesOfConnections(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{}))
	watching, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func(s *site) <-chan grpchealth.WatchEvent {
		return grpchealth.NewClient(s.http2, s.url, connect.WithGRPC()).Watch(watching, &grpchealth.CheckRequest{})
	}
	for range watchesEach {
		require.Equal(t, grpchealth.StatusServing, (<-watch(p.site)).Response.Status)
	}
	requireError(t, (<-watch(p.site)).Err, connect.CodeResourceExhausted,
		"4 health watches are open on the connection, as many as are accepted on one; retry in 1s")
	require.Equal(t, grpchealth.StatusServing, (<-watch(newSite(t, p.addr))).Response.Status)
	p.stop()
	require.NoError(t, <-p.done)
}

// TestRunReflectsWhileItDrains: reflection answers for as long as queries are, and holds up
// no shutdown.
func TestRunReflectsWhileItDrains(t *testing.T) {
	t.Parallel() // it waits
	p := start(t, smallTowers(index.Dot).named(t, Config{DrainDelay: longDelay}))
	client := grpcreflect.NewClient(p.http2, p.url, connect.WithGRPC())
	stream := client.NewStream(t.Context())
	_, err := stream.ListServices()
	require.NoError(t, err)
	p.stop()
	p.await("draining")
	_, err = stream.ListServices()
	require.NoError(t, err)
	another := client.NewStream(t.Context())
	names, err := another.ListServices()
	require.NoError(t, err)
	require.Len(t, names, 6)
	require.NoError(t, <-p.done)
	_, err = stream.ListServices()
	require.Error(t, err)
	_, _ = stream.Close()
	_, _ = another.Close()
}

func TestRunCutsOff(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{DrainTimeout: time.Millisecond}))
	conn := hold(t, p.addr, heldRequest)
	p.stop()
	require.EqualError(t, <-p.done, "drain: requests in flight were cut off after 1ms")
	_, err := readLine(conn)
	require.Error(t, err)
}

func TestRunFails(t *testing.T) {
	store := smallTowers(index.Dot).publish(t)
	digest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	m, err := store.Manifest(t.Context(), digest)
	require.NoError(t, err)
	run := func(ctx context.Context, c Config) error {
		c.Logger = slog.New(slog.DiscardHandler)
		if c.Listen == "" {
			c.Listen = "127.0.0.1:0"
		}
		return Run(ctx, c)
	}
	err = run(t.Context(), Config{Store: store, Snapshot: "ffff"})
	require.ErrorIs(t, err, snapshots.ErrNoSnapshot)
	require.ErrorContains(t, err, `load snapshot: store `)

	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, run(stopped, Config{Store: store, Snapshot: string(digest)}), "stopped while it loads")

	err = run(t.Context(), Config{Store: store})
	require.ErrorIs(t, err, release.ErrNone)
	require.EqualError(t, err, "read releases: nothing was released yet", "nothing is served that nobody has released")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	require.ErrorContains(t, run(t.Context(), Config{Store: store, Listen: l.Addr().String()}), "serve: listen tcp")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	require.ErrorContains(t, run(t.Context(), Config{Store: store, Snapshot: string(digest), Listener: closed}), "serve: accept tcp")

	path := store.ShardPath(m.Apps.Shards[1].Digest)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[sections.PageSize+3] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
	err = run(t.Context(), Config{Store: store, Snapshot: string(digest)})
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "section ")
}

func TestOverload(t *testing.T) {
	service := smallTowers(index.Dot).loaded(t)
	s, l := serveLimited(t, service, Options{MaxInFlight: 1})
	k := cost{work: time.Microsecond}
	require.NoError(t, l.work.enter(&k))
	const text = "1 requests are in flight, as many as are accepted; retry in 1s"
	got := s.post(t, "Retrieve", heldRequest)
	require.Equal(t, http.StatusTooManyRequests, got.status)
	require.Equal(t, "1", got.header.Get("Retry-After"))
	require.Equal(t, "resource_exhausted", got.json["code"])
	require.Equal(t, text, got.json["message"])
	require.Len(t, got.header.Get(RequestIDHeader), 32)
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithHTTPGet()} {
		_, err := s.client(option).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
		requireError(t, err, connect.CodeResourceExhausted, text)
		var coded *connect.Error
		require.ErrorAs(t, err, &coded)
		detail, err := coded.Details()[0].Value()
		require.NoError(t, err)
		require.Equal(t, retryAfter, detail.(*errdetails.RetryInfo).RetryDelay.AsDuration())
	}
	_, err := s.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{{UserId: "u1", K: 1}}}))
	requireError(t, err, connect.CodeResourceExhausted, text)
	_, err = s.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a1"}}))
	requireError(t, err, connect.CodeResourceExhausted, text)
	require.Equal(t, http.StatusOK, s.get(t, "/readyz").status, "health has no limit")

	l.work.leave(&k)
	require.Equal(t, http.StatusOK, s.post(t, "Retrieve", heldRequest).status)
}

func TestUnknownHealthService(t *testing.T) {
	s := serve(t, NewService(slog.New(slog.DiscardHandler)), Options{})
	health := grpchealth.NewClient(s.http1, s.url)
	_, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: "x"})
	requireError(t, err, connect.CodeNotFound, `service "x" is unknown; known: "tandem.v1.RetrievalService" and ""`)
	got, err := health.Check(t.Context(), &grpchealth.CheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpchealth.StatusNotServing, got.Status)
}

// TestDeadline sends a deadline that no request can meet.
func TestDeadline(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	got := s.post(t, "Retrieve", heldRequest, "Connect-Timeout-Ms", "0")
	require.Equal(t, "deadline_exceeded", got.json["code"])
	require.Equal(t, "the deadline passed before there was an answer", got.json["message"])
}

// What is served without a release is not collected until the server ends.
func TestServedSnapshotIsKept(t *testing.T) {
	c := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 4, 60, 10, 2).named(t, Config{})
	store, d := c.Store, manifest.Digest(c.Snapshot)
	p := start(t, c)
	_, err := store.Collect(t.Context(), snapshots.CollectOptions{Unreleased: true})
	require.NoError(t, err)
	require.NoError(t, snapshots.Verify(t.Context(), store, d, func(string) {}))
	p.stop()
	require.NoError(t, <-p.done)
	done, err := store.Collect(t.Context(), snapshots.CollectOptions{Unreleased: true})
	require.NoError(t, err)
	assert.Equal(t, []manifest.Digest{d}, done.Snapshots)
}

// A server that was told what to serve says so, and no release takes its place.
func TestServesWhateverIsReleased(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{})
	p := start(t, c)
	admin := tandemv1connect.NewAdminServiceClient(p.http2, p.url)
	status := func() *tandemv1.GetStatusResponse {
		answer, err := admin.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
		require.NoError(t, err)
		return answer.Msg
	}
	s := status()
	require.True(t, s.Unreleased)
	require.Equal(t, c.Snapshot, s.Arms[0].Snapshot)
	recordGates(t, c.Store, manifest.Digest(c.Snapshot))
	_, err := release.New(c.Store).Start(t.Context(), release.StartOptions{Snapshot: manifest.Digest(c.Snapshot)})
	require.NoError(t, err)
	require.True(t, status().Unreleased)
	p.stop()
	require.NoError(t, <-p.done)

	p = start(t, Config{Store: c.Store})
	admin = tandemv1connect.NewAdminServiceClient(p.http2, p.url)
	require.False(t, status().Unreleased)
	require.EqualValues(t, 1, status().Generation)
}
