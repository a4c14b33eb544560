package server

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"connectrpc.com/connect"
)

// What the headers of a request to a method may say. Connect looks at them before any of
// our code does, and its errors have no reasons.
var (
	connectTimeout = regexp.MustCompile(`^[0-9]{1,10}$`)
	grpcTimeout    = regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)
)

// What a request may say once: of several, Connect would take one.
var (
	headersOnce = [...]string{
		"Content-Type", "Content-Encoding", "Connect-Content-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Encoding", "Grpc-Timeout",
	}
	parametersOnce = [...]string{"base64", "compression", "connect", "encoding", "message"}
)

// checkHeaders returns an error if what a request to one of our methods says beside its
// message is wrong. They have no streams: Connect has a status for those.
func checkHeaders(r *http.Request) *connect.Error {
	if isConnectStream(r.Header) {
		return nil
	}
	return checkMethodHeaders(r)
}

// checkMethodHeaders does the same for any method.
func checkMethodHeaders(r *http.Request) *connect.Error {
	for _, name := range headersOnce {
		if n := len(r.Header[name]); n > 1 {
			return invalidf(reasonHeader, "", "header %s is given %d times; accepted: once", strings.ToLower(name), n)
		}
	}
	switch {
	case protocolOf(r) != "connect":
		if err := checkTimeout(r, "Grpc-Timeout", grpcTimeout, "1 to 8 digits and a unit of H, M, S, m, u, n"); err != nil {
			return err
		}
		return checkEncoding("header grpc-encoding", r.Header.Get("Grpc-Encoding"))
	case r.Method == http.MethodGet:
		if err := checkQuery(r); err != nil {
			return err
		}
	default:
		name := "Content-Encoding"
		if isConnectStream(r.Header) {
			name = "Connect-Content-Encoding"
		}
		if err := checkEncoding("header "+strings.ToLower(name), r.Header.Get(name)); err != nil {
			return err
		}
		if version := r.Header.Get("Connect-Protocol-Version"); version != "" && version != "1" {
			return invalidf(reasonHeader, "", "header connect-protocol-version is %q; accepted: 1", excerpt(version))
		}
	}
	return checkTimeout(r, "Connect-Timeout-Ms", connectTimeout, "1 to 10 digits, of milliseconds")
}

func checkTimeout(r *http.Request, name string, form *regexp.Regexp, accepted string) *connect.Error {
	if value := r.Header.Get(name); value != "" && !form.MatchString(value) {
		return invalidf(reasonHeader, "", "header %s is %q; accepted: %s", strings.ToLower(name), excerpt(value), accepted)
	}
	return nil
}

func checkEncoding(where, encoding string) *connect.Error {
	switch encoding {
	case "", "identity", "gzip", "zstd":
		return nil
	}
	return errorf(connect.CodeUnimplemented, reasonEncoding, "%s is %q; accepted: gzip, zstd, identity", where, excerpt(encoding))
}

// checkQuery returns an error if the query of a URL has no message.
func checkQuery(r *http.Request) *connect.Error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalidf(reasonMalformed, "", "the URL's query cannot be read: %s", shortened(err.Error(), maxDescription))
	}
	for _, name := range parametersOnce {
		if n := len(query[name]); n > 1 {
			return invalidf(reasonMalformed, "", "query parameter %s is given %d times; accepted: once", name, n)
		}
	}
	if version := query.Get("connect"); version != "" && version != "v1" {
		return invalidf(reasonHeader, "", "query parameter connect is %q; accepted: v1", excerpt(version))
	}
	if err := checkEncoding("query parameter compression", query.Get("compression")); err != nil {
		return err
	}
	if encoding := query.Get("encoding"); encoding != "json" && encoding != "proto" {
		return nil // Connect has a status for it
	}
	if !query.Has("message") {
		return invalidf(reasonMalformed, "", "query parameter message is not set; accepted: a message in the encoding that the parameter encoding names")
	}
	if query.Get("base64") == "1" {
		message := strings.TrimRight(query.Get("message"), "=")
		if _, err := base64.RawURLEncoding.DecodeString(message); err != nil {
			return invalidf(reasonMalformed, "", "query parameter message cannot be read: %w; accepted with base64=1: base64 for URLs", err)
		}
	}
	return nil
}
