package server

import (
	"errors"
	"fmt"
	"sync"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
)

// lostShards are the shards of a snapshot that can no longer be read while it answers.
type lostShards struct {
	mu   sync.Mutex
	list []*shard.UnreadableError // the first of each shard
}

// add reports whether the shard was not among them yet.
func (l *lostShards) add(e *shard.UnreadableError) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, known := range l.list {
		if known.Shard == e.Shard {
			return false
		}
	}
	l.list = append(l.list, e)
	return true
}

// text says which shards they are, empty if there are none.
func (l *lostShards) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := len(l.list); n {
	case 0:
		return ""
	case 1:
		return l.list[0].Error()
	default:
		return fmt.Sprintf("%v; and %d more", l.list[0], n-1)
	}
}

// count returns how many there are.
func (l *lostShards) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list)
}

// noteLost remembers the shards that did not answer because they cannot be read, from
// what a tower found or why it did not answer. Each is told of once, or every query would
// tell of it.
func (s *Service) noteLost(a *serving, found *shard.Answer, err error) {
	var all []*shard.UnreadableError
	if short, ok := errors.AsType[*shard.CoverageError](err); ok {
		all = short.Unreadable
	} else if one, ok := errors.AsType[*shard.UnreadableError](err); ok {
		all = append(all, one)
	}
	if found != nil {
		all = found.Unreadable()
	}
	for _, e := range all {
		if a.lost.add(e) {
			s.events.ShardLost(events.ShardLost{Snapshot: a.snapshot.Digest(), Shard: e.Shard, Err: e.Fault})
		}
	}
}
