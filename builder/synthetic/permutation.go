package synthetic

import "math/bits"

// A permutation is a keyed permutation of the numbers below n, which can be
// computed in both directions without a table: a balanced Feistel network over
// the next even power of two, walked until it lands below n. The network's
// domain is less than four times n, so a walk takes fewer than four steps on
// average.
type permutation struct {
	n    uint64
	half uint // bits of a half
	keys [4]uint64
}

func newPermutation(n, seed uint64) permutation {
	p := permutation{n: n, half: max(uint(bits.Len64(n-1)+1)/2, 1)}
	for i := range p.keys {
		p.keys[i] = mix(seed, uint64(i))
	}
	return p
}

// forward returns the image of i.
func (p *permutation) forward(i uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		l, r := i>>p.half, i&mask
		for _, k := range p.keys {
			l, r = r, l^finalize(r^k)&mask
		}
		if i = l<<p.half | r; i < p.n {
			return i
		}
	}
}

// backward returns the number whose image is j.
func (p *permutation) backward(j uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		l, r := j>>p.half, j&mask
		for i := len(p.keys) - 1; i >= 0; i-- {
			l, r = r^finalize(l^p.keys[i])&mask, l
		}
		if j = l<<p.half | r; j < p.n {
			return j
		}
	}
}
