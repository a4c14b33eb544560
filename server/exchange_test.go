package server

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
)

// logged is a log that tests read while requests write it.
type logged struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.Write(p)
}

func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSuffix(l.data.String(), "\n"), "\n")
}

// serveLogged serves with a log of failures.
func serveLogged(t *testing.T, options Options) (*site, *logged) {
	log := &logged{}
	service := smallTowers(index.Dot).logging(t, slog.NewTextHandler(log, nil))
	return serve(t, service, options), log
}

// requireLine waits for the line of the log that has a request's id.
func requireLine(t *testing.T, log *logged, id string) string {
	t.Helper()
	var found []string
	require.Eventually(t, func() bool {
		found = nil
		for _, line := range log.lines() {
			if strings.Contains(line, "request_id="+id+" ") {
				found = append(found, line)
			}
		}
		return len(found) > 0
	}, 2*time.Minute, time.Millisecond, "no line has %s", id)
	require.Len(t, found, 1)
	return found[0]
}

const (
	trace       = "0af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + trace + "-b7ad6b7169203331-01"
)

func TestIncomingIDs(t *testing.T) {
	for name, test := range map[string]struct{ id, parent, want string }{
		"none":               {"", "", ""},
		"id":                 {"r-1", "", "r-1"},
		"id before trace":    {"r-1", traceparent, "r-1"},
		"trace":              {"", traceparent, trace},
		"spaces":             {"r 1", traceparent, "r 1"},
		"not ASCII":          {"Zürich", traceparent, "Zürich"},
		"not UTF-8":          {"Z\xfcrich", traceparent, trace},
		"not printable":      {"r\u202e1", traceparent, trace},
		"longest":            {strings.Repeat("x", 128), "", strings.Repeat("x", 128)},
		"too long":           {strings.Repeat("x", 129), "", ""},
		"later version":      {"", "cc-" + trace + "-b7ad6b7169203331-01-more", trace},
		"more in version 00": {"", traceparent + "-more", ""},
		"version ff":         {"", "ff" + traceparent[2:], ""},
		"no trace":           {"", "00-00000000000000000000000000000000-b7ad6b7169203331-01", ""},
		"upper case":         {"", strings.ToUpper(traceparent), ""},
		"short":              {"", traceparent[:54], ""},
		"dashes":             {"", "---", ""},
	} {
		header := http.Header{}
		header.Set(RequestIDHeader, test.id)
		header.Set("traceparent", test.parent)
		require.Equal(t, test.want, incomingID(header), name)
	}
}

// TestRequestIDs names requests by their headers, unless their messages have names.
func TestRequestIDs(t *testing.T) {
	s, log := serveLogged(t, Options{})
	const good = `{"userId": "u1", "k": 1}`
	got := s.post(t, "Retrieve", good, RequestIDHeader, "from-header")
	require.Equal(t, "from-header", got.header.Get(RequestIDHeader))
	require.Equal(t, "from-header", got.json["requestId"])
	got = s.post(t, "Retrieve", good, "traceparent", traceparent)
	require.Equal(t, trace, got.header.Get(RequestIDHeader))
	require.Equal(t, trace, got.json["requestId"])
	got = s.post(t, "Retrieve", `{"userId": "u1", "k": 1, "requestId": "mine"}`, RequestIDHeader, "from-header")
	require.Equal(t, "mine", got.header.Get(RequestIDHeader))
	require.Equal(t, "mine", got.json["requestId"])
	require.Equal(t, "e1", s.post(t, "GetEmbeddings", `{"ids": ["a1"]}`, RequestIDHeader, "e1").json["requestId"])
	for _, id := range []string{"batch", strings.Repeat("b", 128)} {
		got = s.post(t, "BatchRetrieve", `{"requests": [`+good+`, {"userId": "u1"}]}`, RequestIDHeader, id)
		require.Equal(t, id, got.header.Get(RequestIDHeader))
		item := got.json["results"].([]any)[0].(map[string]any)["response"].(map[string]any)
		require.Equal(t, id[:min(len(id), 126)]+"-0", item["requestId"])
		line := requireLine(t, log, id[:min(len(id), 126)]+"-1")
		require.Contains(t, line, "procedure=/tandem.v1.RetrievalService/BatchRetrieve")
		require.Contains(t, line, "code=invalid_argument")
		require.Regexp(t, `peer=127.0.0.1:\d+ protocol=connect http=HTTP/1.1 bytes=\d\d+ reason=RULE_BROKEN fields=\[k\]`, line)
	}
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithHTTPGet()} {
		r := connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1})
		r.Header().Set(RequestIDHeader, "metadata")
		got, err := s.client(option).Retrieve(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, "metadata", got.Msg.RequestId)
		require.Equal(t, "metadata", got.Header().Get(RequestIDHeader))
	}
}

// TestRequestIDsOfAnyText: whatever a request is called, its answer, its header and the log
// call it so, by each protocol.
func TestRequestIDsOfAnyText(t *testing.T) {
	s, log := serveLogged(t, Options{})
	for id, header := range map[string]string{
		"Zürich": "Z%C3%BCrich", "a b": "a%20b", "50% é": "50%25%20%C3%A9", "50%": "50%", "line\n": "line%0A", "\u202e": "%E2%80%AE",
		strings.Repeat("é", 64): strings.Repeat("%C3%A9", 64),
	} {
		for name, option := range map[string]connect.ClientOption{
			"connect": connect.WithProtoJSON(), "get": connect.WithHTTPGet(), "grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb(),
		} {
			client := s.client(option)
			got, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, RequestId: id}))
			require.NoError(t, err)
			require.Equal(t, id, got.Msg.RequestId)
			require.Equal(t, header, got.Header().Get(RequestIDHeader), name)
			embeddings, err := client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a1"}, RequestId: id}))
			require.NoError(t, err)
			require.Equal(t, header, embeddings.Header().Get(RequestIDHeader))
			_, err = client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "nobody", K: 1, RequestId: id}))
			var coded *connect.Error
			require.ErrorAs(t, err, &coded)
			require.Equal(t, header, coded.Meta().Get(RequestIDHeader), name)
		}
		require.Equal(t, 4, strings.Count(strings.Join(log.lines(), "\n"), "request_id="+inLog(id)+" "), "%s", id)
	}
	// Headers name a request as messages do.
	got := s.post(t, "Retrieve", `{"userId": "nobody", "k": 1}`, RequestIDHeader, "Zürich 2")
	require.Equal(t, "Z%C3%BCrich%202", got.header.Get(RequestIDHeader))
	requireLine(t, log, `"Zürich 2"`)
	got = s.get(t, "/nothing", RequestIDHeader, "Zürich 3")
	require.Equal(t, "Z%C3%BCrich%203", got.header.Get(RequestIDHeader))
	requireLine(t, log, `"Zürich 3"`)
	got = s.post(t, "Retrieve", `{"userId": "u1", "k": 1, "requestId": "`+strings.Repeat("é", 65)+`"}`, RequestIDHeader, "short")
	require.Equal(t, "short", got.header.Get(RequestIDHeader), "a name that is too long is none")
	require.Equal(t, http.StatusBadRequest, got.status)
}

// inLog returns a value as a line of the log has it.
func inLog(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// TestItemsAreNamed: what failed of a batch has its name, as what succeeded has.
func TestItemsAreNamed(t *testing.T) {
	s, log := serveLogged(t, Options{})
	long := strings.Repeat("x", 129)
	for batch, prefix := range map[string]string{"b": "b", strings.Repeat("é", 64): strings.Repeat("é", 63)} {
		r := connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{
			{UserId: "u1", K: 1, RequestId: "mine 0"}, {UserId: "u1", K: 1}, {UserId: "nobody", K: 1, RequestId: "mine 2"}, {UserId: "nobody", K: 1}, {UserId: "u1", K: 1, RequestId: long},
		}})
		r.Header().Set(RequestIDHeader, batch)
		got, err := s.client().BatchRetrieve(t.Context(), r)
		require.NoError(t, err)
		var names []string
		for _, result := range got.Msg.Results {
			names = append(names, cmp.Or(result.GetResponse().GetRequestId(), result.GetError().GetRequestId()))
			require.LessOrEqual(t, len(names[len(names)-1]), maxRequestID)
		}
		require.Equal(t, []string{"mine 0", prefix + "-1", "mine 2", prefix + "-3", prefix + "-4"}, names)
		require.Contains(t, got.Msg.Results[4].GetError().Message, "request_id has 129 bytes")
		requireLine(t, log, prefix+"-3")
		requireLine(t, log, prefix+"-4")
	}
}

// TestErrorsOfABatchFitBesideAnswers: the errors of a batch take no more than the room that
// the longest answer leaves, whatever its requests are called.
func TestErrorsOfABatchFitBesideAnswers(t *testing.T) {
	s, _ := serveLogged(t, Options{})
	for _, name := range []string{"", "x", strings.Repeat("x", 128)} {
		requests := make([]*tandemv1.RetrieveRequest, 256)
		for i := range requests {
			requests[i] = &tandemv1.RetrieveRequest{UserId: strings.Repeat("\"\x01", 128), K: 1, RequestId: name}
		}
		got, err := s.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: requests}))
		require.NoError(t, err)
		require.LessOrEqual(t, proto.Size(got.Msg), 64<<10)
		require.NotNil(t, got.Msg.Results[0].GetError().Info)
		require.Equal(t, cmp.Or(name, got.Header().Get(RequestIDHeader)+"-255"), got.Msg.Results[255].GetError().RequestId)
	}
}

// percentDecoded returns a text that gRPC has encoded for a header.
func percentDecoded(t *testing.T, text string) string {
	t.Helper()
	decoded, err := url.PathUnescape(text)
	require.NoError(t, err)
	return decoded
}

// TestRefusals refuses requests that reach no method: each has the form of an error, the
// request's name, and one line of the log.
func TestRefusals(t *testing.T) {
	s, log := serveLogged(t, Options{MaxMessageBytes: 1000})
	const retrieve = retrievePath
	for name, test := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		code               string
		reason             reason
	}{
		"path":              {http.MethodGet, "/nothing", "", nil, 404, "unimplemented", reasonPath},
		"long path":         {http.MethodGet, "/" + strings.Repeat("x", 9000), "", nil, 404, "unimplemented", reasonPath},
		"method of service": {http.MethodPost, "/tandem.v1.RetrievalService/Delete", "{}", nil, 404, "unimplemented", reasonPath},
		"HTTP method":       {http.MethodPut, retrieve, "{}", nil, 405, "unimplemented", reasonMethod},
		"post to health":    {http.MethodPost, "/healthz", "{}", nil, 405, "unimplemented", reasonMethod},
		"content type":      {http.MethodPost, retrieve, "{}", []string{"Content-Type", "text/csv"}, 415, "invalid_argument", reasonContentType},
		"encoding of GET":   {http.MethodGet, retrieve + "?encoding=xml&message=x", "", nil, 415, "invalid_argument", reasonContentType},
		"body of GET":       {http.MethodGet, retrieve + "?encoding=json&message={}", "{}", nil, 400, "invalid_argument", reasonMalformed},
		"JSON":              {http.MethodPost, retrieve, "{", nil, 400, "invalid_argument", reasonMalformed},
		"too large":         {http.MethodPost, retrieve, strings.Repeat(" ", 2000), nil, 400, "invalid_argument", reasonMessage},
		"long header":       {http.MethodPost, retrieve, "{}", []string{"Connect-Timeout-Ms", strings.Repeat("1", 100)}, 400, "invalid_argument", reasonHeader},
		"deadline":          {http.MethodPost, retrieve, `{"userId": "u1", "k": 1}`, []string{"Connect-Timeout-Ms", "0"}, 504, "deadline_exceeded", reasonDeadline},
		"not found":         {http.MethodPost, retrieve, `{"userId": "nobody", "k": 1}`, nil, 404, "not_found", reasonEntity},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(test.method, s.url+test.path, strings.NewReader(test.body))
			require.NoError(t, err)
			if test.method != http.MethodGet {
				r.Header.Set("Content-Type", "application/json")
			}
			id := strings.ReplaceAll(name, " ", "-")
			got := s.do(t, r, append(test.header, RequestIDHeader, id)...)
			require.Equal(t, test.status, got.status, "%s", got.body)
			require.Equal(t, "application/json", got.header.Get("Content-Type"))
			require.Equal(t, test.code, got.json["code"])
			require.Contains(t, string(got.body), test.reason)
			require.LessOrEqual(t, len(got.body), maxErrorBytes)
			require.Equal(t, id, got.header.Get(RequestIDHeader))
			line := requireLine(t, log, id)
			require.Regexp(t, `peer=127.0.0.1:\d+ protocol=connect http=HTTP/1.1 bytes=\d+ (content_length=\d+ )?(error=".*" )?reason=`+test.reason, line)
			require.Equal(t, name == "too large", strings.Contains(line, " content_length=2000 "))
			require.Contains(t, line, " code="+test.code+" ")
			require.Less(t, len(line), 2000)
		})
	}
	// What no method names has a new name.
	got := s.get(t, "/nothing")
	require.Len(t, got.header.Get(RequestIDHeader), 32)
	requireLine(t, log, got.header.Get(RequestIDHeader))

	// A path may be of any bytes, and over gRPC a text must be UTF-8.
	for _, kind := range []string{"application/grpc", "application/grpc-web+json"} {
		for path, want := range map[string]string{
			"/tandem.v1.RetrievalService/%FF%00": `path "/tandem.v1.RetrievalService/\xff\x00" is not served; `,
			"/healthz/%FF":                       `path "/healthz/\xff" is not served; `,
		} {
			status, text, _, _ := s.exchangeGRPC(t, path, kind, "\x00\x00\x00\x00\x00")
			require.Equal(t, "12", status, text)
			require.Contains(t, text, want)
		}
	}

	r, err := http.NewRequest(http.MethodPost, s.url+"/grpc.reflection.v1.ServerReflection/%FF", strings.NewReader("\x00\x00\x00\x00\x00"))
	require.NoError(t, err)
	got = s.do(t, r, "Content-Type", "application/grpc-web")
	require.Equal(t, "12", got.header.Get("Grpc-Status"))
	require.Equal(t, "path /grpc.reflection.v1.ServerReflection/\ufffd is of a stream in both directions; accepted: HTTP/2", percentDecoded(t, got.header.Get("Grpc-Message")))

	for _, protocol := range []string{"grpc", "grpc-web"} {
		r, err := http.NewRequest(http.MethodPost, s.url+"/tandem.v1.RetrievalService/Delete", strings.NewReader("\x00\x00\x00\x00\x00"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/"+protocol)
		r.Header.Set(RequestIDHeader, protocol+"-1")
		response, err := s.http2.Do(r)
		require.NoError(t, err)
		_, err = io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
		status := response.Header.Get("Grpc-Status") + response.Trailer.Get("Grpc-Status")
		require.Equal(t, "12", status)
		require.Equal(t, protocol+"-1", response.Header.Get(RequestIDHeader))
		require.Contains(t, requireLine(t, log, protocol+"-1"), "code=unimplemented duration=")
	}
}

// TestFailureLog has a batch whose items all fail told in bounded lines.
func TestFailureLog(t *testing.T) {
	s, log := serveLogged(t, Options{})
	began := time.Now()
	for range 2 {
		s.post(t, "BatchRetrieve", `{"requests": [{}`+strings.Repeat(",{}", 200)+`]}`)
	}
	later := int(time.Since(began).Seconds() * events.FailuresPerSecond)
	require.LessOrEqual(t, len(log.lines()), events.FailuresAtOnce+50+later)
}

// TestConnectionAfterALateRequest sends requests of HTTP/1.1 whose deadline passes while
// they arrive, and another on the same connection: it is answered as ever, or the answer
// before it says that the connection ends.
func TestConnectionAfterALateRequest(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	const body = `{"userId": "u1", "k": 1}`
	send := func(w io.Writer, header string) {
		_, err := fmt.Fprintf(w, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s", retrievePath, len(body), header, body)
		require.NoError(t, err)
	}
	for i := range 200 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		require.NoError(t, err)
		answers := bufio.NewReader(conn)
		send(conn, fmt.Sprintf("Connect-Timeout-Ms: %d\r\n", i%2))
		first, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, first.Body)
		require.NoError(t, err)
		require.NoError(t, first.Body.Close())
		if !first.Close {
			send(conn, "")
			second, err := http.ReadResponse(answers, nil)
			require.NoError(t, err)
			got, err := io.ReadAll(second.Body)
			require.NoError(t, err)
			require.NoError(t, second.Body.Close())
			require.Equal(t, http.StatusOK, second.StatusCode, "%s", got)
			require.Contains(t, string(got), `"candidates"`)
		}
		require.NoError(t, conn.Close())
	}
	// One that never arrives whole is answered at its deadline, and is the last.
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST "+retrievePath+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nConnect-Timeout-Ms: 20\r\n\r\n{")
	require.NoError(t, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusGatewayTimeout, answer.StatusCode)
	require.True(t, answer.Close)
}

// onePipe is a listener of one connection.
type onePipe struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

// Accept implements [net.Listener].
func (o *onePipe) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (o *onePipe) Close() error {
	o.close()
	return nil
}

// Addr implements [net.Listener].
func (*onePipe) Addr() net.Addr { return nil }

// TestPipelinedRequestWaits has the next request of a connection arrive, and wait for its
// turn to be looked at, while work on the one before goes on. Both are answered, and the
// connection ends.
func TestPipelinedRequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger := slog.New(slog.DiscardHandler)
		client, accepted := net.Pipe()
		pipe := &onePipe{conns: make(chan net.Conn, 1)}
		pipe.closed, pipe.close = context.WithCancel(t.Context())
		pipe.conns <- accepted
		l := newListener(pipe, 1, 1, events.Tee())
		arrived := make(chan struct{})
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/first" {
				<-arrived
				exchangeFrom(r.Context()).enter(r.Context())
			}
			w.WriteHeader(http.StatusNoContent)
		})
		shed, errors := &shedder{}, connect.NewErrorWriter()
		h := &http.Server{
			Handler:     NewService(logger).exchanged(gated(shed, testAdmission(), &refusals{errors: errors}, next), errors, newGate(1), shed),
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return withConn(ctx, c) },
		}
		var served sync.WaitGroup
		served.Go(func() { assert.ErrorIs(t, h.Serve(l), http.ErrServerClosed) })
		ask := func(path string) {
			_, err := io.WriteString(client, "GET "+path+" HTTP/1.1\r\nHost: tandem\r\n\r\n")
			require.NoError(t, err)
			synctest.Wait()
		}
		ask("/first")
		others := make([]pass, len(l.readers.places))
		for i := range others {
			l.readers.enter(nil, &others[i], nil)
		}
		ask("/second")
		require.Len(t, l.readers.waiting, 1)
		close(arrived)
		require.NoError(t, client.SetReadDeadline(time.Now().Add(time.Second)))
		answers := bufio.NewReader(client)
		for range 2 {
			answer, err := http.ReadResponse(answers, nil)
			if assert.NoError(t, err) {
				assert.Equal(t, http.StatusNoContent, answer.StatusCode)
				assert.NoError(t, answer.Body.Close())
			}
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.NoError(t, h.Shutdown(limited))
		assert.NoError(t, h.Close())
		assert.NoError(t, client.Close())
		served.Wait()
	})
}
