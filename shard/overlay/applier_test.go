package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// follow runs a replica of a new store's log, until the test ends.
func follow(t testing.TB, apply func(*live.State, []live.Change)) *live.Replica {
	bucket, err := objects.Open(context.Background(), t.TempDir())
	require.NoError(t, err)
	replica, err := live.Open(context.Background(), bucket, live.Options{Poll: time.Hour, Apply: apply})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = replica.Run(ctx) // it ends with ctx
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		require.NoError(t, bucket.Close())
	})
	return replica
}

// upsert returns an event with a random vector and attributes.
func upsert(d *rand.Rand, id string) live.Event {
	return live.Event{
		Kind: live.Upsert, Tower: shard.Apps, Entity: id, Model: model, ModelVersion: version,
		Vector:     []float32{float32(d.NormFloat64()), float32(d.NormFloat64()), 1},
		Attributes: values{"year": attribute.OfInt(int64(d.IntN(9))), "genre": attribute.OfKeyword("x")},
	}
}

// Runs are few however many appends there were, every row is found that there is, and those
// that are gone take no memory for long.
func TestRunsAreFew(t *testing.T) {
	a := applierOf(t, nil, index.Dot)
	var failed error
	replica := follow(t, func(s *live.State, changes []live.Change) { failed = errors.Join(failed, a.Apply(s, changes)) })
	d := rand.New(rand.NewPCG(1, 2))
	alive := map[string][]float32{}
	most := 0
	for range 150 {
		var events []live.Event
		for range 1 + d.IntN(200) {
			e := upsert(d, fmt.Sprintf("app-%d", d.IntN(15_000)))
			if alive[e.Entity] = e.Vector; d.IntN(5) == 0 {
				e = live.Event{Kind: live.Remove, Tower: shard.Apps, Entity: e.Entity}
				delete(alive, e.Entity)
			}
			events = append(events, e)
		}
		_, err := replica.Append(t.Context(), events)
		require.NoError(t, err)
		require.NoError(t, failed)
		status := a.Now().Status.Apps
		most = max(most, status.Runs)
		require.Equal(t, len(alive), status.Fresh)
		require.Equal(t, len(alive), a.Now().Apps.Rows())
	}
	require.LessOrEqual(t, most, 8)
	t.Logf("%d rows in %d runs, %d at most", len(alive), a.Now().Status.Apps.Runs, most)
	for id, want := range alive {
		got, ok, err := a.Now().Apps.Vector(t.Context(), shard.Moment{}, id)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	var events []live.Event
	for id := range alive {
		events = append(events, live.Event{Kind: live.Remove, Tower: shard.Apps, Entity: id})
		if len(events) == live.MaxEvents {
			_, err := replica.Append(t.Context(), events)
			require.NoError(t, err)
			events = nil
		}
	}
	if len(events) > 0 {
		_, err := replica.Append(t.Context(), events)
		require.NoError(t, err)
	}
	require.NoError(t, failed)
	require.Equal(t, overlay.TowerStatus{}, a.Now().Status.Apps)
	require.Len(t, a.Now().Apps.Parts(), 1)
}

// In a run of thousands of rows, too, each has its own vector, attributes and window.
func TestLargeRun(t *testing.T) {
	const rows = 5000
	a := applierOf(t, nil, index.L2)
	var failed error
	replica := follow(t, func(s *live.State, changes []live.Change) { failed = errors.Join(failed, a.Apply(s, changes)) })
	d := rand.New(rand.NewPCG(1, 2))
	var events []live.Event
	for i := range rows {
		e := upsert(d, fmt.Sprintf("app-%04d", i))
		e.Attributes["year"] = attribute.OfInt(int64(i % 9))
		if i%3 == 0 {
			e.Window = &live.Window{From: clock}
		}
		events = append(events, e)
	}
	for part := range slices.Chunk(events, live.MaxEvents) {
		_, err := replica.Append(t.Context(), part)
		require.NoError(t, err)
		require.NoError(t, failed)
	}
	now := a.Now()
	require.LessOrEqual(t, now.Status.Apps.Runs, 2) // so one has at least half of the rows
	year, ok := schema().Lookup("year")
	require.True(t, ok)
	ask := func(e *live.Event, at time.Time) shard.Candidate {
		answer, err := now.Apps.Search(t.Context(), &shard.Query{Vectors: [][]float32{e.Vector}, K: 1, Target: 1, Moment: shard.Moment{Time: at}, Attributes: []int{year}})
		require.NoError(t, err)
		require.Len(t, answer.Candidates, 1)
		return answer.Candidates[0]
	}
	for i := 0; i < rows; i += 7 {
		e := &events[i]
		got := ask(e, clock.Add(time.Hour))
		require.Equal(t, e.Entity, got.ID)
		require.Zero(t, got.Score)
		require.Equal(t, []attribute.Value{attribute.OfInt(int64(i % 9))}, got.Attributes)
		before := ask(e, clock.Add(-time.Hour))
		require.Equal(t, i%3 == 0, before.ID != e.Entity, "%s before its window", e.Entity)
	}
}

// What was published does not change, whatever is applied after it.
func TestPublishedDoesNotChange(t *testing.T) {
	d := rand.New(rand.NewPCG(1, 2))
	rows := map[string]*entity{}
	for i := range 300 {
		e := upsert(d, "")
		rows[fmt.Sprintf("app-%d", i)] = &entity{e.Vector, e.Attributes}
	}
	a := applierOf(t, rows, index.Dot)
	replica := follow(t, func(s *live.State, changes []live.Change) {
		if err := a.Apply(s, changes); err != nil {
			t.Error(err)
		}
	})
	type published struct {
		over   *overlay.Overlaid
		answer *shard.Answer
	}
	filter, err := a.Now().Apps.Compile("year < 6")
	require.NoError(t, err)
	bound, err := filter.Bind(t.Context(), nil)
	require.NoError(t, err)
	ask := func(o *overlay.Overlaid) *shard.Answer {
		q := &shard.Query{Moment: shard.Moment{Position: o.Position, Time: clock}, Vectors: [][]float32{{1, 1, 1}}, K: 500, Target: 1, Filter: &bound, Attributes: []int{6}}
		answer, err := o.Apps.Search(t.Context(), q)
		require.NoError(t, err)
		answer.FanOut, answer.Merge = 0, 0
		for i := range answer.Shards {
			answer.Shards[i].Filter, answer.Shards[i].Search = 0, 0
		}
		return answer
	}
	var all []published
	for range 40 {
		var events []live.Event
		for range 1 + d.IntN(30) {
			e := upsert(d, fmt.Sprintf("app-%d", d.IntN(400)))
			switch d.IntN(4) {
			case 0:
				e = live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: e.Entity, Reason: "test"}
			case 1:
				e = live.Event{Kind: live.Restore, Tower: shard.Apps, Entity: e.Entity}
			case 2:
				e = live.Event{Kind: live.SetAttributes, Tower: shard.Apps, Entity: e.Entity, Attributes: e.Attributes}
			}
			events = append(events, e)
		}
		_, err := replica.Append(t.Context(), events)
		require.NoError(t, err)
		all = append(all, published{a.Now(), ask(a.Now())})
	}
	for _, p := range all {
		require.Equal(t, p.answer, ask(p.over))
	}
}

// Where a page of the snapshot cannot be read, a takedown holds all the same, and the change
// is made up for once it can be.
func TestUnreadableSnapshot(t *testing.T) {
	dir := t.TempDir()
	store := shardtest.Store(t, dir)
	apps := shardtest.Grid(3000)
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 4, 8
	m := shardtest.Manifest(t, store, apps, 1, 2, params)
	open := func(kind shard.Kind) *shard.Tower {
		tw, err := snapshots.OpenTower(t.Context(), store, m, kind)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, tw.Close()) })
		return tw
	}
	snapshot := overlay.Snapshot{Apps: open(shard.Apps), Users: open(shard.Users), Model: model, ModelVersion: version}
	a, err := overlay.New(t.Context(), snapshot, live.NewState())
	require.NoError(t, err)
	before := a.Now()
	var failed error
	replica := follow(t, func(s *live.State, changes []live.Change) { failed = a.Apply(s, changes) })

	path := store.ShardPath(m.Apps.Shards[shard.Partition("app-2999", 2)].Digest)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, sections.PageSize))
	_, err = replica.Append(t.Context(), []live.Event{{Kind: live.Takedown, Tower: shard.Apps, Entity: "app-2999", Reason: "malware"}})
	require.NoError(t, err)
	unreadable, ok := errors.AsType[*shard.UnreadableError](failed)
	require.True(t, ok, failed)
	require.Equal(t, fmt.Sprintf("apps-%04d", shard.Partition("app-2999", 2)), unreadable.Shard)
	require.Equal(t, before.Position, a.Now().Position)

	require.NoError(t, os.WriteFile(path, whole, 0o644)) // the same file, and so the same pages
	ask := func(o *overlay.Overlaid) *shard.Answer {
		q := &shard.Query{Moment: shard.Moment{Position: o.Position}, Vectors: [][]float32{{1}}, K: 2, Target: 1, Explain: []string{"app-2999"}}
		answer, err := o.Apps.Search(t.Context(), q)
		require.NoError(t, err)
		return answer
	}
	require.Equal(t, "app-2999", ask(before).Candidates[0].ID)
	answer := ask(a.Now())
	require.Equal(t, []string{"app-2998", "app-2997"}, []string{answer.Candidates[0].ID, answer.Candidates[1].ID})
	require.Equal(t, shard.TakenDown, answer.Explained[0].Standing)
	_, err = replica.Append(t.Context(), []live.Event{{Kind: live.Takedown, Tower: shard.Apps, Entity: "app-2998", Reason: "malware"}})
	require.NoError(t, err)
	require.NoError(t, failed)
	require.Equal(t, replica.View().Position.Shard(), a.Now().Position)
	require.Equal(t, 2, a.Now().Status.Apps.Dead)
	require.Equal(t, "app-2997", ask(a.Now()).Candidates[0].ID)
}

// A tower of parts that are elsewhere has nothing to lay anything over.
func TestPartsElsewhere(t *testing.T) {
	users, err := towerOf(shard.Users, nil, 1, index.Dot)
	require.NoError(t, err)
	apps, err := shard.NewTowerOf(shard.Apps, []shard.Part{elsewhere{users.Parts()[0]}}, 1, index.Dot, dim, schema())
	require.NoError(t, err)
	_, err = overlay.New(t.Context(), overlay.Snapshot{Apps: apps, Users: users}, live.NewState())
	require.EqualError(t, err, "lay over apps: shard users-0000 is not of this process")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = overlay.New(ended, overlay.Snapshot{Apps: users, Users: users}, live.NewState())
	require.NoError(t, err, "there is nothing to do")
}

type elsewhere struct{ shard.Part }
