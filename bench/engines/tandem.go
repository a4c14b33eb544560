package engines

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// tandemEngine is our index, mapped from a file as in the server.
type tandemEngine struct {
	set   *Set
	file  *sections.File
	index *index.Index
	spent Cost
	hits  []index.Hit

	filter    index.Bitset // by ordinal; nil lets all rows be returned
	eligible  int
	predicate *Predicate // that ordinals are those of
	ordinals  index.Bitset
}

func startTandem(ctx context.Context, spec Spec, s *Set, o Options, dir string) (e *tandemEngine, err error) {
	params := index.DefaultParams(s.Metric)
	params.M, params.EfConstruction = spec.M, spec.EfConstruction
	rows, err := s.base.matrix()
	if err != nil {
		return nil, err
	}
	shape, err := s.shape.matrix()
	if err != nil {
		return nil, err
	}
	sample, err := s.sample.matrix()
	if err != nil {
		return nil, err
	}
	e = &tandemEngine{set: s}
	began := time.Now()
	x, err := index.Build(ctx, index.Input{Vectors: rows, Keys: s.keys, Threads: o.Threads}, params)
	if err != nil {
		return nil, err
	}
	built := time.Now()
	if err := x.Calibrate(ctx, shape, sample, o.Threads); err != nil {
		return nil, err
	}
	e.spent = Cost{BuildSeconds: built.Sub(began).Seconds(), CalibrateSeconds: time.Since(built).Seconds()}

	path := filepath.Join(dir, "tandem.index")
	w, err := sections.Create(path)
	if err != nil {
		return nil, err
	}
	if err := x.Write(w); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	if e.file, err = sections.Open(path); err != nil {
		return nil, err
	}
	if e.index, err = index.Open(e.file); err != nil {
		return nil, errors.Join(err, e.file.Close())
	}
	e.spent.Bytes = e.file.Size()
	return e, nil
}

func (e *tandemEngine) cost() Cost   { return e.spent }
func (e *tandemEngine) Close() error { return e.file.Close() }

// restrict leaves out a filter that leaves out no row, as the server does.
func (e *tandemEngine) restrict(p *Predicate) error {
	if p == nil || p.eligible == e.index.Rows() {
		e.filter, e.eligible = nil, 0
		return nil
	}
	if p != e.predicate {
		e.predicate, e.ordinals = p, index.NewBitset(e.index.Rows())
		for _, row := range p.rows.Append(nil) {
			e.ordinals.Set(e.index.Ordinal(row))
		}
	}
	e.filter, e.eligible = e.ordinals, p.eligible
	return nil
}

// query returns what asks setting s.
func (e *tandemEngine) query(s Setting) index.Query {
	q := index.Query{K: s.K, Ef: s.Ef, Plan: index.GraphWalk, Filter: e.filter, Eligible: e.eligible}
	switch {
	case s.Target > 0:
		q.Ef, q.Plan = e.index.EffortFor(s.K, s.Target), index.Auto
		if e.filter != nil {
			q.Ef = e.index.FilteredEffortFor(s.K, s.Target, e.eligible)
		}
	case s.Ef == 0:
		q.Plan = index.ExactScan
	}
	return q
}

func (e *tandemEngine) search(ctx context.Context, s Setting, first, n int, count bool, a *answers) error {
	a.reset(n, s.K)
	q := e.query(s)
	how := map[string]int{}
	for i := range n {
		q.Vector = e.set.queries.Row(first + i)
		start := time.Now()
		hits, stats, err := e.index.Search(q, e.hits[:0])
		a.nanos[i] = time.Since(start).Nanoseconds()
		if err != nil {
			return err
		}
		e.hits = hits
		for j, h := range hits {
			a.rows[i*s.K+j] = int32(e.index.Row(h.Ordinal))
		}
		if count {
			a.distances[i] = int64(stats.Scored)
			text := stats.Plan.String()
			if stats.Ef > 0 {
				text = fmt.Sprintf("%s, ef %d", text, stats.Ef)
			}
			how[text]++
		}
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	a.how = mostFrequent(how, n)
	return nil
}

// record returns what the walks of the first n queries score.
func (e *tandemEngine) record(s Setting, n int) ([]*index.Trace, error) {
	q := e.query(s)
	q.Trace = new(index.Trace)
	traces := make([]*index.Trace, n)
	for i := range traces {
		q.Trace.Reset()
		q.Vector = e.set.queries.Row(i)
		if _, _, err := e.index.Search(q, e.hits[:0]); err != nil {
			return nil, err
		}
		traces[i] = q.Trace.Clone()
	}
	return traces, nil
}

// replay returns how long the distances of the first queries take, each.
func (e *tandemEngine) replay(traces []*index.Trace) (nanos float64) {
	var took time.Duration
	scored := 0
	for i, t := range traces {
		start := time.Now()
		e.index.Replay(e.set.queries.Row(i), t)
		took += time.Since(start)
		scored += t.Scored()
	}
	return float64(took) / float64(max(scored, 1))
}

// mostFrequent names what most of n queries did, and how many if not all.
func mostFrequent(how map[string]int, n int) string {
	best := ""
	for _, text := range slices.Sorted(maps.Keys(how)) {
		if best == "" || how[text] > how[best] {
			best = text
		}
	}
	if best != "" && how[best] < n {
		return strings.Join([]string{fmt.Sprintf("%d%%", 100*how[best]/n), best}, " ")
	}
	return best
}
