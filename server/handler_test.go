package server

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

func TestProtocols(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 7, RecallTarget: new(1.0), RequestId: "r1"}
	want, err := s.client().Retrieve(t.Context(), connect.NewRequest(ask))
	require.NoError(t, err)
	require.Len(t, want.Msg.Candidates, 7)
	for name, options := range map[string][]connect.ClientOption{
		"connect":      {connect.WithSendGzip()},
		"connect json": {connect.WithProtoJSON()},
		"connect get":  {connect.WithHTTPGet()},
		"get json":     {connect.WithHTTPGet(), connect.WithProtoJSON()},
		"grpc":         {connect.WithGRPC()},
		"grpc gzip":    {connect.WithGRPC(), connect.WithSendGzip()},
		"grpc-web":     {connect.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.client(options...).Retrieve(t.Context(), connect.NewRequest(ask))
			require.NoError(t, err)
			require.True(t, proto.Equal(want.Msg, got.Msg))
			require.Equal(t, "r1", got.Header().Get(RequestIDHeader))
			_, err = s.client(options...).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1"}))
			requireError(t, err, connect.CodeInvalidArgument, "k is 0; accepted: 1 to 10000")
		})
	}
}

// TestCurl asks as a person does.
func TestCurl(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	got := s.post(t, "Retrieve", `{"userId": "u1", "k": 3, "filter": "\"ios\" in platforms && min_age < user.age", "bindings": {"age": 18}, "attributes": ["min_age"]}`)
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	require.Len(t, got.json["candidates"], 3)
	require.Equal(t, "v1", got.json["modelVersion"])
	require.Equal(t, "PLAN_EXACT_SCAN", got.json["plan"])
	require.Len(t, got.json["requestId"], 32)
	require.Equal(t, got.json["requestId"], got.header.Get(RequestIDHeader))

	got = s.get(t, "/tandem.v1.RetrievalService/Retrieve?encoding=json&message="+url.QueryEscape(`{"userId":"u1","k":3}`))
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	require.Len(t, got.json["candidates"], 3)

	message, err := proto.Marshal(&tandemv1.RetrieveRequest{Vector: make([]float32, 4096), K: 1})
	require.NoError(t, err)
	got = s.get(t, "/tandem.v1.RetrievalService/Retrieve?encoding=proto&base64=1&message="+base64.RawURLEncoding.EncodeToString(message))
	require.Equal(t, http.StatusBadRequest, got.status, "a long vector fits in a URL")
	require.Equal(t, "vector has 4096 numbers; accepted: 4, the dimension of model feed v1", got.json["message"])

	for body, text := range map[string]string{
		`{"userId": "u1", "k": 3, "modelVerison": "v1"}`: `unmarshal message: line 1, column 26: unknown field "modelVerison"`,
		`{"userId": "u1",`:                     "unmarshal message: the JSON object ends too early",
		`{"userId": 1}`:                        "unmarshal message: line 1, column 12: userId is 1; accepted: a string",
		`{"k": -1}`:                            "unmarshal message: line 1, column 7: k is -1; accepted: a whole number from 0 to 4294967295",
		`{"target": "TOWER_FOO"}`:              "unmarshal message: line 1, column 12: target is \"TOWER_FOO\"; accepted: TOWER_UNSPECIFIED, TOWER_APPS, TOWER_USERS",
		`{"k": 1,, }`:                          "unmarshal message: syntax error line 1, column 9: unexpected token ,",
		``:                                     "unmarshal message: the body is empty; accepted: a JSON object",
		`{"vector": ["NaN", 1, 1, 1], "k": 1}`: "vector[0] is NaN; accepted: finite numbers",
	} {
		got := s.post(t, "Retrieve", body)
		require.Equal(t, http.StatusBadRequest, got.status)
		require.Equal(t, "invalid_argument", got.json["code"])
		require.Equal(t, text, got.json["message"])
	}
	require.Equal(t, http.StatusNotFound, s.post(t, "Delete", "{}").status)
	require.Equal(t, http.StatusUnsupportedMediaType, s.post(t, "Retrieve", "{}", "Content-Type", "text/csv").status)
}

func TestViolationsAreDetails(t *testing.T) {
	client := serve(t, smallTowers(index.Dot).loaded(t), Options{}).client(connect.WithGRPC())
	_, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{RequestId: strings.Repeat("x", 129), K: 1, UserId: "u1"}))
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	require.Len(t, coded.Meta().Get(RequestIDHeader), 32, "one that may be a header")
	require.Len(t, coded.Details(), 3)
	m, err := coded.Details()[0].Value()
	require.NoError(t, err)
	require.Equal(t, "retrieve.request_id", m.(*rules.Violations).Violations[0].GetRuleId())
}

func TestResponseCompression(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	large := `{"userId": "u1", "k": 60, "recallTarget": 1, "attributes": ["*"], "requestId": "r"}`
	plain := s.post(t, "Retrieve", large)
	require.Greater(t, len(plain.body), compressMinBytes)
	for encoding, decode := range map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) },
	} {
		for range 3 { // the coders are used again
			got := s.post(t, "Retrieve", large, "Accept-Encoding", encoding)
			require.Equal(t, encoding, got.header.Get("Content-Encoding"))
			require.Less(t, len(got.body), len(plain.body)/2)
			r, err := decode(bytes.NewReader(got.body))
			require.NoError(t, err)
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, len(strings.ReplaceAll(string(plain.body), " ", "")), len(strings.ReplaceAll(string(data), " ", "")))
		}
		small := s.post(t, "Retrieve", `{"userId": "u1", "k": 1}`, "Accept-Encoding", encoding)
		require.Empty(t, small.header.Get("Content-Encoding"))
	}
	require.Empty(t, s.post(t, "Retrieve", large, "Accept-Encoding", "br").header.Get("Content-Encoding"))
}

func TestRequestCompression(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{MaxMessageBytes: 1000})
	compress := map[string]func([]byte) []byte{
		"gzip": func(data []byte) []byte {
			var out bytes.Buffer
			w := gzip.NewWriter(&out)
			_, err := w.Write(data)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			return out.Bytes()
		},
		"zstd": func(data []byte) []byte {
			w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
			require.NoError(t, err)
			return w.EncodeAll(data, nil)
		},
	}
	ask := []byte(`{"userId": "u1", "k": 3}`)
	bomb := append(append([]byte{}, ask...), bytes.Repeat([]byte{' '}, 1<<20)...)
	exact := append(append([]byte{}, ask...), bytes.Repeat([]byte{' '}, 1000-len(ask))...)
	for encoding, pack := range compress {
		for range 3 {
			require.Len(t, s.post(t, "Retrieve", string(pack(ask)), "Content-Encoding", encoding).json["candidates"], 3)
			require.Len(t, s.post(t, "Retrieve", string(pack(exact)), "Content-Encoding", encoding).json["candidates"], 3)
			got := s.post(t, "Retrieve", string(pack(bomb[:20_000])), "Content-Encoding", encoding)
			require.Equal(t, "the message has more than 1000 bytes; accepted: up to 1000", got.json["message"])
			require.Equal(t, "invalid_argument", got.json["code"])
			got = s.post(t, "Retrieve", "this is not "+encoding, "Content-Encoding", encoding)
			require.Equal(t, "invalid_argument", got.json["code"])
		}
	}
	got := s.post(t, "Retrieve", "", "Content-Encoding", "br")
	require.Equal(t, "unimplemented", got.json["code"])
}

func TestMessageSize(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{MaxMessageBytes: 1000})
	const text = "the message has more than 1000 bytes; accepted: up to 1000"
	got := s.post(t, "Retrieve", `{"userId": "u1", "k": 3}`+strings.Repeat(" ", 2000))
	require.Equal(t, "invalid_argument", got.json["code"])
	require.Equal(t, text, got.json["message"])
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 3, ExcludeIds: []string{strings.Repeat("x", 200)}}
	for len(ask.ExcludeIds) < 50 {
		ask.ExcludeIds = append(ask.ExcludeIds, ask.ExcludeIds[0])
	}
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON(), connect.WithSendGzip()} {
		_, err := s.client(option).Retrieve(t.Context(), connect.NewRequest(ask))
		requireError(t, err, connect.CodeInvalidArgument, text)
	}
}

func TestBatch(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	ask := &tandemv1.BatchRetrieveRequest{}
	for i := range 100 {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: uint32(1 + i%20), RecallTarget: new(1.0)}
		switch {
		case i%10 == 3:
			r.UserId = "nobody"
		case i%10 == 7:
			r.K = 0
		case i%10 == 9:
			r.RequestId = "mine"
		}
		ask.Requests = append(ask.Requests, r)
	}
	got, err := s.client(connect.WithGRPC()).BatchRetrieve(t.Context(), connect.NewRequest(ask))
	require.NoError(t, err)
	id := got.Header().Get(RequestIDHeader)
	require.Len(t, id, 32)
	require.Len(t, got.Msg.Results, 100)
	for i, result := range got.Msg.Results {
		switch i % 10 {
		case 3:
			require.Equal(t, "not_found", result.GetError().GetCode())
		case 7:
			require.Equal(t, "invalid_argument", result.GetError().GetCode())
			require.Equal(t, "k is 0; accepted: 1 to 10000", result.GetError().GetMessage())
		case 9:
			require.Equal(t, "mine", result.GetResponse().GetRequestId())
		default:
			require.Len(t, result.GetResponse().GetCandidates(), 1+i%20)
			require.True(t, strings.HasPrefix(result.GetResponse().RequestId, id+"-"))
		}
	}
	_, err = s.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{}))
	requireError(t, err, connect.CodeInvalidArgument, "requests has 0 requests; accepted: 1 to 256")
}

func TestEmbeddings(t *testing.T) {
	data := smallTowers(index.Dot)
	client := serve(t, data.loaded(t), Options{}).client()
	got, err := client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{
		Tower: tandemv1.Tower_TOWER_USERS, Ids: []string{"u3", "a1", "u0", "u3"}, ModelVersion: "v1", RequestId: "r1",
	}))
	require.NoError(t, err)
	require.Equal(t, "r1", got.Msg.RequestId)
	require.Equal(t, "v1", got.Msg.ModelVersion)
	require.Equal(t, []string{"a1"}, got.Msg.UnknownIds)
	require.Len(t, got.Msg.Embeddings, 3)
	for i, user := range []int{3, 0, 3} {
		require.Equal(t, data.users[user].id, got.Msg.Embeddings[i].Id)
		require.Equal(t, data.users[user].vector, got.Msg.Embeddings[i].Values)
	}
	got, err = client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a1"}}))
	require.NoError(t, err)
	require.Equal(t, data.apps[1].vector, got.Msg.Embeddings[0].Values)
}

// TestEmbeddingsUnderCosine: what was given to the build comes back, with its norm.
func TestEmbeddingsUnderCosine(t *testing.T) {
	data := smallTowers(index.Cosine)
	client := serve(t, data.loaded(t), Options{}).client()
	var ids []string
	for _, e := range data.apps {
		ids = append(ids, e.id)
	}
	got, err := client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: ids}))
	require.NoError(t, err)
	for i, e := range data.apps {
		for j, x := range got.Msg.Embeddings[i].Values {
			require.InDelta(t, e.vector[j], x, 1e-6*max(1, math.Abs(float64(e.vector[j]))))
		}
	}
}

func TestReflection(t *testing.T) {
	service := smallTowers(index.Dot).loaded(t)
	s := serve(t, service, Options{})
	stream := grpcreflect.NewClient(s.http2, s.url, connect.WithGRPC()).NewStream(t.Context())
	names, err := stream.ListServices()
	require.NoError(t, err)
	require.EqualValues(t, []string{"tandem.v1.RetrievalService", "tandem.v1.AdminService", "tandem.v1.LiveService", "tandem.v1.FeedbackService", "tandem.v1.ReleaseService", "grpc.health.v1.Health"},
		[]string{string(names[0]), string(names[1]), string(names[2]), string(names[3]), string(names[4]), string(names[5])})
	files, err := stream.FileContainingSymbol("tandem.v1.RetrieveRequest")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	service.Drain()
	_, err = stream.ListServices()
	require.NoError(t, err, "a server that drains answers")
	_, err = grpcreflect.NewClient(s.http2, s.url, connect.WithGRPC()).NewStream(t.Context()).ListServices()
	require.NoError(t, err)
	service.EndStreams() // soon
	for err == nil {
		_, err = stream.ListServices()
	}
	_, _ = stream.Close()
}

// TestManyReflections refuses streams of reflection beyond some.
func TestManyReflections(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	client := grpcreflect.NewClient(s.http2, s.url, connect.WithGRPC())
	var streams []*grpcreflect.ClientStream
	for range maxReflections {
		stream := client.NewStream(t.Context())
		_, err := stream.ListServices()
		require.NoError(t, err)
		streams = append(streams, stream)
	}
	refused := client.NewStream(t.Context())
	_, err := refused.ListServices()
	require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "16 calls of grpc.reflection.v1.ServerReflection under way, as many as are accepted")
	_, _ = refused.Close()
	for _, stream := range streams {
		_, err := stream.Close()
		require.NoError(t, err)
	}
	_, err = client.NewStream(t.Context()).ListServices()
	for connect.CodeOf(err) == connect.CodeResourceExhausted { // until a handler has seen the end
		_, err = client.NewStream(t.Context()).ListServices()
	}
	require.NoError(t, err)
}

// TestPanics makes a method panic by a snapshot that is not there.
func TestPanics(t *testing.T) {
	var log bytes.Buffer
	service := NewService(slog.New(slog.NewTextHandler(&log, nil)))
	broken := &serving{}
	broken.users.Store(1)
	service.current.Store(&state{arms: []arm{{serving: broken}}})
	s := serve(t, service, Options{})
	for _, option := range []connect.ClientOption{connect.WithProtoJSON(), connect.WithGRPC()} {
		log.Reset()
		_, err := s.client(option).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 3, RequestId: "r7"}))
		requireError(t, err, connect.CodeInternal, "internal error; the server's log tells more about request r7")
		require.Contains(t, log.String(), "request_id=r7")
		require.Contains(t, log.String(), "service.go", "the stack")
	}
	got, err := s.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{
		Requests: []*tandemv1.RetrieveRequest{{UserId: "u1", K: 3, RequestId: "r8"}, {}},
	}))
	require.NoError(t, err)
	require.Equal(t, "internal", got.Msg.Results[0].GetError().Code)
	require.Equal(t, "internal error; the server's log tells more about request r8", got.Msg.Results[0].GetError().Message)
	require.Equal(t, "invalid_argument", got.Msg.Results[1].GetError().Code)

	l := connect.NewErrorWriter()
	h := service.exchanged(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("outside") }), l, newGate(1), &shedder{})
	w := newRecorder()
	r, err := http.NewRequest(http.MethodPost, "/", nil)
	require.NoError(t, err)
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, log.String(), "panic: outside")
}

func TestRequestLog(t *testing.T) {
	var log bytes.Buffer
	service := smallTowers(index.Dot).logging(t, slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := serve(t, service, Options{}).client()
	_, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 3, RequestId: "r1"}))
	require.NoError(t, err)
	require.Regexp(t, `level=DEBUG msg=request procedure=/tandem.v1.RetrievalService/Retrieve request_id=r1 code=ok duration=`, log.String())
	_, err = client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", RequestId: "r2"}))
	require.Error(t, err)
	require.Regexp(t, `level=INFO msg="request failed" .* request_id=r2 code=invalid_argument .* peer=127.0.0.1:\d+ protocol=connect http=HTTP/2.0 bytes=\d+ reason=RULE_BROKEN fields=\[k\]`, log.String())
}

// BenchmarkHandler is one request through the whole handler, without the network.
func BenchmarkHandler(b *testing.B) {
	s := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 64, 20_000, 100, 2).loaded(b)
	h := NewHandler(s, Options{})
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 100, Ef: new(uint32(100))}
	binary, err := proto.Marshal(ask)
	require.NoError(b, err)
	for _, bm := range []struct {
		name, contentType, accept string
		body                      []byte
	}{
		{"proto", "application/proto", "", binary},
		{"json", "application/json", "", []byte(`{"userId": "u1", "k": 100, "ef": 100}`)},
		{"json_k1000", "application/json", "", []byte(`{"userId": "u1", "k": 1000, "ef": 100}`)},
		{"json_k1000_zstd", "application/json", "zstd", []byte(`{"userId": "u1", "k": 1000, "ef": 100}`)},
		{"json_k1000_gzip", "application/json", "gzip", []byte(`{"userId": "u1", "k": 1000, "ef": 100}`)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			w := newRecorder()
			for b.Loop() {
				r, err := http.NewRequest(http.MethodPost, "/tandem.v1.RetrievalService/Retrieve", bytes.NewReader(bm.body))
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Content-Type", bm.contentType)
				if bm.accept != "" {
					r.Header.Set("Accept-Encoding", bm.accept)
				}
				w.Body.Reset()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Body.String())
				}
			}
			b.ReportMetric(float64(w.Body.Len()), "response-bytes")
		})
	}
}
