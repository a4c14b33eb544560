// Package secure has a server speak TLS below everything else that bounds its connections:
// what is above reads and writes clear text, so that what it counts of connections, requests
// and frames holds by TLS as without.
//
// # Handshakes
//
// A handshake costs a server a signature before it knows who asks. So few are computed at a
// time, while those that wait for their clients take no place; and one that has not ended in
// time is closed.
//
// # Certificates
//
// They are read again when their files change. Clients that send a certificate must send one
// that the authority has signed and that has not expired, or the handshake fails; whether one
// is needed is decided for each request, since probes have none. A connection may outlive its
// client's certificate, or the authority: so it is looked at again whenever those may have
// changed.
package secure

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/server/filewatch"
)

// Options name the files of certificates, in PEM.
type Options struct {
	// Cert has the certificate of the server and those between it and its authority, Key its
	// private key. Required.
	Cert, Key string
	// ClientCA has the certificates of the authorities that sign those of clients. Empty:
	// clients need none.
	ClientCA string
	// Now is the clock by which certificates expire. Default: time.Now.
	Now func() time.Time
}

// maxFile is how many bytes a file may have.
const maxFile = 1 << 20

// Certificates are those of a server as its files have them now.
type Certificates struct {
	options Options
	files   *filewatch.Files
	current atomic.Pointer[tls.Config]
}

// Open reads certificates.
func Open(o Options) (*Certificates, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	paths := []string{o.Cert, o.Key}
	if o.ClientCA != "" {
		paths = append(paths, o.ClientCA)
	}
	c := &Certificates{options: o}
	c.files = filewatch.New("certificates", maxFile, c.load, paths...)
	if err := c.files.Look(); err != nil {
		return nil, err
	}
	return c, nil
}

// Files returns the files, to be read again.
func (c *Certificates) Files() *filewatch.Files { return c.files }

// Validity returns from when on, and until when, the certificate of the server counts.
func (c *Certificates) Validity() (from, until time.Time) {
	leaf := c.current.Load().Certificates[0].Leaf // of what was loaded
	return leaf.NotBefore, leaf.NotAfter
}

// suites are those of TLS 1.2 that HTTP/2 allows; TLS 1.3 has its own.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// load has the contents of files count from now on.
func (c *Certificates) load(contents [][]byte) error {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return err
	}
	switch now := c.options.Now(); {
	case now.After(pair.Leaf.NotAfter):
		return fmt.Errorf("the certificate has expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore): // no client would take it
		return fmt.Errorf("the certificate counts only from %s on, and it is %s", pair.Leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: suites, NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{pair}, Time: c.options.Now,
	}
	if c.options.ClientCA != "" {
		if config.ClientCAs, err = authorities(contents[2]); err != nil {
			return fmt.Errorf("%s: %w", c.options.ClientCA, err)
		}
		config.ClientAuth = tls.VerifyClientCertIfGiven
		config.SessionTicketsDisabled = true // a ticket would outlive the authority
	}
	c.current.Store(config)
	return nil
}

// authorities returns the certificates of a file, all of which must be readable.
func authorities(data []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n, err)
		}
		pool.AddCert(authority)
		n++
	}
	if n == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return pool, nil
}

// NameOf returns the name of a client by its certificate: the first URI, else the first name
// of DNS, else the first mail address; empty if it has none of them.
func NameOf(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	}
	return ""
}
