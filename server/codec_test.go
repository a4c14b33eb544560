package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestUndecodable states what a caller is told of a message that cannot be decoded: the
// field, what is accepted, and no type.
func TestUndecodable(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	const value = "; accepted: a string, a number of up to 1.8e308, a bool, or a list of them"
	for _, test := range []struct{ method, body, text, field string }{
		{"Retrieve", `{"bindings": {"a": 1e400}}`, `line 1, column 20: bindings["a"] is 1e400` + value, `bindings["a"]`},
		{"Retrieve", `{"bindings": {"b": 1, "a": [1, -1e999]}}`, `line 1, column 32: bindings["a"][1] is -1e999` + value, `bindings["a"][1]`},
		{"Retrieve", `{"bindings": {"a": ` + strings.Repeat("1", 10_000) + `}}`, "", `bindings["a"]`},
		{"Retrieve", "{\n \"bindings\": {\"ü\": \"ü\", \"é\": 1e400}}", `line 2, column 30: bindings["é"] is 1e400` + value, `bindings["é"]`},
		{"Retrieve", `{"bindings": 3}`, "syntax error line 1, column 14: unexpected token 3 of bindings", "bindings"},
		{"Retrieve", `{"excludeIds": ["a", 3]}`, "line 1, column 22: excludeIds[1] is 3; accepted: a string", "exclude_ids[1]"},
		{"Retrieve", `{"atMost": [{"n": 1}, {"n": -1}]}`, "line 1, column 29: atMost[1].n is -1; accepted: a whole number from 0 to 4294967295", "at_most[1].n"},
		{"Retrieve", `{"vectors": [{"values": [1, "x"]}]}`, `line 1, column 29: vectors[0].values[1] is "x"; accepted: a number of up to 3.4e38`, "vectors[0].values[1]"},
		{"BatchRetrieve", `{"requests": [{}, {"bindings": {"a": 1e400}}]}`, `line 1, column 38: requests[1].bindings["a"] is 1e400` + value, `requests[1].bindings["a"]`},
		{"BatchRetrieve", `{"requests": [{}, {"fitler": ""}]}`, `line 1, column 20: unknown field "fitler" of requests[1]`, "requests[1].fitler"},
		{"BatchRetrieve", `{"requests": [{"target": 1.5}]}`, "line 1, column 26: requests[0].target is 1.5; accepted: TOWER_UNSPECIFIED, TOWER_APPS, TOWER_USERS", "requests[0].target"},
	} {
		for _, padding := range []string{"", strings.Repeat(" ", smallMessage)} {
			got := s.post(t, test.method, test.body+padding)
			require.Equal(t, http.StatusBadRequest, got.status)
			text := got.json["message"].(string)
			if test.text != "" {
				require.Equal(t, "unmarshal message: "+test.text, text)
			}
			require.Less(t, len(text), 1000)
			require.Regexp(t, `"reason":\s*"MESSAGE_MALFORMED"`, string(got.body))
			require.Contains(t, string(got.body), fmt.Sprintf(`"field":%q`, test.field))
			require.NotContains(t, string(got.body), "protobuf.Value")
		}
	}
	bound := func(v any) *tandemv1.RetrieveRequest {
		value, err := structpb.NewValue(v)
		require.NoError(t, err)
		return &tandemv1.RetrieveRequest{Bindings: map[string]*structpb.Value{"a": value}}
	}
	for field, m := range map[string]proto.Message{
		"user_id":                   &tandemv1.RetrieveRequest{UserId: "12345678"},
		"exclude_ids[1]":            &tandemv1.RetrieveRequest{ExcludeIds: []string{"a", "12345678"}},
		"at_most[0].attribute":      &tandemv1.RetrieveRequest{AtMost: []*tandemv1.AtMost{{Attribute: "12345678"}}},
		`bindings["a"]`:             bound("12345678"),
		`bindings["a"][2]`:          bound([]any{1, "x", "12345678"}),
		`bindings["a"]["12345678"]`: bound(map[string]any{"12345678": 1}),
		`bindings["12345678"]`:      &tandemv1.RetrieveRequest{Bindings: map[string]*structpb.Value{"12345678": nil}},
	} {
		data, err := proto.Marshal(m)
		require.NoError(t, err)
		got := s.sendRaw(t, "Retrieve", "application/proto", bytes.ReplaceAll(data, []byte("12345678"), []byte("1234567\xff")), false)
		want := strings.ReplaceAll(field, "12345678", `1234567\xff`)
		require.Contains(t, string(got.body), fmt.Sprintf(`"message":%q`, "unmarshal message: "+want+" is not UTF-8; accepted: UTF-8"))
		require.Contains(t, string(got.body), fmt.Sprintf(`"field":%q`, want))
	}
}
