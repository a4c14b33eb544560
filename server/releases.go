package server

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// releaseDesk is ReleaseService: what a server tells of the snapshots and releases of its
// store, and changes of these. Its fields are set before the first request.
type releaseDesk struct {
	service  *Service
	releases *release.Releases // nil where there is no store
	writes   bool              // whether it takes changes
	compare  Compare           // nil if it compares nothing
}

var _ tandemv1connect.ReleaseServiceHandler = (*releaseDesk)(nil)

// Compare compares a snapshot with another one, and returns what is told of it as JSON. It
// does not keep them.
type Compare func(ctx context.Context, candidate, previous *snapshots.Snapshot) (any, error)

const (
	// maxReleaseCalls is how many calls to ReleaseService are under way at a time: each may
	// wait for the store.
	maxReleaseCalls = 16
	// entryTime is what a processor takes for an entry of the log, or for a run of the gates,
	// and describeTime for a snapshot with all that was found of it.
	entryTime    = 100 * time.Microsecond
	describeTime = time.Millisecond
	// entryBytes is about what an answer has for one.
	entryBytes = 8 << 10
)

// admitted lets a call in that does some work for each of n things that an answer has, and has
// what it waits for not count as work. It ends a little before its deadline, for its answer to
// come in time.
func (d *releaseDesk) admitted(ctx context.Context, n int, each time.Duration) (context.Context, context.CancelFunc, error) {
	if d.releases == nil {
		return nil, nil, errorf(connect.CodeUnavailable, reasonNotReady, "the server has no store")
	}
	if c := callFrom(ctx); c != nil {
		k := cost{work: time.Duration(n) * each, answer: answerOverhead + n*entryBytes}
		k.memory = (1 + encodings) * k.answer
		if err := c.admit(ctx, k); err != nil {
			return nil, nil, err
		}
		c.worked()
	}
	bounded, cancel := beforeDeadline(ctx)
	return bounded, cancel, nil
}

// change lets a change in, makes it and says what serves.
func (d *releaseDesk) change(ctx context.Context, r *tandemv1.ReleaseChange, peer string, make func(context.Context, release.Change) (*release.Release, error)) (*tandemv1.ReleaseEntry, error) {
	if err := d.writable(ctx); err != nil {
		return nil, err
	}
	if state, why := d.service.staleness.look(); livelog.Broken(state) && !r.Restored {
		return nil, errorf(connect.CodeFailedPrecondition, reasonReleasesBroken, "the log of releases in the store is not the one that the server follows, and generation %d may be another one than was meant: %w; accepted: with restored, which has the log in the store count", r.GetGeneration(), why)
	}
	bounded, cancel, err := d.admitted(ctx, 1, describeTime)
	if err != nil {
		return nil, err
	}
	defer cancel()
	next, err := make(bounded, release.Change{
		Author: authorOf(ctx, r.Author, peer), Reason: r.Reason, Generation: r.GetGeneration(), First: r.GetGeneration() == 0, Restored: r.Restored,
	})
	if err != nil {
		return nil, d.changeError(bounded, err)
	}
	entry, err := next.Encode()
	if err != nil {
		return nil, err
	}
	return wire.Release(next, entry), nil
}

// writable returns an error unless the server takes changes of a request.
func (d *releaseDesk) writable(ctx context.Context) error {
	if err := meant(ctx); err != nil {
		return err
	}
	switch {
	case !d.writes:
		return errorf(connect.CodePermissionDenied, reasonWrites, "the server changes no releases, as it was not told to; accepted: by one that was, or by whoever may write to the store")
	case d.service.health.current() == phaseDraining:
		return errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	}
	return nil
}

// maxAuthor is how many bytes there are of who makes a change, of what is known and of what it
// says.
const maxAuthor = 256

// authorOf returns who makes a change: by the name that the caller is known by, or else by what
// the request says, with its address.
func authorOf(ctx context.Context, said, peer string) string {
	name := peer
	if x := exchangeFrom(ctx); x != nil && x.callerName() != "" {
		name = x.callerName()
	} else if said != "" {
		name, said = said, peer
	}
	name, said = cut(name, maxAuthor), cut(said, maxAuthor)
	if said == "" || said == name {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, said)
}

// Start implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) Start(ctx context.Context, r *connect.Request[tandemv1.StartRequest]) (*connect.Response[tandemv1.StartResponse], error) {
	m := r.Msg
	weight := defaultWeight
	if m.Weight != nil {
		weight = int(*m.Weight)
	}
	entry, err := d.change(ctx, m.Change, r.Peer().Addr, func(ctx context.Context, c release.Change) (*release.Release, error) {
		c.Override, c.AutoRollback = m.Override, m.AutoRollback
		digest, err := d.resolve(ctx, "snapshot", m.Snapshot)
		if err != nil {
			return nil, err
		}
		return d.releases.Start(ctx, release.StartOptions{Change: c, Snapshot: digest, Arm: m.Arm, Weight: weight, RecallFloor: m.RecallFloor})
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.StartResponse{Release: entry}), nil
}

// defaultWeight is the share of traffic of an arm that starts beside others, per mille.
const defaultWeight = 10

// Split implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) Split(ctx context.Context, r *connect.Request[tandemv1.SplitRequest]) (*connect.Response[tandemv1.SplitResponse], error) {
	m := r.Msg
	o := release.SplitOptions{Unpin: m.Unpin, Remove: m.Remove, Weights: map[string]int{}, Pins: map[string][]string{}}
	for name, weight := range m.Weights {
		o.Weights[name] = int(weight)
	}
	for _, p := range m.Pins {
		o.Pins[p.GetArm()] = append(o.Pins[p.GetArm()], p.GetKey())
	}
	for _, v := range m.Variants {
		o.Variants = append(o.Variants, wire.VariantOf(v))
	}
	for _, v := range m.Unmap {
		o.Unmap = append(o.Unmap, wire.VariantOf(v))
	}
	o.Interleaving, o.EndInterleaving = wire.InterleavingOf(m.Interleaving), m.EndInterleaving
	o.Exploration, o.EndExploration = wire.ExplorationOf(m.Exploration), m.EndExploration
	entry, err := d.change(ctx, m.Change, r.Peer().Addr, func(ctx context.Context, c release.Change) (*release.Release, error) {
		o.Change = c
		o.Override, o.AutoRollback = m.Override, m.AutoRollback
		return d.releases.Split(ctx, o)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.SplitResponse{Release: entry}), nil
}

// Promote implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) Promote(ctx context.Context, r *connect.Request[tandemv1.PromoteRequest]) (*connect.Response[tandemv1.PromoteResponse], error) {
	m := r.Msg
	entry, err := d.change(ctx, m.Change, r.Peer().Addr, func(ctx context.Context, c release.Change) (*release.Release, error) {
		c.Override, c.AutoRollback = m.Override, m.AutoRollback
		return d.releases.Promote(ctx, c, m.Arm)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.PromoteResponse{Release: entry}), nil
}

// Stop implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) Stop(ctx context.Context, r *connect.Request[tandemv1.StopRequest]) (*connect.Response[tandemv1.StopResponse], error) {
	var plan release.Plan
	entry, err := d.change(ctx, r.Msg.Change, r.Peer().Addr, func(ctx context.Context, c release.Change) (*release.Release, error) {
		return d.releases.Stop(ctx, release.StopOptions{Change: c, Arm: r.Msg.Arm, Before: func(p release.Plan) { plan = p }})
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.StopResponse{Release: entry, Plan: wire.Plan(&plan)}), nil
}

// Rollback implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) Rollback(ctx context.Context, r *connect.Request[tandemv1.RollbackRequest]) (*connect.Response[tandemv1.RollbackResponse], error) {
	var plan release.Plan
	entry, err := d.change(ctx, r.Msg.Change, r.Peer().Addr, func(ctx context.Context, c release.Change) (*release.Release, error) {
		o := release.RollbackOptions{Change: c, To: r.Msg.To, AwayFrom: r.Msg.AwayFrom, Before: func(p release.Plan) { plan = p }}
		return d.releases.Rollback(ctx, o)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.RollbackResponse{Release: entry, Plan: wire.Plan(&plan)}), nil
}

// pageSize returns how many things a page has.
func pageSize(asked uint32, usual int) int { return cmp.Or(int(asked), usual) }
