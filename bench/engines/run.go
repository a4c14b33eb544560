package engines

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/sections"
)

// Options say what to measure. The zero value of a field is its default.
type Options struct {
	// Engines lists what to compare; speeds are given relative to the first. The
	// default is [DefaultSpecs]. One whose driver is not built is left out.
	Engines []Spec
	// Drivers is the folder of the drivers that bench/peers/build.sh makes.
	Drivers string
	// K lists how many rows to ask for. The default is 10 and 100.
	K []int
	// Ef lists the efforts to sweep. The default is a list for each k. Efforts
	// below k are left out where they count as k: of all engines but ours.
	Ef []int
	// Threads is how many threads build. The default is 1.
	Threads int
	// Rounds is how often each setting takes its turn. The default is 5.
	Rounds int
	// Seed decides the order of the turns.
	Seed uint64
	// Progress, if not nil, is told how far the run is.
	Progress builder.Progress
}

// Bounds of the options.
const (
	MaxK       = 10_000
	MaxRounds  = 1000
	MaxThreads = 1024
)

func (o Options) withDefaults(metric index.Metric) Options {
	if len(o.Engines) == 0 {
		o.Engines = DefaultSpecs(metric)
	}
	o.Engines = slices.Clone(o.Engines)
	for i, s := range o.Engines {
		o.Engines[i] = s.withDefaults()
	}
	if len(o.K) == 0 {
		o.K = []int{10, 100}
	}
	if o.Threads == 0 {
		o.Threads = 1
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Progress == nil {
		o.Progress = silence{}
	}
	o.K, o.Ef = ascending(o.K), ascending(o.Ef)
	return o
}

type silence struct{}

func (silence) Stage(string, int64) {}
func (silence) Step(int64)          {}
func (silence) Note(string)         {}

func ascending(list []int) []int {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	o = o.withDefaults(index.L2)
	for _, k := range o.K {
		if k < 1 || k > MaxK {
			return fmt.Errorf("k is %d, want 1 to %d", k, MaxK)
		}
	}
	for _, ef := range o.Ef {
		if ef < 1 || ef > index.MaxRows {
			return fmt.Errorf("ef is %d, want at least 1", ef)
		}
	}
	switch {
	case o.Rounds < 1 || o.Rounds > MaxRounds:
		return fmt.Errorf("rounds is %d, want 1 to %d", o.Rounds, MaxRounds)
	case o.Threads < 1 || o.Threads > MaxThreads:
		return fmt.Errorf("threads is %d, want 1 to %d", o.Threads, MaxThreads)
	}
	for i, s := range o.Engines {
		if err := s.Validate(); err != nil {
			return err
		}
		if slices.Contains(o.Engines[:i], s) {
			return fmt.Errorf("engine %s is listed twice", s)
		}
	}
	return nil
}

// sweep holds the default efforts, as multiples of k, and below those that only our
// index tells apart.
var (
	below = [...]float64{0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
	sweep = [...]float64{1, 1.3, 1.7, 2.2, 3, 4, 5.5, 8, 11, 16, 24, 40, 64}
)

// efforts returns the sweep of an engine for k. Its end is that of hope: an engine that
// has not found the rows by then is stuck.
func (o Options) efforts(s Spec, k int) []int {
	if len(o.Ef) > 0 {
		return slices.DeleteFunc(slices.Clone(o.Ef), func(ef int) bool { return ef < k && s.Name != Tandem })
	}
	factors := sweep[:]
	if s.Name == Tandem {
		factors = slices.Concat(below[:], sweep[:])
	}
	var list []int
	for _, f := range factors {
		if ef := int(math.Round(f * float64(k))); ef >= 1 && ef <= max(1000, 16*k) {
			list = append(list, ef)
		}
	}
	return ascending(list)
}

const (
	warming = 20     // one query in so many is asked before a turn, and does not count
	enough  = 0.9998 // the recall that ends a sweep

	floorQueries = 200 // queries whose distances are computed again
)

// pace says what a run asks of each engine, and what time it takes for that.
type pace struct {
	efforts func(s Spec, k int) []int // the sweep, ascending
	enough  float64                   // the recall that ends it
	targets []float64                 // of our index
	floors  bool                      // of the walks of our index
	survey  time.Duration             // about how long finding a recall takes at most; 0 is no limit
	turn    time.Duration             // about how long a turn takes at most
	least   int                       // queries that are asked whatever they take
}

// pace returns that of [Run].
func (o Options) pace() pace {
	return pace{efforts: o.efforts, enough: enough, targets: Levels[:], floors: true, turn: 2 * time.Second, least: 50}
}

// contestant is an engine in a run.
type contestant struct {
	spec       Spec
	engine     engine
	restricted *Predicate // what the engine is restricted to
}

// restrict restricts the engine unless it is.
func (c *contestant) restrict(p *Predicate) error {
	if c.restricted == p {
		return nil
	}
	c.restricted = p
	return c.engine.restrict(p)
}

// entry is a setting of an engine under a predicate, and what came of it.
type entry struct {
	*contestant
	predicate *Predicate
	setting   Setting
	asked     int     // queries that what follows is the mean over
	recall    float64 // and below it that of the worst of them
	worst     float64
	distances float64 // below 0 where unknown
	how       string
	turn      int // queries a turn
	rounds    []round

	traces []*index.Trace // of a walk of our index
	floors []float64      // of each round, nanoseconds a distance
}

// round is one turn.
type round struct {
	mean, p50, p99 float64 // microseconds
}

// Run measures a set.
func Run(ctx context.Context, s *Set, o Options) (report *Report, err error) {
	defer sections.Guard(&err)()
	r, err := newRun(s, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.pace = r.options.pace()
	truths, err := r.truths(ctx, []*Predicate{nil})
	if err != nil {
		return nil, err
	}
	if err := r.start(ctx, nil); err != nil {
		return nil, err
	}
	entries, err := r.survey(ctx, truths[0])
	if err != nil {
		return nil, err
	}
	if err := r.race(ctx, entries); err != nil {
		return nil, err
	}
	report = &Report{Setup: r.setup, Engines: r.engines, Results: results(entries)}
	report.Levels = levels(report.Engines, report.Results)
	return report, nil
}

// run is a run in progress.
type run struct {
	set         *Set
	options     Options
	pace        pace
	dir         string // of the engines' files
	rng         *rand.Rand
	setup       Setup
	engines     []Engine
	contestants []*contestant
}

// newRun prepares a run, which the caller closes.
func newRun(s *Set, o Options) (*run, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults(s.Metric)
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return nil, err
	}
	return &run{set: s, options: o, dir: dir, rng: rand.New(rand.NewPCG(o.Seed, 0)), setup: Setup{
		Base: s.Base, Queries: s.Queries, Metric: s.Metric, Dim: s.base.dim, Rows: s.base.Rows(),
		Asked: s.queries.Rows(), Sample: s.shape.Rows() + s.sample.Rows(), Rounds: o.Rounds, Threads: o.Threads,
		Kernel: kernel.Name(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}}, nil
}

// close ends the engines and removes their files.
func (r *run) close() error {
	var err error
	for _, c := range r.contestants {
		err = errors.Join(err, c.engine.Close())
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// note is told to who waits and to who reads the report.
func (r *run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.setup.Notes = append(r.setup.Notes, text)
	r.options.Progress.Note(text)
}

// truths finds what is to be found under each predicate.
func (r *run) truths(ctx context.Context, predicates []*Predicate) ([]*truth, error) {
	r.options.Progress.Stage("exact scan", int64(r.set.queries.Rows()))
	return findTruths(ctx, r.set, predicates, r.options.K, runtime.GOMAXPROCS(0), r.options.Progress.Step)
}

// start builds the engines. It leaves out those that have no driver or, where a
// predicate is given, no search that it can restrict.
func (r *run) start(ctx context.Context, p *Predicate) error {
	o := r.options
	for _, spec := range o.Engines {
		o.Progress.Stage("build "+spec.String(), -1)
		e, err := start(ctx, spec, r.set, o, r.dir)
		if errors.Is(err, ErrNoDriver) {
			r.note("%s is left out: bench/peers/build.sh has not made its driver %s/%s", spec, o.Drivers, spec.Name)
			continue
		}
		if err != nil {
			return fmt.Errorf("build %s: %w", spec, err)
		}
		c := &contestant{spec: spec, engine: e}
		if err := c.restrict(p); err != nil {
			r.note("%s is left out: it cannot search among eligible rows: %v", spec, err)
			_ = e.Close() // a driver that has failed has said so
			continue
		}
		r.contestants = append(r.contestants, c)
		r.engines = append(r.engines, Engine{Engine: spec, Cost: e.cost()})
	}
	if len(r.contestants) == 0 {
		return fmt.Errorf("none of %d engines can be measured: %w", len(o.Engines), ErrNoDriver)
	}
	return nil
}

// survey asks every setting once, for what does not depend on the machine's mood.
func (r *run) survey(ctx context.Context, t *truth) ([]*entry, error) {
	var entries []*entry
	var a answers
	o := r.options
	o.Progress.Stage("recall"+under(t.predicate), int64(len(r.contestants)*len(o.K)))
	done := int64(0)
	for _, k := range o.K {
		for _, c := range r.contestants {
			settings := []Setting{}
			for _, ef := range r.pace.efforts(c.spec, k) {
				settings = append(settings, Setting{K: k, Ef: ef})
			}
			if c.spec.Name == Tandem {
				for _, target := range r.pace.targets {
					settings = append(settings, Setting{K: k, Target: target})
				}
				settings = append(settings, Setting{K: k})
			}
			finished := false
			for _, setting := range settings {
				if finished && setting.Ef > 0 {
					continue
				}
				e := &entry{contestant: c, predicate: t.predicate, setting: setting}
				if err := e.survey(ctx, t, r.pace, &a); err != nil {
					return nil, fmt.Errorf("%s, k %d, %s%s: %w", c.spec, k, setting, under(t.predicate), err)
				}
				finished = finished || e.recall >= r.pace.enough
				entries = append(entries, e)
			}
			done++
			o.Progress.Step(done)
		}
	}
	return entries, nil
}

// under names a predicate after something.
func under(p *Predicate) string {
	if p == nil {
		return ""
	}
	return " under " + p.Name
}

// survey asks all queries or, where the pace has no time for them, as many as there
// is time for.
func (e *entry) survey(ctx context.Context, t *truth, p pace, a *answers) error {
	all, k := t.set.queries.Rows(), e.setting.K
	if err := e.restrict(e.predicate); err != nil {
		return err
	}
	want := all
	if p.survey > 0 {
		want = min(p.least, all)
	}
	var recalls []float64
	var took time.Duration
	for len(recalls) < want {
		first := len(recalls)
		began := time.Now()
		if err := e.engine.search(ctx, e.setting, first, want-first, true, a); err != nil {
			return err
		}
		took += time.Since(began)
		e.how = a.how
		for i := range want - first {
			recall, err := t.recall(first+i, k, a.rows[i*k:(i+1)*k])
			if err != nil {
				return err
			}
			recalls = append(recalls, recall)
			if a.distances[i] < 0 {
				e.distances = math.Inf(-1)
			}
			e.distances += float64(a.distances[i])
		}
		if first == 0 && p.survey > 0 {
			want = within(p.survey, took, want, p.least, all)
		}
	}
	e.asked = len(recalls)
	e.distances /= float64(e.asked)
	slices.Sort(recalls)
	e.recall, e.worst = mean(recalls), mean(recalls[:(e.asked+99)/100])
	if ours, ok := e.engine.(*tandemEngine); ok && e.setting.Ef > 0 && p.floors {
		var err error
		if e.traces, err = ours.record(e.setting, min(all, floorQueries)); err != nil {
			return err
		}
	}
	e.turn = within(p.turn, took, e.asked, p.least, all)
	return nil
}

// within returns how many queries fit a time, of which n took took: at least least,
// but no more than all.
func within(limit, took time.Duration, n, least, all int) int {
	return min(max(int(float64(n)*float64(limit)/float64(took)), least), all)
}

func mean(list []float64) float64 {
	var sum float64
	for _, x := range list {
		sum += x
	}
	return sum / float64(len(list))
}

// turn is one of an entry: its own, or that of its floor.
type turn struct {
	*entry
	floor bool
}

// race gives every entry its turns.
func (r *run) race(ctx context.Context, entries []*entry) error {
	var order []turn
	for _, e := range entries {
		order = append(order, turn{e, false})
		if e.traces != nil {
			order = append(order, turn{e, true})
		}
	}
	var a answers
	progress, rounds := r.options.Progress, r.options.Rounds
	progress.Stage("speed"+under(entries[0].predicate), int64(rounds*len(order)))
	for n := range rounds {
		r.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for i, t := range order {
			if t.floor {
				t.floors = append(t.floors, t.engine.(*tandemEngine).replay(t.traces))
			} else if err := t.take(ctx, r.set, r.rng, &a); err != nil {
				return fmt.Errorf("%s, k %d, %s%s: %w", t.spec, t.setting.K, t.setting, under(t.predicate), err)
			}
			progress.Step(int64(n*len(order) + i + 1))
		}
	}
	return nil
}

// take asks a turn's queries: others every round, where they are not all.
func (e *entry) take(ctx context.Context, s *Set, rng *rand.Rand, a *answers) error {
	if err := e.restrict(e.predicate); err != nil {
		return err
	}
	first := rng.IntN(s.queries.Rows() - e.turn + 1)
	// The last queries warm up: the first ones would find their rows cached.
	warm := (e.turn + warming - 1) / warming
	if err := e.engine.search(ctx, e.setting, first+e.turn-warm, warm, false, a); err != nil {
		return err
	}
	if err := e.engine.search(ctx, e.setting, first, e.turn, false, a); err != nil {
		return err
	}
	e.rounds = append(e.rounds, summary(a.nanos))
	return nil
}

// summary sums up the times of a turn.
func summary(nanos []int64) round {
	sorted := slices.Sorted(slices.Values(nanos))
	var sum int64
	for _, n := range sorted {
		sum += n
	}
	at := func(q float64) float64 {
		return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]) / 1e3
	}
	return round{mean: float64(sum) / float64(len(sorted)) / 1e3, p50: at(0.5), p99: at(0.99)}
}

func (e *entry) result() Result {
	r := Result{
		Engine: e.spec, Setting: e.setting, Recall: e.recall, Worst: e.worst, Asked: e.asked, How: e.how,
		Mean: median(e.rounds, func(r round) float64 { return r.mean }),
		P50:  median(e.rounds, func(r round) float64 { return r.p50 }),
		P99:  median(e.rounds, func(r round) float64 { return r.p99 }),
	}
	if e.distances >= 0 {
		r.Distances = &e.distances
	}
	r.QPS = 1e6 / r.Mean
	if len(e.floors) > 0 {
		floor := median(e.floors, func(nanos float64) float64 { return nanos }) * e.distances / 1e3
		r.Floor = &floor
	}
	return r
}

func results(entries []*entry) []Result {
	var list []Result
	for _, e := range entries {
		list = append(list, e.result())
	}
	return list
}

// median returns the median of a figure over the rounds.
func median[T any](rounds []T, of func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}
