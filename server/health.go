package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// phase is where a service is in its life.
type phase int

const (
	phaseLoading phase = iota
	phaseReady
	phaseDraining // for good
)

var phaseNames = [...]string{phaseLoading: "loading", phaseReady: "ready", phaseDraining: "draining"}

// health tells gRPC health checks and load balancers whether to send requests. A
// watch is told that the service is not serving, and then ended, when the service
// drains: an open stream would hold up the shutdown.
type health struct {
	staleness *staleness // of what is served

	mu      sync.Mutex
	phase   phase
	watches map[*watch]struct{}
	// draining is cancelled with the last phase, streaming when streams are to end.
	draining, streaming context.Context
	drain, endStreams   context.CancelFunc
}

func newHealth(s *staleness) *health {
	h := &health{staleness: s, watches: map[*watch]struct{}{}}
	h.draining, h.drain = context.WithCancel(context.Background())
	h.streaming, h.endStreams = context.WithCancel(context.Background())
	return h
}

// watch is one stream of status changes.
type watch struct {
	changed func()
	told    bool // that the service drains
}

type watchKey struct{}

func (h *health) set(p phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase == phaseDraining {
		return
	}
	h.phase = p
	for w := range h.watches {
		w.changed()
	}
	if p == phaseDraining {
		h.drain()
	}
}

// changed has those who watch ask again.
func (h *health) changed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watches {
		w.changed()
	}
}

func (h *health) current() phase {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase
}

// Check implements [grpchealth.Checker].
func (h *health) Check(ctx context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if r.Service != "" && r.Service != tandemv1connect.RetrievalServiceName {
		return nil, notFoundf(reasonService, "service", r.Service, "service %q is unknown; known: %q and \"\"", excerpt(r.Service), tandemv1connect.RetrievalServiceName)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if w, ok := ctx.Value(watchKey{}).(*watch); ok && w.changed != nil && h.phase == phaseDraining {
		if w.told {
			return nil, errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
		}
		w.told = true
		w.changed() // asks again once this answer is sent
	}
	if h.phase != phaseReady || h.staleness.exceeded() {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}

// Watch implements [grpchealth.Watcher].
func (h *health) Watch(ctx context.Context, _ *grpchealth.CheckRequest, changed func()) (func(), error) {
	w, ok := ctx.Value(watchKey{}).(*watch)
	if !ok {
		w = &watch{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	w.changed = changed
	h.watches[w] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watches, w)
	}, nil
}

// watched lets Check know a watch by its context.
func watched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), watchKey{}, &watch{})))
	})
}

// live answers whether the process lives: if it answers, it does.
func live(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "ok\n")
}

// readiness answers 200 if requests should be sent here, and 503 with the phase, or with
// how old the knowledge of the releases is, if not.
func (h *health) readiness(w http.ResponseWriter, r *http.Request) {
	p := h.current()
	ready, text := p == phaseReady, phaseNames[p]
	if ready && h.staleness.exceeded() {
		age, _ := h.staleness.age()
		ready, text = false, fmt.Sprintf("stale: what is released was last seen %s ago", age.Round(time.Second))
	}
	if !ready {
		if x := exchangeFrom(r.Context()); x != nil {
			x.told = true // it is an answer
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, text)
}
