package remote_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/secure"
	"github.com/tandem-ann/tandem/server/secure/certtest"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// served returns a world with a node that serves it.
func served(t testing.TB, o remote.Options) (*world, *remote.Node) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, o)
	return w, ask(t, serve(t, path, h))
}

// request returns a request that is answered.
func (w *world) request() *shard.Request {
	v := make([]float32, w.dim)
	v[0] = 1
	at := len(w.positions) - 1
	return &shard.Request{Moment: shard.Moment{Position: w.positions[at], Time: clock}, Vectors: [][]float32{v}, K: 5, Target: 1}
}

// search asks a node for a request.
func (w *world) search(ctx context.Context, n *remote.Node, of remote.ShardID, r *shard.Request) error {
	return n.Search(ctx, of, r, remote.NewNames(w.metric), new(shard.Reply))
}

// A node that does not have what is asked, exactly, refuses by name.
func TestRefusals(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	client := shardv1connect.NewShardServiceClient(http.DefaultClient, "http://"+serveBoth(t, path, h))
	good := func() *shardv1.SearchRequest {
		r := w.request()
		return &shardv1.SearchRequest{
			State: &shardv1.ShardState{
				Protocol: remote.Protocol, Snapshot: string(w.digest), Tower: tandemv1.Tower_TOWER_APPS, Number: 1, Of: 2,
				Position: &tandemv1.LivePosition{Log: r.Position.Log, Sequence: r.Position.Sequence}, UnixNanos: clock.UnixNano(),
			},
			Vectors: r.Vectors[0], VectorCount: 1, K: 5, Target: 1,
		}
	}
	_, err := client.Search(t.Context(), connect.NewRequest(good()))
	require.NoError(t, err)
	other := strings.Repeat("0", 64)
	for text, change := range map[string]func(*shardv1.SearchRequest){
		"BAD_QUERY invalid_argument: state is not set":                                        func(m *shardv1.SearchRequest) { m.State = nil },
		"WRONG_PROTOCOL failed_precondition: protocol is 0; accepted: 1 to 1":                 func(m *shardv1.SearchRequest) { m.State.Protocol = 0 },
		"WRONG_PROTOCOL failed_precondition: protocol is 2; accepted: 1 to 1":                 func(m *shardv1.SearchRequest) { m.State.Protocol = 2 },
		"NOT_HELD not_found: apps shard 1 of 2 of snapshot 000000000000 is not held":          func(m *shardv1.SearchRequest) { m.State.Snapshot = other },
		"NOT_HELD not_found: users shard 1 of 2":                                              func(m *shardv1.SearchRequest) { m.State.Tower = tandemv1.Tower_TOWER_USERS },
		"NOT_HELD not_found: apps shard 1 of 3":                                               func(m *shardv1.SearchRequest) { m.State.Of = 3 },
		"BEHIND unavailable: position ":                                                       func(m *shardv1.SearchRequest) { m.State.Position.Sequence = 99 },
		"POSITION_GONE out_of_range: position 9":                                              func(m *shardv1.SearchRequest) { m.State.Position.Sequence, m.State.Position.Log = 9, "" },
		`BAD_QUERY invalid_argument: state.snapshot is "x"; accepted: a digest of a snapshot`: func(m *shardv1.SearchRequest) { m.State.Snapshot = "x" },
		"BAD_QUERY invalid_argument: state.tower is 0; accepted: TOWER_APPS":                  func(m *shardv1.SearchRequest) { m.State.Tower = 0 },
		"BAD_QUERY invalid_argument: state.of is 0; accepted: 1 to 4096":                      func(m *shardv1.SearchRequest) { m.State.Of = 0 },
		"BAD_QUERY invalid_argument: state.number is 2; accepted: 0 to 1":                     func(m *shardv1.SearchRequest) { m.State.Number = 2 },
		"BAD_QUERY invalid_argument: state.position is not set":                               func(m *shardv1.SearchRequest) { m.State.Position = nil },
		"BAD_QUERY invalid_argument: state.position: live log":                                func(m *shardv1.SearchRequest) { m.State.Position.Log = other + "0" },
		"BAD_QUERY invalid_argument: vector_count is 0; accepted: at least 1":                 func(m *shardv1.SearchRequest) { m.VectorCount = 0 },
		"BAD_QUERY invalid_argument: vectors has":                                             func(m *shardv1.SearchRequest) { m.VectorCount = 1 << 31 },
		"BAD_QUERY invalid_argument: k is 0; accepted: 1 to 16777216":                         func(m *shardv1.SearchRequest) { m.K = 0 },
		"BAD_QUERY invalid_argument: target is NaN; accepted: above 0 and at most 1":          func(m *shardv1.SearchRequest) { m.Target = math.NaN() },
		"BAD_QUERY invalid_argument: plan is 9; accepted: 0 to 3":                             func(m *shardv1.SearchRequest) { m.Plan = 9 },
		"BAD_QUERY invalid_argument: floor is NaN":                                            func(m *shardv1.SearchRequest) { m.Floor = proto.Float32(float32(math.NaN())) },
		"BAD_QUERY invalid_argument: filter: line 1, column 1":                                func(m *shardv1.SearchRequest) { m.Filter = &shardv1.Filter{Text: "nothing > 3"} },
		"BAD_QUERY invalid_argument: filter: binding user.x":                                  func(m *shardv1.SearchRequest) { m.Filter = &shardv1.Filter{Text: "year > user.x"} },
		"has no segment \"none\": invalid query":                                              func(m *shardv1.SearchRequest) { m.Segment = "none" },
		"BAD_QUERY invalid_argument: exclude has 2 bytes of text, and lengths of 4294967295": func(m *shardv1.SearchRequest) {
			m.Exclude = &shardv1.Texts{Text: []byte("ab"), Lengths: []uint32{math.MaxUint32}}
		},
		"BAD_QUERY invalid_argument: limited has attribute 4; accepted: those of the schema": func(m *shardv1.SearchRequest) { m.Limited = []uint32{fieldReleased} },
		"BAD_QUERY invalid_argument: full: value 0 is of attribute 2; want one of limited, [1]": func(m *shardv1.SearchRequest) {
			m.Limited = []uint32{fieldFlag}
			m.Full = &shardv1.FieldValues{Fields: []uint32{2}, Numbers: []int64{0}, Texts: &shardv1.Texts{Lengths: []uint32{0}}}
		},
		"BAD_QUERY invalid_argument: taken has ordinal 4000000000; the shard has": func(m *shardv1.SearchRequest) { m.Taken = []uint32{4_000_000_000} },
	} {
		m := good()
		change(m)
		_, err := client.Search(t.Context(), connect.NewRequest(m))
		told, ok := errors.AsType[*connect.Error](err)
		require.True(t, ok, "%s: %v", text, err)
		require.Len(t, told.Details(), 1, text)
		detail, err := told.Details()[0].Value()
		require.NoError(t, err)
		info := detail.(*errdetails.ErrorInfo)
		require.Equal(t, "tandem.shard", info.GetDomain())
		require.Contains(t, info.GetReason()+" "+told.Error(), text)
	}
	require.Zero(t, w.held)
}

// serveBoth serves a handler by HTTP/1.1 too.
func serveBoth(t testing.TB, path string, h http.Handler) string {
	mux := http.NewServeMux()
	mux.Handle(path, h)
	s := httptest.NewServer(mux)
	t.Cleanup(func() { s.Close(); http.DefaultClient.CloseIdleConnections() })
	return s.Listener.Addr().String()
}

// The side of a router tells refusals by their reasons, and errors by the classes of a part.
func TestErrorClasses(t *testing.T) {
	w, n := served(t, remote.Options{})
	of, ctx := w.id(0), t.Context()
	require.NoError(t, w.search(ctx, n, of, w.request()))
	refused := func(err error) *remote.Refusal {
		r, ok := errors.AsType[*remote.Refusal](err)
		require.True(t, ok, "%v", err)
		return r
	}
	r := w.request()
	r.Position.Sequence = 99
	err := w.search(ctx, n, of, r)
	require.Equal(t, remote.Behind, refused(err).Reason)
	require.NotErrorIs(t, err, index.ErrQuery)

	r = w.request()
	r.Vectors = [][]float32{make([]float32, w.dim+1)}
	err = w.search(ctx, n, of, r)
	require.Equal(t, remote.BadQuery, refused(err).Reason)
	require.ErrorIs(t, err, index.ErrQuery)

	for _, r := range []*shard.Request{
		{Moment: shard.Moment{}, Vectors: [][]float32{{1}}, K: 1, Target: 1},
		{Moment: shard.Moment{Time: clock}, Vectors: [][]float32{{1}}, K: 1 << 30, Target: 1},
		{Moment: shard.Moment{Time: clock}, Vectors: [][]float32{{1}, {1, 2}}, K: 1, Target: 1},
		{Moment: shard.Moment{Time: clock}, Vectors: [][]float32{{1}}, K: 1, Target: 1, Taken: []uint32{1 << 31}},
	} {
		require.ErrorIs(t, w.search(ctx, n, of, r), index.ErrQuery)
	}

	fault := &shard.UnreadableError{Shard: "apps-0000", Fault: &sections.FaultError{Path: "/secret/path", Part: "links0"}}
	w.wrap = func(p shard.Part) shard.Part { return &odd{Local: p.(*shard.Local), err: fault} }
	err = w.search(ctx, n, of, w.request())
	require.Equal(t, remote.Unreadable, refused(err).Reason)
	require.NotContains(t, err.Error(), "secret")
}

// odd is a part whose Search returns an error, panics, or waits for the end of its context.
type odd struct {
	*shard.Local
	err    error
	panics bool
	begun  chan struct{}
	ended  chan struct{}
}

func (o *odd) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	if o.panics {
		panic("what a caller has sent")
	}
	if o.begun != nil {
		o.begun <- struct{}{}
		<-ctx.Done()
		o.ended <- struct{}{}
		return ctx.Err()
	}
	return o.err
}

// A panic ends the call and not the node. The wire has the shard, and nothing else.
func TestPanics(t *testing.T) {
	told := make(chan *shard.PanicError, 1)
	w, n := served(t, remote.Options{Panicked: func(p *shard.PanicError) { told <- p }})
	w.wrap = func(p shard.Part) shard.Part { return &odd{Local: p.(*shard.Local), panics: true} }
	err := w.search(t.Context(), n, w.id(0), w.request())
	p, ok := errors.AsType[*shard.PanicError](err)
	require.True(t, ok, "%v", err)
	require.Contains(t, p.Shard, "apps shard 0 of 2")
	require.NotContains(t, err.Error(), "what a caller has sent")
	require.NotContains(t, err.Error(), ".go:")
	full := <-told
	require.Equal(t, "what a caller has sent", full.Value)
	require.Contains(t, string(full.Stack), "refusal_test.go")
	w.wrap = nil
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	require.Zero(t, w.held)
}

// What is one request too many is refused at once, and the others are answered.
func TestOverloaded(t *testing.T) {
	w, n := served(t, remote.Options{MaxInFlight: 1})
	slow := &odd{begun: make(chan struct{}), ended: make(chan struct{}, 1)}
	w.wrap = func(p shard.Part) shard.Part { slow.Local = p.(*shard.Local); return slow }
	ctx, cancel := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() { _ = w.search(ctx, n, w.id(0), w.request()) })
	<-slow.begun
	err := w.search(t.Context(), n, w.id(0), w.request())
	r, ok := errors.AsType[*remote.Refusal](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, remote.Overloaded, r.Reason)
	require.Equal(t, 1, r.InFlight)
	cancel()
	<-slow.ended
	first.Wait()
}

// The end of a router's context ends the work of the node, by its deadline or before.
func TestEnds(t *testing.T) {
	w, n := served(t, remote.Options{})
	slow := &odd{begun: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	w.wrap = func(p shard.Part) shard.Part { slow.Local = p.(*shard.Local); return slow }
	const after = 30 * time.Millisecond
	for name, want := range map[string]error{"deadline": context.DeadlineExceeded, "cancel": context.Canceled} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		began := time.Now()
		if errors.Is(want, context.Canceled) {
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
		}
		err := w.search(ctx, n, w.id(0), w.request())
		router := time.Since(began) - after
		cancel()
		require.Equal(t, want, err, name)
		<-slow.begun
		<-slow.ended
		t.Logf("%s: the router went on after %s, and the node ended after %s", name, router, time.Since(began)-after)
	}
	w.wrap = nil
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.held == 0 }, waiting, tick)
}

// A router gives a request no end: the node does.
func TestNodeEnds(t *testing.T) {
	w, n := served(t, remote.Options{MaxTime: 10 * time.Millisecond})
	slow := &odd{begun: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	w.wrap = func(p shard.Part) shard.Part { slow.Local = p.(*shard.Local); return slow }
	require.Equal(t, context.DeadlineExceeded, w.search(t.Context(), n, w.id(0), w.request()))
}

// Two adjacent protocols work together, and no others.
func TestProtocols(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	older, newer, newest := remote.Protocol, remote.Protocol+1, remote.Protocol+2
	node := func(protocol, oldest int) *remote.Node {
		path, h := remote.NewHandlerOf(w, remote.Options{}, uint32(protocol), uint32(oldest))
		return ask(t, serve(t, path, h))
	}
	n := node(older, older)
	n.Speak(uint32(newer))
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()), "a newer router asks an older node")
	require.EqualValues(t, older, n.Spoken())
	require.NoError(t, w.search(t.Context(), node(newer, older), w.id(0), w.request()), "an older router asks a newer node")
	err := w.search(t.Context(), node(newest, newer), w.id(0), w.request())
	r, ok := errors.AsType[*remote.Refusal](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, remote.WrongProtocol, r.Reason)
	require.EqualValues(t, newest, r.Protocol)
	require.EqualValues(t, newer, r.OldestProtocol)
}

// A peer that is silent is noticed though a request has no end, and asked anew.
func TestSilentPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var accepted sync.WaitGroup
	accepted.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Go(func() {
				defer c.Close()
				buf := make([]byte, 1<<10)
				for err == nil {
					_, err = c.Read(buf)
				}
			})
		}
	})
	w := newWorld(t, 3, 20, 1)
	n := remote.NewNode(remote.NodeOptions{Address: l.Addr().String(), Silence: 200 * time.Millisecond})
	began := time.Now()
	err = w.search(t.Context(), n, w.id(0), w.request())
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	t.Logf("noticed after %s: %v", time.Since(began), err)
	require.Less(t, time.Since(began), 20*time.Second)
	require.NoError(t, l.Close())
	n.Close()
	accepted.Wait()
}

// Connections may speak TLS, and requests bring a token.
func TestTLS(t *testing.T) {
	w := newWorld(t, 3, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(rw, "who is it?", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(rw, r)
	})
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	config := s.Client().Transport.(*http.Transport).TLSClientConfig
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AddCert(s.Certificate())
	token := "secret"
	n := remote.NewNode(remote.NodeOptions{Address: s.Listener.Addr().String(), TLS: config, Token: func() string { return token }})
	t.Cleanup(n.Close)
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
	token = "another"
	err := w.search(t.Context(), n, w.id(0), w.request())
	require.ErrorContains(t, err, "unauthenticated")
	s.Client().CloseIdleConnections()
}

// Where one side speaks TLS and the other clear text, errors of calls and of the status say so.
func TestOneSideSpeaksTLS(t *testing.T) {
	w := newWorld(t, 3, 20, 1)
	path, h := remote.NewHandler(w, remote.Options{})
	mux := http.NewServeMux()
	mux.Handle(path, h)
	encrypted := httptest.NewUnstartedServer(mux)
	encrypted.EnableHTTP2 = true
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes
	encrypted.StartTLS()
	t.Cleanup(encrypted.Close)
	clear, stop := start(t, "127.0.0.1:0", path, h)
	t.Cleanup(stop)
	dir := t.TempDir()
	certtest.New(t, "authority").Write(t, dir)
	own, err := secure.Open(secure.Options{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")})
	require.NoError(t, err)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ours := &http.Server{Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { _ = ours.Serve(own.Listener(inner, 1, func(string) {})) })
	t.Cleanup(func() { require.NoError(t, ours.Close()); serving.Wait() })
	// One that says so as the protocol has it.
	alerting, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serving.Go(func() {
		for {
			conn, err := alerting.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = conn.Write([]byte{21, 3, 3, 0, 2, 2, 70})
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { require.NoError(t, alerting.Close()) })
	for _, c := range []struct {
		to   net.Addr
		tls  *tls.Config
		want string
	}{
		{encrypted.Listener.Addr(), nil, "the node speaks TLS, and is asked in clear text"},
		{inner.Addr(), nil, "the node speaks TLS, and is asked in clear text"},
		{alerting.Addr(), nil, "the node speaks TLS, and is asked in clear text"},
		{clear.Addr(), &tls.Config{RootCAs: x509.NewCertPool()}, "the node speaks clear text, and is asked in TLS"},
	} {
		n := remote.NewNode(remote.NodeOptions{Address: c.to.String(), TLS: c.tls})
		assert.ErrorContains(t, w.search(t.Context(), n, w.id(0), w.request()), c.want, "%s", c.to)
		assert.ErrorContains(t, n.Watch(t.Context(), "router", nil, func(*shardv1.NodeStatus) {}), c.want, "%s", c.to)
		n.Close()
	}
}

// What is asked of rows without vectors has no score, and all else.
func TestExplainWithoutVectors(t *testing.T) {
	w, n := served(t, remote.Options{})
	r := w.request()
	r.Position, r.Filter = w.positions[0], nil
	asked := *r
	asked.Vectors = nil
	want, err := n.Explain(t.Context(), w.id(0), r, w.ids)
	require.NoError(t, err)
	got, err := n.Explain(t.Context(), w.id(0), &asked, w.ids)
	require.NoError(t, err)
	known := 0
	for i := range want {
		if want[i].Known {
			known++
		}
		want[i].Score = 0
	}
	require.Positive(t, known)
	require.Equal(t, want, got)
}

// What is too much for one reply is asked for again, until there is all.
func TestMoreThanAReply(t *testing.T) {
	w, n := served(t, remote.Options{MaxReplyBytes: 40})
	at := shard.Moment{Position: w.positions[0], Time: clock}
	local := w.ground.Parts()[0]
	ids := w.ids[:60]
	want, got := make([][]float32, len(ids)), make([][]float32, len(ids))
	require.NoError(t, local.Vectors(t.Context(), at, ids, want))
	require.NoError(t, n.Vectors(t.Context(), w.id(0), at, ids, got))
	require.Equal(t, want, got)
	refs := []uint32{5, 1, 7, 0, 20, 21, 22, 23, 2}
	fields := []int{fieldTags, fieldGenre, fieldYear}
	for _, most := range []int{0, 1, 30, 1 << 20} {
		want, got := make([]attribute.Value, len(refs)*len(fields)), make([]attribute.Value, len(refs)*len(fields))
		wantRows, err := local.Attributes(t.Context(), at, refs, fields, most, want)
		require.NoError(t, err)
		rows, err := n.Attributes(t.Context(), w.id(0), at, remote.NewNames(w.metric), refs, fields, most, got)
		require.NoError(t, err)
		require.Equal(t, wantRows, rows)
		require.Equal(t, want, got)
	}
	r := w.request()
	r.K = 50
	err := w.search(t.Context(), n, w.id(0), r)
	require.ErrorIs(t, err, index.ErrQuery)
	require.ErrorContains(t, err, "accepted: up to 40")
}

// A request that is too large is the caller's to mend.
func TestLargeRequest(t *testing.T) {
	w, n := served(t, remote.Options{MaxRequestBytes: 1 << 10})
	r := w.request()
	for range 1 << 8 {
		r.Exclude = append(r.Exclude, "app-0001")
	}
	require.ErrorIs(t, w.search(t.Context(), n, w.id(0), r), index.ErrQuery)
	require.NoError(t, w.search(t.Context(), n, w.id(0), w.request()))
}

// What rows there are of an id is told whatever lies over them; an older node, which explains the id
// instead, tells nothing.
func TestRows(t *testing.T) {
	w := newWorld(t, 16, 200, 2)
	path, h := remote.NewHandler(w, remote.Options{})
	n := ask(t, serve(t, path, h))
	dead := 0
	for position, layers := range w.parts {
		at := shard.Moment{Snapshot: string(w.digest), Position: w.positions[position], Time: clock}
		for range 100 {
			id := pick(w.d, pick(w.d, w.ids...), w.freshID(), "nobody")
			number := shard.Partition(id, len(layers))
			ordinal, base := w.shards[number].Ordinal(id)
			want := remote.Rows{Told: true, InSnapshot: base}
			if base && layers[number].over.Overlay().IsDead(ordinal) {
				dead++
			}
			for _, run := range layers[number].fresh {
				ordinal, has := run.Shard().Ordinal(id)
				want.Fresh = want.Fresh || has && !run.Overlay().IsDead(ordinal)
			}
			got, err := n.Rows(t.Context(), w.id(number), at, w.dim, id)
			require.NoError(t, err)
			require.Equal(t, want, got, "%s at %s", id, at.Position)
		}
	}
	require.Positive(t, dead)
	w.wrap = func(p shard.Part) shard.Part { return untold{p} }
	got, err := n.Rows(t.Context(), w.id(0), shard.Moment{Snapshot: string(w.digest), Position: w.positions[0], Time: clock}, w.dim, "nobody")
	require.NoError(t, err)
	require.Equal(t, remote.Rows{}, got)
}

// untold is a part that is no shard of the process of a node.
type untold struct{ shard.Part }

func (untold) Refs(shard.Moment, []string, []uint32, []bool) error { return nil }
