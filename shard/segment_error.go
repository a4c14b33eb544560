package shard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/wording"
)

// SegmentError says that a tower does not have the segment that a query names.
type SegmentError struct {
	Name  string
	Tower Kind
	Known []string // the tower's segments, ascending
}

// Error lists the tower's segments, or if they are many, those whose names are
// nearest.
func (e *SegmentError) Error() string {
	tower := strings.TrimSuffix(string(e.Tower), "s")
	if len(e.Known) == 0 {
		return fmt.Sprintf("segment %.80q is asked for; accepted: none, the %s tower has no segments", e.Name, tower)
	}
	const most = 20
	names, more := e.Known, ""
	if len(names) > most {
		names = nearest(e.Name, names)[:most]
		more = fmt.Sprintf(" and %d more", len(e.Known)-most)
	}
	return fmt.Sprintf("segment %.80q is none of the %s tower's; accepted: %s%s", e.Name, tower, strings.Join(names, ", "), more)
}

// Unwrap makes it an error of class [index.ErrQuery].
func (e *SegmentError) Unwrap() error { return index.ErrQuery }

// nearest returns the names in ascending order of their distance from one that was
// perhaps mistyped.
func nearest(name string, names []string) []string {
	name = name[:min(len(name), 2*MaxSegmentName)]
	distance := make(map[string]int, len(names))
	for _, n := range names {
		distance[n] = wording.Distance(name, n)
	}
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance[a], distance[b]) })
	return names
}
