package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// modelApps and modelUsers are whom events are about, most of them: of the first ones every
// snapshot has rows, of the last ones none, and between them are other Unicode forms of ids.
var (
	modelApps  = append(namesOf("a", 8), "caf\u00e9", "\uff21\uff22\uff23", "cafe\u0301", "ABC", "n0", "n1", "n2", "n3", "n4")
	modelUsers = append(namesOf("u", 5), "m0", "m1")
)

// modelForms are those among them that snapshots may have.
var modelForms = modelApps[8:10]

func namesOf(prefix string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint(prefix, i))
	}
	return names
}

// modelVector returns one of a few vectors of a version, by its number. They are such that
// scores are exact in float32 whatever the order of additions: of small multiples of a
// quarter, and under cosine with norms that are powers of two.
func modelVector(version string, metric index.Metric, number int) []float32 {
	r := rand.New(rand.NewPCG(uint64(number), 77))
	v := make([]float32, modelDims[version])
	if metric != index.Cosine {
		for i := range v {
			v[i] = float32(r.IntN(17)-8) / 4
		}
		return v
	}
	scale := []float32{0.5, 1, 2}[r.IntN(3)]
	n := []int{4, 16}[r.IntN(2)]
	for _, i := range r.Perm(len(v))[:n] {
		v[i] = scale * float32(2*r.IntN(2)-1)
	}
	return v
}

// randomModelValues returns values of all attributes of a tower, most of them.
func randomModelValues(r *rand.Rand, version string, kind shard.Kind) modelValues {
	values := modelValues{}
	schema := modelSchemas[version][kind]
	for _, name := range slices.Sorted(maps.Keys(schema)) {
		if stored, ok := convertModel(modelPool[kind][name][r.IntN(len(modelPool[kind][name]))], schema[name]); ok {
			values[name] = stored
		}
	}
	return values
}

// randomModelRows returns rows of a snapshot.
func randomModelRows(r *rand.Rand, version string, metric index.Metric, kind shard.Kind, ids []string) map[string]*modelRow {
	rows := map[string]*modelRow{}
	for _, id := range ids {
		rows[id] = &modelRow{id: id, vector: modelVector(version, metric, r.IntN(60)), values: randomModelValues(r, version, kind)}
	}
	return rows
}

// modelTemplate is a store with snapshots of two model versions, which worlds copy.
type modelTemplate struct {
	dir       string
	snapshots []*modelSnapshot
}

func newModelTemplate(t require.TestingT, dir string, metric index.Metric) *modelTemplate {
	store, err := snapshots.CreateStore(context.Background(), dir, snapshots.Options{})
	require.NoError(t, err)
	out := &modelTemplate{dir: dir}
	for i, of := range []struct {
		version             string
		apps, users, shards int
		mean                bool
	}{{modelV1, 40, 10, 3, true}, {modelV1, 30, 8, 2, false}, {modelV2, 60, 20, 2, true}, {modelV2, 150, 40, 3, false}} {
		r := rand.New(rand.NewPCG(uint64(i), uint64(metric)))
		s := &modelSnapshot{name: fmt.Sprintf("s%d", i), version: of.version, metric: metric, shards: of.shards}
		s.rows = map[shard.Kind]map[string]*modelRow{
			shard.Apps:  randomModelRows(r, of.version, metric, shard.Apps, append(namesOf("a", of.apps), modelForms[i%2])),
			shard.Users: randomModelRows(r, of.version, metric, shard.Users, namesOf("u", of.users)),
		}
		if of.mean {
			s.mean = modelVector(of.version, metric, 1000)
		}
		s.publish(t, store)
		out.snapshots = append(out.snapshots, s)
	}
	require.NoError(t, store.Close())
	return out
}

// publish publishes a snapshot.
func (s *modelSnapshot) publish(t require.TestingT, store *snapshots.Store) {
	ctx := context.Background()
	var named []shard.Segment
	for _, name := range slices.Sorted(maps.Keys(modelSegments)) {
		named = append(named, shard.Segment{Name: name, Expression: chainText(modelSegments[name])})
	}
	m := &manifest.Manifest{
		Builder: "test", Model: "feed", ModelVersion: s.version, Metric: s.metric, Dim: modelDims[s.version], Inputs: []manifest.Input{},
		Apps: s.writeTower(t, store, shard.Apps, named...), Users: s.writeTower(t, store, shard.Users), MeanUser: s.mean,
	}
	if s.inputs > 0 {
		m.Live = &shard.Position{Sequence: s.inputs}
	}
	for _, segment := range named {
		n := 0
		for _, row := range s.rows[shard.Apps] {
			if firstFalse(modelSegments[segment.Name], row.values, nil) == nil {
				n++
			}
		}
		m.Apps.Segments = append(m.Apps.Segments, manifest.Segment{Segment: segment, Eligible: n})
	}
	m.Version = m.LowestVersion()
	var err error
	s.digest, err = store.Publish(ctx, m)
	require.NoError(t, err)
}

func (s *modelSnapshot) writeTower(t require.TestingT, store *snapshots.Store, kind shard.Kind, segments ...shard.Segment) manifest.Tower {
	var fields []attribute.Field
	for name, typ := range modelSchemas[s.version][kind] {
		fields = append(fields, attribute.Field{Name: name, Type: typ})
	}
	schema := mustSchema(fields...)
	params := index.DefaultParams(s.metric)
	params.M, params.EfConstruction = 8, 32
	m := manifest.Tower{Rows: len(s.rows[kind]), Params: params.String(), Schema: schema, Recall: []manifest.Recall{}}
	stage, err := store.Stage()
	require.NoError(t, err)
	defer func() { require.NoError(t, stage.Close()) }()
	for number := range s.shards {
		var ids []string
		for _, id := range slices.Sorted(maps.Keys(s.rows[kind])) {
			if shard.Partition(id, s.shards) == number {
				ids = append(ids, id)
			}
		}
		vectors, err := index.NewMatrix(modelDims[s.version], len(ids))
		require.NoError(t, err)
		w := attribute.NewWriter(schema, len(ids))
		var keys []uint64
		for row, id := range ids {
			require.NoError(t, vectors.Append(s.rows[kind][id].vector))
			keys = append(keys, shard.Key(id))
			for name, v := range s.rows[kind][id].values {
				field, ok := schema.Lookup(name)
				require.True(t, ok, name)
				require.NoError(t, w.Set(row, field, attributeOfModel(v)))
			}
		}
		x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(t, err)
		path := filepath.Join(stage.Dir(), fmt.Sprint(number))
		require.NoError(t, shard.Write(path, ids, x, w, segments...))
		sm, err := store.AddShard(context.Background(), path)
		require.NoError(t, err)
		sm.Rows = len(ids)
		m.Shards = append(m.Shards, sm)
	}
	return m
}

// copyModelStore copies the folder of a store. What is in it does not change, so it is linked.
func copyModelStore(t require.TestingT, from, to string) {
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return os.Link(path, target)
	}))
}

// modelWorld is a store, the servers that follow it, and a model of both.
type modelWorld struct {
	t        *rapid.T
	report   *modelReport
	dir      string
	metric   index.Metric
	store    *snapshots.Store
	releases *release.Releases
	rows     int // how many of a tower of a version may be upserted
	clock    atomic.Int64

	snapshots  []*modelSnapshot
	generation uint64
	released   map[uint64]*release.Release
	routes     map[string]manifest.Digest // by generation and key
	log        *modelLog
	named      []*modelEvent // those with ids, as they were written
	names      int
	chains     []*modelChain
	servers    []*modelServer
	digests    map[uint64]string // of overlays, by position
	cluster    *cluster          // whose shards server B answers with; nil if it has its own
	inStep     bool
}

// modelServer is a server of a world, and what is known of the process that it is.
type modelServer struct {
	name, memory string
	stop         context.CancelFunc // nil if it is down
	done         chan error
	transport    *http.Transport
	retrieval    tandemv1connect.RetrievalServiceClient
	live         tandemv1connect.LiveServiceClient
	admin        tandemv1connect.AdminServiceClient

	generation uint64 // it answers with it, or a later one
	sequence   uint64 // it answers at it, or later
	// mapped are the snapshots that it has answered with: it keeps them for as long as it
	// runs.
	mapped map[manifest.Digest]bool
}

// modelChange is who releases, and why whatever gates say: none was run.
var modelChange = release.Change{Author: "model", Override: "nobody ran gates"}

func newModelWorld(t *rapid.T, templates []*modelTemplate, report *modelReport, clustered bool) *modelWorld {
	w := &modelWorld{
		t: t, report: report, released: map[uint64]*release.Release{}, routes: map[string]manifest.Digest{}, log: newModelLog(),
		digests: map[uint64]string{},
	}
	template := oneOf(t, templates, "metric")
	w.snapshots = slices.Clone(template.snapshots)
	w.metric = w.snapshots[0].metric
	w.rows = oneOf(t, []int{100, 4}, "room")
	w.clock.Store(modelDay(3000).UnixNano())
	var err error
	w.dir, err = os.MkdirTemp("", "model-*")
	require.NoError(t, err)
	copyModelStore(t, template.dir, filepath.Join(w.dir, "store"))
	w.store, err = snapshots.OpenStore(context.Background(), filepath.Join(w.dir, "store"), snapshots.Options{})
	require.NoError(t, err)
	w.releases = release.New(w.store)
	first := oneOf(t, w.snapshots, "first").digest
	w.note(w.releases.Start(context.Background(), release.StartOptions{Snapshot: first, Change: modelChange}))
	if clustered {
		w.cluster = newCluster(2, Live{Fence: time.Minute, MaxFreshRows: w.rows, Poll: 5 * time.Millisecond})
		for range 3 {
			w.startNode()
		}
	}
	for _, name := range []string{"A", "B"} {
		s := &modelServer{name: name, memory: filepath.Join(w.dir, "memory-"+name)}
		w.servers = append(w.servers, s)
		w.start(s)
	}
	return w
}

// close stops the servers and removes everything.
func (w *modelWorld) close() {
	for _, s := range w.servers {
		if s.stop != nil {
			_ = w.end(s)
		}
	}
	if w.cluster != nil {
		_ = w.cluster.close()
	}
	_ = w.store.Close()
	_ = os.RemoveAll(w.dir)
}

func (w *modelWorld) now() time.Time { return time.Unix(0, w.clock.Load()).UTC() }

// note takes a change of what is released for what it is, unless it cannot be made, such as to a
// snapshot that was deleted.
func (w *modelWorld) note(r *release.Release, err error) bool {
	if errors.Is(err, release.ErrChange) || errors.Is(err, release.ErrGates) || errors.Is(err, snapshots.ErrNoSnapshot) {
		return false
	}
	require.NoError(w.t, err)
	w.generation = r.Generation
	w.released[r.Generation] = r
	for _, a := range r.Arms {
		w.t.Logf("generation %d, %s: %s of %s at %d with %d", r.Generation, r.Kind, a.Name, w.snapshot(a.Snapshot).name, w.snapshot(a.Snapshot).inputs, a.Weight)
	}
	return true
}

// snapshot returns the snapshot of a digest, nil if there is none.
func (w *modelWorld) snapshot(d manifest.Digest) *modelSnapshot {
	i := slices.IndexFunc(w.snapshots, func(s *modelSnapshot) bool { return s.digest == d })
	if i < 0 {
		return nil
	}
	return w.snapshots[i]
}

// start starts a server. It reads the log of events and that of releases to their ends before it
// answers.
func (w *modelWorld) start(s *modelServer) {
	ctx, cancel := context.WithCancel(context.Background())
	store, err := snapshots.OpenStore(ctx, filepath.Join(w.dir, "store"), snapshots.Options{})
	require.NoError(w.t, err)
	done, ready := make(chan error, 1), make(chan struct{})
	var addr net.Addr
	c := Config{
		Store: store, Listen: "127.0.0.1:0", Keep: time.Hour, Logger: slog.New(slog.DiscardHandler),
		Memory:    appendlog.Memory{s.memory + "-releases"},
		Live:      Live{Writes: true, Fence: time.Minute, Memory: appendlog.Memory{s.memory}, MaxFreshRows: w.rows, Poll: 5 * time.Millisecond},
		Listening: func(a net.Addr) { addr = a },
		Ready:     func(Snapshot) { close(ready) },
		clock:     w.now,
	}
	if s.name == "B" {
		c.Live.Poll = 200 * time.Millisecond // it is often behind
		if w.cluster != nil {
			c.Cluster = w.cluster.config(fmt.Sprint("router", w.generation))
		}
	}
	go func() { done <- errors.Join(Run(ctx, c), store.Close()) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		w.t.Fatalf("server %s does not start: %v", s.name, err)
	}
	s.stop, s.done = cancel, done
	s.transport = &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	s.transport.Protocols.SetUnencryptedHTTP2(true)
	client, url := &http.Client{Transport: s.transport}, "http://"+addr.String()
	s.retrieval = tandemv1connect.NewRetrievalServiceClient(client, url)
	s.live = tandemv1connect.NewLiveServiceClient(client, url)
	s.admin = tandemv1connect.NewAdminServiceClient(client, url)
	s.generation, s.sequence, s.mapped = w.generation, w.log.last, map[manifest.Digest]bool{}
}

// startNode starts a node.
func (w *modelWorld) startNode() *clusterNode {
	store, err := snapshots.OpenStore(context.Background(), filepath.Join(w.dir, "store"), snapshots.Options{})
	require.NoError(w.t, err)
	return w.cluster.start(w.t, store)
}

// isRouter reports whether a server answers with shards of nodes.
func (w *modelWorld) isRouter(s *modelServer) bool { return w.cluster != nil && s.name == "B" }

// end stops a server, and returns what it ended with.
func (w *modelWorld) end(s *modelServer) error {
	s.transport.CloseIdleConnections()
	s.stop()
	s.stop = nil
	return <-s.done
}

// up returns the servers that are up.
func (w *modelWorld) up() []*modelServer {
	return slices.DeleteFunc(slices.Clone(w.servers), func(s *modelServer) bool { return s.stop == nil })
}

// generations returns the releases that a server may answer with.
func (w *modelWorld) generations(s *modelServer) (list []*release.Release) {
	for g := s.generation; g <= w.generation; g++ {
		list = append(list, w.released[g])
	}
	return list
}

// rebuilt returns a snapshot of what an older one of a version amounts to at an entry, with
// some rows that are otherwise: inputs need not agree with the log.
func (w *modelWorld) rebuilt(of *modelSnapshot, at uint64, seed uint64) *modelSnapshot {
	r := rand.New(rand.NewPCG(seed, 3))
	next := &modelSnapshot{
		name: fmt.Sprintf("s%d", len(w.snapshots)), version: of.version, metric: of.metric, shards: 2 + r.IntN(2), inputs: at,
		rows: map[shard.Kind]map[string]*modelRow{},
	}
	if r.IntN(2) == 0 {
		next.mean = of.mean
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		rows := map[string]*modelRow{}
		all := w.log.all(of, kind, max(at, of.inputs))
		for _, id := range slices.Sorted(maps.Keys(all)) {
			kept := all[id].kept
			if kept == nil || r.IntN(12) == 0 {
				continue
			}
			row := &modelRow{id: id, vector: kept.vector, values: kept.values}
			if r.IntN(8) == 0 {
				row.values = randomModelValues(r, of.version, kind)
			}
			if r.IntN(8) == 0 {
				row.vector = modelVector(of.version, of.metric, r.IntN(60))
			}
			rows[id] = row
		}
		for _, id := range modelApps {
			if kind == shard.Apps && r.IntN(8) == 0 && rows[id] == nil {
				rows[id] = &modelRow{id: id, vector: modelVector(of.version, of.metric, r.IntN(60)), values: randomModelValues(r, of.version, kind)}
			}
		}
		next.rows[kind] = rows
	}
	next.publish(w.t, w.store)
	return next
}

// servedVersions returns the model versions that a release serves.
func servedVersions(r *release.Release) (versions []string) {
	for _, a := range r.Arms {
		versions = append(versions, a.ModelVersion)
	}
	slices.Sort(versions)
	return slices.Compact(versions)
}

// modelReport counts what was done.
type modelReport struct {
	began    time.Time
	failed   bool // a failure is made smaller
	worlds   int
	steps    int
	byKind   map[string]int
	answers  int // compared with the model's
	rows     int // candidates and embeddings in them
	short    int // answers with fewer candidates than k
	refused  map[string]int
	events   int
	entries  int
	settled  int // records
	explains int
}

func newModelReport() *modelReport {
	return &modelReport{began: time.Now(), byKind: map[string]int{}, refused: map[string]int{}}
}

func (r *modelReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d steps in %d worlds, %s; %d answers of %d rows were the model's, %d of them short, with %d explanations; %d events in %d entries, of which %d apps and users were settled\n",
		r.steps, r.worlds, time.Since(r.began).Round(time.Second), r.answers, r.rows, r.short, r.explains, r.events, r.entries, r.settled)
	for _, of := range []map[string]int{r.byKind, r.refused} {
		names := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(cmp.Compare(of[b], of[a]), cmp.Compare(a, b)) })
		for _, name := range names {
			fmt.Fprintf(&b, "  %7d %s\n", of[name], name)
		}
	}
	return b.String()
}
