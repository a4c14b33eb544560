package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var schema = mustSchema(
	attribute.Field{Name: "developer", Type: attribute.Keyword},
	attribute.Field{Name: "free", Type: attribute.Bool},
	attribute.Field{Name: "min_age", Type: attribute.Int},
	attribute.Field{Name: "platforms", Type: attribute.KeywordList},
	attribute.Field{Name: "price", Type: attribute.Float},
	attribute.Field{Name: "released", Type: attribute.Timestamp},
)

func mustSchema(fields ...attribute.Field) attribute.Schema {
	s, err := attribute.NewSchema(fields)
	if err != nil {
		panic(err)
	}
	return s
}

// segments are those of every test snapshot; a test of filters knows what they mean.
var segments = []shard.Segment{
	{Name: "cheap", Expression: "price < 2.5"},
	{Name: "free", Expression: "free"},
	{Name: "nothing", Expression: "price < 0.0"},
	{Name: "ten_or_none", Expression: `!has(developer) || developer == "Ten"`},
}

// entity is one row of a tower, as the tests know it.
type entity struct {
	id     string
	vector []float32
	values []attribute.Value // by schema position
}

// towers is what a test snapshot is made of.
type towers struct {
	metric      index.Metric
	dim, shards int
	apps, users []entity
	version     string
	mean        []float32 // of the users, if the snapshot has it
}

// newTowers returns random towers. The vectors are of small integers, so that
// inner products and squared distances are exact in any order of summation.
func newTowers(r *rand.Rand, metric index.Metric, dim, apps, users, shards int) *towers {
	t := &towers{metric: metric, dim: dim, shards: shards, version: "v1"}
	for i := range apps {
		e := entity{fmt.Sprintf("a%d", i), randomVector(r, dim), make([]attribute.Value, schema.Len())}
		if r.IntN(4) > 0 {
			e.values[0] = attribute.OfKeyword([]string{"Nine Lives", "Ten", "Elf"}[r.IntN(3)])
		}
		e.values[1] = attribute.OfBool(r.IntN(2) == 0)
		if r.IntN(5) > 0 {
			e.values[2] = attribute.OfInt(int64(r.IntN(20)))
		}
		var platforms []string
		for _, p := range []string{"ios", "linux", "windows"} {
			if r.IntN(2) == 0 {
				platforms = append(platforms, p)
			}
		}
		e.values[3] = attribute.OfKeywords(platforms)
		e.values[4] = attribute.OfFloat(float64(r.IntN(100)) / 4)
		e.values[5] = attribute.OfTimestamp(time.Date(2020, 1, 1+r.IntN(3000), 0, 0, 0, 0, time.UTC))
		t.apps = append(t.apps, e)
	}
	for i := range users {
		t.users = append(t.users, entity{fmt.Sprintf("u%d", i), randomVector(r, dim), make([]attribute.Value, schema.Len())})
	}
	return t
}

func randomVector(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.IntN(7) - 3)
	}
	v[0] = float32(1 + r.IntN(3)) // not zero
	return v
}

// publish writes the towers as a snapshot of a new store.
func (t *towers) publish(tb testing.TB) *snapshots.Store {
	store, err := snapshots.CreateStore(tb.Context(), filepath.Join(tb.TempDir(), "store"), snapshots.Options{})
	require.NoError(tb, err)
	t.publishTo(tb, store)
	return store
}

// named publishes the towers, and has a server serve them without a release.
func (t *towers) named(tb testing.TB, c Config) Config {
	c.Store = t.publish(tb)
	digest, err := c.Store.Resolve(tb.Context(), "")
	require.NoError(tb, err)
	c.Snapshot = string(digest)
	return c
}

// publishTo writes the towers as a snapshot of a store.
func (t *towers) publishTo(tb testing.TB, store *snapshots.Store) manifest.Digest {
	m := &manifest.Manifest{
		Version: manifest.SegmentsVersion, Builder: "test", Model: "feed", ModelVersion: t.version,
		Metric: t.metric, Dim: t.dim, Inputs: []manifest.Input{},
		Apps: t.writeTower(tb, store, t.apps, segments...), Users: t.writeTower(tb, store, t.users),
		MeanUser: t.mean,
	}
	if t.mean != nil {
		m.Version = manifest.MeanVersion
	}
	for _, s := range segments {
		m.Apps.Segments = append(m.Apps.Segments, manifest.Segment{Segment: s})
	}
	apps, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(tb, err)
	for i, rows := range apps.SegmentRows() {
		m.Apps.Segments[i].Eligible = rows
	}
	require.NoError(tb, apps.Close())
	digest, err := store.Publish(tb.Context(), m)
	require.NoError(tb, err)
	return digest
}

func (t *towers) writeTower(tb testing.TB, store *snapshots.Store, rows []entity, segments ...shard.Segment) manifest.Tower {
	params := index.DefaultParams(t.metric)
	params.M, params.EfConstruction = 8, 32
	m := manifest.Tower{Rows: len(rows), Params: params.String(), Schema: schema, Recall: []manifest.Recall{}}
	stage, err := store.Stage()
	require.NoError(tb, err)
	defer func() { require.NoError(tb, stage.Close()) }()
	for number := range t.shards {
		var mine []entity
		for _, e := range rows {
			if shard.Partition(e.id, t.shards) == number {
				mine = append(mine, e)
			}
		}
		slices.SortFunc(mine, func(a, b entity) int { return strings.Compare(a.id, b.id) })
		vectors, err := index.NewMatrix(t.dim, len(mine))
		require.NoError(tb, err)
		w := attribute.NewWriter(schema, len(mine))
		var ids []string
		var keys []uint64
		for row, e := range mine {
			require.NoError(tb, vectors.Append(e.vector))
			ids, keys = append(ids, e.id), append(keys, shard.Key(e.id))
			for field, v := range e.values {
				require.NoError(tb, w.Set(row, field, v))
			}
		}
		x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(tb, err)
		path := filepath.Join(stage.Dir(), fmt.Sprint(number))
		require.NoError(tb, shard.Write(path, ids, x, w, segments...))
		sm, err := store.AddShard(tb.Context(), path)
		require.NoError(tb, err)
		sm.Rows = len(mine)
		m.Shards = append(m.Shards, sm)
	}
	return m
}

// open opens the newest snapshot of a store. The caller closes it.
func open(tb testing.TB, store *snapshots.Store) *snapshots.Snapshot {
	digest, err := store.Resolve(tb.Context(), "")
	require.NoError(tb, err)
	s, err := snapshots.Open(context.Background(), store, digest)
	require.NoError(tb, err)
	return s
}

// loaded returns a service that serves the towers.
func (t *towers) loaded(tb testing.TB) *Service { return t.logging(tb, slog.DiscardHandler) }

// logging is loaded with a log.
func (t *towers) logging(tb testing.TB, log slog.Handler) *Service {
	s := NewService(slog.New(log))
	s.Serve(open(tb, t.publish(tb)))
	tb.Cleanup(s.Close)
	return s
}

// smallTowers are the towers of most tests.
func smallTowers(metric index.Metric) *towers {
	return newTowers(rand.New(rand.NewPCG(1, 2)), metric, 4, 60, 10, 3)
}

// site is a service on a loopback address.
type site struct {
	url   string
	http1 *http.Client
	http2 *http.Client
}

func serve(tb testing.TB, s *Service, options Options) *site {
	site, _ := serveLimited(tb, s, options)
	return site
}

// patientDeadline is the deadline of requests to servers of tests that say nothing of it: how long
// a request takes on a busy machine is not what they are about.
const patientDeadline = 2 * time.Minute

// serveLimited also returns what bounds the requests.
func serveLimited(tb testing.TB, s *Service, options Options) (*site, *limiter) {
	options.MaxDeadline = cmp.Or(options.MaxDeadline, patientDeadline)
	handler, limits := newHandler(s, options)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	h := newHTTPServer(handler, connectionLog{s.events})
	var conns sync.WaitGroup
	h.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.Serve(l)
	}()
	tb.Cleanup(func() {
		require.NoError(tb, h.Close())
		<-done
		conns.Wait()
	})
	return newSite(tb, l.Addr()), limits
}

func newSite(tb testing.TB, addr net.Addr) *site {
	t1 := &http.Transport{DisableCompression: true}
	t2 := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	t2.Protocols.SetUnencryptedHTTP2(true)
	tb.Cleanup(t1.CloseIdleConnections)
	tb.Cleanup(t2.CloseIdleConnections)
	return &site{"http://" + addr.String(), &http.Client{Transport: t1}, &http.Client{Transport: t2}}
}

// client returns a client over HTTP/2, which all protocols can use.
func (s *site) client(options ...connect.ClientOption) tandemv1connect.RetrievalServiceClient {
	return tandemv1connect.NewRetrievalServiceClient(s.http2, s.url, options...)
}

// reply is what an HTTP request was answered with.
type reply struct {
	status int
	header http.Header
	body   []byte
	json   map[string]any
}

// post sends a JSON body to a method of the service, as curl does.
func (s *site) post(tb testing.TB, method, body string, header ...string) reply {
	r, err := http.NewRequest(http.MethodPost, s.url+"/tandem.v1.RetrievalService/"+method, strings.NewReader(body))
	require.NoError(tb, err)
	r.Header.Set("Content-Type", "application/json")
	return s.do(tb, r, header...)
}

func (s *site) get(tb testing.TB, path string, header ...string) reply {
	r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	require.NoError(tb, err)
	return s.do(tb, r, header...)
}

func (s *site) do(tb testing.TB, r *http.Request, header ...string) reply {
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.http1.Do(r)
	require.NoError(tb, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(tb, err)
	out := reply{status: response.StatusCode, header: response.Header, body: data}
	if bytes.HasPrefix(data, []byte("{")) {
		require.NoError(tb, json.Unmarshal(data, &out.json), "%s", data)
	}
	return out
}

// requireError checks an error's code and text.
func requireError(tb testing.TB, err error, code connect.Code, text string) {
	tb.Helper()
	var coded *connect.Error
	require.ErrorAs(tb, err, &coded)
	require.Equal(tb, text, coded.Message())
	require.Equal(tb, code, coded.Code())
}
