package secure_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/server/secure"
	"github.com/tandem-ann/tandem/server/secure/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a server by TLS that answers each line with the name of its client.
type site struct {
	options      secure.Options
	certificates *secure.Certificates
	address      string
	authority    *certtest.Authority

	mu     sync.Mutex
	failed []string
}

func newSite(t *testing.T, now func() time.Time) *site {
	s := &site{authority: certtest.New(t, "one")}
	dir := t.TempDir()
	s.options = secure.Options{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ClientCA: filepath.Join(dir, "ca.pem"), Now: now}
	s.authority.Write(t, dir)
	var err error
	s.certificates, err = secure.Open(s.options)
	require.NoError(t, err)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = inner.Addr().String()
	l := s.certificates.Listener(inner, 1, func(text string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = append(s.failed, text)
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { answer(c.(*secure.Conn)) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		serving.Wait()
	})
	return s
}

func answer(c *secure.Conn) {
	defer c.Close()
	lines := bufio.NewReader(c)
	for {
		if _, err := lines.ReadString('\n'); err != nil {
			return
		}
		name, err := c.Client()
		if err != nil {
			name = err.Error()
		}
		if _, err := io.WriteString(c, name+"\n"); err != nil {
			return
		}
	}
}

// client returns the configuration of a client, with a certificate if it has a name.
func (s *site) client(t *testing.T, name string, by *certtest.Authority, expires time.Time) *tls.Config {
	c := &tls.Config{RootCAs: s.authority.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}}
	if name != "" {
		pair := by.Pair(t, name, expires)
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c
}

// ask sends a line and returns the answer.
func ask(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "who am I\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return line, err
}

// dial also sends a line: with TLS 1.3 a client learns only then whether its certificate counts.
func (s *site) dial(config *tls.Config) (*tls.Conn, string, error) {
	c, err := tls.Dial("tcp", s.address, config)
	if err != nil {
		return nil, "", err
	}
	line, err := ask(c)
	if err != nil {
		_ = c.Close()
		return nil, "", err
	}
	return c, line, nil
}

func (s *site) failures() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func TestClientsByCertificate(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	s := newSite(t, func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	c, line, err := s.dial(s.client(t, "", nil, time.Time{}))
	require.NoError(t, err)
	require.Equal(t, "\n", line)
	require.Equal(t, "h2", c.ConnectionState().NegotiatedProtocol)
	require.Equal(t, uint16(tls.VersionTLS13), c.ConnectionState().Version)
	require.NoError(t, c.Close())

	c, line, err = s.dial(s.client(t, "ranker", s.authority, now.Add(time.Minute)))
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, "spiffe://shop.example/ranker\n", line)

	_, _, err = s.dial(s.client(t, "late", s.authority, now.Add(-time.Minute)))
	require.ErrorContains(t, err, "expired")
	_, _, err = s.dial(s.client(t, "stranger", certtest.New(t, "other"), now.Add(time.Minute)))
	require.Error(t, err)
	old := s.client(t, "", nil, time.Time{})
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, _, err = s.dial(old)
	require.ErrorContains(t, err, "protocol version")
	require.Len(t, s.failures(), 3)

	// A certificate that expires while its connection is open.
	mu.Lock()
	now = now.Add(2 * time.Minute)
	mu.Unlock()
	line, err = ask(c)
	require.NoError(t, err)
	require.Contains(t, line, "it has expired at")
}

// TestCertificateThatDoesNotCountYet has a server be given one that counts from some time on: the
// one before goes on until then, and that one is used from then on though its file has not changed.
func TestCertificateThatDoesNotCountYet(t *testing.T) {
	var now atomic.Pointer[time.Time]
	at := func(d time.Duration) { now.Store(new(time.Now().Add(d))) }
	at(0)
	s := newSite(t, func() time.Time { return *now.Load() })
	_, before := s.certificates.Validity()

	at(-3 * time.Hour) // certificates of tests count from two hours ago
	cert, key := s.authority.Sign(t, "server", time.Now().Add(2*time.Hour))
	require.NoError(t, os.WriteFile(s.options.Cert, cert, 0o600))
	require.NoError(t, os.WriteFile(s.options.Key, key, 0o600))
	require.ErrorContains(t, s.certificates.Files().Look(), "the certificate counts only from")
	require.NoError(t, s.certificates.Files().Look(), "it is told once")
	_, until := s.certificates.Validity()
	require.Equal(t, before, until)
	_, err := secure.Open(s.options)
	require.ErrorContains(t, err, "the certificate counts only from")

	at(0)
	require.NoError(t, s.certificates.Files().Look())
	_, until = s.certificates.Validity()
	require.True(t, until.After(before))
}

func TestCertificatesAreReadAgain(t *testing.T) {
	s := newSite(t, nil)
	open, _, err := s.dial(s.client(t, "ranker", s.authority, time.Now().Add(time.Hour)))
	require.NoError(t, err)
	defer open.Close()

	require.NoError(t, os.WriteFile(s.options.Key, []byte("no key"), 0o600))
	require.ErrorContains(t, s.certificates.Files().Look(), s.options.Cert)
	c, _, err := s.dial(s.client(t, "", nil, time.Time{}))
	require.NoError(t, err, "what was read before stays in use")
	require.NoError(t, c.Close())
	cert, key := s.authority.Sign(t, "server", time.Now().Add(-time.Second))
	require.NoError(t, os.WriteFile(s.options.Cert, cert, 0o600))
	require.NoError(t, os.WriteFile(s.options.Key, key, 0o600))
	require.ErrorContains(t, s.certificates.Files().Look(), "the certificate has expired")

	before := s.authority
	s.authority = certtest.New(t, "two")
	s.authority.Write(t, filepath.Dir(s.options.Cert))
	require.NoError(t, s.certificates.Files().Look())
	c, line, err := s.dial(s.client(t, "ranker", s.authority, time.Now().Add(time.Hour)))
	require.NoError(t, err)
	require.Equal(t, "spiffe://shop.example/ranker\n", line)
	require.NoError(t, c.Close())
	_, _, err = s.dial(s.client(t, "ranker", before, time.Now().Add(time.Hour)))
	require.Error(t, err, "the authority of before signs nobody any more")
	line, err = ask(open)
	require.NoError(t, err)
	require.Equal(t, "no authority of the server has signed it\n", line, "on a connection from before")
}

// TestSilentHandshakesTakeNoPlace opens connections that never say anything, to a server that
// computes one handshake at a time.
func TestSilentHandshakesTakeNoPlace(t *testing.T) {
	s := newSite(t, nil)
	for range 20 {
		c, err := net.Dial("tcp", s.address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.Write([]byte{22, 3, 1, 0}) // a record begins
		require.NoError(t, err)
	}
	c, _, err := s.dial(s.client(t, "", nil, time.Time{}))
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestClearTextIsTold(t *testing.T) {
	s := newSite(t, nil)
	var data []byte
	for range 100 { // on a busy machine there may be no time to say it
		c, err := net.Dial("tcp", s.address)
		require.NoError(t, err)
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n")
		require.NoError(t, err)
		data, _ = io.ReadAll(c)
		require.NoError(t, c.Close())
		if len(data) > 0 {
			break
		}
	}
	require.Contains(t, string(data), "the server speaks TLS")
	require.NotContains(t, s.failures()[0], "secret")
}

// TestCloseDoesNotWait closes a connection whose client reads nothing.
func TestCloseDoesNotWait(t *testing.T) {
	a := certtest.New(t, "one")
	dir := t.TempDir()
	o := secure.Options{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	a.Write(t, dir)
	certificates, err := secure.Open(o)
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe() // what is written waits until it is read
		defer theirs.Close()
		l := certificates.Listener(once{conn: ours}, 1, func(string) {})
		c, err := l.Accept()
		require.NoError(t, err)
		var dialling sync.WaitGroup
		dialling.Go(func() {
			client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
			if _, err := ask(client); err != nil {
				t.Error(err)
			}
		})
		_, err = bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		_, err = io.WriteString(c, "you\n")
		require.NoError(t, err)
		dialling.Wait()
		start := time.Now()
		_ = c.Close()
		require.Less(t, time.Since(start), time.Second)
	})
}

// once is a listener of one connection.
type once struct {
	net.Listener
	conn net.Conn
}

// Accept implements [net.Listener].
func (o once) Accept() (net.Conn, error) { return o.conn, nil }
