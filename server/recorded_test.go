package server

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/querylog"
)

func TestRecordedQuery(t *testing.T) {
	at := time.Date(2026, 11, 25, 8, 15, 0, 123456789, time.UTC)
	r := &tandemv1.RetrieveRequest{RequestId: "r2", UserId: "u2", K: 2, Segment: "teen", Filter: "free"}
	a := &tandemv1.RetrieveResponse{
		Model: "feed", ModelVersion: "7", Snapshot: "abc", Plan: tandemv1.Plan_PLAN_GRAPH_WALK, Eligible: 40,
		Coverage: &tandemv1.Coverage{EligibleShare: 0.5}, Candidates: []*tandemv1.Candidate{{Id: "c0", Score: 2}},
	}
	q, err := RecordedQuery(at, 1500*time.Microsecond, r, a)
	require.NoError(t, err)
	require.Equal(t, []any{"r2", "u2", int64(2), "free", "teen", "feed", "7", "abc", "PLAN_GRAPH_WALK", int64(40), 0.5, int64(1500), at.Truncate(time.Microsecond)},
		[]any{q.RequestID, q.UserID, q.K, q.Filter, q.Segment, q.Model, q.ModelVersion, q.Snapshot, q.Plan, q.Eligible, q.Coverage, q.LatencyUS, q.Time})
	require.Equal(t, []querylog.Candidate{{ID: "c0", Score: 2}}, q.Candidates)
	require.Equal(t, []any{shard.Apps, map[string]eligibility.Kind{}}, []any{q.Tower, q.Bindings})
	got, err := RecordedRequest(&q)
	require.NoError(t, err)
	require.True(t, proto.Equal(r, got))
	q.Request = []byte{0xff}
	_, err = RecordedRequest(&q)
	require.ErrorIs(t, err, querylog.ErrDamaged)
}

// Of bindings a query has the kinds beside its filter, and never the values.
func TestRecordedBindings(t *testing.T) {
	list := func(values ...any) *structpb.Value {
		l, err := structpb.NewList(values)
		require.NoError(t, err)
		return structpb.NewListValue(l)
	}
	r := &tandemv1.RetrieveRequest{Filter: "free", Target: tandemv1.Tower_TOWER_USERS, Bindings: map[string]*structpb.Value{
		"age": structpb.NewNumberValue(17), "large": structpb.NewNumberValue(1 << 53), "adult": structpb.NewBoolValue(false),
		"country": structpb.NewStringValue("de"), "id": structpb.NewStringValue("12"), "since": structpb.NewStringValue("2024-01-01T00:00:00Z"),
		"none": list(), "some": list("de", 3, "fr", "7"), "null": structpb.NewNullValue(), "nested": list([]any{}),
	}}
	q, err := RecordedQuery(time.Now(), 0, r, &tandemv1.RetrieveResponse{})
	require.NoError(t, err)
	require.Equal(t, shard.Users, q.Tower)
	require.Equal(t, map[string]eligibility.Kind{
		"age": "float", "large": "large", "adult": "bool", "country": "string", "id": "decimal", "since": "time",
		"none": "list", "some": "list of decimal, float, string", "null": "other", "nested": "list of other",
	}, q.Bindings)
	r.Filter = ""
	q, err = RecordedQuery(time.Now(), 0, r, &tandemv1.RetrieveResponse{})
	require.NoError(t, err)
	require.Nil(t, q.Bindings)
}

// The requests of a file of the first version are what they were.
func TestRecordedRequestsOfTheFirstVersion(t *testing.T) {
	data, err := os.ReadFile("../shard/querylog/testdata/parquet-go.parquet")
	require.NoError(t, err)
	i := 0
	for q, err := range querylog.Decode(data) {
		require.NoError(t, err)
		want := &tandemv1.RetrieveRequest{RequestId: fmt.Sprint("r", i), K: uint32(i), Segment: "teen", Filter: "free"}
		if i%2 == 0 {
			want.UserId = fmt.Sprint("u", i)
		} else {
			want.AppId = fmt.Sprint("a", i)
		}
		got, err := RecordedRequest(q)
		require.NoError(t, err)
		require.True(t, proto.Equal(want, got))
		i++
	}
	require.Equal(t, 9, i)
}

// Whatever of a request can be the id of a user is found, and nothing else.
func TestRecordedUsers(t *testing.T) {
	users := func(r *tandemv1.RetrieveRequest, more ...byte) []string {
		data, err := proto.Marshal(r)
		require.NoError(t, err)
		list, err := RecordedUsers(append(data, more...))
		require.NoError(t, err)
		return list
	}
	nested, err := structpb.NewValue([]any{"in a list", 7, map[string]any{"key": "in a struct"}})
	require.NoError(t, err)
	r := &tandemv1.RetrieveRequest{
		UserId: "the user", RequestKey: "the key", RequestId: "the request", ModelVersion: "7", Segment: "teen", AppId: "an app", Experiment: "the experiment", Variant: "the variant", Attributes: []string{"name"},
		Filter: `owner == "a literal" || owner in ['one', "two"]`, IncludeIds: []string{"include"}, ExcludeIds: []string{"exclude"}, ExplainIds: []string{"explain"},
		Bindings: map[string]*structpb.Value{"bound": structpb.NewStringValue("a value"), "some": nested, "n": structpb.NewNumberValue(7)},
	}
	all := []string{"the user", "the experiment", "the variant", "the key", "the request", "a literal", "one", "two", "a value", "in a list", "in a struct"}
	require.Subset(t, users(r), all)
	for _, no := range []string{"7", "teen", "an app", "name", "bound", "key", "include", "exclude", "explain"} {
		require.NotContains(t, users(r), no)
	}
	r.PageToken = (&pageToken{score: 1, rank: 1, id: "the last of the page"}).String()
	require.NotContains(t, users(r), "the last of the page")
	r.Target = tandemv1.Tower_TOWER_USERS
	require.Subset(t, users(r), append(all, "include", "exclude", "explain", "the last of the page"))

	// A field that a later version has added.
	require.Contains(t, users(r, protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "later")...), "later")
	require.NotContains(t, users(r, protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 5)...), "")
	_, err = RecordedUsers([]byte{0xff})
	require.ErrorIs(t, err, querylog.ErrDamaged)
}
