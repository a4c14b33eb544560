package audit

import (
	"math"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
)

// Where shards are on nodes, each shard of an answer is of one of the nodes that have it. If one of
// them has a graph that is damaged, the recall of answers is a mean over those that it took part
// in and others, and over its shards and those of other nodes: with many of either it stays above
// the floor. So there is a stratum for each node, of the audits that it took part in: which share
// of the rows that the exact answer has of its shards it has found. Its alarms name it, and roll
// nothing back by themselves, since no snapshot is known to be bad for them.

const (
	// maxNodes is how many nodes of an arm have a stratum each. Others have none.
	maxNodes = 64
	// goneAfter is after how long without audits nothing is said of a node any more.
	goneAfter = windowTime
)

// fromOf returns who has answered for each shard; nil if that was this process.
func fromOf(found *shard.Answer) []string {
	if len(found.Shards) == 0 || found.Shards[0].From == "" {
		return nil
	}
	from := make([]string, len(found.Shards))
	for i := range found.Shards {
		from[i] = found.Shards[i].From
	}
	return from
}

// share is what a node has found of the rows that it should have.
type share struct{ found, of int }

// sharesOf returns what each node has found of the exact answer, by who has answered for each
// shard of the hash partition. What scores as the last of the exact answer does, within the
// tolerance, does not count unless it was found: something else may stand for it.
func sharesOf(exact, found []shard.Candidate, from []string) map[string]share {
	if len(from) == 0 || len(exact) == 0 {
		return nil
	}
	ids := make(map[string]struct{}, len(found))
	for i := range found {
		ids[found[i].ID] = struct{}{}
	}
	last := float64(exact[len(exact)-1].Score)
	near := tolerance * math.Abs(last)
	shares := map[string]share{}
	for i := range exact {
		_, in := ids[exact[i].ID]
		if !in && math.Abs(float64(exact[i].Score)-last) <= near {
			continue
		}
		node := from[shard.Partition(exact[i].ID, len(from))]
		s := shares[node]
		s.of++
		if in {
			s.found++
		}
		shares[node] = s
	}
	return shares
}

// addNodes adds what nodes have found. The auditor's mu is held.
func (w *worker) addNodes(it *item, shares map[string]share, now time.Time) {
	if it.why&uniform == 0 {
		return
	}
	for name, of := range shares {
		if s := it.arm.node(name, now); s != nil {
			w.changed(it.arm, s, s.add(now, float64(of.found)/float64(of.of), it.reference), now)
		}
	}
}

// node returns the stratum of a node; nil if there are too many.
func (arm *Arm) node(name string, now time.Time) *stratum {
	if s := arm.nodes[name]; s != nil {
		return s
	}
	if name == "" || len(arm.nodes) == maxNodes {
		return nil
	}
	s := newStratum(Node, name, RateOf(Node, 0), now)
	if arm.nodes == nil {
		arm.nodes = map[string]*stratum{}
	}
	arm.nodes[name] = s
	i := len(arm.strata)
	for ; arm.strata[i-1].kind == Node && arm.strata[i-1].name > name; i-- {
	}
	arm.strata = slices.Insert(arm.strata, i, s)
	return s
}

// forget lets go of nodes that have taken part in nothing for long: they may be no more. The
// auditor's mu is held.
func (w *worker) forget(now time.Time) {
	for _, arm := range w.arms {
		for name, s := range arm.nodes {
			if now.Sub(s.last).Abs() <= goneAfter {
				continue
			}
			delete(arm.nodes, name)
			arm.strata = slices.DeleteFunc(arm.strata, func(one *stratum) bool { return one == s })
			if s.alarm != nil {
				w.changed(arm, s, cleared, now)
			}
		}
	}
}

// lowNodes returns the names of the nodes of an arm that have an alarm. The auditor's mu is held.
func (arm *Arm) lowNodes() (names []string) {
	for _, s := range arm.strata {
		if s.kind == Node && s.alarm != nil {
			names = append(names, s.name)
		}
	}
	return names
}

// tellFailed tells that audits cannot be done.
func (w *worker) tellFailed(arm *Arm, err error) {
	w.c.Events.Recall(events.Recall{Change: events.RecallUnaudited, Generation: arm.Generation, Arm: arm.Name, Snapshot: arm.Snapshot, Err: err})
}
