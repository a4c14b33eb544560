package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/secure"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/rowlog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Config says what to serve, and where.
type Config struct {
	// Store has the snapshots.
	Store *snapshots.Store
	// Snapshot is what [snapshots.Store.Resolve] takes: a digest or its beginning. It is
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
	// TLS has connections speak TLS, with certificates that are read again when they change.
	// Default: they speak clear text.
	TLS *secure.Certificates
	// Reread, if set, has the files of tokens and certificates looked at whenever something
	// comes from it; that is done every few seconds anyway.
	Reread <-chan os.Signal
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
	// Live says how the live log of the store is followed.
	Live Live
	// Memory is where the server remembers durably which release it has served last: a store
	// whose log of releases is behind that, or is another one, is not served (the error is
	// of class [release.ErrTimeTravel]) unless Live.Accept is where the live log ends, or a
	// person has accepted it. Empty: it remembers nothing.
	Memory appendlog.Memory
	// ReleaseWrites has ReleaseService take changes of what is released. Where there is no guard
	// they are not authenticated: it is for listeners that only those reach who may release.
	ReleaseWrites bool
	// Compare is what DiffSnapshots tells of two snapshots. Default: it tells nothing.
	Compare Compare
	// Cluster has the server be a router: it answers with shards that nodes hold, and maps none
	// itself. Default: nil, shards are of this process.
	Cluster *Cluster
	// Audit says how the recall of live queries is audited.
	Audit Audit
	// Outcomes says whether FeedbackService takes outcomes.
	Outcomes Outcomes
	// RecordShare is the share of the requests, 0 to 1, that are recorded into the
	// store with their answers, for replay. Default: 0, none.
	RecordShare float64
	// RecordOnce has a request recorded, beside that share, for each user, experiment and
	// generation at least: the first, and now and then one more. Default: none.
	RecordOnce bool
	// RecordNext is how many of the candidates that would come after an answer are recorded with
	// it, up to [querylog.MaxNext]. Each takes another search. Default: 0, none.
	RecordNext int
	// HashUsers has ids of users be hashed in what is recorded, and in outcomes; requests for users
	// are not recorded then. The store is to note it, see [rowlog.NoteUserHash]. Nil: they are
	// written as they are.
	HashUsers *rowlog.UserHash
	// LogIDs has the log tell the texts of errors that name what callers have sent: vectors,
	// values, ids of users. Default: their reasons and fields only.
	LogIDs bool
	// LogSlow has the log tell how queries were answered that take longer once they were
	// admitted; of some of them, if they are many. Default: 0, none.
	LogSlow time.Duration
	// Logger is where events go as [events.Log] writes them. Default: slog.Default().
	Logger *slog.Logger
	// Events are others who are told of events.
	Events []*events.Listener
	// Admin is the listener for those who operate the server: metrics, profiles and probes. It
	// listens before anything is loaded, and ends last. It speaks TLS if the server does, and
	// where there is a guard its profiles need the scope admin, unless it says otherwise itself.
	// Default: nil, none.
	Admin *adminhttp.Options
	// Console has Admin show the console too, whose procedures are those of the server, to whoever
	// may call them there. Default: nil, there is none.
	Console *Console
	// Traces say which requests are traced, and where traces go. Default: nil, none are.
	Traces *traces.Options
	// Metrics are what the server counts into and shows. Default: new ones if there is an
	// Admin, else none.
	Metrics *metrics.Metrics
	// Listening, if set, is called when health can be asked.
	Listening func(net.Addr)
	// clock is what windows are judged by, where that is not time.Now.
	clock func() time.Time
	// Ready, if set, is called when queries are answered, with the snapshot of the first
	// arm. It must not keep the snapshot.
	Ready func(Snapshot)
}

// Console says how the console is reached.
type Console struct {
	// Hosts are names by which browsers may ask for it, beside localhost and IP addresses: any
	// other may be that of a page which leads here to read what is not its own.
	Hosts []string
}

// Live says how a server follows the live log of its store, and whether it writes to it. A zero
// field means its default.
type Live struct {
	// Fence is how old the last proof may be that the log ends where it is read to: beyond
	// it queries are refused, since an app may be taken down that the server does not know
	// of. Default: DefaultFence.
	Fence time.Duration
	// AnswerStale has queries answered beyond the fence all the same, and flagged.
	AnswerStale bool
	// Writes has LiveService take writes. They are not authenticated: it is for listeners
	// that only those reach who may write.
	Writes bool
	// Poll is how long the server waits between two looks at the log. Default: as package
	// live has it for the store.
	Poll time.Duration
	// Memory is where the server remembers durably how far it has read the log: a store
	// whose log is behind that, or is another one, is not served (the error is of class
	// [live.ErrTimeTravel]). Empty: it remembers nothing.
	Memory appendlog.Memory
	// AtLeast is a position that the log must have reached, and AtLeastFrom by what that is
	// known. What the store's releases and snapshots say counts too.
	AtLeast     shard.Position
	AtLeastFrom string
	// Accept has a log followed that is behind what was read before, or another one, if it
	// ends at this position: a person says that it is the one that counts. Nil accepts none.
	Accept *shard.Position
	// MaxFreshRows is how many rows of a tower of a model version may be upserted, and
	// MaxFreshBytes how many bytes all of them may have: more is refused. Defaults: those of
	// package live.
	MaxFreshRows  int
	MaxFreshBytes int64
}

// DefaultFence is the fence by default.
const DefaultFence = 5 * time.Second

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

// Run serves what is released until ctx ends. It listens first, then reads the live log of the
// store, then opens, verifies and warms the snapshots of the newest release, lays over them what
// the log has, and only then is ready. From then on
// it follows the releases: it loads what a new one needs beside what answers, and
// switches between two queries. What it cannot load leaves what answers as it is, is
// logged, shown by GetStatus and tried again.
//
// It follows one log: a release that was not appended to the one that it has read last is
// not loaded, and a log that ends before that one or lacks an entry is shown and logged,
// until a person accepts it with a later release. A server that starts has read nothing
// yet, and takes the log as it is.
//
// It follows the live log too, whatever it serves, and refuses queries beyond the fence. A live
// log that cannot be read keeps it from being ready; one that is behind what it remembers, or
// another one, is an error of class [live.ErrTimeTravel].
//
// When ctx ends it stops being ready, goes on for the time of DrainDelay, lets the requests
// in flight end, and closes all snapshots. A caller that sends no more once it is not ready
// loses no request. It returns nil if all of that went well, else an error that says what did
// not. Where nothing was released, and no snapshot is named, the error is of class
// [release.ErrNone]: what nobody has released is not served. If the snapshot that is named
// cannot be opened it says which file and section that is.
//
// After a burst it gives memory back to the machine, and for that sets [runtime.GOMAXPROCS]
// to what it is: from then on Go does not adapt it to the machine by itself. Unless there is
// one already, such as that of GOMEMLIMIT, it sets a memory limit for Go by what requests may
// take (see [debug.SetMemoryLimit]), and takes it away at its end.
func Run(ctx context.Context, c Config) (err error) {
	c.setDefaults()
	if c.Listener == nil {
		if c.Listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	prepareGoroutines(min(c.MaxConnections, DefaultMaxConnections))
	service := NewService(c.Logger, c.Events...)
	service.log.IDs, service.log.Slow = c.LogIDs, c.LogSlow
	service.measured, service.certificates = c.Metrics != nil, c.TLS
	handler, limits := newHandler(service, c.Options)
	endAdmin, err := service.startAdmin(&c, handler)
	if err != nil {
		return errors.Join(err, c.Listener.Close())
	}
	defer func() { err = errors.Join(err, endAdmin()) }()
	endTraces, err := service.startTraces(&c)
	if err != nil {
		return errors.Join(err, c.Listener.Close())
	}
	defer func() { err = errors.Join(err, endTraces()) }() // once the requests have ended
	if c.clock != nil {
		service.clock = c.clock
	}
	processors := c.Options.withDefaults().Processors
	lower := c.Listener
	if c.TLS != nil {
		lower = c.TLS.Listener(lower, handshakesFor(processors), service.events.ConnectionFailed)
	}
	listener := newListener(unreadListener{lower, service}, c.MaxConnections, processors, service.events)
	service.route(&c)
	service.followLive(&c)
	service.desk.releases, service.desk.writes, service.desk.compare = release.New(c.Store), c.ReleaseWrites, c.Compare
	if c.RecordShare > 0 || c.RecordOnce {
		o := defaultRecorderOptions()
		o.next, o.once, o.hash = c.RecordNext, c.RecordOnce, c.HashUsers
		if service.live != nil {
			o.forgotten = service.live.Forgotten
		}
		service.recorder = startRecorder(c.RecordShare, c.Store.Objects(), service.events, o)
		defer service.recorder.close() // once the requests have ended
	}
	defer service.startOutcomes(&c)() // what it returns, once the requests have ended
	audits := service.followRecall(&c)
	service.load = func() (*metrics.Load, *metrics.Connections) { return limits.measure(), listener.measure() }
	if c.Metrics != nil {
		c.Metrics.Follow(func() metrics.State { return service.measure(limits, listener) })
	}
	h := service.httpServer(handler, listener)
	running, cancel := context.WithCancel(ctx)
	var aside sync.WaitGroup
	aside.Go(func() { giveBack(running, limits.buffers, service.trim) })
	aside.Go(func() { limitHeap(running, limits.bytes.most) })
	aside.Go(func() { service.tellOfLeftOut(running) })
	aside.Go(func() { service.remember(running) })
	aside.Go(func() { service.rereadSecrets(running, &c) })
	aside.Go(func() { audits.Run(running) })
	endRouting := service.startRouting(&c)
	defer endRouting() // once the requests have ended
	defer aside.Wait()
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- h.Serve(listener)
	}()
	service.events.Listening(listener.Addr())
	if c.Listening != nil {
		c.Listening(listener.Addr())
	}

	service.events.MemoryLimit(limitMemory(&c, os.DirFS("/")))
	// It is followed until the last request has ended: without it they would be refused.
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	var liveLog sync.WaitGroup
	err = checkReleases(running, &c)
	if err == nil {
		err = service.live.Open(running)
	}
	if err == nil {
		liveLog.Go(func() { service.live.Run(following) })
		if err = service.live.Await(running); err == nil {
			err = follow(running, service, &c)
		}
	}
	if running.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // stopped while it loaded
	}
	if ctx.Err() == nil {
		c.DrainDelay = 0 // it serves no more, or nothing
	}
	err = errors.Join(err, drain(service, h, listener, &c))
	stopFollowing()
	liveLog.Wait()
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	return err
}

// setDefaults sets what is not given, and has what happens counted if that is shown.
func (c *Config) setDefaults() {
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
	if c.Admin != nil && c.Metrics == nil {
		c.Metrics = metrics.New()
	}
	if c.Metrics != nil {
		c.Events = append(slices.Clone(c.Events), c.Metrics.Listener())
	}
}

// httpServer returns what serves the connections of the listener.
func (s *Service) httpServer(handler http.Handler, l *listener) *http.Server {
	h := newHTTPServer(handler, connectionLog{s.events})
	h.RegisterOnShutdown(s.EndStreams)
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return withPeer(withConn(withUnread(ctx, c), c), c)
	}
	h.ConnState = func(c net.Conn, state http.ConnState) {
		if unread := unreadOf(c); unread != nil && state == http.StateIdle {
			unread.forget()
		}
		l.changed(c, state)
	}
	return h
}

// startTraces has requests traced, if they are to be, until end is called.
func (s *Service) startTraces(c *Config) (end func() error, err error) {
	if c.Traces == nil {
		return func() error { return nil }, nil
	}
	o := *c.Traces
	o.IDs = c.LogIDs
	if s.traces, err = traces.Start(o, s.events); err != nil {
		return nil, err
	}
	return s.traces.Stop, nil
}

// followLive has a service follow the live log of the store once that is opened.
func (s *Service) followLive(c *Config) {
	s.live = livelog.New(c.Store.Objects(), livelog.Options{
		Fence: cmp.Or(c.Live.Fence, DefaultFence), AnswerStale: c.Live.AnswerStale, Writes: c.Live.Writes,
		Poll: c.Live.Poll, Memory: c.Live.Memory, Accept: c.Live.Accept,
		Room: live.Room{Rows: c.Live.MaxFreshRows, Bytes: c.Live.MaxFreshBytes},
		AtLeast: func(ctx context.Context) (shard.Position, string, error) {
			known, err := release.New(c.Store).LiveBound(ctx)
			return known.Position, known.By, err
		},
		Reached: c.Live.AtLeast, ReachedFrom: c.Live.AtLeastFrom,
		Check: s.fits, Viewed: s.viewed(), Changed: s.health.changed, Events: s.events,
	})
	s.health.live = s.live
}

// limitMemory sets the limit that was left out, by the files of root, and says which it is.
func limitMemory(c *Config, root fs.FS) events.MemoryLimit {
	if c.MemoryLimit > 0 {
		return events.MemoryLimit{Bytes: c.MemoryLimit, From: "the configuration"}
	}
	memory, err := memoryOf(root)
	c.MemoryLimit = memory.share()
	return events.MemoryLimit{Bytes: c.MemoryLimit, Of: memory.bytes, From: memory.from, Err: err}
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
	first, err := newest(ctx, f.releases)
	if err != nil {
		return err
	}
	if err := recall(ctx, service, c, f.releases, first); err != nil {
		return err
	}
	service.staleness.begin(asked, c.MaxStaleness)
	f.run(ctx, first)
	return nil
}

// recall returns an error if the log of releases is not what it was, unless a person accepts it.
func recall(ctx context.Context, service *Service, c *Config, releases *release.Releases, first *release.Release) error {
	err := releases.Recall(ctx, c.Memory)
	if errors.Is(err, release.ErrTimeTravel) && c.Live.Accept != nil && *c.Live.Accept == service.live.Position() {
		err = first.Accept(ctx, c.Memory)
	}
	if err != nil {
		return fmt.Errorf("read releases: %w", err)
	}
	return nil
}

// newest returns the newest release. One that cannot be read is passed over, as it is by a
// server that runs. Where no other was released, what may be served is unknown; and where none
// was at all, nothing may.
func newest(ctx context.Context, releases *release.Releases) (*release.Release, error) {
	first, unreadable, err := releases.Newest(ctx)
	if errors.Is(err, release.ErrNone) && unreadable != nil {
		err = unreadable
	}
	if err != nil {
		return nil, fmt.Errorf("read releases: %w", err)
	}
	return first, nil
}

// checkReleases returns an error at once if there is no release to serve, rather than when the
// live log was read.
func checkReleases(ctx context.Context, c *Config) error {
	if c.Snapshot != "" {
		return nil
	}
	_, err := newest(ctx, release.New(c.Store))
	return err
}

// serveOne serves the snapshot that is named, until ctx ends.
func serveOne(ctx context.Context, service *Service, c *Config, f *follower) error {
	digest, err := c.Store.Resolve(ctx, c.Snapshot)
	if err != nil {
		return fmt.Errorf("load snapshot: %w", err)
	}
	defer protect(ctx, service, c, digest)()
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
func protect(ctx context.Context, service *Service, c *Config, d manifest.Digest) (end func()) {
	protection, err := c.Store.TryProtect(ctx, d)
	service.events.Unreleased(events.Unreleased{Snapshot: d, Unprotected: err})
	if err != nil {
		return func() {}
	}
	return func() { _ = protection.End(ctx) } // it lapses by itself, too
}

// load opens a snapshot, if it fits, and gives it to the service without a release.
func load(ctx context.Context, service *Service, c *Config, digest manifest.Digest) error {
	start := time.Now()
	m, err := c.Store.Manifest(ctx, digest)
	if err != nil {
		return fmt.Errorf("load snapshot %s: %w", digest.Short(), err)
	}
	if size := bytesOf(m); size > c.MemoryLimit {
		return fmt.Errorf("load snapshot %s: not admitted: it takes %d bytes, and %d may be mapped", digest.Short(), size, c.MemoryLimit)
	}
	own, err := service.openLaid(ctx, c.Store, events.Load{Snapshot: digest, Model: m.Model, ModelVersion: m.ModelVersion, Bytes: bytesOf(m)})
	if err != nil {
		return fmt.Errorf("load snapshot %s: %w", digest.Short(), err)
	}
	service.serve(own)
	service.events.Switched(events.Switch{
		Arms: []events.Arm{{Name: release.Control, Weight: release.Total, Snapshot: digest}}, Opened: 1, Took: time.Since(start), Snapshot: m,
	})
	if c.Ready != nil {
		c.Ready(own.snapshot)
	}
	return nil
}

// drain stops the server and closes what answers, whatever happens not before the last
// request on it has ended.
func drain(service *Service, h *http.Server, l *listener, c *Config) error {
	service.events.Draining(events.Draining{Delay: c.DrainDelay, Timeout: c.DrainTimeout})
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
