package remote

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
)

// enter counts a call that is to be answered now, until done is called, or returns a refusal if
// there are too many.
func (h *Handler) enter() (done func(), err error) {
	n := int(h.inFlight.Add(1))
	if n > h.o.MaxInFlight {
		h.inFlight.Add(-1)
		refused := refusef(Overloaded, "%d requests are in flight, and %d may be", n-1, h.o.MaxInFlight)
		refused.InFlight = n - 1
		return nil, refused.wire()
	}
	began := time.Now()
	return func() {
		h.inFlight.Add(-1)
		h.took(time.Since(began), n)
	}, nil
}

// enterAside counts what is no work on a query now, by a count of its own, as enter does a call.
func enterAside(count *atomic.Int32, most int, what string) (done func(), err error) {
	n := int(count.Add(1))
	done = func() { count.Add(-1) }
	if n > most {
		done()
		refused := refusef(Overloaded, "%d %s are in flight, and %d may be", n-1, what, most)
		refused.InFlight = n - 1
		return nil, refused.wire()
	}
	return done, nil
}

// enterFor is enter for a request of a procedure.
func (h *Handler) enterFor(procedure string) (done func(), err error) {
	switch procedure {
	case shardv1connect.ShardServiceWatchProcedure:
		return enterAside(&h.watches, h.o.MaxWatches, "streams of routers")
	case shardv1connect.ShardServiceAuditProcedure:
		return enterAside(&h.audits, maxAudits, "audits")
	}
	return h.enter()
}

// admitting refuses requests that are too many before anything of them is read.
func (h *Handler) admitting(next http.Handler) http.Handler {
	errors := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done, err := h.enterFor(r.URL.Path)
		if err != nil {
			_ = errors.Write(w, r, err) // who does not read it has gone
			return
		}
		defer done()
		next.ServeHTTP(w, r)
	})
}

// recentRequests is how many requests tell what one takes now.
const recentRequests = 32

// took notes what a request took, beside which there were so many in all. Requests share the
// processors: what one would have taken alone is its part of that. Two that end at a time may
// count as one.
func (h *Handler) took(elapsed time.Duration, inFlight int) {
	alone := int64(elapsed) / int64(max(inFlight/runtime.GOMAXPROCS(0), 1))
	was := h.alone.Load()
	h.alone.Store(was + (alone-was)/recentRequests)
}

// load returns how busy the node is. One more request waits for about as long as those that
// there are take of the processors.
func (h *Handler) load() *shardv1.NodeLoad {
	n := max(h.inFlight.Load(), 0)
	wait := time.Duration(h.alone.Load()) * time.Duration(n) / time.Duration(runtime.GOMAXPROCS(0))
	return &shardv1.NodeLoad{InFlight: uint32(n), QueueMillis: float64(wait) / float64(time.Millisecond)}
}
