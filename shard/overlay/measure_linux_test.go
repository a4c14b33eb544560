package overlay_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var (
	measureStore = flag.String("measure-store", "", "store of whose newest snapshot TestMeasure measures what lies over it")
	measureDowns = flag.Int("measure-takedowns", 100_000, "how many apps TestMeasure takes down")
	measureFresh = flag.Int("measure-fresh", 20_000, "how many apps TestMeasure upserts")
	measureBatch = flag.Int("measure-batch", 500, "how many of them at a time")
	measureSet   = flag.Int("measure-set", 0, "of how many apps TestMeasure sets an attribute")
	measureAsked = flag.Int("measure-queries", 1000, "how many users TestMeasure asks for, of each shard")
)

// TestMeasure measures what queries cost with many changes over a snapshot, and what it
// costs to lay them over it.
//
//	tandem generate --out towers --apps 1000000 --users 50000 --dim 64
//	tandem build --store store ...
//	go test ./shard/overlay -run TestMeasure -v -measure-store store
func TestMeasure(t *testing.T) {
	if *measureStore == "" {
		t.Skip("it takes -measure-store")
	}
	store, err := snapshots.OpenStore(t.Context(), *measureStore, snapshots.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	digest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	opened, err := snapshots.Open(t.Context(), store, digest)
	require.NoError(t, err)
	defer func() { require.NoError(t, opened.Close()) }()
	require.NoError(t, opened.Warm(t.Context()))
	m := opened.Manifest()
	snapshot := overlay.Snapshot{Apps: opened.Tower(shard.Apps), Users: opened.Tower(shard.Users), Model: m.Model, ModelVersion: m.ModelVersion}
	t.Logf("%d apps, %d users, dim %d, %s, %d shards, %d segments", snapshot.Apps.Rows(), snapshot.Users.Rows(), m.Dim, m.Metric,
		len(snapshot.Apps.Local()), len(snapshot.Apps.Segments()))

	bucket, err := objects.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, bucket.Close()) }()
	var applier *overlay.Applier
	var took []time.Duration
	var failed error
	replica, err := live.Open(t.Context(), bucket, live.Options{Poll: time.Hour, Apply: func(s *live.State, changes []live.Change) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		start := spent()
		if err := applier.Apply(s, changes); err != nil {
			failed = err
		}
		took = append(took, since(start))
	}})
	require.NoError(t, err)
	replica.Read(func(s *live.State) { applier, err = overlay.New(t.Context(), snapshot, s) })
	require.NoError(t, err)
	empty := applier.Now()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = replica.Run(ctx) // it ends with ctx
	}()
	defer func() {
		cancel()
		<-done
	}()
	write := func(what string, events []live.Event, batch int) {
		took = nil
		start := time.Now()
		for part := range slices.Chunk(events, batch) {
			_, err := replica.Append(t.Context(), part)
			require.NoError(t, err)
			require.NoError(t, failed)
		}
		if len(took) > 0 {
			slices.Sort(took)
			t.Logf("%s: %d events in %s; Apply of %d: p50 %s, p99 %s, most %s", what, len(events), time.Since(start).Round(time.Millisecond), batch,
				took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	type place struct {
		s       *shard.Shard
		ordinal uint32
	}
	draw := func() place {
		s := snapshot.Apps.Local()[r.IntN(len(snapshot.Apps.Local()))]
		return place{s, uint32(r.IntN(s.Rows()))}
	}
	var events []live.Event
	for range *measureDowns {
		p := draw()
		events = append(events, live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: p.s.ID(p.ordinal), Reason: "measured"})
	}
	write("takedowns", events, 1000)
	downs := applier.Now()
	schema := snapshot.Apps.Schema()
	events = nil
	for i := range *measureFresh {
		p := draw()
		vector := p.s.Index().Vector(p.ordinal, nil)
		var norm float64
		for _, x := range vector {
			norm += float64(x) * float64(x)
		}
		for j := range vector {
			vector[j] += float32(0.05 * math.Sqrt(norm/float64(len(vector))) * r.NormFloat64())
		}
		attributes := map[string]attribute.Value{}
		for field := range schema.Len() {
			if v := p.s.Attributes().Value(p.ordinal, field); !v.Absent() {
				attributes[schema.Field(field).Name] = v
			}
		}
		events = append(events, live.Event{
			Kind: live.Upsert, Tower: shard.Apps, Entity: fmt.Sprintf("fresh-%06d", i), Model: m.Model, ModelVersion: m.ModelVersion,
			Vector: vector, Attributes: attributes,
		})
	}
	write("upserts", events, *measureBatch)
	events = nil
	for range *measureSet {
		p, field := draw(), r.IntN(schema.Len())
		other := draw()
		events = append(events, live.Event{
			Kind: live.SetAttributes, Tower: shard.Apps, Entity: p.s.ID(p.ordinal),
			Attributes: map[string]attribute.Value{schema.Field(field).Name: other.s.Attributes().Value(other.ordinal, field)},
		})
	}
	write("attributes", events, *measureBatch)
	runtime.GC()
	now := applier.Now()
	t.Logf("status: %+v", now.Status.Apps)
	start := time.Now()
	replica.Read(func(s *live.State) { _, err = overlay.New(t.Context(), snapshot, s) })
	require.NoError(t, err)
	t.Logf("all at once: %s", time.Since(start).Round(time.Millisecond))

	if *measureAsked == 0 {
		return
	}
	var vectors [][]float32
	for _, s := range snapshot.Users.Local() {
		for ordinal := range uint32(min(s.Rows(), *measureAsked)) {
			vectors = append(vectors, s.Index().Vector(ordinal, nil))
		}
	}
	filters := []string{""}
	for _, s := range snapshot.Apps.Segments()[:min(2, len(snapshot.Apps.Segments()))] {
		filters = append(filters, s.Expression)
	}
	for _, filter := range filters {
		for _, k := range []int{10, 100} {
			q := &shard.Query{K: k, Target: 0.99}
			if filter != "" {
				f, err := snapshot.Apps.Compile(filter)
				require.NoError(t, err)
				bound, err := f.Bind(t.Context(), nil)
				require.NoError(t, err)
				q.Filter = &bound
			}
			text := ""
			var least time.Duration
			for i, times := range inTurns(t, q, vectors, snapshot.Apps, empty.Apps, downs.Apps, now.Apps) {
				slices.Sort(times)
				median := times[len(times)/2]
				if i == 0 {
					least = median
				}
				text += fmt.Sprintf("; %s: p50 %s, p99 %s, %.3fx", []string{"without", "empty", "takedowns", "all"}[i], median, times[len(times)*99/100], float64(median)/float64(least))
			}
			t.Logf("k %d, filter %q%s", k, filter, text)
			measureRecall(t, q, vectors[:min(len(vectors), 100)], now.Apps)
		}
	}
}

// spent returns the time that a processor has taken for the thread: where others use it
// too, the time that passes says little.
func spent() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func since(start time.Duration) time.Duration { return spent() - start }

// inTurns asks towers the same queries in turns, on one thread, and returns how much time of
// a processor each took.
func inTurns(t *testing.T, q *shard.Query, vectors [][]float32, towers ...*shard.Tower) [][]time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q.Workers = 1
	times := make([][]time.Duration, len(towers))
	for round := range 3 {
		for n, v := range vectors {
			q.Vectors = [][]float32{v}
			for i := range towers {
				i = (i + n) % len(towers)
				start := spent()
				_, err := towers[i].Search(t.Context(), q)
				took := since(start)
				require.NoError(t, err)
				if round > 0 {
					times[i] = append(times[i], took)
				}
			}
		}
	}
	return times
}

// measureRecall compares answers with exact ones, all of them, and fresh apps alone.
func measureRecall(t *testing.T, q *shard.Query, vectors [][]float32, tower *shard.Tower) {
	var recalls []float64
	fresh, found := 0, 0
	for _, v := range vectors {
		q.Vectors = [][]float32{v}
		got, err := tower.Search(t.Context(), q)
		require.NoError(t, err)
		exact := *q
		exact.Plan = index.ExactScan
		want, err := tower.Search(t.Context(), &exact)
		require.NoError(t, err)
		recalls = append(recalls, shard.RecallOf(tower.Metric(), want.Candidates, got.Candidates))
		ids := map[string]bool{}
		for _, c := range got.Candidates {
			ids[c.ID] = true
		}
		for _, c := range want.Candidates {
			if len(c.ID) > 5 && c.ID[:5] == "fresh" {
				fresh++
				if ids[c.ID] {
					found++
				}
			}
		}
	}
	mean, worst := shard.MeanRecall(recalls)
	t.Logf("  recall %.4f, of the worst percent %.3f; %d of %d fresh apps", mean, worst, found, fresh)
	require.Equal(t, fresh, found)
}
