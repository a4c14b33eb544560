package builder_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// What live queries name must be there in the next snapshot: a build whose segments were
// forgotten, whose attribute has another type, whose users have lost their attributes or
// whose metric is another one fails, and so does one that recorded filters cannot be asked
// of. What is only added passes.
func TestContract(t *testing.T) {
	base := syntheticTowers(t, 300, 120)
	o := base.options(t, "1")
	store, first := build(t, o)
	require.Equal(t, "there is no previous snapshot to compare with", rowOf(first, gates.Contract).Why)
	require.Equal(t, manifest.GateNotRun, rowOf(first, gates.Contract).State)
	require.Equal(t, "nobody looked for recorded queries", rowOf(first, gates.Filters).Why)

	last := time.Date(2026, 11, 28, 3, 4, 5, 0, time.UTC)
	recorded := &querylog.LiveFilters{Queries: 1000, Since: last.Add(-time.Hour), List: []querylog.LiveFilter{
		{Tower: shard.Apps, Expression: `moderation != "blocked" && min_age <= user.age`, Bindings: map[string]eligibility.Kind{"age": eligibility.KindFloat}, Queries: 200, Last: last},
		{Tower: shard.Apps, Expression: "free", Queries: 300, Last: last},
		{Tower: shard.Apps, Segment: "mobile", Queries: 40, Last: last},
		{Tower: shard.Users, Expression: `country == "de"`, Queries: 1, Last: last},
		{Tower: shard.Apps, Expression: "never < 1", Queries: 5, Last: last}, // nor of what is released
	}}
	next := func(tw *towers, change func(*builder.Options)) *builder.Report {
		o := tw.options(t, "2")
		o.Previous = first.Digest
		o.LiveFilters = func(context.Context) (*querylog.LiveFilters, error) { return recorded, nil }
		if change != nil {
			change(&o)
		}
		report, err := builder.Build(t.Context(), store, o)
		require.NoError(t, err)
		return report
	}

	added := base.clone()
	added.segments = segmentsFile(t, rareSegment+": moderation == \"blocked\"\nmobile: '\"ios\" in platforms'\nnew: free\n")
	report := next(added, nil)
	require.Empty(t, failed(report.Gates.Checks()))
	require.Equal(t, manifest.GateInconclusive, rowOf(report, gates.Contract).State, "another filter of a segment may be meant")
	require.Contains(t, rowOf(report, gates.Contract).Why, `segments have another filter: mobile was "\"ios\" in platforms ||`)
	require.Equal(t, manifest.GatePassed, rowOf(report, gates.Filters).State)

	broken := base.clone()
	broken.segments, broken.userSchema = "", attribute.Schema{}
	for i := range broken.users {
		broken.users[i].Attributes = nil
	}
	field, _ := base.appSchema.Lookup("moderation")
	fields := base.appSchema.Fields()
	fields[field].Type = attribute.Int
	var err error
	broken.appSchema, err = attribute.NewSchema(fields)
	require.NoError(t, err)
	for i := range broken.apps {
		broken.apps[i].Attributes = slices.Clone(broken.apps[i].Attributes)
		broken.apps[i].Attributes[field] = attribute.OfInt(int64(i % 7))
	}
	report = next(broken, nil)
	checks := report.Gates.Checks()
	requireFailed(t, checks, gates.Contract, "1 of ", " attributes of apps are gone or of another type, and live queries that name them may fail: moderation was of type keyword and is int")
	requireFailed(t, checks, gates.Contract, " attributes of users are gone", "country is gone")
	requireFailed(t, checks, gates.Contract, "2 of 2 segments are gone, and live queries that name them will fail: blocked, mobile", "the build was given no input app-segments, that of the previous snapshot was")
	requireFailed(t, checks, gates.Filters, "241 of 1,000 recorded queries since 2026-11-28T02:04:05Z (24.1%) would fail, at most 0% are accepted",
		`filter "moderation != \"blocked\"`, ", 200 times, last at 2026-11-28T03:04:05Z: ", `segment "mobile", 40 times`, "no segments")
	require.NotContains(t, report.Manifest.Gates.Checks, check(checks, gates.Filters, "recorded queries that would fail"), "the digest does not depend on what was recorded")

	// The digest is the same whatever was recorded, and what cannot be read is not run.
	other := next(broken, func(o *builder.Options) {
		o.LiveFilters = func(context.Context) (*querylog.LiveFilters, error) { return nil, errors.New("the disk is gone") }
	})
	require.Equal(t, report.Digest, other.Digest)
	require.Equal(t, "the recorded queries cannot be read: the disk is gone", rowOf(other, gates.Filters).Why)
	recorded.Unread = "one file is damaged"
	report = next(broken, nil)
	require.Equal(t, manifest.GateFailed, rowOf(report, gates.Filters).State, "what could be read is asked")
	require.Equal(t, 1, rowOf(report, gates.Filters).Undecided)
	recorded = &querylog.LiveFilters{Unread: "one file is damaged"}
	require.Equal(t, "the recorded queries cannot be read: one file is damaged", rowOf(next(broken, nil), gates.Filters).Why)
	recorded = &querylog.LiveFilters{}
	require.Equal(t, "no recorded queries", rowOf(next(broken, nil), gates.Filters).Why)

	report = next(base, func(o *builder.Options) { o.Params = index.DefaultParams(index.Cosine) })
	requireFailed(t, report.Gates.Checks(), gates.Contract, "the metric is cosine, that of the previous snapshot is dot")

	// What is released when it starts is what counts, with the limits of the last run.
	live := gates.Live{Released: first.Manifest}
	verdict, err := gates.JudgeNow(t.Context(), store, other.Digest, live)
	require.NoError(t, err)
	require.ErrorIs(t, verdict.Err(), gates.ErrFailed)
	require.ErrorContains(t, verdict.Err(), "moderation was of type keyword and is int")
	verdict, err = gates.JudgeNow(t.Context(), store, first.Digest, gates.Live{Released: other.Manifest})
	require.NoError(t, err)
	require.ErrorContains(t, verdict.Err(), "moderation was of type int and is keyword")
	require.Empty(t, verdict.ComparedWith, "manifests alone are no comparison")
	verdict, err = gates.JudgeNow(t.Context(), store, first.Digest, gates.Live{})
	require.NoError(t, err)
	require.NoError(t, verdict.Err())
	require.Empty(t, verdict.Off)

	// A last run that had them off is told, whatever earlier ones have found.
	off := &gates.Recorded{Snapshot: first.Digest, Report: &manifest.GateReport{Off: []string{gates.Contract}}, FiltersOff: true}
	require.NoError(t, gates.Record(t.Context(), store.Objects(), off))
	verdict, err = gates.JudgeNow(t.Context(), store, first.Digest, gates.Live{Released: other.Manifest})
	require.NoError(t, err)
	require.NoError(t, verdict.Err())
	require.Equal(t, []string{gates.Contract, gates.Filters}, verdict.Off)
}

// rowOf returns what a gate of a build came to.
func rowOf(r *builder.Report, gateName string) gates.Row {
	list := r.Gates.Rows()
	return list[slices.IndexFunc(list, func(x gates.Row) bool { return x.Gate == gateName })]
}
