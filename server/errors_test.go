package server

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard"
)

// TestBadRequests states what a caller is told about each mistake.
func TestBadRequests(t *testing.T) {
	type req = *tandemv1.RetrieveRequest
	const (
		invalid      = connect.CodeInvalidArgument
		precondition = connect.CodeFailedPrecondition
		notFound     = connect.CodeNotFound
	)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	vector := func(v ...float32) func(req) { return func(r req) { r.UserId, r.Vector = "", v } }
	vectors := func(all ...[]float32) func(req) {
		return func(r req) {
			r.UserId = ""
			for _, v := range all {
				r.Vectors = append(r.Vectors, &tandemv1.Vector{Values: v})
			}
		}
	}
	atMost := func(name string, n uint32) func(req) {
		return func(r req) { r.AtMost = []*tandemv1.AtMost{{Attribute: name, N: n}} }
	}
	filter := func(text string) func(req) { return func(r req) { r.Filter = text } }
	binding := func(v any) func(req) {
		return func(r req) {
			value, err := structpb.NewValue(v)
			require.NoError(t, err)
			r.Filter, r.Bindings = "min_age <= user.age", map[string]*structpb.Value{"age": value}
		}
	}
	tests := []struct {
		name   string
		change func(req)
		code   connect.Code
		text   string
	}{
		{"k 0", func(r req) { r.K = 0 }, invalid, "k is 0; accepted: 1 to 10000"},
		{"k too large", func(r req) { r.K = 10_001 }, invalid, "k is 10001; accepted: 1 to 10000"},
		{"two mistakes", func(r req) { r.K, r.Ef = 0, new(uint32(0)) }, invalid, "k is 0; accepted: 1 to 10000; ef is 0; accepted: 1 to 1000000"},
		{
			"both vector and user", func(r req) { r.Vector = []float32{1, 2, 3, 4} }, invalid,
			"set exactly one of vector, vectors, user_id, app_id; set are vector, user_id",
		},
		{"no query", func(r req) { r.UserId = "" }, invalid, "set exactly one of vector, vectors, user_id, app_id; none is set"},
		{"wrong dimension", vector(1, 2, 3), invalid, "vector has 3 numbers; accepted: 4, the dimension of model feed v1"},
		{"NaN", vector(1, 2, nan, 4), invalid, "vector[2] is NaN; accepted: finite numbers"},
		{"infinity", vector(inf, 2, 3, 4), invalid, "vector[0] is +Inf; accepted: finite numbers"},
		{"zero vector", vector(0, 0, 0, 0), invalid, "vector has the norm 0; accepted by the metric cosine: a vector with a direction"},
		{"long vector", vector(2e18, 0, 0, 0), invalid, "vector has the norm 2e+18; accepted: up to 1e+18"},
		{
			"wrong dimension of one", vectors([]float32{1, 2, 3, 4}, []float32{1}), invalid,
			"vectors[1].values has 1 numbers; accepted: 4, the dimension of model feed v1",
		},
		{"no numbers in one", vectors([]float32{1, 2, 3, 4}, nil), invalid, "vectors[1].values: values has 0 numbers; accepted: as many as the model has dimensions"},
		{"NaN in one", vectors([]float32{1, 2, 3, 4}, []float32{1, 1, 1, 1}, []float32{1, nan, 1, 1}), invalid, "vectors[2].values[1] is NaN; accepted: finite numbers"},
		{
			"unknown user", func(r req) { r.UserId = "nobody" }, notFound,
			`user_id "nobody" is not in the user tower of model feed v1; query by an id that it has, or by vector`,
		},
		{
			"unknown app", func(r req) { r.UserId, r.AppId = "", "u1" }, notFound,
			`app_id "u1" is not in the app tower of model feed v1; query by an id that it has, or by vector`,
		},
		{"wrong model version", func(r req) { r.ModelVersion = "v0" }, precondition, `model_version "v0" is not served; served: "v1"`},
		{
			"unknown attribute", func(r req) { r.Attributes = []string{"price", "prize"} }, invalid,
			`attributes[1] "prize" is no attribute of the app tower; accepted: "*", developer, free, min_age, platforms, price, released`,
		},
		{"unknown segment", func(r req) { r.Segment = "chaep" }, invalid, `segment "chaep" is none of the app tower's; accepted: cheap, free, nothing, ten_or_none`},
		{"long segment", func(r req) { r.Segment = strings.Repeat("x", 65) }, invalid, "segment has 65 bytes; accepted: up to 64"},
		{
			"segment of users", func(r req) { r.Segment, r.Target = "cheap", tandemv1.Tower_TOWER_USERS }, invalid,
			`segment "cheap" is of apps, target is TOWER_USERS; accepted with it: TOWER_APPS`,
		},
		{"empty excluded id", func(r req) { r.ExcludeIds = []string{"a", ""} }, invalid, "exclude_ids[1] has 0 bytes; accepted: 1 to 256"},
		{"long excluded id", func(r req) { r.ExcludeIds = []string{strings.Repeat("x", 257)} }, invalid, "exclude_ids[0] has 257 bytes; accepted: 1 to 256"},
		{"empty included id", func(r req) { r.IncludeIds = []string{"a", ""} }, invalid, "include_ids[1] has 0 bytes; accepted: 1 to 256"},
		{"long explained id", func(r req) { r.ExplainIds = []string{strings.Repeat("x", 257)} }, invalid, "explain_ids[0] has 257 bytes; accepted: 1 to 256"},
		{"too many explained ids", func(r req) { r.ExplainIds = make([]string, 101) }, invalid, "explain_ids has 101 ids; accepted: up to 100"},
		{"too many included ids", func(r req) { r.IncludeIds = make([]string, 100_001) }, invalid, "include_ids has 100001 ids; accepted: up to 100000"},
		{"at most none", atMost("developer", 0), invalid, "at_most[0].n: n is 0; accepted: 1 to 10000"},
		{
			"at most of nothing", atMost("devloper", 2), invalid,
			`at_most[0].attribute "devloper" is no attribute of the app tower; accepted: developer, free, min_age, platforms`,
		},
		{
			"at most of a float", atMost("price", 2), invalid,
			`at_most[0].attribute "price" is a float; accepted: keyword, keyword_list, int and bool attributes: developer, free, min_age, platforms`,
		},
		{
			"at most twice", func(r req) {
				r.AtMost = []*tandemv1.AtMost{{Attribute: "free", N: 1}, {Attribute: "developer", N: 2}, {Attribute: "free", N: 3}}
			}, invalid, `at_most[2].attribute "free" is limited twice; accepted: each attribute once`,
		},
		{
			"at most of too many", func(r req) {
				for range 9 {
					r.AtMost = append(r.AtMost, &tandemv1.AtMost{Attribute: "free", N: 1})
				}
			}, invalid, "at_most has 9 attributes; accepted: up to 8",
		},
		{"unbound", func(r req) { r.Filter = "min_age <= user.age" }, invalid, "filter: binding user.age: the filter uses it and the query does not bind it"},
		{"object", binding(map[string]any{"years": 3}), invalid, `bindings["age"] is an object; accepted: a string, a number, a bool, or a list of them`},
		{"null", binding(nil), invalid, `bindings["age"] is null; accepted: a string, a number, a bool, or a list of them`},
		{"list of lists", binding([]any{1, []any{2}}), invalid, `bindings["age"] element 1 is a list within a list; accepted: a string, a number, a bool, or a list of them`},
		{
			"object that no filter uses", func(r req) {
				r.Bindings = map[string]*structpb.Value{"b": structpb.NewNullValue(), "a": structpb.NewStructValue(nil)}
			}, invalid, `bindings["a"] is an object; accepted: a string, a number, a bool, or a list of them`,
		},
	}
	data := smallTowers(index.Cosine)
	s := data.loaded(t)
	client := serve(t, s, Options{}).client()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := &tandemv1.RetrieveRequest{UserId: "u1", K: 10}
			test.change(r)
			_, err := client.Retrieve(t.Context(), connect.NewRequest(r))
			requireError(t, err, test.code, test.text)
			info, fields := detailsOf(t, err)
			batch, err := client.BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []req{r}}))
			require.NoError(t, err)
			item := batch.Msg.Results[0].GetError()
			require.Equal(t, test.code.String(), item.GetCode())
			require.Equal(t, test.text, item.GetMessage())
			require.Equal(t, ErrorDomain, info.GetDomain())
			require.Regexp(t, "^[A-Z_]+$", info.GetReason())
			require.True(t, proto.Equal(info, item.Info))
			require.True(t, proto.Equal(fields, item.BadRequest))
			if test.code != invalid {
				require.Nil(t, fields)
				return
			}
			var texts []string
			for _, v := range fields.GetFieldViolations() {
				texts = append(texts, v.Description)
				require.True(t, v.Field == "" || strings.HasPrefix(v.Description, v.Field) || strings.HasPrefix(v.Description, "filter: "), "%s", v)
			}
			require.Equal(t, test.text, strings.Join(texts, "; "))
		})
	}
	// The texts of package eligibility are its own; here the place must survive.
	for text, prefix := range map[string]string{
		`free && "ios" in platfroms`:  "filter: line 1, column 18: ",
		"free &&\n  min_age == \"x\"": "filter: line 2, column ",
		"min_age >":                   "filter: line 1, column ",
	} {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 10}
		filter(text)(r)
		_, err := client.Retrieve(t.Context(), connect.NewRequest(r))
		require.Equal(t, invalid, connect.CodeOf(err))
		require.ErrorContains(t, err, "invalid_argument: "+prefix)
	}
}

// detailsOf returns what programs are told of an error.
func detailsOf(tb testing.TB, err error) (info *errdetails.ErrorInfo, fields *errdetails.BadRequest) {
	tb.Helper()
	var coded *connect.Error
	require.ErrorAs(tb, err, &coded)
	for _, d := range coded.Details() {
		m, err := d.Value()
		require.NoError(tb, err)
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			info = m
		case *errdetails.BadRequest:
			fields = m
		}
	}
	return info, fields
}

// TestErrorDetails states what programs are told: the reason, and the fields that are
// wrong.
func TestErrorDetails(t *testing.T) {
	bind := func(r *tandemv1.RetrieveRequest, filter string, v any) {
		value, err := structpb.NewValue(v)
		require.NoError(t, err)
		r.Filter, r.Bindings = filter, map[string]*structpb.Value{"age": value}
	}
	client := serve(t, smallTowers(index.Cosine).loaded(t), Options{}).client(connect.WithGRPC())
	for _, test := range []struct {
		change func(*tandemv1.RetrieveRequest)
		reason reason
		fields []string
	}{
		{func(r *tandemv1.RetrieveRequest) { r.K, r.Ef = 0, new(uint32(0)) }, reasonRule, []string{"k", "ef"}},
		{func(r *tandemv1.RetrieveRequest) { r.UserId = "" }, reasonRule, []string{""}},
		{func(r *tandemv1.RetrieveRequest) { r.AtMost = []*tandemv1.AtMost{{Attribute: "free"}} }, reasonRule, []string{"at_most[0].n"}},
		{func(r *tandemv1.RetrieveRequest) { r.UserId = "nobody" }, reasonEntity, nil},
		{func(r *tandemv1.RetrieveRequest) { r.UserId, r.Vector = "", []float32{1} }, reasonVector, []string{"vector"}},
		{func(r *tandemv1.RetrieveRequest) { r.UserId, r.Vector = "", []float32{1, 2, 3, float32(math.NaN())} }, reasonVector, []string{"vector[3]"}},
		{func(r *tandemv1.RetrieveRequest) {
			r.UserId, r.Vectors = "", []*tandemv1.Vector{{Values: []float32{1, 2, 3, 4}}, {Values: []float32{1}}}
		}, reasonVector, []string{"vectors[1].values"}},
		{func(r *tandemv1.RetrieveRequest) { r.IncludeIds = []string{"a", ""} }, reasonID, []string{"include_ids[1]"}},
		{func(r *tandemv1.RetrieveRequest) { r.Attributes = []string{"prize"} }, reasonAttribute, []string{"attributes[0]"}},
		{func(r *tandemv1.RetrieveRequest) { r.AtMost = []*tandemv1.AtMost{{Attribute: "price", N: 1}} }, reasonAttribute, []string{"at_most[0].attribute"}},
		{func(r *tandemv1.RetrieveRequest) { r.Filter = "free &&" }, reasonFilter, []string{"filter"}},
		{func(r *tandemv1.RetrieveRequest) { r.Filter = "min_age < user.age" }, reasonBinding, []string{`bindings["age"]`}},
		{func(r *tandemv1.RetrieveRequest) { bind(r, "min_age < user.age", "old") }, reasonBinding, []string{`bindings["age"]`}},
		{func(r *tandemv1.RetrieveRequest) { bind(r, "free", nil) }, reasonBinding, []string{`bindings["age"]`}},
		{func(r *tandemv1.RetrieveRequest) { r.Segment = "none" }, reasonSegment, []string{"segment"}},
		{func(r *tandemv1.RetrieveRequest) { r.Segment, r.Target = "free", tandemv1.Tower_TOWER_USERS }, reasonSegment, []string{"segment"}},
		{func(r *tandemv1.RetrieveRequest) { r.ModelVersion = "v0" }, reasonModelVersion, nil},
	} {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 10}
		test.change(r)
		_, err := client.Retrieve(t.Context(), connect.NewRequest(r))
		info, bad := detailsOf(t, err)
		require.Equal(t, string(test.reason), info.GetReason(), "%v", err)
		var fields []string
		for _, v := range bad.GetFieldViolations() {
			fields = append(fields, v.Field)
		}
		require.Equal(t, test.fields, fields, "%v", err)
	}
}

// resourceOf returns what was not found, as programs are told of it.
func resourceOf(tb testing.TB, err error) *errdetails.ResourceInfo {
	tb.Helper()
	var coded *connect.Error
	require.ErrorAs(tb, err, &coded)
	for _, d := range coded.Details() {
		m, err := d.Value()
		require.NoError(tb, err)
		if resource, ok := m.(*errdetails.ResourceInfo); ok {
			return resource
		}
	}
	return nil
}

// TestResourceInfo tells what was not found: an app, a user, or a service.
func TestResourceInfo(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	long := strings.Repeat("é", 128)
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		client := s.client(option)
		for _, test := range []struct {
			request *tandemv1.RetrieveRequest
			want    *errdetails.ResourceInfo
		}{
			{&tandemv1.RetrieveRequest{UserId: "nobody", K: 1}, &errdetails.ResourceInfo{ResourceType: "user", ResourceName: "nobody"}},
			{&tandemv1.RetrieveRequest{AppId: "u1", K: 1}, &errdetails.ResourceInfo{ResourceType: "app", ResourceName: "u1"}},
			{&tandemv1.RetrieveRequest{UserId: long, K: 1}, &errdetails.ResourceInfo{ResourceType: "user", ResourceName: long}},
			{&tandemv1.RetrieveRequest{UserId: "u1"}, nil},
		} {
			_, err := client.Retrieve(t.Context(), connect.NewRequest(test.request))
			got := resourceOf(t, err)
			require.True(t, proto.Equal(test.want, got), "%v", err)
			batch, err := client.BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{test.request}}))
			require.NoError(t, err)
			require.True(t, proto.Equal(test.want, batch.Msg.Results[0].GetError().GetResource()))
		}
	}
	r, err := http.NewRequest(http.MethodPost, s.url+"/grpc.health.v1.Health/Check", strings.NewReader(`{"service": "other"}`))
	require.NoError(t, err)
	got := s.do(t, r, "Content-Type", "application/json")
	require.Equal(t, "not_found", got.json["code"])
	detail := got.json["details"].([]any)[1].(map[string]any)
	require.Equal(t, "google.rpc.ResourceInfo", detail["type"])
	require.Equal(t, map[string]any{"resourceType": "service", "resourceName": "other"}, detail["debug"])
}

// TestBoundedErrors keeps the reason of an error, however long its text is.
func TestBoundedErrors(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 100_000), strings.Repeat("é", 50_000), strings.Repeat("\x00", 5000), "\xff" + strings.Repeat("%", 3000)} {
		err := bounded(invalidf(reasonFilter, text, "%s", text))
		require.LessOrEqual(t, errorBytes(err.Code(), err.Message(), err.Details()), maxErrorBytes)
		info, _ := detailsOf(t, err)
		require.Equal(t, "FILTER_INVALID", info.GetReason())
		require.Greater(t, len(err.Message()), 100)
	}
}

// TestErrorsOfBatch fails every item with a long text: together the errors are short, some
// lose their details, none its code.
func TestErrorsOfBatch(t *testing.T) {
	client := serve(t, smallTowers(index.Dot).loaded(t), Options{}).client()
	ask := &tandemv1.BatchRetrieveRequest{}
	for range 250 {
		ask.Requests = append(ask.Requests, &tandemv1.RetrieveRequest{UserId: "u1", K: 1, Attributes: []string{strings.Repeat("x", 200)}})
	}
	got, err := client.BatchRetrieve(t.Context(), connect.NewRequest(ask))
	require.NoError(t, err)
	require.LessOrEqual(t, proto.Size(got.Msg), failedBytes+250*170)
	require.Equal(t, string(reasonAttribute), got.Msg.Results[0].GetError().GetInfo().GetReason())
	require.Nil(t, got.Msg.Results[249].GetError().GetInfo())
	for _, result := range got.Msg.Results {
		require.Equal(t, "invalid_argument", result.GetError().GetCode())
		require.Contains(t, result.GetError().GetMessage(), "xxx")
	}
}

func TestBadEmbeddingRequests(t *testing.T) {
	client := serve(t, smallTowers(index.Dot).loaded(t), Options{}).client()
	_, err := client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{}))
	requireError(t, err, connect.CodeInvalidArgument, "ids has 0 ids; accepted: 1 to 1000")
	_, err = client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a", ""}}))
	requireError(t, err, connect.CodeInvalidArgument, "ids[1]: id has 0 bytes; accepted: 1 to 256")
	_, err = client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a"}, ModelVersion: "x"}))
	requireError(t, err, connect.CodeFailedPrecondition, `model_version "x" is not served; served: "v1"`)
}

func TestExcerpt(t *testing.T) {
	require.Equal(t, "short", excerpt("short"))
	require.Equal(t, strings.Repeat("x", 127)+"...", excerpt(strings.Repeat("x", 127)+"éé"))
}

// What a shard is missing for decides what callers are told: to come again where nodes have too much
// to do, that the fence has refused them where all are behind, and else that it is not covered.
func TestReasonsOfLostShards(t *testing.T) {
	for want, err := range map[reason]error{
		reasonStale:      &router.NoReplicaError{Behind: true, Furthest: 5, At: shard.Position{Sequence: 6}},
		reasonOverloaded: &router.NoReplicaError{Err: &remote.Refusal{Reason: remote.Overloaded, Text: "32 requests are in flight"}},
		reasonCoverage:   &router.NoReplicaError{Err: remote.ErrSilent},
	} {
		for _, err := range []error{err, searchError(t.Context(), &shard.CoverageError{Answered: 3, Shards: 4, Coverage: 0.75, MinCoverage: 1, Err: err})} {
			told := callerError(err, "q")
			var got string
			retry := false
			for _, d := range told.Details() {
				value, err := d.Value()
				require.NoError(t, err)
				switch value := value.(type) {
				case *errdetails.ErrorInfo:
					got = value.Reason
				case *errdetails.RetryInfo:
					retry = true
				}
			}
			assert.Equal(t, string(want), got, "%v", told)
			assert.Equal(t, want != reasonCoverage, retry, "%v", told)
			assert.Equal(t, want == reasonOverloaded, shedOf(told) == events.ShedNodes)
		}
	}
	lost := searchError(t.Context(), &shard.CoverageError{Shards: 1, MinCoverage: 1, Err: errors.New("it is gone")})
	assert.ErrorContains(t, lost, "0 of 1 shards answered")
}
