package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// LoadOptions say how to load a running server. The zero value of a field is its
// default, unless it says that it is required.
type LoadOptions struct {
	// Server is the server's URL. Required.
	Server string
	// Request is what every request asks, but for its user. Required.
	Request *tandemv1.RetrieveRequest
	// Users are the ids to ask with, in turn. The default is a sample of
	// Snapshot's users that the build has not seen.
	Users []string
	// Snapshot, if not nil, is what the server serves, to measure recall against.
	Snapshot *snapshots.Snapshot
	// Clients lists how many clients ask at a time. The default is 1 and 8.
	Clients []int
	// Queries is how many queries each number of clients asks. The default is as
	// many as there is Duration for.
	Queries int
	// Duration is how long each number of clients asks. The default is 10 seconds.
	Duration time.Duration
	// WarmUp is how long each number of clients asks before that. Negative is not
	// at all. The default is a second.
	WarmUp time.Duration
	// RecallQueries is how many users recall is measured on. The default is 500.
	RecallQueries int
	// Timeout is how long an answer may take. A client that got none in time asks no
	// more. The default is 30 seconds.
	Timeout time.Duration
	// PID is the server's process, if it runs on this machine: its CPU time is
	// measured. 0 leaves it out.
	PID int
	// HTTP1 makes the clients speak HTTP/1.1; else it is HTTP/2 without TLS,
	// unless the URL is https.
	HTTP1 bool
	// TLS is how TLS is spoken. The default is as the system has it.
	TLS *tls.Config
	// Wrap, if not nil, wraps what sends requests, as to add a token.
	Wrap func(http.RoundTripper) http.RoundTripper
	// Progress, if not nil, is called when another number of clients begins.
	Progress func(clients int)
}

// loadUsers is how many users of a snapshot ask.
const loadUsers = 10_000

// MaxClients bounds the clients of a load.
const MaxClients = 10_000

func (o LoadOptions) withDefaults() LoadOptions {
	if len(o.Clients) == 0 {
		o.Clients = []int{1, 8}
	}
	if o.Duration == 0 {
		o.Duration = 10 * time.Second
	}
	if o.WarmUp == 0 {
		o.WarmUp = time.Second
	}
	if o.RecallQueries == 0 {
		o.RecallQueries = 500
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	o.Server = strings.TrimSuffix(o.Server, "/")
	return o
}

// Validate returns an error that names the option out of bounds.
func (o LoadOptions) Validate() error {
	o = o.withDefaults()
	switch {
	case !strings.HasPrefix(o.Server, "http://") && !strings.HasPrefix(o.Server, "https://"):
		return fmt.Errorf("server is %q, want a URL that begins with http:// or https://", o.Server)
	case o.Request == nil:
		return errors.New("request is missing")
	case o.Queries < 0 || o.Queries > 1_000_000_000:
		return fmt.Errorf("queries is %d, want at least 1", o.Queries)
	case o.Duration < 0:
		return fmt.Errorf("duration is %s, want more than 0", o.Duration)
	case o.Timeout < 0:
		return fmt.Errorf("timeout is %s, want more than 0", o.Timeout)
	case o.RecallQueries < 0 || o.RecallQueries > MaxQueries:
		return fmt.Errorf("recall queries is %d, want 1 to %d", o.RecallQueries, MaxQueries)
	case o.PID < 0:
		return fmt.Errorf("pid is %d, want a process", o.PID)
	}
	for _, n := range o.Clients {
		if n < 1 || n > MaxClients {
			return fmt.Errorf("clients is %d, want 1 to %d", n, MaxClients)
		}
	}
	return nil
}

// Load asks a running server queries of real users from a number of clients at a
// time, each of which has a connection of its own and asks again once it has its
// answer, and reports what they saw. A failed query is counted, not retried; if
// all fail, the first one's error is Load's.
func Load(ctx context.Context, o LoadOptions) (_ *LoadReport, err error) {
	defer sections.Guard(&err)()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if len(o.Users) == 0 && o.Snapshot != nil {
		for _, row := range sample(o.Snapshot.Tower(shard.Users), loadUsers) {
			o.Users = append(o.Users, row.id)
		}
	}
	if len(o.Users) == 0 {
		return nil, errors.New("there are no users to ask with")
	}
	l := &loader{options: o}
	defer l.close()
	report := &LoadReport{
		Server: o.Server, Protocol: "HTTP/2", K: int(o.Request.K), Ef: int(o.Request.GetEf()), Filter: o.Request.Filter, Segment: o.Request.Segment,
		Users: len(o.Users), Processors: runtime.GOMAXPROCS(0), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if o.HTTP1 {
		report.Protocol = "HTTP/1.1"
	}
	if o.Request.RecallTarget != nil {
		report.Target = *o.Request.RecallTarget
	} else if report.Ef == 0 {
		report.Target = DefaultTarget
	}
	// One whole answer tells what is being measured, or what is wrong.
	first, err := l.client().Retrieve(ctx, l.request(0))
	if err != nil {
		return nil, err
	}
	report.Model, report.ModelVersion, report.Snapshot = first.Msg.Model, first.Msg.ModelVersion, manifest.Digest(first.Msg.Snapshot)
	report.Shards, report.Bytes = int(first.Msg.Coverage.GetShards()), proto.Size(first.Msg)
	if s := o.Snapshot; s != nil {
		if s.Digest() != report.Snapshot {
			return nil, fmt.Errorf("the server serves snapshot %s, not %s", report.Snapshot.Short(), s.Digest().Short())
		}
		recalls, err := l.recall(ctx)
		if err != nil {
			return nil, err
		}
		mean, worst := shard.MeanRecall(recalls)
		report.Recall, report.Worst, report.RecallQueries = &mean, &worst, len(recalls)
	}
	for _, n := range o.Clients {
		if o.Progress != nil {
			o.Progress(n)
		}
		result, err := l.run(ctx, n)
		if err != nil {
			return nil, err
		}
		report.Results = append(report.Results, *result)
	}
	return report, nil
}

// loader is one load.
type loader struct {
	options LoadOptions
	idle    []func()     // close connections
	turn    atomic.Int64 // of the users
}

func (l *loader) close() {
	for _, f := range l.idle {
		f()
	}
}

// client returns a client with a connection of its own.
func (l *loader) client(options ...connect.ClientOption) tandemv1connect.RetrievalServiceClient {
	t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, TLSClientConfig: l.options.TLS.Clone()} // Connect's is what counts
	switch {
	case l.options.HTTP1:
		t.Protocols.SetHTTP1(true)
	case strings.HasPrefix(l.options.Server, "https://"):
		t.Protocols.SetHTTP2(true)
	default:
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	l.idle = append(l.idle, t.CloseIdleConnections)
	var sends http.RoundTripper = t
	if l.options.Wrap != nil {
		sends = l.options.Wrap(t)
	}
	return tandemv1connect.NewRetrievalServiceClient(&http.Client{Transport: sends, Timeout: l.options.Timeout}, l.options.Server, options...)
}

// request returns the request of a turn.
func (l *loader) request(turn int64) *connect.Request[tandemv1.RetrieveRequest] {
	m := proto.CloneOf(l.options.Request)
	m.UserId = l.options.Users[turn%int64(len(l.options.Users))]
	return connect.NewRequest(m)
}

// worker is one client of a run.
type worker struct {
	client tandemv1connect.RetrievalServiceClient
	times  *hdrhistogram.Histogram // nanoseconds
	errors int
	short  int
	failed error // the first
	silent bool  // the server has not answered in time, and is asked no more
}

// run measures n clients.
func (l *loader) run(ctx context.Context, n int) (*LoadResult, error) {
	workers := make([]worker, n)
	for i := range workers {
		workers[i].client = l.client(connect.WithCodec(countingCodec{}))
	}
	if l.options.WarmUp > 0 {
		if err := l.ask(ctx, workers, l.options.WarmUp, 0); err != nil {
			return nil, err
		}
	}
	runtime.GC() // what the warm-up left
	before, err := l.cpu()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := l.ask(ctx, workers, l.options.Duration, l.options.Queries); err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := l.cpu()
	if err != nil {
		return nil, err
	}
	result := &LoadResult{Clients: n, Seconds: took.Seconds()}
	all := newHistogram()
	var failed error
	for i := range workers {
		w := &workers[i]
		all.Merge(w.times)
		result.Errors += w.errors
		result.Short += w.short
		if failed == nil {
			failed = w.failed
		}
	}
	if result.Queries = int(all.TotalCount()); result.Queries == 0 {
		return nil, failed
	}
	if failed != nil {
		result.FirstError = failed.Error()
	}
	us := func(percentile float64) float64 { return float64(all.ValueAtPercentile(percentile)) / 1e3 }
	result.QPS = float64(result.Queries) / took.Seconds()
	result.Mean, result.P50, result.P95, result.P99, result.Max = all.Mean()/1e3, us(50), us(95), us(99), float64(all.Max())/1e3
	asked := float64(result.Queries + result.Errors)
	if l.options.PID > 0 {
		result.ServerCPU = (after.server - before.server).Seconds() * 1e6 / asked
	}
	result.ClientCPU = (after.self - before.self).Seconds() * 1e6 / asked
	return result, nil
}

// ask makes the workers ask for a time, or a number of queries if it is not 0.
func (l *loader) ask(ctx context.Context, workers []worker, d time.Duration, queries int) error {
	end := time.Now().Add(d)
	left := new(atomic.Int64)
	left.Store(int64(queries))
	var group sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		w.times, w.errors, w.short, w.failed, w.silent = newHistogram(), 0, 0, nil, false
		group.Go(func() {
			for ctx.Err() == nil && !w.silent {
				if queries > 0 && left.Add(-1) < 0 || queries == 0 && !time.Now().Before(end) {
					return
				}
				l.askOne(ctx, w)
			}
		})
	}
	group.Wait()
	return ctx.Err()
}

func (l *loader) askOne(ctx context.Context, w *worker) {
	request := l.request(l.turn.Add(1))
	start := time.Now()
	response, err := w.client.Retrieve(ctx, request)
	took := time.Since(start)
	if err != nil {
		w.errors++
		if w.silent = took >= l.options.Timeout; w.silent {
			err = fmt.Errorf("no answer within %s; the client asked no more: %w", l.options.Timeout, err)
		}
		if w.failed == nil || w.silent {
			w.failed = err
		}
		return
	}
	if response.Msg.Eligible < uint64(l.options.Request.K) { // see countingCodec
		w.short++
	}
	_ = w.times.RecordValue(min(max(int64(took), 1), maxLatency)) // in bounds
}

// maxLatency is what longer ones count as.
const maxLatency = int64(time.Minute)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency, 3) }

// recall returns the recall of each of the server's answers.
func (l *loader) recall(ctx context.Context) ([]float64, error) {
	o := &l.options
	kind := shard.Apps
	if o.Request.Target == tandemv1.Tower_TOWER_USERS {
		kind = shard.Users
	}
	tower, users := o.Snapshot.Tower(kind), o.Snapshot.Tower(shard.Users)
	q := shard.Query{K: int(o.Request.K), Segment: o.Request.Segment, Target: 1, Plan: index.ExactScan, MinCoverage: 1}
	if o.Request.Filter != "" {
		filter, err := tower.Compile(o.Request.Filter)
		if err != nil {
			return nil, err
		}
		values := make(map[string]any, len(o.Request.Bindings))
		for name, v := range o.Request.Bindings {
			values[name] = v.AsInterface()
		}
		bound, err := filter.Bind(ctx, values)
		if err != nil {
			return nil, err
		}
		q.Filter = &bound
	}
	client := l.client()
	n := min(o.RecallQueries, len(o.Users))
	recalls := make([]float64, n)
	for i := range n {
		request := l.request(int64(i))
		v, ok, err := users.Vector(ctx, shard.Moment{}, request.Msg.UserId)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("user %q is not in the user tower", request.Msg.UserId)
		}
		q.Vectors, q.Exclude = [][]float32{v}, request.Msg.ExcludeIds
		if kind == shard.Users {
			q.Exclude = append(slices.Clip(q.Exclude), request.Msg.UserId)
		}
		exact, err := tower.Search(ctx, &q)
		if err != nil {
			return nil, fmt.Errorf("exact scan: %w", err)
		}
		answer, err := client.Retrieve(ctx, request)
		if err != nil {
			return nil, err
		}
		recalls[i] = recallOf(tower.Metric(), exact.Candidates, answer.Msg.Candidates)
	}
	return recalls, nil
}

// recallOf is the share of the exact answer that is in found; ties with its last
// candidate are interchangeable.
func recallOf(metric index.Metric, exact []shard.Candidate, found []*tandemv1.Candidate) float64 {
	if len(exact) == 0 {
		return 1
	}
	least, hits := worst(metric, exact[len(exact)-1].Score), 0
	for _, c := range found {
		if !metric.Better(least, c.Score) {
			hits++
		}
	}
	return float64(min(hits, len(exact))) / float64(len(exact))
}

// cpuTimes are the CPU times of the server and of this process.
type cpuTimes struct{ server, self time.Duration }

func (l *loader) cpu() (cpuTimes, error) {
	var t cpuTimes
	if l.options.PID > 0 {
		var err error
		if t.server, err = ProcessCPU(l.options.PID); err != nil {
			return t, err
		}
	}
	// Without /proc the load generator's own is left out.
	t.self, _ = ProcessCPU(os.Getpid())
	return t, nil
}

// countingCodec is protobuf's codec for a client that counts an answer's
// candidates, in its field Eligible, and does not decode them: a load generator
// must not take the processors from the server it measures.
type countingCodec struct{}

// Name implements [connect.Codec].
func (countingCodec) Name() string { return "proto" }

// Marshal implements [connect.Codec].
func (countingCodec) Marshal(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protobuf message", m)
	}
	return proto.Marshal(p)
}

// Unmarshal implements [connect.Codec].
func (countingCodec) Unmarshal(data []byte, m any) error {
	answer, ok := m.(*tandemv1.RetrieveResponse)
	if !ok { // a detail of an error
		p, ok := m.(proto.Message)
		if !ok {
			return fmt.Errorf("%T is no protobuf message", m)
		}
		return proto.Unmarshal(data, p)
	}
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if number == candidatesField {
			answer.Eligible++
		}
	}
	return nil
}

// candidatesField is RetrieveResponse.candidates.
const candidatesField = 1
