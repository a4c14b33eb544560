package server

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestListRules holds every list of a request to a rule that is checked first, and that
// rule to what protovalidate makes of the contract.
func TestListRules(t *testing.T) {
	unbounded := map[protoreflect.FullName]bool{ // their numbers take no more than in the message
		"tandem.v1.RetrieveRequest.vector": true,
		"tandem.v1.Vector.values":          true,
	}
	checked := 0
	messages := tandemv1.File_tandem_v1_retrieval_proto.Messages()
	for _, name := range []protoreflect.Name{"RetrieveRequest", "BatchRetrieveRequest", "GetEmbeddingsRequest", "Vector", "AtMost"} {
		fields := messages.ByName(name).Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			if !field.IsList() && !field.IsMap() || unbounded[field.FullName()] {
				continue
			}
			checked++
			var rule *listRule
			for j := range listRules[messages.ByName(name).FullName()] {
				if r := &listRules[messages.ByName(name).FullName()][j]; r.field == field {
					rule = r
				}
			}
			require.NotNil(t, rule, "%s has no rule on its length", field.FullName())
			for _, n := range []int{rule.most, rule.most + 1} {
				m := withElements(field, n)
				mine := longLists(m)
				var theirs *protovalidate.ValidationError
				var texts []string
				if err := protovalidate.Validate(m); err != nil {
					require.ErrorAs(t, err, &theirs)
					for _, v := range theirs.Violations {
						if v.Proto.GetRuleId() == rule.id {
							texts = append(texts, v.Proto.GetMessage())
						}
					}
				}
				require.Len(t, mine, len(texts), "%s of %d", field.FullName(), n)
				require.Len(t, mine, n-rule.most)
				if len(texts) > 0 {
					require.Equal(t, texts[0], mine[0].GetMessage())
					require.Equal(t, string(field.Name()), protovalidate.FieldPathString(mine[0].GetField()))
					data, err := proto.Marshal(m)
					require.NoError(t, err)
					data = append(data, bytes.Repeat([]byte{0x82, 0x7d, 0}, smallMessage)...) // field 2000, unknown
					_, _, err = checkWire(t.Context(), data, m.ProtoReflect().Descriptor())
					requireError(t, err, connect.CodeInvalidArgument, texts[0])
					text, err := protojson.Marshal(m)
					require.NoError(t, err)
					text = append(text, bytes.Repeat([]byte{' '}, smallMessage)...)
					_, _, err = checkJSON(t.Context(), text, m.ProtoReflect().Descriptor())
					requireError(t, err, connect.CodeInvalidArgument, texts[0])
				}
			}
		}
	}
	require.Equal(t, 9, checked, "a new list: has it a rule?")
}

// withElements returns a message that has n elements in a field, and is else empty.
func withElements(field protoreflect.FieldDescriptor, n int) proto.Message {
	m := map[protoreflect.FullName]proto.Message{
		"tandem.v1.RetrieveRequest":      &tandemv1.RetrieveRequest{},
		"tandem.v1.BatchRetrieveRequest": &tandemv1.BatchRetrieveRequest{},
		"tandem.v1.GetEmbeddingsRequest": &tandemv1.GetEmbeddingsRequest{},
	}[field.ContainingMessage().FullName()]
	r := m.ProtoReflect()
	for i := range n {
		if field.IsMap() {
			r.Mutable(field).Map().Set(protoreflect.ValueOfString(fmt.Sprint(i)).MapKey(), protoreflect.ValueOfMessage(structpb.NewBoolValue(true).ProtoReflect()))
		} else if list := r.Mutable(field).List(); field.Message() != nil {
			list.AppendMutable()
		} else {
			list.Append(protoreflect.ValueOfString("x"))
		}
	}
	return m
}

// raw is what a request was answered with over HTTP, whatever its protocol.
type raw struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte
}

// sizeOfError returns how many bytes an error takes as it was sent.
func (r *raw) sizeOfError() int {
	n := 0
	for _, h := range []http.Header{r.header, r.trailer} {
		n += len(h.Get("Grpc-Message")) + len(h.Get("Grpc-Status-Details-Bin"))
	}
	return max(n, len(r.body))
}

// sendRaw sends bytes as a message in a protocol: that of a content type.
func (s *site) sendRaw(tb testing.TB, method, contentType string, message []byte, zipped bool, header ...string) *raw {
	var packed bytes.Buffer
	body := message
	if zipped {
		w := gzip.NewWriter(&packed)
		_, err := w.Write(message)
		require.NoError(tb, err)
		require.NoError(tb, w.Close())
		body = packed.Bytes()
	}
	grpc := strings.HasPrefix(contentType, "application/grpc")
	if grpc {
		prefix := make([]byte, 5)
		if zipped {
			prefix[0] = 1
		}
		binary.BigEndian.PutUint32(prefix[1:], uint32(len(body)))
		body = append(prefix, body...)
	}
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, s.url+"/tandem.v1.RetrievalService/"+method, bytes.NewReader(body))
	require.NoError(tb, err)
	r.Header.Set("Content-Type", contentType)
	if zipped && grpc {
		r.Header.Set("Grpc-Encoding", "gzip")
	} else if zipped {
		r.Header.Set("Content-Encoding", "gzip")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.http2.Do(r)
	require.NoError(tb, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(tb, err)
	return &raw{response.StatusCode, response.Header, response.Trailer, data}
}

var wireTypes = []string{"application/proto", "application/grpc+proto", "application/grpc-web+proto"}

var jsonTypes = []string{"application/json", "application/grpc+json"}

// TestManyElements sends lists of very many empty elements, which take two bytes each, in
// a few KB of gzip: neither the memory to refuse them nor the error is large.
func TestManyElements(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	const n = 4_000_000
	empty := func(number byte) []byte { return bytes.Repeat([]byte{number<<3 | 2, 0}, n) }
	nested := func(number byte, inner []byte) []byte { // as the message in field number
		size := len(inner)
		out := []byte{number<<3 | 2}
		for ; size >= 0x80; size >>= 7 {
			out = append(out, byte(size)|0x80)
		}
		return append(append(out, byte(size)), inner...)
	}
	total := func(longest string, n int) string {
		return fmt.Sprintf("the lists of the message have more than 1048576 elements in all, %s has at least %d of them; accepted: up to 1048576", longest, n)
	}
	for name, test := range map[string]struct {
		method string
		wire   []byte
		json   string
		text   string
	}{
		"vectors":          {"Retrieve", empty(2), `{"vectors":[` + strings.Repeat("{},", n/2) + `{}]}`, total("vectors", 1048577)},
		"some vectors":     {"Retrieve", empty(2)[:2*50_000], `{"vectors":[` + strings.Repeat("{},", 49_999) + `{}]}`, "vectors has 50000 vectors; accepted: 1 to 32"},
		"exclude ids":      {"Retrieve", empty(9), `{"excludeIds":[` + strings.Repeat(`"",`, n/2) + `""]}`, total("exclude_ids", 1048577)},
		"bindings":         {"Retrieve", nested(8, append([]byte{1<<3 | 2, 1, 'a'}, nested(2, nested(6, empty(1)))...)), `{"bindings":{"a":[` + strings.Repeat(`1,`, n/2) + `1]}}`, total(`bindings["a"]`, 1048576)},
		"bound":            {"Retrieve", empty(8), `{"bindings":{` + strings.Repeat(`"":1,`, n/3) + `"":1}}`, total("bindings", 1048577)},
		"requests":         {"BatchRetrieve", empty(1), `{"requests":[` + strings.Repeat("{},", n/2) + `{}]}`, total("requests", 1048577)},
		"list in requests": {"BatchRetrieve", nested(1, empty(2)), `{"requests":[{"vectors":[` + strings.Repeat("{},", n/2) + `{}]}]}`, total("requests[0].vectors", 1048576)},
		"ids":              {"GetEmbeddings", empty(2), `{"ids":[` + strings.Repeat(`"",`, n/2) + `""]}`, total("ids", 1048577)},
	} {
		check := func(contentType string, message []byte, zipped bool) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := s.sendRaw(t, test.method, contentType, message, zipped)
			runtime.ReadMemStats(&after)
			require.LessOrEqual(t, got.sizeOfError(), maxErrorBytes, "%s %s", name, contentType)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100<<20), "%s %s", name, contentType)
			text := strings.ReplaceAll(string(got.body), "\\\"", "\"") + got.header.Get("Grpc-Message") + got.trailer.Get("Grpc-Message")
			require.Contains(t, text, test.text, "%s %s", name, contentType)
		}
		for _, contentType := range wireTypes {
			check(contentType, test.wire, true)
		}
		check(wireTypes[0], test.wire, false)
		for _, contentType := range jsonTypes {
			check(contentType, []byte(test.json), true)
		}
	}
}

// TestDeepMessages nests messages in one another.
func TestDeepMessages(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	deep := `{"bindings":{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}`
	got := s.sendRaw(t, "Retrieve", "application/json", []byte(deep), true)
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Contains(t, string(got.body), "more than 64 messages, lists or objects are within one another; accepted: up to 64")
	wire := []byte{}
	for range 3000 { // a list in a list, and each of them in a value
		for _, tag := range []byte{1<<3 | 2, 6<<3 | 2} {
			size := len(wire)
			head := []byte{tag}
			for ; size >= 0x80; size >>= 7 {
				head = append(head, byte(size)|0x80)
			}
			wire = append(append(head, byte(size)), wire...)
		}
	}
	value := &structpb.Value{}
	require.NoError(t, proto.Unmarshal(wire, value))
	message, err := proto.Marshal(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, Bindings: map[string]*structpb.Value{"a": value}})
	require.NoError(t, err)
	got = s.sendRaw(t, "Retrieve", "application/proto", message, false)
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Contains(t, string(got.body), `bindings[\"a\"] element 0 is a list within a list`)
}

// TestLongErrors makes errors of all kinds as long as callers can, in every protocol.
func TestLongErrors(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	long := strings.Repeat("ü%\x01<", 4000)
	many := make([]string, 1000)
	for name, test := range map[string]struct {
		method string
		m      proto.Message
		text   string
	}{
		"many violations": {"GetEmbeddings", &tandemv1.GetEmbeddingsRequest{Ids: many}, "ids[9]: id has 0 bytes; accepted: 1 to 256; and 990 more"},
		"filter":          {"Retrieve", &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Filter: strings.Repeat("ü", 8000)}, ""},
		"filter text":     {"Retrieve", &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Filter: `"` + strings.Repeat("ü", 8000) + `" in free`}, ""},
		"attribute":       {"Retrieve", &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Attributes: []string{long}}, ""},
		"at most":         {"Retrieve", &tandemv1.RetrieveRequest{UserId: "u1", K: 3, AtMost: []*tandemv1.AtMost{{Attribute: long, N: 1}}}, ""},
		"binding":         {"Retrieve", &tandemv1.RetrieveRequest{UserId: "u1", K: 3, Bindings: map[string]*structpb.Value{long: structpb.NewNullValue()}}, ""},
		"user":            {"Retrieve", &tandemv1.RetrieveRequest{UserId: strings.Repeat("\x01", 256), K: 3}, ""},
		"version":         {"Retrieve", &tandemv1.RetrieveRequest{UserId: "u1", K: 3, ModelVersion: strings.Repeat("ü", 128)}, ""},
	} {
		data, err := proto.Marshal(test.m)
		require.NoError(t, err)
		text, err := protojson.Marshal(test.m)
		require.NoError(t, err)
		for _, contentType := range append(append([]string{}, wireTypes...), jsonTypes...) {
			message := data
			if strings.HasSuffix(contentType, "json") {
				message = text
			}
			got := s.sendRaw(t, test.method, contentType, message, false)
			require.Contains(t, fmt.Sprint(string(got.body), got.header, got.trailer), test.text)
			require.LessOrEqual(t, got.sizeOfError(), maxErrorBytes, "%s %s", name, contentType)
			require.Greater(t, got.sizeOfError(), 0, "%s %s", name, contentType)
		}
	}
	for name, value := range map[string]string{"modelVersion": `{"%s": 1}`, "a string": `{"userId": "u1", "k": "%s"}`, "no JSON": "%s"} {
		for _, contentType := range jsonTypes {
			got := s.sendRaw(t, "Retrieve", contentType, fmt.Appendf(nil, value, strings.Repeat("x", 100_000)), false)
			require.LessOrEqual(t, got.sizeOfError(), maxErrorBytes, "%s %s", name, contentType)
		}
	}
}

// TestLongHeaders sends headers that an error might repeat.
func TestLongHeaders(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	long := strings.Repeat("9", 20_000)
	for _, contentType := range append(append([]string{}, wireTypes...), jsonTypes...) {
		for _, name := range []string{"Content-Encoding", "Grpc-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Timeout"} {
			got := s.sendRaw(t, "Retrieve", contentType, nil, false, name, long)
			require.LessOrEqual(t, got.sizeOfError(), maxErrorBytes, "%s %s", contentType, name)
			require.NotContains(t, fmt.Sprint(string(got.body), got.header, got.trailer), long[:200])
		}
	}
	for _, query := range []string{"encoding=" + long + "&message=", "encoding=json&message={}&compression=" + long, "encoding=json&message={}&connect=" + long} {
		got := s.get(t, "/tandem.v1.RetrievalService/Retrieve?"+query)
		require.LessOrEqual(t, len(got.body), maxErrorBytes)
		require.GreaterOrEqual(t, got.status, http.StatusBadRequest)
		require.NotContains(t, string(got.body), long[:200])
	}
}

// TestLongNumbers: a number in JSON has as many characters as a double may need, and no
// more than can be rounded in no time.
func TestLongNumbers(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	for digits, refused := range map[int]bool{1100: false, maxNumber - 10: false, maxNumber + 10: true, 100 * maxNumber: true} {
		for name, form := range map[string]string{
			"minCoverage":      `{"userId": "u1", "k": 3, "minCoverage": 0.%s}`,
			`bindings["a"][1]`: `{"userId": "u1", "k": 3, "bindings": {"a": [0, -0.%s]}}`,
			"x":                `{"userId": "u1", "k": 3, "x": 0.%s}`,
		} {
			got := s.post(t, "Retrieve", fmt.Sprintf(form, strings.Repeat("1", digits))+strings.Repeat(" ", smallMessage))
			var want any
			switch {
			case name == "x" && !refused:
				want = `unmarshal message: line 1, column 26: unknown field "x"`
			case name == "x":
				want = "unmarshal message: a value is a number of more than 4096 characters; accepted: up to 4096"
			case refused:
				want = "unmarshal message: " + name + " is a number of more than 4096 characters; accepted: up to 4096"
			}
			require.Equal(t, want, got.json["message"], "%s, %d digits", name, digits)
		}
	}
	got := s.post(t, "Retrieve", `{"userId": `+strings.Repeat("x", 2*maxNumber)+`}`)
	require.Contains(t, got.json["message"], "invalid value", "it is no number")
}
