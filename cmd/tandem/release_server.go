package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strconv"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// serverReleaser has a server change the releases of its store.
type serverReleaser struct {
	client tandemv1connect.ReleaseServiceClient
}

// openServer returns a client of what a server tells of snapshots and releases.
func openServer(e *environment, f *clientFlags, name string) (*serverReleaser, error) {
	url, err := f.url(name)
	if err != nil {
		return nil, err
	}
	client, err := f.client(0)
	if err != nil {
		return nil, err
	}
	return &serverReleaser{tandemv1connect.NewReleaseServiceClient(client, url, fleet.Bounded(), connect.WithInterceptors(patient(name, e.stderr)))}, nil
}

// Close implements [io.Closer].
func (*serverReleaser) Close() error { return nil }

// history asks for the releases, a page at a time.
func (s *serverReleaser) history(ctx context.Context) iter.Seq2[*release.Release, error] {
	return func(yield func(*release.Release, error) bool) {
		for token := ""; ; {
			page, err := s.client.ListReleases(ctx, connect.NewRequest(&tandemv1.ListReleasesRequest{PageToken: token}))
			if err != nil {
				yield(nil, ofReleases(err))
				return
			}
			for _, e := range page.Msg.Entries {
				r, err := wire.ReleaseOf(e)
				if !yield(r, err) {
					return
				}
			}
			if token = page.Msg.NextPageToken; token == "" {
				return
			}
		}
	}
}

// Includes implements [fleet.Log].
func (s *serverReleaser) Includes(ctx context.Context, r *release.Release, generation uint64, hash appendlog.Hash) error {
	behind := false
	for one, err := range s.history(ctx) {
		switch {
		case err != nil:
			return err
		case one.Generation == generation && one.Hash == hash:
			behind = true
		case one.Generation <= generation && !behind:
			return fmt.Errorf("the log has another generation %d than %s: %w", generation, hash.Short(), appendlog.ErrForked)
		}
		if behind && one.Generation == r.Generation && one.Hash == r.Hash {
			return nil
		}
		if one.Generation <= r.Generation {
			break
		}
	}
	return fmt.Errorf("generation %d does not follow generation %d: %w", generation, r.Generation, appendlog.ErrForked)
}

// expected is what a change says, with the generation that is there where none is named.
func (s *serverReleaser) expected(ctx context.Context, c *release.Change) (*tandemv1.ReleaseChange, error) {
	out := &tandemv1.ReleaseChange{Generation: &c.Generation, Author: shortened(c.Author, maxAuthor), Reason: c.Reason, Restored: c.Restored}
	if c.Generation != 0 {
		return out, nil
	}
	now, err := s.client.ListReleases(ctx, connect.NewRequest(&tandemv1.ListReleasesRequest{PageSize: 1}))
	switch err = ofReleases(err); {
	case errors.Is(err, release.ErrLost) && c.Restored:
		return out, nil // the log begins anew
	case err != nil:
		return nil, err
	}
	out.Generation = &now.Msg.Generation
	return out, nil
}

// maxAuthor is how many bytes of an author a server takes.
const maxAuthor = 256

// changed is the answer to a change.
type changed interface {
	GetRelease() *tandemv1.ReleaseEntry
}

// changeBy has a server make a change, and returns the release.
func changeBy[Q any, A any](ctx context.Context, s *serverReleaser, c *release.Change, call func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), request func(*tandemv1.ReleaseChange) *Q) (*release.Release, *A, error) {
	change, err := s.expected(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	answer, err := call(ctx, connect.NewRequest(request(change)))
	if err != nil {
		return nil, nil, ofChange(err, change.GetGeneration())
	}
	r, err := wire.ReleaseOf(any(answer.Msg).(changed).GetRelease())
	return r, answer.Msg, err
}

func (s *serverReleaser) start(ctx context.Context, snapshot string, o release.StartOptions) (*release.Release, error) {
	r, _, err := changeBy(ctx, s, &o.Change, s.client.Start, func(c *tandemv1.ReleaseChange) *tandemv1.StartRequest {
		return &tandemv1.StartRequest{
			Change: c, Snapshot: snapshot, Arm: o.Arm, Weight: new(uint32(o.Weight)), RecallFloor: o.RecallFloor, Override: o.Override, AutoRollback: o.AutoRollback,
		}
	})
	return r, err
}

func (s *serverReleaser) split(ctx context.Context, o release.SplitOptions) (*release.Release, error) {
	r, _, err := changeBy(ctx, s, &o.Change, s.client.Split, func(c *tandemv1.ReleaseChange) *tandemv1.SplitRequest {
		out := &tandemv1.SplitRequest{
			Change: c, Weights: map[string]uint32{}, Unpin: o.Unpin, Remove: o.Remove, Override: o.Override, AutoRollback: o.AutoRollback,
			Interleaving: wire.Interleaving(o.Interleaving), EndInterleaving: o.EndInterleaving,
			Exploration: wire.Exploration(o.Exploration), EndExploration: o.EndExploration,
		}
		for name, weight := range o.Weights {
			out.Weights[name] = uint32(weight)
		}
		for name, keys := range o.Pins {
			for _, key := range keys {
				out.Pins = append(out.Pins, &tandemv1.Pin{Arm: name, Key: key})
			}
		}
		for i := range o.Variants {
			out.Variants = append(out.Variants, wire.Variant(&o.Variants[i]))
		}
		for i := range o.Unmap {
			out.Unmap = append(out.Unmap, wire.Variant(&o.Unmap[i]))
		}
		return out
	})
	return r, err
}

func (s *serverReleaser) promote(ctx context.Context, c release.Change, arm string) (*release.Release, error) {
	r, _, err := changeBy(ctx, s, &c, s.client.Promote, func(m *tandemv1.ReleaseChange) *tandemv1.PromoteRequest {
		return &tandemv1.PromoteRequest{Change: m, Arm: arm, Override: c.Override, AutoRollback: c.AutoRollback}
	})
	return r, err
}

func (s *serverReleaser) stop(ctx context.Context, o release.StopOptions) (*release.Release, error) {
	r, answer, err := changeBy(ctx, s, &o.Change, s.client.Stop, func(c *tandemv1.ReleaseChange) *tandemv1.StopRequest {
		return &tandemv1.StopRequest{Change: c, Arm: o.Arm}
	})
	if err == nil && o.Before != nil {
		o.Before(wire.PlanOf(answer.Plan, r))
	}
	return r, err
}

func (s *serverReleaser) rollback(ctx context.Context, o release.RollbackOptions) (*release.Release, error) {
	r, answer, err := changeBy(ctx, s, &o.Change, s.client.Rollback, func(c *tandemv1.ReleaseChange) *tandemv1.RollbackRequest {
		return &tandemv1.RollbackRequest{Change: c, To: o.To, AwayFrom: o.AwayFrom}
	})
	if err == nil && o.Before != nil {
		o.Before(wire.PlanOf(answer.Plan, r))
	}
	return r, err
}

// classed is an error of a server's answer that is also of a class of this process.
type classed struct {
	*refusal
	class error
}

// Unwrap returns both.
func (c classed) Unwrap() []error { return []error{c.refusal, c.class} }

// ofReleases returns an error of ReleaseService for people, of the class that it has in the
// store.
func ofReleases(err error) error {
	r := refusalOf(err)
	if r == nil {
		return err
	}
	info := errorInfo(r.err)
	meta := info.GetMetadata()
	switch info.GetReason() {
	case "RELEASE_LOG_LOST":
		return classed{r, release.ErrLost}
	case "RELEASE_CONFLICT":
		return classed{r, release.ErrConflict}
	case "RELEASE_UNREADABLE":
		if readable, err := strconv.ParseUint(meta["readable"], 10, 64); err == nil {
			return classed{r, &release.PastError{Err: r, Readable: readable}}
		}
	case "GATES_FAILED":
		return classed{r, gatesClass(meta)}
	}
	return r
}

// gatesClass returns what the gates have said, as far as it has arrived.
func gatesClass(meta map[string]string) error {
	err := release.ErrGates
	if meta["unproved"] != "" {
		err = fmt.Errorf("%w: %w", err, release.ErrUnproved)
	}
	if gate := meta["gate"]; gate != "" {
		err = fmt.Errorf("%w: %w", err, &gates.FailedError{
			Snapshot: manifest.Digest(meta["snapshot"]), Previous: manifest.Digest(meta["previous"]), Failed: []gates.Row{{Gate: gate}},
		})
	}
	return err
}

// ofChange is ofReleases of a change that was made to a generation. What no server has said
// leaves open whether it was made.
func ofChange(err error, generation uint64) error {
	out := ofReleases(err)
	r, ok := errors.AsType[*refusal](out)
	if !ok || neverSent(err) {
		return out
	}
	open := []connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown, connect.CodeInternal}
	reason := errorInfo(r.err).GetReason()
	if slices.Contains(open, r.err.Code()) && slices.Contains([]string{"", "INTERNAL"}, reason) {
		return &release.UnknownError{Generation: generation + 1, Err: out}
	}
	return out
}

// neverSent reports whether an error says that there was no connection to send anything by.
func neverSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
