package node

import (
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/placement"
)

// away is a member that is not listed any more, and until when shards are placed as if it were: one
// that restarts would else have others load what it holds, who let go of it once it is back.
type away struct {
	placement.Member
	until time.Time
}

// tell takes in who there is. The caller has the lock.
func (n *Node) tell(list []placement.Member) {
	names := make(map[string]bool, len(list))
	for _, m := range list {
		names[m.Name] = true
		delete(n.away, m.Name)
	}
	var left []string
	for _, m := range n.members {
		if !names[m.Name] && n.c.Grace > 0 {
			n.away[m.Name] = away{m, time.Now().Add(n.c.Grace)}
			left = append(left, m.Name)
		}
	}
	n.members = append([]placement.Member{}, list...)
	if len(left) > 0 {
		n.events.Held(events.Held{Change: events.HeldAway, Node: slices.Min(left), Nodes: len(left), Retry: n.c.Grace})
	}
}

// placeable returns the members, and with them those that are away and may be back in time. The caller
// has the lock.
func (n *Node) placeable() []placement.Member {
	list := slices.Clone(n.members)
	for name, a := range n.away {
		if time.Now().Before(a.until) {
			list = append(list, a.Member)
		} else {
			delete(n.away, name)
		}
	}
	if len(list) > len(n.members) {
		slices.SortFunc(list, func(a, b placement.Member) int { return strings.Compare(a.Name, b.Name) })
	}
	return list
}

// place computes who is to hold shards. Those that are away count only while each shard has one member
// that is not: what nobody else would hold is not to wait for them. The caller has the lock.
func (n *Node) place(list []placement.Member, shards []placement.Shard) (*placement.Plan, error) {
	plan, err := placement.Place(list, shards, n.c.Factor)
	if err != nil || len(list) == len(n.members) {
		return plan, err
	}
	isAway := func(name string) bool { _, is := n.away[name]; return is }
	for _, p := range plan.Shards() {
		if !slices.ContainsFunc(p.Members, func(name string) bool { return !isAway(name) }) {
			return placement.Place(n.members, shards, n.c.Factor)
		}
	}
	return plan, nil
}

// back returns when the first of those that are away is not waited for any more; zero if none is away.
// The caller has the lock.
func (n *Node) back() (first time.Time) {
	for _, a := range n.away {
		if first.IsZero() || a.until.Before(first) {
			first = a.until
		}
	}
	return first
}
