package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/wording"
)

// Placed is one shard, and who is to hold it.
type Placed struct {
	Shard
	Members []string // no name twice; first the one that the shard prefers
}

// Load is one member, and how much it is to hold.
type Load struct {
	Member
	Shards int
	Bytes  int64
	// Share is how many bytes it would hold if shards could be cut at will: in proportion to its
	// weight, as far as copies can be on members and in zones of their own.
	Share int64
	// Bound is up to how many bytes it was given shards, as far as others could take the rest.
	Bound int64
	// Over is how many shards it was given above its bound: nobody below theirs had room, in the
	// zones where they were to be.
	Over int
}

// Short is a shard with fewer copies, or in fewer zones, than were asked for.
type Short struct {
	Shard
	Copies, WantCopies int
	Zones, WantZones   int
	Reason             string // for a person who looks
}

// maxPassed is how many members a description names that a shard prefers to those that hold it.
const maxPassed = 8

// Shards returns all shards by key, with who is to hold them.
func (p *Plan) Shards() []Placed {
	list := make([]Placed, len(p.shards))
	for i := range p.shards {
		s := &p.shards[i]
		list[i].Shard = s.Shard
		for _, h := range s.holders {
			list[i].Members = append(list[i].Members, p.members[h.member].Name)
		}
	}
	return list
}

// Held returns the shards that a member is to hold, by key, and whether there is such a
// member.
func (p *Plan) Held(name string) (list []Shard, ok bool) {
	j, ok := slices.BinarySearchFunc(p.members, name, func(m member, name string) int { return strings.Compare(m.Name, name) })
	if !ok {
		return nil, false
	}
	for _, i := range p.members[j].held {
		list = append(list, p.shards[i].Shard)
	}
	return list, true
}

// Loads returns how much each member is to hold, by name.
func (p *Plan) Loads() []Load {
	list := make([]Load, len(p.members))
	for j := range p.members {
		m := &p.members[j]
		var largest int64
		for _, i := range m.held {
			largest = max(largest, p.shards[i].Bytes)
		}
		list[j] = Load{
			Member: m.Member, Shards: len(m.held), Bytes: int64(m.load),
			Share: int64(m.share), Bound: int64(p.bound(m, largest)),
		}
	}
	for i := range p.shards {
		for _, h := range p.shards[i].holders {
			if h.over {
				list[h.member].Over++
			}
		}
	}
	return list
}

// Short returns the shards, by key, that have fewer copies than the factor, or are in fewer
// zones than there are for them, and why.
func (p *Plan) Short() []Short {
	var list []Short
	for i := range p.shards {
		s := &p.shards[i]
		zones := map[int]bool{}
		for _, h := range s.holders {
			zones[p.members[h.member].zone] = true
		}
		short := Short{
			Shard: s.Shard, Copies: len(s.holders), WantCopies: p.factor,
			Zones: len(zones), WantZones: min(p.factor, p.zones),
		}
		if short.Copies < short.WantCopies || short.Zones < short.WantZones {
			short.Reason = p.reason(s, &short)
			list = append(list, short)
		}
	}
	return list
}

// reason says why a shard is short. Loads only grow while shards are placed, so who has no
// room now had none then, or gave it to a shard that was before this one.
func (p *Plan) reason(s *shard, short *Short) string {
	if len(p.members) == 0 {
		return "there are no members"
	}
	others, room := 0, int64(0)
	for j := range p.members {
		m := &p.members[j]
		if !s.on(j) && (short.Copies < short.WantCopies || !p.inZone(s, m.zone)) {
			others++
			room = max(room, m.Weight-int64(m.load))
		}
	}
	what := fmt.Sprintf("%d of %s", short.Copies, copies(short.WantCopies))
	if short.Copies == short.WantCopies {
		what = fmt.Sprintf("%s in %d of %s", copies(short.Copies), short.Zones, wording.Plural(int64(short.WantZones), "zone"))
	}
	if others == 0 {
		return fmt.Sprintf("%s: there is no member beside the %d that hold it", what, short.Copies)
	}
	return fmt.Sprintf("%s: of %s elsewhere none has room for %s, the most is %s",
		what, wording.Plural(others, "member"), wording.Plural(s.Bytes, "byte"), wording.Count(room))
}

// Why returns, for a person who looks, why a shard is where it is: of each member that is to
// hold it how much the shard prefers it, and what was against those that it prefers to them.
// It returns false if there is no such shard.
func (p *Plan) Why(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(p.shards, key, func(s shard, key string) int { return strings.Compare(s.Key, key) })
	if !ok {
		return "", false
	}
	s := &p.shards[i]
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s) has %d of %s", s.Key, wording.Plural(s.Bytes, "byte"), len(s.holders), copies(p.factor))
	for _, h := range s.holders {
		text.WriteString("; on ")
		p.tellHolder(&text, h)
	}
	last := 0
	if len(s.holders) > 0 {
		last = s.holders[len(s.holders)-1].rank
	}
	passed := 0
	for rank, j := range p.rank(s.hash, len(p.members))[:last] {
		if s.on(j) {
			continue
		}
		if passed++; passed <= maxPassed {
			fmt.Fprintf(&text, "; not on %s, its choice %d: %s", p.named(j), rank+1, p.against(s, j, rank))
		}
	}
	if passed > maxPassed {
		fmt.Fprintf(&text, "; nor on %d more", passed-maxPassed)
	}
	return text.String(), true
}

// tellHolder writes who holds a shard.
func (p *Plan) tellHolder(text *strings.Builder, h holder) {
	fmt.Fprintf(text, "%s, its choice %d", p.named(h.member), h.rank+1)
	if h.over {
		text.WriteString(" and above its bound, since nobody below theirs could take it")
	}
}

// named returns a member's name, with its zone if it has one.
func (p *Plan) named(j int) string {
	m := &p.members[j]
	if m.Zone == "" {
		return m.Name
	}
	return fmt.Sprintf("%s (zone %s)", m.Name, m.Zone)
}

// against returns why a member that a shard prefers does not hold it. Loads only grow while
// shards are placed, so what was against it then still is.
func (p *Plan) against(s *shard, j, rank int) string {
	m := &p.members[j]
	// A copy in this zone on a member that the shard prefers less is there because this one
	// was at its bound.
	apart := slices.ContainsFunc(s.holders, func(h holder) bool { return h.rank < rank && p.members[h.member].zone == m.zone })
	switch {
	case !m.fits(s.Bytes):
		return fmt.Sprintf("no room, it holds %s of %s", wording.Count(int64(m.load)), wording.Plural(m.Weight, "byte"))
	case apart:
		return "another copy is in its zone"
	default:
		return fmt.Sprintf("at its bound, it holds %s, and its share is %s", wording.Plural(int64(m.load), "byte"), wording.Count(int64(m.share)))
	}
}

// copies formats a number of copies.
func copies(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}
