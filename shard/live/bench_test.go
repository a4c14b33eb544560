package live

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Events a second into a folder: many who append one each, and one who appends a thousand.
func BenchmarkAppend(b *testing.B) {
	vector := make([]float32, 64)
	for i := range vector {
		vector[i] = float32(i) / 64
	}
	for _, c := range []struct{ clients, events int }{{1, 1}, {256, 1}, {1, 1000}, {4, 1000}} {
		b.Run(fmt.Sprintf("%dx%d", c.clients, c.events), func(b *testing.B) {
			bucket, err := objects.Open(b.Context(), b.TempDir())
			require.NoError(b, err)
			defer bucket.Close()
			r, err := Open(b.Context(), bucket, Options{Room: Room{Bytes: 1 << 40, Rows: 1 << 30}, Memory: appendlog.Memory{b.TempDir() + "/memory"}})
			require.NoError(b, err)
			ctx, stop := context.WithCancel(b.Context())
			var running, clients sync.WaitGroup
			running.Go(func() { _ = r.Run(ctx) })
			var left, next atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			used := cpu()
			for range c.clients {
				clients.Go(func() {
					for left.Add(-1) >= 0 {
						list := make([]Event, c.events)
						for i := range list {
							n := next.Add(1)
							list[i] = Event{Kind: Upsert, Tower: shard.Apps, Entity: appName(int(n % 50_000)), Model: "feed", ModelVersion: "1", Vector: vector,
								Attributes: map[string]attribute.Value{"genre": attribute.OfKeyword("puzzle"), "min_age": attribute.OfInt(n % 18)}}
						}
						if _, err := r.Append(ctx, list); err != nil {
							b.Error(err)
						}
					}
				})
			}
			clients.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N*c.events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(cpu()-used)/float64(b.N*c.events), "cpu-ns/event")
			stop()
			running.Wait()
		})
	}
}

// Applying an entry of a thousand upserts, or takedowns.
func BenchmarkApply(b *testing.B) {
	for name, event := range map[string]func(int) Event{
		"upserts":   func(i int) Event { return upsert(shard.Apps, appName(i%50_000), "1", make([]float32, 64)...) },
		"takedowns": func(i int) Event { return takedown(appName(i)) },
	} {
		b.Run(name, func(b *testing.B) {
			w, s := &writer{}, NewState()
			n := 0
			used := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				list := make([]Event, 1000)
				for i := range list {
					list[i] = event(n)
					n++
				}
				entry := w.entry(b, noon, list...)
				b.StartTimer()
				begun := cpu()
				apply(b, s, entry)
				used += cpu() - begun
			}
			b.ReportMetric(float64(used)/float64(n), "cpu-ns/event")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// What a process reads when it starts: a million events that were logged, and ten million
// takedowns.
func BenchmarkCheckpoint(b *testing.B) {
	million := NewState()
	w := &writer{}
	for i := range 1000 {
		list := make([]Event, 1000)
		for j := range list {
			switch n := 1000*i + j; j % 3 {
			case 0:
				list[j] = takedown(appName(n))
			case 1:
				list[j] = upsert(shard.Apps, appName(n%100_000), "1", make([]float32, 64)...)
			case 2:
				list[j] = setTo(shard.Apps, appName(n%300_000), "min_age", attribute.OfInt(int64(n%18)))
			}
		}
		apply(b, million, w.entry(b, noon, list...))
	}
	many := NewState()
	apply(b, many, (&writer{}).entry(b, noon))
	many.down = takenDown(10_000_000)
	many.texts.list = many.down.texts
	for i := range many.down.set.all() {
		many.position.Sequence = 10_000_001
		many.digest.add(many.down.decode(i.value).sum(i.key))
	}
	many.past.entries[0].sequence = many.position.Sequence
	for _, c := range []struct {
		name  string
		state *State
	}{{"a million events", million}, {"ten million takedowns", many}} {
		data, err := c.state.Checkpoint()
		require.NoError(b, err)
		b.Run(c.name+"/write", func(b *testing.B) {
			for b.Loop() {
				_, err := c.state.Checkpoint()
				require.NoError(b, err)
			}
			b.ReportMetric(float64(len(data))/1e6, "MB")
		})
		b.Run(c.name+"/read", func(b *testing.B) {
			before := heap()
			used := cpu()
			var s *State
			for b.Loop() {
				s, err = ReadCheckpoint(data, nil)
				require.NoError(b, err)
			}
			b.ReportMetric((cpu()-used).Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(heap()-before)/1e6, "MB-state")
			runtime.KeepAlive(s)
		})
	}
}
