package server

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/netutil"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// Holding says what a node is among the nodes of a cluster.
type Holding struct {
	Name, Zone string // the name until Watch tells another one
	// Replicas is how many nodes are to hold each shard, and Holds whether another holds one. See
	// [node.Config].
	Replicas int
	Holds    func(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool
	// StoreID is the id of the store; empty if it has none.
	StoreID string
	// Hearing and Grace are as in [node.Config].
	Hearing, Grace time.Duration
	// Watch tells which nodes there are, and which of their names this node has, whenever that
	// changes, until ctx ends.
	// If who lists them cannot be asked, or something is wrong with that, failed is called with
	// why, and with nil whenever all is well.
	Watch func(ctx context.Context, told func(name string, list []placement.Member), failed func(error))
}

// nodeStreams is how many requests a router may have under way on its connection.
const nodeStreams = 1024

// RunNode holds shards for routers until ctx ends: it listens for the shard RPC, and for nothing
// else but probes. Of the configuration, what is about queries of callers has no meaning for it.
// It is ready once all that it is to hold is. When ctx ends it says that it stops, goes on for
// the time of DrainDelay, in which routers turn to others, and lets the requests in flight end.
// Errors are as of [Run].
func RunNode(ctx context.Context, c Config, h Holding) (err error) {
	c.setDefaults()
	if c.Listener == nil {
		if c.Listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	service := NewService(c.Logger, c.Events...) // for events, probes and metrics
	service.certificates = c.TLS
	endAdmin, err := service.startAdmin(&c, nil)
	if err != nil {
		return errors.Join(err, c.Listener.Close())
	}
	defer func() { err = errors.Join(err, endAdmin()) }()
	service.events.MemoryLimit(limitMemory(&c, os.DirFS("/")))
	n, err := node.New(node.Config{
		Store: c.Store, Name: h.Name, Zone: h.Zone, MemoryLimit: c.MemoryLimit, Factor: h.Replicas, StoreID: h.StoreID, Holds: h.Holds, Keep: c.Keep, Hearing: h.Hearing, Grace: h.Grace,
		Memory: c.Memory, Events: service.events, Live: livelog.Options{
			Fence: c.Live.Fence, Poll: c.Live.Poll, Memory: c.Live.Memory, Accept: c.Live.Accept,
			Room:    live.Room{Rows: c.Live.MaxFreshRows, Bytes: c.Live.MaxFreshBytes},
			Reached: c.Live.AtLeast, ReachedFrom: c.Live.AtLeastFrom,
		},
	})
	if err != nil {
		return errors.Join(err, c.Listener.Close())
	}
	service.holds = n
	if c.Metrics != nil {
		c.Metrics.Follow(func() metrics.State { return service.measure(nil, nil) })
	}
	if c.Audit.CPU > 0 {
		service.scans = audit.NewScans(audit.Config{CPU: min(c.Audit.CPU, 1)})
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var aside sync.WaitGroup
	defer aside.Wait()
	defer cancel()
	aside.Go(func() { service.rereadSecrets(running, &c) })
	aside.Go(func() { service.scans.Run(running) })
	aside.Go(func() { h.Watch(running, n.MembersAs, service.membersFailed()) })
	aside.Go(func() { service.followPhase(running, n) })
	s, rpc := service.nodeServer(n, &c)
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- s.Serve(service.nodeListener(&c))
	}()
	service.events.Listening(c.Listener.Addr())
	if c.Listening != nil {
		c.Listening(c.Listener.Addr())
	}
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	held := make(chan error, 1)
	go func() {
		defer cancel()
		held <- n.Run(holding)
	}()
	<-running.Done()
	if ctx.Err() == nil {
		c.DrainDelay = 0 // it holds no more
	}
	service.events.Draining(events.Draining{Delay: c.DrainDelay, Timeout: c.DrainTimeout})
	service.Drain()
	n.Drain()
	time.Sleep(c.DrainDelay)
	ending, end := context.WithTimeout(context.Background(), c.DrainTimeout)
	defer end()
	if err = errors.Join(rpc.Shutdown(ending), s.Shutdown(ending)); errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(fmt.Errorf("drain: requests in flight were cut off after %s", c.DrainTimeout), s.Close())
	}
	stop()
	err = errors.Join(err, <-held)
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	service.Close()
	return err
}

// nodeListener returns what accepts the connections of routers.
func (s *Service) nodeListener(c *Config) net.Listener {
	l := netutil.LimitListener(c.Listener, c.MaxConnections)
	if c.TLS != nil {
		l = c.TLS.Listener(l, handshakesFor(c.Options.withDefaults().Processors), s.events.ConnectionFailed)
	}
	return routerListener{l}
}

// routerListener accepts connections whose TLS package http does not see: it would negotiate
// itself then, and not take HTTP/2 from what is in clear text to it.
type routerListener struct{ net.Listener }

// Accept implements [net.Listener].
func (l routerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return routerConn{c}, nil
}

type routerConn struct{ net.Conn }

// withRouter makes the other end of a connection by TLS known to the handlers of its requests.
func withRouter(ctx context.Context, c net.Conn) context.Context {
	if peer, ok := c.(routerConn).Conn.(auth.Peer); ok {
		return auth.WithPeer(ctx, peer)
	}
	return ctx
}

// nodeServer returns what answers the shard RPC, of which a server does not know all connections.
func (s *Service) nodeServer(n *node.Node, c *Config) (*http.Server, *remote.Handler) {
	guard := c.Options.Guard
	telling := func(r *http.Request) *http.Request {
		return r.WithContext(auth.WithRefusals(r.Context(), s.adminRefused))
	}
	path, rpc := remote.NewHandler(n, remote.Options{
		Audits: s.scans, Panicked: s.panicked, Unreadable: n.Unreadable,
		Allowed: func(r *http.Request) error { return notAllowed(guard.Admit(telling(r), auth.Internal)) },
	})
	refuse := connect.NewErrorWriter()
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		r = telling(r)
		if denied := guard.Admit(r, auth.Internal); denied != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			_ = refuse.Write(w, r, notAllowed(denied)) // who does not read it has gone
			return
		}
		rpc.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET "+healthPath, alive)
	mux.HandleFunc("GET "+readyPath, s.health.readiness)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: 2 * idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: log.New(connectionLog{s.events}, "", 0), ConnContext: withRouter, HTTP2: remote.HTTP2(nodeStreams), Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true) // for lines, and probes
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server, rpc
}

// notAllowed returns the error of a call whose caller may not make it any more.
func notAllowed(denied *auth.DeniedError) error {
	switch {
	case denied == nil:
		return nil
	case denied.Denial == auth.NoScope:
		return connect.NewError(connect.CodePermissionDenied, denied)
	}
	return connect.NewError(connect.CodeUnauthenticated, denied)
}

// panicked tells of a bug.
func (s *Service) panicked(p *shard.PanicError) {
	s.events.ConnectionFailed(p.Error())
}

// followPhase has probes say what the node says of itself, until ctx ends.
func (s *Service) followPhase(ctx context.Context, n *node.Node) {
	for {
		status, changed := n.Status()
		if status.GetPhase() == shardv1.NodePhase_NODE_PHASE_READY {
			s.health.set(phaseReady)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
