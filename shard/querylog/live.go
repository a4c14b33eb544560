package querylog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// LiveFilter is what live queries asked for beside their vectors: those of one filter,
// segment and tower, with bindings of the same kinds.
type LiveFilter struct {
	Tower      shard.Kind // whose rows were asked for; empty if that is not known
	Segment    string     // empty without
	Expression string     // empty without
	// Bindings are the kinds of those that were given, nil if they are not known.
	Bindings map[string]eligibility.Kind
	Queries  int
	Last     time.Time
}

// LiveFilters are those of recorded queries.
type LiveFilters struct {
	List []LiveFilter
	// Queries is how many were recorded since then, those without a filter included, and
	// Beyond how many had one that is not in the list, because it has [MaxLiveFilters].
	Queries, Beyond int
	Since           time.Time
	// Unread says what of them could not be read, and why; empty if all could.
	Unread string
}

// MaxLiveFilters is how many filters are kept apart.
const MaxLiveFilters = 10_000

// ReadLiveFilters returns the filters of the queries that were recorded since a time, in
// the order in which they came first. Files that are damaged are passed over, and said to
// be. With an error comes what was read before it.
func ReadLiveFilters(ctx context.Context, log *Log, since time.Time) (*LiveFilters, error) {
	out := &LiveFilters{Since: since}
	known := map[string]int{}
	damaged, more := 0, "" // files
	for q, err := range log.Queries(ctx, since, time.Time{}) {
		if errors.Is(err, ErrDamaged) {
			damaged++
			if out.Unread = cmp.Or(out.Unread, err.Error()); damaged > 1 {
				more = fmt.Sprintf("; and %d more of its files", damaged-1)
			}
			continue
		}
		if err != nil {
			return out, err
		}
		out.Queries++
		if q.Filter == "" && q.Segment == "" {
			continue
		}
		f := liveFilter(q)
		key := fmt.Sprintf("%s\x00%s\x00%s\x00%s", f.Tower, f.Segment, f.Expression, encodeBindings(f.Bindings))
		i, ok := known[key]
		switch {
		case !ok && len(out.List) == MaxLiveFilters:
			out.Beyond++
			continue
		case !ok:
			i, known[key] = len(out.List), len(out.List)
			out.List = append(out.List, f)
		}
		if one := &out.List[i]; !q.Time.Before(one.Last) {
			one.Last = q.Time
		}
		out.List[i].Queries++
	}
	out.Unread += more
	return out, nil
}

// liveFilter returns the filter of a query. A tower or a kind that this build does not know
// is as good as none.
func liveFilter(q *Query) LiveFilter {
	f := LiveFilter{Segment: q.Segment, Expression: q.Filter, Bindings: q.Bindings}
	if q.Tower == shard.Apps || q.Tower == shard.Users {
		f.Tower = q.Tower
	}
	for _, kind := range f.Bindings {
		if !kind.Known() {
			f.Bindings = nil
			break
		}
	}
	return f
}
