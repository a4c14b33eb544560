package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Tolerance is how much worse than the k-th exact score a candidate may score,
// relative to it, and still count.
const Tolerance = 1e-6

// exactQueries bounds the queries of an exact scan's turn.
const exactQueries = 100

// Run measures a snapshot. An error from the filter is an *[eligibility.Error] or
// an *[eligibility.BindError], one from the segment a *[shard.SegmentError].
func Run(ctx context.Context, s *snapshots.Snapshot, o Options) (_ *Report, err error) {
	defer sections.Guard(&err)()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	source := shard.Users
	if o.Target == shard.Users {
		source = shard.Apps
	}
	r := &runner{options: o, tower: s.Tower(o.Target), queries: queries(s.Tower(source), o.Queries)}
	if len(r.queries) == 0 {
		return nil, fmt.Errorf("the %s tower is empty: there is nothing to ask with", source)
	}
	if r.tower.Rows() == 0 {
		return nil, fmt.Errorf("the %s tower is empty: there is nothing to find", o.Target)
	}
	if err := r.tower.CheckSegment(o.Segment); err != nil {
		return nil, err
	}
	r.query = shard.Query{Vectors: make([][]float32, 1), Segment: o.Segment, MinCoverage: 1}
	if o.Filter != "" {
		filter, err := r.tower.Compile(o.Filter)
		if err != nil {
			return nil, err
		}
		bound, err := filter.Bind(ctx, o.Bindings)
		if err != nil {
			return nil, err
		}
		r.query.Filter = &bound
	}
	r.plan()
	if err := r.run(ctx); err != nil {
		return nil, err
	}

	m := s.Manifest()
	report := &Report{
		Model: m.Model, ModelVersion: m.ModelVersion, Snapshot: s.Digest(), Builder: m.Builder,
		Tower: o.Target, Metric: m.Metric, Dim: m.Dim, Rows: r.tower.Rows(), Shards: len(r.tower.Parts()),
		Params: m.Tower(o.Target).Params,
		Filter: o.Filter, Segment: o.Segment, Eligible: r.eligible,
		Queries: len(r.queries), Overlap: overlap(m, o.Target, s.Tower(source).Rows(), len(r.queries)),
		Rounds: o.Rounds, Processors: runtime.GOMAXPROCS(0),
		Kernel: kernel.Name(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	for _, group := range r.settings {
		exact := group[0].result()
		for _, set := range group {
			result := set.result()
			result.Speedup = exact.Mean / result.Mean
			report.Results = append(report.Results, result)
		}
	}
	return report, nil
}

// runner is one run.
type runner struct {
	options  Options
	tower    *shard.Tower
	queries  [][]float32
	query    shard.Query // what all settings have in common
	eligible int
	settings [][]*setting // for each k, the exact scan first
	total    int64        // queries to ask
	asked    int64
}

// setting is one way to ask, and what came of it.
type setting struct {
	k      int
	kind   Setting
	ef     int
	target float64

	// truth holds for each query the worst score that counts and how many rows
	// there are to find. All settings of one k share it.
	truth *truth

	recall   []float64 // of each query
	scored   int
	expanded int
	plans    map[index.Plan]int // shards' plans, over all queries
	efs      []map[int]int      // of each shard: how many queries took which effort
	rounds   []round
}

type truth struct {
	worst []float32
	count []int
}

// round is one turn of a setting.
type round struct {
	mean, p50, p95, p99 float64 // microseconds
	qps                 float64
}

// plan lists the settings.
func (r *runner) plan() {
	o := &r.options
	r.total = int64(len(r.queries)) // the truth
	for _, k := range o.K {
		of := &truth{make([]float32, len(r.queries)), make([]int, len(r.queries))}
		group := []*setting{{k: k, kind: Exact, truth: of}}
		for _, ef := range o.efforts(k) {
			group = append(group, &setting{k: k, kind: Ef, ef: ef, truth: of})
		}
		for _, target := range o.Targets {
			group = append(group, &setting{k: k, kind: Target, target: target, truth: of})
		}
		r.settings = append(r.settings, group)
		for _, s := range group {
			s.plans = map[index.Plan]int{}
			s.efs = make([]map[int]int, len(r.tower.Parts()))
			for i := range s.efs {
				s.efs[i] = map[int]int{}
			}
			r.total += int64(o.Rounds * r.turn(s))
		}
	}
}

// turn returns how many queries a turn of a setting asks.
func (r *runner) turn(s *setting) int {
	if s.kind == Exact {
		return min(len(r.queries), exactQueries)
	}
	return len(r.queries)
}

// run finds the truth and gives every setting its turns.
func (r *runner) run(ctx context.Context) error {
	if err := r.findTruth(ctx); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(r.options.Seed, 0))
	order := slices.Concat(r.settings...)
	for n := range r.options.Rounds {
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, s := range order {
			if err := r.takeTurn(ctx, s, n == 0); err != nil {
				return fmt.Errorf("k %d, %s: %w", s.k, s.name(), err)
			}
		}
	}
	r.progress()
	return nil
}

func (r *runner) progress() {
	if r.options.Progress != nil {
		r.options.Progress(r.asked, r.total)
	}
}

// ask asks query i and counts it.
func (r *runner) ask(ctx context.Context, s *setting, i int) (*shard.Answer, time.Duration, error) {
	if r.asked%64 == 0 {
		r.progress()
	}
	r.asked++
	q := &r.query
	q.Vectors[0], q.K, q.Ef, q.Target, q.Plan = r.queries[i], s.k, s.ef, s.target, index.Auto
	switch {
	case s.kind == Exact:
		q.Target, q.Plan = 1, index.ExactScan
	case s.kind == Ef && r.options.Walk:
		q.Plan = index.GraphWalk
	}
	start := time.Now()
	a, err := r.tower.Search(ctx, q)
	took := time.Since(start)
	if err == nil {
		for _, sh := range a.Shards {
			err = errors.Join(err, sh.Err)
		}
	}
	return a, took, err
}

// findTruth scans for the largest k, which holds the truth of the others.
func (r *runner) findTruth(ctx context.Context) error {
	largest := r.settings[len(r.settings)-1][0]
	for i := range r.queries {
		a, _, err := r.ask(ctx, largest, i)
		if err != nil {
			return fmt.Errorf("exact scan: %w", err)
		}
		r.eligible = a.Eligible
		for _, group := range r.settings {
			t := group[0].truth
			if t.count[i] = min(group[0].k, len(a.Candidates)); t.count[i] > 0 {
				t.worst[i] = worst(r.tower.Metric(), a.Candidates[t.count[i]-1].Score)
			}
		}
	}
	return nil
}

// worst returns the worst score that counts when the last exact one is score.
func worst(metric index.Metric, score float32) float32 {
	slack := float32(math.Abs(float64(score)) * Tolerance)
	if metric.Better(score, score+slack) {
		return score + slack
	}
	return score - slack
}

// recallOf returns the share of the rows to find for query i that are in a.
func (t *truth) recallOf(metric index.Metric, i int, a *shard.Answer) float64 {
	if t.count[i] == 0 {
		return 1
	}
	found := 0
	for _, c := range a.Candidates {
		if !metric.Better(t.worst[i], c.Score) {
			found++
		}
	}
	return float64(min(found, t.count[i])) / float64(t.count[i])
}

// takeTurn asks a setting's queries one by one. The first turn also notes what
// does not change from turn to turn.
func (r *runner) takeTurn(ctx context.Context, s *setting, first bool) error {
	h := hdrhistogram.New(1, int64(time.Hour), 3)
	var sum time.Duration
	n := r.turn(s)
	for i := range n {
		a, took, err := r.ask(ctx, s, i)
		if err != nil {
			return err
		}
		sum += took
		if err := h.RecordValue(int64(max(took, 1))); err != nil {
			return err
		}
		if first {
			s.note(s.truth.recallOf(r.tower.Metric(), i, a), a)
		}
	}
	us := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1e3 }
	s.rounds = append(s.rounds, round{
		mean: float64(sum) / float64(n) / 1e3, p50: us(50), p95: us(95), p99: us(99),
		qps: float64(n) / sum.Seconds(),
	})
	return nil
}

func (s *setting) note(recall float64, a *shard.Answer) {
	s.recall = append(s.recall, recall)
	for i, sh := range a.Shards {
		s.scored += sh.Scored
		s.expanded += sh.Expanded
		s.plans[sh.Plan]++
		s.efs[i][sh.Ef]++
	}
}

func (s *setting) name() string {
	switch s.kind {
	case Ef:
		return fmt.Sprintf("ef %d", s.ef)
	case Target:
		return fmt.Sprintf("target %v", s.target)
	}
	return string(s.kind)
}

// result sums a setting up.
func (s *setting) result() Result {
	n := float64(len(s.recall))
	recall := slices.Sorted(slices.Values(s.recall))
	mean, worst := shard.MeanRecall(recall)
	out := Result{
		K: s.k, Setting: s.kind, Ef: s.ef, Target: s.target, Default: s.kind == Target && s.target == DefaultTarget,
		Recall: mean, Worst: worst, RecallMin: recall[0], RecallP1: recall[len(recall)/100],
		Mean: s.median(func(r round) float64 { return r.mean }),
		P50:  s.median(func(r round) float64 { return r.p50 }),
		P95:  s.median(func(r round) float64 { return r.p95 }),
		P99:  s.median(func(r round) float64 { return r.p99 }),
		QPS:  s.median(func(r round) float64 { return r.qps }),

		Scored: float64(s.scored) / n, Expanded: float64(s.expanded) / n,
		Plans: map[string]float64{},
	}
	for plan, count := range s.plans {
		out.Plans[plan.String()] = float64(count) / n / float64(len(s.efs))
	}
	for _, took := range s.efs {
		// The effort that most queries took.
		out.ShardEf = append(out.ShardEf, slices.MaxFunc(slices.Sorted(maps.Keys(took)), func(a, b int) int {
			return cmp.Compare(took[a], took[b])
		}))
	}
	return out
}

// median returns the median over the rounds.
func (s *setting) median(of func(round) float64) float64 {
	values := make([]float64, len(s.rounds))
	for i, r := range s.rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}
