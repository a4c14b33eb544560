package server

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
)

// PriorityHeader is the header in which a request says that it is less urgent than the token
// of its caller has it: live, batch or audit. Where there is too much to do, those of batch are
// refused before those that are live, and audits before both.
const PriorityHeader = "Tandem-Priority"

// guarded lets requests through whose callers may do what they ask, before anything of them is
// read but their headers, and counts what each caller has in flight. Probes pass.
func guarded(g *auth.Guard, refused *refusals, next http.Handler) http.Handler {
	if g == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need := auth.Needed(r.URL.Path)
		if need == 0 {
			next.ServeHTTP(w, r)
			return
		}
		id, denied := g.Identify(r)
		if denied == nil {
			exchangeFrom(r.Context()).identity = id
			denied = id.Check(need)
		}
		if denied != nil {
			if denied.Denial != auth.NoScope && protocolOf(r) == "connect" { // gRPC would make it a trailer
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			refused.refuse(w, r, refusalKey{denial: denied.Denial, text: denied.Error()}, func() *connect.Error { return deniedError(denied) })
			return
		}
		if err := id.Caller.Begin(time.Now()); err != nil {
			err.Retry = coarse(err.Retry)
			key := refusalKey{shed: quotaShed(err), said: err.Retry, caller: err.Caller, quota: err.Quota}
			refused.refuse(w, r, key, func() *connect.Error { return quotaError(err) })
			return
		}
		defer id.Caller.End()
		next.ServeHTTP(w, r)
	})
}

// deniedError gives a refusal its code and its reason.
func deniedError(d *auth.DeniedError) *connect.Error {
	switch d.Denial {
	case auth.NoScope:
		return errorf(connect.CodePermissionDenied, reasonScope, "%w", d)
	case auth.NoToken:
		return errorf(connect.CodeUnauthenticated, reasonNoToken, "%w", d)
	case auth.ExpiredToken:
		return errorf(connect.CodeUnauthenticated, reasonExpired, "%w", d)
	case auth.NoCertificate, auth.BadCertificate:
		return errorf(connect.CodeUnauthenticated, reasonCertificate, "%w", d)
	}
	return errorf(connect.CodeUnauthenticated, reasonToken, "%w", d)
}

// quotaError gives the error of a caller that has taken its quota its code and its reason, and
// a hint when to retry.
func quotaError(exceeded *auth.ExceededError) *connect.Error {
	retry := coarse(exceeded.Retry)
	out := errorf(connect.CodeResourceExhausted, reasonQuota, "%w; retry in %s", &shedError{exceeded, quotaShed(exceeded)}, retry)
	addDetail(out, &errdetails.RetryInfo{RetryDelay: duration(retry)})
	out.Meta().Set("Retry-After", fmt.Sprint(int(math.Ceil(retry.Seconds()))))
	return out
}

// quotaShed returns what a caller has too much of.
func quotaShed(exceeded *auth.ExceededError) events.Shed {
	if exceeded.InTime {
		return events.ShedQuotaCPU
	}
	return events.ShedQuotaInFlight
}

// priorityOf returns the priority of a request: that of its caller, or a lower one that it
// says.
func (x *exchange) priorityOf(header http.Header) (auth.Priority, *connect.Error) {
	least := auth.LivePriority
	if x != nil && x.identity != nil {
		least = x.identity.Priority
	}
	values := header[PriorityHeader]
	if len(values) == 0 {
		return least, nil
	}
	said, err := auth.ParsePriority(values[0])
	if err != nil || len(values) > 1 {
		return 0, invalidf(reasonHeader, "", "header %s is %q, given %d times; accepted: live, batch or audit, once", PriorityHeader, excerpt(values[0]), len(values))
	}
	return max(said, least), nil
}

// callerName returns the name of who has sent the request, empty where that is not known.
func (x *exchange) callerName() string {
	if x.identity == nil {
		return ""
	}
	return x.identity.Caller.Name
}

// charge takes what admitted work costs of the quota of the caller.
func (x *exchange) charge(work time.Duration) *auth.ExceededError {
	if x == nil || x.identity == nil {
		return nil
	}
	return x.identity.Caller.Take(work, time.Now())
}

// refund gives back what charge took for work that was refused all the same.
func (x *exchange) refund(work time.Duration) {
	if x != nil && x.identity != nil {
		x.identity.Caller.GiveBack(work)
	}
}
