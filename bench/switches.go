package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/HdrHistogram/hdrhistogram-go"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// SwitchOptions say how a server is made to switch between two snapshots. The zero
// value of a field is its default.
type SwitchOptions struct {
	// Switches is how often it switches. The default is 200.
	Switches int
	// Clients is how many clients ask all the while. The default is 16.
	Clients int
	// Users is how many users they ask for. The default is 500.
	Users int
	// K is how many candidates they ask for. The default is 100.
	K int
	// Steady is how long the server is measured before the first switch, and Pause
	// how long it serves between two switches. The defaults are 10 s and 200 ms.
	Steady, Pause time.Duration
	// Keep is how long a snapshot stays mapped once it no longer answers. The default
	// is the server's, so that every switch but the first finds its snapshot mapped;
	// with a nanosecond every switch opens it anew.
	Keep time.Duration
}

func (o SwitchOptions) withDefaults() SwitchOptions {
	if o.Switches == 0 {
		o.Switches = 200
	}
	if o.Clients == 0 {
		o.Clients = 16
	}
	if o.Users == 0 {
		o.Users = 500
	}
	if o.K == 0 {
		o.K = 100
	}
	if o.Steady == 0 {
		o.Steady = 10 * time.Second
	}
	if o.Pause == 0 {
		o.Pause = 200 * time.Millisecond
	}
	return o
}

// SwitchReport is what a run of switches measured. Times are in microseconds.
type SwitchReport struct {
	Snapshots [2]manifest.Digest `json:"snapshots"`
	Switches  int                `json:"switches"`
	Clients   int                `json:"clients"`
	Requests  int64              `json:"requests"`
	Failed    int64              `json:"failed"`
	Mixed     int64              `json:"mixed"` // answers that are not those of the snapshot they name
	SteadyP50 float64            `json:"steady_p50_us"`
	SteadyP99 float64            `json:"steady_p99_us"`
	SwitchP50 float64            `json:"switch_p50_us"` // of requests that were under way during a switch
	SwitchP99 float64            `json:"switch_p99_us"`
	Follow    [3]float64         `json:"follow_us"` // from the release to the first answer of it: median, 99th percentile, longest
	Files     [2]int             `json:"files"`     // open files after the first two switches, and at the end
	Mapped    [2]int             `json:"mapped"`    // mapped shards then
	Heap      [2]uint64          `json:"heap"`      // bytes in use after a collection then
	FirstFail string             `json:"first_failure,omitempty"`
}

// WriteTable writes the report for people.
func (r *SwitchReport) WriteTable(w io.Writer) error {
	_, err := fmt.Fprintf(w, `%d switches between %s and %s under %d clients
requests    %d, failed %d, mixed %d
steady      p50 %.0f us, p99 %.0f us
switching   p50 %.0f us, p99 %.0f us: %.2f times the steady p99
release to its first answer   median %.1f ms, p99 %.1f ms, longest %.1f ms
open files %d and %d, mapped shards %d and %d, heap %.1f and %.1f MiB: after two switches and after all
`, r.Switches, r.Snapshots[0].Short(), r.Snapshots[1].Short(), r.Clients, r.Requests, r.Failed, r.Mixed,
		r.SteadyP50, r.SteadyP99, r.SwitchP50, r.SwitchP99, r.SwitchP99/r.SteadyP99,
		r.Follow[0]/1e3, r.Follow[1]/1e3, r.Follow[2]/1e3,
		r.Files[0], r.Files[1], r.Mapped[0], r.Mapped[1], float64(r.Heap[0])/(1<<20), float64(r.Heap[1])/(1<<20))
	if err == nil && r.FirstFail != "" {
		_, err = fmt.Fprintf(w, "first failure: %s\n", r.FirstFail)
	}
	return err
}

// Switch copies two snapshots into a store of its own, serves it on loopback in this
// process, and makes the server switch between the two, by rolling back and forth, while
// clients ask. Every answer is compared with what the snapshot that it names answers by
// itself.
func Switch(ctx context.Context, store *snapshots.Store, pair [2]manifest.Digest, o SwitchOptions) (_ *SwitchReport, err error) {
	defer sections.Guard(&err)()
	o = o.withDefaults()
	dir, err := os.MkdirTemp("", "tandem-switches-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	own, err := snapshots.CreateStore(ctx, filepath.Join(dir, "store"), snapshots.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	s := &switching{o: o, store: own, releases: release.New(own), answers: map[string]map[string][]*tandemv1.Candidate{},
		report: &SwitchReport{Snapshots: pair, Switches: o.Switches, Clients: o.Clients}}
	for _, d := range pair {
		if err := own.Copy(ctx, store, d); err != nil {
			return nil, err
		}
	}
	if err := s.ask(ctx, pair); err != nil {
		return nil, err
	}
	if err := s.begin(ctx, pair); err != nil {
		return nil, err
	}
	return s.report, s.serve(ctx)
}

// switching is a run of [Switch].
type switching struct {
	o        SwitchOptions
	store    *snapshots.Store
	releases *release.Releases
	users    []string
	answers  map[string]map[string][]*tandemv1.Candidate // by snapshot and user
	report   *SwitchReport

	client     *http.Client
	url        string
	generation atomic.Uint64 // the newest that answered
	during     atomic.Int64  // odd while it switches
	failure    sync.Once
}

func (s *switching) request(user string) *tandemv1.RetrieveRequest {
	return &tandemv1.RetrieveRequest{UserId: user, K: uint32(s.o.K)}
}

// ask finds out what each snapshot answers.
func (s *switching) ask(ctx context.Context, pair [2]manifest.Digest) error {
	for _, d := range pair {
		snapshot, err := snapshots.Open(ctx, s.store, d)
		if err != nil {
			return err
		}
		service := server.NewService(slog.New(slog.DiscardHandler))
		service.Serve(snapshot)
		if s.users == nil {
			for _, row := range sample(snapshot.Tower(shard.Users), s.o.Users) {
				s.users = append(s.users, row.id)
			}
		}
		answers := map[string][]*tandemv1.Candidate{}
		for _, user := range s.users {
			a, askErr := service.Retrieve(ctx, connect.NewRequest(s.request(user)))
			if askErr != nil {
				err = fmt.Errorf("ask snapshot %s for user %s: %w", d.Short(), user, askErr)
				break
			}
			answers[user] = a.Msg.Candidates
		}
		service.Close()
		if err != nil {
			return err
		}
		s.answers[string(d)] = answers
	}
	return nil
}

// begin makes generation 1 serve the first snapshot and generation 3 the second.
func (s *switching) begin(ctx context.Context, pair [2]manifest.Digest) error {
	c := release.Change{Author: "bench", Override: "nobody else is served"}
	if _, err := s.releases.Start(ctx, release.StartOptions{Change: c, Snapshot: pair[0]}); err != nil {
		return err
	}
	if _, err := s.releases.Start(ctx, release.StartOptions{Change: c, Snapshot: pair[1], Arm: "other"}); err != nil {
		return err
	}
	_, err := s.releases.Promote(ctx, c, "other")
	return err
}

// serve runs the server, the load and the switches.
func (s *switching) serve(ctx context.Context) (err error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ready, done := make(chan struct{}), make(chan error, 1)
	var address net.Addr
	go func() {
		done <- server.Run(running, server.Config{
			Store: s.store, Listen: "127.0.0.1:0", Keep: s.o.Keep, Logger: slog.New(slog.DiscardHandler),
			Listening: func(a net.Addr) { address = a }, Ready: func(server.Snapshot) { close(ready) },
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		return err
	}
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	s.url = "http://" + address.String()
	transport := &http.Transport{MaxIdleConnsPerHost: s.o.Clients}
	defer transport.CloseIdleConnections()
	s.client = &http.Client{Transport: transport, Timeout: time.Minute}

	loading, end := context.WithCancel(ctx)
	loads := make([]*switchLoad, s.o.Clients)
	var load sync.WaitGroup
	for i := range loads {
		loads[i] = &switchLoad{steady: newHistogram(), switching: newHistogram()}
		load.Go(func() { s.load(loading, i, loads[i]) })
	}
	err = s.switchAll(ctx)
	end()
	load.Wait()
	steady, switched := newHistogram(), newHistogram()
	for _, l := range loads {
		steady.Merge(l.steady)
		switched.Merge(l.switching)
		s.report.Requests += l.requests
	}
	us := func(h *hdrhistogram.Histogram, percentile float64) float64 {
		return float64(h.ValueAtPercentile(percentile)) / 1e3
	}
	s.report.SteadyP50, s.report.SteadyP99 = us(steady, 50), us(steady, 99)
	s.report.SwitchP50, s.report.SwitchP99 = us(switched, 50), us(switched, 99)
	return err
}

// quantileOf returns a quantile in microseconds.
func quantileOf(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return float64(times[int(q*float64(len(times)-1))]) / 1e3
}

// switchLoad is what one client measured.
type switchLoad struct {
	requests          int64
	steady, switching *hdrhistogram.Histogram // nanoseconds
}

// load asks until ctx ends. A request counts as one during a switch if a switch was
// under way when it began or when it ended, or in between.
func (s *switching) load(ctx context.Context, client int, l *switchLoad) {
	c := tandemv1connect.NewRetrievalServiceClient(s.client, s.url)
	for i := client; ctx.Err() == nil; i++ {
		user := s.users[i%len(s.users)]
		before, start := s.during.Load(), time.Now()
		a, err := c.Retrieve(context.WithoutCancel(ctx), connect.NewRequest(s.request(user)))
		took, after := time.Since(start), s.during.Load()
		l.requests++
		if err != nil {
			atomic.AddInt64(&s.report.Failed, 1)
			s.failure.Do(func() { s.report.FirstFail = err.Error() })
			continue
		}
		for g := s.generation.Load(); a.Msg.Generation > g && !s.generation.CompareAndSwap(g, a.Msg.Generation); g = s.generation.Load() {
		}
		want, odd := s.answers[a.Msg.Snapshot][user], a.Msg.Generation%2
		same := slices.EqualFunc(want, a.Msg.Candidates, func(x, y *tandemv1.Candidate) bool { return x.Id == y.Id && x.Score == y.Score })
		if !same || a.Msg.Snapshot != string(s.report.Snapshots[odd]) {
			atomic.AddInt64(&s.report.Mixed, 1)
			s.failure.Do(func() {
				s.report.FirstFail = fmt.Sprintf("user %s: generation %d, snapshot %s", user, a.Msg.Generation, a.Msg.Snapshot)
			})
		}
		if before != after || before%2 == 1 {
			_ = l.switching.RecordValue(min(int64(took), maxLatency))
		} else {
			_ = l.steady.RecordValue(min(int64(took), maxLatency))
		}
	}
}

// settled is how long a switch counts as under way once its release has answered, for
// what comes after it: closing what no longer answers.
const settled = 50 * time.Millisecond

// switchAll switches, back to generation 1 and to generation 3 in turn: even
// generations serve the first snapshot and odd ones the second.
func (s *switching) switchAll(ctx context.Context) error {
	if err := pause(ctx, s.o.Steady); err != nil {
		return err
	}
	var follow []time.Duration
	for i := range s.o.Switches {
		s.during.Add(1)
		start := time.Now()
		r, err := s.releases.Rollback(ctx, release.RollbackOptions{Change: release.Change{Author: "bench"}, To: uint64(1 + 2*(i%2))})
		if err != nil {
			return err
		}
		for s.generation.Load() < r.Generation {
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
			if time.Since(start) > time.Minute {
				return fmt.Errorf("generation %d does not answer after a minute", r.Generation)
			}
		}
		follow = append(follow, time.Since(start))
		if err := pause(ctx, settled); err != nil {
			return err
		}
		s.during.Add(1)
		if i == 1 {
			s.count(0)
		}
		if err := pause(ctx, s.o.Pause); err != nil {
			return err
		}
	}
	s.count(1)
	s.report.Follow = [3]float64{quantileOf(follow, 0.5), quantileOf(follow, 0.99), quantileOf(follow, 1)}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// count notes what the process holds.
func (s *switching) count(i int) {
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		s.report.Files[i] = len(files)
	}
	if data, err := os.ReadFile("/proc/self/maps"); err == nil {
		names := map[string]bool{}
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); strings.Contains(line, s.store.Location()) {
				names[fields[5]] = true
			}
		}
		s.report.Mapped[i] = len(names)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.report.Heap[i] = m.HeapAlloc
}
