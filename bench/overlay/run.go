package overlay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// ErrEmpty is the error where a tower of the snapshot has nothing to ask with, or to find.
var ErrEmpty = errors.New("a tower of the snapshot is empty: there is nothing to measure")

// run is one run.
type run struct {
	options Options
	towers  towers
	queries [][]float32
	results []*measured
}

// measured is one setting, and what was measured of it.
type measured struct {
	k      int
	target float64
	rounds [len(sides)][]round
	mean   [len(sides)]recall
	fresh  int // fresh apps that exact answers have
	found  int // those that the answers had, too
}

// round is one turn of one side: microseconds.
type round struct{ p50, p99, mean float64 }

type recall struct{ mean, worst float64 }

// Run measures a snapshot. The error is the context's, [ErrEmpty], or one of options.
func Run(ctx context.Context, s *snapshots.Snapshot, o Options) (_ *Report, err error) {
	defer sections.Guard(&err)()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	apps := s.Tower(shard.Apps)
	r := &run{options: o, queries: queriesOf(s.Tower(shard.Users), o.Queries)}
	if apps.Rows() == 0 || len(r.queries) == 0 {
		return nil, ErrEmpty
	}
	if o.Takedowns >= apps.Rows() {
		return nil, fmt.Errorf("takedowns is %d, want fewer than the %d apps of the snapshot", o.Takedowns, apps.Rows())
	}
	if err := s.Warm(ctx); err != nil {
		return nil, err
	}
	towers, status, err := lay(ctx, s, o)
	if err != nil {
		return nil, err
	}
	r.towers = towers
	for _, k := range o.K {
		for _, target := range o.Targets {
			r.results = append(r.results, &measured{k: k, target: target})
		}
	}
	if err := r.measure(ctx); err != nil {
		return nil, err
	}
	m := s.Manifest()
	return r.report(&Report{
		Snapshot: s.Digest(), Metric: m.Metric, Dim: m.Dim, Apps: apps.Rows(), Shards: len(apps.Local()),
		Takedowns: o.Takedowns, Fresh: status.Fresh, Runs: status.Runs, Queries: len(r.queries), Rounds: o.Rounds,
	}), nil
}

// queriesOf returns the vectors of n rows of a tower, or of all.
func queriesOf(t *shard.Tower, n int) [][]float32 {
	var vectors [][]float32
	left := min(n, t.Rows())
	for i, s := range t.Local() {
		take := min(left/(len(t.Local())-i), s.Rows())
		left -= take
		for j := range take {
			vectors = append(vectors, s.Index().Vector(uint32(int64(j)*int64(s.Rows())/int64(take)), nil))
		}
	}
	return vectors
}

// measure takes the times and compares answers with exact ones.
func (r *run) measure(ctx context.Context) error {
	runtime.GC() // what writing the changes has left is none of a query's
	random := rand.New(rand.NewPCG(r.options.Seed, 2))
	for n := range r.options.Rounds {
		r.options.Progress(fmt.Sprintf("round %d of %d", n+1, r.options.Rounds))
		for _, m := range r.results {
			for _, side := range random.Perm(len(sides)) {
				turn, err := r.turn(ctx, m, r.towers[side])
				if err != nil {
					return fmt.Errorf("k %d, target %v, %s: %w", m.k, m.target, sides[side], err)
				}
				m.rounds[side] = append(m.rounds[side], turn)
			}
		}
	}
	r.options.Progress("compare with exact answers")
	for _, side := range []int{0, len(sides) - 1} {
		if err := r.compare(ctx, side); err != nil {
			return fmt.Errorf("compare %s with exact answers: %w", sides[side], err)
		}
	}
	return nil
}

func (m *measured) query(v []float32) *shard.Query {
	return &shard.Query{Vectors: [][]float32{v}, K: m.k, Target: m.target, Workers: 1, MinCoverage: 1}
}

// turn asks a tower all queries on one thread.
func (r *run) turn(ctx context.Context, m *measured, t *shard.Tower) (round, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q := m.query(nil)
	times := make([]time.Duration, 0, len(r.queries))
	var sum time.Duration
	last, err := spent()
	if err != nil {
		return round{}, err
	}
	for _, v := range r.queries {
		q.Vectors[0] = v
		if _, err := t.Search(ctx, q); err != nil {
			return round{}, err
		}
		now, err := spent()
		if err != nil {
			return round{}, err
		}
		times = append(times, now-last)
		sum += now - last
		last = now
	}
	slices.Sort(times)
	n := len(times)
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return round{us(times[n/2]), us(times[n*99/100]), us(sum) / float64(n)}, nil
}

// compare compares answers of a side with exact ones.
func (r *run) compare(ctx context.Context, side int) error {
	tower, most := r.towers[side], r.options.K[len(r.options.K)-1]
	recalls := make([][]float64, len(r.results))
	for _, v := range r.queries {
		exact, err := tower.Search(ctx, &shard.Query{Vectors: [][]float32{v}, K: most, Target: index.DefaultTarget, Plan: index.ExactScan, MinCoverage: 1})
		if err != nil {
			return err
		}
		for i, m := range r.results {
			got, err := tower.Search(ctx, m.query(v))
			if err != nil {
				return err
			}
			want := exact.Candidates[:min(m.k, len(exact.Candidates))]
			recalls[i] = append(recalls[i], shard.RecallOf(tower.Metric(), want, got.Candidates))
			m.count(want, got.Candidates)
		}
	}
	for i, m := range r.results {
		m.mean[side].mean, m.mean[side].worst = shard.MeanRecall(recalls[i])
	}
	return nil
}

// count counts the fresh apps of an exact answer, and which of them were found.
func (m *measured) count(want, got []shard.Candidate) {
	for i := range want {
		if !strings.HasPrefix(want[i].ID, freshPrefix) {
			continue
		}
		m.fresh++
		if slices.ContainsFunc(got, func(c shard.Candidate) bool { return c.ID == want[i].ID }) {
			m.found++
		}
	}
}
