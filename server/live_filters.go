package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/querylog"
	"github.com/tandem-ann/tandem/shard"
)

// LiveFilter is the filter and the segment that recorded queries had, with bindings of the
// same types.
type LiveFilter struct {
	Tower      shard.Kind // whose rows were asked for
	Segment    string
	Expression string
	Bindings   map[string]any // of the last of them, as package eligibility takes them
	Queries    int
	Last       time.Time
}

// LiveFilters are the filters of recorded queries.
type LiveFilters struct {
	List []LiveFilter
	// Queries is how many were read, and Beyond how many of them had a filter that is not
	// in the list, because it has [MaxLiveFilters].
	Queries, Beyond int
}

// MaxLiveFilters is how many filters are kept apart.
const MaxLiveFilters = 10_000

// ReadLiveFilters returns the filters of the queries that were recorded since a time, in
// the order in which they came first. A request that cannot be decoded is an error.
func ReadLiveFilters(ctx context.Context, log *querylog.Log, since time.Time) (*LiveFilters, error) {
	out := &LiveFilters{}
	known := map[string]int{}
	for q, err := range log.Queries(ctx, since, time.Time{}) {
		if err != nil {
			return nil, err
		}
		out.Queries++
		if q.Filter == "" && q.Segment == "" {
			continue
		}
		r, err := q.Decode()
		if err != nil {
			return nil, fmt.Errorf("read log: %s: %w", log.Location(), err)
		}
		values, err := bindings(ctx, r.Bindings)
		if err != nil {
			return nil, fmt.Errorf("read log: %s: request %.80q: %w", log.Location(), q.RequestID, err)
		}
		key := filterKey(r, values)
		i, ok := known[key]
		switch {
		case !ok && len(out.List) == MaxLiveFilters:
			out.Beyond++
			continue
		case !ok:
			i, known[key] = len(out.List), len(out.List)
			out.List = append(out.List, LiveFilter{Tower: kindOf(r.Target), Segment: r.Segment, Expression: r.Filter})
		}
		f := &out.List[i]
		if f.Queries++; !q.Time.Before(f.Last) {
			f.Last, f.Bindings = q.Time, values
		}
	}
	return out, nil
}

// filterKey is the same for requests whose filters compile and bind alike, but for values
// that are out of bounds.
func filterKey(r *tandemv1.RetrieveRequest, values map[string]any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\x00%s\x00%s", kindOf(r.Target), r.Segment, r.Filter)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		kind := fmt.Sprintf("%T", values[name])
		if list, ok := values[name].([]any); ok {
			kinds := map[string]bool{}
			for _, x := range list {
				kinds[fmt.Sprintf("%T", x)] = true
			}
			kind += strings.Join(slices.Sorted(maps.Keys(kinds)), ",")
		}
		fmt.Fprintf(&b, "\x00%s %s", name, kind)
	}
	return b.String()
}
