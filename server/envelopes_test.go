package server

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/events"
)

const (
	checkPath      = "/grpc.health.v1.Health/Check"
	watchPath      = "/grpc.health.v1.Health/Watch"
	reflectPath    = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectOldPath = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// exchangeGRPC sends a body over HTTP/2 and returns the status, the text and the details of
// the answer, and its header.
func (s *site) exchangeGRPC(t *testing.T, path, kind, body string, header ...string) (status, text, details string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", kind)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	response, err := s.http2.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	trailers := response.Header
	if response.Trailer.Get("Grpc-Status") != "" {
		trailers = response.Trailer
	}
	if _, block, ok := bytes.Cut(data, []byte("\x80")); ok { // of gRPC-Web, after its length
		trailers = http.Header{}
		for line := range strings.SplitSeq(string(block[4:]), "\r\n") {
			name, value, _ := strings.Cut(line, ":")
			trailers.Set(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return trailers.Get("Grpc-Status"), trailers.Get("Grpc-Message"), trailers.Get("Grpc-Status-Details-Bin"), response.Header
}

// TestMalformedOfOthers sends what is no message to health and reflection: it is the
// caller's fault there too, has the details of an error, the request's name, and one line
// of the log.
func TestMalformedOfOthers(t *testing.T) {
	s, log := serveLogged(t, Options{})
	const (
		short = "\x00\x00\x00\x00\x09abc"
		good  = "\x00\x00\x00\x00\x00"
	)
	n := 0
	for _, test := range []struct {
		paths  []string
		body   string
		header []string
		code   connect.Code
		text   string
	}{
		{[]string{checkPath, watchPath}, "", nil, connect.CodeInvalidArgument, "the body has no message; accepted: one"},
		{[]string{checkPath, watchPath}, good + good, nil, connect.CodeInvalidArgument, "there are bytes after the message; accepted: one message"},
		{[]string{checkPath, watchPath}, good + "\x00", nil, connect.CodeInvalidArgument, "there are bytes after the message; accepted: one message"},
		{
			[]string{reflectPath, reflectOldPath}, good, nil, connect.CodeInvalidArgument, "message_request is not set; accepted: one of " +
				"file_by_filename, file_containing_symbol, file_containing_extension, all_extension_numbers_of_type, list_services",
		},
		{[]string{reflectPath}, "\x00\x00\x00\x00\x02:\x00\x00\x00", nil, connect.CodeInvalidArgument, "the body ends after 2 of the 5 bytes before a message"},
		{[]string{checkPath, watchPath, reflectPath, reflectOldPath}, "\x00\x00", nil, connect.CodeInvalidArgument, "the body ends after 2 of the 5 bytes before a message"},
		{[]string{checkPath, watchPath, reflectPath, reflectOldPath}, short, nil, connect.CodeInvalidArgument, "the message is said to have 9 bytes and has 3"},
		{[]string{checkPath, watchPath}, "\x00\xff\xff\xff\xffabc", nil, connect.CodeInvalidArgument, "the message has more than 4096 bytes; accepted: up to 4096"},
		{[]string{reflectPath, reflectOldPath}, "\x00\xff\xff\xff\xffabc", nil, connect.CodeInvalidArgument, "the message has more than 65536 bytes; accepted: up to 65536"},
		{[]string{checkPath, watchPath, reflectPath}, "\x80\x00\x00\x00\x00", nil, connect.CodeInvalidArgument, "the message has the flags 0x80; accepted: 0 and 1"},
		{[]string{checkPath, watchPath, reflectPath}, "\x01\x00\x00\x00\x02ab", nil, connect.CodeInvalidArgument, `the message is said to be compressed and its encoding is ""; accepted with it: gzip, zstd`},
		{[]string{checkPath, watchPath, reflectPath}, "\x01\x00\x00\x00\x02ab", []string{"Grpc-Encoding", "gzip"}, connect.CodeInvalidArgument, "the message cannot be decompressed as gzip: unexpected EOF"},
		{[]string{checkPath, watchPath, reflectPath, retrievePath}, good, []string{"Grpc-Encoding", "lz4"}, connect.CodeUnimplemented, `header grpc-encoding is "lz4"; accepted: gzip, zstd, identity`},
		{[]string{checkPath, watchPath, reflectPath}, good, []string{"Grpc-Timeout", "1x"}, connect.CodeInvalidArgument, `header grpc-timeout is "1x"; accepted: 1 to 8 digits and a unit of H, M, S, m, u, n`},
		{[]string{checkPath, watchPath, reflectPath}, "\x00\x00\x00\x00\x03\xff\xff\xff", nil, connect.CodeInvalidArgument, "unmarshal message: cannot parse invalid wire-format data"},
	} {
		for _, path := range test.paths {
			for _, kind := range []string{"application/grpc", "application/grpc-web+proto"} {
				n++
				id := "other-" + strconv.Itoa(n)
				status, text, details, header := s.exchangeGRPC(t, path, kind, test.body, append(test.header, RequestIDHeader, id)...)
				require.Equal(t, test.text, text, "%s of %s", kind, path)
				require.Equal(t, strconv.Itoa(int(test.code)), status)
				require.NotEmpty(t, details)
				require.Equal(t, id, header.Get(RequestIDHeader))
				if n < events.FailuresAtOnce {
					require.Contains(t, requireLine(t, log, id), "code="+test.code.String())
				}
			}
		}
	}
}

// TestMalformedStreamOfConnect fails streams by Connect, whose errors have the status 200.
func TestMalformedStreamOfConnect(t *testing.T) {
	s, log := serveLogged(t, Options{})
	for id, test := range map[string]struct{ path, kind, body, header, code, text string }{
		"proto":    {watchPath, "application/connect+proto", "\x00\x00\x00\x00\x09abc", "", "invalid_argument", "the message is said to have 9 bytes and has 3"},
		"json":     {watchPath, "application/connect+json", "\x00\x00\x00\x00\x01{", "", "invalid_argument", "unmarshal message: the JSON object ends too early"},
		"field":    {watchPath, "application/connect+json", "\x00\x00\x00\x00\x07{\"x\":1}", "", "invalid_argument", `unmarshal message: line 1, column 2: unknown field "x"`},
		"encoding": {watchPath, "application/connect+json", "\x00\x00\x00\x00\x02{}", "br", "unimplemented", `header connect-content-encoding is "br"; accepted: gzip, zstd, identity`},
		"path":     {"/nothing", "application/connect+json", "\x00\x00\x00\x00\x02{}", "", "unimplemented", `path "/nothing" is not served; served: POST and GET of the methods of the services that reflection lists, GET /healthz, GET /readyz`},
		"no-stream": {
			retrievePath, "application/connect+json", "\x00\x00\x00\x00\x02{}", "br", "invalid_argument", `content-type "application/connect+json" is not accepted; accepted: ` +
				"application/grpc, application/grpc+json, application/grpc+json; charset=utf-8, application/grpc+proto, application/grpc-web, application/grpc-web+json, application/grpc-web+json; charset=utf-8, application/grpc-web+proto, application/json, application/json; charset=utf-8, application/proto",
		},
		"unknown": {watchPath, "application/connect+json", "\x00\x00\x00\x00\x0f{\"service\":\"s\"}", "", "not_found", `service "s" is unknown; known: "tandem.v1.RetrievalService" and ""`},
	} {
		t.Run(id, func(t *testing.T) {
			r, err := http.NewRequest(http.MethodPost, s.url+test.path, strings.NewReader(test.body))
			require.NoError(t, err)
			header := []string{"Content-Type", test.kind, RequestIDHeader, id}
			if test.header != "" {
				header = append(header, "Connect-Content-Encoding", test.header)
			}
			got := s.do(t, r, header...)
			require.Equal(t, http.StatusOK, got.status)
			require.Equal(t, id, got.header.Get(RequestIDHeader))
			require.Equal(t, test.kind, got.header.Get("Content-Type"))
			require.Contains(t, string(got.body), strconv.Quote(test.text))
			require.Contains(t, string(got.body), "google.rpc.ErrorInfo")
			require.Contains(t, requireLine(t, log, id), " code="+test.code+" ")
		})
	}
}

// TestMalformedHealthCheck sends health checks by Connect that are cut or too long.
func TestMalformedHealthCheck(t *testing.T) {
	s, log := serveLogged(t, Options{})
	for id, test := range map[string]struct{ rest, text string }{
		"cut":      {"Content-Length: 100\r\n\r\n{}", "the body ends before its end"},
		"chunk":    {"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "the body cannot be read: invalid byte in chunk length"},
		"long":     {"Content-Length: 5000\r\n\r\n" + strings.Repeat(" ", 5000), "the message has more than 4096 bytes; accepted: up to 4096"},
		"empty":    {"Content-Length: 0\r\n\r\n", "unmarshal message: the body is empty; accepted: a JSON object"},
		"no JSON":  {"Content-Length: 2\r\n\r\n{x", "unmarshal message: syntax error line 1, column 2: invalid value x"},
		"encoding": {"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", `header content-encoding is "br"; accepted: gzip, zstd, identity`},
	} {
		t.Run(id, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			id := strings.ReplaceAll(id, " ", "-")
			_, err = io.WriteString(conn, "POST "+checkPath+" HTTP/1.1\r\nHost: x\r\nX-Request-Id: "+id+"\r\nContent-Type: application/json\r\n"+test.rest)
			require.NoError(t, err)
			if id == "cut" { // of others the server may take it that the caller went away
				require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, test.text, writtenError(body).Message())
			require.Contains(t, string(body), "google.rpc.ErrorInfo")
			require.Equal(t, id, response.Header.Get(RequestIDHeader))
			requireLine(t, log, id)
		})
	}
}
