package server

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// startLogged runs a server with a log of failures.
func startLogged(t *testing.T) (*process, *logged) {
	log := &logged{}
	p := start(t, smallTowers(index.Dot).named(t, Config{Logger: slog.New(slog.NewTextHandler(log, nil))}))
	t.Cleanup(func() {
		p.stop()
		require.NoError(t, <-p.done)
	})
	return p, log
}

// TestUnreadRequests sends what net/http refuses before a handler sees it, as a first
// request and after one that was answered: the answer has the status that it gives, the
// form of an error, and a name that is in a line of the log.
func TestUnreadRequests(t *testing.T) {
	p, log := startLogged(t)
	const head = "POST /tandem.v1.RetrievalService/Retrieve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for name, test := range map[string]struct {
		request string
		status  int
		code    connect.Code
		reason  reason
		text    string
	}{
		"no HTTP":           {"hello, this is no request of HTTP\r\n\r\n", 400, connect.CodeInvalidArgument, reasonMalformed, "the HTTP request cannot be read; accepted: HTTP/1.1, and HTTP/2 in clear text"},
		"TLS":               {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, connect.CodeInvalidArgument, reasonMalformed, "the HTTP request cannot be read; accepted: HTTP/1.1, and HTTP/2 in clear text"},
		"content length":    {head + "Content-Length: abc\r\n\r\n{}", 400, connect.CodeInvalidArgument, reasonMalformed, "the HTTP request cannot be read; accepted: HTTP/1.1, and HTTP/2 in clear text"},
		"two lengths":       {head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, connect.CodeInvalidArgument, reasonMalformed, "the HTTP request cannot be read; accepted: HTTP/1.1, and HTTP/2 in clear text"},
		"no host":           {"GET /healthz HTTP/1.1\r\n\r\n", 400, connect.CodeInvalidArgument, reasonMalformed, "the HTTP request cannot be read: missing required Host header"},
		"header name":       {"GET /healthz HTTP/1.1\r\nHost: x\r\nbad header: x\r\n\r\n", 400, connect.CodeInvalidArgument, reasonMalformed, "the HTTP request cannot be read: invalid header name"},
		"long header":       {"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", maxHeaderBytes+8<<10) + "\r\n\r\n", 431, connect.CodeInvalidArgument, reasonMessage, "the header has more than 131072 bytes; accepted: up to 131072, the URL included"},
		"expectation":       {head + "Expect: much\r\nContent-Length: 2\r\n\r\n{}", 417, connect.CodeInvalidArgument, reasonHeader, "header expect is not accepted; accepted: 100-continue"},
		"transfer encoding": {head + "Transfer-Encoding: gzip\r\n\r\n", 501, connect.CodeUnimplemented, reasonEncoding, "header transfer-encoding is not accepted; accepted: chunked"},
		"version":           {"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", 505, connect.CodeUnimplemented, reasonMethod, "the version of HTTP is not accepted; accepted: HTTP/1.0, HTTP/1.1, HTTP/2"},
	} {
		for _, before := range []int{0, 2} {
			t.Run(fmt.Sprint(name, " after ", before), func(t *testing.T) {
				conn, err := net.Dial("tcp", p.addr.String())
				require.NoError(t, err)
				defer conn.Close()
				answers := bufio.NewReader(conn)
				for range before {
					_, err = io.WriteString(conn, head+"Content-Length: 21\r\n\r\n{\"userId\":\"u1\",\"k\":1}")
					require.NoError(t, err)
					response, err := http.ReadResponse(answers, nil)
					require.NoError(t, err)
					require.Equal(t, http.StatusOK, response.StatusCode)
					_, err = io.Copy(io.Discard, response.Body)
					require.NoError(t, err)
					require.NoError(t, response.Body.Close())
				}
				_, err = io.WriteString(conn, test.request)
				require.NoError(t, err)
				response, err := http.ReadResponse(answers, nil)
				require.NoError(t, err)
				body, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				require.Equal(t, test.status, response.StatusCode)
				require.Equal(t, "application/json", response.Header.Get("Content-Type"))
				require.Equal(t, int64(len(body)), response.ContentLength)
				require.True(t, response.Close)
				require.Equal(t, test.code, writtenError(body).Code())
				require.Equal(t, test.text, writtenError(body).Message())
				require.Contains(t, string(body), test.reason)
				line := requireLine(t, log, response.Header.Get(RequestIDHeader))
				require.Regexp(t, `code=`+test.code.String()+` duration=\S+ peer=127.0.0.1:\d+ protocol=connect http=HTTP/1.1 bytes=[1-9]\d* (error=".*" )?reason=`+string(test.reason), line)
				_, err = answers.ReadByte()
				require.Error(t, err, "it is closed, or reset where more was sent than was read")
			})
		}
	}
}

// TestTargets asks for what is no path: it is refused as other paths are.
func TestTargets(t *testing.T) {
	p, log := startLogged(t)
	for request, text := range map[string]string{
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                `the target of method OPTIONS is "*"; accepted: a path`,
		"GET * HTTP/1.1\r\nHost: x\r\n\r\n":                    `the target of method GET is "*"; accepted: a path`,
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n":                     `the target of method PRI is "*"; accepted: a path`,
		"PRI * HTTP/2.0\r\n\r\nXX":                             `the target of method PRI is "*"; accepted: a path`,
		"OPTIONS /nothing HTTP/1.1\r\nHost: x\r\n\r\n":         `path "/nothing" is not served; served: POST and GET of the methods of the services that reflection lists, GET /healthz, GET /readyz`,
		"OPTIONS http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n": "method OPTIONS of path /healthz is not accepted; accepted: GET, HEAD",
		"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n":  `path "" is not served; served: POST and GET of the methods of the services that reflection lists, GET /healthz, GET /readyz`,
	} {
		conn, err := net.Dial("tcp", p.addr.String())
		require.NoError(t, err)
		_, err = io.WriteString(conn, request)
		require.NoError(t, err)
		if strings.HasSuffix(request, "XX") {
			require.NoError(t, conn.(*net.TCPConn).CloseWrite()) // else more is waited for
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.NoError(t, conn.Close())
		require.Equal(t, text, writtenError(body).Message(), request)
		require.GreaterOrEqual(t, response.StatusCode, 400)
		require.Contains(t, string(body), "google.rpc.ErrorInfo")
		require.Contains(t, requireLine(t, log, response.Header.Get(RequestIDHeader)), "code=")
	}
}

// TestAnswersAreNotReplaced answers with what looks like a refusal: it stays as it is.
func TestAnswersAreNotReplaced(t *testing.T) {
	p, _ := startLogged(t)
	for range 3 { // of one connection
		for path, status := range map[string]int{"/nothing": 404, "/healthz": 200, retrievePath + "?encoding=json&message={": 400} {
			got := p.get(t, path, RequestIDHeader, "mine")
			require.Equal(t, status, got.status)
			require.Equal(t, "mine", got.header.Get(RequestIDHeader))
		}
	}
}
