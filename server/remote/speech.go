package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
)

var (
	// errWantsTLS says that a node speaks TLS which is asked in clear text.
	errWantsTLS = errors.New("the node speaks TLS, and is asked in clear text")
	// errWantsClear says that a node speaks clear text which is asked in TLS.
	errWantsClear = errors.New("the node speaks clear text, and is asked in TLS")
)

// recordAlert is the first byte of a server of TLS that is spoken to in clear text, and says so as
// the protocol has it.
const recordAlert = 21

// saysTLS reports whether an answer to a request in clear text says that the server speaks TLS: as
// nodes and package net/http say it.
func saysTLS(answer []byte) bool {
	return bytes.Contains(answer, []byte("the server speaks TLS")) || bytes.Contains(answer, []byte("HTTPS server"))
}

// saysClear reports whether an error says that a server does not speak TLS.
func saysClear(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok || errors.Is(err, http.ErrSchemeMismatch)
}

// isUnreached reports whether there was no connection, or nothing came on it.
func isUnreached(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial" || isTimeout(err)
}

// speech returns an error if a node does not speak TLS, or nothing else, unlike who asks it; of all
// else it knows nothing. It is for those who have an error of HTTP/2, which may name anything then.
func (l *lines) speech(ctx context.Context) error {
	one, err := l.take(ctx)
	switch {
	case err == nil:
		l.put(one)
	case errors.Is(err, errWantsTLS), errors.Is(err, errWantsClear):
		return err
	}
	return nil
}
