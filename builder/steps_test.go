package builder_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// inSteps does all steps of a build, in an order drawn from r, and returns what the last one
// does. Steps before it may refuse.
func inSteps(ctx context.Context, store *snapshots.Store, o builder.Options, size int64, r *rand.Rand) (*builder.Report, error) {
	_, id, err := builder.MakePlan(ctx, store, o, size)
	if err != nil {
		return nil, err
	}
	so := builder.StepOptions{Threads: 1, Memory: 1, Tool: o.Tool}
	open := func() (*builder.Steps, error) { return builder.OpenSteps(ctx, store, string(id)[:16], so) }
	passes := func(err error) bool { return err == nil || errors.As(err, new(*builder.RejectedError)) }
	s, err := open()
	if err != nil {
		return nil, err
	}
	for _, i := range r.Perm(len(s.Plan().Tasks)) {
		if err := s.Partition(ctx, i); !passes(err) {
			return nil, err
		}
	}
	for _, i := range r.Perm(s.Plan().Shards()) {
		if s, err = open(); err != nil {
			return nil, err
		}
		if err := s.Shard(ctx, i); !passes(err) && !strings.Contains(err.Error(), "no row is left") {
			return nil, err
		}
	}
	if s, err = open(); err != nil {
		return nil, err
	}
	return s.Commit(ctx, builder.CommitOptions{})
}

// small is a build of a few rows, with all that a build may meet.
type small struct {
	options builder.Options
	forget  []string
}

func drawSmall(t *rapid.T, dir string) small {
	seed := rapid.Uint64().Draw(t, "seed")
	r := rand.New(rand.NewPCG(seed, 3))
	apps := rows("app", rapid.IntRange(1, 60).Draw(t, "apps"), 4, seed)
	users := bare(rows("user", rapid.IntRange(1, 60).Draw(t, "users"), 4, seed+1))
	spoil := func(list []row) []row {
		for range rapid.IntRange(0, 6).Draw(t, "spoilt") {
			at := r.IntN(len(list))
			bad := row{list[at].id, slices.Clone(list[at].vector), list[at].values}
			switch r.IntN(5) {
			case 0, 1: // twice, with another vector
				bad.vector[0] += float32(r.IntN(3))
			case 2:
				bad.id, bad.vector[1] = bad.id+"x", float32(math.NaN())
			case 3:
				bad.id, bad.vector = bad.id+"y", bad.vector[:3]
			case 4:
				bad.id = ""
			}
			list = slices.Insert(list, r.IntN(len(list)+1), bad)
		}
		return list
	}
	apps, users = spoil(apps), spoil(users)
	s, _ := attribute.NewSchema([]attribute.Field{
		{Name: "free", Type: attribute.Bool}, {Name: "genre", Type: attribute.Keyword}, {Name: "min_age", Type: attribute.Int},
		{Name: "platforms", Type: attribute.KeywordList}, {Name: "price", Type: attribute.Float}, {Name: "released", Type: attribute.Timestamp},
	})
	files := func(name, column string, s attribute.Schema, list []row) string {
		folder := filepath.Join(dir, name)
		must(t, os.MkdirAll(folder, 0o755))
		n := rapid.IntRange(1, 4).Draw(t, "files of "+name)
		for i := range n {
			w, err := tower.CreateParquet(filepath.Join(folder, fmt.Sprintf("part-%d.parquet", i)), tower.ParquetOptions{IDColumn: column, EmbeddingColumn: "embedding", Schema: s, RowGroupRows: 7})
			must(t, err)
			for _, row := range list[len(list)*i/n : len(list)*(i+1)/n] {
				must(t, w.Append(&tower.Row{ID: row.id, Vector: row.vector, Attributes: row.values}))
			}
			must(t, w.Close())
		}
		return folder
	}
	o := builder.Options{
		Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{files("apps", "app_id", s, apps)}, IDColumn: "app_id"}, Shards: rapid.IntRange(1, 4).Draw(t, "shards")},
		Users: builder.TowerOptions{Input: tower.Options{Paths: []string{files("users", "user_id", attribute.Schema{}, users)}, IDColumn: "user_id"}, Shards: rapid.IntRange(1, 4).Draw(t, "user shards")},
		Model: "feed", ModelVersion: "1", Params: index.DefaultParams(rapid.SampledFrom([]index.Metric{index.Dot, index.Cosine, index.L2}).Draw(t, "metric")),
		Threads: 1, MaxRejected: rapid.SampledFrom([]int{100, 100, 100, 5}).Draw(t, "max rejected"), Tool: "a test",
	}
	if n := rapid.IntRange(0, 3).Draw(t, "files of lines"); n > 0 {
		folder := filepath.Join(dir, "lines")
		must(t, os.MkdirAll(folder, 0o755))
		for i := range n {
			var text strings.Builder
			for range 12 {
				id, stars := apps[r.IntN(len(apps))].id, fmt.Sprint(r.IntN(5))
				if r.IntN(12) == 0 {
					id = "nobody"
				}
				if r.IntN(12) == 0 {
					stars = `"many"`
				}
				fmt.Fprintf(&text, "{\"app_id\": %q, \"stars\": %s}\n", id, stars)
			}
			must(t, os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.jsonl", i)), []byte(text.String()), 0o644))
		}
		o.Apps.Attributes = tower.AttributeOptions{Paths: []string{folder}, IDKey: "app_id"}
	}
	if rapid.Bool().Draw(t, "segments") {
		o.Segments = filepath.Join(dir, "segments.yaml")
		must(t, os.WriteFile(o.Segments, []byte("free: free\nyoung: min_age < 9\n"), 0o644))
	}
	w := small{options: o}
	for range rapid.IntRange(0, 2).Draw(t, "forgotten") {
		if id := users[r.IntN(len(users))].id; id != "" {
			w.forget = append(w.forget, id)
		}
	}
	return w
}

func must(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// A build in steps is the build on one machine: the same digest, the same report, or the same
// error, whatever the tasks are, in whatever order steps are done.
func TestStepsAreTheBuild(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(rt, err)
		w := drawSmall(rt, dir)
		var store *snapshots.Store
		if rapid.Bool().Draw(rt, "bucket") {
			store, err = snapshots.NewStore(objectstest.NewFaults().Bucket(""), snapshots.Options{Cache: filepath.Join(dir, "cache")})
		} else {
			store, err = snapshots.CreateStore(t.Context(), filepath.Join(dir, "store"), snapshots.Options{})
		}
		must(rt, err)
		defer store.Close()
		for _, id := range w.forget {
			add(t, store, forgets(id))
		}
		whole, wholeErr := builder.Build(t.Context(), store, w.options)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "order"), 1))
		parts, partsErr := inSteps(t.Context(), store, w.options, rapid.Int64Range(1, 5000).Draw(rt, "task size"), r)
		if wholeErr != nil {
			assert.EqualError(rt, partsErr, wholeErr.Error())
			assert.ErrorAs(rt, partsErr, new(*builder.RefusedError))
			return
		}
		must(rt, partsErr)
		assert.Equal(rt, encoded(rt, whole.Manifest), encoded(rt, parts.Manifest))
		assert.Equal(rt, whole.Digest, parts.Digest)
		assert.Equal(rt, whole.Rejected, parts.Rejected)
		assert.Equal(rt, whole.Gates.Report, parts.Gates.Report)
	})
}

func encoded(t require.TestingT, m *manifest.Manifest) string {
	data, err := m.Encode()
	require.NoError(t, err)
	return string(data)
}

// killable is a store that from one request on answers none, as a process that is killed sees
// it; and it counts what was written whole.
type killable struct {
	*objectstest.Faults
	mu     sync.Mutex // shards are asked for side by side
	left   int        // requests until it is killed; negative is never
	asked  int
	writes map[string]int
	die    context.CancelFunc // of the process
}

func newKillable() *killable {
	k := &killable{Faults: objectstest.NewFaults(), left: -1, writes: map[string]int{}}
	k.Inject(objectstest.Rule{Err: objectstest.ErrDenied, Choose: k.meet})
	return k
}

func (k *killable) meet(q objectstest.Request) objectstest.Fault {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	switch {
	case k.left == 0:
		k.die()
		return objectstest.Fail
	case k.left > 0:
		k.left--
	}
	if large(q.Key) && (q.Op == objectstest.Write || q.Op == objectstest.Create) {
		k.writes[q.Key]++
		if k.left == 0 { // its answer is lost
			return objectstest.Lose
		}
	}
	return ""
}

// large reports whether an object has rows or is a shard.
func large(key string) bool {
	return strings.Contains(key, "/partition/") || strings.Contains(key, "/received/") || strings.HasSuffix(key, ".shard")
}

// A build whose steps are killed at any request to the store goes on when they are run again:
// it gives the same digest, nothing half can be seen meanwhile, and nothing that was written
// whole is written again.
func TestStepsAreKilled(t *testing.T) {
	o := options(t, index.Cosine, rows("app", 60, 4, 1), rows("user", 40, 4, 2))
	o.Threads = 1
	_, want := build(t, o)
	steps := func(k *killable, seed uint64) (*builder.Report, error) {
		store, err := snapshots.NewStore(k.Bucket("", objects.WithTimeout(time.Hour)), snapshots.Options{Cache: t.TempDir()})
		require.NoError(t, err)
		defer store.Close()
		ctx, die := context.WithCancel(t.Context())
		defer die()
		k.die = die
		return inSteps(ctx, store, o, 1, rand.New(rand.NewPCG(seed, 1)))
	}
	k := newKillable()
	report, err := steps(k, 1)
	require.NoError(t, err)
	require.Equal(t, want.Digest, report.Digest)
	total := k.asked
	r := rand.New(rand.NewPCG(4, 4))
	for point := range killPoints {
		k := newKillable()
		for range 1 + point%2 { // the second time it is killed further on, or not at all
			k.left = 1 + r.IntN(total)
			if _, err := steps(k, uint64(point)); err != nil {
				for _, key := range k.Keys("snapshots/") {
					assert.Equal(t, "snapshots/"+string(want.Digest)+".json", key, "only what is whole can be seen")
				}
			}
		}
		k.left = -1
		report, err = steps(k, uint64(point))
		require.NoError(t, err, "point %d", point)
		assert.Equal(t, want.Digest, report.Digest)
		for key, n := range k.writes {
			assert.Equal(t, 1, n, "%s was written again", key)
		}
		assert.Len(t, k.Keys("builds/"), 2, "the plan and the result are left")
	}
}

// A collection between any two steps deletes nothing of a build, and all of it once it is
// abandoned; users' ids are gone once it is committed.
func TestStepsAreCollected(t *testing.T) {
	o := options(t, index.Dot, rows("app", 60, 4, 1), rows("user", 40, 4, 2))
	_, want := build(t, o)
	f := objectstest.NewFaults()
	store, err := snapshots.NewStore(f.Bucket(""), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	collect := func() {
		t.Helper()
		_, err := store.Collect(t.Context(), snapshots.CollectOptions{Unreleased: true, Keep: 9})
		require.NoError(t, err)
	}
	start := func() *builder.Steps {
		_, id, err := builder.MakePlan(t.Context(), store, o, 1)
		require.NoError(t, err)
		s, err := builder.OpenSteps(t.Context(), store, string(id), builder.StepOptions{})
		require.NoError(t, err)
		return s
	}
	s := start()
	for i := range s.Plan().Tasks {
		require.NoError(t, s.Partition(t.Context(), i))
		collect()
	}
	for i := range s.Plan().Shards() {
		require.NoError(t, s.Shard(t.Context(), i))
		f.Advance(6 * 24 * time.Hour)
		collect()
	}
	require.Len(t, f.Keys("shards/"), s.Plan().Shards())
	report, err := s.Commit(t.Context(), builder.CommitOptions{})
	require.NoError(t, err)
	require.Equal(t, want.Digest, report.Digest)
	for _, key := range f.Keys("builds/") {
		data, _ := f.Data(key)
		assert.NotContains(t, string(data), "user-", key)
	}
	collect()
	require.Len(t, f.Keys("shards/"), s.Plan().Shards())
	again, err := s.Commit(t.Context(), builder.CommitOptions{})
	require.NoError(t, err)
	assert.Equal(t, report.Digest, again.Digest)
	assert.Equal(t, encoded(t, report.Manifest), encoded(t, again.Manifest))

	// Without its snapshot it begins anew, and is abandoned.
	require.NoError(t, store.Remove(t.Context(), report.Digest, nil))
	s = start()
	require.NoError(t, s.Partition(t.Context(), 0))
	f.Advance(snapshots.BuildLife + time.Hour)
	collect()
	assert.Empty(t, f.Keys("builds/"))
	assert.Empty(t, f.Keys("shards/"))
	_, err = builder.OpenSteps(t.Context(), store, string(s.ID()), builder.StepOptions{})
	assert.ErrorIs(t, err, builder.ErrNoBuild)
}

// Steps do not mind what else is done to a store meanwhile: collections delete nothing that they
// need, and who is forgotten by then is left out by the next build.
func TestStepsBesideOthers(t *testing.T) {
	o := options(t, index.Dot, rows("app", 300, 8, 1), rows("user", 100, 8, 2))
	store := newStore(t)
	add(t, store, forgets("nobody"))
	want, err := builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	require.NoError(t, store.Remove(t.Context(), want.Digest, nil))
	_, id, err := builder.MakePlan(t.Context(), store, o, 1)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var others errgroup.Group
	collections, forgotten := 0, 0
	others.Go(func() error {
		for ; ctx.Err() == nil; collections++ {
			if _, err := store.Collect(ctx, snapshots.CollectOptions{Unreleased: true, Keep: 9}); err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})
	others.Go(func() error {
		r, err := live.Open(ctx, store.Objects(), live.Options{Author: "a test"})
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		for ; ctx.Err() == nil; forgotten++ {
			if _, err := r.Append(ctx, []live.Event{forgets(fmt.Sprintf("user-%d", forgotten%100))}); err != nil && ctx.Err() == nil {
				return err
			}
		}
		if err := <-ended; !errors.Is(err, context.Canceled) { // it was stopped
			return err
		}
		return nil
	})
	report, err := func() (*builder.Report, error) {
		defer stop()
		s, err := builder.OpenSteps(t.Context(), store, string(id), builder.StepOptions{Tool: o.Tool})
		if err != nil {
			return nil, err
		}
		for i := range s.Plan().Tasks {
			if err := s.Partition(t.Context(), i); err != nil {
				return nil, err
			}
		}
		for i := range s.Plan().Shards() {
			if err := s.Shard(t.Context(), i); err != nil {
				return nil, err
			}
		}
		return s.Commit(t.Context(), builder.CommitOptions{})
	}()
	require.NoError(t, errors.Join(err, others.Wait()))
	assert.Equal(t, want.Digest, report.Digest)
	require.NoError(t, store.CheckShards(t.Context(), report.Manifest))
	assert.Positive(t, collections)
	assert.Positive(t, forgotten)
}

// What a step is told that cannot be is an error that says so, and which of them pass.
func TestStepErrors(t *testing.T) {
	o := options(t, index.Dot, rows("app", 30, 4, 1), rows("user", 20, 4, 2))
	store := newStore(t)
	_, id, err := builder.MakePlan(t.Context(), store, o, 1)
	require.NoError(t, err)
	_, same, err := builder.MakePlan(t.Context(), store, o, 1)
	require.NoError(t, err)
	require.Equal(t, id, same)
	s, err := builder.OpenSteps(t.Context(), store, string(id), builder.StepOptions{})
	require.NoError(t, err)
	require.EqualError(t, s.Partition(t.Context(), 2), "task 2: the build has 2; accepted: 0 to 1")
	require.EqualError(t, s.Shard(t.Context(), -1), "shard -1: the build has 5; accepted: 0 to 4")
	require.NoError(t, s.Partition(t.Context(), 1))
	var incomplete *builder.IncompleteError
	require.ErrorAs(t, s.Shard(t.Context(), 0), &incomplete)
	require.Equal(t, []string{"task 0"}, incomplete.Missing)
	_, err = s.Commit(t.Context(), builder.CommitOptions{})
	require.ErrorAs(t, err, &incomplete)

	_, err = builder.OpenSteps(t.Context(), store, string(id), builder.StepOptions{Tool: "another"})
	require.ErrorAs(t, err, new(*builder.RefusedError))
	require.ErrorContains(t, err, "use one release for all steps")

	// An input that is another one by then.
	path := o.Apps.Input.Paths[0]
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	changed := slices.Clone(data)
	changed[len(data)/2] ^= 1
	require.NoError(t, os.WriteFile(path, changed, 0o644))
	err = s.Partition(t.Context(), 0)
	require.ErrorAs(t, err, new(*builder.RefusedError))
	require.ErrorContains(t, err, "it is not what was planned")
	require.NoError(t, os.WriteFile(path, data, 0o644))
	require.NoError(t, s.Partition(t.Context(), 0))

	// An object that rots is done again.
	key := "builds/" + string(id) + "/partition/000000"
	whole, err := store.Objects().Read(t.Context(), key)
	require.NoError(t, err)
	rotten := slices.Clone(whole)
	rotten[20] ^= 1
	require.NoError(t, store.Objects().Write(t.Context(), key, rotten))
	failed := 0
	for i := range 3 {
		if err := s.Shard(t.Context(), i); err != nil {
			failed++
			require.NotErrorIs(t, err, builder.ErrNoBuild)
			require.False(t, errors.As(err, new(*builder.RefusedError)), "%v", err)
			require.NoError(t, s.Partition(t.Context(), 0))
		}
	}
	require.Equal(t, 1, failed)
	restored, err := store.Objects().Read(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, whole, restored)
	require.Equal(t, shard.Apps, s.Plan().Tasks[0].Tower)
	require.True(t, id.Valid())

	// So is one in whose place another lies, whole as that is.
	other, err := store.Objects().Read(t.Context(), "builds/"+string(id)+"/partition/000001")
	require.NoError(t, err)
	require.NoError(t, store.Objects().Write(t.Context(), key, other))
	require.NoError(t, store.Objects().Delete(t.Context(), "builds/"+string(id)+"/merged.json"))
	err = s.Shard(t.Context(), 0)
	require.ErrorContains(t, err, "partition/000000: it is another object, which was put in its place; it is deleted, to be done again")
	require.False(t, errors.As(err, new(*builder.RefusedError)), "%v", err)
	require.NoError(t, s.Partition(t.Context(), 0))
	require.NoError(t, s.Shard(t.Context(), 0))

	// What a process that died had begun to write has rows, and goes with the others.
	dead := filepath.Join(store.Objects().Dir(), "builds", string(id), "partition", ".000001.1.tmp")
	require.NoError(t, os.WriteFile(dead, other, 0o600))
	for i := range s.Plan().Shards() {
		require.NoError(t, s.Shard(t.Context(), i))
	}
	_, err = s.Commit(t.Context(), builder.CommitOptions{})
	require.NoError(t, err)
	require.NoFileExists(t, dead)
}
