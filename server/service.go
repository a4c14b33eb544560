package server

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// Service answers retrieval RPCs from the release that it was last given. Until
// then it answers that it is unavailable. Its methods may be called from any
// number of goroutines.
type Service struct {
	logger *slog.Logger
	health *health

	mu      sync.Mutex // held to change current
	current atomic.Pointer[state]
	open    sync.WaitGroup // the servings whose files are open
	status  atomic.Pointer[followerStatus]
	target  atomic.Pointer[target] // nil before the first release
	// staleness is that of what is known of the releases.
	staleness *staleness

	failures    failureLog // of requests
	connections connectionLog

	recorder *recorder // set before the first request, or nil
}

var (
	_ tandemv1connect.RetrievalServiceHandler = (*Service)(nil)
	_ tandemv1connect.AdminServiceHandler     = (*Service)(nil)
)

// NewService returns a service without a snapshot. It logs each request at debug
// level, those that fail at info level, or warn where there is too much load, a few each
// second of them, and what must not happen at error level. The attribute duration is the
// time since the request's header had been read, so it has that in which its message
// arrived; of an item of a batch too.
func NewService(logger *slog.Logger) *Service {
	s := &Service{logger: logger, staleness: &staleness{logger: logger}, connections: connectionLog{logger: logger}}
	s.health = newHealth(s.staleness)
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
}

// arm is one snapshot that answers.
type arm struct {
	*serving
	generation uint64
	name       string
	weight     int
}

// Serve makes snapshot what answers from now on, without a release, and the service
// ready. It takes ownership of snapshot. What it replaces is closed when the last
// request on it has ended.
func (s *Service) Serve(snapshot *shard.Snapshot) {
	own := s.newServing(snapshot)
	s.replace(&state{arms: []arm{{serving: own, name: release.Control, weight: release.Total}}, since: time.Now()})
	s.health.set(phaseReady)
}

// switchTo makes a release what answers from now on, and the service ready. It uses the
// snapshots, one for each arm, beside their owner.
func (s *Service) switchTo(r *release.Release, snapshots []*serving) {
	next := &state{generation: r.Generation, hash: r.Hash, log: r.Log, router: release.NewRouter(r), since: time.Now()}
	for i, a := range r.Arms {
		snapshots[i].acquire() // its owner holds it open
		next.arms = append(next.arms, arm{serving: snapshots[i], generation: r.Generation, name: a.Name, weight: a.Weight})
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
	s.tellLeftOut()
}

func (s *Service) replace(next *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.current.Swap(next); last != nil {
		for _, a := range last.arms {
			a.release()
		}
	}
}

// acquire returns the arm that answers a request: the one that its key falls into,
// or, if it is pinned to a model version, one that serves it. The caller releases it.
func (s *Service) acquire(version, key string) (*arm, error) {
	for {
		now := s.current.Load()
		if now == nil {
			if s.health.current() == phaseDraining {
				return nil, errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
			}
			return nil, errorf(connect.CodeUnavailable, reasonNotReady, "no snapshot is loaded yet")
		}
		number, err := now.route(version, key)
		if err != nil {
			return nil, err
		}
		if a := &now.arms[number]; a.acquire() {
			return a, nil
		} // else it was replaced since it was loaded
	}
}

// route returns the number of the arm of a request.
func (s *state) route(version, key string) (int, error) {
	if s.router == nil {
		if served := s.arms[0].snapshot.Manifest().ModelVersion; version != "" && version != served {
			return 0, errorf(connect.CodeFailedPrecondition, reasonModelVersion, "model_version %q is not served; served: %q", version, served)
		}
		return 0, nil
	}
	if version == "" {
		return s.router.Route(key), nil
	}
	number, ok := s.router.RouteVersion(key, version)
	if !ok {
		return 0, errorf(connect.CodeFailedPrecondition, reasonModelVersion, "model_version %q is not served; served: %s", version, quoted(s.router.Versions()))
	}
	return number, nil
}

// quoted lists texts in quotation marks.
func quoted(list []string) string {
	texts := make([]string, len(list))
	for i, text := range list {
		texts[i] = strconv.Quote(text)
	}
	return strings.Join(texts, ", ")
}

// newServing returns a snapshot that answers for as long as its owner, the caller, or a
// request holds it.
func (s *Service) newServing(snapshot *shard.Snapshot) *serving {
	next := &serving{snapshot: snapshot}
	next.users.Store(1)
	next.closed = func(err error) {
		if err != nil {
			s.logger.Error("close snapshot", "snapshot", snapshot.Digest(), "error", err)
		}
		s.open.Done()
	}
	s.open.Add(1)
	return next
}

// serving is a snapshot that answers requests. Nothing of it changes but the
// count, and what of it is lost.
type serving struct {
	servingSizes
	snapshot *shard.Snapshot
	lost     lostShards
	users    atomic.Int64 // those who hold it: requests, states and its owner
	closed   func(error)  // called once the files are closed
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
		s.closed(s.snapshot.Close())
	}
}
