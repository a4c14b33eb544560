package gates

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/wording"
)

// FilterLimits bound what becomes of the filters of live queries.
type FilterLimits struct {
	Share float64 // of the recorded queries, that only fail on the candidate
}

// CheckFilters runs the filters gate: whether the filters and segments of recorded queries
// can be asked of the candidate, as they can of what is released; released is nil if
// nothing is. It takes no more than their manifests. What it finds depends on what was
// recorded, so it is no part of a manifest. read returns what was recorded; a nil one says
// that nobody looked. That it fails is no error: the gate is not run then, and says so.
func CheckFilters(ctx context.Context, candidate, released *manifest.Manifest, t Thresholds, read func(context.Context) (*querylog.LiveFilters, error)) (f Findings, err error) {
	if !t.Off[Filters] {
		err = f.filters(ctx, candidate, released, t.Filters.Share, read)
	}
	if err != nil {
		return Findings{}, fmt.Errorf("gate %s: %w", Filters, err)
	}
	return f, nil
}

func (f *Findings) filters(ctx context.Context, candidate, released *manifest.Manifest, limit float64, read func(context.Context) (*querylog.LiveFilters, error)) error {
	if read == nil {
		f.NotRun(Filters, "", "nobody looked for recorded queries")
		return nil
	}
	live, err := read(ctx)
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	switch {
	case err != nil:
		f.NotRun(Filters, "", "the recorded queries cannot be read: %v", err)
		return nil
	case live.Queries == 0 && live.Unread != "":
		f.NotRun(Filters, "", "the recorded queries cannot be read: %s", live.Unread)
		return nil
	case live.Queries == 0:
		f.NotRun(Filters, "", "no recorded queries")
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
	failing, unbound := 0, 0 // queries
	for i := range live.List {
		one := &live.List[i]
		bound, err := now.ask(ctx, one)
		if ended := ctx.Err(); ended != nil {
			return ended
		}
		if !bound {
			unbound += one.Queries
		}
		if err == nil {
			continue
		}
		if before != nil {
			if _, err := before.ask(ctx, one); err != nil {
				continue // it is no worse than it was
			}
		}
		broken = append(broken, brokenFilter{one, err})
		failing += one.Queries
	}
	share := float64(failing) / float64(live.Queries)
	f.AtMost(Filters, "recorded queries that would fail", share, limit, "%s", describeBroken(broken, failing, live, limit))
	if live.Unread != "" {
		f.NotRun(Filters, "what cannot be read", "of the recorded queries, %s", live.Unread)
	}
	if live.Beyond > 0 {
		f.NotRun(Filters, "further filters", "%s had filters beyond the %s that are looked at", wording.Count(live.Beyond)+" recorded queries", wording.Count(len(live.List)))
	}
	if unbound > 0 {
		f.NotRun(Filters, "bindings", "%s recorded queries do not say of what kinds their bindings were, so that these were not looked at", wording.Count(unbound))
	}
	return nil
}

type brokenFilter struct {
	filter *querylog.LiveFilter
	err    error
}

// mostBroken is how many filters a text lists.
const mostBroken = 3

func describeBroken(broken []brokenFilter, queries int, live *querylog.LiveFilters, limit float64) string {
	since := live.Since.UTC().Format(time.RFC3339)
	if len(broken) == 0 {
		return fmt.Sprintf("%s different filters of %s recorded queries since %s can be asked", wording.Count(len(live.List)), wording.Count(live.Queries), since)
	}
	slices.SortStableFunc(broken, func(a, b brokenFilter) int { return cmp.Compare(b.filter.Queries, a.filter.Queries) })
	text := fmt.Sprintf("%s of %s recorded queries since %s (%s) would fail, at most %s are accepted",
		wording.Count(queries), wording.Count(live.Queries), since, Percent(float64(queries)/float64(live.Queries)), Percent(limit))
	for _, b := range broken[:min(len(broken), mostBroken)] {
		what := fmt.Sprintf("filter %.100q", b.filter.Expression)
		if b.filter.Expression == "" {
			what = fmt.Sprintf("segment %.100q", b.filter.Segment)
		}
		text += fmt.Sprintf("; %s, %s times, last at %s: %.150s", what, wording.Count(b.filter.Queries), b.filter.Last.UTC().Format(time.RFC3339), b.err)
	}
	if more := len(broken) - mostBroken; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// asker says whether a filter can be asked of a snapshot.
type asker struct {
	manifest  *manifest.Manifest
	compilers map[shard.Kind]*eligibility.Compiler
}

func newAsker(m *manifest.Manifest) (*asker, error) {
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

// ask returns an error if a filter cannot be asked, and whether what it was bound to was
// looked at, if it has bindings. Of queries that do not say whose rows they asked for it is
// enough that they can be asked of one tower.
func (a *asker) ask(ctx context.Context, f *querylog.LiveFilter) (bound bool, err error) {
	if f.Tower != "" {
		return a.askTower(ctx, f, f.Tower)
	}
	bound, err = a.askTower(ctx, f, shard.Apps)
	if err != nil {
		if also, otherErr := a.askTower(ctx, f, shard.Users); otherErr == nil {
			return also, nil
		}
	}
	return bound, err
}

func (a *asker) askTower(ctx context.Context, f *querylog.LiveFilter, kind shard.Kind) (bound bool, err error) {
	if f.Segment != "" {
		var known []string
		for _, s := range a.manifest.Tower(kind).Segments {
			known = append(known, s.Name)
		}
		if !slices.Contains(known, f.Segment) {
			return true, &shard.SegmentError{Name: f.Segment, Tower: kind, Known: known}
		}
	}
	if f.Expression == "" {
		return true, nil
	}
	filter, err := a.compilers[kind].Compile(f.Expression)
	if err != nil {
		return true, err
	}
	if f.Bindings == nil {
		return len(filter.Bindings()) == 0, nil
	}
	return true, filter.BindKinds(ctx, f.Bindings)
}
