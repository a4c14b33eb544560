package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// handshakeTimeout is how long a handshake may take.
	handshakeTimeout = 10 * time.Second
	// farewell is how long a connection that is closed waits for room to say so: its client
	// may read nothing, and whoever closes it may have others to accept.
	farewell = 5 * time.Millisecond
	// maxName bounds the name of a client.
	maxName = 256
)

// Listener returns a listener whose connections speak TLS. At most so many handshakes are
// computed at a time. Those that fail are told of. Clients choose one of the protocols (ALPN);
// without any here there are h2 and http/1.1.
func (c *Certificates) Listener(l net.Listener, handshakes int, failed func(text string), protocols ...string) net.Listener {
	return &listener{Listener: l, certificates: c, places: make(chan struct{}, max(handshakes, 1)), failed: failed, protocols: protocols}
}

type listener struct {
	net.Listener
	certificates *Certificates
	places       chan struct{} // of handshakes that are computed
	failed       func(string)
	protocols    []string
}

// config returns what handshakes go by now.
func (l *listener) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	now := l.certificates.current.Load()
	if len(l.protocols) > 0 {
		now = now.Clone()
		now.NextProtos = l.protocols
	}
	return now, nil
}

// Accept implements [net.Listener]. It does not wait for the handshake.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	below := &below{Conn: accepted, places: l.places}
	return &Conn{Conn: tls.Server(below, &tls.Config{GetConfigForClient: l.config}), below: below, listener: l}, nil
}

// Conn is a connection, whose handshake comes before what is read or written first.
type Conn struct {
	*tls.Conn
	below    *below
	listener *listener

	once sync.Once
	err  error // of the handshake

	mu       sync.Mutex
	verified *tls.Config // by which the client's certificate counted last
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.handshake(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.handshake(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *Conn) handshake() error {
	c.once.Do(func() {
		late := time.AfterFunc(handshakeTimeout, func() { _ = c.below.Conn.Close() })
		c.below.begin()
		c.err = c.Conn.Handshake()
		c.below.end()
		if !late.Stop() {
			c.err = fmt.Errorf("it took longer than %s", handshakeTimeout)
		}
		if c.err == nil || errors.Is(c.err, io.EOF) { // who says nothing looks whether the port is open
			return
		}
		c.listener.failed("TLS handshake with " + c.RemoteAddr().String() + ": " + c.err.Error())
		if header, ok := errors.AsType[tls.RecordHeaderError](c.err); ok && header.Conn != nil && isHTTP(header.RecordHeader) {
			_ = header.Conn.SetWriteDeadline(time.Now().Add(farewell))
			_, _ = header.Conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nthe server speaks TLS; want https://\n"))
		}
	})
	return c.err
}

// isHTTP reports whether what came instead of a record of TLS begins a request in clear text.
func isHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PRI *":
		return true
	}
	return false
}

// Close implements [net.Conn]. It does not wait for the client.
func (c *Conn) Close() error {
	c.below.closing.Store(true)
	return c.Conn.Close()
}

// Client implements auth.Peer.
func (c *Conn) Client() (string, error) {
	certificates := c.ConnectionState().PeerCertificates // of a handshake that has ended
	if len(certificates) == 0 {
		return "", nil
	}
	client, config := certificates[0], c.listener.certificates.current.Load()
	name := NameOf(client)
	if len(name) > maxName {
		return "", fmt.Errorf("its name has more than %d bytes", maxName)
	}
	now := c.listener.certificates.options.Now()
	if now.After(client.NotAfter) {
		return "", fmt.Errorf("it has expired at %s", client.NotAfter.UTC().Format(time.RFC3339))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verified == config {
		return name, nil
	}
	between := x509.NewCertPool()
	for _, other := range certificates[1:] {
		between.AddCert(other)
	}
	_, err := client.Verify(x509.VerifyOptions{
		Roots: config.ClientCAs, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", errors.New("no authority of the server has signed it")
	}
	c.verified = config
	return name, nil
}

// below is the connection that has the bytes of TLS.
type below struct {
	net.Conn
	places  chan struct{}
	shaking bool // a handshake is computed, or waits for its client; only its goroutine asks
	closing atomic.Bool
}

func (b *below) begin() {
	b.places <- struct{}{}
	b.shaking = true
}

func (b *below) end() {
	b.shaking = false
	<-b.places
}

// Read implements [net.Conn]. A handshake that waits for its client gives its place to others.
func (b *below) Read(p []byte) (int, error) {
	if !b.shaking {
		return b.Conn.Read(p)
	}
	<-b.places
	n, err := b.Conn.Read(p)
	b.places <- struct{}{}
	return n, err
}

// SetWriteDeadline implements [net.Conn].
func (b *below) SetWriteDeadline(t time.Time) error {
	if soon := time.Now().Add(farewell); b.closing.Load() && (t.IsZero() || t.After(soon)) {
		t = soon
	}
	return b.Conn.SetWriteDeadline(t)
}
