package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/server/fleet"
)

// clientFlags say how servers are spoken to.
type clientFlags struct {
	TokenFile  string `type:"path" env:"TANDEM_TOKEN_FILE" placeholder:"FILE" help:"File with the token that servers ask for."`
	TLSCA      string `name:"tls-ca" type:"path" placeholder:"FILE" help:"Certificates in PEM of the authorities that sign those of servers (default those of the system); HOST:PORT means https:// then."`
	ClientCert string `name:"tls-cert" type:"path" placeholder:"FILE" help:"Certificate in PEM to show to servers that ask for one."`
	ClientKey  string `name:"tls-key" type:"path" placeholder:"FILE" help:"Private key of --tls-cert in PEM."`
}

// url returns the URL of a server that --server names, to which a token may be sent.
func (f *clientFlags) url(text string) (string, error) {
	scheme := "http"
	if f.TLSCA != "" || f.ClientCert != "" {
		scheme = "https"
	}
	full, err := serverURL(text, scheme)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(full)
	if err != nil {
		return "", err // serverURL has parsed it
	}
	switch {
	case u.Scheme == "http" && scheme == "https":
		return "", usagef("--server is %.200q, which is without TLS; want https://HOST:PORT with --tls-ca and --tls-cert", text)
	case u.Scheme == "http" && f.TokenFile != "" && !isLoopback(net.JoinHostPort(u.Hostname(), "0")):
		return "", usagef("--server is %.200q, where a token would be sent in clear text; want https://HOST:PORT, or a loopback address", text)
	}
	return full, nil
}

// transport returns what sends requests, with what wraps it to add the token; both are those of
// the library without flags.
func (f *clientFlags) transport() (*http.Transport, func(http.RoundTripper) http.RoundTripper, error) {
	config, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	token, err := f.token()
	if err != nil {
		return nil, nil, err
	}
	if token == "" {
		return t, func(below http.RoundTripper) http.RoundTripper { return below }, nil
	}
	return t, func(below http.RoundTripper) http.RoundTripper { return bearerTransport{below, token} }, nil
}

// client returns a client of servers; timeout bounds a request, 0 does not.
func (f *clientFlags) client(timeout time.Duration) (*http.Client, error) {
	t, wrap, err := f.transport()
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: boundedTransport{wrap(t)}, Timeout: timeout, CheckRedirect: noRedirect}, nil
}

// noRedirect keeps a token from being sent elsewhere. Servers send nobody on.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// config returns how TLS is spoken, nil for as the system has it.
func (f *clientFlags) config() (*tls.Config, error) {
	return tlsConfig("--tls-", f.TLSCA, f.ClientCert, f.ClientKey)
}

// tlsConfig returns how TLS is spoken by the files of flags with a prefix, nil for as the system
// has it.
func tlsConfig(prefix, ca, cert, key string) (*tls.Config, error) {
	if (cert == "") != (key == "") {
		return nil, usagef("%scert and %skey go together, and one is missing", prefix, prefix)
	}
	if ca == "" && cert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		data, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%sca: %w", prefix, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%sca: %s: there is no certificate in it", prefix, ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%scert: %w", prefix, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// token returns the token to send, empty for none. Errors have nothing of what the file has.
func (f *clientFlags) token() (string, error) { return readToken("--token-file", f.TokenFile) }

// readToken returns the token in the file of a flag, empty for none.
func readToken(flag, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return "", fmt.Errorf("%s: %w", flag, errors.New(path+" does not have one token, alone"))
	}
	return token, nil
}

// boundedTransport ends answers that are longer than any: what reads them would look for their
// end otherwise. Streams have many messages, each of which is bounded.
type boundedTransport struct{ below http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (b boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.below.RoundTrip(r)
	if err == nil && !strings.HasPrefix(answer.Header.Get("Content-Type"), "application/connect+") {
		answer.Body = http.MaxBytesReader(nil, answer.Body, fleet.MaxAnswer+1)
	}
	return answer, err
}

// bearerTransport adds a token to requests.
type bearerTransport struct {
	below http.RoundTripper
	token string
}

// RoundTrip implements [http.RoundTripper].
func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.below.RoundTrip(r)
}
