// Package adminhttp is the listener for those who operate a server: metrics, profiles, probes, the
// console and the documentation, apart from what callers reach.
//
// It is bounded, since whoever reaches it may be anyone on the machine, and it begins before
// the server loads anything and ends after all else, so that a server that is stuck can be
// looked at.
package adminhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/console"
	"github.com/tandem-ann/tandem/server/manual"
	"github.com/tandem-ann/tandem/server/secure"
)

// Options say where to listen, and who may ask.
type Options struct {
	// Listen is the address to listen on, HOST:PORT. Port 0 takes a free one.
	Listen string
	// Protect returns what lets only those through to a handler who may; it is for profiles
	// and all that is added later. Nil lets everybody through, which a loopback address is
	// for.
	Protect func(http.Handler) http.Handler
	// ProtectDocs is what Protect is, for the documentation. Nil: Protect.
	ProtectDocs func(http.Handler) http.Handler
	// ProtectMetrics is Protect for metrics, which nil leaves open wherever it listens.
	ProtectMetrics func(http.Handler) http.Handler
	// Insecure accepts an address that others than this machine reach, without Protect.
	Insecure bool
	// TLS has connections speak TLS, nothing in clear text. Default: clear text.
	TLS *secure.Certificates
	// Failed, if set, is told of handshakes of TLS that fail, by any number of goroutines.
	Failed func(text string)
	// Refused, if set, is told of requests that a guard refuses (see [auth.WithRefusals]), and of
	// those by another name than one of this machine, likewise.
	Refused func(r *http.Request, caller string, denied *auth.DeniedError)
	// Listener is used instead of Listen if it is set, and must be on that address. Start takes
	// ownership of it.
	Listener net.Listener
	// Listening, if set, is called once it listens.
	Listening func(net.Addr)
}

// Check returns an error if the address is not one to listen on: one that others than this
// machine reach needs Protect, or Insecure. Probes say little, and profiles much.
func (o *Options) Check() error { return CheckAddress(o.Listen, o.Protect != nil || o.Insecure) }

// CheckAddress is what Check says of an address, and of whether one is accepted that others than
// this machine reach.
func CheckAddress(listen string, beyond bool) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin address %.100q: want HOST:PORT: %w", listen, err)
	}
	if isLoopback(host) || beyond {
		return nil
	}
	return fmt.Errorf("admin address %.100q is reached by other machines, and whoever reaches it may take profiles; want 127.0.0.1:PORT, [::1]:PORT or localhost:PORT", listen)
}

// isLoopback reports whether a host is this machine, and no other reaches it.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Handlers are what is served.
type Handlers struct {
	Metrics http.Handler // GET /metrics
	// Alive, Ready and Started are the probes: GET /healthz, /readyz and /startupz. They are
	// open to everybody.
	Alive, Ready, Started http.HandlerFunc
	// Console is what is under [console.Path]; nil for none. It says itself who may do what, and
	// / leads to it.
	Console http.Handler
}

const (
	maxConnections = 128
	// shortestStay is how long a connection may stay that has said nothing, however many others
	// come: a header comes sooner. So 128 connections in 50 ms are accepted at least.
	shortestStay      = 50 * time.Millisecond
	maxHandshakes     = 1 // that are computed at a time
	maxHeaderBytes    = 16 << 10
	maxBodyBytes      = 64 << 10 // of the names that symbols are asked for
	readHeaderTimeout = 2 * time.Second
	readTimeout       = 10 * time.Second
	idleTimeout       = 30 * time.Second
	// writeTimeout is longer than any profile.
	writeTimeout = MaxProfile + 30*time.Second
)

// Server is one that listens. Its methods may be called from any number of goroutines.
type Server struct {
	http   *http.Server
	served chan error
}

// Start listens, and serves until Close.
func Start(o Options, h Handlers) (*Server, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	l := o.Listener
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", o.Listen); err != nil {
			return nil, fmt.Errorf("listen for admin: %w", err)
		}
	}
	s := &Server{served: make(chan error, 1), http: &http.Server{
		Handler:           newHandler(&o, &h),
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       log.New(io.Discard, "", 0), // of who breaks HTTP, whoever that is
	}}
	lower := l
	if o.TLS != nil {
		failed := o.Failed
		if failed == nil {
			failed = func(string) {}
		}
		// HTTP/2 would have many requests on each of the connections.
		lower = o.TLS.Listener(l, maxHandshakes, failed, "http/1.1")
		s.http.ConnContext = withPeer
	}
	bounded := newCrowd(lower, maxConnections, shortestStay)
	s.http.ConnState = bounded.changed
	go func() { s.served <- s.http.Serve(bounded) }()
	if o.Listening != nil {
		o.Listening(l.Addr())
	}
	return s, nil
}

// withPeer makes the other end of a connection by TLS known to the handlers of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if m, ok := c.(*member); ok {
		if peer, ok := m.Conn.(auth.Peer); ok {
			return auth.WithPeer(ctx, peer)
		}
	}
	return ctx
}

// Close ends it: what is asked has timeout to end, and is cut off then. The error says that
// it had ended before, and why.
func (s *Server) Close(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_ = s.http.Shutdown(ctx)
	err := <-s.served  // nothing is accepted from then on
	_ = s.http.Close() // it closes connections, whatever becomes of them
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin: %w", err)
	}
	return nil
}

func newHandler(o *Options, h *Handlers) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", guarded(o.ProtectMetrics, h.Metrics))
	mux.Handle("/debug/pprof/", guarded(o.Protect, profiles()))
	protectDocs := o.ProtectDocs
	if protectDocs == nil {
		protectDocs = o.Protect
	}
	mux.Handle(manual.Path, guarded(protectDocs, manual.New()))
	mux.HandleFunc("GET /healthz", h.Alive)
	mux.HandleFunc("GET /readyz", h.Ready)
	mux.HandleFunc("GET /startupz", h.Started)
	if h.Console != nil {
		mux.Handle(console.Path, h.Console)
		mux.Handle("GET /{$}", http.RedirectHandler(console.Path, http.StatusSeeOther))
	}
	out := http.MaxBytesHandler(mux, maxBodyBytes)
	if o.Refused != nil {
		out = telling(o.Refused, out)
	}
	if host, _, err := net.SplitHostPort(o.Listen); err == nil && isLoopback(host) && o.Protect == nil {
		return sameMachine(o.Refused, out)
	}
	return out
}

// telling has guards tell of requests that they refuse.
func telling(refused func(*http.Request, string, *auth.DeniedError), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(auth.WithRefusals(r.Context(), refused)))
	})
}

func guarded(by func(http.Handler) http.Handler, h http.Handler) http.Handler {
	if by == nil {
		return h
	}
	return by(h)
}

// sameMachine refuses what is asked by another name than one of this machine: a web page that
// is open in a browser here could have its own name lead here, and read the answers.
func sameMachine(refused func(*http.Request, string, *auth.DeniedError), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if denied := auth.CheckOwnHost(r.Host); denied != nil {
			if refused != nil {
				refused(r, "", denied)
			}
			http.Error(w, denied.Error(), denied.Status())
			return
		}
		next.ServeHTTP(w, r)
	})
}
