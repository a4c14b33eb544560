package server

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Cluster says which nodes a router asks, and how.
type Cluster struct {
	// Router says how nodes are asked. Its Events are those of the server, and so is its Fence.
	Router router.Options
	// Watch tells which nodes there are, whenever that changes, until ctx ends. If who lists
	// them cannot be asked, or something is wrong with that, failed is called with why, and with
	// nil whenever all is well. Required.
	Watch func(ctx context.Context, told func([]router.Member), failed func(error))
}

const (
	// fullPatience is how long a release waits for as many replicas of each shard as there are
	// to be, beside what answers, and onePatience for one after that.
	fullPatience = 30 * time.Second
	onePatience  = 10 * time.Second
)

// route makes the service a router, if it is to be one.
func (s *Service) route(c *Config) {
	if c.Cluster == nil {
		return
	}
	o := c.Cluster.Router
	o.Events = s.events
	if !c.Live.AnswerStale {
		o.Fence = cmp.Or(c.Live.Fence, DefaultFence)
	}
	s.router = router.New(o)
	s.health.behind = s.nodesBehind
}

// nodesBehind reports whether queries are refused since the position that nodes are asked at is
// beyond the fence, though the router has read the log.
func (s *Service) nodesBehind() bool {
	now := s.current.Load()
	if now == nil {
		return false
	}
	for i := range now.arms {
		if s.begin(now.arms[i].pin(time.Time{})) != nil {
			return true
		}
	}
	return false
}

// startRouting has the nodes watched until end is called.
func (s *Service) startRouting(c *Config) (end func()) {
	if s.router == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.router.Run(ctx)
	}()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.Cluster.Watch(ctx, s.router.Members, s.membersFailed())
	}()
	return func() {
		cancel()
		<-done
		<-watched
	}
}

// viewed returns who is told of what was read of the live log; nil for nobody.
func (s *Service) viewed() func(*live.View) {
	if s.router == nil {
		return nil
	}
	return s.router.Published
}

// openElsewhere opens a snapshot whose shards nodes hold. Where nothing answers yet, one node
// for each is enough.
func (s *Service) openElsewhere(ctx context.Context, store *snapshots.Store, d manifest.Digest) (*serving, error) {
	m, err := store.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	one := s.current.Load() == nil
	l, err := s.router.Open(ctx, d, m, one, fullPatience)
	if _, short := errors.AsType[*router.NotReadyError](err); short && !one {
		l, err = s.router.Open(ctx, d, m, true, onePatience)
	}
	if err != nil {
		return nil, err
	}
	return s.newServing(l, l), nil
}

// membersFailed returns what tells when it begins that something is wrong with who lists the
// nodes, and when it ends. It is for one goroutine.
func (s *Service) membersFailed() func(error) {
	failed := ""
	return func(err error) {
		switch {
		case err == nil && failed != "":
			failed = ""
			s.unlisted.Store(nil)
			s.events.Nodes(events.Nodes{Change: events.MembersBack})
		case err != nil && err.Error() != failed:
			failed = err.Error()
			s.unlisted.Store(new(failed))
			s.events.Nodes(events.Nodes{Change: events.MembersFailed, Err: err})
		}
	}
}
