package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/judge"
)

// answers reports whether something at the address of a server has answered with an error, as
// opposed to no answer, or one that a proxy gives for want of it.
func answers(err error) bool {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return false
	}
	if connect.IsWireError(coded) || tlsFailed(err) {
		return true
	}
	cut := errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*net.OpError))
	switch coded.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return false
	}
	return !cut
}

// wasCut reports whether there was a connection, which ended before an answer did.
func wasCut(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op != "dial" || errors.Is(err, io.ErrUnexpectedEOF)
}

// tlsFailed reports whether something has answered, and TLS with it has failed.
func tlsFailed(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	alert := ok && (op.Op == "remote error" || op.Op == "local error") // as crypto/tls has it
	return alert || errors.As(err, new(*tls.CertificateVerificationError)) || errors.Is(err, http.ErrSchemeMismatch)
}

// judgeTLS says why TLS with a server has failed.
func judgeTLS(s *serverStatus) judge.Finding {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](s.err)
	if ok && invalid.Reason == x509.Expired {
		return judge.New("TandemCertificateExpires", "put a certificate that counts and its key in place: the server reads them by itself", "nobody connects, for its certificate does not count now: %s", s.Error)
	}
	next := "show a certificate that it takes: --tls-cert, --tls-key"
	switch {
	case errors.Is(s.err, http.ErrSchemeMismatch):
		next = "name it with http://, without --tls-ca and --tls-cert, or look why it speaks no TLS"
	case errors.As(s.err, new(*tls.CertificateVerificationError)):
		next = "name the authority that has signed its certificate (--tls-ca), and the server by a name that the certificate has"
	}
	return judge.New("TLSFailed", next, "it answers, and TLS with it fails: %s", s.Error)
}

// judgeSilence says why a server has not told its status.
func judgeSilence(s *serverStatus) judge.Finding {
	if tlsFailed(s.err) {
		return judgeTLS(s)
	}
	if !answers(s.err) {
		next := "look whether the process runs, and what its log says; callers should have left it"
		if wasCut(s.err) { // a certificate that it does not take may end like this, too
			next = "ask again; if it cuts every connection off, " + next
		}
		return judge.New("TandemDown", next, "it does not answer: %s", s.Error)
	}
	code := connect.CodeOf(s.err)
	if next := afterRefusal(code); next != "" {
		return judge.New("StatusRefused", next, "it answers, and refuses to say how it is: %s", s.Error)
	}
	switch {
	case !connect.IsWireError(s.err), code == connect.CodeUnimplemented:
		return judge.New("NotTandem", "name the address that tandem serve --listen has, with https:// if it speaks TLS, not that of its admin listener or of something else; a node (--role shard) answers routers only: ask those", "what answers is no Tandem server: %s", s.Error)
	case code == connect.CodeResourceExhausted:
		return judge.New("TandemOverloaded", "ask again; if it goes on, look of what there is too much: tandem_shed_requests_total in the metrics, by reason", "it answers, and refuses to say how it is: %s", s.Error)
	}
	return judge.New("TandemErrors", "look at the server's log, which has the request", "it answers, and fails to say how it is: %s", s.Error)
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
