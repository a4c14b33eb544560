package tandemv1_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

var update = flag.Bool("update", false, "write the golden files")

// TestNoSideEffects holds every RPC to the promise that lets Connect clients
// send it as HTTP GET and retry it.
func TestNoSideEffects(t *testing.T) {
	services := tandemv1.File_tandem_v1_retrieval_proto.Services()
	require.Equal(t, 1, services.Len())
	methods := services.Get(0).Methods()
	require.Equal(t, 3, methods.Len())
	for i := range methods.Len() {
		method := methods.Get(i)
		options, ok := method.Options().(*descriptorpb.MethodOptions)
		require.True(t, ok)
		require.Equal(t, descriptorpb.MethodOptions_NO_SIDE_EFFECTS, options.GetIdempotencyLevel(), method.FullName())
	}
}

// TestJSON holds the JSON form, which callers write by hand, to golden files:
// the message is written as the file, and the file reads back as the message.
func TestJSON(t *testing.T) {
	tests := []struct {
		file string
		msg  proto.Message
	}{
		{"retrieve_request.json", &tandemv1.RetrieveRequest{
			UserId:       "u42",
			K:            100,
			Filter:       `"ios" in platforms && min_age <= user.age`,
			Bindings:     map[string]*structpb.Value{"age": structpb.NewNumberValue(17)},
			ModelVersion: "2026-11-22",
		}},
		{"retrieve_response.json", &tandemv1.RetrieveResponse{
			Candidates: []*tandemv1.Candidate{
				{Id: "a7", Score: 1.23, Attributes: map[string]*tandemv1.AttributeValue{
					"developer": {Value: &tandemv1.AttributeValue_Keyword{Keyword: "Nine Lives"}},
					"platforms": {Value: &tandemv1.AttributeValue_Keywords{Keywords: &tandemv1.Keywords{Values: []string{"ios", "linux"}}}},
					"free":      {Value: &tandemv1.AttributeValue_Bool{Bool: false}},
					"min_age":   {Value: &tandemv1.AttributeValue_Int{Int: 13}},
					"price":     {Value: &tandemv1.AttributeValue_Float{Float: 4.99}},
					"released":  {Value: &tandemv1.AttributeValue_Timestamp{Timestamp: timestamppb.New(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))}},
				}},
				{Id: "a3", Score: 0.5},
			},
			Model:           "feed",
			ModelVersion:    "2026-11-22",
			Snapshot:        "0f3a",
			Coverage:        &tandemv1.Coverage{ShardsAnswered: 3, Shards: 4, ShardShare: 0.75, EligibleShare: 0.7512},
			Plan:            tandemv1.Plan_PLAN_MIXED,
			Eligible:        1 << 40,
			ShortReason:     tandemv1.ShortReason_SHORT_REASON_COVERAGE,
			ShortReasonText: "3 of 4 shards answered",
			RequestId:       "r1",
			Explain: &tandemv1.Explain{
				Shards: []*tandemv1.ShardExplain{
					{Shard: "apps-0000", Plan: tandemv1.Plan_PLAN_EXACT_SCAN, Rows: 1000, Eligible: 2, Scored: 2, FilterTime: durationpb.New(18_000), SearchTime: durationpb.New(1_500)},
					{Shard: "apps-0001", Error: "deadline passed"},
				},
				TotalTime: durationpb.New(250_000),
			},
			NextPageToken: "AQ8",
		}},
		{"batch_retrieve_response.json", &tandemv1.BatchRetrieveResponse{Results: []*tandemv1.BatchRetrieveResult{
			{Outcome: &tandemv1.BatchRetrieveResult_Response{Response: &tandemv1.RetrieveResponse{
				Candidates: []*tandemv1.Candidate{{Id: "a7", Score: 1.23}},
			}}},
			{Outcome: &tandemv1.BatchRetrieveResult_Error{Error: &tandemv1.ItemError{
				Code: "not_found", Message: `user "u43" is not in the snapshot`,
			}}},
		}}},
		{"get_embeddings_response.json", &tandemv1.GetEmbeddingsResponse{
			Model: "feed", ModelVersion: "2026-11-22", Snapshot: "0f3a",
			Embeddings: []*tandemv1.Embedding{{Id: "a7", Values: []float32{0.1, -2}}},
			UnknownIds: []string{"a8"},
			RequestId:  "r1",
		}},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			compact, err := protojson.Marshal(test.msg)
			require.NoError(t, err)
			var got bytes.Buffer
			require.NoError(t, json.Indent(&got, compact, "", "  "))
			got.WriteByte('\n')

			path := filepath.Join("testdata", test.file)
			if *update {
				require.NoError(t, os.WriteFile(path, got.Bytes(), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), got.String())

			back := test.msg.ProtoReflect().New().Interface()
			require.NoError(t, protojson.Unmarshal(want, back))
			require.True(t, proto.Equal(test.msg, back), "reads back as %v", back)
		})
	}
}
