package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tandem-ann/tandem/shard"
)

// Config says what to serve, and where.
type Config struct {
	// Store has the snapshots.
	Store *shard.Store
	// Snapshot is what [shard.Store.Resolve] takes: a digest or its beginning.
	// Empty: the newest.
	Snapshot string
	// Listen is the address to listen on, HOST:PORT. Port 0 takes a free one.
	Listen string
	// Listener is used instead of Listen if it is set. Run takes ownership of it.
	Listener net.Listener
	// Options bound the requests.
	Options Options
	// DrainTimeout is how long requests may take to end once the server is told
	// to stop. Default: DefaultDrainTimeout.
	DrainTimeout time.Duration
	// RecordShare is the share of the requests, 0 to 1, that are recorded into the
	// store with their answers, for replay. Default: 0, none.
	RecordShare float64
	// Logger is told the events of the server's life at info level. Default:
	// slog.Default().
	Logger *slog.Logger
	// Listening, if set, is called when health can be asked.
	Listening func(net.Addr)
	// Ready, if set, is called when queries are answered. It must not keep the
	// snapshot.
	Ready func(*shard.Snapshot)
}

// DefaultDrainTimeout is how long requests may take to end by default.
const DefaultDrainTimeout = 15 * time.Second

const (
	// maxHeaderBytes has room for a query sent by GET, which has the message in
	// the URL: a vector of 4096 numbers is 22 KiB in base64.
	maxHeaderBytes    = 128 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
)

// Run serves a snapshot until ctx ends. It listens first, then opens, verifies and
// warms the snapshot, and only then is ready. When ctx ends it stops being ready,
// lets the requests in flight end, and closes the snapshot. It returns nil if all
// of that went well, else an error that says what did not: a snapshot that cannot
// be opened names the file and the section.
func Run(ctx context.Context, c Config) error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	listener := c.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	service := NewService(c.Logger)
	if c.RecordShare > 0 {
		service.recorder = startRecorder(c.RecordShare, c.Store.Objects(), c.Logger, defaultRecorderOptions())
		defer service.recorder.close() // once the requests have ended
	}
	h := newHTTPServer(NewHandler(service, c.Options), c.Logger)
	running, cancel := context.WithCancel(ctx)
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

	err := load(running, service, &c)
	if err == nil {
		<-running.Done()
	} else if running.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // stopped while it loaded
	}
	err = errors.Join(err, drain(service, h, &c))
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	return err
}

func newHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// load opens the snapshot and gives it to the service.
func load(ctx context.Context, service *Service, c *Config) error {
	start := time.Now()
	digest, err := c.Store.Resolve(ctx, c.Snapshot)
	if err != nil {
		return fmt.Errorf("load snapshot: %w", err)
	}
	snapshot, err := shard.OpenSnapshot(ctx, c.Store, digest)
	if err != nil {
		return fmt.Errorf("load snapshot %s: %w", digest.Short(), err)
	}
	if err := snapshot.Warm(ctx); err != nil {
		return errors.Join(fmt.Errorf("load snapshot %s: %w", digest.Short(), err), snapshot.Close())
	}
	m := snapshot.Manifest()
	service.Serve(snapshot)
	c.Logger.Info("ready", "model", m.Model, "model_version", m.ModelVersion, "snapshot", digest.Short(),
		"apps", m.Apps.Rows, "app_shards", len(m.Apps.Shards), "users", m.Users.Rows, "user_shards", len(m.Users.Shards),
		"load_time", time.Since(start).Round(time.Microsecond))
	if c.Ready != nil {
		c.Ready(snapshot)
	}
	return nil
}

// drain stops the server and closes the snapshot, whatever happens not before the
// last request on it has ended.
func drain(service *Service, h *http.Server, c *Config) error {
	c.Logger.Info("draining", "timeout", c.DrainTimeout)
	service.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), c.DrainTimeout)
	defer cancel()
	err := h.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("drain: requests in flight were cut off after %s", c.DrainTimeout)
	}
	if err != nil {
		err = errors.Join(err, h.Close())
	}
	service.Close()
	return err
}
