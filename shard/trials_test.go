package shard_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

var (
	trials      = flag.Int("trials", someTrials, "how many queries TestTrials compares with brute force")
	trialsSeed  = flag.Uint64("seed", 1, "what the data sets of TestTrials are drawn from")
	trialsFirst = flag.Uint64("trials-first", 0, "the number of the first data set of TestTrials")
)

// TestTrials asks random queries under random filters of random data sets, and
// compares what comes back with brute force: each filter is evaluated row by row in
// Go, each score in float64. Whatever the plan, an answer has eligible ids only, none
// twice, in order, with exact scores, and as many as there can be; and by exact scans
// it has the same ids.
//
//	go test ./shard -run TestTrials -v -timeout 0 -trials 10000000
func TestTrials(t *testing.T) {
	var count trialCount
	start := time.Now()
	for number := *trialsFirst; count.trials < *trials; number++ {
		dir, err := os.MkdirTemp(t.TempDir(), "store")
		require.NoError(t, err)
		s := newTrialSet(t, dir, *trialsSeed, number)
		d := drawer{rand.New(rand.NewPCG(*trialsSeed, ^number))}
		for range min(trialsPerSet, *trials-count.trials) {
			trial := s.draw(d)
			answer, err := s.tower.Search(context.Background(), &trial.query)
			if err == nil {
				err = trial.check(answer, &count)
			}
			require.NoError(t, err, "%s: %s", s.name, &trial)
		}
		count.sets++
		count.rows += len(s.rows)
		require.NoError(t, s.tower.Close())
		require.NoError(t, os.RemoveAll(dir))
	}
	t.Logf("%s; %.0f trials a second", &count, float64(count.trials)/time.Since(start).Seconds())
	if count.trials >= 20_000 { // a share of each plan, or the trials prove little
		require.Greater(t, count.filtered, count.trials/10)
		require.Greater(t, count.plain, count.trials/50)
		require.Greater(t, count.exact, count.trials/10)
	}
}

// trialCount is what trials have come to.
type trialCount struct {
	trials, sets, rows     int
	exact, filtered, plain int // trials by plan: only exact scans, a filtered walk, a graph walk
	fellBack               int // forced walks of which a shard ended in an exact scan
	compared               int // trials of which the ids were those of brute force
	empty, few             int // trials with no eligible row, with fewer than k
	limited                int // trials with at_most
	candidates             int
	found, wanted          float64 // recall of trials with a walk, and their number
}

// String says it in one line.
func (c *trialCount) String() string {
	return fmt.Sprintf("%d trials on %d data sets of %d rows: %d with a filtered walk, %d with a graph walk, %d by exact scans only "+
		"(%d forced walks fell back); %d equal to brute force, %d with at_most, %d without eligible rows, %d with fewer than k; "+
		"%d candidates, mean recall of walks %.4f",
		c.trials, c.sets, c.rows, c.filtered, c.plain, c.exact, c.fellBack, c.compared, c.limited, c.empty, c.few,
		c.candidates, c.found/max(c.wanted, 1))
}

// trial is a query and the rows that may come back.
type trial struct {
	set      *trialSet
	query    shard.Query
	vectors  *trialVectors
	filter   string
	eligible index.Bitset
}

// String says all that is needed to ask again.
func (t *trial) String() string {
	q := &t.query
	return fmt.Sprintf("vectors %v, k %d, filter %s, segment %q, include %q, exclude %q, self %q, at most %v, ef %d, target %v, plan %s",
		q.Vectors, q.K, t.filter, q.Segment, q.Include, q.Exclude, q.Self, q.AtMost, q.Ef, q.Target, q.Plan)
}

// draw puts a query together.
func (s *trialSet) draw(d drawer) trial {
	t := trial{set: s, vectors: &s.vectors[d.IntN(len(s.vectors))], eligible: index.NewBitset(len(s.rows))}
	t.eligible.Fill(len(s.rows))
	q := &t.query
	q.Vectors, q.MinCoverage = t.vectors.list, 1
	switch d.IntN(10) {
	case 0:
		q.K = d.upTo(len(s.rows) + 10)
	case 1, 2:
		q.K = d.upTo(100)
	default:
		q.K = 1 + d.IntN(12)
	}
	if d.chance(85) {
		f := &s.filters[d.IntN(len(s.filters))]
		q.Filter, t.filter = f.bound, f.text
		t.eligible.And(f.rows)
	}
	if len(s.segments) > 0 && d.chance(20) {
		f := &s.segments[d.IntN(len(s.segments))]
		q.Segment = f.text
		t.eligible.And(f.rows)
	}
	if d.chance(5) {
		l := &s.lists[d.IntN(len(s.lists))]
		q.Include = l.ids
		t.eligible.And(l.rows)
	}
	if d.chance(15) {
		l := &s.lists[d.IntN(len(s.lists))]
		q.Exclude = l.ids
		for _, row := range l.rows.Append(nil) {
			t.eligible.Unset(row)
		}
	}
	if d.chance(10) { // what would else be returned
		for _, row := range t.vectors.order[:min(len(s.rows), d.upTo(20))] {
			q.Exclude = append(slices.Clip(q.Exclude), s.rows[row].id)
			t.eligible.Unset(uint32(row))
		}
	}
	if d.chance(10) {
		row := d.IntN(len(s.rows))
		q.Self = s.rows[row].id
		t.eligible.Unset(uint32(row))
	}
	if d.chance(6) {
		fields := []int{trialFlag, trialGenre, trialTags, trialYear}
		for range 1 + d.IntN(2) {
			i := d.IntN(len(fields))
			q.AtMost = append(q.AtMost, shard.AtMost{Field: fields[i], N: pickOne(d, 1, 1, 2, 3, 20)})
			fields = slices.Delete(fields, i, i+1)
		}
	}
	switch d.IntN(8) {
	case 0:
		q.Target = 1
	case 1:
		q.Ef, q.Plan = 10, index.ExactScan
	case 2:
		q.Target = pickOne(d, 0.9, 0.95, 0.99, 0.999)
	case 3:
		q.Ef = d.upTo(100)
	default:
		q.Ef, q.Plan = d.upTo(60), pickOne(d, index.GraphWalk, index.FilteredWalk)
	}
	return t
}

// check returns an error that says what of the answer is wrong.
func (t *trial) check(a *shard.Answer, count *trialCount) error {
	s, q := t.set, &t.query
	eligible := t.eligible.Count()
	if a.Eligible != eligible {
		return fmt.Errorf("%d rows are counted as eligible, want %d", a.Eligible, eligible)
	}
	got := make([]int, len(a.Candidates))
	seen := index.NewBitset(len(s.rows))
	for i, c := range a.Candidates {
		row, ok := s.byID[c.ID]
		switch {
		case !ok:
			return fmt.Errorf("place %d: %q is no row", i, c.ID)
		case !t.eligible.Has(uint32(row)):
			return fmt.Errorf("place %d: %s is not eligible: %+v", i, c.ID, s.rows[row])
		case seen.Has(uint32(row)):
			return fmt.Errorf("place %d: %s comes twice", i, c.ID)
		case !(math.Abs(float64(c.Score)-t.vectors.scores[row]) <= t.vectors.within[row]):
			return fmt.Errorf("place %d: %s scores %v, want %v", i, c.ID, c.Score, t.vectors.scores[row])
		}
		if i > 0 {
			last := a.Candidates[i-1]
			if s.metric.Better(c.Score, last.Score) || c.Score == last.Score && c.ID < last.ID {
				return fmt.Errorf("place %d: %s ranks before %s", i, c.ID, last.ID)
			}
		}
		seen.Set(uint32(row))
		got[i] = row
	}
	want, left := t.take(t.vectors.order)
	if kept, _ := t.take(got); len(kept) < len(got) {
		return fmt.Errorf("%d candidates, at_most allows %d of them", len(got), len(kept))
	}
	scans := t.count(a, count, len(got))
	if len(q.AtMost) == 0 || s.exact {
		// Under at_most, what a walk misses can let more rows be taken, never fewer.
		if len(got) < len(want) || len(got) > len(want) && (len(q.AtMost) == 0 || scans) {
			return fmt.Errorf("%d candidates, want %d of %d eligible", len(got), len(want), left)
		}
	}
	if scans && (s.exact || len(q.AtMost) == 0) {
		count.compared++
		for i, row := range got {
			if s.exact && row != want[i] || math.Abs(t.vectors.scores[row]-t.vectors.scores[want[i]]) > t.vectors.within[row]+t.vectors.within[want[i]] {
				return fmt.Errorf("place %d: %s, want %s", i, s.rows[row].id, s.rows[want[i]].id)
			}
		}
	}
	if !scans && len(q.AtMost) == 0 && len(want) > 0 {
		found := 0
		for _, row := range want {
			if seen.Has(uint32(row)) {
				found++
			}
		}
		count.found += float64(found) / float64(len(want))
		count.wanted++
	}
	return nil
}

// take returns the first k of rows, best first, that may be returned, and how many of
// them are eligible.
func (t *trial) take(rows []int) (taken []int, eligible int) {
	q := &t.query
	var values map[string]int
	if len(q.AtMost) > 0 {
		values = map[string]int{}
	}
next:
	for _, row := range rows {
		if !t.eligible.Has(uint32(row)) {
			continue
		}
		if eligible++; len(taken) == q.K {
			continue
		}
		r := &t.set.rows[row]
		for _, limit := range q.AtMost {
			for _, v := range r.limited(limit.Field) {
				if values[fmt.Sprint(limit.Field, v)] >= limit.N {
					continue next
				}
			}
		}
		for _, limit := range q.AtMost {
			for _, v := range r.limited(limit.Field) {
				values[fmt.Sprint(limit.Field, v)]++
			}
		}
		taken = append(taken, row)
	}
	return taken, eligible
}

// count notes how the trial was answered, and reports whether by exact scans only.
func (t *trial) count(a *shard.Answer, c *trialCount, candidates int) (scans bool) {
	q := &t.query
	c.trials++
	c.candidates += candidates
	if a.Eligible == 0 {
		c.empty++
	}
	if candidates < q.K {
		c.few++
	}
	if len(q.AtMost) > 0 {
		c.limited++
	}
	var filtered, plain, exact bool
	for _, s := range a.Shards {
		switch s.Plan {
		case index.FilteredWalk:
			filtered = true
		case index.GraphWalk:
			plain = true
		default:
			exact = exact || s.Eligible > 0
		}
	}
	if filtered {
		c.filtered++
	}
	if plain {
		c.plain++
	}
	if exact && (q.Plan == index.GraphWalk || q.Plan == index.FilteredWalk) {
		c.fellBack++
	}
	if filtered || plain {
		return false
	}
	c.exact++
	// Of several query vectors only the last one's plan is told.
	return len(q.Vectors) == 1 || q.Plan == index.ExactScan || q.Target == 1
}
