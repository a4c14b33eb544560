package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"connectrpc.com/connect"
)

// answers reports whether something at the address of a server has answered with an error, as
// opposed to no answer, or one that a proxy gives for want of it.
func answers(err error) bool {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return false
	}
	if connect.IsWireError(coded) {
		return true
	}
	cut := errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*net.OpError))
	switch coded.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return false
	}
	return !cut
}

// judgeSilence says why a server has not told its status.
func judgeSilence(s *serverStatus) finding {
	if !answers(s.err) {
		return newFinding("TandemDown", "look whether the process runs, and what its log says; callers should have left it", "it does not answer: %s", s.Error)
	}
	code := connect.CodeOf(s.err)
	if next := afterRefusal(code); next != "" {
		return newFinding("StatusRefused", next, "it answers, and refuses to say how it is: %s", s.Error)
	}
	switch {
	case !connect.IsWireError(s.err), code == connect.CodeUnimplemented:
		return newFinding("NotTandem", "name the address that tandem serve --listen has, not that of its admin listener or of something else", "what answers is no Tandem server: %s", s.Error)
	case code == connect.CodeResourceExhausted:
		return newFinding("TandemOverloaded", "ask again; if it goes on, look of what there is too much: tandem_shed_requests_total in the metrics, by reason", "it answers, and refuses to say how it is: %s", s.Error)
	}
	return newFinding("TandemErrors", "look at the server's log, which has the request", "it answers, and fails to say how it is: %s", s.Error)
}

// statusScopes are those that a token needs one of to ask how a server is.
const statusScopes = "admin, publish or live"

// afterRefusal is what to do about a server that asks who is there, empty if it does not.
func afterRefusal(code connect.Code) string {
	switch code {
	case connect.CodeUnauthenticated:
		return fmt.Sprintf("ask with a token that it knows and that has the scope %s: --token-file FILE; where it asks for a certificate, --tls-cert and --tls-key", statusScopes)
	case connect.CodePermissionDenied:
		return fmt.Sprintf("ask with a token that has another scope, %s: --token-file FILE", statusScopes)
	}
	return ""
}
