package remote

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Options bound what a node does for routers. A zero field means its default.
type Options struct {
	// MaxInFlight is how many requests are answered at a time; one more is refused at once.
	// Default: 16 for each processor, which is some milliseconds of work.
	MaxInFlight int
	// MaxTime is how long a request may take whose router gives it longer, or no end.
	// Default: DefaultMaxTime.
	MaxTime time.Duration
	// MaxRequestBytes is how large a request may be. Default: DefaultMaxRequestBytes.
	MaxRequestBytes int
	// MaxReplyBytes is how large a reply may be, about. Default: DefaultMaxReplyBytes.
	MaxReplyBytes int
	// MaxWatches is how many routers may watch at a time. Default: DefaultMaxWatches.
	MaxWatches int
	// MaxLines is how many connections may speak in frames at a time. Default: DefaultMaxLines.
	MaxLines int
	// Allowed, if set, returns an error unless a connection that speaks in frames may still be
	// answered, by the request that it began as. It is called for each call. Default: it may.
	Allowed func(*http.Request) error
	// Audits does the scans of audits. Default: nobody does, and routers are told so.
	Audits *audit.Scans
	// Panicked, if set, is told of each panic, with its stack. Default: nobody is.
	Panicked func(*shard.PanicError)
	// Unreadable, if set, is told of each request that could not read the file of a shard.
	// Default: nobody is.
	Unreadable func(ShardID, *shard.UnreadableError)
}

// The defaults of Options.
const (
	DefaultMaxTime         = 10 * time.Second
	DefaultMaxRequestBytes = 80 << 20 // 200,000 ids as long as ids may be, and lists of a filter
	DefaultMaxReplyBytes   = 64 << 20
	DefaultMaxWatches      = 256
	DefaultMaxLines        = 2048

	inFlightPerProcessor = 16
)

func (o Options) withDefaults() Options {
	o.MaxInFlight = cmp.Or(o.MaxInFlight, inFlightPerProcessor*runtime.GOMAXPROCS(0))
	o.MaxTime = cmp.Or(o.MaxTime, DefaultMaxTime)
	o.MaxRequestBytes = cmp.Or(o.MaxRequestBytes, DefaultMaxRequestBytes)
	o.MaxReplyBytes = cmp.Or(o.MaxReplyBytes, DefaultMaxReplyBytes)
	o.MaxWatches = cmp.Or(o.MaxWatches, DefaultMaxWatches)
	o.MaxLines = cmp.Or(o.MaxLines, DefaultMaxLines)
	return o
}

// Handler answers the shard RPC. It is for any number of requests at a time.
type Handler struct {
	holder           Holder
	o                Options
	protocol, oldest uint32
	inFlight         atomic.Int32
	watches, audits  atomic.Int32
	lineCount        atomic.Int32
	alone            atomic.Int64 // see load.go
	jobs             sync.Pool    // *job
	methods          map[string]method
	next             http.Handler // for what is no line

	streaming  context.Context // of the streams of routers that watch
	endStreams context.CancelFunc

	mu     sync.Mutex
	lines  map[*served]struct{}
	ending bool
	ended  chan struct{} // closed when ending is set and there are no lines
}

// NewHandler returns the handler of the shard RPC of what a node holds, and the path that it
// is for. Who may ask it is decided before: it is for requests of the scope internal. It must be
// shut down, since a server does not know of connections that speak in frames.
func NewHandler(holder Holder, o Options) (path string, h *Handler) {
	return newHandler(&Handler{holder: holder, o: o.withDefaults(), protocol: Protocol, oldest: OldestProtocol})
}

func newHandler(h *Handler) (string, *Handler) {
	h.jobs.New = func() any { return new(job) }
	h.streaming, h.endStreams = context.WithCancel(context.Background())
	h.lines, h.ended = map[*served]struct{}{}, make(chan struct{})
	h.methods = h.unaryMethods()
	path, next := shardv1connect.NewShardServiceHandler(
		service{h},
		connect.WithReadMaxBytes(h.o.MaxRequestBytes),
		connect.WithCompression("gzip", nil, nil), // the network is near, and processors are what is scarce
	)
	h.next = h.admitting(h.direct(next))
	return path, h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == linePath {
		h.serveLine(w, r)
		return
	}
	h.next.ServeHTTP(w, r)
}

// Shutdown ends the streams of routers that watch, and all connections that speak in frames,
// once what is under way on them is answered. Those on which something is when ctx ends are cut
// off then, and the error is that of ctx.
func (h *Handler) Shutdown(ctx context.Context) error {
	h.endStreams()
	h.mu.Lock()
	if !h.ending {
		h.ending = true
		for s := range h.lines {
			if s.idle {
				_ = s.conn.SetReadDeadline(past) // if that fails, so does what it is to end
			}
		}
		if len(h.lines) == 0 {
			close(h.ended)
		}
	}
	h.mu.Unlock()
	select {
	case <-h.ended:
		return nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	for s := range h.lines {
		_ = s.conn.Close() // what is under way has had its time
	}
	h.mu.Unlock()
	<-h.ended
	return ctx.Err()
}

// held is the state of a shard that a request asks.
type held struct {
	of    ShardID
	at    shard.Moment
	tower *shard.Tower
	parts []part
}

// checkProtocol returns a refusal unless the node takes a protocol.
func (h *Handler) checkProtocol(protocol uint32) error {
	if protocol >= h.oldest && protocol <= h.protocol {
		return nil
	}
	r := refusef(WrongProtocol, "protocol is %d; accepted: %d to %d", protocol, h.oldest, h.protocol)
	r.Protocol, r.OldestProtocol = h.protocol, h.oldest
	return r
}

// read returns which state of which shard a request names.
func (h *Handler) read(m *shardv1.ShardState) (of ShardID, at shard.Moment, err error) {
	if m == nil {
		return of, at, refusef(BadQuery, "state is not set")
	}
	if err := h.checkProtocol(m.GetProtocol()); err != nil {
		return of, at, err
	}
	of = ShardID{Snapshot: manifest.Digest(m.GetSnapshot()), Number: int(m.GetNumber()), Of: int(m.GetOf())}
	switch m.GetTower() {
	case tandemv1.Tower_TOWER_APPS:
		of.Tower = shard.Apps
	case tandemv1.Tower_TOWER_USERS:
		of.Tower = shard.Users
	default:
		return of, at, refusef(BadQuery, "state.tower is %d; accepted: TOWER_APPS (1), TOWER_USERS (2)", m.GetTower())
	}
	at = shard.Moment{Snapshot: m.GetSnapshot(), Position: wire.Position(m.GetPosition()), Time: time.Unix(0, m.GetUnixNanos()).UTC()}
	switch {
	case !of.Snapshot.Valid():
		return of, at, refusef(BadQuery, "state.snapshot is %.80q; accepted: a digest of a snapshot", m.GetSnapshot())
	case of.Of < 1 || of.Of > shard.MaxShards:
		return of, at, refusef(BadQuery, "state.of is %d; accepted: 1 to %d", of.Of, shard.MaxShards)
	case of.Number >= of.Of:
		return of, at, refusef(BadQuery, "state.number is %d; accepted: 0 to %d", of.Number, of.Of-1)
	case m.GetPosition() == nil:
		return of, at, refusef(BadQuery, "state.position is not set")
	}
	if err := at.Position.Check(); err != nil {
		return of, at, refusef(BadQuery, "state.position: %v", err)
	}
	return of, at, nil
}

// asked is a request of the contract, as a pointer to a message.
type asked[M any] interface {
	*M
	GetState() *shardv1.ShardState
}

// serve answers a request with what do returns, which reads no more of the tower then.
func serve[M, R any, P asked[M]](ctx context.Context, h *Handler, r *connect.Request[M], do func(context.Context, *held, *M) (*R, error)) (*connect.Response[R], error) {
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > h.o.MaxTime {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.o.MaxTime)
		defer cancel()
	}
	reply, err := answer(ctx, h, P(r.Msg).GetState(), func(s *held) (*R, error) { return do(ctx, s, r.Msg) })
	if err != nil {
		if p, ok := err.(*shard.PanicError); ok && h.o.Panicked != nil { //nolint:errorlint // it is made here or by a part
			h.o.Panicked(p)
		}
		return nil, wireError(err)
	}
	return connect.NewResponse(reply), nil
}

// answer calls do with the state that a request names.
func answer[R any](ctx context.Context, h *Handler, m *shardv1.ShardState, do func(*held) (*R, error)) (reply *R, err error) {
	of, at, err := h.read(m)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = &shard.PanicError{Shard: of.String(), Value: r, Stack: debug.Stack()}
		}
	}()
	s := &held{of: of, at: at}
	tower, release, err := h.holder.Acquire(ctx, of, at.Position)
	if err != nil {
		return nil, err
	}
	defer release()
	s.tower, s.parts = tower, make([]part, len(tower.Parts()))
	for i, p := range tower.Parts() {
		s.parts[i] = p.(part) // as Holder promises
	}
	if len(s.parts) == 0 {
		return nil, refusef(NotHeld, "%s has no part here", of)
	}
	reply, err = do(s)
	if u, ok := errors.AsType[*shard.UnreadableError](err); ok && h.o.Unreadable != nil {
		h.o.Unreadable(of, u)
	}
	return reply, err
}

// service is the handler as the generated code wants it.
type service struct{ *Handler }

func (s service) Search(ctx context.Context, r *connect.Request[shardv1.SearchRequest]) (*connect.Response[shardv1.SearchResponse], error) {
	return serve(ctx, s.Handler, r, s.search)
}

func (s service) Explain(ctx context.Context, r *connect.Request[shardv1.ExplainRequest]) (*connect.Response[shardv1.ExplainResponse], error) {
	return serve(ctx, s.Handler, r, s.explain)
}

func (s service) Vectors(ctx context.Context, r *connect.Request[shardv1.VectorsRequest]) (*connect.Response[shardv1.VectorsResponse], error) {
	return serve(ctx, s.Handler, r, s.vectors)
}

func (s service) Attributes(ctx context.Context, r *connect.Request[shardv1.AttributesRequest]) (*connect.Response[shardv1.AttributesResponse], error) {
	return serve(ctx, s.Handler, r, s.attributes)
}

func (s service) GetShard(ctx context.Context, r *connect.Request[shardv1.GetShardRequest]) (*connect.Response[shardv1.GetShardResponse], error) {
	return serve(ctx, s.Handler, r, s.getShard)
}

func (s service) Watch(ctx context.Context, r *connect.Request[shardv1.WatchRequest], stream *connect.ServerStream[shardv1.WatchResponse]) error {
	if err := s.watch(ctx, r.Msg, stream); err != nil {
		return wireError(err)
	}
	return nil
}
