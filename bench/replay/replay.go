package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/cespare/xxhash/v2"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/lowest"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// ErrNoQueries is the class of an error that says that there is no query to replay.
var ErrNoQueries = errors.New("no recorded queries")

// The reasons for which a query is left out.
const (
	OtherVersion = "query vectors of another model version"
	LacksShards  = "recorded answers that lack shards"
	CutShort     = "recorded answers that the deadline cut short"
	ByFallback   = "answers by a fallback, recorded or replayed, which are the same for every user"
	// BaselineByFallback are compared with the recorded answers only.
	BaselineByFallback = "answers of the baseline by a fallback"
	LaterPage          = "pages after the first, which are of the snapshot that answered"
	Interleaved        = "recorded answers that were drawn from two arms"
	Explored           = "recorded answers of which places were drawn"
)

// Run replays recorded queries. That some of them fail is no error but in the report;
// that there are none is one, of class [ErrNoQueries]. A damaged log is one of class
// [querylog.ErrDamaged].
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &runner{options: &o, leftOut: map[string]int{}}
	var err error
	if r.against, err = open(ctx, &o, o.Against); err != nil {
		return nil, err
	}
	defer r.against.service.Close()
	if o.Baseline != "" {
		if r.baseline, err = open(ctx, &o, o.Baseline); err != nil {
			return nil, err
		}
		defer r.baseline.service.Close()
	}
	if err := r.replayAll(ctx); err != nil {
		return nil, err
	}
	r.progress()
	if r.read == 0 {
		return nil, fmt.Errorf("%s: %w", o.Log.Location(), ErrNoQueries)
	}
	return r.report(), nil
}

// WarmUp is how many of the first queries each snapshot is asked before anything is
// measured, so that no latency is that of a page that is read for the first time, or of a
// filter that is not compiled yet.
const WarmUp = 200

// replayAll warms both snapshots up and replays the queries.
func (r *runner) replayAll(ctx context.Context) error {
	var first []*querylog.Query // until there are enough to warm up with
	begin := func() error {
		for _, q := range first {
			if err := r.warmUp(ctx, q); err != nil {
				return err
			}
		}
		for _, q := range first {
			if err := r.replay(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}
	n := 0
	for q, err := range r.queries(ctx) {
		if err != nil {
			return err
		}
		switch n++; {
		case n < WarmUp:
			first = append(first, q)
		case n == WarmUp:
			first = append(first, q)
			err = begin()
		default:
			err = r.replay(ctx, q)
		}
		if err != nil {
			return err
		}
	}
	if n < WarmUp {
		return begin()
	}
	return nil
}

// warmUp asks both snapshots a query and forgets the answers.
func (r *runner) warmUp(ctx context.Context, q *querylog.Query) error {
	request, err := r.decode(q)
	if err != nil {
		return err
	}
	request.ModelVersion = ""
	for _, s := range []*site{r.against, r.baseline} {
		if s == nil || !s.understands(q, request) {
			continue
		}
		if _, err := s.ask(ctx, request); err != nil {
			return err
		}
	}
	r.warmed++
	return nil
}

// site is a snapshot that answers.
type site struct {
	service  *server.Service
	snapshot Snapshot
	failures map[string]*Failure // by code
}

// open opens and warms a snapshot, and serves it.
func open(ctx context.Context, o *Options, ref string) (*site, error) {
	digest, err := o.Store.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	snapshot, err := snapshots.Open(ctx, o.Store, digest)
	if err != nil {
		return nil, err
	}
	if err := snapshot.Warm(ctx); err != nil {
		return nil, errors.Join(err, snapshot.Close())
	}
	m := snapshot.Manifest()
	s := &site{
		service:  server.NewService(o.Logger),
		snapshot: Snapshot{Digest: digest, Model: m.Model, ModelVersion: m.ModelVersion, Apps: m.Apps.Rows, Users: m.Users.Rows},
		failures: map[string]*Failure{},
	}
	s.service.Serve(snapshot)
	return s, nil
}

// understands reports whether a request that a model version answered means something to
// the snapshot: its vectors do, and it is no page of another snapshot's answer.
func (s *site) understands(q *querylog.Query, r *tandemv1.RetrieveRequest) bool {
	if r.PageToken != "" {
		return false
	}
	byVector := len(r.Vector) > 0 || len(r.Vectors) > 0
	return !byVector || q.ModelVersion == s.snapshot.ModelVersion && (q.Model == "" || q.Model == s.snapshot.Model)
}

// reply is what came of a request.
type reply struct {
	ok         bool                // it was answered
	failure    *tandemv1.ItemError // why not
	candidates []querylog.Candidate
	fallback   bool    // by a fallback
	us         float64 // the latency
}

// ask asks a request. A log is not trusted, so a request goes the way of one in a batch,
// where the service itself holds it against the rules and turns a panic into an error.
func (s *site) ask(ctx context.Context, r *tandemv1.RetrieveRequest) (reply, error) {
	batch := connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{r}})
	start := time.Now()
	response, err := s.service.BatchRetrieve(ctx, batch)
	out := reply{us: float64(time.Since(start)) / 1e3}
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return reply{}, err
	}
	result := response.Msg.Results[0]
	if e := result.GetError(); e != nil {
		out.failure = e
		return out, nil
	}
	out.ok, out.fallback = true, result.GetResponse().FallbackUsed != tandemv1.Fallback_FALLBACK_UNSPECIFIED
	for _, c := range result.GetResponse().Candidates {
		out.candidates = append(out.candidates, querylog.Candidate{ID: c.Id, Score: c.Score})
	}
	return out, nil
}

// fail counts a failure, if there is one.
func (s *site) fail(e *tandemv1.ItemError) {
	if e == nil {
		return
	}
	f := s.failures[e.Code]
	if f == nil {
		f = &Failure{Code: e.Code, Example: e.Message}
		s.failures[e.Code] = f
	}
	f.Queries++
}

// listFailures lists the failures, the most frequent first.
func (s *site) listFailures() []Failure {
	list := []Failure{}
	for _, f := range s.failures {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Queries, a.Queries), cmp.Compare(a.Code, b.Code))
	})
	return list
}

// runner is one run.
type runner struct {
	options  *Options
	against  *site
	baseline *site // nil for none

	read        int
	warmed      int
	first, last time.Time
	leftOut     map[string]int
	samples     []sample
	segments    names
	arms        names
}

// sample is what came of one query.
type sample struct {
	segment, arm int
	answered     bool
	change       change  // from the recorded answer, if it was answered
	recorded     float64 // latencies in microseconds
	replayed     float64

	asked    bool    // of the baseline too
	both     bool    // answered, by the baseline too
	from     change  // from the baseline's answer, if both
	baseline float64 // latency
}

// maxNames is how many segments and how many arms are told apart. A log may have any
// number of them.
const maxNames = 200

// others is the name of those beyond.
const others = "(others)"

// names numbers names.
type names struct {
	numbers map[string]int
	list    []string
}

func (n *names) number(name string) int {
	if i, ok := n.numbers[name]; ok {
		return i
	}
	if n.numbers == nil {
		n.numbers = map[string]int{}
	}
	if len(n.list) >= maxNames {
		if name == others {
			n.list = append(n.list, name)
			n.numbers[name] = maxNames
			return maxNames
		}
		return n.number(others)
	}
	n.list = append(n.list, name)
	n.numbers[name] = len(n.list) - 1
	return len(n.list) - 1
}

// queries returns what to replay: all, or a sample of them.
func (r *runner) queries(ctx context.Context) iter.Seq2[*querylog.Query, error] {
	o := r.options
	return func(yield func(*querylog.Query, error) bool) {
		draws := lowest.New(o.Limit, draw.compare)
		for q, err := range o.Log.Queries(ctx, o.Since, o.Until) {
			if err != nil {
				yield(nil, err)
				return
			}
			r.count(q)
			if o.Limit == 0 {
				if !yield(q, nil) {
					return
				}
				continue
			}
			draws.Add(draw{xxhash.Sum64String(q.RequestID + q.Time.String()), q})
		}
		chosen := draws.Sorted()
		slices.SortFunc(chosen, func(a, b draw) int {
			return cmp.Or(a.query.Time.Compare(b.query.Time), cmp.Compare(a.hash, b.hash))
		})
		for _, d := range chosen {
			if !yield(d.query, nil) {
				return
			}
		}
	}
}

// draw is a query and what decides whether it is in a sample: those of the least
// hashes are, so that a sample is the same each time and its size does not change which
// are in it first.
type draw struct {
	hash  uint64
	query *querylog.Query
}

func (d draw) compare(o draw) int { return cmp.Compare(d.hash, o.hash) }

func (r *runner) progress() {
	if r.options.Progress != nil {
		r.options.Progress(r.read)
	}
}

// count counts a query that was read.
func (r *runner) count(q *querylog.Query) {
	if r.read%64 == 0 {
		r.progress()
	}
	if r.read++; r.read == 1 || q.Time.Before(r.first) {
		r.first = q.Time
	}
	if q.Time.After(r.last) {
		r.last = q.Time
	}
}

// decode returns the request of a query.
func (r *runner) decode(q *querylog.Query) (*tandemv1.RetrieveRequest, error) {
	request, err := server.RecordedRequest(q)
	if err != nil {
		return nil, fmt.Errorf("read log: %s: %w", r.options.Log.Location(), err)
	}
	return request, nil
}

// replay replays one query.
func (r *runner) replay(ctx context.Context, q *querylog.Query) error {
	request, err := r.decode(q)
	if err != nil {
		return err
	}
	switch {
	case q.Coverage < 1:
		r.leftOut[LacksShards]++
		return nil
	case q.ShardsCut > 0:
		r.leftOut[CutShort]++
		return nil
	case q.Fallback != "":
		r.leftOut[ByFallback]++
		return nil
	case request.PageToken != "":
		r.leftOut[LaterPage]++
		return nil
	case len(q.Candidates) > 0 && q.Candidates[0].Team != "":
		r.leftOut[Interleaved]++
		return nil
	case q.Explored:
		r.leftOut[Explored]++
		return nil
	case !r.against.understands(q, request):
		r.leftOut[OtherVersion]++
		return nil
	case len(r.samples) == MaxQueries:
		return fmt.Errorf("%s has more than %d queries to replay; set a limit", r.options.Log.Location(), MaxQueries)
	}
	request.ModelVersion = ""
	s := sample{segment: r.segments.number(q.Segment), arm: r.arms.number(q.Arm), recorded: float64(q.LatencyUS)}
	s.asked = r.baseline != nil && r.baseline.understands(q, request)
	var answer, base reply
	steps := []func() (err error){func() (err error) {
		answer, err = r.against.ask(ctx, request)
		return err
	}}
	if s.asked {
		steps = append(steps, func() (err error) {
			base, err = r.baseline.ask(ctx, request)
			return err
		})
		if len(r.samples)%2 == 1 { // the second finds warm caches
			slices.Reverse(steps)
		}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	if r.options.Answer != nil && answer.ok && !answer.fallback {
		ids := make([]string, len(answer.candidates))
		for i, c := range answer.candidates {
			ids[i] = c.ID
		}
		if err := r.options.Answer(q.RequestID, ids); err != nil {
			return err
		}
	}
	r.against.fail(answer.failure)
	if s.asked {
		r.baseline.fail(base.failure)
	}
	if answer.fallback {
		r.leftOut[ByFallback]++
		return nil
	}
	if base.fallback {
		r.leftOut[BaselineByFallback]++
		s.asked = false
	}
	s.answered, s.both = answer.ok, s.asked && answer.ok && base.ok
	s.replayed, s.baseline = answer.us, base.us
	if s.answered {
		s.change = compare(q.Candidates, answer.candidates)
	}
	if s.both {
		s.from = compare(base.candidates, answer.candidates)
	}
	r.samples = append(r.samples, s)
	return nil
}

// report sums the run up.
func (r *runner) report() *Report {
	out := &Report{
		Log: r.options.Log.Location(), Read: r.read, First: r.first, Last: r.last, LeftOut: r.leftOut, WarmUp: r.warmed,
		Against: r.against.snapshot, Failures: r.against.listFailures(),
		Overall:    r.group("", func(*sample) bool { return true }),
		Segments:   []Group{},
		Arms:       []Group{},
		Processors: runtime.GOMAXPROCS(0), Kernel: kernel.Name(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if r.baseline != nil {
		out.Baseline, out.BaselineFailures = &r.baseline.snapshot, r.baseline.listFailures()
	}
	for i, name := range r.segments.list {
		out.Segments = append(out.Segments, r.group(name, func(s *sample) bool { return s.segment == i }))
	}
	for i, name := range r.arms.list {
		out.Arms = append(out.Arms, r.group(name, func(s *sample) bool { return s.arm == i }))
	}
	byName := func(a, b Group) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(out.Segments, byName)
	slices.SortFunc(out.Arms, byName)
	return out
}

// group sums up the samples that are in it.
func (r *runner) group(name string, in func(*sample) bool) Group {
	g := Group{Name: name}
	var changes, from []change
	var recorded, replayed, candidate, baseline []float64
	asked := 0
	for i := range r.samples {
		s := &r.samples[i]
		if !in(s) {
			continue
		}
		g.Queries++
		if s.asked {
			asked++
		}
		if !s.answered {
			g.Failed++
			continue
		}
		changes = append(changes, s.change)
		recorded, replayed = append(recorded, s.recorded), append(replayed, s.replayed)
		if s.both {
			from = append(from, s.from)
			candidate, baseline = append(candidate, s.replayed), append(baseline, s.baseline)
		}
	}
	g.Change, g.Recorded, g.Replayed = sumUp(changes), latencyOf(recorded), latencyOf(replayed)
	g.Intervals = intervalsOf(changes, &g.Change, replayed, g.Replayed.Mean)
	if r.baseline == nil {
		return g
	}
	g.Baseline = &BaselineGroup{Asked: asked, Queries: len(from), Change: sumUp(from), Replayed: latencyOf(candidate), Latency: latencyOf(baseline)}
	if g.Baseline.Latency.Mean > 0 {
		g.Baseline.LatencyRatio = g.Baseline.Replayed.Mean / g.Baseline.Latency.Mean
		if b := g.Baseline; b.Queries > 1 {
			b.Intervals = intervalsOf(from, &b.Change, candidate, b.Replayed.Mean)
			b.Intervals.LatencyRatio = new(around(b.LatencyRatio, halfOfRatio(candidate, baseline)))
		}
	}
	return g
}
