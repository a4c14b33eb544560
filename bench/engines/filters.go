package engines

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// FilterTarget is the recall target under which engines are compared when they
// filter.
const FilterTarget = 0.95

// LeastEligible is how many rows a predicate must leave: the recall of fewer tells
// nothing.
const LeastEligible = 5

// filterSweep holds the efforts of a search that filters, as multiples of k. They
// reach farther than those without a filter, because some engines find an eligible
// row only where it is among the ef best of all.
var filterSweep = [...]float64{1, 1.5, 2.2, 3.3, 5, 8, 12, 20, 32, 64, 128, 256}

// filterPace returns the pace of [RunFilters]. A sweep has to end where comparisons
// do, and a slow setting has to be given up on sooner than in [Run]: there are as
// many settings as there, for every predicate, and one that walks the whole graph is
// among them.
func (o Options) filterPace() pace {
	return pace{
		efforts: func(_ Spec, k int) []int {
			if len(o.Ef) > 0 {
				return slices.DeleteFunc(slices.Clone(o.Ef), func(ef int) bool { return ef < k })
			}
			var list []int
			for _, f := range filterSweep {
				if ef := int(math.Round(f * float64(k))); ef <= max(2560, 32*k) {
					list = append(list, ef)
				}
			}
			return ascending(list)
		},
		enough: mostRecall, targets: []float64{0.90, FilterTarget, index.DefaultTarget},
		survey: 2 * time.Second, turn: 250 * time.Millisecond, least: 20,
	}
}

// RunFilters measures the engines of a set under each predicate, and under none. The
// engines must have ours among them; one that cannot filter is left out. Predicates
// that leave fewer than [LeastEligible] rows are left out too.
func RunFilters(ctx context.Context, s *Set, predicates []*Predicate, o Options) (report *FilterReport, err error) {
	defer sections.Guard(&err)()
	r, err := newRun(s, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	ours := slices.IndexFunc(r.options.Engines, func(spec Spec) bool { return spec.Name == Tandem })
	if ours < 0 {
		return nil, fmt.Errorf("engines are %v, want %s among them", r.options.Engines, Tandem)
	}
	all := []*Predicate{nil}
	for _, p := range predicates {
		if p.eligible < LeastEligible {
			r.note("%s is left out: it leaves %d rows, want at least %d", p.Name, p.eligible, LeastEligible)
			continue
		}
		all = append(all, p)
	}
	if len(all) == 1 {
		return nil, fmt.Errorf("none of %d predicates leaves at least %d rows", len(predicates), LeastEligible)
	}

	r.pace = r.options.filterPace()
	truths, err := r.truths(ctx, all)
	if err != nil {
		return nil, err
	}
	if err := r.start(ctx, all[1]); err != nil {
		return nil, err
	}
	report = &FilterReport{Target: FilterTarget}
	var plain []*entry // how our index does without a filter
	for _, t := range truths {
		entries, err := r.survey(ctx, t)
		if err != nil {
			return nil, err
		}
		beside := references(plain)
		if err := r.race(ctx, slices.Concat(entries, beside)); err != nil {
			return nil, err
		}
		found := predicateResult(t, truths[0], results(entries))
		found.summarise(r.options.Engines[ours], results(beside))
		report.Predicates = append(report.Predicates, found)
		if t.predicate == nil {
			plain = slices.DeleteFunc(entries, func(e *entry) bool {
				return e.spec != r.options.Engines[ours] || e.setting.Target != index.DefaultTarget
			})
		}
	}
	report.Setup, report.Engines = r.setup, r.engines
	return report, nil
}

// references returns entries that take turns anew.
func references(entries []*entry) []*entry {
	var list []*entry
	for _, e := range entries {
		again := *e
		again.rounds = nil
		list = append(list, &again)
	}
	return list
}

// predicateResult tells what is known of a predicate before it is summed up.
func predicateResult(t, unfiltered *truth, results []Result) PredicateResult {
	found := PredicateResult{
		Name: "no filter", Eligible: t.predicate.of(t.set),
		Selectivity: t.selectivity(), Correlation: t.correlation(unfiltered), Results: results,
	}
	if p := t.predicate; p != nil {
		found.Name, found.Filter = p.Name, p.Filter
		if p.Evaluate > 0 {
			us := float64(p.Evaluate) / 1e3
			found.Evaluate = &us
		}
	}
	return found
}

// mostRecall is the highest recall at which engines are compared when they filter:
// who misses one row in a thousand is taken to have found all.
const mostRecall = 0.999

// summarise compares our index with the others, for each k. plain are its results
// without a filter at the default target, measured in the same minutes.
func (p *PredicateResult) summarise(ours Spec, plain []Result) {
	find := func(results []Result, s Setting) *Result {
		i := slices.IndexFunc(results, func(r Result) bool { return r.Engine == ours && r.Setting == s })
		if i < 0 {
			return nil
		}
		return &results[i]
	}
	var ks []int
	for _, r := range p.Results {
		ks = append(ks, r.K)
	}
	for _, k := range ascending(ks) {
		planned, scan := find(p.Results, Setting{K: k, Target: FilterTarget}), find(p.Results, Setting{K: k})
		s := Summary{
			K: k, Recall: planned.Recall, Worst: planned.Worst, Met: planned.Recall >= FilterTarget,
			QPS: planned.QPS, How: planned.How, ScanQPS: scan.QPS, OverScan: planned.QPS / scan.QPS,
		}
		if s.Met {
			s.AtTarget = p.bestPeer(k, FilterTarget, s.QPS)
		}
		s.AtEqual = p.bestPeer(k, min(s.Recall, mostRecall), s.QPS)
		usual := Setting{K: k, Target: index.DefaultTarget}
		if unfiltered := find(plain, usual); unfiltered != nil {
			slowdown := find(p.Results, usual).Mean / unfiltered.Mean
			s.Slowdown = &slowdown
		}
		p.Summaries = append(p.Summaries, s)
	}
}

// bestPeer returns the fastest engine other than ours at a recall, and how many times
// as fast qps is; nil if none gets there.
func (p *PredicateResult) bestPeer(k int, recall, qps float64) *Peer {
	var best *Peer
	seen := map[Spec]bool{}
	for _, r := range p.Results {
		if r.Engine.Name == Tandem || seen[r.Engine] {
			continue
		}
		seen[r.Engine] = true
		if speed, ok := at(frontOf(p.Results, r.Engine, k), recall); ok && (best == nil || speed > best.QPS) {
			best = &Peer{Engine: r.Engine, Recall: recall, QPS: speed, Ratio: qps / speed}
		}
	}
	return best
}
