package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
)

const retrievePath = "/tandem.v1.RetrievalService/Retrieve"

// TestMalformedGRPC sends what is no message of gRPC: it is the caller's fault, has the
// request's name and a line of the log.
func TestMalformedGRPC(t *testing.T) {
	s, log := serveLogged(t, Options{})
	for name, test := range map[string]struct {
		body   string
		header []string
		code   connect.Code
		text   string
	}{
		"empty":        {"", nil, connect.CodeInvalidArgument, "the body has no message; accepted: one"},
		"prefix":       {"\x00\x00", nil, connect.CodeInvalidArgument, "the body has 2 bytes; accepted: the 5 bytes before a message, and the message"},
		"short":        {"\x00\x00\x00\x00\x09abc", nil, connect.CodeInvalidArgument, "the message is said to have 9 bytes and has 3"},
		"huge":         {"\x00\xff\xff\xff\xffabc", nil, connect.CodeInvalidArgument, "the message is said to have 4294967295 bytes and has 3"},
		"two":          {"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", nil, connect.CodeInvalidArgument, "5 bytes are after the message; accepted: one message"},
		"flags":        {"\x80\x00\x00\x00\x00", nil, connect.CodeInvalidArgument, "the message has the flags 0x80; accepted: 0 and 1"},
		"not-encoded":  {"\x01\x00\x00\x00\x02ab", nil, connect.CodeInvalidArgument, `the message is said to be compressed and its encoding is ""; accepted with it: gzip, zstd`},
		"no-gzip":      {"\x01\x00\x00\x00\x02ab", []string{"Grpc-Encoding", "gzip"}, connect.CodeInvalidArgument, "the message cannot be decompressed as gzip: unexpected EOF"},
		"encoding":     {"\x00\x00\x00\x00\x00", []string{"Grpc-Encoding", "lz4"}, connect.CodeUnimplemented, `header grpc-encoding is "lz4"; accepted: gzip, zstd, identity`},
		"timeout":      {"\x00\x00\x00\x00\x00", []string{"Grpc-Timeout", "1x"}, connect.CodeInvalidArgument, `header grpc-timeout is "1x"; accepted: 1 to 8 digits and a unit of H, M, S, m, u, n`},
		"wrong-fields": {"\x00\x00\x00\x00\x03\xff\xff\xff", nil, connect.CodeInvalidArgument, "unmarshal message: cannot parse invalid wire-format data"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(http.MethodPost, s.url+retrievePath, strings.NewReader(test.body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/grpc")
			r.Header.Set(RequestIDHeader, name)
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			response, err := s.http2.Do(r)
			require.NoError(t, err)
			_, err = io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, strconv.Itoa(int(test.code)), response.Trailer.Get("Grpc-Status"))
			require.Equal(t, test.text, response.Trailer.Get("Grpc-Message"))
			require.NotEmpty(t, response.Trailer.Get("Grpc-Status-Details-Bin"))
			require.Equal(t, name, response.Header.Get(RequestIDHeader))
			require.Equal(t, acceptedEncodings, response.Header.Get("Grpc-Accept-Encoding"))
			require.Contains(t, requireLine(t, log, name), "level=INFO")
		})
	}
}

// TestMalformedBodies sends bodies that are cut or chunked wrongly.
func TestMalformedBodies(t *testing.T) {
	s, _ := serveLogged(t, Options{})
	for name, test := range map[string]struct{ rest, text string }{
		"chunk":          {"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "the body cannot be read: invalid byte in chunk length"},
		"half a chunk":   {"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "the body ends after 2 bytes, before its end"},
		"half a message": {"Content-Length: 100\r\n\r\n{}", "the body ends after 2 bytes, before its end"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "POST "+retrievePath+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+test.rest)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, http.StatusBadRequest, response.StatusCode)
			require.Equal(t, connect.CodeInvalidArgument, writtenError(body).Code())
			require.Equal(t, test.text, writtenError(body).Message())
			require.Contains(t, string(body), reasonMalformed)
		})
	}
}

// TestMalformedHeaders says what is wrong in the words of the contract, not of a library.
func TestMalformedHeaders(t *testing.T) {
	s, _ := serveLogged(t, Options{})
	for _, test := range []struct {
		query  string
		header []string
		status int
		text   string
	}{
		{"", []string{"Connect-Timeout-Ms", "abc"}, 400, `header connect-timeout-ms is "abc"; accepted: 1 to 10 digits, of milliseconds`},
		{"", []string{"Connect-Timeout-Ms", "-1"}, 400, `header connect-timeout-ms is "-1"; accepted: 1 to 10 digits, of milliseconds`},
		{"", []string{"Connect-Protocol-Version", "2"}, 400, `header connect-protocol-version is "2"; accepted: 1`},
		{"", []string{"Content-Encoding", "br"}, 501, `header content-encoding is "br"; accepted: gzip, zstd, identity`},
		{"", []string{"Content-Encoding", "gzip"}, 400, "the message cannot be decompressed as gzip: unexpected EOF"},
		{"", []string{"Content-Encoding", "zstd"}, 400, "the message cannot be decompressed as zstd: unexpected EOF"},
		{"encoding=json", nil, 400, "query parameter message is not set; accepted: a message in the encoding that the parameter encoding names"},
		{"encoding=json&message=%zz", nil, 400, `the URL's query cannot be read: invalid URL escape "%zz"`},
		{"encoding=json&base64=1&message=!", nil, 400, "query parameter message cannot be read: illegal base64 data at input byte 0; accepted with base64=1: base64 for URLs"},
		{"encoding=json&message={}&message={}", nil, 400, "query parameter message is given 2 times; accepted: once"},
		{"encoding=json&message={}&encoding=proto", nil, 400, "query parameter encoding is given 2 times; accepted: once"},
		{"encoding=json&message=e30&base64=1&base64=0", nil, 400, "query parameter base64 is given 2 times; accepted: once"},
		{"encoding=json&message={}&connect=v9", nil, 400, `query parameter connect is "v9"; accepted: v1`},
		{"encoding=json&message={}&compression=lz4", nil, 501, `query parameter compression is "lz4"; accepted: gzip, zstd, identity`},
		{"encoding=json&compression=gzip&message=" + url.QueryEscape("{}"), nil, 400, "the message cannot be decompressed as gzip: unexpected EOF"},
	} {
		var got reply
		if test.query == "" {
			got = s.post(t, "Retrieve", "{}", test.header...)
		} else {
			got = s.get(t, retrievePath+"?"+test.query)
		}
		require.Equal(t, test.text, got.json["message"])
		require.Equal(t, test.status, got.status, test.text)
		require.Contains(t, string(got.body), "google.rpc.ErrorInfo")
		require.Equal(t, acceptedEncodings, got.header.Get("Accept-Encoding"))
	}
}

// TestHeadersOnce: of a header that is given twice none is taken.
func TestHeadersOnce(t *testing.T) {
	s, _ := serveLogged(t, Options{})
	for name, values := range map[string][2]string{
		"Content-Type": {"application/json", "application/proto"}, "Content-Encoding": {"identity", "gzip"},
		"Connect-Timeout-Ms": {"1000", "2000"}, "Connect-Protocol-Version": {"1", "2"},
	} {
		r, err := http.NewRequest(http.MethodPost, s.url+retrievePath, strings.NewReader(`{"userId": "u1", "k": 1}`))
		require.NoError(t, err)
		r.Header["Content-Type"] = []string{"application/json"}
		r.Header[name] = values[:]
		got := s.do(t, r)
		require.Equal(t, "header "+strings.ToLower(name)+" is given 2 times; accepted: once", got.json["message"])
		require.Equal(t, http.StatusBadRequest, got.status)
	}
	status, text, _, _ := s.exchangeGRPC(t, retrievePath, "application/grpc", "\x00\x00\x00\x00\x00", "Grpc-Timeout", "1S", "Grpc-Timeout", "1H")
	require.Equal(t, "3", status)
	require.Equal(t, "header grpc-timeout is given 2 times; accepted: once", text)
}
