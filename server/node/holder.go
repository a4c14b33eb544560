package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// patience is how long a query waits for a position that is to come: about as long as reading
// the log up to it takes, after which another replica is more likely to have it.
const patience = 250 * time.Millisecond

// Acquire implements [remote.Holder].
func (n *Node) Acquire(ctx context.Context, of remote.ShardID, at shard.Position) (*shard.Tower, func(), error) {
	m, err := n.mapping(of)
	if err != nil {
		return nil, nil, err
	}
	if over := m.layer.Have(at); over != nil {
		return over.Tower, m.release, nil
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	over, err := m.layer.At(waiting, at)
	if err == nil {
		return over.Tower, m.release, nil
	}
	m.release()
	refusal := &remote.Refusal{Text: fmt.Sprintf("%s: %v", of, err)}
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case errors.Is(err, livelog.ErrGone):
		refusal.Reason = remote.PositionGone
	case errors.Is(err, sections.ErrUnreadable):
		refusal.Reason = remote.Unreadable
	default:
		refusal.Reason = remote.Behind
	}
	return nil, nil, refusal
}

// mapping returns what is open of a shard, which the caller releases.
func (n *Node) mapping(of remote.ShardID) (*mapping, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.ended {
		return nil, &remote.Refusal{Reason: remote.Stopping, Text: "the node has stopped"}
	}
	s := n.slots[key{of.Snapshot, of.Tower, of.Number}]
	if s == nil || s.withdrawn || s.now == nil || s.of() != of.Of || !s.now.acquire() {
		return nil, &remote.Refusal{Reason: remote.NotHeld, Text: fmt.Sprintf("%s is not held here", of)}
	}
	return s.now, nil
}

// Status implements [remote.Holder]. It changes at most every 20 ms.
func (n *Node) Status() (*shardv1.NodeStatus, <-chan struct{}) { return n.board.read() }

// mostUsed is how many snapshots one router may use: all arms of a release, and those of the one
// that it switches to, twice over.
const mostUsed = 64

// Uses implements [remote.Holder]. What is no digest, and what is more than 64 of them, does not
// count.
func (n *Node) Uses(_ string, list []string) (end func()) {
	u := &use{}
	for _, text := range list[:min(len(list), mostUsed)] {
		if d := manifest.Digest(text); d.Valid() {
			u.snapshots = append(u.snapshots, d)
		}
	}
	n.mu.Lock()
	n.uses[u] = struct{}{}
	n.mu.Unlock()
	n.poke()
	return func() {
		n.mu.Lock()
		delete(n.uses, u)
		n.mu.Unlock()
		n.poke()
	}
}

// Unreadable notes that a query of a shard could not read its file: the status says so, and it
// is opened again, by a download where there is a cache.
func (n *Node) Unreadable(of remote.ShardID, err *shard.UnreadableError) {
	m, acquireErr := n.mapping(of)
	if acquireErr != nil {
		return
	}
	defer m.release()
	if m.lost.CompareAndSwap(nil, err) {
		n.board.changed()
		n.poke()
	}
}
