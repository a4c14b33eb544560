package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

type serveCommand struct {
	requiredStoreFlags
	Snapshot string `placeholder:"DIGEST" help:"Serve this snapshot, by its digest or the beginning of it, whatever is released and whatever its gates have found; the log and release status say so. By default the newest release, and those that follow."`
	Listen   string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Address to listen on; port 0 takes a free one. Beyond loopback it goes with --tokens, --tls-client-ca or --insecure (default ${default})."`

	MaxInFlight      *int           `placeholder:"N" help:"Requests to work on at a time; one more is turned away (default 64 for each processor)."`
	MaxWorkInFlight  *time.Duration `placeholder:"TIME" help:"Work to let in at a time, in the estimated time of one processor; a batch counts as its queries, and an eighth is for short work (default 250ms for each processor)."`
	MaxBytesInFlight byteFlag       `placeholder:"SIZE" help:"How much memory requests and their answers may take at a time, as estimated (default a sixteenth of the memory, from 64 to 256 MiB)."`
	MaxMessageBytes  *int           `placeholder:"N" help:"Largest request to accept (default 8 MiB)."`
	MaxResponseBytes *int           `placeholder:"N" help:"Longest answer, in protobuf; a query or a batch that asks for more is refused before any work (default 4 MiB less 64 KiB, what gRPC clients take)."`
	MaxDeadline      time.Duration  `default:"10s" placeholder:"TIME" help:"Deadline of requests that have none or a later one (default ${default})."`
	MaxConnections   *int           `placeholder:"N" help:"Connections to keep open at a time; one more takes the place of the one that has been idle for longest (default 4096)."`
	DrainDelay       time.Duration  `default:"5s" placeholder:"TIME" help:"How long to go on, but not ready, once the server is told to stop, for callers to notice (default ${default})."`
	DrainTimeout     time.Duration  `default:"15s" placeholder:"TIME" help:"How long requests may take to end after that (default ${default})."`
	RecordShare      float64        `default:"0" placeholder:"X" help:"Share of the requests to record into the store with their answers, for tandem replay: 0.001 is one in a thousand (default none)."`
	RecordOnce       bool           `help:"Record a request of each user, experiment and release, beside --record-share: the first, and now and then one more."`
	RecordNext       int            `default:"0" placeholder:"N" help:"Candidates that would come after an answer to record with it, up to 1000; each takes another search (default none)."`
	Outcomes         bool           `help:"Take outcomes, what users did with apps, from whoever may send them, and keep them in the store: from callers with the scope feedback, or, without --tokens, from whoever reaches the server, which must listen on a loopback address then (default: no)."`
	HashUsers        string         `placeholder:"FILE" help:"Write ids of users into recorded queries and outcomes as a hash by the key in FILE, of 16 bytes at least; requests for users are not recorded then. Who forgets a user needs the same key (default: ids as they are)."`
	OutcomeInterval  time.Duration  `default:"1s" placeholder:"TIME" help:"How long outcomes are gathered until they are written together; who sends them waits for it (default ${default})."`

	Keep        time.Duration `default:"10m" placeholder:"TIME" help:"How long a snapshot stays mapped once it no longer answers, so that a rollback is instant (default ${default})."`
	MemoryLimit byteFlag      `placeholder:"SIZE" help:"How much of snapshots may be mapped; a release that takes more beside what answers is refused, and so is a snapshot without a release (default four fifths of the memory that the machine and the control groups of the process allow)."`

	MaxStaleness *time.Duration `placeholder:"TIME" help:"How long ago the server may have seen last what is released to be ready: beyond it GET /readyz and gRPC health say no, and queries are answered all the same (default no bound)."`

	LiveFence     time.Duration `default:"5s" placeholder:"TIME" help:"How old the last proof may be that the live log ends where the server has read it to: beyond it queries are refused, since an app may be taken down that the server does not know of (default ${default})."`
	LiveStale     string        `default:"refuse" enum:"refuse,answer" placeholder:"HOW" help:"What queries get beyond the fence: ${enum}; answers are flagged as stale then (default ${default})."`
	LiveWrites    bool          `help:"Take takedowns, upserts and other live events from whoever may write: callers with the scope live, or, without --tokens, whoever reaches the server, which must listen on a loopback address then (default: no)."`
	ReleaseWrites bool          `help:"Change what is released for whoever may: callers with the scope publish, or, without --tokens, whoever reaches the server, which must listen on a loopback address then (default: no)."`
	LivePoll      time.Duration `placeholder:"TIME" help:"How long to wait between two looks at the live log (default 300ms in a bucket, 20ms in a folder)."`
	LiveAtLeast   positionFlag  `placeholder:"[LOG:]N" help:"Position that the live log must have reached: a store that is behind it is an older copy, and not served."`
	AcceptStoreAt *positionFlag `placeholder:"[LOG:]N" help:"Serve a store whose live log, or log of releases, is behind what the server remembers, or is another one, if the live log ends at this position: a person says that it is the one that counts. That is for this server alone, and begins no new log; tandem live accept is for all, and lasts."`
	State         string        `placeholder:"DIR" type:"path" help:"Folder in which the server remembers durably how far it has read the live log of each store, so as to refuse an older copy (default: tandem in the folder for the state of the user's programs)."`
	LiveMaxFresh  *int          `placeholder:"N" help:"Apps, and users, of one model version that may be upserted since snapshots were built; more is refused (default 100000)."`
	LiveMaxBytes  byteFlag      `placeholder:"SIZE" help:"How much all that is upserted may take; more is refused (default 1 GiB)."`

	clusterFlags

	securityFlags

	CORSOrigin []string `name:"cors-origin" sep:"none" placeholder:"ORIGIN" help:"Origin of web pages whose scripts may ask, such as https://shop.example, or * for any; may be repeated (default none)."`

	adminFlags

	auditFlags

	traceFlags

	LogSlow   time.Duration `default:"250ms" placeholder:"TIME" help:"How long a query may take, once it was admitted, until the log tells how it was answered; of some of them, if they are many; 0 is for ever (default ${default})."`
	LogFormat string        `default:"text" enum:"text,json" placeholder:"FORMAT" help:"Form of the log on standard error: ${enum} (default ${default})."`
	Verbose   bool          `help:"Log every request."`
}

func (serveCommand) Help() string {
	return `Refuses to start where nothing is released, and where the live log or the log of releases is behind what it remembers of it, or is another one. Reads the live log, and verifies and warms what is released first; GET /readyz answers 200 from then on. It follows the releases: it loads what a new one needs beside what answers, then switches between two queries. What it cannot load leaves what answers as it is, and so does a log that does not go on from what it has followed, as in a store that was restored from a copy; tandem release status --server tells. It follows the live log, too, and refuses queries once it has not seen the end of that for longer than --live-fence. SIGINT and SIGTERM make GET /readyz answer 503; the server goes on for --drain-delay, so that callers that look lose no request, and then lets the requests in flight end. A second one kills it.

Example:

    tandem serve --store store --listen :8080 --tokens tokens.yaml --tls-cert cert.pem --tls-key key.pem`
}

// check returns an error for values of flags that make no sense.
func (c *serveCommand) check() error {
	switch {
	case c.MaxInFlight != nil && *c.MaxInFlight < 1:
		return usagef("--max-in-flight is %d, want at least 1", *c.MaxInFlight)
	case c.MaxWorkInFlight != nil && *c.MaxWorkInFlight <= 0:
		return usagef("--max-work-in-flight is %s, want more than 0", *c.MaxWorkInFlight)
	case c.MaxMessageBytes != nil && *c.MaxMessageBytes < 1:
		return usagef("--max-message-bytes is %d, want at least 1", *c.MaxMessageBytes)
	case c.MaxResponseBytes != nil && *c.MaxResponseBytes < 1:
		return usagef("--max-response-bytes is %d, want at least 1", *c.MaxResponseBytes)
	case c.MaxDeadline <= 0:
		return usagef("--max-deadline is %s, want more than 0", c.MaxDeadline)
	case c.Keep <= 0:
		return usagef("--keep is %s, want more than 0", c.Keep)
	case !(c.RecordShare >= 0 && c.RecordShare <= 1):
		return usagef("--record-share is %v, want 0 to 1", c.RecordShare)
	case c.RecordNext < 0 || c.RecordNext > querylog.MaxNext:
		return usagef("--record-next is %d, want 0 to %d", c.RecordNext, querylog.MaxNext)
	case c.RecordNext > 0 && c.RecordShare == 0 && !c.RecordOnce:
		return usagef("--record-next goes with --record-share or --record-once: nothing else is recorded")
	case c.HashUsers != "" && c.RecordShare == 0 && !c.RecordOnce && !c.Outcomes:
		return usagef("--hash-users goes with --record-share, --record-once or --outcomes: nothing else is recorded")
	case c.OutcomeInterval < server.LeastOutcomeInterval || c.OutcomeInterval > server.LongestOutcomeInterval:
		return usagef("--outcome-interval is %s, want %s to %s", c.OutcomeInterval, server.LeastOutcomeInterval, server.LongestOutcomeInterval)
	case c.OutcomeInterval > c.MaxDeadline/2:
		return usagef("--outcome-interval is %s, want at most half of --max-deadline, which is %s: calls wait for it, and then for the store", c.OutcomeInterval, c.MaxDeadline)
	case c.MaxStaleness != nil && *c.MaxStaleness < minStaleness:
		return usagef("--max-staleness is %s, want at least %s", *c.MaxStaleness, minStaleness)
	case c.MaxStaleness != nil && c.Snapshot != "":
		return usagef("--max-staleness goes with following the releases, and --snapshot follows none")
	case c.LiveFence < minFence:
		return usagef("--live-fence is %s, want at least %s", c.LiveFence, minFence)
	case c.LivePoll < 0 || c.LivePoll > 0 && c.LivePoll < minPoll:
		return usagef("--live-poll is %s, want at least %s", c.LivePoll, minPoll)
	case c.LivePoll > c.LiveFence/2:
		return usagef("--live-poll is %s, want at most half of --live-fence, which is %s", c.LivePoll, c.LiveFence)
	case c.LiveMaxFresh != nil && *c.LiveMaxFresh < 1:
		return usagef("--live-max-fresh is %d, want at least 1", *c.LiveMaxFresh)
	case c.MaxConnections != nil && *c.MaxConnections < 1:
		return usagef("--max-connections is %d, want at least 1", *c.MaxConnections)
	case c.LogSlow < 0:
		return usagef("--log-slow is %s, want at least 0", c.LogSlow)
	case c.DrainDelay < 0:
		return usagef("--drain-delay is %s, want at least 0", c.DrainDelay)
	case c.DrainTimeout <= 0:
		return usagef("--drain-timeout is %s, want more than 0", c.DrainTimeout)
	}
	if err := errors.Join(c.clusterFlags.check(c), c.securityFlags.check(c), c.auditFlags.check()); err != nil {
		return err
	}
	for _, origin := range c.CORSOrigin {
		if !isOrigin(origin) {
			return usagef("--cors-origin is %q, want * or http:// or https:// and a host, with a port if it is not the usual one", origin)
		}
	}
	return nil
}

func (c *serveCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	admin, err := c.adminFlags.options(&c.securityFlags)
	if err != nil {
		return err
	}
	traced, err := c.traceFlags.options()
	if err != nil {
		return err
	}
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	digest, err := store.Resolve(e.ctx, c.Snapshot)
	if errors.Is(err, snapshots.ErrNoSnapshot) && c.Snapshot == "" {
		return fmt.Errorf("%w; tandem build makes one", err)
	}
	if err != nil {
		return err
	}
	if c.Snapshot == "" {
		digest = "" // what is released
	}
	hash, err := noteUserHash(e.ctx, store, c.HashUsers)
	if err != nil {
		return err
	}
	memory, err := c.memory(e.ctx, store)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if c.Verbose {
		level = slog.LevelDebug
	}
	if admin == nil {
		runtime.MemProfileRate = 0 // nobody can ask for the profile, which takes some MiB, and more after a burst
	}
	// Some more than there are: the kernel gives a thread a processor as soon as it has work,
	// or anything arrives; Go would look for that only every 10 ms while all that it has are
	// busy.
	processors := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(server.Threads(processors))
	config := server.Config{
		Store: store, Snapshot: string(digest), Listen: c.Listen,
		MaxConnections: given(c.MaxConnections), DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		Memory: memory("releases"), Keep: c.Keep, MemoryLimit: int64(c.MemoryLimit), RecordShare: c.RecordShare,
		RecordOnce: c.RecordOnce, RecordNext: c.RecordNext, HashUsers: hash,
		MaxStaleness: given(c.MaxStaleness), Audit: c.auditFlags.config(),
		ReleaseWrites: c.ReleaseWrites, Outcomes: server.Outcomes{Take: c.Outcomes, Interval: c.OutcomeInterval},
		Compare: func(ctx context.Context, candidate, previous *snapshots.Snapshot) (any, error) {
			return compare.Compare(probe.WithThreads(ctx, 1), candidate, previous, compare.Options{}) // queries go on beside it
		},
		Live: server.Live{
			Fence: c.LiveFence, AnswerStale: c.LiveStale == "answer", Writes: c.LiveWrites, Poll: c.LivePoll,
			Memory: memory("live"), AtLeast: shard.Position(c.LiveAtLeast), AtLeastFrom: liveAtLeast, Accept: (*shard.Position)(c.AcceptStoreAt),
			MaxFreshRows: given(c.LiveMaxFresh), MaxFreshBytes: int64(c.LiveMaxBytes),
		},
		Options: server.Options{
			Processors: processors, MaxInFlight: given(c.MaxInFlight), MaxWorkInFlight: given(c.MaxWorkInFlight), MaxBytesInFlight: int64(c.MaxBytesInFlight),
			MaxMessageBytes: given(c.MaxMessageBytes), MaxResponseBytes: given(c.MaxResponseBytes), MaxDeadline: c.MaxDeadline,
			CORSOrigins: c.CORSOrigin,
		},
		Admin: admin, Traces: traced, LogSlow: c.LogSlow,
		Logger: newLogger(e.stderr, c.LogFormat, level),
	}
	defer runtime.KeepAlive(ballast(config.Options))
	if traced != nil {
		logOpenTelemetry(config.Logger)
	}
	stop, err := c.securityFlags.apply(&config, config.Logger)
	if err != nil {
		return err
	}
	defer stop()
	c.adminFlags.apply(&config, config.Logger)
	err = c.run(e, config)
	if errors.Is(err, release.ErrNone) && c.Snapshot == "" {
		err = fmt.Errorf("%w, and what nobody has released is not served; tandem release start releases a snapshot", err)
		if c.Role == "all" {
			err = fmt.Errorf("%w, --snapshot DIGEST serves one all the same", err)
		}
	}
	return err
}

// run has the server be what its role is.
func (c *serveCommand) run(e *environment, config server.Config) error {
	if c.Role == "all" {
		return server.Run(e.ctx, config)
	}
	id, err := config.Store.Objects().Identity(e.ctx)
	if err != nil {
		return err
	}
	switch c.Role {
	case "shard":
		h, err := c.hold(e.ctx, c.Listen, id)
		if err != nil {
			return err
		}
		return server.RunNode(e.ctx, config, h)
	case "router":
		if err := c.route(&config, id); err != nil {
			return err
		}
	}
	return server.Run(e.ctx, config)
}

// minStaleness is the least bound of staleness: a server looks about once a second.
const minStaleness = 5 * time.Second

const (
	// minFence is the least fence: a look at a store may take a second.
	minFence = time.Second
	minPoll  = time.Millisecond
)

// isLoopback reports whether only this machine reaches an address to listen on.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// memory returns where a server of a store remembers how far it has read a log of it, by the
// log's name: one file for the address of the store, and one for what its copies elsewhere have
// too. It is empty where nobody has said which folder, and the user has none.
func (c *serveCommand) memory(ctx context.Context, store *snapshots.Store) (func(name string) appendlog.Memory, error) {
	none := func(string) appendlog.Memory { return nil }
	dir := c.State
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(state) { // others are to be ignored
			home, err := os.UserHomeDir()
			if err != nil {
				return none, nil //nolint:nilerr // status says that nothing is remembered
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "tandem")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		if c.State == "" {
			return none, nil //nolint:nilerr // likewise
		}
		return nil, fmt.Errorf("--state: %w", err)
	}
	location := store.Location()
	if folder, ok, err := objects.Folder(location); err != nil {
		return nil, err
	} else if ok {
		if location, err = filepath.Abs(folder); err != nil {
			return nil, err
		}
	}
	of := sha256.Sum256([]byte(location))
	names := []string{fmt.Sprintf("%x", of[:8])}
	id, err := store.Objects().Identity(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case id != "":
		names = append(names, "store-"+id)
	case c.AcceptStoreAt == nil:
		kin, err := onlyStore(dir, names[0])
		if err != nil {
			return nil, fmt.Errorf("--state: %w", err)
		}
		if kin != "" {
			names = append(names, kin)
		}
	}
	return func(log string) appendlog.Memory {
		var m appendlog.Memory
		for _, name := range names {
			m = append(m, filepath.Join(dir, log+"-"+name+".json"))
		}
		return m
	}, nil
}

// remembersStore is the name of a file of what is remembered of a store with an id.
var remembersStore = regexp.MustCompile(`^[a-z]+-(store-[0-9a-f]{32})\.json$`)

// onlyStore returns what names the one store that a folder remembers by its id; empty if there
// are none or several, or it knows the address. A store that has no id, at another address, is
// a copy of that one which has lost it, as far as anybody knows.
func onlyStore(dir, address string) (string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	only := ""
	for _, f := range list {
		m := remembersStore.FindStringSubmatch(f.Name())
		switch {
		case strings.HasSuffix(f.Name(), "-"+address+".json"), m != nil && only != "" && only != m[1]:
			return "", nil
		case m != nil:
			only = m[1]
		}
	}
	return only, nil
}

// positionFlag is a position in the live log.
type positionFlag shard.Position

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *positionFlag) UnmarshalText(text []byte) error {
	at, err := shard.ParsePosition(string(text))
	*p = positionFlag(at)
	return err
}

// isOrigin reports whether a text is an origin as browsers send it, or "*".
func isOrigin(text string) bool {
	if text == "*" {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		!strings.Contains(text, "*") && text == u.Scheme+"://"+strings.ToLower(u.Host)
}

// given returns the value of a flag, 0 if it was left out.
func given[T int | time.Duration](n *T) T {
	if n == nil {
		return 0
	}
	return *n
}

func newLogger(w io.Writer, format string, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// ballast returns memory that is never touched, so that Go collects rarely. A memory limit counts
// it: that of the server has room for it, and where GOMEMLIMIT is set there is none.
func ballast(o server.Options) []byte {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return nil
	}
	return make([]byte, o.Ballast())
}
