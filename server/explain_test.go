package server

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// lineUp returns towers whose apps a9 to a0 rank in that order for any user.
func lineUp() *towers {
	t := &towers{metric: index.Dot, dim: 1, shards: 2, version: "v1"}
	for i := range 10 {
		e := entity{"a" + string(rune('0'+i)), []float32{float32(i)}, make([]attribute.Value, schema.Len())}
		e.values[0] = attribute.OfKeyword([]string{"Elf", "Ten"}[i%2])
		e.values[1] = attribute.OfBool(i != 6)
		e.values[2] = attribute.OfInt(int64(i))
		t.apps = append(t.apps, e)
	}
	t.users = []entity{{"u1", []float32{1}, make([]attribute.Value, schema.Len())}}
	return t
}

func TestExplainIDs(t *testing.T) {
	s := lineUp().loaded(t)
	r := &tandemv1.RetrieveRequest{
		AppId: "a9", K: 2, RecallTarget: new(1.0), Filter: "min_age > 0 && free",
		ExcludeIds: []string{"a8", "b1"}, IncludeIds: []string{"a9", "a8", "a6", "a5", "a4", "a3", "a2", "a1", "a0", "b1", "b2"},
		AtMost:     []*tandemv1.AtMost{{Attribute: "developer", N: 1}},
		ExplainIds: []string{"a9", "a8", "a7", "a6", "a5", "a4", "a3", "a2", "a0", "b1"},
	}
	require.NoError(t, validate(r))
	answer, err := s.retrieve(t.Context(), r)
	require.NoError(t, err)
	require.EqualValues(t, 5, answer.Eligible)
	require.EqualValues(t, 2, answer.Explain.UnknownIncludeIds)
	require.EqualValues(t, 1, answer.Explain.UnknownExcludeIds)
	type verdict struct {
		verdict tandemv1.Verdict
		text    string
	}
	check := func(want map[string]verdict) {
		t.Helper()
		require.Len(t, answer.Explain.Ids, len(r.ExplainIds))
		for i, e := range answer.Explain.Ids {
			require.Equal(t, r.ExplainIds[i], e.Id)
			require.Equal(t, want[e.Id], verdict{e.Verdict, e.Text}, e.Id)
			require.Equal(t, e.Verdict != tandemv1.Verdict_VERDICT_UNKNOWN && e.Verdict != tandemv1.Verdict_VERDICT_SHARD_MISSING, e.Score != nil)
			if e.Score != nil {
				require.Equal(t, 9*float32(e.Id[1]-'0'), *e.Score)
			}
			require.Equal(t, []string{"apps-0000", "apps-0001"}[shard.Partition(e.Id, 2)], e.Shard)
		}
	}
	check(map[string]verdict{
		"a9": {tandemv1.Verdict_VERDICT_QUERY, "it is the query itself"},
		"a8": {tandemv1.Verdict_VERDICT_EXCLUDED, "it is in exclude_ids"},
		"a7": {tandemv1.Verdict_VERDICT_NOT_INCLUDED, "it is not in include_ids"},
		"a6": {tandemv1.Verdict_VERDICT_NOT_ELIGIBLE, "the filter is false for it: free"},
		"a5": {tandemv1.Verdict_VERDICT_RETURNED, "returned at rank 1 of 2"},
		"a4": {tandemv1.Verdict_VERDICT_RETURNED, "returned at rank 2 of 2"},
		"a3": {tandemv1.Verdict_VERDICT_CAPPED, `1 with developer "Ten" rank before it, as many as at_most allows`}, // and below the cut
		"a2": {tandemv1.Verdict_VERDICT_CAPPED, `1 with developer "Elf" rank before it, as many as at_most allows`},
		"a0": {tandemv1.Verdict_VERDICT_NOT_ELIGIBLE, "the filter is false for it: min_age > 0"},
		"b1": {tandemv1.Verdict_VERDICT_UNKNOWN, "the app tower does not have it"},
	})
	require.EqualValues(t, 2, answer.Explain.Ids[5].Rank)
	require.Equal(t, "free", answer.Explain.Ids[3].Clause)

	r.K, r.ExplainIds = 3, []string{"a3", "a2"}
	answer, err = s.retrieve(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, tandemv1.ShortReason_SHORT_REASON_AT_MOST, answer.ShortReason)
	require.Equal(t, "at_most leaves 2 of 5 eligible apps, k is 3", answer.ShortReasonText)
	check(map[string]verdict{
		"a3": {tandemv1.Verdict_VERDICT_CAPPED, `1 with developer "Ten" rank before it, as many as at_most allows`},
		"a2": {tandemv1.Verdict_VERDICT_CAPPED, `1 with developer "Elf" rank before it, as many as at_most allows`},
	})
	require.Equal(t, "developer", answer.Explain.Ids[1].Attribute)
	require.Equal(t, "Elf", answer.Explain.Ids[1].Value.GetKeyword())

	r.AtMost[0].N, r.K = 2, 2
	answer, err = s.retrieve(t.Context(), r)
	require.NoError(t, err)
	check(map[string]verdict{
		"a3": {tandemv1.Verdict_VERDICT_BELOW_CUT, "it scores 27, the last of 2 returned 36"},
		"a2": {tandemv1.Verdict_VERDICT_BELOW_CUT, "it scores 18, the last of 2 returned 36"},
	})
	r.AtMost[0].N = 1

	r.Segment, r.ExplainIds = "ten_or_none", []string{"a4", "a5"}
	answer, err = s.retrieve(t.Context(), r)
	require.NoError(t, err)
	check(map[string]verdict{
		"a4": {
			tandemv1.Verdict_VERDICT_NOT_ELIGIBLE,
			`it is not in segment ten_or_none, which is false for it: !has(developer) || developer == "Ten"`,
		},
		"a5": {tandemv1.Verdict_VERDICT_RETURNED, "returned at rank 1 of 1"},
	})
	r.Segment, r.ExplainIds = "", []string{"a3", "a2"}

	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	r.MinCoverage = new(0.0)
	answer, err = s.retrieve(late, r)
	require.NoError(t, err)
	names := []string{"apps-0000", "apps-0001"}
	missing := func(id string) verdict {
		return verdict{tandemv1.Verdict_VERDICT_SHARD_MISSING, "shard " + names[shard.Partition(id, 2)] + ", which it belongs to, did not answer"}
	}
	check(map[string]verdict{"a3": missing("a3"), "a2": missing("a2")})
}

// Every verdict of package shard has one on the wire, with the same precedence: that which the
// contract tells.
func TestVerdicts(t *testing.T) {
	require.Len(t, standings, len(tandemv1.Verdict_name)-1)
	text, err := os.ReadFile("../api/tandem/v1/retrieval.proto")
	require.NoError(t, err)
	_, order, ok := strings.Cut(string(text), "// first in this order is given: ")
	require.True(t, ok)
	order, _, _ = strings.Cut(order, ".")
	names := regexp.MustCompile("[A-Z_]+").FindAllString(order, -1)
	require.Len(t, names, len(standings))
	for i, name := range names {
		wire := tandemv1.Verdict(tandemv1.Verdict_value["VERDICT_"+name])
		require.NotZero(t, wire, name)
		require.Equal(t, wire, standings[shard.Standing(i+1)], name)
	}
}

// What a walk missed is told from what ranks below.
func TestNotVisited(t *testing.T) {
	found := &shard.Answer{Candidates: []shard.Candidate{{ID: "a", Score: 3}, {ID: "b", Score: 1}}}
	tower := open(t, smallTowers(index.Dot).publish(t))
	defer tower.Close()
	q := &query{tower: tower.Tower(shard.Apps)}
	e := idExplain(t.Context(), q, found, &shard.Explained{ID: "c", Standing: shard.NotVisited, Score: 2})
	require.Equal(t, tandemv1.Verdict_VERDICT_NOT_VISITED, e.Verdict)
	require.Equal(t, "it scores 2, the last of 2 returned 1: the walk did not find it", e.Text)
}

func TestPlanReason(t *testing.T) {
	tests := []struct {
		want   string
		target float64
		s      shard.ShardAnswer
	}{
		{"0 eligible of 11,107: there is nothing to find", 0.9, shard.ShardAnswer{Asked: 10, Stats: index.Stats{Reason: index.NothingToFind}}},
		{"9 eligible of 11,107: all are asked for", 0.9, shard.ShardAnswer{Asked: 10, Eligible: 9, Stats: index.Stats{Plan: index.ExactScan, Reason: index.AllAsked}}},
		{"99 eligible of 11,107: what is newer than the snapshot is scanned", 0.9, shard.ShardAnswer{Asked: 10, Eligible: 99, Stats: index.Stats{Plan: index.ExactScan, Reason: index.NoGraph}}},
		{"99 eligible of 11,107: recall_target 1 is the exact scan", 1, shard.ShardAnswer{Asked: 10, Eligible: 99, Stats: index.Stats{Plan: index.ExactScan, Reason: index.NoEffort}}},
		{
			"11,107 eligible of 11,107: no walk that costs less than the exact scan reaches recall_target 0.999", 0.999,
			shard.ShardAnswer{Asked: 10, Eligible: 11_107, Stats: index.Stats{Plan: index.ExactScan, Reason: index.NoEffort}},
		},
		{
			"3,332 eligible of 11,107: at_most passes over so many that an exact scan finds the rest", 0.9,
			shard.ShardAnswer{Asked: 10, Eligible: 3332, Deep: true, Stats: index.Stats{Plan: index.ExactScan}},
		},
		{
			"3,332 eligible of 11,107: exact scan costs 13,328, filtered walk 41,000", 0.9,
			shard.ShardAnswer{Asked: 10, Eligible: 3332, Stats: index.Stats{Plan: index.ExactScan, ExactCost: 13_328, WalkCost: 41_000.5, Walk: index.FilteredWalk, Reason: index.Cheapest}},
		},
		{
			"11,107 eligible of 11,107: exact scan costs 11,107, graph walk 4,100", 0.9,
			shard.ShardAnswer{Asked: 10, Eligible: 11_107, Stats: index.Stats{Plan: index.GraphWalk, ExactCost: 11_107, WalkCost: 4100, Walk: index.GraphWalk, Reason: index.Cheapest}},
		},
		{
			"8,000 eligible of 11,107: exact scan costs 11,107, filtered walk 9,100, too near to that: some walks cost more than expected", 0.9,
			shard.ShardAnswer{Asked: 10, Eligible: 8000, Stats: index.Stats{Plan: index.ExactScan, ExactCost: 11_107, WalkCost: 9100, Walk: index.FilteredWalk, Reason: index.TooNear}},
		},
		{
			"8,000 eligible of 11,107: exact scan costs 11,107, filtered walk 4,100; the walk was given up: it went beyond that", 0.9,
			shard.ShardAnswer{Asked: 10, Eligible: 8000, Stats: index.Stats{Plan: index.ExactScan, GaveUp: true, ExactCost: 11_107, WalkCost: 4100, Walk: index.FilteredWalk, Reason: index.Cheapest}},
		},
	}
	for _, test := range tests {
		test.s.Rows = 11_107
		require.Equal(t, test.want, planReason(&query{Query: shard.Query{Target: test.target}}, &test.s))
	}
	answer, err := smallTowers(index.Dot).loaded(t).retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "u1", K: 5, Ef: new(uint32(5)), Explain: true})
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(answer.Explain.Shards, func(s *tandemv1.ShardExplain) bool { return s.Reason == "" || s.Asked != 5 }))
	require.Contains(t, answer.Explain.Shards[0].Reason, ": exact scan costs ")
}
