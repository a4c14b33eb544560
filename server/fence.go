package server

import (
	"context"
	"math"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// The fence bounds for how long an app that was taken down may still be returned. The proof
// that the live log ended where an answer has it must be younger than the fence when the
// first byte of the answer is written. Before any work is done it is looked at too, but that
// saves work and no more: what takes long may have been young when it began.

// StaleHeader is the header of an answer, with the value true, that is given although its
// staleness is beyond the fence.
const StaleHeader = "Tandem-Stale"

// pinned is an arm as one request sees it: with what is laid over its snapshot at one
// position, and by one reading of the clock.
type pinned struct {
	*arm
	laid *livelog.Laid // nil where no live log is followed
	at   shard.Moment
	// twin is the other arm of a request that is to be interleaved, and explore how one explores;
	// nil for the others.
	twin    *twin
	explore *exploring
}

// release lets go of the arm, and of the other one.
func (p *pinned) release() {
	p.arm.release()
	if p.twin != nil && p.twin.pinned != nil {
		p.twin.pinned.release()
	}
}

// views are those of the live log that an answer is of.
func (p *pinned) views() (list []*live.View) {
	if p.laid != nil {
		list = append(list, p.laid.View)
	}
	if p.twin != nil && p.twin.pinned != nil && p.twin.laid != nil {
		list = append(list, p.twin.laid.View)
	}
	return list
}

// pin returns the arm as it is now, for a request that arrived at a time.
func (a *arm) pin(arrived time.Time) *pinned {
	p := &pinned{arm: a, at: shard.Moment{Snapshot: string(a.snapshot.Digest()), Time: arrived}}
	if a.layer != nil {
		p.laid = a.layer.Now()
		p.at.Position = p.laid.Position()
	}
	return p
}

// tower returns one tower of the snapshot, with what is laid over it.
func (p *pinned) tower(kind shard.Kind) *shard.Tower {
	switch {
	case p.laid == nil:
		return p.snapshot.Tower(kind)
	case kind == shard.Users:
		return p.laid.Users
	}
	return p.laid.Apps
}

// stamp returns the position in the live log that an answer has, and how old its proof is;
// nil and nil where no log is followed.
func (p *pinned) stamp() (*tandemv1.LivePosition, *durationpb.Duration) {
	if p.laid == nil {
		return nil, nil
	}
	return wire.LivePosition(p.at.Position), duration(p.laid.View.Proof.Age())
}

// begin returns an error if an answer of what is pinned would be refused now.
func (s *Service) begin(p *pinned) error {
	if p.laid == nil || s.live.AnswersStale() {
		return nil
	}
	return s.past(p.views())
}

// guard has an answer of what was pinned checked before its first byte is written. Where
// there is no request that could be, it is checked now.
func (s *Service) guard(ctx context.Context, p *pinned) error {
	c := callFrom(ctx)
	if c == nil {
		return s.begin(p)
	}
	if p.laid != nil && !slices.Contains(c.views, p.laid.View) {
		c.views = append(c.views, p.laid.View)
	}
	if p.twin != nil && p.twin.pinned != nil && p.twin.laid != nil && !slices.Contains(c.views, p.twin.laid.View) {
		c.views = append(c.views, p.twin.laid.View)
	}
	return nil
}

// past returns an error if the proof of a view is beyond the fence.
func (s *Service) past(views []*live.View) error {
	for _, v := range views {
		if age := v.Proof.Age(); age > s.live.Fence() {
			return s.stale(age)
		}
	}
	return nil
}

// stale is the error of a request whose answer would have a staleness beyond the fence.
func (s *Service) stale(age time.Duration) error {
	err := errorf(connect.CodeUnavailable, reasonStale,
		"the live log was last proved to end where it is read to %s, and the fence is %s: what was taken down since is not known",
		ago(age), s.live.Fence())
	retryLater(err)
	return err
}

// ago is how texts tell an age; the longest is that of what never was.
func ago(age time.Duration) string {
	if age == math.MaxInt64 {
		return "at no time that is known"
	}
	return age.Round(time.Millisecond).String() + " ago"
}

// retryLater has an error say when to retry.
func retryLater(err *connect.Error) {
	addDetail(err, &errdetails.RetryInfo{RetryDelay: duration(retryAfter)})
	err.Meta().Set("Retry-After", "1")
}

// finisher is what is left to do for a request that has an answer: it is told to the log,
// and its proofs are looked at last.
type finisher struct {
	service   *Service
	ctx       context.Context
	procedure string
	id        string
	start     time.Time
}

// pass is called before the first byte of an answer is written, with its header. The error
// is what the caller gets instead of the answer.
func (f *finisher) pass(views []*live.View, header http.Header) *connect.Error {
	if err := f.service.past(views); err != nil {
		if !f.service.live.AnswersStale() {
			return f.service.failed(f.ctx, f.procedure, f.id, f.start, err)
		}
		header.Set(StaleHeader, "true")
	}
	f.tell()
	return nil
}

// tell tells of the request, which did not fail.
func (f *finisher) tell() { f.service.ended(f.ctx, f.procedure, f.id, f.start, nil, nil) }
