package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/traces"
)

// cpuTime is what the process has taken of the processors.
func cpuTime(tb testing.TB) time.Duration {
	var use syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkObservation compares what queries take of the processors on a service without
// metrics, traces and a log with what they take on one with all of them, in turns. One of 100
// queries is traced, and its spans are sent: what that takes of the client and the server of
// HTTP, which are both of this process, counts. on/off is the median over the rounds.
func BenchmarkObservation(b *testing.B) {
	b.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1000") // a fifth of what it is else
	for _, share := range []float64{0, 0.01, 1} {
		b.Run(fmt.Sprintf("share=%v", share), func(b *testing.B) { benchmarkObservation(b, share) })
	}
}

func benchmarkObservation(b *testing.B, share float64) {
	t := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 32, 20_000, 10, 2)
	store := t.publish(b)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	m := metrics.New()
	var made, sent atomic.Int64
	counts := &events.Listener{Traced: func(e events.Traced) { sent.Add(int64(e.N)) }}
	off, on := NewService(slog.New(slog.DiscardHandler)), NewService(slog.New(slog.NewJSONHandler(io.Discard, nil)), m.Listener(), counts)
	on.log.Slow = 250 * time.Millisecond
	var err error
	on.traces, err = traces.Start(traces.Options{Endpoint: collector.URL + "/v1/traces", Share: share, MaxSpans: 1 << 30, Queue: 1 << 20}, on.events)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, on.traces.Stop()) })
	for _, s := range []*Service{off, on} {
		s.Serve(open(b, store))
		b.Cleanup(s.Close)
	}
	body := []byte(`{"userId": "u1", "k": 100, "filter": "free"}`)
	ask := func(h http.Handler) {
		r, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, retrievePath, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := discard{http.Header{}}
		h.ServeHTTP(w, r)
		if w.header.Get(traces.ResponseHeader) != "" {
			made.Add(8) // spans, at least
		}
	}
	handlers := []http.Handler{NewHandler(off, Options{}), NewHandler(on, Options{})}
	const queries = 4000
	var ratios, each []float64
	for b.Loop() {
		var took [2]time.Duration
		for turn := range handlers {
			i := (turn + len(ratios)) % len(handlers) // each goes first in every other round
			runtime.GC()
			began := cpuTime(b)
			for range queries {
				ask(handlers[i])
			}
			for sent.Load() < made.Load() {
				time.Sleep(20 * time.Millisecond)
			}
			took[i] = cpuTime(b) - began
		}
		ratios, each = append(ratios, float64(took[1])/float64(took[0])), append(each, float64(took[0].Microseconds())/queries)
	}
	slices.Sort(ratios)
	slices.Sort(each)
	b.ReportMetric(100*(ratios[len(ratios)/2]-1), "%overhead")
	b.ReportMetric(each[len(each)/2], "cpu-us/query")
}
