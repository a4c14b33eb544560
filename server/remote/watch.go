package remote

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/shard/manifest"
)

const (
	// statusEvery is how long it takes at most until a status is sent again, with the load.
	statusEvery = time.Second
	// statusPause is how long it takes at least: changes in the meantime are told at once.
	statusPause = 10 * time.Millisecond
	// What a router may name.
	maxRouterName    = 256
	maxUsedSnapshots = 64
)

// errStopping ends the streams of a handler that is shut down.
var errStopping error = refusef(Stopping, "the node was told to stop")

// watch sends the status of the node until the router goes.
func (h *Handler) watch(ctx context.Context, m *shardv1.WatchRequest, stream *connect.ServerStream[shardv1.WatchResponse]) error {
	if err := h.checkWatch(m); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.streaming, cancel)()
	defer h.holder.Uses(m.GetRouter(), m.GetSnapshots())()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		status, changed := h.holder.Status()
		told := proto.CloneOf(status)
		told.Protocol, told.OldestProtocol = h.protocol, h.oldest
		told.Load, told.Audits = h.load(), h.o.Audits != nil
		if err := stream.Send(&shardv1.WatchResponse{Status: told}); err != nil {
			return err
		}
		for _, wait := range []struct {
			most    time.Duration
			changed <-chan struct{}
		}{{statusPause, nil}, {statusEvery - statusPause, changed}} {
			timer.Reset(wait.most)
			select {
			case <-ctx.Done():
				if h.streaming.Err() != nil {
					return errStopping
				}
				return ctx.Err()
			case <-wait.changed:
			case <-timer.C:
			}
		}
	}
}

// checkWatch returns a refusal unless a router may watch as it asks.
func (h *Handler) checkWatch(m *shardv1.WatchRequest) error {
	if err := h.checkProtocol(m.GetProtocol()); err != nil {
		return err
	}
	switch {
	case m.GetRouter() == "" || len(m.GetRouter()) > maxRouterName:
		return refusef(BadQuery, "router has %d bytes; accepted: 1 to %d", len(m.GetRouter()), maxRouterName)
	case len(m.GetSnapshots()) > maxUsedSnapshots:
		return refusef(BadQuery, "snapshots has %d digests; accepted: up to %d", len(m.GetSnapshots()), maxUsedSnapshots)
	}
	for _, s := range m.GetSnapshots() {
		if !manifest.Digest(s).Valid() {
			return refusef(BadQuery, "snapshots has %.80q; accepted: digests of snapshots", s)
		}
	}
	return nil
}
