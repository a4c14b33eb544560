package tandemv1_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// retrieve returns a valid request after the given changes.
func retrieve(change func(*tandemv1.RetrieveRequest)) *tandemv1.RetrieveRequest {
	r := &tandemv1.RetrieveRequest{UserId: "u1", K: 10}
	change(r)
	return r
}

func repeat[T any](v T, n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func bindings(n int) map[string]*structpb.Value {
	m := make(map[string]*structpb.Value, n)
	for i := range n {
		m[fmt.Sprint("b", i)] = structpb.NewNumberValue(1)
	}
	return m
}

// TestValidation states each rule by requests just inside and just outside it.
// want is what the server tells the caller, one violation a line.
func TestValidation(t *testing.T) {
	type req = *tandemv1.RetrieveRequest
	long := strings.Repeat("x", 256)
	vec := &tandemv1.Vector{Values: []float32{1, 2}}
	tests := []struct {
		name string
		msg  proto.Message
		want string
	}{
		// What to search with.
		{"user", retrieve(func(r req) {}), ""},
		{"app", retrieve(func(r req) { r.UserId, r.AppId = "", "a1" }), ""},
		{"vector", retrieve(func(r req) { r.UserId, r.Vector = "", []float32{1} }), ""},
		{"vectors", retrieve(func(r req) { r.UserId, r.Vectors = "", repeat(vec, 32) }), ""},
		{
			"no query", retrieve(func(r req) { r.UserId = "" }),
			"set exactly one of vector, vectors, user_id, app_id; none is set",
		},
		{
			"two queries", retrieve(func(r req) { r.Vector = []float32{1} }),
			"set exactly one of vector, vectors, user_id, app_id; set are vector, user_id",
		},
		{
			"four queries",
			retrieve(func(r req) { r.Vector, r.Vectors, r.AppId = []float32{1}, []*tandemv1.Vector{vec}, "a1" }),
			"set exactly one of vector, vectors, user_id, app_id; set are vector, vectors, user_id, app_id",
		},
		{
			"too many vectors", retrieve(func(r req) { r.UserId, r.Vectors = "", repeat(vec, 33) }),
			"vectors: vectors has 33 vectors; accepted: 1 to 32",
		},
		{
			"empty vector among vectors",
			retrieve(func(r req) { r.UserId, r.Vectors = "", []*tandemv1.Vector{vec, {}} }),
			"vectors[1].values: values has 0 numbers; accepted: as many as the model has dimensions",
		},
		{"not finite is for the server", retrieve(func(r req) { r.UserId, r.Vector = "", []float32{float32(math.NaN())} }), ""},
		{"long user", retrieve(func(r req) { r.UserId = long }), ""},
		{"no fallback", retrieve(func(r req) { r.UserId, r.AppId, r.Fallback = "", "a", tandemv1.Fallback_FALLBACK_NONE }), ""},
		{"fallback", retrieve(func(r req) { r.Fallback = tandemv1.Fallback_FALLBACK_MEAN_USER }), ""},
		{
			"fallback of an app", retrieve(func(r req) { r.UserId, r.AppId, r.Fallback = "", "a", tandemv1.Fallback_FALLBACK_MEAN_USER }),
			"fallback is FALLBACK_MEAN_USER and user_id is not set; accepted: with user_id only",
		},
		{
			"unknown fallback", retrieve(func(r req) { r.Fallback = 3 }),
			"fallback: fallback is 3; accepted: FALLBACK_NONE (1), FALLBACK_MEAN_USER (2)",
		},
		{
			"user too long", retrieve(func(r req) { r.UserId = long + "x" }),
			"user_id: user_id has 257 bytes; accepted: 1 to 256",
		},
		{
			"bytes, not characters", retrieve(func(r req) { r.UserId = strings.Repeat("é", 129) }),
			"user_id: user_id has 258 bytes; accepted: 1 to 256",
		},
		{"long app", retrieve(func(r req) { r.UserId, r.AppId = "", long }), ""},
		{
			"app too long", retrieve(func(r req) { r.UserId, r.AppId = "", long+"x" }),
			"app_id: app_id has 257 bytes; accepted: 1 to 256",
		},

		// What may come back, and how many.
		{"target users", retrieve(func(r req) { r.Target = tandemv1.Tower_TOWER_USERS }), ""},
		{
			"unknown target", retrieve(func(r req) { r.Target = 3 }),
			"target: target is 3; accepted: TOWER_APPS (1), TOWER_USERS (2)",
		},
		{"k 1", retrieve(func(r req) { r.K = 1 }), ""},
		{"k 10000", retrieve(func(r req) { r.K = 10_000 }), ""},
		{"k 0", retrieve(func(r req) { r.K = 0 }), "k: k is 0; accepted: 1 to 10000"},
		{"k 10001", retrieve(func(r req) { r.K = 10_001 }), "k: k is 10001; accepted: 1 to 10000"},
		{
			"largest k", retrieve(func(r req) { r.K = math.MaxUint32 }),
			"k: k is 4294967295; accepted: 1 to 10000",
		},
		{"long filter", retrieve(func(r req) { r.Filter = strings.Repeat("x", 16<<10) }), ""},
		{
			"filter too long", retrieve(func(r req) { r.Filter = strings.Repeat("x", 16<<10+1) }),
			"filter: filter has 16385 bytes; accepted: up to 16384",
		},
		{"segment", retrieve(func(r req) { r.Segment = strings.Repeat("x", 64) }), ""},
		{
			"segment too long", retrieve(func(r req) { r.Segment = strings.Repeat("é", 33) }),
			"segment: segment has 66 bytes; accepted: up to 64",
		},
		{"many bindings", retrieve(func(r req) { r.Bindings = bindings(256) }), ""},
		{
			"too many bindings", retrieve(func(r req) { r.Bindings = bindings(257) }),
			"bindings: bindings has 257 values; accepted: up to 256",
		},
		{"many excluded", retrieve(func(r req) { r.ExcludeIds = repeat(long, 100_000) }), ""},
		{
			"too many excluded", retrieve(func(r req) { r.ExcludeIds = repeat("a", 100_001) }),
			"exclude_ids: exclude_ids has 100001 ids; accepted: up to 100000",
		},
		{"excluded ids are for the server", retrieve(func(r req) { r.ExcludeIds = []string{"a", "", long + "x"} }), ""},
		{"model version", retrieve(func(r req) { r.ModelVersion = long }), ""},
		{
			"model version too long", retrieve(func(r req) { r.ModelVersion = long + "x" }),
			"model_version: model_version has 257 bytes; accepted: up to 256",
		},
		{"attributes", retrieve(func(r req) { r.Attributes = repeat("*", 256) }), ""},
		{
			"too many attributes", retrieve(func(r req) { r.Attributes = repeat("a", 257) }),
			"attributes: attributes has 257 names; accepted: up to 256",
		},

		// At which effort.
		{"exact", retrieve(func(r req) { r.RecallTarget = new(1.0) }), ""},
		{"low recall", retrieve(func(r req) { r.RecallTarget = new(0.001) }), ""},
		{
			"recall 0", retrieve(func(r req) { r.RecallTarget = new(0.0) }),
			"recall_target: recall_target is 0; accepted: above 0, up to 1 (1 is the exact scan)",
		},
		{
			"recall as a percentage", retrieve(func(r req) { r.RecallTarget = new(99.5) }),
			"recall_target: recall_target is 99.5; accepted: above 0, up to 1 (1 is the exact scan)",
		},
		{
			"recall NaN", retrieve(func(r req) { r.RecallTarget = new(math.NaN()) }),
			"recall_target: recall_target is NaN; accepted: above 0, up to 1 (1 is the exact scan)",
		},
		{"ef 1", retrieve(func(r req) { r.Ef = new(uint32(1)) }), ""},
		{"ef 1000000", retrieve(func(r req) { r.Ef = new(uint32(1_000_000)) }), ""},
		{"ef 0", retrieve(func(r req) { r.Ef = new(uint32(0)) }), "ef: ef is 0; accepted: 1 to 1000000"},
		{
			"ef 1000001", retrieve(func(r req) { r.Ef = new(uint32(1_000_001)) }),
			"ef: ef is 1000001; accepted: 1 to 1000000",
		},
		{
			"both efforts", retrieve(func(r req) { r.RecallTarget, r.Ef = new(0.95), new(uint32(64)) }),
			"set recall_target or ef, not both; recall_target is 0.95 and ef is 64",
		},
		{"no coverage needed", retrieve(func(r req) { r.MinCoverage = new(0.0) }), ""},
		{"full coverage", retrieve(func(r req) { r.MinCoverage = new(1.0) }), ""},
		{
			"coverage below 0", retrieve(func(r req) { r.MinCoverage = new(-0.5) }),
			"min_coverage: min_coverage is -0.5; accepted: 0 to 1",
		},
		{
			"coverage above 1", retrieve(func(r req) { r.MinCoverage = new(1.01) }),
			"min_coverage: min_coverage is 1.01; accepted: 0 to 1",
		},
		{"request key", retrieve(func(r req) { r.RequestKey = long }), ""},
		{
			"request key too long", retrieve(func(r req) { r.RequestKey = long + "x" }),
			"request_key: request_key has 257 bytes; accepted: up to 256",
		},
		{"request id", retrieve(func(r req) { r.RequestId = long[:128] }), ""},
		{
			"request id too long", retrieve(func(r req) { r.RequestId = long[:129] }),
			"request_id: request_id has 129 bytes; accepted: up to 128",
		},
		{
			"every violation is told", retrieve(func(r req) { r.UserId, r.K = "", 0 }),
			"set exactly one of vector, vectors, user_id, app_id; none is set\nk: k is 0; accepted: 1 to 10000",
		},

		// Batches: a bad request in one is for the server to answer alone.
		{"batch", &tandemv1.BatchRetrieveRequest{Requests: repeat(retrieve(func(r req) {}), 256)}, ""},
		{"bad request in batch", &tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{{}}}, ""},
		{
			"empty batch", &tandemv1.BatchRetrieveRequest{},
			"requests: requests has 0 requests; accepted: 1 to 256",
		},
		{
			"batch too large", &tandemv1.BatchRetrieveRequest{Requests: repeat(retrieve(func(r req) {}), 257)},
			"requests: requests has 257 requests; accepted: 1 to 256",
		},

		// Embeddings.
		{"embeddings", &tandemv1.GetEmbeddingsRequest{Ids: repeat(long, 1000)}, ""},
		{
			"no ids", &tandemv1.GetEmbeddingsRequest{},
			"ids: ids has 0 ids; accepted: 1 to 1000",
		},
		{
			"too many ids", &tandemv1.GetEmbeddingsRequest{Ids: repeat("a", 1001)},
			"ids: ids has 1001 ids; accepted: 1 to 1000",
		},
		{
			"bad ids", &tandemv1.GetEmbeddingsRequest{Ids: []string{"a", "", long + "x"}},
			"ids[1]: id has 0 bytes; accepted: 1 to 256\nids[2]: id has 257 bytes; accepted: 1 to 256",
		},
		{
			"unknown tower", &tandemv1.GetEmbeddingsRequest{Ids: []string{"a"}, Tower: -1},
			"tower: tower is -1; accepted: TOWER_APPS (1), TOWER_USERS (2)",
		},
		{
			"embeddings of a version too long", &tandemv1.GetEmbeddingsRequest{Ids: []string{"a"}, ModelVersion: long + "x"},
			"model_version: model_version has 257 bytes; accepted: up to 256",
		},
		{
			"embeddings request id too long", &tandemv1.GetEmbeddingsRequest{Ids: []string{"a"}, RequestId: long[:129]},
			"request_id: request_id has 129 bytes; accepted: up to 128",
		},
	}
	validator, err := protovalidate.New()
	require.NoError(t, err)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := validator.Validate(test.msg)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			invalid, ok := errors.AsType[*protovalidate.ValidationError](err)
			require.Truef(t, ok, "not a validation error: %v", err)
			var got []string
			for _, v := range invalid.Violations {
				got = append(got, v.String())
			}
			require.Equal(t, test.want, strings.Join(got, "\n"))
		})
	}
}

// BenchmarkValidate is what the rules add to a query: once per request, whatever
// the plan.
func BenchmarkValidate(b *testing.B) {
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprintf("app-%08d", i)
	}
	benchmarks := []struct {
		name string
		msg  proto.Message
	}{
		{"vector", &tandemv1.RetrieveRequest{Vector: make([]float32, 64), K: 100}},
		{"user", &tandemv1.RetrieveRequest{UserId: "u1", K: 100}},
		{"user_filter_ef", &tandemv1.RetrieveRequest{
			UserId: "u1", K: 100, Ef: new(uint32(200)), ModelVersion: "2026-11-22",
			Filter:   `"ios" in platforms && min_age <= user.age`,
			Bindings: map[string]*structpb.Value{"age": structpb.NewNumberValue(17)},
		}},
		{"exclude_1000", &tandemv1.RetrieveRequest{UserId: "u1", K: 100, ExcludeIds: ids}},
		{"embeddings_1000", &tandemv1.GetEmbeddingsRequest{Ids: ids}},
	}
	validator, err := protovalidate.New()
	require.NoError(b, err)
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := validator.Validate(bm.msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
