package gate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// LiveFilter is what live queries asked for beside their vectors: those of one filter and
// segment, with bindings of the same types.
type LiveFilter struct {
	Tower      shard.Kind     // whose rows were asked for
	Segment    string         // empty without
	Expression string         // empty without
	Bindings   map[string]any // of the last one, as [eligibility.Filter.Bind] takes them
	Queries    int
	Last       time.Time
}

// LiveFilters are those of recorded queries.
type LiveFilters struct {
	List []LiveFilter
	// Queries is how many were recorded since then, those without a filter included, and
	// Beyond how many had one that was not kept apart, because there are too many.
	Queries, Beyond int
	Since           time.Time
}

// FilterLimits bound what becomes of the filters of live queries.
type FilterLimits struct {
	Share float64 // of the recorded queries, that only fail on the candidate
}

// CheckFilters runs the filters gate: whether the filters and segments of recorded queries
// can be asked of the candidate, as they can of what is released; released is nil if
// nothing is. It takes no more than their manifests. What it finds depends on what was
// recorded, so it is no part of a manifest. read returns what was recorded; a nil one says
// that nobody looked. That it fails is no error: the gate is not run then, and says so.
func CheckFilters(ctx context.Context, candidate, released *shard.Manifest, t Thresholds, read func(context.Context) (*LiveFilters, error)) (checks, undecided []shard.GateCheck, err error) {
	if t.Off[Filters] {
		return nil, nil, nil
	}
	r := &run{report: &shard.GateReport{}}
	if err := r.filters(ctx, candidate, released, t.Filters.Share, read); err != nil {
		return nil, nil, fmt.Errorf("gate %s: %w", Filters, err)
	}
	return r.report.Checks, r.report.Undecided, nil
}

func (r *run) filters(ctx context.Context, candidate, released *shard.Manifest, limit float64, read func(context.Context) (*LiveFilters, error)) error {
	if read == nil {
		r.notRun(Filters, "", "nobody looked for recorded queries")
		return nil
	}
	live, err := read(ctx)
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	switch {
	case err != nil:
		r.notRun(Filters, "", "the recorded queries cannot be read: %v", err)
		return nil
	case live.Queries == 0:
		r.notRun(Filters, "", "no recorded queries")
		return nil
	}
	now, err := newAsker(candidate)
	if err != nil {
		return err
	}
	var before *asker
	if released != nil {
		if before, err = newAsker(released); err != nil {
			return err
		}
	}
	var broken []brokenFilter
	queries := 0
	for i := range live.List {
		f := &live.List[i]
		err := now.ask(ctx, f)
		if ended := ctx.Err(); ended != nil {
			return ended
		}
		if err == nil || before != nil && before.ask(ctx, f) != nil {
			continue // it is no worse than it was
		}
		broken = append(broken, brokenFilter{f, err})
		queries += f.Queries
	}
	share := float64(queries) / float64(live.Queries)
	r.atMost(Filters, "recorded queries that would fail", share, limit, "%s", describeBroken(broken, queries, live, limit))
	if live.Beyond > 0 {
		r.notRun(Filters, "further filters", "%s had filters beyond the %s that are looked at", count(live.Beyond)+" recorded queries", count(len(live.List)))
	}
	return nil
}

type brokenFilter struct {
	filter *LiveFilter
	err    error
}

// mostBroken is how many filters a text lists.
const mostBroken = 3

func describeBroken(broken []brokenFilter, queries int, live *LiveFilters, limit float64) string {
	since := live.Since.UTC().Format(time.RFC3339)
	if len(broken) == 0 {
		return fmt.Sprintf("%s different filters of %s recorded queries since %s can be asked", count(len(live.List)), count(live.Queries), since)
	}
	slices.SortStableFunc(broken, func(a, b brokenFilter) int { return cmp.Compare(b.filter.Queries, a.filter.Queries) })
	text := fmt.Sprintf("%s of %s recorded queries since %s (%s) would fail, at most %s are accepted",
		count(queries), count(live.Queries), since, percent(float64(queries)/float64(live.Queries)), percent(limit))
	for _, b := range broken[:min(len(broken), mostBroken)] {
		what := fmt.Sprintf("filter %.100q", b.filter.Expression)
		if b.filter.Expression == "" {
			what = fmt.Sprintf("segment %.100q", b.filter.Segment)
		}
		text += fmt.Sprintf("; %s, %s times, last at %s: %.150s", what, count(b.filter.Queries), b.filter.Last.UTC().Format(time.RFC3339), b.err)
	}
	if more := len(broken) - mostBroken; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// asker says whether a filter can be asked of a snapshot.
type asker struct {
	manifest  *shard.Manifest
	compilers map[shard.Kind]*eligibility.Compiler
}

func newAsker(m *shard.Manifest) (*asker, error) {
	a := &asker{m, map[shard.Kind]*eligibility.Compiler{}}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		c, err := eligibility.NewCompiler(m.Tower(kind).Schema)
		if err != nil {
			return nil, fmt.Errorf("attributes of %s: %w", kind, err)
		}
		a.compilers[kind] = c
	}
	return a, nil
}

func (a *asker) ask(ctx context.Context, f *LiveFilter) error {
	if f.Segment != "" {
		var known []string
		for _, s := range a.manifest.Tower(f.Tower).Segments {
			known = append(known, s.Name)
		}
		if !slices.Contains(known, f.Segment) {
			return &shard.SegmentError{Name: f.Segment, Tower: f.Tower, Known: known}
		}
	}
	if f.Expression == "" {
		return nil
	}
	filter, err := a.compilers[f.Tower].Compile(f.Expression)
	if err != nil {
		return err
	}
	_, err = filter.Bind(ctx, f.Bindings)
	return err
}
