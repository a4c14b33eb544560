package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/release"
)

const (
	// What fails is tried again after firstRetry, and then twice as long each time, up to
	// lastRetry, or to corruptRetry if a file is damaged: reading all of it again costs much and
	// is likely to find the same.
	firstRetry   = time.Second
	lastRetry    = 10 * time.Second
	corruptRetry = time.Minute
)

// first returns the newest release. A store that does not answer is asked again: a node that
// starts meanwhile need not start again for that.
func (n *Node) first(ctx context.Context) (*release.Release, error) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		first, unreadable, err := n.releases.Newest(ctx)
		switch {
		case err == nil:
			return first, nil
		case errors.Is(err, release.ErrNone) && unreadable != nil:
			return nil, fmt.Errorf("read releases: %w", unreadable)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, release.ErrNone), errors.Is(err, release.ErrLost), appendlog.IsBroken(err):
			return nil, fmt.Errorf("read releases: %w", err)
		}
		n.events.Releases(events.Releases{Change: events.Unreadable, Err: err})
		if !rest(ctx, retry) {
			return nil, ctx.Err()
		}
	}
}

// rest waits, and reports whether ctx has not ended.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// recall returns an error if the log of releases is not what it was, unless a person accepts it.
func (n *Node) recall(ctx context.Context, first *release.Release) error {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		err := n.releases.Recall(ctx, n.c.Memory)
		accept := n.c.Live.Accept
		if errors.Is(err, release.ErrTimeTravel) && accept != nil && *accept == n.live.Position() {
			err = first.Accept(ctx, n.c.Memory)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, release.ErrTimeTravel):
			return fmt.Errorf("read releases: %w", err)
		}
		n.events.Releases(events.Releases{Change: events.Unreadable, Err: err})
		if !rest(ctx, retry) {
			return ctx.Err()
		}
	}
}

// watch reads the log behind a release until ctx ends.
func (n *Node) watch(ctx context.Context, after *release.Release) {
	state := tandemv1.LogState_LOG_STATE_FOLLOWED
	failed := func(err error) {
		was, now := state, livelog.StateOf(err)
		if now == was || now == tandemv1.LogState_LOG_STATE_UNREAD && livelog.Broken(was) {
			return
		}
		state = now
		if livelog.Broken(now) {
			n.events.Releases(events.Releases{Change: events.Broken, Err: err})
		} else {
			n.events.Releases(events.Releases{Change: events.Unreadable, Err: err})
		}
	}
	err := n.releases.Watch(ctx, after, release.Watcher{
		Apply: n.note,
		Unreadable: func(u *release.UnreadableError) {
			n.events.Releases(events.Releases{Change: events.EntryUnreadable, Err: u})
		},
		Restored: func(r *appendlog.RestoredError) {
			n.events.Releases(events.Releases{Change: events.Restored, Generation: r.Entry.Sequence, Err: r.Err})
			state = tandemv1.LogState_LOG_STATE_FOLLOWED
		},
		Proved: func(time.Time) {
			switch {
			case livelog.Broken(state):
				n.events.Releases(events.Releases{Change: events.Mended})
			case state != tandemv1.LogState_LOG_STATE_FOLLOWED:
				n.events.Releases(events.Releases{Change: events.Readable})
			}
			state = tandemv1.LogState_LOG_STATE_FOLLOWED
		},
		Failed: failed,
	})
	if ctx.Err() == nil {
		failed(err)
		n.events.Releases(events.Releases{Change: events.Unfollowed, Err: err})
	}
}

// note remembers the newest release.
func (n *Node) note(r *release.Release) {
	n.mu.Lock()
	n.newest = r
	n.mu.Unlock()
	n.board.changed()
	n.poke()
}
