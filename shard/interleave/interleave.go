// Package interleave draws one answer from those of two arms, by team-draft (Radlinski, Kurup,
// Joachims, How does clickthrough data reflect retrieval quality?, CIKM 2008), so that what users
// do with it says which arm they prefer. [Draft] is a function of its arguments and of nothing
// else. Package server answers by it; bench/feedback measures what it finds.
package interleave

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Team is who has drawn a candidate: the first arm or the second.
type Team int

// The teams.
const (
	First  Team = 0
	Second Team = 1
)

// Pick is a candidate of an answer.
type Pick struct {
	ID   string
	Team Team
	// Rank is its place in the list of its team, from 0 on.
	Rank int
}

// Drawn is what a draft amounts to.
type Drawn struct {
	// Picks are at most k, no id twice, best first.
	Picks []Pick
	// Read is how many candidates of each list were looked at. A list that is read to its end
	// while there are fewer than k picks may have had more to say: the draft of longer lists
	// begins with other picks only after those that were made before that team was out.
	Read [2]int
	// Out is how many picks there were when a team had no candidate at its turn, for each team; -1
	// if that was never so.
	Out [2]int
}

// Draft draws at most k candidates from the lists of two arms, each best first. It goes in
// rounds: in each a fair coin, by the seed and the round, says which team picks first, and each
// team takes the first of its list that nobody has taken. May, if not nil, is asked once for each
// candidate at its turn whether it may be in the answer beside those before it; one that may not
// is passed over for good. A team whose list is at its end leaves its turns to the other one.
func Draft(lists [2][]string, k int, seed uint64, may func(Pick) bool) Drawn {
	return Further(lists, 0, k, seed, may)
}

// Further goes on with a draft of which so many picks were made before, with what is left of the
// lists: if no team was out by then, both drafts together are one. What was picked before is the
// caller's to leave out.
func Further(lists [2][]string, before, k int, seed uint64, may func(Pick) bool) Drawn {
	d := Drawn{Out: [2]int{-1, -1}}
	taken := make(map[string]struct{}, k)
	pick := func(team Team) bool {
		list := lists[team]
		for d.Read[team] < len(list) {
			at := d.Read[team]
			d.Read[team]++
			id := list[at]
			if _, there := taken[id]; there {
				continue
			}
			taken[id] = struct{}{} // passed over for good, by the other team too
			if p := (Pick{id, team, at}); may == nil || may(p) {
				d.Picks = append(d.Picks, p)
				return true
			}
		}
		if d.Out[team] < 0 {
			d.Out[team] = len(d.Picks)
		}
		return false
	}
	half := before%2 == 1 // whether the round at hand is, of which the first team has picked
	for round := uint64(before / 2); len(d.Picks) < k; round++ {
		first := coin(seed, round)
		one := !half && pick(first)
		other := len(d.Picks) < k && pick(1-first)
		if !one && !other && !half {
			break
		}
		half = false
	}
	return d
}

// coin returns which team picks first in a round.
func coin(seed, round uint64) Team {
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:8], seed)
	binary.LittleEndian.PutUint64(key[8:], round)
	return Team(xxhash.Sum64(key[:]) >> 63)
}
