package remote

import (
	"net/http"
	"runtime"
	"time"

	"connectrpc.com/connect"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
)

// admitting refuses requests that are too many before anything of them is read.
func (h *handler) admitting(next http.Handler) http.Handler {
	errors := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count, most, live := &h.inFlight, h.o.MaxInFlight, false
		switch r.URL.Path {
		case shardv1connect.ShardServiceWatchProcedure:
			count, most = &h.watches, h.o.MaxWatches
		case shardv1connect.ShardServiceAuditProcedure:
			count, most = &h.audits, maxAudits
		default:
			live = true
		}
		n := int(count.Add(1))
		defer count.Add(-1)
		if n > most {
			refused := refusef(Overloaded, "%d requests are in flight, and %d may be", n-1, most)
			refused.InFlight = n - 1
			_ = errors.Write(w, r, refused.wire()) // who does not read it has gone
			return
		}
		if !live {
			next.ServeHTTP(w, r)
			return
		}
		began := time.Now()
		next.ServeHTTP(w, r)
		h.took(time.Since(began), n)
	})
}

// recentRequests is how many requests tell what one takes now.
const recentRequests = 32

// took notes what a request took, beside which there were so many in all. Requests share the
// processors: what one would have taken alone is its part of that. Two that end at a time may
// count as one.
func (h *handler) took(elapsed time.Duration, inFlight int) {
	alone := int64(elapsed) / int64(max(inFlight/runtime.GOMAXPROCS(0), 1))
	was := h.alone.Load()
	h.alone.Store(was + (alone-was)/recentRequests)
}

// load returns how busy the node is. One more request waits for about as long as those that
// there are take of the processors.
func (h *handler) load() *shardv1.NodeLoad {
	n := max(h.inFlight.Load(), 0)
	wait := time.Duration(h.alone.Load()) * time.Duration(n) / time.Duration(runtime.GOMAXPROCS(0))
	return &shardv1.NodeLoad{InFlight: uint32(n), QueueMillis: float64(wait) / float64(time.Millisecond)}
}
