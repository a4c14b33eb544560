package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/querylog"
	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
)

const (
	// liveWindow is how far back recorded queries are looked at.
	liveWindow = 7 * 24 * time.Hour
	// livePatience is how long reading them may take.
	livePatience = time.Minute
)

// liveFilters returns what reads the filters of a store's recorded queries, for the gates.
func liveFilters(store *shard.Store) func(context.Context) (*gate.LiveFilters, error) {
	return func(ctx context.Context) (*gate.LiveFilters, error) {
		since := time.Now().Add(-liveWindow)
		log := querylog.Of(store.Objects())
		bounded, cancel := context.WithTimeout(ctx, livePatience)
		defer cancel()
		found, err := server.ReadLiveFilters(bounded, log, since)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("reading those of the last %d days takes more than %s", int(liveWindow.Hours()/24), livePatience)
		}
		if err != nil {
			return nil, err
		}
		out := &gate.LiveFilters{Queries: found.Queries, Beyond: found.Beyond, Since: since}
		for _, f := range found.List {
			out.List = append(out.List, gate.LiveFilter(f))
		}
		return out, nil
	}
}

// judgeNow judges a snapshot that is about to be released beside what answers most queries.
func judgeNow(ctx context.Context, store *shard.Store, d shard.Digest) (*gate.Verdict, error) {
	live := gate.Live{Filters: liveFilters(store)}
	releases := release.New(store, nil)
	now, _, err := releases.Newest(ctx)
	if err != nil && !errors.Is(err, release.ErrNone) {
		return nil, err
	}
	if now == nil {
		return gate.JudgeNow(ctx, store, d, live)
	}
	live.Lately = lately(ctx, releases, now)
	if most := mostTraffic(now); most.Snapshot != d {
		live.Released, err = store.Manifest(ctx, most.Snapshot)
		if err != nil && !errors.Is(err, shard.ErrNoSnapshot) {
			return nil, fmt.Errorf("the snapshot that is released: %w", err)
		}
	}
	return gate.JudgeNow(ctx, store, d, live)
}

// lately returns the snapshots that serve, or lately did. Where the log does not show all of
// that it is those that serve.
func lately(ctx context.Context, releases *release.Releases, now *release.Release) []shard.Digest {
	if list, err := releases.Live(ctx); err == nil {
		return list
	}
	var list []shard.Digest
	for _, a := range now.Arms {
		list = append(list, a.Snapshot)
	}
	return list
}
