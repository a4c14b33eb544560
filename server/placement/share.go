package placement

import (
	"math"
	"math/bits"
)

// divide gives every member its share: the bytes that it would hold if shards could be cut at
// will. That is in proportion to its weight as far as copies can be apart: no member has more
// than each shard once, no zone either if there are as many zones as copies, and if there are
// fewer, no zone has less.
func (p *Plan) divide() {
	copies := min(p.factor, len(p.members))
	zones := make([][]*member, p.zones)
	for j := range p.members {
		m := &p.members[j]
		zones[m.zone] = append(zones[m.zone], m)
	}
	total := p.measure()
	p.all = total * uint64(copies)
	if p.zones >= copies {
		weights := make([]uint64, p.zones)
		for z, list := range zones {
			weights[z] = sumWeights(list)
		}
		for z, share := range capped(weights, total, copies) {
			proportional(zones[z], share)
		}
		return
	}
	p.divideAmongFew(zones, total, copies)
}

// measure returns the bytes of all shards, and finds their mean size over bytes, which is that
// of the large ones: it is they by which chance makes loads unequal.
func (p *Plan) measure() (total uint64) {
	var hi, lo, carry uint64 // of the sum of squares
	for i := range p.shards {
		size := uint64(p.shards[i].Bytes)
		total += size
		h, l := bits.Mul64(size, size)
		lo, carry = bits.Add64(lo, l, 0)
		hi += h + carry
	}
	if total > 0 {
		p.unit, _ = bits.Div64(hi, lo, total)
	}
	return total
}

// divideAmongFew divides among fewer zones than copies.
func (p *Plan) divideAmongFew(zones [][]*member, total uint64, copies int) {
	for again := true; again; {
		again = false
		var rest []*member
		for _, list := range zones {
			rest = append(rest, list...)
		}
		weights := make([]uint64, len(rest))
		for i, m := range rest {
			weights[i] = m.weight
		}
		for i, share := range capped(weights, total, copies) {
			rest[i].share = share
		}
		for z, list := range zones {
			var sum uint64
			for _, m := range list {
				sum += m.share
			}
			// Rounding takes less than a byte of each member.
			if len(list) > 0 && sum+uint64(len(rest)) < total {
				proportional(list, total)
				zones[z], copies, again = nil, copies-1, true
				break
			}
		}
	}
}

// capped divides total bytes, copies times, in proportion to weights, but gives nobody more
// than total.
func capped(weights []uint64, total uint64, copies int) []uint64 {
	shares := make([]uint64, len(weights))
	full := make([]bool, len(weights))
	for again := true; again; {
		again = false
		var sum uint64
		for i, w := range weights {
			if !full[i] {
				sum += w
			}
		}
		left := copies
		for _, f := range full {
			if f {
				left--
			}
		}
		for i, w := range weights {
			switch {
			case full[i]:
				shares[i] = total
			case uint64(left)*w >= sum:
				full[i], again = true, true
			default:
				shares[i] = mulDiv(total*uint64(left), w, sum)
			}
		}
	}
	return shares
}

// proportional divides total bytes among members by their weights.
func proportional(list []*member, total uint64) {
	sum := sumWeights(list)
	for _, m := range list {
		m.share = mulDiv(total, m.weight, sum)
	}
}

func sumWeights(list []*member) (sum uint64) {
	for _, m := range list {
		sum += m.weight
	}
	return sum
}

// mulDiv returns a*b/c, or the largest number if that is larger.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return math.MaxUint64
	}
	quotient, _ := bits.Div64(hi, lo, c)
	return quotient
}
