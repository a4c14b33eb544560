package server

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/shard"
)

// Service answers retrieval RPCs from the snapshot that it was last given. Until
// then it answers that it is unavailable. Its methods may be called from any
// number of goroutines.
type Service struct {
	logger *slog.Logger
	health *health

	mu      sync.Mutex // held to change current
	current atomic.Pointer[serving]
	open    sync.WaitGroup // the servings whose files are open

	recorder *recorder // set before the first request, or nil
}

var _ tandemv1connect.RetrievalServiceHandler = (*Service)(nil)

// NewService returns a service without a snapshot. It logs each request at debug
// level and what must not happen at error level.
func NewService(logger *slog.Logger) *Service {
	return &Service{logger: logger, health: newHealth()}
}

// Serve makes snapshot what answers from now on, and the service ready. It takes
// ownership of snapshot. One that it replaces is closed when the last request on
// it has ended.
func (s *Service) Serve(snapshot *shard.Snapshot) {
	next := &serving{snapshot: snapshot}
	next.users.Store(1)
	next.closed = func(err error) {
		if err != nil {
			s.logger.Error("close snapshot", "snapshot", snapshot.Digest(), "error", err)
		}
		s.open.Done()
	}
	s.open.Add(1)
	s.replace(next)
	s.health.set(phaseReady)
}

// Drain makes the service report that it is not ready, for good. It still answers
// requests; the streams of health watches and of reflection end.
func (s *Service) Drain() { s.health.set(phaseDraining) }

// Close drains, takes the snapshot away, waits for the requests on it to end and
// closes it. Serve must not be called after it.
func (s *Service) Close() {
	s.Drain()
	s.replace(nil)
	s.open.Wait()
}

func (s *Service) replace(next *serving) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.current.Swap(next); last != nil {
		last.release()
	}
}

// acquire returns what serves requests that are pinned to a model version, or not
// pinned if it is empty. The caller releases it.
func (s *Service) acquire(version string) (*serving, error) {
	for {
		now := s.current.Load()
		if now == nil {
			if s.health.current() == phaseDraining {
				return nil, errorf(connect.CodeUnavailable, "the server is stopping")
			}
			return nil, errorf(connect.CodeUnavailable, "no snapshot is loaded yet")
		}
		if served := now.snapshot.Manifest().ModelVersion; version != "" && version != served {
			return nil, errorf(connect.CodeFailedPrecondition, "model_version %q is not served; served: %q", version, served)
		}
		if now.acquire() {
			return now, nil
		} // else it was replaced since it was loaded
	}
}

// serving is a snapshot that answers requests. Nothing of it changes but the
// count.
type serving struct {
	snapshot *shard.Snapshot
	users    atomic.Int64 // the requests on it, and 1 while it is current
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
