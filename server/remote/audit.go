package remote

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/shard"
)

// Audits are exact scans that routers compare answers with. A node does them within a budget of
// its own, one after the other, however long one has to wait ([audit.Scans]). They have a method of
// their own so that they are told from live requests before anything of them is read: they count
// neither as in flight, nor in what a request takes, by which routers choose among nodes. A node
// that does not know the method, or has no budget, cannot take one for a query.

const (
	// maxAudits is how many calls there may be at a time: an audit of a router makes one for each
	// shard, and they wait for one another.
	maxAudits = 256
	// AuditTime is how long one may take, with its wait.
	AuditTime = time.Minute
)

// Audit implements the method of the contract.
func (s service) Audit(ctx context.Context, r *connect.Request[shardv1.AuditRequest]) (*connect.Response[shardv1.AuditResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, AuditTime)
	defer cancel()
	out, err := s.audit(ctx, r.Msg)
	if err != nil {
		if p, ok := errors.AsType[*shard.PanicError](err); ok && s.o.Panicked != nil {
			s.o.Panicked(p)
		}
		return nil, wireError(err)
	}
	return connect.NewResponse(out), nil
}

// audit answers a request.
func (h *Handler) audit(ctx context.Context, m *shardv1.AuditRequest) (*shardv1.AuditResponse, error) {
	search := m.GetSearch()
	switch {
	case h.o.Audits == nil:
		return nil, refusef(NotAudited, "this node has no budget for audits")
	case search.GetPlan() != tandemv1.Plan_PLAN_EXACT_SCAN:
		return nil, refusef(BadQuery, "search.plan is %d; accepted of an audit: PLAN_EXACT_SCAN (%d): %v", search.GetPlan(), tandemv1.Plan_PLAN_EXACT_SCAN, index.ErrQuery)
	}
	return answer(ctx, h, search.GetState(), func(s *held) (*shardv1.AuditResponse, error) {
		out := &shardv1.AuditResponse{}
		used, err := h.o.Audits.Do(ctx, func(ctx context.Context, pause func()) (err error) {
			defer func() { // it is another goroutine than that of answer
				if r := recover(); r != nil {
					err = &shard.PanicError{Shard: s.of.String(), Value: r, Stack: debug.Stack()}
				}
			}()
			out.Search, err = h.searchPausing(ctx, s, search, pause)
			return err
		})
		if errors.Is(err, audit.ErrEnded) {
			return nil, refusef(Stopping, "%v", err)
		}
		out.UsedNanos = uint64(used)
		return out, err
	})
}

// Audit is as [Node.Search], with an exact scan that the node does within its budget for audits. It
// returns how much time of a processor that took there.
func (n *Node) Audit(ctx context.Context, of ShardID, r *shard.Request, names *Names, reply *shard.Reply) (used time.Duration, err error) {
	began := time.Now()
	state, err := n.stateOf(of, r.Moment)
	if err != nil {
		return 0, err
	}
	c := newCall()
	if err := c.write(state, r, names); err != nil {
		return 0, err
	}
	for {
		asked := connect.NewRequest(&shardv1.AuditRequest{Search: c.message})
		n.authorize(asked.Header())
		got, err := n.client.Audit(ctx, asked)
		if err == nil {
			if err := readReply(got.Msg.GetSearch(), r, names, reply); err != nil {
				return 0, n.broken(of, err)
			}
			return time.Duration(min(got.Msg.GetUsedNanos(), uint64(time.Since(began)))), nil // of one thread
		}
		if connect.CodeOf(err) == connect.CodeUnimplemented && ctx.Err() == nil {
			return 0, refusef(NotAudited, "node %s does not audit", n.o.Address)
		}
		err = n.readError(ctx, of.String(), err)
		if refused, ok := errors.AsType[*Refusal](err); !ok || !n.lower(refused, state) {
			return 0, err
		}
	}
}
