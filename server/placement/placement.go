package placement

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Bounds of what is placed. No sum of bytes or of weights leaves 64 bits.
const (
	MaxMembers = 4096
	MaxShards  = 2 * 4096
	MaxBytes   = 1 << 46 // of one shard, and of one member's weight
	MaxFactor  = 16
	MaxName    = 256 // bytes of a name, a zone, a key
)

// DefaultWeight is what a member without a weight counts as, in bytes, beside those that
// have one.
const DefaultWeight = 64 << 30

// Member is one node that may hold shards.
type Member struct {
	Name string // no other member's
	Zone string // what fails as one; members that name none are in one zone, too
	// Weight is how many bytes the member may map: what it has, not what is free at a moment, since
	// its share of all shards is in proportion to it. A member of weight 0 counts as one of
	// [DefaultWeight], and nothing is too large for it.
	Weight int64
}

// Shard is what is placed: the same number of one tower in all snapshots that are needed, so
// that a new snapshot goes where the one before it is.
type Shard struct {
	Key   string // such as "apps/3"; no other shard's
	Bytes int64  // over all snapshots that are needed, at least 1
}

// Plan is who holds what. It is immutable, and safe for concurrent use.
type Plan struct {
	factor  int
	members []member // by name
	shards  []shard  // by key
	zones   int
	all     uint64 // bytes of all copies that are to be
	unit    uint64 // bytes of the shard that a byte is in, in the mean
}

// member is one node with what it holds.
type member struct {
	Member
	hash   uint64
	weight uint64 // that it counts as
	zone   int
	share  uint64 // bytes that it would hold if all were divided by weight
	load   uint64 // bytes that it holds
	held   []int  // shards, by their places in the plan
}

// shard is one shard with who holds it.
type shard struct {
	Shard
	hash    uint64
	holders []holder // in the order of their ranks
}

// holder is a member that holds a shard, and what was given up for that.
type holder struct {
	member int
	rank   int  // in the order in which the shard prefers members: 0 is first
	over   bool // the member is given it above its bound
}

// Place decides which members hold which shards: each shard is on as many members as factor
// says, in as many zones as there are, if there are so many and they have room. The plan
// depends on nothing else, not on the order of members and shards, nor on the machine.
//
// Where sizes allow, no member holds more than five quarters of its share, and then less than
// one shard, and up to two more where members have few shards each; see the package's doc. What is
// a shard here is the mean size over all bytes, or the size of the one placed if that is larger.
//
// It takes time in proportion to members times shards. It returns an error that says which
// value is not accepted; that a shard finds no place is none, see [Plan.Short].
func Place(members []Member, shards []Shard, factor int) (*Plan, error) {
	if factor < 1 || factor > MaxFactor {
		return nil, fmt.Errorf("place shards: factor is %d, want 1 to %d", factor, MaxFactor)
	}
	p := &Plan{factor: factor}
	if err := p.addMembers(members); err != nil {
		return nil, fmt.Errorf("place shards: %w", err)
	}
	if err := p.addShards(shards); err != nil {
		return nil, fmt.Errorf("place shards: %w", err)
	}
	p.divide()
	p.place()
	return p, nil
}

// addMembers takes in the members, by name.
func (p *Plan) addMembers(list []Member) error {
	if len(list) > MaxMembers {
		return fmt.Errorf("there are %d members, want at most %d", len(list), MaxMembers)
	}
	for i, m := range list {
		switch {
		case m.Name == "" || len(m.Name) > MaxName:
			return fmt.Errorf("member number %d: name has %d bytes, want 1 to %d", i, len(m.Name), MaxName)
		case len(m.Zone) > MaxName:
			return fmt.Errorf("member %q: zone has %d bytes, want at most %d", m.Name, len(m.Zone), MaxName)
		case m.Weight < 0 || m.Weight > MaxBytes:
			return fmt.Errorf("member %q: weight is %d bytes, want 0 to %d", m.Name, m.Weight, int64(MaxBytes))
		}
		weight := uint64(cmp.Or(m.Weight, DefaultWeight))
		p.members = append(p.members, member{Member: m, hash: xxhash.Sum64String(m.Name), weight: weight})
	}
	slices.SortFunc(p.members, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	for i := range p.members[min(1, len(p.members)):] {
		if p.members[i].Name == p.members[i+1].Name {
			return fmt.Errorf("member %q is there twice, want every name once", p.members[i].Name)
		}
	}
	zones := map[string]int{}
	for i := range p.members {
		m := &p.members[i]
		if _, ok := zones[m.Zone]; !ok {
			zones[m.Zone] = len(zones)
		}
		m.zone = zones[m.Zone]
	}
	p.zones = len(zones)
	return nil
}

// addShards takes in the shards, by key.
func (p *Plan) addShards(list []Shard) error {
	if len(list) > MaxShards {
		return fmt.Errorf("there are %d shards, want at most %d", len(list), MaxShards)
	}
	for i, s := range list {
		switch {
		case s.Key == "" || len(s.Key) > MaxName:
			return fmt.Errorf("shard number %d: key has %d bytes, want 1 to %d", i, len(s.Key), MaxName)
		case s.Bytes < 1 || s.Bytes > MaxBytes:
			return fmt.Errorf("shard %q has %d bytes, want 1 to %d", s.Key, s.Bytes, int64(MaxBytes))
		}
		p.shards = append(p.shards, shard{Shard: s, hash: xxhash.Sum64String(s.Key)})
	}
	slices.SortFunc(p.shards, func(a, b shard) int { return strings.Compare(a.Key, b.Key) })
	for i := range p.shards[min(1, len(p.shards)):] {
		if p.shards[i].Key == p.shards[i+1].Key {
			return fmt.Errorf("shard %q is there twice, want every key once", p.shards[i].Key)
		}
	}
	return nil
}

// place gives every shard its members.
func (p *Plan) place() {
	order := make([]int, len(p.shards))
	for i := range order {
		order[i] = i
	}
	// Large shards first: small ones find room between them, and what is small never moves
	// what is large. Sizes are compared by their powers of two, so that a release seldom
	// changes the order.
	slices.SortFunc(order, func(a, b int) int {
		x, y := &p.shards[a], &p.shards[b]
		return cmp.Or(
			cmp.Compare(bits.Len64(uint64(y.Bytes)), bits.Len64(uint64(x.Bytes))),
			cmp.Compare(x.hash, y.hash), cmp.Compare(a, b))
	})
	// With all its copies at once a shard takes the same members whichever it likes best, so
	// less moves than if first copies always went before second ones. But no second copy may
	// leave another shard without one.
	p.fill(order, p.factor)
	if slices.ContainsFunc(p.shards, func(s shard) bool { return len(s.holders) == 0 }) {
		for j := range p.members {
			p.members[j].load = 0
		}
		for i := range p.shards {
			p.shards[i].holders = nil
		}
		p.fill(order, 1)
	}
	for i := range p.shards {
		s := &p.shards[i]
		slices.SortFunc(s.holders, func(a, b holder) int { return cmp.Compare(a.rank, b.rank) })
		for _, h := range s.holders {
			p.members[h.member].held = append(p.members[h.member].held, i)
		}
	}
}

// fill lets shards take members one after the other, so many copies at once.
func (p *Plan) fill(order []int, atOnce int) {
	ranked := make([]ranking, len(p.shards))
	for copies := 0; copies < p.factor; copies += atOnce {
		for _, i := range order {
			if ranked[i] == nil {
				ranked[i] = p.rank(p.shards[i].hash, few)
			}
			for range atOnce {
				if !p.add(i, ranked[i], rules[:1]) {
					if len(ranked[i]) < len(p.members) {
						ranked[i] = p.rank(p.shards[i].hash, len(p.members))
					}
					p.add(i, ranked[i], rules)
				}
			}
		}
	}
}

// rule is what a member must be to take a shard, beside having memory for it.
type rule struct{ apart, bounded bool }

// rules are in the order in which they are given up.
var rules = []rule{{apart: true, bounded: true}, {apart: true}, {bounded: true}, {}}

// add gives a shard one more member, the first of those ranked that a rule allows, and
// returns whether there is one.
func (p *Plan) add(i int, ranked ranking, rules []rule) bool {
	s := &p.shards[i]
	everywhere := p.inEvery(s)
	for _, r := range rules {
		r.apart = r.apart && !everywhere
		for rank, j := range ranked {
			m := &p.members[j]
			if s.on(j) || !m.fits(s.Bytes) || r.bounded && !p.below(m, s.Bytes) || r.apart && p.inZone(s, m.zone) {
				continue
			}
			m.load += uint64(s.Bytes)
			s.holders = append(s.holders, holder{member: j, rank: rank, over: !r.bounded})
			return true
		}
	}
	return false
}

// on returns whether a shard is on a member.
func (s *shard) on(member int) bool {
	return slices.ContainsFunc(s.holders, func(h holder) bool { return h.member == member })
}

// inZone returns whether a shard is on a member of a zone.
func (p *Plan) inZone(s *shard, zone int) bool {
	return slices.ContainsFunc(s.holders, func(h holder) bool { return p.members[h.member].zone == zone })
}

// inEvery returns whether a shard is in every zone, so that another copy cannot be apart.
func (p *Plan) inEvery(s *shard) bool {
	zones := 0
	for i, h := range s.holders {
		zone := p.members[h.member].zone
		if !slices.ContainsFunc(s.holders[:i], func(h holder) bool { return p.members[h.member].zone == zone }) {
			zones++
		}
	}
	return zones == p.zones
}

// fits returns whether a member has memory for so many bytes more.
func (m *member) fits(size int64) bool {
	return m.Weight == 0 || m.load+uint64(size) <= uint64(m.Weight)
}

// below returns whether a member would stay within its bound with so many bytes more.
func (p *Plan) below(m *member, size int64) bool {
	return m.load+uint64(size) <= p.bound(m, size)
}

// bound returns how many bytes a member holds at most with a shard of this size, unless no
// member is below its bound: five quarters of its share, and some shards, see [Place].
func (p *Plan) bound(m *member, size int64) uint64 {
	unit := max(uint64(size), p.unit)
	// How many shards a member has is a matter of chance where a new one takes less than one
	// from each other. Then the bound must not bind often, or a shard that moves pushes another
	// on: half as many shards are added as it takes members like this one for one of
	// its shards each, at most two.
	slack := min(2*unit, mulDiv(mulDiv(unit, p.all, m.share), unit, m.share)/2)
	// Bounds of members that are alike would fall below a whole number of shards all at once.
	// So each has its own part of a shard above them.
	own := mulDiv(unit, m.hash>>1, 1<<63)
	return m.share + m.share/4 + slack + own
}
