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
	"github.com/tandem-ann/tandem/server/livelog"
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
	staleness *staleness        // of what is served
	live      *livelog.Follower // set before the first request, or nil
	behind    func() bool       // whether nodes are so far behind that answers are refused; set likewise, or nil
	terse     bool              // whoever asks is told ready or not, and not why; set likewise

	mu      sync.Mutex
	phase   phase
	started bool // it was ready once
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
	h.started = h.started || p == phaseReady
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
	if !h.serves(h.phase) {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}

// ready reports whether requests should be sent here.
func (h *health) ready() bool { return h.serves(h.current()) }

// serves is ready for a service in a phase.
func (h *health) serves(p phase) bool {
	return p == phaseReady && !h.staleness.exceeded() && !h.refuses()
}

// refuses reports whether queries are refused because of the fence.
func (h *health) refuses() bool {
	return h.live != nil && h.live.Refuses() || h.behind != nil && h.behind()
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

// The paths of probes.
const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// alive answers whether the process lives: if it answers, it does.
func alive(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "ok\n")
}

// startup answers 200 once queries could be answered, whatever has become of that, and 503
// before.
func (h *health) startup(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	started := h.started
	h.mu.Unlock()
	text := "started"
	if !started {
		text = phaseNames[h.current()]
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, text)
}

// readiness answers 200 if requests should be sent here, and 503 with the phase, or with
// how old the knowledge of the releases or of the live log is, if not.
func (h *health) readiness(w http.ResponseWriter, r *http.Request) {
	p := h.current()
	ready, text := p == phaseReady, phaseNames[p]
	if ready && h.staleness.exceeded() {
		age, _ := h.staleness.age()
		ready, text = false, fmt.Sprintf("stale: what is released was last seen %s ago", age.Round(time.Second))
	}
	if ready && h.refuses() {
		ready, text = false, fmt.Sprintf("stale: the live log was last proved %s, and the fence is %s", ago(h.live.Age()), h.live.Fence())
		if !h.live.Refuses() {
			text = fmt.Sprintf("stale: nodes are behind the live log, by more than the fence, which is %s", h.live.Fence())
		}
	}
	if !ready {
		if x := exchangeFrom(r.Context()); x != nil {
			x.told = true // it is an answer
		}
		if h.terse {
			text = "not ready"
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, text)
}
