package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/node"
	"github.com/tandem-ann/tandem/server/recent"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/server/secure"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Snapshot is what answers requests: a [snapshots.Snapshot], whose files this process has
// mapped, or one whose shards other processes have. Its methods are safe for any number of
// goroutines until it is closed.
type Snapshot interface {
	Manifest() *manifest.Manifest // which the caller must not change
	Digest() manifest.Digest
	Tower(kind shard.Kind) *shard.Tower
	// Trim lets go of the memory that nobody needed since it was called last.
	Trim()
	Close() error
}

// Service answers retrieval RPCs from the release that it was last given. Until
// then it answers that it is unavailable. Its methods may be called from any
// number of goroutines.
type Service struct {
	events *events.Listener
	log    *events.Log // one of those who are told
	health *health

	mu      sync.Mutex // held to change current
	current atomic.Pointer[state]
	open    sync.WaitGroup // the servings whose files are open
	mapped  mapped         // the same
	status  atomic.Pointer[followerStatus]
	target  atomic.Pointer[target] // nil before the first release
	// staleness is that of what is known of the releases.
	staleness *staleness

	router *router.Router // set before the first request; nil where shards are of this process
	holds  *node.Node     // likewise; nil unless it answers routers, and nobody else
	// unlisted is what is wrong with who lists the nodes; nil if nothing is.
	unlisted atomic.Pointer[string]
	recorder *recorder         // set before the first request, or nil
	audits   *audit.Auditor    // likewise
	scans    *audit.Scans      // of a node, for routers; likewise
	live     *livelog.Follower // likewise
	outcomes *outcomeLog       // likewise; nil unless outcomes are taken
	clock    func() time.Time  // what windows are judged by; likewise
	measured bool              // whether there are metrics; likewise
	// load is what requests and connections take; likewise, or nil.
	load    func() (*metrics.Load, *metrics.Connections)
	recent  *recent.Recent // one of those who are told
	history samples
	traces  *traces.Tracer // set before the first request, or nil
	desk    releaseDesk
	// certificates are those of the server; set before the first request, nil in clear text.
	certificates *secure.Certificates
}

var (
	_ tandemv1connect.RetrievalServiceHandler = (*Service)(nil)
	_ tandemv1connect.AdminServiceHandler     = (*Service)(nil)
	_ tandemv1connect.LiveServiceHandler      = (*Service)(nil)
	_ tandemv1connect.FeedbackServiceHandler  = (*Service)(nil)
)

// NewService returns a service without a snapshot. It writes to a log as [events.Log] says,
// and tells others who listen. The duration of a request is the time since its header had
// been read, so it has that in which its message arrived; of an item of a batch too.
func NewService(logger *slog.Logger, others ...*events.Listener) *Service {
	s := &Service{log: events.NewLog(logger), clock: time.Now, recent: recent.New(nil)}
	s.events = events.Tee(append([]*events.Listener{&s.log.Listener, s.recent.Listener()}, others...)...)
	s.staleness = &staleness{events: s.events}
	s.health = newHealth(s.staleness)
	s.desk.service = s
	s.status.Store(&followerStatus{})
	return s
}

// state is everything that answers: one generation of it. Nothing of it changes.
type state struct {
	generation uint64
	hash       appendlog.Hash  // of the release; zero without one
	log        string          // the id of its log
	router     *release.Router // nil where there is one arm, without a release
	arms       []arm
	since      time.Time
	// autoRollback is whether the release says that servers roll back by themselves.
	autoRollback bool
}

// arm is one snapshot that answers.
type arm struct {
	*serving
	generation uint64
	name       string
	weight     int
	floor      float64    // of recall, as the release says; 0 if it does not
	audited    *audit.Arm // nil if it is not
}

// Serve makes snapshot what answers from now on, without a release, and the service
// ready. It takes ownership of snapshot. What it replaces is closed when the last
// request on it has ended.
func (s *Service) Serve(snapshot Snapshot) { s.serve(s.newServing(snapshot, nil)) }

// serve makes a snapshot what answers, without a release. It takes its owner's place.
func (s *Service) serve(own *serving) {
	s.replace(&state{arms: []arm{{serving: own, name: release.Control, weight: release.Total}}, since: time.Now()})
	s.health.set(phaseReady)
}

// switchTo makes a release what answers from now on, and the service ready. It uses the
// snapshots, one for each arm, beside their owner.
func (s *Service) switchTo(r *release.Release, snapshots []*serving) {
	next := &state{generation: r.Generation, hash: r.Hash, log: r.Log, router: release.NewRouter(r), since: time.Now(), autoRollback: r.AutoRollback}
	for i, a := range r.Arms {
		snapshots[i].acquire() // its owner holds it open
		next.arms = append(next.arms, arm{serving: snapshots[i], generation: r.Generation, name: a.Name, weight: a.Weight, floor: a.RecallFloor})
	}
	s.replace(next)
	s.health.set(phaseReady)
}

// Drain makes the service report that it is not ready, for good. It still answers
// requests, those to reflection too; the streams of health watches end.
func (s *Service) Drain() { s.health.set(phaseDraining) }

// EndStreams ends the streams of reflection, for good: [http.Server.Shutdown] would wait for
// them. It is what [http.Server.RegisterOnShutdown] takes.
func (s *Service) EndStreams() { s.health.endStreams() }

// Close drains, ends streams, takes away what answers, waits for the requests on it to end
// and closes it. Serve must not be called after it.
func (s *Service) Close() {
	s.Drain()
	s.EndStreams()
	s.replace(nil)
	s.open.Wait()
	s.log.TellLeftOut()
}

func (s *Service) replace(next *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audit(next)
	arms := armsOf(next)
	s.events.Arms(events.Arms{List: arms})
	defer s.events.Arms(events.Arms{List: arms, Done: true})
	if next != nil {
		for _, a := range next.arms {
			a.answered.Store(&a)
		}
	}
	if last := s.current.Swap(next); last != nil {
		for _, a := range last.arms {
			a.release()
		}
	}
}

// trim lets go of memory for what can be made again, that nobody needed since it was called
// last.
func (s *Service) trim() {
	now := s.current.Load()
	if now == nil {
		return
	}
	for _, a := range now.arms {
		if a.acquire() { // else it was replaced
			a.snapshot.Trim()
			a.release()
		}
	}
}

// acquire returns the arm that answers what a caller asks for, which the caller releases.
func (s *Service) acquire(w wanted) (*arm, error) {
	for {
		now, err := s.answering()
		if err != nil {
			return nil, err
		}
		to, err := now.route(w)
		if err != nil {
			return nil, err
		}
		if a := &now.arms[to.own]; a.acquire() {
			return a, nil
		} // else it was replaced since it was loaded
	}
}

// answering returns what answers now.
func (s *Service) answering() (*state, error) {
	if now := s.current.Load(); now != nil {
		return now, nil
	}
	if s.health.current() == phaseDraining {
		return nil, errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	}
	return nil, errorf(connect.CodeUnavailable, reasonNotReady, "no snapshot is loaded yet")
}

// wanted says what decides the arm of a request: that of its variant, if the release has one for
// it, or else the one that its key falls into, or, if it is pinned to a model version, one that
// serves it.
type wanted struct{ version, key, experiment, variant string }

// wantedBy returns what a request asks for.
func wantedBy(r *tandemv1.RetrieveRequest) wanted {
	return wanted{r.ModelVersion, requestKey(r), r.Experiment, r.Variant}
}

// routed says which arms answer a request, by their numbers.
type routed struct {
	own  int          // that of the request without interleaving, one of arms
	arms release.Arms // two if it is to be interleaved
}

// route returns the arms of a request.
func (s *state) route(w wanted) (routed, error) {
	version, key := w.version, w.key
	if s.router == nil {
		if served := s.arms[0].modelVersion(); version != "" && version != served {
			return routed{}, errorf(connect.CodeFailedPrecondition, reasonModelVersion, "model_version %q is not served; served: %q", version, served)
		}
		return routed{}, nil
	}
	if arms, ok := s.router.RouteVariant(w.experiment, w.variant); ok {
		return s.routeVariant(w, arms)
	}
	if version == "" {
		own := s.router.Route(key)
		return routed{own, s.router.Interleaved(key, own)}, nil
	}
	own, ok := s.router.RouteVersion(key, version)
	if !ok {
		return routed{}, errorf(connect.CodeFailedPrecondition, reasonModelVersion, "model_version %q is not served; served: %s", version, quoted(s.router.Versions()))
	}
	return routed{own, s.router.Interleaved(key, own)}, nil
}

// routeVariant is route of a request whose variant decides.
func (s *state) routeVariant(w wanted, arms release.Arms) (routed, error) {
	to := routed{arms.First, arms}
	if !arms.Two {
		if served := s.arms[to.own].modelVersion(); w.version != "" && w.version != served {
			return routed{}, errorf(connect.CodeFailedPrecondition, reasonModelVersion, "model_version is %q, and experiment %q, variant %q is answered by arm %s, which serves %q",
				w.version, excerpt(w.experiment), excerpt(w.variant), s.arms[to.own].name, served)
		}
		return to, nil
	}
	if s.router.Route(w.key) == arms.Second {
		to.own = arms.Second
	}
	first, second := s.arms[arms.First].modelVersion(), s.arms[arms.Second].modelVersion()
	switch {
	case w.version == "" || w.version == s.arms[to.own].modelVersion():
	case w.version == first:
		to.own = arms.First
	case w.version == second:
		to.own = arms.Second
	default:
		return routed{}, errorf(connect.CodeFailedPrecondition, reasonModelVersion, "model_version is %q, and experiment %q, variant %q is answered by the arms %s and %s, which serve %q and %q",
			w.version, excerpt(w.experiment), excerpt(w.variant), s.arms[arms.First].name, s.arms[arms.Second].name, first, second)
	}
	return to, nil
}

// modelVersion is that of the arm's snapshot.
func (a *arm) modelVersion() string { return a.snapshot.Manifest().ModelVersion }

// quoted lists texts in quotation marks.
func quoted(list []string) string {
	texts := make([]string, len(list))
	for i, text := range list {
		texts[i] = strconv.Quote(text)
	}
	return strings.Join(texts, ", ")
}

// newServing returns a snapshot that answers for as long as its owner, the caller, or a
// request holds it, with what is laid over it, nil for nothing.
func (s *Service) newServing(snapshot Snapshot, layer livelog.Over) *serving {
	next := &serving{snapshot: snapshot, short: tokenOf(snapshot.Digest()), layer: layer}
	next.users.Store(1)
	s.mapped.add(next)
	next.closed = func(err error) {
		s.mapped.remove(next)
		s.events.Closed(events.Closed{Snapshot: snapshot.Digest(), Err: err})
		s.open.Done()
	}
	s.open.Add(1)
	return next
}

// newLaid is newServing with the live log laid over the snapshot, if one is followed. If that
// fails it closes the snapshot.
func (s *Service) newLaid(ctx context.Context, snapshot *snapshots.Snapshot) (*serving, error) {
	if s.live == nil {
		return s.newServing(snapshot, nil), nil
	}
	layer, err := s.live.Lay(ctx, snapshot)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lay the live log over snapshot %s: %w", snapshot.Digest().Short(), err), snapshot.Close())
	}
	return s.newServing(snapshot, layer), nil
}

// serving is a snapshot that answers requests. Nothing of it changes but the
// count, what is laid over it, what of it is lost, and as which arm it has answered.
type serving struct {
	servingSizes
	snapshot Snapshot
	short    [tokenDigest]byte   // its digest, as page tokens have it
	answered atomic.Pointer[arm] // the last arm that it was, nil if it has not answered yet
	layer    livelog.Over        // of the live log; nil where none is followed
	lost     lostShards
	// published is when the snapshot was, by the store's clock; zero if that is not known.
	published time.Time
	users     atomic.Int64 // those who hold it: requests, states and its owner
	closed    func(error)  // called once the files are closed
}

// acquire counts a user, unless the last has gone.
func (s *serving) acquire() bool {
	for {
		n := s.users.Load()
		if n == 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release ends a use; the last one closes the files.
func (s *serving) release() {
	if s.users.Add(-1) == 0 {
		if s.layer != nil {
			s.layer.End() // it reads the files
		}
		s.closed(s.snapshot.Close())
	}
}

// mapped are the snapshots whose files are open, in the order in which they were opened:
// those that answer, and those that are kept for a rollback.
type mapped struct {
	mu   sync.Mutex
	list []*serving
}

func (m *mapped) add(s *serving) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, s)
}

func (m *mapped) remove(s *serving) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, func(o *serving) bool { return o == s })
}

// acquire returns the arm that a snapshot was when it answered last, which the caller
// releases; nil if it is not mapped, or has not answered yet. Of one that was opened again
// it is the newer one.
func (m *mapped) acquire(short [tokenDigest]byte) *arm {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range slices.Backward(m.list) {
		if a := s.answered.Load(); s.short == short && a != nil && s.acquire() {
			return a
		}
	}
	return nil
}

// of returns a snapshot that is mapped, which the caller releases; nil if it is not.
func (m *mapped) of(d manifest.Digest) *serving {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.list {
		if s.snapshot.Digest() == d && s.acquire() {
			return s
		}
	}
	return nil
}

// hold returns all of them that have the live log laid over them, in the order of their
// digests. The caller releases them.
func (m *mapped) hold() (held []*serving) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.list {
		if s.layer != nil && s.acquire() {
			held = append(held, s)
		}
	}
	slices.SortFunc(held, func(a, b *serving) int { return cmp.Compare(a.snapshot.Digest(), b.snapshot.Digest()) })
	return held
}
