package server

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestRefusedBindings sends bindings that are objects or lists in lists, with very many
// elements: they are not decoded, the texts are those of few, and of a batch the others are
// answered.
func TestRefusedBindings(t *testing.T) {
	client := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	fields := make(map[string]any, 20_000)
	list := make([]any, 20_000)
	for i := range list {
		fields[fmt.Sprint(i)], list[i] = "x", []any{"y"}
	}
	const accepted = "; accepted: a string, a number, a bool, or a list of them"
	for text, v := range map[string]any{
		"is an object":                          fields,
		"element 1 is an object":                []any{1, fields, list},
		"element 1 is a list within a list":     []any{1, list, fields},
		"element 0 is a list within a list":     list,
		"element 2 is a list within a list":     []any{1, 2, []any{list, fields}},
		"element 100 is an object":              append(slices.Repeat([]any{1}, 100), append([]any{map[string]any{}}, list...)...),
		"element 5000 is a list within a list ": append(slices.Repeat([]any{"x"}, 5000), []any{"y"}),
	} {
		text := `bindings["a"] ` + strings.TrimSpace(text) + accepted
		value, err := structpb.NewValue(v)
		require.NoError(t, err)
		wrong := &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Bindings: map[string]*structpb.Value{"a": value}}
		right := &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Bindings: map[string]*structpb.Value{"a": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("x")}})}}
		batch := &tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{right, wrong, right}}
		for _, m := range []proto.Message{wrong, batch} {
			data, err := proto.Marshal(m)
			require.NoError(t, err)
			short, _, err := checkWire(t.Context(), data, m.ProtoReflect().Descriptor())
			require.NoError(t, err)
			decoded := m.ProtoReflect().New().Interface()
			require.NoError(t, proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(short, decoded))
			require.Less(t, proto.Size(decoded), 50_500)
			data, err = protojson.Marshal(m)
			require.NoError(t, err)
			short, _, err = checkJSON(t.Context(), data, m.ProtoReflect().Descriptor())
			require.NoError(t, err)
			decoded = m.ProtoReflect().New().Interface()
			require.NoError(t, protojson.Unmarshal(short, decoded))
			require.Less(t, proto.Size(decoded), 50_500)
		}
		for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()} {
			_, err := client.client(option).Retrieve(t.Context(), connect.NewRequest(wrong))
			requireError(t, err, connect.CodeInvalidArgument, text)
			got, err := client.client(option).BatchRetrieve(t.Context(), connect.NewRequest(batch))
			require.NoError(t, err)
			require.Equal(t, text, got.Msg.Results[1].GetError().GetMessage())
			require.Len(t, got.Msg.Results[0].GetResponse().GetCandidates(), 3)
			require.Len(t, got.Msg.Results[2].GetResponse().GetCandidates(), 3)
		}
	}
	// One that breaks off in an object is as quickly refused.
	short, _, err := checkJSON(t.Context(), []byte(`{"bindings": {"a": {`+strings.Repeat(`"b": 1, `, 1000)), tandemv1.File_tandem_v1_retrieval_proto.Messages().ByName("RetrieveRequest"))
	require.NoError(t, err)
	require.Equal(t, `{"bindings": {"a": {`, strings.TrimSpace(string(short)))
}

// TestRefusedBindingsProperty: what a query is told of its bindings, and what those are
// that are accepted, does not depend on whether the message was long enough to be checked
// before it was decoded.
func TestRefusedBindingsProperty(t *testing.T) {
	var draw func(t *rapid.T, depth int) any
	draw = func(t *rapid.T, depth int) any {
		kinds := 4
		if depth < 4 {
			kinds = 7
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Float64Range(-9, 9).Draw(t, "number")
		case 2, 3:
			return rapid.SampledFrom([]string{"", "x", "]}\\\"{[", "ü\n", strings.Repeat("y", 200)}).Draw(t, "text")
		case 4:
			object := map[string]any{}
			for range rapid.IntRange(0, 3).Draw(t, "entries") {
				object[rapid.SampledFrom([]string{"a", "b}\"", "ü"}).Draw(t, "key")] = draw(t, depth+1)
			}
			return object
		}
		list := []any{}
		for range rapid.IntRange(0, 5).Draw(t, "elements") {
			list = append(list, draw(t, depth+1))
		}
		return list
	}
	rapid.Check(t, func(t *rapid.T) {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Bindings: map[string]*structpb.Value{}}
		for _, name := range []string{"a", "b"} {
			value, err := structpb.NewValue(draw(t, 0))
			require.NoError(t, err)
			r.Bindings[name] = value
		}
		batch := &tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{r, {UserId: "u2", K: 1}}}
		want, wantErr := bindings(context.Background(), r.Bindings)
		check := func(got *tandemv1.BatchRetrieveRequest) {
			require.Len(t, got.Requests, 2)
			values, err := bindings(context.Background(), got.Requests[0].Bindings)
			require.Equal(t, want, values)
			require.Equal(t, fmt.Sprint(wantErr), fmt.Sprint(err))
			got.Requests[0].Bindings = r.Bindings
			require.True(t, proto.Equal(batch, got))
		}
		var got tandemv1.BatchRetrieveRequest
		data, err := proto.Marshal(batch)
		require.NoError(t, err)
		require.NoError(t, protoCodec{}.Unmarshal(append(data, bytes.Repeat([]byte{0x82, 0x7d, 0}, smallMessage)...), &got))
		require.NoError(t, decode(context.Background(), &got))
		check(&got)
		data, err = protojson.MarshalOptions{Multiline: rapid.Bool().Draw(t, "lines")}.Marshal(batch)
		require.NoError(t, err)
		require.NoError(t, jsonCodec{}.Unmarshal(append(data, bytes.Repeat([]byte{' '}, smallMessage)...), &got))
		require.NoError(t, decode(context.Background(), &got))
		check(&got)
	})
}
