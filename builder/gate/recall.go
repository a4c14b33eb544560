package gate

import (
	"context"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

const (
	// topK is how many candidates users are asked about.
	topK = 100
	// fewest is how many of something there must be for a share of them to be judged:
	// fewer come and go by chance.
	fewest = 20
	// fewestFound is how many apps of a segment must be among users' best of all apps for
	// Found to be judged.
	fewestFound = 100
)

// recall measures what held-out users are given, of all apps and in each segment.
func (r *run) recall(ctx context.Context) error {
	if r.off(gates.Recall) && r.off(gates.Concentration) {
		return nil
	}
	t := r.Candidate.Tower(shard.Apps)
	queries := probe.Vectors(probe.HeldOut(r.Candidate.Tower(shard.Users), probe.SampleOf(manifest.Gate), nil))
	if len(queries) == 0 {
		if !r.off(gates.Concentration) {
			r.NotRun(gates.Concentration, "", "no user is held out")
		}
		if !r.off(gates.Recall) {
			r.AtLeast(gates.Recall, gates.HeldOutUsers, 0, 1, "the user tower has %s, so no user is held out and recall cannot be measured", wording.Plural(r.Candidate.Tower(shard.Users).Rows(), "row"))
		}
		return nil
	}
	given, err := probe.Serve(ctx, t, queries, topK, "")
	if err != nil {
		return err
	}
	if !r.off(gates.Recall) {
		if err := r.recallOf(ctx, t, queries, given); err != nil {
			return err
		}
	}
	switch {
	case r.off(gates.Concentration):
	case t.Rows() <= topK:
		r.NotRun(gates.Concentration, "", "with at most %d apps everybody is given all", topK)
	default:
		distinct := compare.Distinct(given)
		r.AtLeast(gates.Concentration, "spread of candidates", spread(distinct, t.Rows(), len(given)), r.Thresholds.Concentration.Spread,
			"%s of %s apps (%s) are given to none of %s users among their best %d; the %s that are, are %s of those that could be beyond one user's, at least %s are required",
			wording.Count(t.Rows()-distinct), wording.Count(t.Rows()), gates.Percent(1-float64(distinct)/float64(t.Rows())), wording.Count(len(given)), topK, wording.Count(distinct),
			gates.Percent(spread(distinct, t.Rows(), len(given))), gates.Percent(r.Thresholds.Concentration.Spread))
	}
	return nil
}

// spread returns the share of the apps that could be given to someone, beyond those of
// one user, that are.
func spread(distinct, rows, users int) float64 {
	possible := min(rows, users*topK) - topK
	if possible <= 0 {
		return 1
	}
	return float64(max(distinct-topK, 0)) / float64(possible)
}

// segmentsAtOnce bounds the memory of exact answers: so many segments are measured
// together.
const segmentsAtOnce = 16

// recallOf judges what users are given.
func (r *run) recallOf(ctx context.Context, t *shard.Tower, queries [][]float32, given [][]shard.Candidate) error {
	list := t.Segments()
	rows := t.SegmentRows()
	for first := 0; first == 0 || first < len(list); first += segmentsAtOnce {
		some := list[first:min(first+segmentsAtOnce, len(list))]
		names := make([]string, len(some))
		for i, s := range some {
			names[i] = s.Name
		}
		exact, err := probe.Exact(ctx, t, queries, topK, names)
		if err != nil {
			return err
		}
		if first == 0 {
			if err := r.judge(ctx, t, queries, exact.All, given, "", r.Thresholds.Recall, t.Rows()); err != nil {
				return err
			}
		}
		for i, s := range some {
			limits := r.Thresholds.Segment(s.Name)
			if limits.Off {
				r.NotRun(gates.Recall, "recall in segment "+s.Name, gates.TurnedOff)
				continue
			}
			if rows[first+i] == 0 {
				r.AtLeast(gates.Recall, "recall in segment "+s.Name, 1, 0, "segment %s: no app is eligible, so there is nothing to find", s.Name)
				continue
			}
			inSegment, err := probe.Serve(ctx, t, queries, topK, s.Name)
			if err != nil {
				return fmt.Errorf("segment %s: %w", s.Name, err)
			}
			if err := r.judge(ctx, t, queries, exact.Segments[i], inSegment, s.Name, limits.RecallLimits, rows[first+i]); err != nil {
				return err
			}
			r.found(t, queries, exact, i, given, s.Name, limits.Found)
		}
	}
	return nil
}

// judge judges the recall of all apps, or of a segment. Recall@10 is measured on
// queries for 10, because a query for fewer looks less far.
func (r *run) judge(ctx context.Context, t *shard.Tower, queries [][]float32, exact [][]probe.Hit, given [][]shard.Candidate, segment string, limits gates.RecallLimits, eligible int) error {
	where, among := "", fmt.Sprintf("%s apps", wording.Count(eligible))
	if segment != "" {
		where, among = " in segment "+segment, fmt.Sprintf("%s eligible apps", wording.Count(eligible))
	}
	for _, band := range []struct {
		k     int
		limit float64
	}{{10, limits.At10}, {100, limits.At100}} {
		got := given
		if band.k != topK {
			var err error
			if got, err = probe.Serve(ctx, t, queries, band.k, segment); err != nil {
				return err
			}
		}
		var s share
		each := make([]float64, len(queries))
		for i := range queries {
			want := exact[i][:min(len(exact[i]), band.k)]
			hits := hitsOf(t, queries[i], want, got[i])
			s.add(hits, len(want))
			each[i] = float64(hits) / float64(max(len(want), 1))
		}
		mean, lower, _ := s.of()
		name := fmt.Sprintf("recall@%d%s", band.k, where)
		if len(queries) < fewest {
			r.AtLeast(gates.Recall, name, mean, band.limit, "%s is %.4f over %s, too few to say how sure that is; at least %v is required; %s",
				name, mean, wording.Plural(len(queries), "held-out user"), band.limit, among)
		} else {
			r.AtLeast(gates.Recall, name, lower, band.limit, "%s is %.4f over %s held-out users, and at least %.4f with 95%% confidence; at least %v is required; %s",
				name, mean, wording.Count(len(queries)), lower, band.limit, among)
		}
		slices.Sort(each)
		n := (len(each) + 99) / 100
		worst, _ := probe.Mean(each[:n])
		r.AtLeast(gates.Recall, "worst 1% of "+name, worst, limits.Worst, "the worst 1%% of held-out users (%d) have a mean %s of %.4f; at least %v is required", n, name, worst, limits.Worst)
	}
	return nil
}

// found judges how many of the apps of a segment that belong among the best of all apps
// are given there: a filtered query may find by a scan what an unfiltered one, by a
// walk, never does.
func (r *run) found(t *shard.Tower, queries [][]float32, exact *probe.Answers, segment int, given [][]shard.Candidate, name string, limit float64) {
	var s share
	for i := range queries {
		var members []probe.Hit
		for _, h := range exact.All[i] {
			if exact.InSegment(segment, h) {
				members = append(members, h)
			}
		}
		in := idsOf(given[i])
		hits := 0
		for _, h := range members {
			if in[h.ID] {
				hits++
			}
		}
		if missed := len(members) - hits; missed > 0 {
			// What ties with the last that belongs there may stand for it.
			hits += min(missed, spare(t, queries[i], exact.All[i], given[i]))
		}
		s.add(hits, len(members))
	}
	mean, lower, trials := s.of()
	subject := fmt.Sprintf("apps of segment %s found among all", name)
	if trials < fewestFound {
		r.NotRun(gates.Recall, subject, "%d of them are among the best %d of all apps for held-out users, at least %d are needed to tell", trials, topK, fewestFound)
		return
	}
	r.AtLeast(gates.Recall, subject, lower, limit,
		"of the apps of segment %s that are among the best %d of all apps for held-out users, %.4f are given to them (of %s; at least %.4f with 95%% confidence); at least %v is required",
		name, topK, mean, wording.Count(trials), lower, limit)
}

func idsOf(list []shard.Candidate) map[string]bool {
	in := make(map[string]bool, len(list))
	for _, c := range list {
		in[c.ID] = true
	}
	return in
}

// hitsOf returns how many of the best are given. Rows that tie with the last of the
// best are interchangeable. Scores are those of whole vectors, not those that are
// claimed.
func hitsOf(t *shard.Tower, query []float32, want []probe.Hit, given []shard.Candidate) int {
	in := idsOf(given)
	hits := 0
	for _, h := range want {
		if in[h.ID] {
			hits++
		}
	}
	if hits < len(want) {
		hits += spare(t, query, want, given)
	}
	return min(hits, len(want))
}

// spare counts the distinct given rows that are as good as the last of the best, within
// rounding, without being among them.
func spare(t *shard.Tower, query []float32, want []probe.Hit, given []shard.Candidate) int {
	known := make(map[string]bool, len(want)+len(given))
	for _, h := range want {
		known[h.ID] = true
	}
	last := want[len(want)-1].Score
	scorer := probe.NewScorer(t, [][]float32{query})
	var score [1]float32
	n := 0
	for _, c := range given {
		if known[c.ID] {
			continue
		}
		known[c.ID] = true
		row, ok := probe.Find(t, c.ID)
		if !ok {
			continue // a candidate that is no row counts for nothing
		}
		scorer.LoadRows([]probe.Row{row})
		scorer.Score(0, score[:])
		if !t.Metric().Better(last, score[0]) || t.Metric() == index.Cosine && score[0] > last-1e-6 {
			n++
		}
	}
	return n
}
