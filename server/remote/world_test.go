package remote_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/remote/remotetest"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// clock is the time of all requests, to the nanosecond.
var clock = time.Date(2026, 11, 30, 12, 0, 0, 123_456_789, time.UTC)

// The attributes, by their places in the schema: one of each type.
const (
	fieldCost = iota
	fieldFlag
	fieldGenre
	fieldPrice
	fieldReleased
	fieldTags
	fieldYear
	fields
)

func schema(t testing.TB) attribute.Schema {
	s, err := attribute.NewSchema([]attribute.Field{
		{Name: "cost", Type: attribute.Float32}, {Name: "flag", Type: attribute.Bool}, {Name: "genre", Type: attribute.Keyword},
		{Name: "price", Type: attribute.Float}, {Name: "released", Type: attribute.Timestamp},
		{Name: "tags", Type: attribute.KeywordList}, {Name: "year", Type: attribute.Int},
	})
	require.NoError(t, err)
	return s
}

var words = []string{"", "a", "ab", "b", "ü", "longer than others are"}

type drawer struct{ *rand.Rand }

func (d drawer) chance(percent int) bool { return d.IntN(100) < percent }

func pick[T any](d drawer, of ...T) T { return of[d.IntN(len(of))] }

func (d drawer) vector(dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(d.IntN(7) - 3) // many scores tie
	}
	v[d.IntN(dim)] = float32(1 + d.IntN(3))
	return v
}

// row draws what a row has.
func (d drawer) row() []attribute.Value {
	all := []attribute.Value{
		attribute.OfFloat32(float32(d.IntN(40)) / 3), attribute.OfBool(d.chance(50)), attribute.OfKeyword(pick(d, words...)),
		attribute.OfFloat(float64(d.IntN(40)) / 7), attribute.OfTimestamp(clock.Add(time.Duration(d.IntN(2000)-1000) * time.Hour)),
		attribute.OfKeywords([]string{pick(d, words...), pick(d, words...)}), attribute.OfInt(int64(d.IntN(9)) << 53),
	}
	for i := range all {
		if d.chance(15) {
			all[i] = attribute.Value{}
		}
	}
	return all
}

// layer is a shard with its fresh rows at one position.
type layer struct {
	over  *shard.Local
	fresh []*shard.Local
}

// world is a tower at several positions, and what holds its shards one by one.
type world struct {
	d      drawer
	metric index.Metric
	dim    int
	digest manifest.Digest
	schema attribute.Schema
	ids    []string
	shards []*shard.Shard
	ground *shard.Tower

	positions []shard.Position
	whole     []*shard.Tower // at each position
	parts     [][]layer      // at each position, of each shard
	towers    [][]*shard.Tower

	mu      sync.Mutex
	using   map[string]int // snapshots, by how many routers use them
	held    int            // towers that were not released
	changed chan struct{}
	status  *shardv1.NodeStatus
	acquire func(ctx context.Context, of remote.ShardID, at shard.Position) error // what Acquire does first
	wrap    func(shard.Part) shard.Part                                           // of the first part
}

const fresh = 40 // rows at most that a position adds

// newWorld draws rows, divides them among shards, and changes them at some positions.
func newWorld(t testing.TB, seed uint64, rows, shards int) *world {
	d := drawer{rand.New(rand.NewPCG(seed, 7))}
	w := &world{
		d: d, metric: pick(d, index.Dot, index.Cosine, index.L2), dim: 2 + d.IntN(8), digest: manifest.Sum([]byte(fmt.Sprint(seed))),
		schema: schema(t), using: map[string]int{}, changed: make(chan struct{}), status: &shardv1.NodeStatus{Name: "node-1"},
	}
	for i := range rows {
		w.ids = append(w.ids, fmt.Sprintf("app-%04d%s", i, pick(d, "", "", "-ü", "-with-a-longer-id")))
	}
	w.build(t, shards)
	w.lay(t, nil)
	for sequence := range uint64(3) {
		w.lay(t, &shard.Position{Log: pick(d, "", "b"), Sequence: sequence + 1})
	}
	return w
}

// build writes the shards and opens them.
func (w *world) build(t testing.TB, shards int) {
	segments := []shard.Segment{{Name: "flagged", Expression: "flag"}, {Name: "late", Expression: "year > 3"}}
	for number := range shards {
		var ids []string
		var keys []uint64
		for _, id := range w.ids {
			if shard.Partition(id, shards) == number {
				ids, keys = append(ids, id), append(keys, shard.Key(id))
			}
		}
		vectors, err := index.NewMatrix(w.dim, len(ids))
		require.NoError(t, err)
		writer := attribute.NewWriter(w.schema, len(ids))
		for i := range ids {
			require.NoError(t, vectors.Append(w.d.vector(w.dim)))
			for field, v := range w.d.row() {
				require.NoError(t, writer.Set(i, field, v))
			}
		}
		params := index.DefaultParams(w.metric)
		params.M, params.EfConstruction = 4, 16
		x, err := index.Build(t.Context(), index.Input{Vectors: vectors, Keys: keys}, params)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), fmt.Sprintf("apps-%04d", number))
		require.NoError(t, shard.Write(path, ids, x, writer, segments...))
		s, err := shard.Open(path)
		require.NoError(t, err)
		w.shards = append(w.shards, s)
	}
	var err error
	w.ground, err = shard.NewTower(shard.Apps, w.shards, w.metric, w.dim, w.schema)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.ground.Close()) })
}

// lay adds a position: some rows die, change, get windows, and some are fresh. nil is the one
// before all events.
func (w *world) lay(t testing.TB, at *shard.Position) {
	if at == nil {
		layers := make([]layer, len(w.shards))
		for i, p := range w.ground.Parts() {
			layers[i] = layer{over: p.(*shard.Local)}
		}
		w.add(t, shard.Position{}, layers)
		return
	}
	if w.d.chance(70) && len(w.positions) > 1 {
		at.Log = w.positions[len(w.positions)-1].Log
	}
	layers := slices.Clone(w.parts[len(w.parts)-1])
	for i := range layers {
		l := &layers[i]
		var changes []shard.OverlaidRow
		for ordinal := range uint32(w.shards[i].Rows()) {
			if !w.d.chance(12) || l.over.Overlay().IsDead(ordinal) {
				continue // one that is dead may be fresh by now
			}
			r := shard.OverlaidRow{Ordinal: ordinal, Dead: w.d.chance(40), Attributes: w.d.row()}
			r.From, r.Until = w.window()
			changes = append(changes, r)
		}
		o, err := l.over.Overlay().With(*at, changes)
		require.NoError(t, err)
		l.over = o.Part()
		l.fresh = w.bury(t, *at, l.fresh)
		if next := w.run(t, *at, i, o); next != nil {
			l.fresh = append(l.fresh, next)
		}
	}
	w.add(t, *at, layers)
}

func (w *world) window() (from, until time.Time) {
	if w.d.chance(80) {
		return
	}
	return clock.Add(time.Duration(w.d.IntN(3)-1) * time.Hour), clock.Add(time.Duration(w.d.IntN(3)-1) * time.Hour)
}

// bury returns runs at a position at which some of their rows are dead.
func (w *world) bury(t testing.TB, at shard.Position, runs []*shard.Local) (out []*shard.Local) {
	for _, run := range runs {
		var changes []shard.OverlaidRow
		for ordinal := range uint32(run.Shard().Rows()) {
			if w.d.chance(20) {
				changes = append(changes, shard.OverlaidRow{Ordinal: ordinal, Dead: true})
			}
		}
		o, err := run.Overlay().With(at, changes)
		require.NoError(t, err)
		out = append(out, o.Part())
	}
	return out
}

// run returns fresh rows of a shard at a position, some of which replace rows that are dead
// in it; nil for none.
func (w *world) run(t testing.TB, at shard.Position, number int, o *shard.Overlay) *shard.Local {
	ids := map[string]bool{}
	for range w.d.IntN(fresh) {
		if id := fmt.Sprintf("fresh-%d-%03d", at.Sequence, w.d.IntN(500)); shard.Partition(id, len(w.shards)) == number {
			ids[id] = true
		}
	}
	for ordinal := range uint32(w.shards[number].Rows()) {
		if id := w.shards[number].ID(ordinal); o.IsDead(ordinal) && w.d.chance(30) && !w.has(number, id) {
			ids[id] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	sorted := slices.Sorted(maps.Keys(ids))
	vectors, err := index.NewMatrix(w.dim, len(sorted))
	require.NoError(t, err)
	writer := attribute.NewWriter(w.schema, len(sorted))
	var windows []shard.OverlaidRow
	for i := range sorted {
		require.NoError(t, vectors.Append(w.d.vector(w.dim)))
		for field, v := range w.d.row() {
			require.NoError(t, writer.Set(i, field, v))
		}
		r := shard.OverlaidRow{Ordinal: uint32(i)}
		r.From, r.Until = w.window()
		windows = append(windows, r)
	}
	x, err := index.Flat(vectors, w.metric)
	require.NoError(t, err)
	local, err := w.ground.InMemory(fmt.Sprintf("fresh-%d-%d", number, at.Sequence), sorted, x, writer)
	require.NoError(t, err)
	over, err := local.Overlay().With(at, windows)
	require.NoError(t, err)
	return over.Part()
}

// has reports whether there is a fresh row of an id at the last position.
func (w *world) has(number int, id string) bool {
	for _, run := range w.parts[len(w.parts)-1][number].fresh {
		if _, ok := run.Shard().Ordinal(id); ok {
			return true
		}
	}
	return false
}

func (w *world) add(t testing.TB, at shard.Position, layers []layer) {
	var hashed, beside []shard.Part
	var towers []*shard.Tower
	for i, l := range layers {
		hashed = append(hashed, l.over)
		var own []shard.Part
		for _, run := range l.fresh {
			own = append(own, run)
		}
		beside = append(beside, own...)
		ground, err := shard.NewTowerOf(shard.Apps, w.ground.Parts()[i:i+1], 1, w.metric, w.dim, w.schema)
		require.NoError(t, err)
		tower, err := ground.With([]shard.Part{l.over}, own, nil)
		require.NoError(t, err)
		towers = append(towers, tower)
	}
	w.towers = append(w.towers, towers)
	whole, err := w.ground.With(hashed, beside, nil)
	require.NoError(t, err)
	w.positions, w.whole, w.parts = append(w.positions, at), append(w.whole, whole), append(w.parts, layers)
}

// Acquire implements [remote.Holder].
func (w *world) Acquire(ctx context.Context, of remote.ShardID, at shard.Position) (*shard.Tower, func(), error) {
	if w.acquire != nil {
		if err := w.acquire(ctx, of, at); err != nil {
			return nil, nil, err
		}
	}
	if of.Snapshot != w.digest || of.Tower != shard.Apps || of.Of != len(w.shards) {
		return nil, nil, &remote.Refusal{Reason: remote.NotHeld, Text: of.String() + " is not held"}
	}
	i := slices.Index(w.positions, at)
	if i < 0 {
		reason := remote.PositionGone
		if at.Compare(w.positions[len(w.positions)-1]) > 0 {
			reason = remote.Behind
		}
		return nil, nil, &remote.Refusal{Reason: reason, Text: "position " + at.String()}
	}
	tower := w.towers[i][of.Number]
	if w.wrap != nil {
		var err error
		if tower, err = tower.With([]shard.Part{w.wrap(tower.Parts()[0])}, tower.Parts()[1:], nil); err != nil {
			return nil, nil, err
		}
	}
	w.mu.Lock()
	w.held++
	w.mu.Unlock()
	return tower, func() { w.mu.Lock(); w.held--; w.mu.Unlock() }, nil
}

// Status implements [remote.Holder].
func (w *world) Status() (*shardv1.NodeStatus, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.changed
}

// Uses implements [remote.Holder].
func (w *world) Uses(_ string, snapshots []string) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range snapshots {
		w.using[s]++
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range snapshots {
			w.using[s]--
		}
	}
}

// serve serves a handler as a node does, until the test ends.
func serve(t testing.TB, path string, h http.Handler) (address string) {
	mux := http.NewServeMux()
	mux.Handle(path, h)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: mux, HTTP2: remote.HTTP2(1000), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		if h, ok := h.(*remote.Handler); ok {
			require.NoError(t, h.Shutdown(context.Background()))
		}
		require.NoError(t, server.Close())
		served.Wait()
	})
	return listener.Addr().String()
}

// ask returns a node to ask, until the test ends. It may be silent for as long as a machine that
// does much else makes it.
func ask(t testing.TB, address string) *remote.Node {
	n := remote.NewNode(remote.NodeOptions{Address: address, Silence: time.Minute})
	t.Cleanup(n.Close)
	return n
}

// id names a shard of the world.
func (w *world) id(number int) remote.ShardID {
	return remote.ShardID{Snapshot: w.digest, Tower: shard.Apps, Number: number, Of: len(w.shards)}
}

// near is a part that is asked in its turn, as parts of this process are: which floor a part is
// given depends on the order, and shows in what is counted.
type near struct{ *remotetest.Part }

func (n near) Info() shard.Info {
	info := n.Part.Info()
	info.Elsewhere = false
	return info
}

// remoteTower returns the tower at a position whose parts are on a node. At the first they are
// asked one after the other.
func (w *world) remoteTower(t testing.TB, n *remote.Node, position int) *shard.Tower {
	var parts []shard.Part
	for i, l := range w.parts[position] {
		info := l.over.Info()
		info.SegmentRows = slices.Clone(info.SegmentRows)
		for _, run := range l.fresh {
			info.Rows += run.Info().Rows
			for s, rows := range run.Info().SegmentRows {
				info.SegmentRows[s] += rows
			}
		}
		part := remotetest.NewPart(n, w.id(i), w.positions[position], info, remote.NewNames(w.metric))
		if position == 0 {
			parts = append(parts, near{part})
			continue
		}
		parts = append(parts, part)
	}
	tower, err := shard.NewTowerOf(shard.Apps, parts, len(parts), w.metric, w.dim, w.schema)
	require.NoError(t, err)
	return tower
}

// How long a test waits for what happens soon, and how often it looks.
const (
	waiting = 20 * time.Second
	tick    = time.Millisecond
)
