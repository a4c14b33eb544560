package gates

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	// liveWindow is how far back recorded queries are looked at.
	liveWindow = 7 * 24 * time.Hour
	// livePatience is how long reading them may take.
	livePatience = time.Minute
)

// LiveFilters returns what reads the filters of the queries that a store has recorded
// lately, for [CheckFilters]. Where that takes too long it is what was read until then.
func LiveFilters(store *snapshots.Store) func(context.Context) (*querylog.LiveFilters, error) {
	return func(ctx context.Context) (*querylog.LiveFilters, error) {
		bounded, cancel := context.WithTimeout(ctx, livePatience)
		defer cancel()
		found, err := querylog.ReadLiveFilters(bounded, querylog.Of(store.Objects()), time.Now().Add(-liveWindow))
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			found.Unread = fmt.Sprintf("those of the last %d days take more than %s to read", int(liveWindow.Hours()/24), livePatience)
			err = nil
		}
		return found, err
	}
}
