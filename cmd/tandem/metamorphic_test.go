package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var (
	metamorphicSeed      = flag.Uint64("metamorphic-seed", 0, "the only history that TestMetamorphic goes through; 0 for the first ones")
	metamorphicHistories = flag.Uint64("metamorphic-histories", 2, "how many histories TestMetamorphic goes through")
	metamorphicSteps     = flag.Int("metamorphic-steps", 60, "how many steps a history has")
)

// TestMetamorphic goes through random histories of builds, releases, splits, rollbacks,
// collections, restarts and queries, and holds each against a model of plain maps: what is
// released is what was asked for, a server serves that, an exact answer is what brute force
// over the rows of its snapshot finds, questions that mean the same have the same answer,
// inputs that are the same give the same digest, and what a release needs stays. A history
// is drawn from its seed, which a failure prints.
//
// It is in the manner of pebble's metamorphic tests.
func TestMetamorphic(t *testing.T) {
	if raceEnabled {
		t.Skip("what it runs side by side is one server and its client, which package server has under the race detector")
	}
	t.Parallel()
	seeds := []uint64{*metamorphicSeed}
	if *metamorphicSeed == 0 {
		seeds = nil
		for seed := range *metamorphicHistories {
			seeds = append(seeds, seed+1)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("again: go test ./cmd/tandem -run TestMetamorphic -metamorphic-seed %d -metamorphic-steps %d\n%s",
						seed, *metamorphicSteps, strings.Join(w.history, "\n"))
				}
			})
			defer w.stop()
			w.build()
			w.start()
			w.restart()
			for range *metamorphicSteps {
				w.step()
			}
		})
	}
}

// game is a row of a world's app tower.
type game struct {
	id     string
	vector []float32
	genre  string // absent when empty
	age    int64  // absent when negative
	free   bool
}

// drawn is what the model knows of a snapshot.
type drawn struct {
	options builder.Options
	games   []game
	users   map[string][]float32
}

// turning is an answer whose next page was not asked for yet.
type turning struct {
	request  *tandemv1.RetrieveRequest // of the next page
	rest     []string                  // what there is from there on
	snapshot manifest.Digest
	restarts int // of the server, when it began
}

// world is a store, a server and a model of both.
type world struct {
	*testing.T
	ctx      context.Context
	random   *rand.Rand
	dir      string
	store    *snapshots.Store
	releases *release.Releases

	version  int
	built    map[manifest.Digest]*drawn
	order    []manifest.Digest        // of publishing, oldest first
	released map[uint64][]release.Arm // the arms of each generation
	now      uint64                   // the last of them
	routes   map[string]string        // arms by key, since the last release
	turning  []*turning
	restarts int
	history  []string

	end    context.CancelFunc
	ended  chan error
	answer tandemv1connect.RetrievalServiceClient
	admin  tandemv1connect.AdminServiceClient
	http   *http.Transport
}

func newWorld(t *testing.T, seed uint64) *world {
	dir := t.TempDir()
	store, err := snapshots.CreateStore(t.Context(), filepath.Join(dir, "store"), snapshots.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return &world{
		T: t, ctx: t.Context(), random: rand.New(rand.NewPCG(seed, 16)), dir: dir, store: store, releases: release.New(store),
		built: map[manifest.Digest]*drawn{}, released: map[uint64][]release.Arm{}, routes: map[string]string{},
	}
}

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

// step does what is drawn next.
func (w *world) step() {
	steps := []struct {
		share int
		do    func()
	}{{8, w.build}, {4, w.rebuild}, {8, w.start}, {6, w.split}, {6, w.promote}, {6, w.rollback}, {4, w.undo}, {6, w.collect}, {3, w.restart}, {49, w.query}}
	n := w.random.IntN(100)
	for _, s := range steps {
		if n < s.share {
			s.do()
			return
		}
		n -= s.share
	}
}

// metamorphicDim is the dimension of all towers: a release is of one model.
const metamorphicDim = 5

// vector draws small integers, so that products are exact and many of them tie.
func (w *world) vector() []float32 {
	v := make([]float32, metamorphicDim)
	for i := range v {
		v[i] = float32(w.random.IntN(9) - 4)
	}
	return v
}

// The attributes of games, by their places in the schema.
const (
	gameAge = iota
	gameFree
	gameGenre
)

// write writes a tower as Parquet.
func (w *world) write(name, id string, fields []attribute.Field, rows []*tower.Row) string {
	schema, err := attribute.NewSchema(fields)
	require.NoError(w, err)
	path := filepath.Join(w.dir, fmt.Sprintf("%s-%d.parquet", name, w.version))
	file, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: id, EmbeddingColumn: "embedding", Schema: schema})
	require.NoError(w, err)
	for _, row := range rows {
		require.NoError(w, file.Append(row))
	}
	require.NoError(w, file.Close())
	return path
}

// build builds a snapshot of towers of its own.
func (w *world) build() {
	w.version++
	b := &drawn{users: map[string][]float32{}}
	var apps, users []*tower.Row
	for i := range 1 + w.random.IntN(150) {
		g := game{id: fmt.Sprintf("game-%03d", i), vector: w.vector(), age: int64(w.random.IntN(20) - 1), free: w.random.IntN(2) == 0}
		g.genre = []string{"", "action", "puzzle", "puzzle"}[w.random.IntN(4)]
		b.games = append(b.games, g)
		row := &tower.Row{ID: g.id, Vector: g.vector, Attributes: make([]attribute.Value, 3)}
		row.Attributes[gameFree] = attribute.OfBool(g.free)
		if g.age >= 0 {
			row.Attributes[gameAge] = attribute.OfInt(g.age)
		}
		if g.genre != "" {
			row.Attributes[gameGenre] = attribute.OfKeyword(g.genre)
		}
		apps = append(apps, row)
	}
	for i := range 1 + w.random.IntN(30) {
		if w.random.IntN(5) == 0 {
			continue // new, or gone
		}
		id, v := fmt.Sprintf("user-%02d", i), w.vector()
		b.users[id] = v
		users = append(users, &tower.Row{ID: id, Vector: v})
	}
	if len(users) == 0 {
		b.users["user-00"] = w.vector()
		users = append(users, &tower.Row{ID: "user-00", Vector: b.users["user-00"]})
	}
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 4, 20
	b.options = builder.Options{
		Apps: builder.TowerOptions{Shards: 1 + w.random.IntN(4), Input: tower.Options{IDColumn: "app_id", Paths: []string{w.write("apps", "app_id",
			[]attribute.Field{{Name: "age", Type: attribute.Int}, {Name: "free", Type: attribute.Bool}, {Name: "genre", Type: attribute.Keyword}}, apps)}}},
		Users: builder.TowerOptions{Shards: 1 + w.random.IntN(2), Input: tower.Options{IDColumn: "user_id", Paths: []string{w.write("users", "user_id", nil, users)}}},
		Model: "feed", ModelVersion: fmt.Sprint("v", w.version), Params: params, Threads: 1 + w.random.IntN(2),
	}
	report, err := builder.Build(w.ctx, w.store, b.options)
	require.NoError(w, err)
	w.note("build %s: %s of %d games and %d users", b.options.ModelVersion, report.Digest.Short(), len(b.games), len(b.users))
	w.publish(report.Digest, b)
}

// publish notes that a snapshot was published, or published again.
func (w *world) publish(d manifest.Digest, b *drawn) {
	w.built[d] = b
	w.order = append(slices.DeleteFunc(w.order, func(old manifest.Digest) bool { return old == d }), d)
}

// rebuild builds a snapshot again, on another number of threads: it is the same.
func (w *world) rebuild() {
	d := w.any()
	again := w.built[d].options
	again.Threads = 3 - again.Threads
	w.note("rebuild %s", d.Short())
	report, err := builder.Build(w.ctx, w.store, again)
	require.NoError(w, err)
	require.Equal(w, d, report.Digest)
	w.publish(d, w.built[d])
}

// any draws a snapshot of the store.
func (w *world) any() manifest.Digest { return w.order[w.random.IntN(len(w.order))] }

// change notes a release, whose arms are those that were expected but for what the model
// does not know, and waits until the server serves it.
func (w *world) change(r *release.Release, err error, want func(arms []release.Arm) []release.Arm) {
	require.NoError(w, err)
	require.Equal(w, w.now+1, r.Generation)
	before := w.released[w.now]
	w.now = r.Generation
	w.released[w.now] = r.Arms
	clear(w.routes)
	type arm struct {
		name     string
		snapshot manifest.Digest
		weight   int
	}
	of := func(list []release.Arm) (out []arm) {
		for _, a := range list {
			out = append(out, arm{a.Name, a.Snapshot, a.Weight})
		}
		return out
	}
	require.ElementsMatch(w, of(want(slices.Clone(before))), of(r.Arms))
	sum := 0
	var buckets []int
	for _, a := range r.Arms {
		sum += a.Weight
		require.Len(w, a.Buckets, a.Weight)
		buckets = append(buckets, a.Buckets...)
	}
	slices.Sort(buckets)
	require.Equal(w, release.Total, sum)
	require.Len(w, slices.Compact(buckets), release.Total)
	if w.end != nil {
		w.await()
	}
}

// author is who changes what is released, and why gates do not count: towers of integers
// that are drawn anew have little in common.
func (w *world) author() release.Change {
	return release.Change{Author: "test", Override: "it is a test"}
}

// start releases a snapshot beside what serves.
func (w *world) start() {
	d, weight := w.any(), w.random.IntN(release.Total+1)
	arms := w.released[w.now]
	name := fmt.Sprint("arm-", w.now)
	w.note("start %s as %s with %d", d.Short(), name, weight)
	if len(arms) == 4 {
		return
	}
	r, err := w.releases.Start(w.ctx, release.StartOptions{Change: w.author(), Snapshot: d, Arm: name, Weight: weight})
	w.change(r, err, func(arms []release.Arm) []release.Arm {
		if len(arms) == 0 {
			weight = release.Total
		}
		for i, rest := range shares(arms, release.Total-weight) {
			arms[i].Weight = rest
		}
		return append(arms, release.Arm{Name: name, Snapshot: d, Weight: weight})
	})
}

// shares scales the weights of arms to a total: by largest remainders, the first ones first.
func shares(arms []release.Arm, total int) []int {
	out, order, left := make([]int, len(arms)), make([]int, len(arms)), total
	for i, a := range arms {
		out[i], order[i] = a.Weight*total/release.Total, i
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(arms[b].Weight*total%release.Total, arms[a].Weight*total%release.Total)
	})
	for _, i := range order[:max(left, 0)] {
		out[i]++
	}
	return out
}

// split gives all traffic to two arms, or one.
func (w *world) split() {
	arms := w.released[w.now]
	a, b := w.random.IntN(len(arms)), w.random.IntN(len(arms))
	weights := map[string]int{}
	for _, arm := range arms {
		weights[arm.Name] = 0
	}
	part := w.random.IntN(release.Total + 1)
	weights[arms[a].Name] += part
	weights[arms[b].Name] += release.Total - part
	w.note("split %v", weights)
	r, err := w.releases.Split(w.ctx, release.SplitOptions{Change: w.author(), Weights: weights})
	w.change(r, err, func(arms []release.Arm) []release.Arm {
		for i := range arms {
			arms[i].Weight = weights[arms[i].Name]
		}
		return arms
	})
}

// promote ends all arms but one.
func (w *world) promote() {
	arms := w.released[w.now]
	chosen := arms[w.random.IntN(len(arms))]
	w.note("promote %s", chosen.Name)
	if len(arms) == 1 {
		return
	}
	r, err := w.releases.Promote(w.ctx, w.author(), chosen.Name)
	w.change(r, err, func([]release.Arm) []release.Arm {
		return []release.Arm{{Name: release.Control, Snapshot: chosen.Snapshot, Weight: release.Total}}
	})
}

// rollback brings a generation back.
func (w *world) rollback() {
	to := w.now - uint64(w.random.IntN(int(min(w.now, 10))))
	w.note("rollback to generation %d", to)
	r, err := w.releases.Rollback(w.ctx, release.RollbackOptions{Change: w.author(), To: to})
	w.change(r, err, func([]release.Arm) []release.Arm { return w.released[to] })
}

// undo goes back without a name: what had all traffic then has it again, or nothing that
// could did, and then nothing changes.
func (w *world) undo() {
	r, err := w.releases.Rollback(w.ctx, release.RollbackOptions{Change: w.author()})
	if errors.Is(err, release.ErrChange) {
		w.note("rollback: %v", err)
		now, err := w.releases.Current(w.ctx)
		require.NoError(w, err)
		require.Equal(w, w.now, now.Generation)
		return
	}
	require.NoError(w, err)
	w.note("rollback, which is to generation %d", r.Of)
	list := withTraffic(r.Arms)
	require.Len(w, list, 1)
	require.NotEqual(w, list, withTraffic(w.released[w.now]), "it had all traffic before")
	w.change(r, err, func([]release.Arm) []release.Arm { return w.released[r.Of] })
}

// withTraffic returns the snapshots of arms that have traffic.
func withTraffic(arms []release.Arm) (list []manifest.Digest) {
	for _, a := range arms {
		if a.Weight > 0 && !slices.Contains(list, a.Snapshot) {
			list = append(list, a.Snapshot)
		}
	}
	return list
}

// collect deletes what nobody needs.
func (w *world) collect() {
	keep := w.random.IntN(3)
	w.note("collect, and keep %d", keep)
	done, err := w.store.Collect(w.ctx, snapshots.CollectOptions{Live: w.releases.Live, Keep: keep})
	require.NoError(w, err)
	needed := map[manifest.Digest]bool{}
	for generation := w.now; generation > 0 && generation+10 > w.now; generation-- {
		for _, a := range w.released[generation] {
			needed[a.Snapshot] = true
		}
	}
	for _, d := range w.order[max(0, len(w.order)-keep):] {
		needed[d] = true
	}
	for _, d := range done.Snapshots {
		require.False(w, needed[d], "snapshot %s is needed", d)
		w.order = slices.DeleteFunc(w.order, func(old manifest.Digest) bool { return old == d })
	}
	list, err := w.store.Snapshots(w.ctx)
	require.NoError(w, err)
	var there []manifest.Digest
	for _, p := range list {
		there = append(there, p.Digest)
		require.NoError(w, snapshots.Verify(w.ctx, w.store, p.Digest, func(string) {}))
	}
	require.ElementsMatch(w, w.order, there)
	for d := range needed {
		require.Contains(w, there, d)
	}
}

// restart ends the server, if it runs, and starts it.
func (w *world) restart() {
	w.stop()
	w.restarts++
	w.note("restart")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w, err)
	var ctx context.Context
	ctx, w.end = context.WithCancel(context.Background())
	w.ended = make(chan error, 1)
	go func() {
		w.ended <- server.Run(ctx, server.Config{Store: w.store, Listener: l, Keep: time.Hour, Options: server.Options{MaxDeadline: 2 * time.Minute}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	}()
	w.http = &http.Transport{}
	client := &http.Client{Transport: w.http}
	w.answer = tandemv1connect.NewRetrievalServiceClient(client, "http://"+l.Addr().String())
	w.admin = tandemv1connect.NewAdminServiceClient(client, "http://"+l.Addr().String())
	w.await()
}

func (w *world) stop() {
	if w.end == nil {
		return
	}
	w.http.CloseIdleConnections()
	w.end()
	w.end = nil
	require.NoError(w, <-w.ended)
}

// await waits until the server serves what is released.
func (w *world) await() {
	require.Eventually(w, func() bool {
		status, err := w.admin.GetStatus(w.ctx, connect.NewRequest(&tandemv1.GetStatusRequest{}))
		return err == nil && status.Msg.Generation == w.now
	}, 2*time.Minute, 10*time.Millisecond)
}

// metamorphicFilters are filters that mean the same, and what they mean.
var metamorphicFilters = []struct {
	same     []string
	eligible func(*game) bool
}{
	{[]string{"", "true", "free || !free"}, func(*game) bool { return true }},
	{[]string{"free", "!(!free)", "free == true", "free && free"}, func(g *game) bool { return g.free }},
	{[]string{`genre == "puzzle"`, `"puzzle" == genre`, `genre in ["puzzle"]`, `has(genre) && !(genre != "puzzle")`}, func(g *game) bool { return g.genre == "puzzle" }},
	{[]string{"age >= 7 && age < 12", "age < 12 && age >= 7", "age > 6 && age <= 11", "age in [7, 8, 9, 10, 11]"}, func(g *game) bool { return g.age >= 7 && g.age < 12 }},
	{[]string{`!has(age) || genre == "action"`, `genre == "action" || !has(age)`}, func(g *game) bool { return g.age < 0 || g.genre == "action" }},
	{[]string{"age > 100"}, func(*game) bool { return false }},
}

// found lists the candidates of an answer.
func found(r *tandemv1.RetrieveResponse) (out []string) {
	for _, c := range r.Candidates {
		out = append(out, fmt.Sprintf("%s %g", c.Id, c.Score))
	}
	return out
}

// turn asks for the next page of an answer: it is of the same snapshot, whatever was released
// since, unless the server has begun without that.
func (w *world) turn() {
	i := w.random.IntN(len(w.turning))
	p := w.turning[i]
	done := func() { w.turning = slices.Delete(w.turning, i, i+1) }
	p.request.K = uint32(1 + w.random.IntN(30))
	w.note("page %v of snapshot %s", p.request, p.snapshot.Short())
	answer, err := w.answer.Retrieve(w.ctx, connect.NewRequest(p.request))
	if err != nil {
		require.Equal(w, connect.CodeFailedPrecondition, connect.CodeOf(err), "%v", err)
		require.Less(w, p.restarts, w.restarts, "the snapshot is kept")
		require.False(w, slices.ContainsFunc(w.released[w.now], func(a release.Arm) bool { return a.Snapshot == p.snapshot }), "it answers")
		done()
		return
	}
	n := min(int(p.request.K), len(p.rest))
	require.Equal(w, string(p.snapshot), answer.Msg.Snapshot)
	require.Equal(w, p.rest[:n], append([]string{}, found(answer.Msg)...))
	p.rest, p.request.PageToken = p.rest[n:], answer.Msg.NextPageToken
	require.Equal(w, len(p.rest) == 0, p.request.PageToken == "")
	if len(p.rest) == 0 {
		done()
	}
}

// query asks for candidates, and the same in other words.
func (w *world) query() {
	if len(w.turning) > 0 && w.random.IntN(3) == 0 {
		w.turn()
		return
	}
	user := fmt.Sprintf("user-%02d", w.random.IntN(32))
	filter := metamorphicFilters[w.random.IntN(len(metamorphicFilters))]
	k := uint32(1 + w.random.IntN(30))
	exact := new(float64(1))
	var asked *tandemv1.RetrieveRequest
	ask := func(change func(*tandemv1.RetrieveRequest)) (*tandemv1.RetrieveResponse, error) {
		q := &tandemv1.RetrieveRequest{UserId: user, K: k, Filter: filter.same[w.random.IntN(len(filter.same))], RecallTarget: exact}
		change(q)
		asked = q
		w.note("query %v", q)
		answer, err := w.answer.Retrieve(w.ctx, connect.NewRequest(q))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	first, err := ask(func(*tandemv1.RetrieveRequest) {})
	if connect.CodeOf(err) == connect.CodeNotFound {
		without := func(a release.Arm) bool { return w.built[a.Snapshot].users[user] == nil }
		require.True(w, slices.ContainsFunc(w.released[w.now], without), "every arm has %s", user)
		return
	}
	require.NoError(w, err)
	require.Equal(w, w.now, first.Generation)
	arm := slices.IndexFunc(w.released[w.now], func(a release.Arm) bool { return a.Name == first.Arm })
	require.GreaterOrEqual(w, arm, 0, first.Arm)
	snapshot := w.released[w.now][arm].Snapshot
	require.Equal(w, string(snapshot), first.Snapshot)
	require.Positive(w, w.released[w.now][arm].Weight)
	if before, ok := w.routes[user]; ok {
		require.Equal(w, before, first.Arm, "a user stays in an arm")
	}
	w.routes[user] = first.Arm

	b := w.built[snapshot]
	v := b.users[user]
	require.NotNil(w, v, "the arm of the answer has no %s", user)
	var eligible []string
	for _, g := range b.ranked(v) {
		if filter.eligible(&g) {
			eligible = append(eligible, fmt.Sprintf("%s %g", g.id, dotOf(v, g.vector)))
		}
	}
	n := min(int(k), len(eligible))
	require.Equal(w, eligible[:n], found(first))
	require.EqualValues(w, len(eligible), first.Eligible)
	require.Equal(w, n == len(eligible), first.NextPageToken == "")
	if n < len(eligible) && len(w.turning) < 10 {
		asked.PageToken = first.NextPageToken
		w.turning = append(w.turning, &turning{asked, eligible[n:], snapshot, w.restarts})
	}

	var all []string
	for _, g := range b.games {
		all = append(all, g.id)
	}
	changes := map[string]func(*tandemv1.RetrieveRequest){
		"other words":  func(*tandemv1.RetrieveRequest) {},
		"all included": func(q *tandemv1.RetrieveRequest) { q.IncludeIds = all },
		"others left out": func(q *tandemv1.RetrieveRequest) {
			q.ExcludeIds = []string{"nobody"}
			for _, g := range b.games {
				if !filter.eligible(&g) {
					q.ExcludeIds = append(q.ExcludeIds, g.id)
				}
			}
			q.Filter = ""
		},
		"by vector": func(q *tandemv1.RetrieveRequest) {
			q.UserId, q.Vector, q.ModelVersion, q.RequestKey = "", v, first.ModelVersion, user
		},
		"vector twice": func(q *tandemv1.RetrieveRequest) {
			q.UserId, q.ModelVersion, q.RequestKey = "", first.ModelVersion, user
			q.Vectors = []*tandemv1.Vector{{Values: v}, {Values: v}}
		},
	}
	names := slices.Sorted(maps.Keys(changes))
	name := names[w.random.IntN(len(names))]
	again, err := ask(changes[name])
	require.NoError(w, err)
	require.Equal(w, first.Arm, again.Arm, name)
	require.Equal(w, found(first), found(again), name)
}

// ranked returns all games, best first, ties by id.
func (b *drawn) ranked(v []float32) []game {
	list := slices.Clone(b.games)
	slices.SortFunc(list, func(x, y game) int {
		return cmp.Or(cmp.Compare(dotOf(v, y.vector), dotOf(v, x.vector)), cmp.Compare(x.id, y.id))
	})
	return list
}

// dotOf is the inner product of vectors of small integers.
func dotOf(a, b []float32) (sum float32) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
