package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
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
	for text, m := range map[string]proto.Message{
		"unmarshal message: user_id is not UTF-8; accepted: UTF-8":                    &tandemv1.RetrieveRequest{UserId: "12345678"},
		"unmarshal message: bindings have a text that is not UTF-8; accepted: UTF-8":  &tandemv1.RetrieveRequest{Bindings: map[string]*structpb.Value{"a": structpb.NewStringValue("12345678")}},
		"unmarshal message: bindings have a text that is not UTF-8; accepted: UTF-8 ": &tandemv1.RetrieveRequest{Bindings: map[string]*structpb.Value{"12345678": nil}},
		"unmarshal message: exclude_ids is not UTF-8; accepted: UTF-8":                &tandemv1.RetrieveRequest{ExcludeIds: []string{"12345678"}},
	} {
		data, err := proto.Marshal(m)
		require.NoError(t, err)
		got := s.sendRaw(t, "Retrieve", "application/proto", bytes.ReplaceAll(data, []byte("12345678"), []byte("1234567\xff")), false)
		require.Contains(t, string(got.body), strconv.Quote(strings.TrimSpace(text)))
	}
}
