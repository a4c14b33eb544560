package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
)

// Config says what to serve, and where.
type Config struct {
	// Store has the snapshots.
	Store *shard.Store
	// Snapshot is what [shard.Store.Resolve] takes: a digest or its beginning. It is
	// served whatever is released, whatever its gates have found, for as long as the server
	// runs; the log and GetStatus say so. Empty: the newest release, and those that follow.
	Snapshot string
	// Keep is how long a snapshot stays mapped once it no longer answers, so that a
	// rollback to it is instant. Default: DefaultKeep.
	Keep time.Duration
	// MaxStaleness is how old the knowledge of the releases may be, the age of the last
	// proof that the log ends where it was read to, for the server to be ready; it answers
	// queries all the same. Default: 0, any age, since what it serves is right until
	// something else is released.
	MaxStaleness time.Duration
	// MemoryLimit is how many bytes of snapshots may be mapped: a release that would
	// take more, beside what answers, is refused, and so is a snapshot that is served
	// without one. Default: four fifths of the machine's memory, or of the least that a
	// control group allows that the process is in; none where neither is known.
	MemoryLimit int64
	// Listen is the address to listen on, HOST:PORT. Port 0 takes a free one.
	Listen string
	// Listener is used instead of Listen if it is set. Run takes ownership of it.
	Listener net.Listener
	// Options bound the requests.
	Options Options
	// MaxConnections is how many connections are open at a time. One more takes the place
	// of the one that has been idle for longest. Default: DefaultMaxConnections.
	MaxConnections int
	// DrainDelay is how long the server goes on as before once it is told to stop, but for
	// readiness, which fails at once: as long as callers take to notice. Default: 0.
	DrainDelay time.Duration
	// DrainTimeout is how long requests may take to end after that. Default:
	// DefaultDrainTimeout.
	DrainTimeout time.Duration
	// RecordShare is the share of the requests, 0 to 1, that are recorded into the
	// store with their answers, for replay. Default: 0, none.
	RecordShare float64
	// Logger is told the events of the server's life at info level. Default:
	// slog.Default().
	Logger *slog.Logger
	// Listening, if set, is called when health can be asked.
	Listening func(net.Addr)
	// Ready, if set, is called when queries are answered, with the snapshot of the first
	// arm. It must not keep the snapshot.
	Ready func(*shard.Snapshot)
}

// DefaultDrainTimeout is how long requests may take to end by default.
const DefaultDrainTimeout = 15 * time.Second

// DefaultMaxConnections is how many connections are open at a time by default.
const DefaultMaxConnections = 4096

const (
	// maxHeaderBytes has room for a query sent by GET, which has the message in
	// the URL: a vector of 4096 numbers is 22 KiB in base64.
	maxHeaderBytes    = 128 << 10
	readHeaderTimeout = 10 * time.Second
	// idleTimeout is also how long net/http holds all that a connection of HTTP/2 had
	// after it is closed with requests under way: it starts the timer anew then.
	idleTimeout = 30 * time.Second

	// What one connection of HTTP/2 may have at a time: requests, and bytes that have
	// arrived and were not read yet. The largest frame is kept for as long as it is open.
	maxStreams      = 100
	connectionBytes = 1 << 20
	streamBytes     = 256 << 10
	frameBytes      = 64 << 10

	// leaveTime is how long before it takes no more requests a connection of HTTP/2 is
	// told so, if DrainDelay allows: longer than a request is under way.
	leaveTime = time.Second
)

// Run serves what is released until ctx ends. It listens first, then opens, verifies
// and warms the snapshots of the newest release, and only then is ready. From then on
// it follows the releases: it loads what a new one needs beside what answers, and
// switches between two queries. What it cannot load leaves what answers as it is, is
// logged, shown by GetStatus and tried again.
//
// It follows one log: a release that was not appended to the one that it has read last is
// not loaded, and a log that ends before that one or lacks an entry is shown and logged,
// until a person accepts it with a later release. A server that starts has read nothing
// yet, and takes the log as it is.
//
// When ctx ends it stops being ready, goes on for the time of DrainDelay, lets the requests
// in flight end, and closes all snapshots. A caller that sends no more once it is not ready
// loses no request. It returns nil if all of that went well, else an error that says what did
// not. Where nothing was released, and no snapshot is named, the error is of class
// [release.ErrNone]: what nobody has released is not served. If the snapshot that is named
// cannot be opened it says which file and section that is.
//
// After a burst it gives memory back to the machine, and for that sets [runtime.GOMAXPROCS]
// to what it is: from then on Go does not adapt it to the machine by itself.
func Run(ctx context.Context, c Config) error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.Keep <= 0 {
		c.Keep = DefaultKeep
	}
	if c.MaxConnections <= 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.Listener == nil {
		var err error
		if c.Listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	prepareGoroutines(min(c.MaxConnections, DefaultMaxConnections))
	service := NewService(c.Logger)
	listener := newListener(unreadListener{c.Listener, service}, c.MaxConnections, c.Options.withDefaults().Processors, c.Logger)
	if c.RecordShare > 0 {
		service.recorder = startRecorder(c.RecordShare, c.Store.Objects(), c.Logger, defaultRecorderOptions())
		defer service.recorder.close() // once the requests have ended
	}
	handler, limits := newHandler(service, c.Options)
	h := newHTTPServer(handler, &service.connections)
	h.RegisterOnShutdown(service.EndStreams)
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return withConn(withUnread(ctx, c), c) }
	h.ConnState = func(c net.Conn, state http.ConnState) {
		if unread := unreadOf(c); unread != nil && state == http.StateIdle {
			unread.forget()
		}
		listener.changed(c, state)
	}
	running, cancel := context.WithCancel(ctx)
	var aside sync.WaitGroup
	aside.Go(func() { giveBack(running, limits.buffers) })
	aside.Go(func() { service.tellOfLeftOut(running) })
	defer aside.Wait()
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- h.Serve(listener)
	}()
	c.Logger.Info("listening", "address", listener.Addr().String())
	if c.Listening != nil {
		c.Listening(listener.Addr())
	}

	limitMemory(&c, os.DirFS("/"))
	err := follow(running, service, &c)
	if running.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // stopped while it loaded
	}
	if ctx.Err() == nil {
		c.DrainDelay = 0 // it serves no more, or nothing
	}
	err = errors.Join(err, drain(service, h, listener, &c))
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	return err
}

// limitMemory sets the limit that was left out, by the files of root, and logs which it
// is.
func limitMemory(c *Config, root fs.FS) {
	if c.MemoryLimit > 0 {
		c.Logger.Info("memory limit", "bytes", c.MemoryLimit, "from", "the configuration")
		return
	}
	memory, err := memoryOf(root)
	if err != nil {
		c.Logger.Warn("memory limit is not known for sure", "error", err)
	}
	if c.MemoryLimit = memory.share(); c.MemoryLimit == math.MaxInt64 {
		c.Logger.Warn("no memory limit", "from", memory.from)
		return
	}
	c.Logger.Info("memory limit", "bytes", c.MemoryLimit, "of", memory.bytes, "from", memory.from)
}

func newHTTPServer(h http.Handler, errors io.Writer) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(errors, "", 0),
		// net/http would answer OPTIONS * itself, without a name.
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
	}
	s.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxReadFrameSize: frameBytes,
		MaxReceiveBufferPerConnection: connectionBytes, MaxReceiveBufferPerStream: streamBytes,
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// follow loads what is to answer, and follows the releases, until ctx ends.
func follow(ctx context.Context, service *Service, c *Config) error {
	f := newFollower(service, c)
	if c.Snapshot != "" {
		return serveOne(ctx, service, c, f)
	}
	asked := time.Now()
	// One that cannot be read is passed over, as it is by a server that runs. Where no
	// other was released, what may be served is unknown; and where none was at all, nothing
	// may.
	first, unreadable, err := f.releases.Newest(ctx)
	if errors.Is(err, release.ErrNone) && unreadable != nil {
		err = unreadable
	}
	if err != nil {
		return fmt.Errorf("read releases: %w", err)
	}
	service.staleness.begin(asked, c.MaxStaleness)
	f.run(ctx, first)
	return nil
}

// serveOne serves the snapshot that is named, until ctx ends.
func serveOne(ctx context.Context, service *Service, c *Config, f *follower) error {
	digest, err := c.Store.Resolve(ctx, c.Snapshot)
	if err != nil {
		return fmt.Errorf("load snapshot: %w", err)
	}
	defer protect(ctx, c, digest)()
	c.Logger.Warn("SERVING A SNAPSHOT WHATEVER IS RELEASED: nobody asks what its gates have found, and no release takes its place",
		"snapshot", digest.Short())
	if err := load(ctx, service, c, digest); err != nil {
		return err
	}
	f.adopt(service.current.Load().arms[0].serving)
	<-ctx.Done()
	f.closeAll()
	return nil
}

// protect keeps a snapshot from being collected that no release does, until end is called.
// A server that may only read cannot.
func protect(ctx context.Context, c *Config, d shard.Digest) (end func()) {
	protection, err := c.Store.TryProtect(ctx, d)
	if err != nil {
		c.Logger.Warn("what is served may be collected", "snapshot", d.Short(), "error", err)
		return func() {}
	}
	return func() { _ = protection.End(ctx) } // it lapses by itself, too
}

// load opens a snapshot, if it fits, and gives it to the service without a release.
func load(ctx context.Context, service *Service, c *Config, digest shard.Digest) error {
	start := time.Now()
	m, err := c.Store.Manifest(ctx, digest)
	if err != nil {
		return fmt.Errorf("load snapshot %s: %w", digest.Short(), err)
	}
	if size := bytesOf(m); size > c.MemoryLimit {
		return fmt.Errorf("load snapshot %s: not admitted: it takes %d bytes, and %d may be mapped", digest.Short(), size, c.MemoryLimit)
	}
	snapshot, err := openWarm(ctx, c.Store, digest)
	if err != nil {
		return fmt.Errorf("load snapshot %s: %w", digest.Short(), err)
	}
	service.Serve(snapshot)
	c.Logger.Info("ready", "model", m.Model, "model_version", m.ModelVersion, "snapshot", digest.Short(),
		"apps", m.Apps.Rows, "app_shards", len(m.Apps.Shards), "users", m.Users.Rows, "user_shards", len(m.Users.Shards),
		"load_time", time.Since(start).Round(time.Microsecond))
	if c.Ready != nil {
		c.Ready(snapshot)
	}
	return nil
}

// drain stops the server and closes what answers, whatever happens not before the last
// request on it has ended.
func drain(service *Service, h *http.Server, l *listener, c *Config) error {
	c.Logger.Info("draining", "delay", c.DrainDelay, "timeout", c.DrainTimeout)
	service.Drain()
	last := min(leaveTime, c.DrainDelay/2)
	time.Sleep(c.DrainDelay - last)
	if last > 0 {
		l.leave()
		time.Sleep(last)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.DrainTimeout)
	defer cancel()
	err := h.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("drain: requests in flight were cut off after %s", c.DrainTimeout)
	}
	if err != nil {
		err = errors.Join(err, h.Close())
	}
	l.leaves.Wait()
	service.Close()
	return err
}
